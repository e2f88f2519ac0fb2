//! Effect and record in one transaction on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use steadfast::idempotency::store::{Status, Store};
use steadfast::idempotency::{Idempotency, PostgresStore};
use steadfast::storage::tokio_postgres::{self, Client, Transaction, error::SqlState};
use steadfast::{Key, Rejected, RejectedKind};
use tokio::time::Instant;

use crate::support::postgres::Database;

#[derive(Debug, thiserror::Error)]
enum BookingError {
    #[error("the database: {0}")]
    Database(#[from] tokio_postgres::Error),
    #[error("sold out")]
    SoldOut,
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

impl BookingError {
    fn kind(&self) -> Option<RejectedKind> {
        Rejected::find(self).map(|rejected| rejected.kind())
    }
}

fn key() -> Key {
    Key::new("tenant-7", "order-1234")
}

async fn bookings(database: &Database) -> (PostgresStore, Idempotency) {
    let store = database.store(2).await;
    database.execute("CREATE TABLE booking (seat text)").await;
    let idempotency = Idempotency::at_most_once(store.clone())
        .store_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    (store, idempotency)
}

async fn book(tx: &mut Transaction<'_>) -> Result<String, BookingError> {
    tx.execute("INSERT INTO booking VALUES ('12 A')", &[]).await?;
    Ok("12 A".to_owned())
}

async fn booked(database: &Database) -> i64 {
    let row = database
        .client()
        .await
        .query_one("SELECT count(*) FROM booking", &[])
        .await;
    row.unwrap().get(0)
}

async fn book_once(idempotency: &Idempotency, client: &mut Client) -> Result<String, BookingError> {
    let mut tx = client.transaction().await?;
    let seat = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| book(tx).await);
    let seat = seat.await?;
    tx.commit().await?;
    Ok(seat)
}

#[tokio::test]
async fn what_is_committed_is_done_once_and_replayed() {
    let Some(database) = Database::new("tx_commit").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    for _ in 0..3 {
        assert_eq!(book_once(&idempotency, &mut client).await.unwrap(), "12 A");
        assert_eq!(booked(&database).await, 1);
    }
    let found = store.inspect(idempotency.id(&key())).await.unwrap().unwrap();
    assert_eq!((found.status(), found.attempt()), (Status::Completed, 1));
    // Another request under the same key.
    let mut tx = client.transaction().await.unwrap();
    let other = idempotency.once_in_postgres_tx(&mut tx, &key(), "13 B", async |tx| book(tx).await);
    assert_eq!(other.await.unwrap_err().kind(), Some(RejectedKind::KeyMismatch));
}

#[tokio::test]
async fn the_transaction_of_a_pool_will_do() {
    let Some(database) = Database::behind_pgbouncer("tx_pool").await else {
        return;
    };
    let (_, idempotency) = bookings(&database).await;
    let pool = database.pool(4);
    // In a task, where the future has to be `Send`, with what the work borrows from around it.
    let task = tokio::spawn(async move {
        let seat = String::from("12 A");
        let mut client = pool.get().await.unwrap();
        let mut tx = client.transaction().await?;
        let rows = idempotency.once_in_postgres_tx(&mut tx, &key(), &seat, async |tx| {
            Ok::<_, BookingError>(tx.execute("INSERT INTO booking VALUES ($1)", &[&seat]).await?)
        });
        let rows = rows.await?;
        tx.commit().await?;
        Ok::<_, BookingError>(rows)
    });
    assert_eq!(task.await.unwrap().unwrap(), 1);
    assert_eq!(booked(&database).await, 1);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_neither_effect_nor_record() {
    let Some(database) = Database::new("tx_rollback").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    let seat = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| book(tx).await);
    seat.await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(booked(&database).await, 0);
    assert_eq!(store.inspect(idempotency.id(&key())).await.unwrap(), None);
    book_once(&idempotency, &mut client).await.unwrap();
    assert_eq!(booked(&database).await, 1);
}

#[tokio::test]
async fn an_error_undoes_the_work_and_nothing_before_it() {
    let Some(database) = Database::new("tx_error").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    book(&mut tx).await.unwrap();
    let sold_out = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| {
        book(tx).await?;
        Err::<String, _>(BookingError::SoldOut)
    });
    assert!(matches!(sold_out.await, Err(BookingError::SoldOut)));
    // A statement that failed does not take the transaction along.
    let failed = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| {
        book(tx).await?;
        tx.execute("INSERT INTO nowhere VALUES (1)", &[]).await?;
        Ok::<_, BookingError>(())
    });
    assert!(matches!(failed.await, Err(BookingError::Database(_))));
    tx.commit().await.unwrap();
    assert_eq!(booked(&database).await, 1);
    assert_eq!(store.inspect(idempotency.id(&key())).await.unwrap(), None);
}

#[tokio::test]
async fn a_panic_and_a_drop_undo_the_work() {
    let Some(database) = Database::new("tx_drop").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    let panics = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| {
        book(tx).await?;
        panic!("half way");
        #[allow(unreachable_code, reason = "it has a type")]
        Ok::<(), BookingError>(())
    });
    assert!(std::panic::AssertUnwindSafe(panics).catch_unwind().await.is_err());
    let hangs = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| {
        book(tx).await?;
        std::future::pending::<Result<(), BookingError>>().await
    });
    assert!(tokio::time::timeout(Duration::from_millis(300), hangs).await.is_err());
    tx.commit().await.unwrap();
    assert_eq!(booked(&database).await, 0);
    assert_eq!(store.inspect(idempotency.id(&key())).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_wait_for_the_first_and_have_its_outcome() {
    let Some(database) = Database::new("tx_duplicates").await else {
        return;
    };
    let (_, idempotency) = bookings(&database).await;
    let runs = AtomicU32::new(0);
    for round in 0..20 {
        let key = Key::new("tenant-7", format!("order-{round}"));
        let books = (0..8).map(|_| async {
            let mut client = database.client().await;
            let mut tx = client.transaction().await?;
            let seat = idempotency.once_in_postgres_tx(&mut tx, &key, "12 A", async |tx| {
                runs.fetch_add(1, Ordering::SeqCst);
                book(tx).await
            });
            let seat = seat.await?;
            tx.commit().await?;
            Ok::<_, BookingError>(seat)
        });
        for seat in join_all(books).await {
            assert_eq!(seat.unwrap(), "12 A");
        }
        assert_eq!(booked(&database).await, i64::from(round) + 1);
        assert_eq!(runs.load(Ordering::SeqCst), round + 1);
    }
}

#[tokio::test]
async fn a_duplicate_whose_first_does_not_end_is_in_progress_and_its_transaction_goes_on() {
    let Some(database) = Database::new("tx_lock_timeout").await else {
        return;
    };
    let (store, _) = bookings(&database).await;
    let idempotency = Idempotency::at_least_once(store)
        .lease(Duration::from_secs(30))
        .store_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let (mut first, mut second) = (database.client().await, database.client().await);
    let mut open = first.transaction().await.unwrap();
    let seat = idempotency.once_in_postgres_tx(&mut open, &key(), "12 A", async |tx| book(tx).await);
    seat.await.unwrap();

    let mut tx = second.transaction().await.unwrap();
    book(&mut tx).await.unwrap();
    let started = Instant::now();
    let duplicate = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| book(tx).await);
    let rejected = duplicate.await.unwrap_err();
    assert_eq!(rejected.kind(), Some(RejectedKind::InProgress));
    assert!(started.elapsed() >= Duration::from_millis(300));
    let lock_timeout =
        async |tx: &Transaction<'_>| -> String { tx.query_one("SHOW lock_timeout", &[]).await.unwrap().get(0) };
    assert_eq!(lock_timeout(&tx).await, "0");

    // Also after a claim that waited for nobody; and one's own bound stays, and is the one.
    let free = Key::new("tenant-7", "order-2");
    let seat = idempotency.once_in_postgres_tx(&mut tx, &free, "12 A", async |tx| {
        assert_eq!(lock_timeout(tx).await, "0");
        book(tx).await
    });
    seat.await.unwrap();
    assert_eq!(lock_timeout(&tx).await, "0");
    tx.batch_execute("SET LOCAL lock_timeout = '50ms'").await.unwrap();
    let started = Instant::now();
    let duplicate = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| book(tx).await);
    assert_eq!(duplicate.await.unwrap_err().kind(), Some(RejectedKind::InProgress));
    assert!(
        started.elapsed() < Duration::from_millis(250),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(lock_timeout(&tx).await, "50ms");
    tx.commit().await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(booked(&database).await, 3);
}

#[tokio::test]
async fn work_that_commits_by_itself_counts_as_interrupted() {
    let Some(database) = Database::new("tx_interrupted").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    for statements in ["COMMIT", "COMMIT; BEGIN"] {
        let key = Key::new("tenant-7", statements);
        let mut tx = client.transaction().await.unwrap();
        let commits = idempotency.once_in_postgres_tx(&mut tx, &key, "12 A", async |tx| {
            let seat = book(tx).await?;
            tx.batch_execute(statements).await?;
            Ok::<_, BookingError>(seat)
        });
        let error = commits.await.unwrap_err();
        assert_eq!(error.kind(), Some(RejectedKind::OutcomeUnknown), "{error:?}");
        drop(tx);
        let found = store.inspect(idempotency.id(&key)).await.unwrap().unwrap();
        assert_eq!(found.status(), Status::Interrupted);
        let mut tx = client.transaction().await.unwrap();
        let again = idempotency.once_in_postgres_tx(&mut tx, &key, "12 A", async |tx| book(tx).await);
        assert_eq!(again.await.unwrap_err().kind(), Some(RejectedKind::OutcomeUnknown));
    }
    assert_eq!(booked(&database).await, 2);
}

#[tokio::test]
async fn a_connection_that_is_cut_half_way_leaves_nothing() {
    let Some(database) = Database::new("tx_cut").await else {
        return;
    };
    let (store, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    let admin = database.client().await;
    let mut tx = client.transaction().await.unwrap();
    let cut = idempotency.once_in_postgres_tx(&mut tx, &key(), "12 A", async |tx| {
        let seat = book(tx).await?;
        let pid: i32 = tx.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        admin.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await?;
        Ok::<_, BookingError>(seat)
    });
    assert!(matches!(cut.await, Err(BookingError::Database(_))));
    drop(tx);
    assert_eq!(booked(&database).await, 0);
    assert_eq!(store.inspect(idempotency.id(&key())).await.unwrap(), None);
    book_once(&idempotency, &mut database.client().await).await.unwrap();
}

#[tokio::test]
async fn a_serialization_failure_is_the_callers_to_run_again() {
    let Some(database) = Database::new("tx_serializable").await else {
        return;
    };
    let (_, idempotency) = bookings(&database).await;
    let (mut first, mut second) = (database.client().await, database.client().await);
    let isolation = tokio_postgres::IsolationLevel::RepeatableRead;
    let mut late = second
        .build_transaction()
        .isolation_level(isolation)
        .start()
        .await
        .unwrap();
    late.query_one("SELECT 1", &[]).await.unwrap();
    book_once(&idempotency, &mut first).await.unwrap();
    // Its snapshot is older than the record, which it may therefore neither read nor write.
    let duplicate = idempotency.once_in_postgres_tx(&mut late, &key(), "12 A", async |tx| book(tx).await);
    match duplicate.await.unwrap_err() {
        BookingError::Database(error) => assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE)),
        other => panic!("{other:?}"),
    }
    late.rollback().await.unwrap();
    assert_eq!(book_once(&idempotency, &mut second).await.unwrap(), "12 A");
    assert_eq!(booked(&database).await, 1);
}

#[tokio::test]
async fn an_outcome_that_has_expired_is_not_replayed_in_a_transaction() {
    let Some(database) = Database::new("tx_expired").await else {
        return;
    };
    let (_, idempotency) = bookings(&database).await;
    let mut client = database.client().await;
    book_once(&idempotency, &mut client).await.unwrap();
    database
        .execute("UPDATE steadfast.idempotency SET expires_at = now() - interval '1 second'")
        .await;
    book_once(&idempotency, &mut client).await.unwrap();
    assert_eq!(booked(&database).await, 2);
}
