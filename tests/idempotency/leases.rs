//! Operations that outlive their lease, are overtaken, or renew it.

use std::time::Duration;

use futures::FutureExt;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Completed, Mode, Origin, Owner, Store};
use steadfast::idempotency::{Attempt, Executed, MemoryStore, Source};
use steadfast::{KeyId, RejectedKind};
use tokio::time::{Instant, advance, sleep};

use super::driver::{Counted, Failure, at_least_once, at_most_once, key, kind, request, settle};

const LEASE: Duration = Duration::from_secs(30);

/// Takes the key over, as another process would.
async fn take_over(store: &MemoryStore, id: KeyId) -> Owner {
    let claim = Claim {
        claim_id: ClaimId::from_bytes([9; 16]),
        fingerprint: request(),
        mode: Mode::AtLeastOnce { retention: LEASE },
        lease: LEASE,
        origin: Origin::from_text("call:tests"),
    };
    match store.claim(id, &claim).await.unwrap() {
        Claimed::Owned { owner, .. } => owner,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_operation_is_never_taken_over_while_its_process_lives() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let here = at_least_once(&store).build().unwrap();
    let there = at_least_once(&store).build().unwrap();
    let long = here.execute(&key(), request(), |attempt| async move {
        sleep(Duration::from_secs(600)).await;
        assert!(!attempt.lease_lost());
        Ok::<_, Failure>(1)
    });
    let intruder = async {
        for _ in 0..599 {
            sleep(Duration::from_secs(1)).await;
            let refused = there.execute(&key(), request(), |_| operation.succeed()).await;
            assert_eq!(kind(refused), RejectedKind::InProgress);
        }
    };
    let (long, ()) = tokio::join!(long, intruder);
    assert_eq!(long.unwrap().source, Source::Executed);
    assert_eq!(operation.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_hangs_can_be_taken_over_after_the_last_renewal() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let here = at_least_once(&store)
        .max_renewal(Duration::from_secs(100))
        .build()
        .unwrap();
    let there = at_least_once(&store).wait(Duration::from_secs(3_600)).build().unwrap();
    let mut hanging = Box::pin(here.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut hanging).now_or_never().is_none());
    let start = Instant::now();
    let taken = there.execute(&key(), request(), |_| operation.succeed()).await.unwrap();
    assert_eq!(taken.attempt, 2);
    let waited = start.elapsed().as_secs();
    assert!((100..140).contains(&waited), "{waited} s");
    drop(hanging);
    settle(&here).await;
    let replayed = there.execute(&key(), request(), |_| operation.succeed()).await.unwrap();
    assert_eq!(
        replayed.source,
        Source::Replayed,
        "the drop of the one that was overtaken changes nothing"
    );
}

/// Runs until told, blind to its lease: the task is not polled in between, so nothing is renewed.
async fn stalled(store: &MemoryStore, stall: Duration, meanwhile: impl AsyncFnOnce(KeyId)) -> (Executed<u32>, bool) {
    let here = at_least_once(store).build().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (lost, is_lost) = tokio::sync::oneshot::channel();
    let mut call = Box::pin(here.execute(&key(), request(), |attempt: Attempt| async move {
        let _ = stopped.await;
        let _ = lost.send(attempt.lease_lost());
        Ok::<_, Failure>(1)
    }));
    assert!((&mut call).now_or_never().is_none());
    // Without a chance for the keeper: the clock moves, and no task is polled.
    advance_unpolled(stall).await;
    meanwhile(here.id(&key())).await;
    drop(stop);
    let executed = call.await.unwrap();
    (executed, is_lost.await.unwrap())
}

async fn advance_unpolled(stall: Duration) {
    let mut advancing = Box::pin(advance(stall));
    let _ = (&mut advancing).now_or_never();
}

#[tokio::test(start_paused = true)]
async fn a_late_outcome_that_nobody_has_overtaken_is_recorded() {
    let store = MemoryStore::new();
    let (executed, _) = stalled(&store, Duration::from_secs(300), async |_| {}).await;
    assert_eq!(executed.source, Source::Executed);
}

#[tokio::test(start_paused = true)]
async fn a_late_outcome_of_a_record_that_was_purged_is_recorded() {
    let store = MemoryStore::new();
    let (executed, _) = stalled(&store, Duration::from_secs(100_000), async |_| {
        assert_eq!(store.purge(10).await.unwrap(), 1);
    })
    .await;
    assert_eq!(executed.source, Source::Executed);
    let there = at_least_once(&store).build().unwrap();
    let replayed: Result<Executed<u32>, Failure> = there
        .execute(&key(), request(), |_| async { panic!("it must not run") })
        .await;
    assert_eq!(replayed.unwrap().source, Source::Replayed);
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_changes_nothing_and_gets_the_value_of_the_winner() {
    let store = MemoryStore::new();
    let (executed, lost) = stalled(&store, LEASE, async |id| {
        let winner = take_over(&store, id).await;
        assert_eq!(winner.attempt, 2);
        let outcome = b"\x01\x0077".as_slice().into();
        let completed = store.complete(id, &winner, &outcome, LEASE).await.unwrap();
        assert_eq!(completed, Completed::Applied);
    })
    .await;
    assert_eq!(
        (executed.value, executed.source, executed.attempt),
        (77, Source::Superseded, 2)
    );
    assert!(lost);
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_waits_for_the_winner_for_a_lease_and_then_keeps_its_own_value() {
    let store = MemoryStore::new();
    let start = Instant::now();
    let (executed, _) = stalled(&store, LEASE, async |id| {
        let winner = take_over(&store, id).await;
        for _ in 0..5 {
            store.renew(id, &winner, LEASE * 10, None).await.unwrap();
        }
    })
    .await;
    assert_eq!((executed.value, executed.source), (1, Source::Unrecorded));
    let waited = start.elapsed();
    assert!(waited > LEASE && waited < LEASE * 3, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_can_end_the_operation() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let builder = at_most_once(&store).max_renewal(LEASE).cancel_on_lease_lost();
    let idempotency = builder.build().unwrap();
    let start = Instant::now();
    let ended = idempotency.execute(&key(), request(), |_| operation.hang()).await;
    assert_eq!(kind(ended), RejectedKind::OutcomeUnknown);
    let lasted = start.elapsed();
    assert!(lasted >= LEASE && lasted < LEASE * 2, "{lasted:?}");
    settle(&idempotency).await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_hears_when_it_was_overtaken() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let id = idempotency.id(&key());
    let run = idempotency.execute(&key(), request(), |attempt| async move {
        attempt.until_lease_lost().await;
        let refused = attempt.save_checkpoint("too late").await.unwrap_err();
        assert_eq!(refused.kind(), RejectedKind::OutcomeUnknown);
        Ok::<_, Failure>(1)
    });
    let intruder = async {
        sleep(Duration::from_secs(1)).await;
        // An operator may remove what is in progress by no call of ours: the record is closed below the driver.
        let attempt = store.inspect(id).await.unwrap().unwrap();
        let steadfast::idempotency::store::Record::InProgress { owner, .. } = attempt.record else {
            panic!("it is in progress");
        };
        store.interrupt(id, &owner).await.unwrap();
        take_over(&store, id).await;
    };
    let (ran, ()) = tokio::join!(run, intruder);
    assert_eq!(ran.unwrap().source, Source::Unrecorded);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_under_way_and_says_what_is_left() {
    let store = MemoryStore::new();
    let idempotency = at_least_once(&store).build().unwrap();
    let run = |seconds, key| {
        let idempotency = idempotency.clone();
        tokio::spawn(async move {
            let key = steadfast::Key::new("tenant", key);
            let operation = |_| async move {
                sleep(Duration::from_secs(seconds)).await;
                Ok::<_, Failure>(1)
            };
            idempotency
                .execute(&key, request(), operation)
                .await
                .map(|executed| executed.value)
        })
    };
    let (short, long) = (run(5, "short"), run(500, "long"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(idempotency.in_flight(), 2);
    assert_eq!(idempotency.drain(Duration::from_secs(60)).await, 1);
    assert_eq!(short.await.unwrap().unwrap(), 1);
    long.abort();
    assert_eq!(idempotency.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(idempotency.count_interrupted().await.unwrap(), 1);
}
