//! The driver over a store that fails, hangs, is late and loses replies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use steadfast::RejectedKind;
use steadfast::idempotency::store::{Status, Store};
use steadfast::idempotency::{Attempt, Executed, Idempotency, IdempotencyBuilder, MemoryStore, Source};
use steadfast::storage::StorageErrorKind;
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use tokio::time::{Instant, sleep, timeout};

use super::driver::{Counted, Failure, key, kind, request, settle};
use super::edges::Told;

const LEASE: Duration = Duration::from_secs(30);
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

fn faulty() -> Faulty<MemoryStore> {
    Faulty::new(MemoryStore::new())
}

fn at_least_once(store: &Faulty<MemoryStore>) -> IdempotencyBuilder {
    Idempotency::at_least_once(store.clone())
}

fn at_most_once(store: &Faulty<MemoryStore>) -> IdempotencyBuilder {
    Idempotency::at_most_once(store.clone()).accept_relaxed_durability()
}

async fn status(store: &Faulty<MemoryStore>, idempotency: &Idempotency) -> Option<Status> {
    let inspected = store.store().inspect(idempotency.id(&key())).await.unwrap();
    inspected.map(|inspected| inspected.status())
}

async fn execute(idempotency: &Idempotency, operation: &Counted) -> Result<Executed<u32>, Failure> {
    idempotency.execute(&key(), request(), |_| operation.succeed()).await
}

/// An operation that takes this long.
async fn slow(
    idempotency: &Idempotency,
    operation: &Counted,
    lasts: Duration,
) -> Result<(Executed<u32>, bool), Failure> {
    let lost = Arc::new(Mutex::new(false));
    let executed = idempotency.execute(&key(), request(), |attempt: Attempt| {
        let lost = Arc::clone(&lost);
        async move {
            sleep(lasts).await;
            *lost.lock().unwrap() = attempt.lease_lost();
            operation.succeed().await
        }
    });
    let executed = executed.await?;
    let lost = *lost.lock().unwrap();
    Ok((executed, lost))
}

#[tokio::test(start_paused = true)]
async fn a_run_costs_one_call_of_the_store_before_and_one_after_and_a_replay_one() {
    let (store, operation) = (faulty(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    execute(&idempotency, &operation).await.unwrap();
    assert_eq!(
        (store.calls(Call::Claim), store.calls(Call::Complete), store.all_calls()),
        (1, 1, 2)
    );
    let replayed = execute(&idempotency, &operation).await.unwrap();
    assert_eq!(replayed.source, Source::Replayed);
    settle(&idempotency).await;
    assert_eq!((store.calls(Call::Claim), store.all_calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_was_lost_is_sent_again_and_recognises_itself() {
    for builder in [at_least_once, at_most_once] {
        let (store, operation) = (faulty(), Counted::default());
        store.inject(Call::Claim, 1..=2, Fault::ReplyLost);
        let executed = execute(&builder(&store).build().unwrap(), &operation).await.unwrap();
        assert_eq!(
            (executed.source, executed.attempt, operation.runs()),
            (Source::Executed, 1, 1)
        );
        assert_eq!(store.calls(Call::Claim), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_store_nothing_is_run() {
    for fault in [
        Fault::RequestLost,
        Fault::RequestHangs,
        Fault::Refused(StorageErrorKind::Corrupt),
    ] {
        let (store, operation, told) = (faulty(), Counted::default(), Told::default());
        store.inject(Call::Claim, .., fault);
        let idempotency = at_least_once(&store).on_event(told.listen()).build().unwrap();
        let start = Instant::now();
        let refused = execute(&idempotency, &operation).await;
        assert_eq!(kind(refused), RejectedKind::StoreUnavailable, "{fault:?}");
        assert!(start.elapsed() <= 2 * STORE_TIMEOUT, "{fault:?}: {:?}", start.elapsed());
        assert_eq!(operation.runs(), 0, "{fault:?}");
        assert!(told.has("store_failed") || told.has("store_timed_out"), "{fault:?}");
        // Once the store is back, the key is as good as new.
        store.heal();
        sleep(LEASE).await;
        settle(&idempotency).await;
        let executed = execute(&idempotency, &operation).await.unwrap();
        assert_eq!((executed.source, executed.attempt), (Source::Executed, 1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_less_than_the_lease_costs_nothing() {
    // Every renewal for 15 s from the first on, which comes after 10 s; at 25 s one succeeds.
    for (calls, fault) in [(5, Fault::RequestLost), (2, Fault::RequestHangs)] {
        let (store, operation, told) = (faulty(), Counted::default(), Told::default());
        store.inject(Call::Renew, 1..=calls, fault);
        let idempotency = at_least_once(&store).on_event(told.listen()).build().unwrap();
        let (executed, lost) = slow(&idempotency, &operation, LEASE * 3).await.unwrap();
        assert_eq!((executed.source, executed.attempt, lost), (Source::Executed, 1, false));
        assert!(store.calls(Call::Renew) > calls + 1, "{fault:?}");
        assert!(!told.has("lease_lost"), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_longer_than_the_lease_is_told_to_the_operation_and_may_still_record_it() {
    for fault in [Fault::RequestLost, Fault::RequestHangs] {
        let (store, operation, told) = (faulty(), Counted::default(), Told::default());
        store.inject(Call::Renew, .., fault);
        let idempotency = at_most_once(&store).on_event(told.listen()).build().unwrap();
        let (executed, lost) = slow(&idempotency, &operation, Duration::from_secs(40)).await.unwrap();
        assert_eq!((executed.source, lost), (Source::Executed, true), "{fault:?}");
        assert!(told.has("lease_lost") && told.has("stored"), "{fault:?}");
        assert_eq!(status(&store, &idempotency).await, Some(Status::Completed), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_whose_replies_are_lost_keep_the_key_from_others() {
    let (store, operation) = (faulty(), Counted::default());
    store.inject(Call::Renew, .., Fault::ReplyLost);
    let (here, there) = (
        at_least_once(&store).build().unwrap(),
        at_least_once(&store).build().unwrap(),
    );
    let run = slow(&here, &operation, Duration::from_secs(60));
    let intruder = async {
        for _ in 0..59 {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(
                kind(execute(&there, &Counted::default()).await),
                RejectedKind::InProgress
            );
        }
    };
    let (ran, ()) = tokio::join!(run, intruder);
    // By its own clock the lease was lost: it cannot know.
    let (executed, lost) = ran.unwrap();
    assert_eq!((executed.source, lost), (Source::Executed, true));
}

#[tokio::test(start_paused = true)]
async fn a_completion_whose_reply_was_lost_is_sent_again() {
    for fault in [
        Fault::ReplyLost,
        Fault::RequestLost,
        Fault::ReplyHangs,
        Fault::RequestHangs,
    ] {
        let (store, operation, told) = (faulty(), Counted::default(), Told::default());
        store.inject(Call::Complete, 1..=2, fault);
        let idempotency = at_most_once(&store).on_event(told.listen()).build().unwrap();
        let executed = execute(&idempotency, &operation).await.unwrap();
        assert_eq!(
            (executed.source, store.calls(Call::Complete)),
            (Source::Executed, 3),
            "{fault:?}"
        );
        let told = told.take();
        assert_eq!(told.iter().filter(|told| *told == "stored 1").count(), 1, "{told:?}");
        assert_eq!(
            execute(&idempotency, &operation).await.unwrap().source,
            Source::Replayed,
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_before_the_lease_ends_has_the_outcome() {
    let (store, operation) = (faulty(), Counted::default());
    store.inject(Call::Complete, .., Fault::RequestLost);
    let idempotency = at_most_once(&store).build().unwrap();
    let back = async {
        sleep(Duration::from_secs(20)).await;
        store.heal();
    };
    let (executed, ()) = tokio::join!(execute(&idempotency, &operation), back);
    assert_eq!(executed.unwrap().source, Source::Executed);
    assert_eq!(status(&store, &idempotency).await, Some(Status::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_come_back_costs_the_record_and_not_the_value() {
    for fault in [
        Fault::RequestLost,
        Fault::RequestHangs,
        Fault::Refused(StorageErrorKind::Full),
    ] {
        let (store, operation, told) = (faulty(), Counted::default(), Told::default());
        store.inject(Call::Complete, .., fault);
        let idempotency = at_most_once(&store).on_event(told.listen()).build().unwrap();
        let start = Instant::now();
        let executed = execute(&idempotency, &operation).await.unwrap();
        assert_eq!((executed.source, executed.value), (Source::Unrecorded, 1), "{fault:?}");
        assert!(told.has("unrecorded"), "{fault:?}");
        // To the end of the lease, where there is hope.
        let lasted = start.elapsed();
        let hopeless = matches!(fault, Fault::Refused(_));
        assert!(hopeless || lasted >= LEASE / 30 * 28, "{fault:?}: {lasted:?}");
        assert!(lasted <= LEASE + STORE_TIMEOUT, "{fault:?}: {lasted:?}");
        store.heal();
        sleep(LEASE).await;
        assert_eq!(
            kind(execute(&idempotency, &operation).await),
            RejectedKind::OutcomeUnknown,
            "{fault:?}"
        );
        assert_eq!(operation.runs(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_overtaken_and_lost_the_reply_gets_the_value_of_the_winner() {
    let (store, operation) = (faulty(), Counted::default());
    store.inject(Call::Renew, .., Fault::RequestLost);
    store.inject(Call::Complete, 2..=3, Fault::RequestLost);
    let (here, there) = (
        at_least_once(&store).build().unwrap(),
        at_least_once(&store).build().unwrap(),
    );
    let late = here.execute(&key(), request(), |_| async {
        sleep(Duration::from_secs(40)).await;
        Ok::<_, Failure>(100)
    });
    let winner = async {
        sleep(Duration::from_secs(35)).await;
        execute(&there, &operation).await.unwrap()
    };
    let (late, winner) = tokio::join!(late, winner);
    let late = late.unwrap();
    assert_eq!((winner.source, winner.attempt), (Source::Executed, 2));
    assert_eq!(
        (late.source, late.value, late.attempt),
        (Source::Superseded, winner.value, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_interruption_that_the_store_never_heard_of_is_one_when_the_lease_ends() {
    let (store, operation) = (faulty(), Counted::default());
    store.inject(Call::Interrupt, .., Fault::RequestLost);
    let idempotency = at_least_once(&store).build().unwrap();
    let mut call = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(kind(execute(&idempotency, &operation).await), RejectedKind::InProgress);
    sleep(Duration::from_secs(1)).await;
    let executed = execute(&idempotency, &operation).await.unwrap();
    assert_eq!((executed.source, executed.attempt), (Source::Executed, 2));
    settle(&idempotency).await;
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_sent_again_until_the_store_has_it() {
    for fault in [Fault::RequestLost, Fault::ReplyLost] {
        let (store, operation) = (faulty(), Counted::default());
        store.inject(Call::Interrupt, 1..=4, fault);
        let idempotency = at_most_once(&store).build().unwrap();
        let panicking = idempotency.execute(&key(), request(), |_| async {
            let _ = operation.succeed().await;
            panic!("in the operation");
            #[allow(unreachable_code, reason = "for its type")]
            Ok::<u32, Failure>(0)
        });
        assert!(std::panic::AssertUnwindSafe(panicking).catch_unwind().await.is_err());
        sleep(STORE_TIMEOUT).await;
        assert_eq!(
            status(&store, &idempotency).await,
            Some(Status::Interrupted),
            "{fault:?}"
        );
        settle(&idempotency).await;
        assert_eq!(
            kind(execute(&idempotency, &operation).await),
            RejectedKind::OutcomeUnknown,
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_claims_or_completes_leaves_the_key_as_it_should_be() {
    for lasts in (0..40).map(|n| Duration::from_millis(n * 50 + 25)) {
        let (store, operation) = (faulty(), Counted::default());
        store.inject(Call::Claim, .., Fault::ReplyDelayed(Duration::from_millis(500)));
        store.inject(Call::Complete, .., Fault::RequestDelayed(Duration::from_millis(500)));
        let idempotency = at_most_once(&store).build().unwrap();
        let call = idempotency.execute(&key(), request(), |_| async {
            sleep(Duration::from_millis(500)).await;
            operation.succeed().await
        });
        let ended = timeout(lasts, call).await.is_ok();
        settle_later(&idempotency).await;
        let expected = match lasts.as_millis() {
            // The operation was not reached.
            0..500 => None,
            // It was under way.
            500..1_000 => Some(Status::Interrupted),
            // It has ended: what it has is stored, whoever waits for it.
            _ => Some(Status::Completed),
        };
        assert_eq!(status(&store, &idempotency).await, expected, "dropped after {lasts:?}");
        assert_eq!(ended, lasts.as_millis() > 1_500, "{lasts:?}");
    }
}

async fn settle_later(idempotency: &Idempotency) {
    assert_eq!(idempotency.drain(10 * LEASE).await, 0);
}
