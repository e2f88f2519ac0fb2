//! The SQLite journal on real files: several handles and processes, schemas, views, and how often it writes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use steadfast::KeyId;
use steadfast::saga::journal::{
    Append, Appended, ClaimQuery, Created, DefinitionId, Entry, Hold, Journal, NewSaga, OwnerId, SagaStatus,
    SqliteJournal,
};
use steadfast::saga::{Cx, Saga, SagaEngine, SagaId};
use steadfast::storage::rusqlite::Connection;
use steadfast::storage::{Durability, SqliteStorage, StorageErrorKind};
use tokio::runtime::Builder;

use super::support::folder::Folder;
use super::support::kill::{self, Child, Stop};

const HOUR: Duration = Duration::from_secs(3_600);

fn id(n: u64) -> SagaId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    SagaId::from_bytes(bytes)
}

fn definition() -> DefinitionId {
    DefinitionId {
        name: "order".into(),
        version: 1,
        fingerprint: [7; 32],
    }
}

/// The incarnation of nobody else.
fn somebody() -> OwnerId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    OwnerId(bytes)
}

fn entry(event: &'static str, context: Option<&'static str>) -> Entry {
    Entry {
        event: Bytes::from_static(event.as_bytes()),
        context: context.map(|context| Bytes::from_static(context.as_bytes())),
    }
}

/// Saga `n`, due at once.
fn new(n: u64) -> NewSaga {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    NewSaga {
        id: id(n),
        key: KeyId::from_bytes(key),
        input: [1; 32],
        definition: definition(),
        deadline: None,
        lease: None,
        entries: vec![entry(r#"{"event":"created"}"#, Some(r#"{"item":"a \u0000 book"}"#))],
        can_turn: true,
    }
}

/// Saga `n`, driven by `owner`.
fn driven(n: u64, owner: OwnerId) -> NewSaga {
    NewSaga {
        lease: Some((owner, HOUR)),
        ..new(n)
    }
}

fn append(n: u64, seq: u64) -> Append {
    Append {
        id: id(n),
        epoch: 1,
        seq,
        entries: vec![
            entry(
                r#"{"event":"succeeded","step":"reserve"}"#,
                Some(r#"{"item":"a book","reservation":17}"#),
            ),
            entry(r#"{"event":"started","step":"charge"}"#, None),
        ],
        status: SagaStatus::Running,
        can_turn: true,
        progress: true,
        hold: Hold::Keep(HOUR),
        error: None,
    }
}

fn query(owner: OwnerId, limit: usize) -> ClaimQuery {
    ClaimQuery {
        owner,
        lease: HOUR,
        definitions: vec![definition()],
        limit,
        suspects: 1,
    }
}

async fn opened(folder: &Folder) -> SqliteJournal {
    let journal = SqliteJournal::open(folder.file()).await.unwrap();
    journal.migrate().await.unwrap();
    journal
}

async fn with_sagas(folder: &Folder, count: u64) -> SqliteJournal {
    let journal = opened(folder).await;
    let sagas: Vec<_> = (0..count).map(new).collect();
    let created = join_all(sagas.iter().map(|saga| journal.create(saga))).await;
    assert!(created.into_iter().all(|created| created.unwrap() == Created::New));
    journal
}

/// Claims a few at a time until there is nothing left.
async fn claim_all(journal: &SqliteJournal, mut claimed: impl FnMut(SagaId)) {
    let owner = somebody();
    loop {
        let batch = journal.claim(&query(owner, 7)).await.unwrap();
        if batch.is_empty() {
            return;
        }
        for saga in batch {
            assert_eq!((saga.head.epoch, saga.head.owner), (1, Some(owner)));
            claimed(saga.head.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_workers_on_two_handles_claim_every_saga_once() {
    let folder = Folder::new();
    let handles = [with_sagas(&folder, 500).await, opened(&folder).await];
    let workers = (0..16_usize).map(|n| {
        let journal = handles[n % 2].clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            claim_all(&journal, |id| mine.push(id)).await;
            mine
        })
    });
    let mut claimed: Vec<_> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, (0..500).map(id).collect::<Vec<_>>());
}

#[test]
fn child() {
    let Some(child) = kill::child() else { return };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(claims(&child));
    child.finished();
}

async fn claims(child: &Child) {
    let journal = SqliteJournal::open(child.place()).await.unwrap();
    journal.migrate().await.unwrap();
    claim_all(&journal, |id| child.say(&id.to_string())).await;
}

#[test]
fn three_processes_on_one_file_claim_every_saga_once() {
    let folder = Folder::new();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    drop(runtime.block_on(with_sagas(&folder, 300)));
    let file = folder.file();
    let mut claimed: Vec<String> = Vec::new();
    thread::scope(|scope| {
        let run = || kill::run("sqlite::child", "claims", file.to_str().unwrap(), Stop::Never).said;
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        claimed.extend(runs.into_iter().flat_map(|run| run.join().unwrap()));
    });
    claimed.sort_unstable();
    assert_eq!(claimed, (0..300).map(|n| id(n).to_string()).collect::<Vec<_>>());
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
async fn every_write_is_one_transaction_and_what_changes_nothing_is_none() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let owner = somebody();
    let saga = driven(1, owner);
    let mut writes = Vec::new();
    let mut before = commits(&folder);
    let mut count = |what: &'static str| {
        let now = commits(&folder);
        writes.push((what, now - before));
        before = now;
    };
    journal.create(&saga).await.unwrap();
    count("create");
    journal.create(&saga).await.unwrap();
    count("create again");
    journal.append(&append(1, 1)).await.unwrap();
    count("append two events");
    journal.append(&append(1, 1)).await.unwrap();
    count("append them again");
    journal.append(&append(1, 9)).await.unwrap();
    count("append out of turn");
    journal.renew(owner, HOUR, &[(saga.id, 1)]).await.unwrap();
    count("renew");
    journal.renew(somebody(), HOUR, &[(saga.id, 1)]).await.unwrap();
    count("renew for another");
    journal.claim(&query(owner, 10)).await.unwrap();
    count("claim nothing");
    journal.load(saga.id).await.unwrap();
    count("load");
    journal.release(owner, &[(saga.id, 1)]).await.unwrap();
    count("release");
    journal.claim(&query(owner, 10)).await.unwrap();
    count("claim");
    let expected = [
        ("create", 1),
        ("create again", 0),
        ("append two events", 1),
        ("append them again", 0),
        ("append out of turn", 0),
        ("renew", 1),
        ("renew for another", 0),
        ("claim nothing", 0),
        ("load", 0),
        ("release", 1),
        ("claim", 1),
    ];
    assert_eq!(writes, expected);
}

#[tokio::test]
async fn appends_that_wait_for_a_busy_file_share_one_commit() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let owner = somebody();
    for n in 0..100 {
        journal.create(&driven(n, owner)).await.unwrap();
    }
    let before = commits(&folder);
    let other = Connection::open(folder.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let requests: Vec<_> = (0..100).map(|n| append(n, 1)).collect();
    let appends = join_all(requests.iter().map(|append| journal.append(append)));
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.execute_batch("ROLLBACK").unwrap();
    };
    let (appended, ()) = tokio::join!(appends, release);
    let written = Appended::Written { cancel: false };
    assert!(appended.into_iter().all(|appended| appended.unwrap() == written));
    assert_eq!(commits(&folder) - before, 1);
}

#[tokio::test]
async fn an_append_whose_reply_was_lost_is_recognised_by_whoever_sends_it_again() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let owner = somebody();
    let saga = driven(1, owner);
    journal.create(&saga).await.unwrap();
    let request = append(1, 1);
    // The caller leaves once the request has its place in the writer's queue.
    let mut sent = journal.append(&request);
    assert!(futures::poll!(&mut sent).is_pending());
    drop(sent);
    let written = Appended::Written { cancel: false };
    assert_eq!(opened(&folder).await.append(&request).await.unwrap(), written);
    // And after more was written behind it.
    assert_eq!(journal.append(&append(1, 3)).await.unwrap(), written);
    assert_eq!(journal.append(&request).await.unwrap(), written);
    let another = Append {
        entries: vec![entry("{}", None); 2],
        ..request.clone()
    };
    assert_eq!(journal.append(&another).await.unwrap(), Appended::Fenced);
    let loaded = journal.load(saga.id).await.unwrap().unwrap();
    let seqs: Vec<_> = loaded.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs, loaded.head.seq), (vec![0, 1, 2, 3, 4], 5));
}

#[tokio::test]
async fn whoever_was_overtaken_writes_nothing() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let (first, second) = (somebody(), somebody());
    let saga = NewSaga {
        lease: Some((first, Duration::ZERO)),
        ..new(1)
    };
    journal.create(&saga).await.unwrap();
    let claimed = journal.claim(&query(second, 1)).await.unwrap();
    assert_eq!(
        (claimed[0].head.epoch, claimed[0].head.recoveries, claimed[0].parked),
        (2, 1, false)
    );
    assert_eq!(journal.append(&append(1, 1)).await.unwrap(), Appended::Fenced);
    let loaded = journal.load(saga.id).await.unwrap().unwrap();
    assert_eq!(loaded.entries.len(), 1);
}

/// Id, name, version, status, number of events, due, error.
type Shown = (String, String, u32, String, u32, Option<String>, Option<String>);

#[tokio::test]
async fn views_show_sagas_events_and_contexts_readable() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let owner = somebody();
    let saga = driven(1, owner);
    journal.create(&saga).await.unwrap();
    let sealed = Entry {
        context: Some(Bytes::from_static(&[0xc3, 0x28, 0, 1])),
        ..entry(r#"{"event":"succeeded","step":"ship"}"#, None)
    };
    let ended = Append {
        entries: vec![sealed, entry(r#"{"event":"finished"}"#, None)],
        status: SagaStatus::Stuck,
        hold: Hold::Rest,
        error: Some("step `ship` failed".into()),
        ..append(1, 1)
    };
    journal.append(&ended).await.unwrap();
    let connection = Connection::open(folder.file()).unwrap();
    let head: Shown = connection
        .query_row(
            "SELECT id, name, version, status, seq, due, error FROM steadfast_sagas",
            [],
            |row| row.try_into(),
        )
        .unwrap();
    let error = Some("step `ship` failed".to_owned());
    assert_eq!(
        head,
        (saga.id.to_string(), "order".into(), 1, "stuck".into(), 3, None, error)
    );
    let at: String = connection
        .query_row("SELECT changed_at FROM steadfast_sagas", [], |row| row.get(0))
        .unwrap();
    assert!(at.starts_with("20") && at.ends_with('Z') && at.len() == 24, "{at}");
    let mut statement = connection
        .prepare("SELECT seq, event, context FROM steadfast_saga_events ORDER BY seq")
        .unwrap();
    let rows = statement.query_map([], |row| row.try_into()).unwrap();
    let events: Vec<(u32, String, Option<String>)> = rows.map(Result::unwrap).collect();
    let expected = [
        (0, r#"{"event":"created"}"#, Some(r#"{"item":"a \u0000 book"}"#)),
        (1, r#"{"event":"succeeded","step":"ship"}"#, Some("C3280001")),
        (2, r#"{"event":"finished"}"#, None),
    ];
    let expected = expected.map(|(seq, event, context)| (seq, event.to_owned(), context.map(str::to_owned)));
    assert_eq!(events, expected);
}

#[tokio::test]
async fn without_migrate_the_error_says_what_to_call() {
    let folder = Folder::new();
    let journal = SqliteJournal::open(folder.file()).await.unwrap();
    let error = journal.create(&new(1)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    assert!(error.to_string().contains("migrate()"), "{error}");
    journal.migrate().await.unwrap();
    assert_eq!(journal.create(&new(1)).await.unwrap(), Created::New);
}

async fn with_version(version: u32) -> Result<Created, StorageErrorKind> {
    let folder = Folder::new();
    drop(opened(&folder).await);
    let connection = Connection::open(folder.file()).unwrap();
    for newer in 2..=version {
        let note = "INSERT INTO steadfast_migrations (component, version, checksum) VALUES ('saga', ?1, 'x')";
        connection.execute(note, [newer]).unwrap();
    }
    let journal = SqliteJournal::open(folder.file()).await.unwrap();
    journal.create(&new(1)).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn the_schema_of_the_next_version_is_worked_with_and_a_later_one_is_refused() {
    let next = u32::try_from(SqliteJournal::migrations().len()).unwrap() + 1;
    assert_eq!(with_version(next).await, Ok(Created::New));
    assert_eq!(with_version(next + 1).await, Err(StorageErrorKind::NotMigrated));
}

#[test]
fn the_released_steps_of_the_schema_are_pinned() {
    let steps: Vec<_> = SqliteJournal::migrations()
        .iter()
        .map(|step| (step.component(), step.version(), step.checksum()))
        .collect();
    let pinned = "9b012251f7d33e03d89bf1b12ba33a913303d2a441a7ab434c81a08f69b766d5";
    assert_eq!(steps, [("saga", 1, pinned.to_owned())]);
}

#[tokio::test]
async fn a_store_of_idempotency_and_a_journal_share_a_file() {
    let folder = Folder::new();
    let storage = SqliteStorage::open(folder.file()).await.unwrap();
    let store = steadfast::idempotency::SqliteStore::new(&storage);
    let journal = SqliteJournal::new(&storage);
    store.migrate().await.unwrap();
    let error = journal.find(new(1).key).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    journal.migrate().await.unwrap();
    assert_eq!(journal.find(new(1).key).await.unwrap(), None);
}

#[tokio::test]
async fn a_journal_whose_file_is_relaxed_drives_no_sagas_unless_that_is_accepted() {
    let folder = Folder::new();
    let relaxed = SqliteStorage::builder(folder.file()).relaxed_durability();
    let journal = SqliteJournal::new(&relaxed.open().await.unwrap());
    assert_eq!(journal.durability(), Durability::Relaxed);
    let saga = Saga::<u32>::builder("order")
        .read_only("look", async |_: &mut Cx<u32>| Ok(()))
        .build()
        .unwrap();
    let builder = || SagaEngine::builder(journal.clone()).register(&saga);
    let refused = builder().build().unwrap_err();
    assert!(refused.to_string().contains("accept_relaxed_durability"), "{refused}");
    assert!(builder().accept_relaxed_durability().build().is_ok());
    assert_eq!(opened(&folder).await.durability(), Durability::Durable);
}

#[tokio::test]
async fn leases_and_waits_of_a_century_and_longer_are_honoured() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    for (n, long) in [(1, 100 * 365 * 24 * HOUR), (2, Duration::MAX)] {
        let owner = somebody();
        let saga = NewSaga {
            lease: Some((owner, long)),
            deadline: Some(long),
            ..new(n)
        };
        journal.create(&saga).await.unwrap();
        let parked = Append {
            hold: Hold::Park(long),
            ..append(n, 1)
        };
        assert!(journal.claim(&query(somebody(), 10)).await.unwrap().is_empty());
        journal.append(&parked).await.unwrap();
        assert!(journal.claim(&query(somebody(), 10)).await.unwrap().is_empty());
        let loaded = journal.load(saga.id).await.unwrap().unwrap();
        let year_99 = loaded.now + 99 * 365 * 24 * HOUR;
        assert!(
            loaded.head.due > Some(year_99) && loaded.head.deadline > Some(year_99),
            "{:?}",
            loaded.head
        );
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let saga = driven(1, somebody());
    journal.create(&saga).await.unwrap();
    journal.append(&append(1, 1)).await.unwrap();
    let before = journal.load(saga.id).await.unwrap().unwrap();
    drop(journal);
    let after = opened(&folder).await.load(saga.id).await.unwrap().unwrap();
    assert_eq!((before.head, before.entries), (after.head, after.entries));
    assert_eq!(opened(&folder).await.create(&saga).await.unwrap(), Created::New);
}

#[tokio::test]
async fn errors_show_nothing_that_is_stored() {
    let folder = Folder::new();
    let journal = opened(&folder).await;
    let saga = driven(1, somebody());
    journal.create(&saga).await.unwrap();
    let connection = Connection::open(folder.file()).unwrap();
    connection
        .execute(
            "UPDATE steadfast_saga_event SET seq = 5, event = CAST('secret' AS BLOB)",
            [],
        )
        .unwrap();
    let error = journal.load(saga.id).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt);
    let texts = BTreeSet::from([format!("{error}"), format!("{error:?}")]);
    assert!(
        texts
            .iter()
            .all(|text| !text.contains("secret") && !text.contains("book")),
        "{texts:?}"
    );
}
