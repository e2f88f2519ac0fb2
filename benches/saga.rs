//! How many sagas a second: in memory, on a SQLite file, and on PostgreSQL by the number of workers.
//!
//! `cargo bench --bench saga -- [memory] [sqlite] [postgres]`; for the latter `scripts/servers cargo bench ..`, or a server in
//! `STEADFAST_POSTGRES`. Each saga has three steps, so four durable writes, and each row is the median of five rounds.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{env, fs, process};

use futures::future::join_all;
use steadfast::Key;
use steadfast::saga::journal::{Journal, MemoryJournal, PostgresJournal, SqliteJournal};
use steadfast::saga::{Cx, Saga, SagaEngine, StepResult};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

/// How many rounds, and how long each. Run as a test it only has to work.
static PACE: LazyLock<(usize, Duration)> = LazyLock::new(|| {
    if env::args().any(|arg| arg == "--bench") {
        (5, Duration::from_millis(1_500))
    } else {
        (1, Duration::from_millis(20))
    }
});
/// What a step of a worker waits for: another service's answer.
const ANSWER: Duration = Duration::from_millis(20);
/// How many sagas a worker drives at a time.
const PLACES: usize = 8;

fn main() {
    // Cargo adds `--bench`; what has no dash is the name of a row.
    let wanted: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runtime = Runtime::new().expect("a runtime can be built");
    println!("| where | at a time | sagas a second |");
    println!("|---|---:|---:|");
    if runs("memory") {
        for clients in [1, 32] {
            let saga = saga(Duration::ZERO);
            print("in memory, `saga.run`", clients, || {
                let saga = saga.clone();
                rate(&runtime, clients, move |_| {
                    let saga = saga.clone();
                    async move {
                        let _ = saga.run(0).await.expect("it completes");
                    }
                })
            });
            print("in memory, an engine", clients, || {
                started(&runtime, MemoryJournal::with_max_sagas(usize::MAX), clients)
            });
        }
    }
    if runs("sqlite") {
        let folder = Folder::new();
        for clients in [1, 32, 256] {
            let journal = runtime.block_on(sqlite(&folder, clients));
            print("SQLite", clients, || started(&runtime, journal.clone(), clients));
        }
    }
    if runs("postgres") {
        let Ok(url) = env::var("STEADFAST_POSTGRES") else {
            eprintln!("skipped: STEADFAST_POSTGRES is not set");
            return;
        };
        let connect = || {
            runtime
                .block_on(PostgresJournal::connect(&url))
                .expect("the server answers")
        };
        runtime.block_on(connect().migrate()).expect("it can be migrated");
        for clients in [1, 32] {
            print("PostgreSQL", clients, || started(&runtime, connect(), clients));
        }
        for workers in [1, 2, 4] {
            let places = workers * PLACES;
            let row = format!(
                "PostgreSQL, {workers} workers of {PLACES}, steps of {} ms",
                ANSWER.as_millis()
            );
            print(&row, places, || {
                worked(&runtime, (0..workers).map(|_| connect()).collect())
            });
        }
    }
}

fn saga(answer: Duration) -> Saga<u64> {
    let act = async move |cx: &mut Cx<u64>| -> StepResult {
        if !answer.is_zero() {
            sleep(answer).await;
        }
        **cx += 1;
        Ok(())
    };
    let undo = async |_: &mut Cx<u64>| Ok(());
    let name = format!("bench-{}", process::id());
    let saga = Saga::builder(name)
        .step("a", act, undo)
        .step("b", act, undo)
        .step("c", act, undo);
    saga.build().expect("the definition makes sense")
}

fn print(row: &str, at_a_time: usize, mut run: impl FnMut() -> f64) {
    let mut rates: Vec<_> = (0..PACE.0).map(|_| run()).collect();
    rates.sort_by(f64::total_cmp);
    println!("| {row} | {at_a_time} | {:.0} |", rates[rates.len() / 2]);
}

/// Clients that each start a saga and wait for its end, over and over.
fn started(runtime: &Runtime, journal: impl Journal, clients: usize) -> f64 {
    let saga = saga(Duration::ZERO);
    let engine = runtime.block_on(async {
        let engine = SagaEngine::builder(journal).register(&saga).max_concurrent(clients);
        engine.build().expect("the settings make sense")
    });
    rate(runtime, clients, move |n| {
        let (saga, engine) = (saga.clone(), engine.clone());
        async move {
            let started = engine.start(&saga, &key(n), n).await.expect("it is started");
            started.await.expect("it completes");
        }
    })
}

/// Engines that share a journal work off what is in it.
fn worked(runtime: &Runtime, journals: Vec<PostgresJournal>) -> f64 {
    let saga = saga(ANSWER);
    runtime.block_on(async {
        let client = SagaEngine::builder(journals[0].clone())
            .register(&saga)
            .max_concurrent(0);
        let client = client.build().expect("the settings make sense");
        // More than the workers can do in the time.
        let most =
            PACE.1.as_millis() / (3 * ANSWER.as_millis()) * u128::try_from(journals.len() * PLACES).expect("few") + 1;
        let mut waiting = Vec::new();
        for _ in 0..most {
            let n = next();
            waiting.push(client.start(&saga, &key(n), n).await.expect("it is started"));
        }
        let (began, ended) = (Instant::now(), waiting.len());
        let workers: Vec<_> = journals
            .into_iter()
            .map(|journal| {
                let worker = SagaEngine::builder(journal).register(&saga).max_concurrent(PLACES);
                let worker = worker.poll_interval(Duration::from_millis(20));
                worker.build().expect("the settings make sense")
            })
            .collect();
        while client.counts().await.expect("the journal answers").active > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let rate = per_second(u64::try_from(ended).expect("few"), began);
        drop(workers);
        rate
    })
}

/// Runs `operation` on so many clients at once, each time with another number, and counts how many end in a second.
fn rate<F, Fut>(runtime: &Runtime, clients: usize, operation: F) -> f64
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks = (0..clients).map(|_| {
        let (done, operation) = (Arc::clone(&done), operation.clone());
        runtime.spawn(async move {
            while started.elapsed() < PACE.1 {
                operation(next()).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for ended in runtime.block_on(join_all(tasks)) {
        ended.expect("no client panics");
    }
    per_second(done.load(Ordering::Relaxed), started)
}

#[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "far from 2^53")]
fn per_second(done: u64, started: Instant) -> f64 {
    done as f64 / started.elapsed().as_secs_f64()
}

/// A number that this process has not had.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn key(n: u64) -> Key {
    Key::new(process::id().to_string(), n.to_string())
}

async fn sqlite(folder: &Folder, clients: usize) -> SqliteJournal {
    let file = folder.0.join(format!("{clients}.db"));
    let journal = SqliteJournal::open(file).await.expect("the file can be made");
    journal.migrate().await.expect("it can be migrated");
    journal
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("steadfast-bench-saga-{}", process::id()));
        fs::create_dir_all(&path).expect("the folder can be made");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
