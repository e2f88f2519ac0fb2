//! The hook that finds out what became of an operation that was interrupted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::join_all;
use steadfast::RejectedKind;
use steadfast::idempotency::{Attempt, Idempotency, Interruption, MemoryStore, Recovery, Source};
use tokio::time::sleep;

use super::driver::{Counted, Failure, at_least_once, at_most_once, key, kind, request};

async fn lose_the_answer(attempt: Attempt) -> Result<u32, Failure> {
    attempt.save_checkpoint("sent").await?;
    Err(Failure::Inner(std::fmt::Error))
}

async fn interrupted(store: &MemoryStore) -> Idempotency {
    let idempotency = at_most_once(store).build().unwrap();
    idempotency
        .execute(&key(), request(), lose_the_answer)
        .await
        .unwrap_err();
    idempotency
}

#[tokio::test(start_paused = true)]
async fn what_the_hook_has_found_is_stored_and_replayed() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = interrupted(&store).await;
    let hook = async |interrupted: Interruption| {
        assert_eq!(
            (interrupted.attempt(), interrupted.checkpoint()),
            (1, Some(&b"sent"[..]))
        );
        assert_eq!(interrupted.derived_key("charge").len(), 64);
        Ok::<_, Failure>(Recovery::Completed(7))
    };
    let found = idempotency
        .execute_or_recover(&key(), request(), |_| operation.succeed(), hook)
        .await
        .unwrap();
    assert_eq!((found.value, found.source, found.attempt), (7, Source::Recovered, 1));
    let replayed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(
        (replayed.value, replayed.source, operation.runs()),
        (7, Source::Replayed, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_not_carried_out_is_run() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = interrupted(&store).await;
    let hook = async |_| Ok(Recovery::NotExecuted);
    let run = idempotency
        .execute_or_recover(&key(), request(), |_| operation.succeed(), hook)
        .await
        .unwrap();
    assert_eq!((run.value, run.source), (1, Source::Executed));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_said_stays_unknown_and_so_does_what_the_hook_failed_to_find_out() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = interrupted(&store).await;
    let unknown = async |_| Ok(Recovery::Unknown);
    let refused = idempotency
        .execute_or_recover(&key(), request(), |_| operation.succeed(), unknown)
        .await;
    let Err(Failure::Rejected(rejected)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (rejected.kind(), rejected.attempt()),
        (RejectedKind::OutcomeUnknown, Some(1))
    );
    let fails = async |_| Err(Failure::Inner(std::fmt::Error));
    let failed = idempotency
        .execute_or_recover(&key(), request(), |_| operation.succeed(), fails)
        .await;
    assert!(matches!(failed, Err(Failure::Inner(_))));
    let still = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!((kind(still), operation.runs()), (RejectedKind::OutcomeUnknown, 0));
}

#[tokio::test(start_paused = true)]
async fn of_many_callers_one_asks() {
    let (store, operation, asked) = (MemoryStore::new(), Counted::default(), AtomicU32::new(0));
    let idempotency = interrupted(&store).await;
    let hook = |_| async {
        asked.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        Ok::<_, Failure>(Recovery::Completed(7))
    };
    let calls = (0..100).map(|_| idempotency.execute_or_recover(&key(), request(), |_| operation.succeed(), hook));
    for found in join_all(calls).await {
        assert_eq!(found.unwrap().value, 7);
    }
    assert_eq!((asked.load(Ordering::SeqCst), operation.runs()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_it_asks_lets_the_next_one_ask() {
    let (store, operation, asked) = (MemoryStore::new(), Counted::default(), AtomicU32::new(0));
    let idempotency = interrupted(&store).await;
    let hook = |_| async {
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        Ok::<_, Failure>(Recovery::Completed(7))
    };
    let call = || idempotency.execute_or_recover(&key(), request(), |_| operation.succeed(), hook);
    let leaves = tokio::time::timeout(Duration::from_secs(1), call());
    let (left, stays) = tokio::join!(leaves, call());
    assert!(left.is_err());
    assert_eq!(stays.unwrap().value, 7);
}

#[tokio::test(start_paused = true)]
async fn at_least_once_nobody_is_asked() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    idempotency
        .execute(&key(), request(), lose_the_answer)
        .await
        .unwrap_err();
    let hook = async |_| panic!("it runs again by itself");
    let run = idempotency
        .execute_or_recover(&key(), request(), |_| operation.succeed(), hook)
        .await
        .unwrap();
    assert_eq!((run.source, run.attempt), (Source::Executed, 2));
}
