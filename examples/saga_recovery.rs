//! A saga survives its process.
//!
//! First a process starts an order and kills itself in the middle of a step; another one opens the same SQLite journal and
//! finishes the order. Then two workers share twelve orders, and one of them is killed.
//!
//! `cargo run --example saga_recovery`

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs, io, process};

use serde::{Deserialize, Serialize};
use steadfast::Key;
use steadfast::saga::journal::SqliteJournal;
use steadfast::saga::{Cx, Saga, SagaEngine, StepResult};
use tokio::time::Instant;

type AnyError = Box<dyn std::error::Error>;

/// Short, so that the example is: how long a dead process's sagas wait.
const LEASE: Duration = Duration::from_millis(800);
const ORDERS: u32 = 12;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
    /// Which processes have worked on it.
    workers: Vec<String>,
}

/// What the steps need beside the order.
struct Shop {
    /// Stands for the services out there: a file for each key that has had its effect. A key that comes again finds its
    /// file, and changes nothing.
    ledger: PathBuf,
    worker: String,
    /// Kills the process in the middle of this step.
    dies_in: Option<String>,
}

impl Shop {
    /// One step: its effect takes a moment.
    async fn work(cx: &mut Cx<Order, Self>) -> StepResult {
        let shop = cx.deps();
        println!("    {:<8} order {:>2}  {}", shop.worker, cx.number, cx.step());
        tokio::time::sleep(Duration::from_millis(40)).await;
        fs::write(shop.ledger.join(cx.idempotency_key().replace(':', "_")), &shop.worker)?;
        if shop.dies_in.as_deref() == Some(cx.step()) {
            println!(
                "    {:<8} dies: the effect has happened, and nobody has written that down",
                shop.worker
            );
            process::abort();
        }
        let worker = shop.worker.clone();
        if cx.workers.last() != Some(&worker) {
            cx.workers.push(worker);
        }
        Ok(())
    }

    /// Nothing turns back here.
    async fn undo(cx: &mut Cx<Order, Self>) -> StepResult {
        tokio::fs::remove_file(cx.deps().ledger.join(cx.action_key().replace(':', "_"))).await?;
        Ok(())
    }
}

fn orders(shop: Shop) -> Result<Saga<Order, Shop>, steadfast::ConfigError> {
    Saga::builder_with("order", shop)
        .step("reserve", Shop::work, Shop::undo)
        .pivot("charge", Shop::work)
        .retriable("ship", Shop::work)
        .build()
}

async fn engine(folder: &Path, saga: &Saga<Order, Shop>) -> Result<SagaEngine, AnyError> {
    let journal = SqliteJournal::open(folder.join("journal.db")).await?;
    journal.migrate().await?;
    let engine = SagaEngine::builder(journal)
        .register(saga)
        .lease(LEASE)
        .poll_interval(Duration::from_millis(50))
        .max_concurrent(2)
        .build()?;
    Ok(engine)
}

fn shop(folder: &Path, worker: &str, dies_in: Option<&str>) -> Shop {
    Shop {
        ledger: folder.join("ledger"),
        worker: worker.to_owned(),
        dies_in: dies_in.map(str::to_owned),
    }
}

/// Starts an order, and waits for its end.
async fn one_order(folder: &Path, worker: &str, dies_in: Option<&str>) -> Result<Order, AnyError> {
    let saga = orders(shop(folder, worker, dies_in))?;
    let engine = engine(folder, &saga).await?;
    let order = Order {
        number: 0,
        workers: Vec::new(),
    };
    // The same key and the same order: the saga of the process before, if there was one.
    Ok(engine.start(&saga, &Key::new("shop", "order-0"), order).await?.await?)
}

/// Works on whatever there is, until it is killed.
async fn works(folder: &Path, worker: &str) -> Result<(), AnyError> {
    let saga = orders(shop(folder, worker, None))?;
    let _engine = engine(folder, &saga).await?;
    std::future::pending().await
}

/// Two workers share the orders; one is killed. How many orders more than one process has worked on.
async fn shared(folder: &Path) -> Result<usize, AnyError> {
    let mut workers = Workers(vec![
        child(folder, "works", "worker-a")?,
        child(folder, "works", "worker-b")?,
    ]);
    // This process only writes orders down: it drives none itself.
    let saga = orders(shop(folder, "nobody", None))?;
    let journal = SqliteJournal::open(folder.join("journal.db")).await?;
    let engine = SagaEngine::builder(journal)
        .register(&saga)
        .max_concurrent(0)
        .poll_interval(Duration::from_millis(50))
        .build()?;
    let mut started = Vec::new();
    for number in 1..=ORDERS {
        let order = Order {
            number,
            workers: Vec::new(),
        };
        let key = Key::new("shop", format!("order-{number}"));
        started.push(engine.start(&saga, &key, order).await?);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    workers.0[0].kill()?;
    println!("    worker-a was killed");
    let mut handed_over = 0;
    for order in started {
        handed_over += usize::from(order.await?.workers.len() > 1);
    }
    Ok(handed_over)
}

fn child(folder: &Path, role: &str, worker: &str) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .args([role, worker])
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()
}

/// Killed when they are not needed any more.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

async fn show(folder: &Path) -> Result<bool, AnyError> {
    println!("one order, whose process dies in the middle of charging");
    let died = child(folder, "dies", "first")?.wait()?;
    println!("    the process has ended with {died}");
    let before = Instant::now();
    let order = one_order(folder, "second", None).await?;
    println!(
        "    done after {:.1} s, by {}",
        before.elapsed().as_secs_f32(),
        order.workers.join(" and ")
    );

    println!("{ORDERS} orders, two workers, and one of them is killed");
    let handed_over = shared(folder).await?;
    println!("    all done; {handed_over} of them by both");

    // Three steps of each order, and each had its effect once: the ledger has one file per key.
    let effects = fs::read_dir(folder.join("ledger"))?.count();
    let expected = 3 * usize::try_from(1 + ORDERS)?;
    println!("{effects} effects, of {expected}");
    Ok(effects == expected)
}

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dies", worker, folder] => {
            one_order(Path::new(folder), worker, Some("charge")).await?;
            Ok(ExitCode::FAILURE)
        }
        ["works", worker, folder] => {
            works(Path::new(folder), worker).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let folder = env::temp_dir().join(format!("steadfast-saga-recovery-{}", process::id()));
            fs::create_dir_all(folder.join("ledger"))?;
            let right = show(&folder).await;
            fs::remove_dir_all(&folder)?;
            Ok(if right? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
