//! The SQLite store on real files: several writers, files that are busy, read-only, damaged or of another version.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use steadfast::KeyId;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Completed, Durability, Mode, Origin, Store};
use steadfast::idempotency::{Fingerprint, Idempotency, SqliteStore};
use steadfast::storage::rusqlite::Connection;
use steadfast::storage::{SqliteStorage, StorageErrorKind};
use tokio::runtime::Builder;

use super::support::folder::Folder;
use super::support::kill::{self, Child, Stop};

const HOUR: Duration = Duration::from_secs(3_600);

fn id(n: u32) -> KeyId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    KeyId::from_bytes(bytes)
}

/// A claim of nobody else's.
fn claim() -> Claim {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut claim_id = [0; 16];
    claim_id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    claim_id[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    Claim {
        claim_id: ClaimId::from_bytes(claim_id),
        fingerprint: Fingerprint::of_parts(&[b"request"]),
        mode: Mode::AtMostOnce,
        lease: HOUR,
        origin: Origin::from_text("call:tests"),
    }
}

async fn opened(folder: &Folder) -> SqliteStore {
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// One that gives up after 100 ms.
async fn impatient(folder: &Folder) -> SqliteStore {
    let storage = SqliteStorage::builder(folder.file()).busy_timeout(Duration::from_millis(100));
    let store = SqliteStore::new(&storage.open().await.unwrap());
    store.migrate().await.unwrap();
    store
}

async fn wins(store: &SqliteStore, key: u32) -> bool {
    matches!(store.claim(id(key), &claim()).await.unwrap(), Claimed::Owned { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_duplicates_by_32_clients_on_two_handles_one_wins_each_key() {
    let folder = Folder::new();
    let stores = [opened(&folder).await, opened(&folder).await];
    let clients = (0..32_u32).map(|client| {
        let store = stores[usize::from(client % 2 == 0)].clone();
        tokio::spawn(async move {
            let mut won = Vec::new();
            // Every key 20 times in all, by other clients each time.
            for n in 0..625 {
                let key = (client * 625 + n) % 1_000;
                if wins(&store, key).await {
                    won.push(key);
                }
            }
            won
        })
    });
    let mut won: Vec<_> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    won.sort_unstable();
    assert_eq!(won, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn of_eight_threads_with_a_handle_each_one_wins_each_of_500_keys() {
    let folder = Folder::new();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async { drop(opened(&folder).await) });
    let won = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                runtime().block_on(async {
                    let store = SqliteStore::open(folder.file()).await.unwrap();
                    let claims = (0..500).map(|key| wins(&store, key));
                    let mine = join_all(claims).await.into_iter().filter(|won| *won).count();
                    won.fetch_add(mine, Ordering::Relaxed);
                });
            });
        }
    });
    assert_eq!(won.into_inner(), 500);
}

#[test]
fn child() {
    let Some(child) = kill::child() else { return };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match child.scenario() {
            "claims" => claims(&child).await,
            other => panic!("no scenario {other}"),
        }
    });
    child.finished();
}

async fn claims(child: &Child) {
    // Who wins is the question, and not how fast the disk is on which they meet.
    let storage = SqliteStorage::builder(child.place()).busy_timeout(Duration::from_secs(60));
    let store = SqliteStore::new(&storage.open().await.unwrap());
    store.migrate().await.unwrap();
    for batch in 0..50 {
        let keys = (batch * 10..(batch + 1) * 10).map(|key| {
            let store = &store;
            async move { wins(store, key).await.then_some(key) }
        });
        for key in join_all(keys).await.into_iter().flatten() {
            child.say(&key.to_string());
        }
    }
}

#[test]
fn of_three_processes_on_one_file_one_wins_each_key() {
    let folder = Folder::new();
    let file = folder.file();
    let place = file.to_str().unwrap();
    let mut won: Vec<u32> = Vec::new();
    thread::scope(|scope| {
        let run = || kill::run("sqlite::child", "claims", place, Stop::Never).said;
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        let said = runs.into_iter().flat_map(|run| run.join().unwrap());
        won.extend(said.map(|key| key.parse::<u32>().unwrap()));
    });
    won.sort_unstable();
    assert_eq!(won, (0..500).collect::<Vec<_>>());
}

/// How many transactions the log of a file has: each ends with a frame that carries the size of the file.
fn commits(folder: &Folder) -> usize {
    let log = fs::read(folder.path().join("app.db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = 24 + usize::try_from(number(8)).unwrap();
    let salt = (number(16), number(20));
    let frames = (32..log.len().saturating_sub(frame - 1)).step_by(frame);
    let mine = frames.filter(|at| (number(at + 8), number(at + 12)) == salt);
    mine.filter(|at| number(at + 4) > 0).count()
}

#[tokio::test]
async fn claims_that_wait_for_a_busy_file_share_one_commit() {
    let folder = Folder::new();
    let store = opened(&folder).await;
    let before = commits(&folder);
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let claims = join_all((0..200).map(|key| wins(&store, key)));
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.execute_batch("ROLLBACK").unwrap();
    };
    let (won, ()) = tokio::join!(claims, release);
    assert!(won.into_iter().all(|won| won));
    assert_eq!(commits(&folder) - before, 1);
}

#[tokio::test]
async fn a_replay_writes_nothing() {
    let folder = Folder::new();
    let store = opened(&folder).await;
    let Claimed::Owned { owner, .. } = store.claim(id(1), &claim()).await.unwrap() else {
        panic!("the key was free");
    };
    let outcome = Bytes::from_static(b"outcome");
    store.complete(id(1), &owner, &outcome, HOUR).await.unwrap();
    let before = commits(&folder);
    for _ in 0..10 {
        assert!(!wins(&store, 1).await);
        store.inspect(id(1)).await.unwrap();
    }
    assert_eq!(commits(&folder), before);
}

#[tokio::test]
async fn a_busy_file_fails_a_claim_in_time_and_the_key_stays_free() {
    let folder = Folder::new();
    let store = impatient(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.claim(id(1), &claim()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    assert!(error.is_retryable());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(wins(&store, 1).await);
}

#[tokio::test]
async fn a_runtime_of_one_thread_goes_on_while_the_file_is_busy() {
    let folder = Folder::new();
    let store = impatient(&folder).await;
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ticks = AtomicUsize::new(0);
    let tick = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let request = claim();
    tokio::select! {
        claimed = store.claim(id(1), &request) => assert!(claimed.is_err()),
        () = tick => {}
    }
    assert!(ticks.into_inner() > 5);
}

#[tokio::test]
async fn without_migrate_the_error_says_what_to_call() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    let error = store.claim(id(1), &claim()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    assert!(error.to_string().contains("migrate()"), "{error}");
    store.migrate().await.unwrap();
    assert!(wins(&store, 1).await);
}

async fn with_version(version: u32) -> Result<Claimed, StorageErrorKind> {
    let folder = Folder::new();
    drop(opened(&folder).await);
    let connection = Connection::open(folder.file()).unwrap();
    for newer in 2..=version {
        let note = "INSERT INTO steadfast_migrations (component, version, checksum) VALUES ('idempotency', ?1, 'x')";
        connection.execute(note, [newer]).unwrap();
    }
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.claim(id(1), &claim()).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn the_schema_of_the_next_version_is_worked_with_and_a_later_one_is_refused() {
    let next = u32::try_from(SqliteStore::migrations().len()).unwrap() + 1;
    assert!(matches!(with_version(next).await, Ok(Claimed::Owned { .. })));
    assert_eq!(with_version(next + 1).await, Err(StorageErrorKind::NotMigrated));
}

#[test]
fn the_released_steps_of_the_schema_are_pinned() {
    let steps: Vec<_> = SqliteStore::migrations()
        .iter()
        .map(|step| (step.component(), step.version(), step.checksum()))
        .collect();
    let pinned = "2cead0245ffb300d2c368e353495c93354b62edaae18e4af27d5b78843c166b4";
    assert_eq!(steps, [("idempotency", 1, pinned.to_owned())]);
}

async fn refused(path: &Path) -> (StorageErrorKind, String) {
    match SqliteStore::open(path).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

#[tokio::test]
async fn what_is_no_database_is_refused_when_it_is_opened() {
    let folder = Folder::new();
    fs::write(folder.file(), [b'x'; 4_096]).unwrap();
    assert_eq!(refused(&folder.file()).await.0, StorageErrorKind::Corrupt);
    assert_eq!(refused(folder.path()).await.0, StorageErrorKind::Refused);
    let nowhere = folder.path().join("nowhere/app.db");
    assert_eq!(refused(&nowhere).await.0, StorageErrorKind::Refused);
    let (kind, text) = refused(Path::new(":memory:")).await;
    assert_eq!(kind, StorageErrorKind::Refused, "{text}");
}

/// A database that no SQLite of today may write: the version that is needed for it, byte 18 of the file, is a later one.
#[tokio::test]
async fn a_file_that_may_only_be_read_is_refused_when_it_is_opened() {
    let folder = Folder::new();
    Connection::open(folder.file())
        .unwrap()
        .execute_batch("CREATE TABLE t (n)")
        .unwrap();
    let mut bytes = fs::read(folder.file()).unwrap();
    bytes[18] = 3;
    fs::write(folder.file(), bytes).unwrap();
    let (kind, text) = refused(&folder.file()).await;
    assert_eq!(kind, StorageErrorKind::Refused, "{text}");
}

#[tokio::test]
async fn a_file_without_the_permission_to_write_is_refused_when_it_is_opened() {
    let folder = Folder::new();
    Connection::open(folder.file())
        .unwrap()
        .execute_batch("CREATE TABLE t (n)")
        .unwrap();
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o444)).unwrap();
    if fs::OpenOptions::new().append(true).open(folder.file()).is_ok() {
        println!("skipped: this user may write whatever the permissions say");
        return;
    }
    let (kind, text) = refused(&folder.file()).await;
    assert_eq!(kind, StorageErrorKind::Refused);
    assert!(text.contains("read-only"), "{text}");
}

#[tokio::test]
async fn purging_lets_others_in_between_and_keeps_what_is_alive() {
    let folder = Folder::new();
    let store = opened(&folder).await;
    let gone = Claim {
        lease: Duration::ZERO,
        mode: Mode::AtLeastOnce {
            retention: Duration::ZERO,
        },
        ..claim()
    };
    let expired = join_all((0..2_000).map(|key| store.claim(id(key), &gone))).await;
    assert!(expired.iter().all(Result::is_ok));
    // One in progress, one interrupted that is kept for ever, one with an outcome.
    assert!(wins(&store, 5_000).await);
    let interrupted = Claim {
        lease: Duration::ZERO,
        ..claim()
    };
    store.claim(id(5_001), &interrupted).await.unwrap();
    let Claimed::Owned { owner, .. } = store.claim(id(5_002), &claim()).await.unwrap() else {
        panic!("the key was free");
    };
    let outcome = Bytes::from_static(b"outcome");
    assert_eq!(
        store.complete(id(5_002), &owner, &outcome, HOUR).await.unwrap(),
        Completed::Applied
    );
    assert_eq!(store.purge(100).await.unwrap(), 100);

    let other = opened(&folder).await;
    let purged = AtomicUsize::new(0);
    let purge = async |store: &SqliteStore| {
        let removed = store.purge(usize::MAX).await.unwrap();
        purged.fetch_add(usize::try_from(removed).unwrap(), Ordering::Relaxed);
    };
    let claims = async {
        tokio::task::yield_now().await;
        assert!(wins(&store, 6_000).await);
        assert!(
            purged.load(Ordering::Relaxed) == 0,
            "the claim has waited for a whole purge"
        );
    };
    tokio::join!(purge(&store), purge(&other), claims);
    assert_eq!(purged.into_inner(), 1_900);
    for key in [5_000, 5_001, 5_002, 6_000] {
        assert!(store.inspect(id(key)).await.unwrap().is_some(), "{key}");
    }
    let connection = Connection::open(folder.file()).unwrap();
    let left: u32 = connection
        .query_row("SELECT count(*) FROM steadfast_idempotency", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 4);
}

#[tokio::test]
async fn a_relaxed_file_is_no_place_for_at_most_once_unless_that_is_accepted() {
    let folder = Folder::new();
    let storage = SqliteStorage::builder(folder.file())
        .relaxed_durability()
        .open()
        .await
        .unwrap();
    let store = SqliteStore::new(&storage);
    assert_eq!(store.durability(), Durability::Relaxed);
    assert!(Idempotency::at_most_once(store.clone()).build().is_err());
    assert!(
        Idempotency::at_most_once(store)
            .accept_relaxed_durability()
            .build()
            .is_ok()
    );
    assert_eq!(opened(&folder).await.durability(), Durability::Durable);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let store = opened(&folder).await;
    let request = claim();
    let Claimed::Owned { owner, .. } = store.claim(id(1), &request).await.unwrap() else {
        panic!("the key was free");
    };
    drop(store);
    let store = SqliteStore::open(folder.file()).await.unwrap();
    // The same request again recognises itself.
    let again = store.claim(id(1), &request).await.unwrap();
    assert!(matches!(again, Claimed::Owned { owner: same, .. } if same == owner));
}

#[tokio::test]
async fn a_lease_of_a_century_and_one_that_is_longer_are_honoured() {
    let folder = Folder::new();
    let store = opened(&folder).await;
    for (key, lease) in [(1, 100 * 365 * 24 * HOUR), (2, Duration::MAX)] {
        let request = Claim { lease, ..claim() };
        store.claim(id(key), &request).await.unwrap();
        let Claimed::InProgress { lease_left } = store.claim(id(key), &claim()).await.unwrap() else {
            panic!("the lease is over");
        };
        assert!(lease_left > 99 * 365 * 24 * HOUR, "{lease_left:?}");
    }
}
