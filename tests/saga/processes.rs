//! Several processes on one PostgreSQL journal: one that sleeps through its lease, and several that share the work.
//!
//! A process is this test program, run again for its test [`child`].

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use steadfast::Key;
use steadfast::saga::journal::{Journal, ListQuery, PostgresJournal, SagaStatus};
use steadfast::saga::{Cx, Saga, SagaEngine, StepError, StepResult};
use steadfast::storage::PostgresStorage;
use steadfast::storage::deadpool_postgres::Pool;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::support::folder::Folder;
use super::support::postgres::Database;

const CHILD: &str = "processes::child";
const DATABASE: &str = "STEADFAST_PROCESS_DATABASE";
const ROLE: &str = "STEADFAST_PROCESS_ROLE";
const FOLDER: &str = "STEADFAST_PROCESS_FOLDER";
/// What a line of a child begins with: the test harness prints lines of its own.
const MARK: &str = "process: ";

const LEASE: Duration = Duration::from_secs(1);

/// A process that runs [`child`].
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, database: &str, folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DATABASE, database)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next that it says.
    fn says(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("it says something more").unwrap();
            if let Some((_, said)) = line.split_once(MARK) {
                return said.to_owned();
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    fn ends_well(mut self) {
        for line in self.lines.by_ref() {
            line.unwrap();
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{what}").unwrap();
    out.flush().unwrap();
}

/// Blocks its thread: a process that sleeps does not give way either.
fn pause(time: Duration) {
    let (_kept, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    fails: bool,
}

struct Deps {
    role: String,
    folder: String,
    pool: Pool,
}

struct Request {
    saga: String,
    step: String,
    verb: &'static str,
    epoch: i64,
    key: String,
}

impl Request {
    fn of(cx: &Cx<Order, Arc<Deps>>, verb: &'static str) -> Self {
        Self {
            saga: cx.saga_id().to_string(),
            step: cx.step().to_owned(),
            verb,
            epoch: i64::try_from(cx.fence()).unwrap(),
            key: cx.action_key(),
        }
    }
}

/// Has an effect, or takes it back and closes its key: what arrives later is refused.
async fn call(deps: Arc<Deps>, request: Request) -> StepResult {
    let Request {
        saga,
        step,
        verb,
        epoch,
        key,
    } = request;
    let client = deps.pool.get().await?;
    let note = "INSERT INTO call (role, saga, step, verb, epoch) VALUES ($1, $2, $3, $4, $5)";
    client.execute(note, &[&deps.role, &saga, &step, &verb, &epoch]).await?;
    let write = if verb == "do" {
        "INSERT INTO effect AS e (key, live, closed) VALUES ($1, true, false)
         ON CONFLICT (key) DO UPDATE SET live = e.live RETURNING closed"
    } else {
        "INSERT INTO effect (key, live, closed) VALUES ($1, false, true)
         ON CONFLICT (key) DO UPDATE SET live = false, closed = true RETURNING false"
    };
    let closed: bool = client.query_one(write, &[&key]).await?.get(0);
    if closed {
        return Err(StepError::failed("the key is closed"));
    }
    Ok(())
}

async fn act(cx: &mut Cx<Order, Arc<Deps>>) -> StepResult {
    if cx.deps().role == "sleeper" && cx.step() == "a" {
        say("in the action");
        let go = Path::new(&cx.deps().folder).join("go");
        while !go.exists() {
            pause(Duration::from_millis(5));
        }
        // What is under way arrives, whatever becomes of who sent it.
        let request = call(Arc::clone(cx.deps()), Request::of(cx, "do"));
        let sent = tokio::spawn(async {
            say(if request.await.is_ok() { "arrived" } else { "refused" });
        });
        sent.await?;
        return Ok(());
    }
    if cx.fails && cx.step() == "b" {
        return Err(StepError::failed("no"));
    }
    call(Arc::clone(cx.deps()), Request::of(cx, "do")).await
}

async fn undo(cx: &mut Cx<Order, Arc<Deps>>) -> StepResult {
    call(Arc::clone(cx.deps()), Request::of(cx, "undo")).await
}

fn saga(deps: Deps) -> Saga<Order, Arc<Deps>> {
    let saga = Saga::builder_with("order", Arc::new(deps))
        .step("a", act, undo)
        .step("b", act, undo);
    saga.build().unwrap()
}

fn key(n: u32) -> Key {
    Key::new("shop", format!("order-{n}"))
}

const SHARED: u32 = 200;

/// `sleeper` and `waker` drive one saga; `starter` leaves many to others, and a `worker` drives what it finds.
#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let (name, folder) = (env::var(DATABASE).unwrap(), env::var(FOLDER).unwrap());
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut config: steadfast::storage::tokio_postgres::Config =
            super::support::postgres_url().unwrap().parse().unwrap();
        config.dbname(&name);
        let database = Database {
            direct: config.clone(),
            config,
        };
        let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(8)));
        let saga = saga(Deps {
            role: role.clone(),
            folder: folder.clone(),
            pool: database.pool(8),
        });
        if role.starts_with("worker") {
            say("ready");
            while !Path::new(&folder).join("go").exists() {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let engine = SagaEngine::builder(journal.clone()).register(&saga).lease(LEASE);
        let engine = engine.poll_interval(Duration::from_millis(20));
        let engine = if role == "starter" {
            engine.max_concurrent(0)
        } else {
            engine
        };
        let engine = engine.build().unwrap();
        let fails = Path::new(&folder).join("fails").exists();
        match role.as_str() {
            "starter" => {
                let start = async |n| drop(engine.start(&saga, &key(n), Order { fails }).await.unwrap());
                join_all((0..SHARED).map(start)).await;
            }
            "worker-1" | "worker-2" => {
                while engine.counts().await.unwrap().active > 0 {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {
                let ended = engine.start(&saga, &key(0), Order { fails }).await.unwrap().await;
                say(if ended.is_ok() { "completed" } else { "turned back" });
                // Its request may still be under way.
                while engine.in_flight() > 0 || (role == "sleeper" && !Path::new(&folder).join("late").exists()) {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        }
    });
}

async fn participants(name: &str) -> Option<Database> {
    let database = Database::new(name).await?;
    let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
    journal.migrate().await.unwrap();
    let tables = "CREATE TABLE call (n serial, role text, saga text, step text, verb text, epoch bigint);
        CREATE TABLE effect (key text PRIMARY KEY, live boolean, closed boolean)";
    database.execute(tables).await;
    Some(database)
}

/// What the participants heard, in order: like `sleeper do a 1`.
async fn calls(database: &Database) -> Vec<String> {
    let calls = "SELECT concat_ws(' ', role, verb, step, epoch) FROM call ORDER BY n";
    let calls = database.client().await.query(calls, &[]).await.unwrap();
    calls.iter().map(|row| row.get(0)).collect()
}

/// A process is stopped in the middle of an action, for longer than its lease; another one finishes the saga.
fn one_sleeps(name: &str, fails: bool) {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(participants(name)) else {
        return;
    };
    let folder = Folder::new();
    if fails {
        std::fs::write(folder.path().join("fails"), "").unwrap();
    }
    let name = database.config.get_dbname().unwrap();
    let mut sleeper = Process::start("sleeper", name, folder.path());
    assert_eq!(sleeper.says(), "in the action");
    sleeper.signal("-STOP");

    let mut waker = Process::start("waker", name, folder.path());
    let end = if fails { "turned back" } else { "completed" };
    assert_eq!(waker.says(), end);
    let loaded = async || {
        let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
        let heads = journal
            .list(&ListQuery {
                limit: 2,
                ..ListQuery::default()
            })
            .await
            .unwrap();
        assert_eq!(heads.len(), 1);
        journal.load(heads[0].id).await.unwrap().unwrap()
    };
    let before = runtime.block_on(loaded());
    assert_eq!(before.head.status == SagaStatus::Compensated, fails);

    std::fs::write(folder.path().join("go"), "").unwrap();
    sleeper.signal("-CONT");
    let mut said = [sleeper.says(), sleeper.says()];
    said.sort();
    // It hears how the saga has ended. Its request arrives: after the undo of it, where there was one.
    assert_eq!(said, if fails { ["refused", end] } else { ["arrived", end] });
    std::fs::write(folder.path().join("late"), "").unwrap();
    sleeper.ends_well();
    waker.ends_well();
    let after = runtime.block_on(loaded());
    assert_eq!((&after.head, &after.entries), (&before.head, &before.entries));
    let epochs: Vec<u64> = after.entries.iter().map(|stored| stored.epoch).collect();
    assert_eq!(epochs[..2], [1, 1]);
    assert!(epochs[2..].iter().all(|epoch| *epoch == 2), "{epochs:?}");

    let (calls, live) = runtime.block_on(async {
        let live = "SELECT count(*) FROM effect WHERE live";
        let live: i64 = database.client().await.query_one(live, &[]).await.unwrap().get(0);
        (calls(&database).await, live)
    });
    let second = if fails { "waker undo a 2" } else { "waker do b 2" };
    // The last is late, under the same key, and nothing comes after it.
    assert_eq!(calls, ["waker do a 2", second, "sleeper do a 1"]);
    assert_eq!(live, if fails { 0 } else { 2 });
}

#[test]
fn who_slept_through_its_lease_finds_the_saga_completed_and_writes_nothing() {
    one_sleeps("saga_sleeper", false);
}

#[test]
fn who_slept_through_its_lease_finds_the_saga_undone_and_undoes_nothing() {
    one_sleeps("saga_sleeper_undone", true);
}

#[test]
fn two_that_recover_at_once_share_the_sagas_and_each_has_one_owner() {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(participants("saga_sharers")) else {
        return;
    };
    let folder = Folder::new();
    let name = database.config.get_dbname().unwrap();
    Process::start("starter", name, folder.path()).ends_well();
    let mut workers = ["worker-1", "worker-2"].map(|role| Process::start(role, name, folder.path()));
    for worker in &mut workers {
        assert_eq!(worker.says(), "ready");
    }
    std::fs::write(folder.path().join("go"), "").unwrap();
    for worker in workers {
        worker.ends_well();
    }
    runtime.block_on(async {
        let client = database.client().await;
        let sagas = "SELECT count(*), count(*) FILTER (WHERE status = 3 AND epoch = 1) FROM steadfast.saga";
        let sagas = client.query_one(sagas, &[]).await.unwrap();
        let all = i64::from(SHARED);
        assert_eq!((sagas.get::<_, i64>(0), sagas.get::<_, i64>(1)), (all, all));
        let calls = "SELECT count(*), count(DISTINCT (saga, step)) FROM call";
        let calls = client.query_one(calls, &[]).await.unwrap();
        assert_eq!((calls.get::<_, i64>(0), calls.get::<_, i64>(1)), (2 * all, 2 * all));
        let roles = "SELECT role, count(DISTINCT saga) FROM call GROUP BY role ORDER BY role";
        let roles = client.query(roles, &[]).await.unwrap();
        let shares: Vec<i64> = roles.iter().map(|row| row.get(1)).collect();
        println!("two workers have shared {SHARED} sagas: {shares:?}");
        assert!(
            shares.len() == 2 && shares.iter().sum::<i64>() == i64::from(SHARED),
            "{shares:?}"
        );
    });
}
