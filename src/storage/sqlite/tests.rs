//! What the writer promises.

mod turns;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{env, fs, process};

use rusqlite::Connection;

use super::*;
use crate::storage::{Migration, StorageError, StorageErrorKind};

/// A folder that is gone when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("steadfast-unit-{}-{n}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("steadfast.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A clock that is one millisecond further at each reading, so that its times number the transactions.
fn counting() -> Clock {
    let readings = AtomicU64::new(0);
    Clock::new(move || readings.fetch_add(1, Ordering::Relaxed))
}

/// A file with a table `t` of one column, whose clock numbers the transactions.
async fn opened(path: &Path) -> SqliteStorage {
    let storage = SqliteStorage::builder(path).clock(counting());
    let storage = storage.busy_timeout(Duration::from_millis(100)).open().await.unwrap();
    run(&storage, "CREATE TABLE t (n INTEGER PRIMARY KEY)").await.unwrap();
    storage
}

async fn run(storage: &SqliteStorage, sql: &'static str) -> Result<Duration, StorageError> {
    storage.call(Terms::default(), move |turn| execute(turn, sql)).await
}

fn execute(turn: &Turn<'_>, sql: &str) -> Result<Duration, Fault> {
    turn.connection.execute_batch(sql)?;
    Ok(turn.now)
}

fn rows(path: &Path) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Has the writer stand in the middle of a transaction until the sender is dropped.
struct Held {
    _until: mpsc::Sender<()>,
}

fn hold(storage: &SqliteStorage) -> Held {
    let (until, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let storage = storage.clone();
    tokio::spawn(async move {
        let wait = move |_: &Turn<'_>| {
            begun.send(()).unwrap();
            let _ = held.recv();
            Ok(())
        };
        storage.call(Terms::default(), wait).await
    });
    tokio::task::block_in_place(|| has_begun.recv()).unwrap();
    Held { _until: until }
}

/// Polls `future` once.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_share_one_commit_of_at_most_256() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let mut calls: Vec<_> = (0..600)
        .map(|n| {
            let insert = move |turn: &Turn<'_>| execute(turn, &format!("INSERT INTO t VALUES ({n})"));
            Box::pin(storage.call(Terms::default(), insert))
        })
        .collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    drop(held);
    let mut transactions = Vec::new();
    for call in calls {
        transactions.push(call.await.unwrap());
    }
    let first = transactions[0];
    let counts = [0, 1, 2].map(|n| {
        let at = first + Duration::from_millis(n);
        transactions.iter().filter(|transaction| **transaction == at).count()
    });
    assert_eq!(counts, [256, 256, 88]);
    assert_eq!(rows(&folder.file()).len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_sent_before_the_commit() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let mut insert = Box::pin(run(&storage, "INSERT INTO t VALUES (1)"));
    assert!(poll(&mut insert).is_pending());
    let (done, inserted) = mpsc::channel();
    let (until, wait) = mpsc::channel::<()>();
    let mut last = Box::pin(storage.call(Terms::default(), move |_| {
        done.send(()).unwrap();
        let _ = wait.recv();
        Ok(())
    }));
    assert!(poll(&mut last).is_pending());
    drop(held);
    tokio::task::block_in_place(|| inserted.recv()).unwrap();
    // The row is written, and the transaction is still open.
    assert!(poll(&mut insert).is_pending());
    assert!(rows(&folder.file()).is_empty());
    drop(until);
    insert.await.unwrap();
    assert_eq!(rows(&folder.file()), [1]);
    last.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_or_panics_is_undone_alone() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let mut before = Box::pin(run(&storage, "INSERT INTO t VALUES (1)"));
    let mut failing = Box::pin(run(&storage, "INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)"));
    let mut panicking = Box::pin(storage.call(Terms::default(), |turn| -> Result<(), Fault> {
        execute(turn, "INSERT INTO t VALUES (3)")?;
        panic!("on purpose")
    }));
    let mut after = Box::pin(run(&storage, "INSERT INTO t VALUES (4)"));
    assert!(poll(&mut before).is_pending() && poll(&mut failing).is_pending());
    assert!(poll(&mut panicking).is_pending() && poll(&mut after).is_pending());
    drop(held);
    assert_eq!(before.await.unwrap(), after.await.unwrap(), "one transaction");
    assert_eq!(failing.await.unwrap_err().kind(), StorageErrorKind::Corrupt);
    assert_eq!(panicking.await.unwrap_err().kind(), StorageErrorKind::Unavailable);
    assert_eq!(rows(&folder.file()), [1, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_commit_fails_nobody_is_told_that_it_worked() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    run(
        &storage,
        "CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await
    .unwrap();
    let held = hold(&storage);
    let mut good = Box::pin(run(&storage, "INSERT INTO t VALUES (1)"));
    // Its reference is looked at by COMMIT.
    let mut bad = Box::pin(run(&storage, "INSERT INTO child VALUES (7)"));
    assert!(poll(&mut good).is_pending() && poll(&mut bad).is_pending());
    drop(held);
    assert!(good.await.is_err() && bad.await.is_err());
    assert!(rows(&folder.file()).is_empty());
    run(&storage, "INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(rows(&folder.file()), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_an_error_and_what_was_acknowledged_is_there() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    run(&storage, "CREATE TABLE big (bytes BLOB)").await.unwrap();
    run(&storage, "PRAGMA max_page_count = 20").await.unwrap();
    let held = hold(&storage);
    let mut calls: Vec<_> = (0..30)
        .map(|n| {
            let insert = format!(
                "INSERT INTO t VALUES ({n}); INSERT INTO big VALUES (zeroblob({}))",
                n * 500
            );
            Box::pin(storage.call(Terms::default(), move |turn| execute(turn, &insert)))
        })
        .collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    drop(held);
    let mut acknowledged = Vec::new();
    let mut full = 0;
    for (n, call) in calls.into_iter().enumerate() {
        match call.await {
            Ok(_) => acknowledged.push(i64::try_from(n).unwrap()),
            Err(error) => full += u32::from(error.kind() == StorageErrorKind::Full),
        }
    }
    assert!(full > 0);
    assert_eq!(rows(&folder.file()), acknowledged);
    run(&storage, "PRAGMA max_page_count = 1000").await.unwrap();
    run(&storage, "INSERT INTO t VALUES (100)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_job_goes_first() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let order = Arc::new(AtomicU64::new(0));
    let numbered = |terms: Terms| {
        let order = Arc::clone(&order);
        Box::pin(storage.call(terms, move |_| Ok(order.fetch_add(1, Ordering::Relaxed))))
    };
    let mut normal = numbered(Terms::default());
    let mut urgent = numbered(Terms::default().urgent());
    assert!(poll(&mut normal).is_pending() && poll(&mut urgent).is_pending());
    drop(held);
    assert_eq!((normal.await.unwrap(), urgent.await.unwrap()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_caller_has_gone_is_carried_out_unless_it_needs_one() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let mut kept = Box::pin(run(&storage, "INSERT INTO t VALUES (1)"));
    let mut left = Box::pin(storage.call(Terms::default().needs_caller(), |turn| {
        execute(turn, "INSERT INTO t VALUES (2)")
    }));
    assert!(poll(&mut kept).is_pending() && poll(&mut left).is_pending());
    drop((kept, left));
    drop(held);
    run(&storage, "INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(rows(&folder.file()), [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_leaves_after_its_jobs_are_done() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let mut insert = Box::pin(run(&storage, "INSERT INTO t VALUES (1)"));
    assert!(poll(&mut insert).is_pending());
    drop(insert);
    drop((storage, held));
    // SQLite removes its log when the last connection of a file is closed.
    let log = folder.0.join("steadfast.db-wal");
    for _ in 0..500 {
        if !log.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!log.exists());
    assert_eq!(rows(&folder.file()), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_the_queue_full_waits_for_room() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let held = hold(&storage);
    let done = Arc::new(AtomicU64::new(0));
    let call = || {
        let done = Arc::clone(&done);
        Box::pin(storage.call(Terms::default(), move |_| Ok(done.fetch_add(1, Ordering::Relaxed))))
    };
    let mut calls: Vec<_> = (0..1_025).map(|_| call()).collect();
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    // The last one has found no place: dropped, it is not carried out.
    calls.pop();
    drop(held);
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 1_024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_busy_is_waited_for_and_not_for_ever() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let in_time = tokio::time::timeout(Duration::from_secs(30), run(&storage, "INSERT INTO t VALUES (1)")).await;
    let error = in_time.expect("it gives up after 100 ms").unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    let mut insert = Box::pin(run(&storage, "INSERT INTO t VALUES (2)"));
    assert!(poll(&mut insert).is_pending());
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.execute_batch("COMMIT").unwrap();
    insert.await.unwrap();
    assert_eq!(rows(&folder.file()), [2]);
}

#[tokio::test]
async fn a_panic_leaves_no_savepoint_behind() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    let error = storage
        .call(Terms::default(), |_| -> Result<(), Fault> { panic!("on purpose") })
        .await;
    assert!(error.is_err());
    for n in 0..3 {
        let open = storage
            .call(Terms::default(), |turn| Ok(turn.connection.is_autocommit()))
            .await;
        assert!(!open.unwrap(), "{n}");
    }
    assert!(rows(&folder.file()).is_empty());
}

const ONE: Migration = Migration::new("test", 1, "CREATE TABLE one (n INTEGER)");
const TWO: Migration = Migration::new("test", 2, "CREATE TABLE two (n INTEGER)");
const THREE: Migration = Migration::new("test", 3, "CREATE TABLE three (n INTEGER)");
static FIRST: [Migration; 1] = [ONE];
static SECOND: [Migration; 2] = [ONE, TWO];
static THIRD: [Migration; 3] = [ONE, TWO, THREE];
static OTHER: [Migration; 1] = [Migration::new("test", 1, "CREATE TABLE one (m INTEGER)")];
static BROKEN: [Migration; 2] = [
    ONE,
    Migration::new("test", 2, "CREATE TABLE two (n INTEGER); CREATE TABLE one (n)"),
];

async fn checked(storage: &SqliteStorage, steps: &'static [Migration]) -> Result<(), StorageError> {
    storage
        .call(Terms::default(), move |turn| check(turn.connection, steps))
        .await
}

fn not_migrated(result: Result<(), StorageError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    error.to_string()
}

#[tokio::test]
async fn a_schema_is_migrated_in_steps_and_one_step_ahead_is_worked_with() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    assert!(not_migrated(checked(&storage, &FIRST).await).contains("migrate()"));
    storage.migrate(&FIRST).await.unwrap();
    checked(&storage, &FIRST).await.unwrap();
    let behind = not_migrated(checked(&storage, &SECOND).await);
    assert!(behind.contains("version 1") && behind.contains("migrate()"), "{behind}");
    storage.migrate(&SECOND).await.unwrap();
    storage.migrate(&SECOND).await.unwrap();
    checked(&storage, &FIRST).await.unwrap();
    storage.migrate(&FIRST).await.unwrap();
    storage.migrate(&THIRD).await.unwrap();
    checked(&storage, &SECOND).await.unwrap();
    assert!(not_migrated(checked(&storage, &FIRST).await).contains("version 3"));
    assert!(not_migrated(storage.migrate(&FIRST).await).contains("version 3"));
}

#[tokio::test]
async fn a_step_that_was_another_one_or_is_missing_is_refused() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    storage.migrate(&SECOND).await.unwrap();
    assert!(not_migrated(storage.migrate(&OTHER).await).contains("checksum"));
    assert!(not_migrated(checked(&storage, &OTHER).await).contains("checksum"));
    run(&storage, "DELETE FROM steadfast_migrations WHERE version = 1")
        .await
        .unwrap();
    assert!(not_migrated(checked(&storage, &SECOND).await).contains("step 1"));
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let folder = Folder::new();
    let storage = opened(&folder.file()).await;
    storage.migrate(&BROKEN).await.unwrap_err();
    assert!(not_migrated(checked(&storage, &FIRST).await).contains("version 0"));
    storage.migrate(&SECOND).await.unwrap();
}

#[tokio::test]
async fn two_that_migrate_at_once_take_turns() {
    let folder = Folder::new();
    let patient = || SqliteStorage::builder(folder.file()).open();
    let storages = [
        patient().await.unwrap(),
        patient().await.unwrap(),
        patient().await.unwrap(),
    ];
    let [a, b, c] = storages.each_ref().map(|storage| storage.migrate(&THIRD));
    let (a, b, c) = tokio::join!(a, b, c);
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    checked(&storages[0], &THIRD).await.unwrap();
}
