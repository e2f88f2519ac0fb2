//! Claims and completions in PostgreSQL that come faster than it answers.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use steadfast::KeyId;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Completed, Face, Mode, Origin, Outcome, Store};
use steadfast::idempotency::{Fingerprint, PostgresStore};
use steadfast::storage::PostgresStorage;

use crate::support::postgres::Database;

const HOUR: Duration = Duration::from_secs(3600);

fn key(number: u16) -> KeyId {
    let mut bytes = [0; 32];
    // Not in the order of the numbers.
    bytes[..2].copy_from_slice(&number.wrapping_mul(40_503).to_le_bytes());
    KeyId::from_bytes(bytes)
}

fn claim(number: u16) -> Claim {
    let mut claim_id = [7; 16];
    claim_id[..2].copy_from_slice(&number.to_le_bytes());
    let at_least_once = Mode::AtLeastOnce { retention: HOUR };
    Claim {
        claim_id: ClaimId::from_bytes(claim_id),
        fingerprint: Fingerprint::of_parts(&[&number.to_le_bytes()]),
        mode: if number % 3 == 0 {
            Mode::AtMostOnce
        } else {
            at_least_once
        },
        lease: HOUR,
        origin: Origin::new(Face::Call, &number.to_string()),
    }
}

/// Some are empty, and some too large to go with others.
fn outcome(number: u16) -> Bytes {
    let length = match number % 10 {
        0 => 0,
        1 => 20_000,
        _ => usize::from(number),
    };
    vec![number.to_le_bytes()[0]; length].into()
}

/// How often the function was called, as far as the server has counted.
async fn calls(database: &Database, function: &str) -> i64 {
    let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions WHERE funcname = $1";
    let row = database.client().await.query_one(sql, &[&function]).await.unwrap();
    row.get(0)
}

async fn each_has_an_answer_of_its_own(database: &Database, storage: PostgresStorage) {
    let store = PostgresStore::new(&storage);
    store.migrate().await.unwrap();
    let numbers = 0..400_u16;
    let tasks = numbers.clone().map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let claimed = store.claim(key(number), &claim(number)).await.unwrap();
            let Claimed::Owned { owner, checkpoint } = claimed else {
                panic!("{number}: {claimed:?}");
            };
            assert_eq!((owner.claim_id, owner.attempt), (claim(number).claim_id, 1));
            assert_eq!((owner.fingerprint, checkpoint), (claim(number).fingerprint, None));
            let completed = store.complete(key(number), &owner, &outcome(number), HOUR).await;
            assert_eq!(completed.unwrap(), Completed::Applied, "{number}");
            owner.fence
        })
    });
    let fences = join_all(tasks).await.into_iter().map(Result::unwrap);
    assert_eq!(fences.collect::<HashSet<_>>().len(), numbers.len());
    for number in numbers {
        let claimed = store.claim(key(number), &claim(number)).await.unwrap();
        let Claimed::Completed {
            attempt: 1,
            outcome: found,
        } = claimed
        else {
            panic!("{number}: {claimed:?}");
        };
        assert_eq!(found, Outcome(outcome(number)), "{number}");
    }
    let expiring = "SELECT count(*) FROM steadfast.idempotency WHERE expires_at IS NULL";
    let row = database.client().await.query_one(expiring, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_come_at_once_each_has_an_answer_of_its_own() {
    let Some(database) = Database::new("together").await else {
        return;
    };
    database
        .execute("ALTER DATABASE steadfast_together SET track_functions = 'pl'")
        .await;
    each_has_an_answer_of_its_own(&database, PostgresStorage::new(database.pool(16))).await;
    // What a connection has called is counted when it ends.
    for (function, together) in [
        ("idempotency_claim", "idempotency_claims"),
        ("idempotency_complete", "idempotency_completions"),
    ] {
        let mut counted = (0, 0);
        for _ in 0..400 {
            counted = (calls(&database, function).await, calls(&database, together).await);
            if counted.0 >= 400 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(counted.0 >= 400, "{function}: {counted:?}");
        assert!((1..200).contains(&counted.1), "{together}: {counted:?}");
    }
}

/// A statement holds all of its group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_outcomes_go_alone() {
    let Some(database) = Database::new("together_large").await else {
        return;
    };
    database
        .execute("ALTER DATABASE steadfast_together_large SET track_functions = 'pl'")
        .await;
    for (length, alone) in [(16 * 1024 + 1, true), (16 * 1024, false)] {
        let store = database.store(16).await;
        let before = calls(&database, "idempotency_complete").await;
        let tasks = (0..100_u16).map(|number| {
            let (store, id) = (
                store.clone(),
                KeyId::from_bytes([u8::from(alone) * 128 + number.to_le_bytes()[0]; 32]),
            );
            tokio::spawn(async move {
                let Claimed::Owned { owner, .. } = store.claim(id, &claim(number)).await.unwrap() else {
                    panic!("the key is new");
                };
                let outcome = Bytes::from(vec![7; length]);
                store.complete(id, &owner, &outcome, HOUR).await.unwrap()
            })
        });
        for completed in join_all(tasks).await {
            assert_eq!(completed.unwrap(), Completed::Applied);
        }
        drop(store);
        for _ in 0..400 {
            if calls(&database, "idempotency_complete").await >= before + 100 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(calls(&database, "idempotency_complete").await >= before + 100);
        assert_eq!(
            calls(&database, "idempotency_completions").await == 0,
            alone,
            "{length} bytes"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_they_do_the_same() {
    let Some(database) = Database::new("together_prepared").await else {
        return;
    };
    each_has_an_answer_of_its_own(&database, PostgresStorage::new(database.pool(16)).prepared()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_they_do_the_same() {
    let Some(database) = Database::behind_pgbouncer("together_bouncer").await else {
        return;
    };
    each_has_an_answer_of_its_own(&database, PostgresStorage::new(database.pool(16))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_connection_will_do() {
    let Some(database) = Database::new("together_one").await else {
        return;
    };
    each_has_an_answer_of_its_own(&database, PostgresStorage::new(database.pool(1))).await;
}

/// The transaction ends only after the others have their answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_open_transactions_hold_hold_up_nobody_else() {
    let Some(database) = Database::new("together_held").await else {
        return;
    };
    let store = database.store(16).await;
    let held: Vec<u16> = (0..300).step_by(10).collect();
    let holder = database.client().await;
    holder.batch_execute("BEGIN").await.unwrap();
    for number in &held {
        let id = key(*number);
        let insert = "INSERT INTO steadfast.idempotency (id, state, fence) VALUES ($1, 3, 0)";
        holder.execute(insert, &[&&id.as_bytes()[..]]).await.unwrap();
    }
    let tasks = (0..300_u16).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { (number, store.claim(key(number), &claim(number)).await.unwrap()) })
    });
    let claimed = tokio::time::timeout(Duration::from_secs(30), join_all(tasks)).await;
    for answer in claimed.expect("nobody waits for the transaction") {
        let (number, claimed) = answer.unwrap();
        if held.contains(&number) {
            assert!(matches!(claimed, Claimed::InProgress { .. }), "{number}: {claimed:?}");
        } else {
            assert!(matches!(claimed, Claimed::Owned { .. }), "{number}: {claimed:?}");
        }
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_key_that_many_complete_at_once_one_is_applied_and_the_others_are_told() {
    let Some(database) = Database::new("together_twice").await else {
        return;
    };
    let store = database.store(16).await;
    for number in 0..10_u16 {
        let Claimed::Owned { owner, .. } = store.claim(key(number), &claim(number)).await.unwrap() else {
            panic!("the key is new");
        };
        let tasks = (0..40).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.complete(key(number), &owner, &outcome(7), HOUR).await.unwrap() })
        });
        let completed: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let applied = completed.iter().filter(|completed| **completed == Completed::Applied);
        assert_eq!(applied.count(), 1);
        assert!(!completed.contains(&Completed::Lost));
    }
}

/// What is cut is a transaction: of what was under way each has its answer or an error, and can be sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_lose_no_claim() {
    let Some(database) = Database::new("together_cut").await else {
        return;
    };
    let store = database.store(16).await;
    let tasks = (0..2_000_u16).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                match store.claim(key(number), &claim(number)).await {
                    Ok(Claimed::Owned { .. }) => return,
                    Ok(other) => panic!("{number}: {other:?}"),
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
            panic!("{number}: cut each time");
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let client = database.client().await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..20 {
        client.query(cut, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let count = "SELECT count(*) FROM steadfast.idempotency WHERE state = 1 AND attempt = 1";
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2_000);
}
