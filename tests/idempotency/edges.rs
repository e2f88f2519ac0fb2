//! Where one thing turns into the other: the last moment of a lease, what is told once and not twice, failing open, and
//! operations that hang. What comes of a store that fails is in `faults`.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use steadfast::idempotency::store::Status;
use steadfast::idempotency::{Event, EventKind, Executed, Idempotency, IdempotencyBuilder, MemoryStore, Source};
use steadfast::storage::StorageErrorKind;
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use steadfast::{Key, Rejected, RejectedKind};
use tokio::time::{Instant, sleep};

use super::driver::{Counted, Failure, at_least_once, key, kind, request, settle};

const LEASE: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

fn faulty() -> Faulty<MemoryStore> {
    Faulty::new(MemoryStore::new())
}

fn over(store: &Faulty<MemoryStore>) -> IdempotencyBuilder {
    Idempotency::at_least_once(store.clone())
}

/// What a policy has told, in order; with the attempt or the call where there is one.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(crate) fn listen(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let told = Arc::clone(&self.0);
        move |event| {
            let what = event.kind.as_str();
            let line = match event.kind {
                EventKind::Claimed { attempt, .. }
                | EventKind::Stored { attempt, .. }
                | EventKind::Interrupted { attempt, .. }
                | EventKind::OutcomeUnknown { attempt, .. } => format!("{what} {attempt}"),
                EventKind::StoreFailed { call, .. } | EventKind::StoreTimedOut { call, .. } => format!("{what} {call}"),
                _ => what.to_owned(),
            };
            told.lock().unwrap().push(line);
        }
    }

    pub(crate) fn has(&self, event: &str) -> bool {
        let told = self.0.lock().unwrap();
        told.iter().any(|line| line.split(' ').next() == Some(event))
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

async fn status<D>(idempotency: &Idempotency<D>) -> Option<Status> {
    let inspected = idempotency.inspect(idempotency.id(&key())).await.unwrap();
    inspected.map(|inspected| inspected.status())
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_carried_out_and_never_answered_is_released_and_not_left_to_its_lease() {
    for fault in [Fault::ReplyHangs, Fault::ReplyLost] {
        let (store, operation) = (faulty(), Counted::default());
        store.inject(Call::Claim, 1..=100, fault);
        let idempotency = Idempotency::at_most_once(store.clone())
            .accept_relaxed_durability()
            .build()
            .unwrap();
        let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
        assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
        assert_eq!(idempotency.drain(LEASE * 2).await, 0);
        assert_eq!(status(&idempotency).await, None, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_refused_for_certain_leaves_nothing_to_release() {
    let (store, operation, told) = (faulty(), Counted::default(), Told::default());
    store.inject(Call::Claim, .., Fault::Refused(StorageErrorKind::Full));
    let idempotency = over(&store).on_event(told.listen()).build().unwrap();
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    settle(&idempotency).await;
    assert_eq!(store.calls(Call::Release), 0);
    assert_eq!(told.take(), ["store_failed claim"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_may_have_been_carried_out_is_released_though_the_last_answer_was_a_refusal() {
    let (store, operation) = (faulty(), Counted::default());
    store.inject(Call::Claim, 1..=1, Fault::ReplyLost);
    store.inject(Call::Claim, 2.., Fault::Refused(StorageErrorKind::Full));
    let idempotency = over(&store).build().unwrap();
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    settle(&idempotency).await;
    assert_eq!(status(&idempotency).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_late_in_its_lease_starts_nothing_and_is_told_of() {
    let (store, operation, told) = (faulty(), Counted::default(), Told::default());
    let builder = over(&store).lease(1_000 * MS).store_timeout(990 * MS);
    let idempotency = builder.on_event(told.listen()).build().unwrap();
    store.inject(Call::Claim, 1..=1, Fault::ReplyDelayed(800 * MS));
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    settle(&idempotency).await;
    assert_eq!(told.take(), ["store_timed_out claim", "released"]);
    store.inject(Call::Claim, 2..=2, Fault::ReplyDelayed(799 * MS));
    let executed = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!((executed.unwrap().attempt, operation.runs()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_was_left_before_its_answer_is_told_of_with_its_own_number() {
    let (store, operation, told) = (faulty(), Counted::default(), Told::default());
    let idempotency = over(&store).on_event(told.listen()).build().unwrap();
    drop(
        idempotency
            .execute(&key(), request(), |_| operation.hang())
            .now_or_never(),
    );
    settle(&idempotency).await;
    store.inject(Call::Claim, 2..=2, Fault::ReplyDelayed(MS));
    drop(
        idempotency
            .execute(&key(), request(), |_| operation.succeed())
            .now_or_never(),
    );
    settle(&idempotency).await;
    assert_eq!(told.take(), ["claimed 1", "interrupted 1", "interrupted 2"]);
    assert_eq!(operation.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn failing_open_runs_once_and_says_that_nothing_was_recorded() {
    let (store, operation, told) = (faulty(), Counted::default(), Told::default());
    let idempotency = over(&store).fail_open().on_event(told.listen()).build().unwrap();
    store.inject(Call::Claim, .., Fault::RequestHangs);
    store.inject(Call::Complete, .., Fault::Refused(StorageErrorKind::Refused));
    let executed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((executed.source, operation.runs()), (Source::Unrecorded, 1));
    settle(&idempotency).await;
    let told = told.take();
    let unrecorded = told.iter().filter(|told| *told == "unrecorded").count();
    assert_eq!(unrecorded, 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_open_records_the_outcome_when_the_store_is_back() {
    let (store, operation) = (faulty(), Counted::default());
    let idempotency = over(&store).fail_open().build().unwrap();
    store.inject(Call::Claim, 1..=1, Fault::RequestHangs);
    store.inject(Call::Complete, 1..=3, Fault::RequestLost);
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(idempotency.drain(LEASE).await, 0);
    let replayed = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!((replayed.source, operation.runs()), (Source::Replayed, 1));
}

#[tokio::test(start_paused = true)]
async fn failing_open_does_not_run_again_what_has_a_record_that_cannot_be_read() {
    let (store, operation) = (faulty(), Counted::default());
    let idempotency = over(&store).fail_open().build().unwrap();
    store.inject(Call::Claim, .., Fault::Refused(StorageErrorKind::Corrupt));
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::StoreUnavailable);
    assert_eq!(operation.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn failing_open_does_not_run_what_another_process_was_seen_to_run() {
    let (store, operation) = (faulty(), Counted::default());
    let there = at_least_once(store.store()).build().unwrap();
    let here = over(&store).fail_open().wait(LEASE).build().unwrap();
    store.inject(Call::Claim, 2..=20, Fault::RequestLost);
    let run = there.execute(&key(), request(), |_| async {
        sleep(Duration::from_secs(20)).await;
        operation.succeed().await
    });
    let waited = here.execute(&key(), request(), |_| operation.succeed());
    let (run, waited) = tokio::join!(run, waited);
    assert_eq!(run.unwrap().source, Source::Executed);
    assert_eq!(waited.unwrap().source, Source::Replayed);
    assert!(store.calls(Call::Claim) > 20);
    assert_eq!(operation.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_question_is_asked_when_the_patience_ends_and_not_before() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let there = at_least_once(&store).build().unwrap();
    let here = at_least_once(&store).wait(500 * MS).build().unwrap();
    let run = |takes| {
        let operation = operation.clone();
        there.execute(&key(), request(), move |_| async move {
            sleep(takes).await;
            operation.succeed().await
        })
    };
    let waited = || async {
        let start = Instant::now();
        let result = here.execute(&key(), request(), |_| operation.succeed()).await;
        (result, start.elapsed())
    };
    let (run, (waited, _)) = tokio::join!(run(499 * MS), waited());
    run.unwrap();
    assert_eq!(waited.unwrap().source, Source::Replayed);

    let other = Key::new("tenant-7", "other");
    let mut hanging = Box::pin(there.execute(&other, request(), |_| operation.hang()));
    assert!((&mut hanging).now_or_never().is_none());
    let start = Instant::now();
    let refused = here.execute(&other, request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::InProgress);
    assert_eq!(start.elapsed(), 500 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_could_not_be_stored_does_not_free_the_key_of_what_came_before_it() {
    for fault in [Fault::RequestLost, Fault::ReplyLost, Fault::RequestHangs] {
        let (store, operation) = (faulty(), Counted::default());
        let idempotency = over(&store).build().unwrap();
        store.inject(Call::Renew, 1..=1, fault);
        let failed = idempotency.execute(&key(), request(), |attempt| {
            let operation = operation.clone();
            async move {
                let charged = operation.succeed().await?;
                attempt.save_checkpoint("charged").await?;
                Ok::<_, Failure>(charged)
            }
        });
        let failed = failed.await.unwrap_err();
        assert!(!format!("{:#}", anyhow::Error::from(failed)).contains("nothing was done"));
        assert_eq!(status(&idempotency).await, Some(Status::Interrupted), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_noted_something_is_not_released() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let refused = idempotency.execute(&key(), request(), |attempt| async move {
        attempt.save_checkpoint("charged").await?;
        Err::<u32, Failure>(Rejected::bulkhead_full("mails").into())
    });
    assert_eq!(kind(refused.await), RejectedKind::BulkheadFull);
    assert_eq!(status(&idempotency).await, Some(Status::Interrupted));
    let again = idempotency.execute(&key(), request(), |attempt| async move {
        assert_eq!(attempt.checkpoint(), Some(&b"charged"[..]));
        Ok::<u32, Failure>(1)
    });
    assert_eq!(again.await.unwrap().attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_closed_may_have_been_closed_over_an_attempt() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let inner = at_least_once(&store).namespace("inner").build().unwrap();
    let outer = at_least_once(&store).namespace("outer").build().unwrap();
    inner.cancel(&key()).await.unwrap();
    let nested = |_| async { inner.run(&key(), "r", || operation.succeed()).await };
    let refused = outer.execute(&key(), request(), nested).await;
    assert_eq!(kind(refused), RejectedKind::KeyCancelled);
    assert_eq!(status(&outer).await, Some(Status::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn a_short_lease_leaves_time_for_a_second_renewal_too() {
    for lease in [200 * MS, 6_000 * MS, 10_000 * MS] {
        let store = faulty();
        let idempotency = over(&store).lease(lease).build().unwrap();
        store.inject(Call::Renew, 1..=1, Fault::RequestHangs);
        let kept: Result<Executed<bool>, Failure> = idempotency
            .execute(&key(), request(), |attempt| async move {
                let _ = tokio::time::timeout(lease * 3, attempt.until_lease_lost()).await;
                Ok(!attempt.lease_lost())
            })
            .await;
        assert!(kept.unwrap().value, "{lease:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_longer_loses_the_lease_and_brings_it_back() {
    let (store, told) = (faulty(), Told::default());
    let idempotency = over(&store).on_event(told.listen()).build().unwrap();
    store.inject(Call::Renew, 1..=20, Fault::RequestLost);
    let run: Result<Executed<u32>, Failure> = idempotency
        .execute(&key(), request(), |attempt| async move {
            attempt.until_lease_lost().await;
            while attempt.lease_lost() {
                sleep(Duration::from_secs(1)).await;
            }
            Ok(1)
        })
        .await;
    assert_eq!(run.unwrap().source, Source::Executed);
    let told = told.take();
    assert_eq!(told.iter().filter(|told| *told == "lease_lost").count(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_renewals_do_not_get_past_the_last_one() {
    let (store, operation) = (faulty(), Counted::default());
    let idempotency = over(&store).max_renewal(LEASE * 2 + MS).build().unwrap();
    // Renewed each 10 s; at 60 s the store is away, and comes back long after the last renewal was due.
    store.inject(Call::Renew, 6..=30, Fault::RequestLost);
    let mut hanging = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut hanging).now_or_never().is_none());
    sleep(LEASE * 20).await;
    assert_eq!(status(&idempotency).await, Some(Status::Interrupted));
    assert_eq!(store.calls(Call::Renew), 6);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_hangs_past_its_lease_keeps_nobody_in_its_own_process_away() {
    for wait in [Duration::ZERO, LEASE * 10] {
        let (store, operation) = (faulty(), Counted::default());
        let idempotency = over(&store).wait(wait).max_renewal(LEASE).build().unwrap();
        let mut hanging = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
        assert!((&mut hanging).now_or_never().is_none());
        if wait.is_zero() {
            let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
            assert_eq!(kind(refused), RejectedKind::InProgress);
            sleep(LEASE * 2).await;
        }
        let start = Instant::now();
        let calls = (0..3).map(|_| idempotency.execute(&key(), request(), |_| operation.succeed()));
        for call in futures::future::join_all(calls).await {
            let call = call.unwrap();
            assert_eq!((call.value, call.attempt), (2, 2));
        }
        assert!(start.elapsed() < LEASE * 2);
        assert_eq!(operation.runs(), 2);
        drop(hanging);
        settle(&idempotency).await;
        assert_eq!(status(&idempotency).await, Some(Status::Completed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_the_lease_is_told_once_whoever_sees_it_first() {
    let (store, operation, told) = (MemoryStore::new(), Counted::default(), Told::default());
    let builder = || at_least_once(&store).max_renewal(LEASE).on_event(told.listen());

    let cancelled = builder().cancel_on_lease_lost().build().unwrap();
    let ended = cancelled.execute(&key(), request(), |_| operation.hang()).await;
    assert_eq!(kind(ended), RejectedKind::OutcomeUnknown);
    settle(&cancelled).await;
    assert_eq!(told.take(), ["claimed 1", "lease_lost", "interrupted 1"]);

    let stops = builder().build().unwrap();
    let stopped = stops.execute(&key(), request(), |attempt| async move {
        attempt.until_lease_lost().await;
        Ok::<u32, Failure>(1)
    });
    assert_eq!(stopped.await.unwrap().source, Source::Executed);
    assert_eq!(told.take(), ["claimed 2", "lease_lost", "stored 2"]);
}

#[tokio::test(start_paused = true)]
async fn no_call_of_an_operator_takes_longer_than_a_call_may() {
    let (store, operation) = (faulty(), Counted::default());
    let idempotency = over(&store).store_timeout(MS * 100).build().unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    for call in [
        Call::Cancel,
        Call::Resolve,
        Call::Forget,
        Call::Inspect,
        Call::ListInterrupted,
        Call::CountInterrupted,
        Call::Purge,
    ] {
        store.inject(call, .., Fault::RequestHangs);
    }
    let id = idempotency.id(&key());
    let start = Instant::now();
    let failures = [
        idempotency.cancel(&key()).await.err(),
        idempotency.resolve_not_executed(id).await.err(),
        idempotency.forget(id).await.err(),
        idempotency.inspect(id).await.err(),
        idempotency.list_interrupted(None, 1).await.err(),
        idempotency.count_interrupted().await.err(),
        idempotency.purge(1).await.err(),
    ];
    for failure in failures {
        assert_eq!(failure.unwrap().kind(), StorageErrorKind::Unavailable);
    }
    assert_eq!(start.elapsed(), MS * 700);
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_polled_once_for_each_poll_of_the_call() {
    let idempotency = at_least_once(&MemoryStore::new()).build().unwrap();
    let mut polls = 0;
    let mut call = Box::pin(idempotency.execute(&key(), request(), |_| {
        std::future::poll_fn(|_| {
            polls += 1;
            std::task::Poll::<Result<u32, Failure>>::Pending
        })
    }));
    for _ in 0..3 {
        assert!((&mut call).now_or_never().is_none());
    }
    drop(call);
    assert_eq!(polls, 3);
}

#[tokio::test]
async fn values_that_threads_cannot_share_can_still_be_sent() {
    let idempotency = at_least_once(&MemoryStore::new()).build().unwrap();
    let call = async move {
        let operation = || async { Ok::<_, Failure>(Cell::new(1_u32)) };
        idempotency.run(&key(), &Cell::new(1_u32).get(), operation).await
    };
    assert_eq!(tokio::spawn(call).await.unwrap().unwrap().get(), 1);
}
