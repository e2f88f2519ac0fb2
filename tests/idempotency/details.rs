//! The fine print: who is told when, in which order, and by whose clock.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Mode, Origin, Record, Status, Store};
use steadfast::idempotency::{Attempt, Disposition, Executed, Fingerprint, Idempotency, MemoryStore, Source};
use steadfast::testing::idempotency::{Call, Fault, Faulty};
use steadfast::{Key, KeyId, RejectedKind};
use tokio::sync::Notify;
use tokio::time::{Instant, advance, sleep};

use super::driver::{Counted, Failure, at_least_once, key, kind, request};
use super::edges::Told;

const LEASE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn claim(fingerprint: Fingerprint) -> Claim {
    Claim {
        claim_id: ClaimId::from_bytes([9; 16]),
        fingerprint,
        mode: Mode::AtLeastOnce { retention: LEASE },
        lease: LEASE,
        origin: Origin::from_text("call:tests"),
    }
}

/// Ends what is in progress, below the driver.
async fn interrupt(store: &MemoryStore, id: KeyId) {
    let Record::InProgress { owner, .. } = store.inspect(id).await.unwrap().unwrap().record else {
        panic!("it is in progress");
    };
    store.interrupt(id, &owner).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_is_lost_with_the_next_renewal_and_not_with_its_end() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let id = idempotency.id(&key());
    let start = Instant::now();
    let run = |attempt: Attempt| {
        let store = store.clone();
        async move {
            interrupt(&store, id).await;
            store.claim(id, &claim(request())).await.unwrap();
            attempt.until_lease_lost().await;
            Ok::<_, Failure>(start.elapsed())
        }
    };
    let mut run = Box::pin(idempotency.execute(&key(), request(), run));
    assert!((&mut run).now_or_never().is_none());
    let lost_after = run.await.unwrap().value;
    assert_eq!(lost_after, LEASE / 3);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_when_it_was_sent_however_late_its_answer_is() {
    let store = Faulty::new(MemoryStore::new());
    store.inject(Call::Renew, 1..=1, Fault::ReplyDelayed(SECOND * 4));
    store.inject(Call::Renew, 2.., Fault::RequestHangs);
    let idempotency = Idempotency::at_least_once(store).build().unwrap();
    let start = Instant::now();
    let run = |attempt: Attempt| async move {
        attempt.until_lease_lost().await;
        Ok::<_, Failure>(start.elapsed())
    };
    let lost_after = idempotency.execute(&key(), request(), run).await.unwrap().value;
    assert_eq!(lost_after, LEASE / 3 + LEASE);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_held_up_past_the_last_renewal_renews_nothing() {
    let (store, operation) = (Faulty::new(MemoryStore::new()), Counted::default());
    let idempotency = Idempotency::at_least_once(store.clone()).build().unwrap();
    let mut hanging = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut hanging).now_or_never().is_none());
    sleep(SECOND).await;
    // The clock moves, and no task is polled.
    let _ = Box::pin(advance(SECOND * 7_200)).now_or_never();
    sleep(SECOND).await;
    assert_eq!(store.calls(Call::Renew), 0);
    let inspected = idempotency.inspect(idempotency.id(&key())).await.unwrap().unwrap();
    assert_eq!(inspected.status(), Status::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn each_loss_of_a_lease_that_came_back_is_told() {
    let (store, told) = (Faulty::new(MemoryStore::new()), Told::default());
    store.inject(Call::Renew, 1..=15, Fault::RequestLost);
    store.inject(Call::Renew, 20..=35, Fault::RequestLost);
    let idempotency = Idempotency::at_least_once(store)
        .on_event(told.listen())
        .build()
        .unwrap();
    let run = |_| async {
        sleep(SECOND * 300).await;
        Ok::<_, Failure>(1)
    };
    idempotency.execute(&key(), request(), run).await.unwrap();
    let losses = told.take().into_iter().filter(|told| told == "lease_lost").count();
    assert_eq!(losses, 2);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_another_request_is_never_taken_for_ones_own() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let id = idempotency.id(&key());
    let run = |_| async {
        interrupt(&store, id).await;
        store.forget(id).await.unwrap();
        let other = Fingerprint::of("another request").unwrap();
        let Claimed::Owned { owner, .. } = store.claim(id, &claim(other)).await.unwrap() else {
            panic!("it was forgotten");
        };
        let outcome = b"\x01\x0077".as_slice().into();
        store.complete(id, &owner, &outcome, LEASE).await.unwrap();
        Ok::<u32, Failure>(1)
    };
    let executed = idempotency.execute(&key(), request(), run).await.unwrap();
    assert_eq!((executed.value, executed.source), (1, Source::Unrecorded));
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_an_outcome_that_is_not_recorded_hears_so() {
    let (store, operation) = (Faulty::new(MemoryStore::new()), Counted::default());
    store.inject(Call::Complete, .., Fault::RequestLost);
    let idempotency = Idempotency::at_least_once(store).wait(LEASE * 3).build().unwrap();
    let slow = |_| async {
        sleep(SECOND).await;
        operation.succeed().await
    };
    let calls = join_all((0..3).map(|_| idempotency.execute(&key(), request(), slow))).await;
    let calls: Vec<Executed<u32>> = calls.into_iter().map(Result::unwrap).collect();
    assert!(
        calls
            .iter()
            .all(|call| (call.value, call.source) == (1, Source::Unrecorded))
    );
}

#[tokio::test(start_paused = true)]
async fn an_operation_within_an_operation_is_refused_the_outermost_key_too() {
    let idempotency = at_least_once(&MemoryStore::new()).wait(LEASE).build().unwrap();
    let start = Instant::now();
    let (middle, inner) = (Key::new("tenant-7", "middle"), Key::new("tenant-7", "inner"));
    let again = || Box::pin(idempotency.run(&key(), "r", || async { Ok::<u32, Failure>(1) }));
    let within = || Box::pin(idempotency.run(&inner, "r", again));
    let run = |_| async {
        assert_eq!(
            kind(idempotency.run(&middle, "r", within).await),
            RejectedKind::InProgress
        );
        Ok::<u32, Failure>(1)
    };
    idempotency.execute(&key(), request(), run).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_process_that_has_died_takes_over_as_its_lease_ends() {
    for offset in 0..20 {
        let (store, operation) = (MemoryStore::new(), Counted::default());
        let idempotency = at_least_once(&store).wait(LEASE * 2).build().unwrap();
        store.claim(idempotency.id(&key()), &claim(request())).await.unwrap();
        let start = Instant::now();
        sleep(Duration::from_millis(17 * offset)).await;
        let taken = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
        assert_eq!(taken.unwrap().attempt, 2);
        assert!(
            start.elapsed() < LEASE + Duration::from_millis(5),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_patience_of_one_waiter_is_not_that_of_the_next() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let there = at_least_once(&store).build().unwrap();
    let here = at_least_once(&store).wait(SECOND * 5).build().unwrap();
    let run = there.execute(&key(), request(), |_| async {
        sleep(SECOND * 7).await;
        operation.succeed().await
    });
    let first = here.execute(&key(), request(), |_| operation.succeed());
    let second = async {
        sleep(SECOND * 3).await;
        here.execute(&key(), request(), |_| operation.succeed()).await
    };
    let (run, first, second) = tokio::join!(run, first, second);
    run.unwrap();
    assert_eq!(kind(first), RejectedKind::InProgress);
    assert_eq!(second.unwrap().source, Source::Replayed);
}

#[tokio::test(start_paused = true)]
async fn the_next_in_line_asks_when_the_store_has_been_told_of_the_end_of_the_one_before() {
    let refused = || async { Err::<u32, Failure>(steadfast::Rejected::bulkhead_full("lanes").into()) };
    let failed = || async { Err::<u32, Failure>(Failure::Inner(std::fmt::Error)) };
    for (call, ends_by_refusal) in [(Call::Release, true), (Call::Interrupt, false)] {
        let (store, stop) = (Faulty::new(MemoryStore::new()), Arc::new(Notify::new()));
        store.inject(call, 1..=1, Fault::RequestDelayed(SECOND));
        let idempotency = Idempotency::at_least_once(store.clone()).wait(LEASE).build().unwrap();
        let first = idempotency.execute(&key(), request(), |_| async {
            stop.notified().await;
            if ends_by_refusal {
                refused().await
            } else {
                failed().await
            }
        });
        let second = idempotency.execute(&key(), request(), |_| async { Ok::<u32, Failure>(2) });
        let stops = async { stop.notify_one() };
        let (first, second, ()) = tokio::join!(first, second, stops);
        assert!(first.is_err());
        assert_eq!(second.unwrap().value, 2);
        assert_eq!(store.calls(Call::Claim), 2, "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_another_version_is_an_error_and_no_run() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    let id = idempotency.id(&key());
    for frame in [&b"\x02\x0077"[..], b"\x01\x0277", b"\x01", b""] {
        let Claimed::Owned { owner, .. } = store.claim(id, &claim(request())).await.unwrap() else {
            panic!("it was forgotten");
        };
        store.complete(id, &owner, &frame.into(), LEASE).await.unwrap();
        let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
        assert_eq!(kind(refused), RejectedKind::NotReplayable, "{frame:?}");
        store.forget(id).await.unwrap();
    }
    assert_eq!(operation.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_cannot_be_stored_and_interrupts() {
    let store = MemoryStore::new();
    let stores_all = at_least_once(&store).decide(|_: Result<&u32, &Failure>| Disposition::Store);
    let idempotency = stores_all.build().unwrap();
    let failed = |_| async { Err(Failure::Inner(std::fmt::Error)) };
    idempotency.execute(&key(), request(), failed).await.unwrap_err();
    let inspected = idempotency.inspect(idempotency.id(&key())).await.unwrap().unwrap();
    assert_eq!(inspected.status(), Status::Interrupted);
}
