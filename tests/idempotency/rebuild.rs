//! The hook that makes a value anew whose stored outcome cannot be read.

use std::time::Duration;

use futures::FutureExt;
use steadfast::RejectedKind;
use steadfast::idempotency::store::Status;
use steadfast::idempotency::{Idempotency, MemoryStore, Source, Unreadable};

use super::driver::{Counted, Failure, Shift, at_least_once, key, kind, request};

/// What an earlier version of the program has stored.
async fn stored_as_text(store: &MemoryStore) -> Idempotency {
    let idempotency = at_least_once(store).build().unwrap();
    let earlier = idempotency.execute(&key(), request(), async |_| Ok::<_, Failure>("seven".to_owned()));
    earlier.await.unwrap();
    idempotency
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_made_anew_for_each_caller_and_never_run_again() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = stored_as_text(&store).await;
    for _ in 0..2 {
        let hook = async |found: Unreadable| {
            assert_eq!((found.attempt(), found.outcome()), (1, Some(&b"\"seven\""[..])));
            assert_eq!(found.derived_key("charge").len(), 64);
            Ok::<_, Failure>(7)
        };
        let rebuilt = idempotency.execute_or_rebuild(&key(), request(), |_| operation.succeed(), hook);
        let rebuilt = rebuilt.await.unwrap();
        assert_eq!(
            (rebuilt.value, rebuilt.source, rebuilt.attempt),
            (7, Source::Rebuilt, 1)
        );
    }
    assert_eq!(operation.runs(), 0);
    let unaided = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(unaided), RejectedKind::NotReplayable);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_read_or_was_never_run_needs_nobody_to_make_it() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    for source in [Source::Executed, Source::Replayed] {
        let hook = async |_| panic!("there is a value");
        let executed = idempotency.execute_or_rebuild(&key(), request(), |_| operation.succeed(), hook);
        let executed = executed.await.unwrap();
        assert_eq!((executed.value, executed.source), (1, source));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_or_is_left_changes_nothing() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = stored_as_text(&store).await;
    let fails = async |_| Err(Failure::Inner(std::fmt::Error));
    let failed = idempotency.execute_or_rebuild(&key(), request(), |_| operation.succeed(), fails);
    assert!(matches!(failed.await, Err(Failure::Inner(_))));
    let hangs = async |_| std::future::pending().await;
    let mut left = Box::pin(idempotency.execute_or_rebuild(&key(), request(), |_| operation.succeed(), hangs));
    assert!((&mut left).now_or_never().is_none());
    drop(left);
    assert_eq!(idempotency.drain(Duration::ZERO).await, 0);
    let record = idempotency.inspect(idempotency.id(&key())).await.unwrap().unwrap();
    assert_eq!((record.status(), operation.runs()), (Status::Completed, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_sealed_with_a_lost_key_is_made_without_it() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let sealing = at_least_once(&store).sealer(Shift(7)).build().unwrap();
    sealing
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    let hook = async |found: Unreadable| {
        assert_eq!(found.outcome(), None);
        Ok::<_, Failure>(7)
    };
    let rotated = at_least_once(&store).sealer(Shift(8)).build().unwrap();
    let rebuilt = rotated.execute_or_rebuild(&key(), request(), |_| operation.succeed(), hook);
    assert_eq!((rebuilt.await.unwrap().value, operation.runs()), (7, 1));
}
