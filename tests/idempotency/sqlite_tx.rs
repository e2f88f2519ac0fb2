//! Effect and record in one transaction of the user's, on SQLite.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use steadfast::idempotency::store::{Cancellation, Inspected, Status};
use steadfast::idempotency::{Disposition, EventKind, Idempotency, IdempotencyBuilder, SqliteStore};
use steadfast::storage::rusqlite::{self, Connection, Transaction, TransactionBehavior};
use steadfast::storage::{StorageError, StorageErrorKind};
use steadfast::{Error, Key, Rejected, RejectedKind};

use super::support::folder::Folder;

type Failure = Error<rusqlite::Error>;

const HOUR: Duration = Duration::from_secs(3_600);

fn key() -> Key {
    Key::new("tenant-7", "order-1234")
}

struct Bench {
    folder: Folder,
    store: SqliteStore,
    connection: Connection,
}

async fn bench() -> Bench {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.migrate().await.unwrap();
    let connection = connected(&folder);
    connection.execute_batch("CREATE TABLE booking (seat TEXT)").unwrap();
    Bench {
        folder,
        store,
        connection,
    }
}

fn connected(folder: &Folder) -> Connection {
    let connection = Connection::open(folder.file()).unwrap();
    connection.busy_timeout(Duration::from_millis(50)).unwrap();
    connection
}

impl Bench {
    fn at_most_once(&self) -> IdempotencyBuilder {
        Idempotency::at_most_once(self.store.clone())
    }

    fn at_least_once(&self) -> IdempotencyBuilder {
        Idempotency::at_least_once(self.store.clone())
    }

    fn begin(&mut self) -> Transaction<'_> {
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        begun.unwrap()
    }

    /// Books a seat in a transaction of its own.
    fn book(&mut self, bookings: &Idempotency, request: &str) -> Result<String, Failure> {
        let tx = self.begin();
        let booked = bookings.once_in_sqlite_tx(&tx, &key(), request, |tx| book(tx, request));
        tx.commit().unwrap();
        booked
    }

    fn seats(&self) -> Vec<String> {
        let mut statement = self.connection.prepare("SELECT seat FROM booking").unwrap();
        let seats = statement.query_map([], |row| row.get(0)).unwrap();
        seats.collect::<Result<_, _>>().unwrap()
    }

    async fn status(&self, bookings: &Idempotency) -> Option<Status> {
        let found = bookings.inspect(bookings.id(&key())).await.unwrap();
        found.map(|found| found.status())
    }
}

fn book(tx: &Transaction<'_>, seat: &str) -> Result<String, Failure> {
    tx.execute("INSERT INTO booking VALUES (?1)", [seat])
        .map_err(Error::Inner)?;
    Ok(seat.to_owned())
}

fn fail(tx: &Transaction<'_>) -> Result<String, Failure> {
    book(tx, "never")?;
    Err(Error::Inner(rusqlite::Error::QueryReturnedNoRows))
}

fn kind(result: Result<String, Failure>) -> RejectedKind {
    match result.unwrap_err() {
        Error::Rejected(rejected) => rejected.kind(),
        Error::Inner(error) => panic!("not a rejection: {error}"),
    }
}

#[tokio::test]
async fn a_repetition_gets_the_outcome_and_another_request_is_a_mismatch() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    assert_eq!(bench.book(&bookings, "12 A").unwrap(), "12 A");
    assert_eq!(bench.book(&bookings, "12 A").unwrap(), "12 A");
    assert_eq!(kind(bench.book(&bookings, "13 B")), RejectedKind::KeyMismatch);
    assert_eq!(bench.seats(), ["12 A"]);
    // What was done in a transaction is replayed outside of one as well.
    let replayed = bookings
        .run(&key(), "12 A", || async { Ok::<_, Rejected>("again".to_owned()) })
        .await;
    assert_eq!(replayed.unwrap(), "12 A");
}

#[tokio::test]
async fn an_error_undoes_the_work_and_frees_the_key_and_the_transaction_goes_on() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let tx = bench.begin();
    book(&tx, "before").unwrap();
    let failed = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", fail);
    assert!(matches!(failed, Err(Error::Inner(_))));
    let booked = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| book(tx, "12 A"));
    assert_eq!(booked.unwrap(), "12 A");
    tx.commit().unwrap();
    assert_eq!(bench.seats(), ["before", "12 A"]);
}

#[tokio::test]
async fn a_panic_undoes_the_work_and_frees_the_key_and_the_transaction_goes_on() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let tx = bench.begin();
    book(&tx, "before").unwrap();
    let panicking = || {
        bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| -> Result<String, Failure> {
            book(tx, "never")?;
            panic!("on purpose")
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
    tx.commit().unwrap();
    assert_eq!(bench.seats(), ["before"]);
    assert_eq!(bench.status(&bookings).await, None);
}

#[tokio::test]
async fn a_transaction_that_is_not_committed_leaves_nothing() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let tx = bench.begin();
    let booked = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| book(tx, "12 A"));
    assert!(booked.is_ok());
    drop(tx);
    assert_eq!(bench.seats(), Vec::<String>::new());
    assert_eq!(bench.status(&bookings).await, None);
}

#[tokio::test]
async fn one_within_another_is_undone_with_it() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let other = Key::new("tenant-7", "order-1235");
    let tx = bench.begin();
    let outer = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| {
        let inner = bookings.once_in_sqlite_tx(tx, &other, "12 B", |tx| book(tx, "12 B"));
        assert_eq!(inner.unwrap(), "12 B");
        let same = bookings.once_in_sqlite_tx(tx, &key(), "12 A", |tx| book(tx, "never"));
        assert_eq!(kind(same), RejectedKind::OutcomeUnknown);
        fail(tx)
    });
    assert!(outer.is_err());
    tx.commit().unwrap();
    assert_eq!(bench.seats(), Vec::<String>::new());
    assert_eq!(bookings.inspect(bookings.id(&other)).await.unwrap(), None);
}

/// The work commits half of itself, and the process is then thought to have crashed.
fn commit_inside(tx: &Transaction<'_>) -> Result<String, Failure> {
    book(tx, "half")?;
    tx.execute_batch("COMMIT").map_err(Error::Inner)?;
    Ok("half".to_owned())
}

#[tokio::test]
async fn a_commit_inside_leaves_an_interrupted_record_and_never_a_completed_one() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let tx = bench.begin();
    let committed = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", commit_inside);
    assert_eq!(kind(committed), RejectedKind::OutcomeUnknown);
    drop(tx);
    assert_eq!(bench.status(&bookings).await, Some(Status::Interrupted));
    assert_eq!(kind(bench.book(&bookings, "12 A")), RejectedKind::OutcomeUnknown);
    assert_eq!(bench.seats(), ["half"]);
}

#[tokio::test]
async fn a_commit_inside_with_another_transaction_after_it_is_not_completed_either() {
    let mut bench = bench().await;
    let bookings = bench.at_least_once().build().unwrap();
    let tx = bench.begin();
    let committed = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| {
        let half = commit_inside(tx)?;
        tx.execute_batch("BEGIN IMMEDIATE").map_err(Error::Inner)?;
        Ok(half)
    });
    assert_eq!(kind(committed), RejectedKind::OutcomeUnknown);
    drop(tx);
    assert_eq!(bench.status(&bookings).await, Some(Status::Interrupted));
    // At least once: it is taken over.
    assert_eq!(bench.book(&bookings, "12 A").unwrap(), "12 A");
    assert_eq!(bench.seats(), ["half", "12 A"]);
}

#[tokio::test]
async fn what_is_in_progress_interrupted_or_cancelled_outside_is_refused_inside() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let running = {
        let bookings = bookings.clone();
        tokio::spawn(async move {
            let hang = || async {
                started.send(()).unwrap();
                std::future::pending::<Result<String, Rejected>>().await
            };
            bookings.run(&key(), "12 A", hang).await
        })
    };
    has_started.await.unwrap();
    let Error::Rejected(rejected) = bench.book(&bookings, "12 A").unwrap_err() else {
        panic!("not a rejection");
    };
    assert_eq!(rejected.kind(), RejectedKind::InProgress);
    assert!(
        rejected
            .retry_after()
            .is_some_and(|wait| wait <= Duration::from_secs(1))
    );

    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // A task tells the store.
    while bookings.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.status(&bookings).await, Some(Status::Interrupted));
    assert_eq!(kind(bench.book(&bookings, "12 A")), RejectedKind::OutcomeUnknown);
    assert!(matches!(
        bookings.cancel(&key()).await.unwrap(),
        Cancellation::CancelledUnknown(_)
    ));
    assert_eq!(kind(bench.book(&bookings, "12 A")), RejectedKind::KeyCancelled);
    assert_eq!(bench.seats(), Vec::<String>::new());
}

#[tokio::test]
async fn a_record_that_has_expired_is_claimed_again_by_any_request() {
    let mut bench = bench().await;
    let bookings = bench
        .at_most_once()
        .retention(Duration::from_millis(1))
        .build()
        .unwrap();
    assert!(bench.book(&bookings, "12 A").is_ok());
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bench.book(&bookings, "13 B").unwrap(), "13 B");
    assert_eq!(bench.seats(), ["12 A", "13 B"]);
}

#[tokio::test]
async fn without_the_tables_nothing_is_done_and_a_listener_hears_why() {
    let folder = Folder::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let store = SqliteStore::open(folder.file()).await.unwrap();
    let bookings = Idempotency::at_most_once(store).on_event(move |event| {
        if let EventKind::StoreFailed { error, .. } = event.kind {
            listener.lock().unwrap().push((error.kind(), error.to_string()));
        }
    });
    let bookings = bookings.build().unwrap();
    let mut connection = connected(&folder);
    let runs = AtomicU32::new(0);
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let work = |_: &Transaction<'_>| {
        runs.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Failure>("12 A".to_owned())
    };
    assert_eq!(
        kind(bookings.once_in_sqlite_tx(&tx, &key(), "12 A", work)),
        RejectedKind::StoreUnavailable
    );
    assert_eq!(runs.into_inner(), 0);
    let heard = heard.lock().unwrap();
    assert_eq!(heard[0].0, StorageErrorKind::NotMigrated);
    assert!(heard[0].1.contains("migrate()"), "{}", heard[0].1);
}

#[tokio::test]
async fn a_schema_that_is_too_new_is_refused_inside_too() {
    let mut bench = bench().await;
    let note = "INSERT INTO steadfast_migrations (component, version, checksum) VALUES ('idempotency', ?1, 'x')";
    for version in [2, 3] {
        bench.connection.execute(note, [version]).unwrap();
    }
    let bookings = bench.at_most_once().build().unwrap();
    assert_eq!(kind(bench.book(&bookings, "12 A")), RejectedKind::StoreUnavailable);
    assert_eq!(bench.seats(), Vec::<String>::new());
}

#[tokio::test]
async fn an_outcome_that_cannot_be_stored_undoes_the_work() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().max_outcome(10).build().unwrap();
    assert_eq!(
        kind(bench.book(&bookings, "a long name of a seat")),
        RejectedKind::NotStorable
    );
    assert_eq!(bench.seats(), Vec::<String>::new());
    assert_eq!(bench.status(&bookings).await, None);
}

#[tokio::test]
async fn what_a_value_means_for_the_record_is_the_policy_s_to_decide() {
    let mut bench = bench().await;
    for (disposition, expected) in [
        (Disposition::StoreFor(HOUR), Some(Status::Completed)),
        (Disposition::Release, None),
        (Disposition::Interrupt, Some(Status::Interrupted)),
    ] {
        let bookings = bench.at_most_once().namespace(format!("{disposition:?}"));
        let bookings = bookings
            .decide(move |_: Result<&String, &Failure>| disposition)
            .build()
            .unwrap();
        let tx = bench.begin();
        let booked = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |tx| book(tx, "12 A"));
        tx.commit().unwrap();
        assert_eq!(booked.unwrap(), "12 A");
        let found = bookings.inspect(bookings.id(&key())).await.unwrap();
        assert_eq!(found.as_ref().map(Inspected::status), expected, "{disposition:?}");
        let expires_in = found.and_then(|found| found.expires_in());
        assert!(
            expires_in.is_none_or(|expires_in| expires_in <= HOUR),
            "{disposition:?}"
        );
    }
    assert_eq!(bench.seats().len(), 3);
}

#[tokio::test]
async fn a_deferred_transaction_takes_the_lock_before_it_reads() {
    let mut bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    let other = connected(&bench.folder);
    let tx = bench.connection.transaction().unwrap();
    let booked = bookings.once_in_sqlite_tx(&tx, &key(), "12 A", |_| {
        assert!(
            other.execute_batch("BEGIN IMMEDIATE").is_err(),
            "somebody else may write"
        );
        Ok::<_, Failure>("12 A".to_owned())
    });
    assert_eq!(booked.unwrap(), "12 A");
    tx.commit().unwrap();
    // Of a repetition too: it reads, and its work after it may write.
    let tx = bench.connection.transaction().unwrap();
    assert!(
        bookings
            .once_in_sqlite_tx(&tx, &key(), "12 A", |tx| book(tx, "never"))
            .is_ok()
    );
    assert!(other.execute_batch("BEGIN IMMEDIATE").is_err());
    drop(tx);

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tx = bench.connection.transaction().unwrap();
    let next = Key::new("tenant-7", "order-1235");
    let busy = bookings.once_in_sqlite_tx(&tx, &next, "12 A", |tx| book(tx, "never"));
    assert_eq!(kind(busy), RejectedKind::StoreUnavailable);
}

#[tokio::test]
async fn of_many_transactions_under_each_key_one_has_its_effect() {
    let bench = bench().await;
    let bookings = bench.at_most_once().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (bookings, mut connection) = (&bookings, connected(&bench.folder));
            connection.busy_timeout(Duration::from_secs(30)).unwrap();
            scope.spawn(move || {
                for n in 0..50_u32 {
                    let tx = connection
                        .transaction_with_behavior(TransactionBehavior::Immediate)
                        .unwrap();
                    let seat = n.to_string();
                    let key = Key::new("tenant-7", &seat);
                    let booked = bookings.once_in_sqlite_tx(&tx, &key, &seat, |tx| book(tx, &seat));
                    assert_eq!(booked.unwrap(), seat);
                    tx.commit().unwrap();
                }
            });
        }
    });
    let mut seats: Vec<u32> = bench.seats().iter().map(|seat| seat.parse().unwrap()).collect();
    seats.sort_unstable();
    assert_eq!(seats, (0..50).collect::<Vec<_>>());
}

/// What anybody may see of a failure shows neither key nor request.
#[tokio::test]
async fn errors_show_no_keys_and_no_requests() {
    let mut bench = bench().await;
    bench
        .connection
        .execute_batch("DROP TABLE steadfast_idempotency")
        .unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let bookings = bench.at_most_once().on_event(move |event| {
        listener.lock().unwrap().push(format!("{event:?}"));
        if let EventKind::StoreFailed { error, .. } = event.kind {
            listener.lock().unwrap().push(chain(error));
        }
    });
    let bookings = bookings.build().unwrap();
    let error = bench.book(&bookings, "a secret seat").unwrap_err();
    let seen = format!("{error} {error:?} {}", heard.lock().unwrap().join(" "));
    assert!(seen.contains("no such table"), "{seen}");
    for secret in ["order-1234", "tenant-7", "secret"] {
        assert!(!seen.contains(secret), "{seen}");
    }
}

fn chain(error: &StorageError) -> String {
    let mut parts = vec![format!("{error} {error:?}")];
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        parts.push(format!("{source} {source:?}"));
        next = source.source();
    }
    parts.join(": ")
}
