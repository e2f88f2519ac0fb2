//! Who waits for a saga, and who asks it to turn back.

use std::time::Duration;

use steadfast::Backoff;
use steadfast::saga::journal::{CancelRequest, Journal, Prune};
use steadfast::saga::{Detached, SagaEnd, SagaError};
use steadfast::testing::saga::{Call, Fault};
use tokio::time::{Instant, timeout};

use super::world::{Bench, Fate, Order, acts, at_once, key, saga, secs};

#[tokio::test(start_paused = true)]
async fn the_end_of_a_saga_that_is_driven_elsewhere_is_heard_of() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(20)));
    let saga = saga([slow]).build().unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    let _driven = there.start(&saga, &key(1), Order::default()).await.unwrap();
    let waits = here.start(&saga, &key(1), Order::default()).await.unwrap();
    let before = Instant::now();
    waits.await.unwrap();
    assert!(before.elapsed() <= secs(31), "{:?}", before.elapsed());
    assert!(here.way.calls(Call::Load) < 10);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_never_answers_does_not_keep_who_waits() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
    let saga = saga([slow]).build().unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    let _driven = there.start(&saga, &key(1), Order::default()).await.unwrap();
    let waits = here.start(&saga, &key(1), Order::default()).await.unwrap();
    here.way.inject(Call::Load, 1..=1, Fault::RequestHangs);
    timeout(secs(60), waits).await.expect("the end").unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_saga_that_was_cleared_away_is_told_so() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    there
        .start(&saga, &key(1), Order::default())
        .await
        .unwrap()
        .await
        .unwrap();
    let mut events = here.start(&saga, &key(1), Order::default()).await.unwrap();
    let mut all = here.start(&saga, &key(1), Order::default()).await.unwrap();
    let prune = |keys_after| Prune {
        events_after: Duration::ZERO,
        keys_after,
        limit: 10,
    };
    bench.book.prune(prune(secs(3600))).await.unwrap();
    let told = events.wait().await.unwrap_err();
    let pruned = Detached::Pruned(SagaEnd::Completed);
    assert!(
        matches!(&told, SagaError::Detached { reason, .. } if format!("{reason:?}") == format!("{pruned:?}")),
        "{told:?}"
    );
    bench.book.prune(prune(Duration::ZERO)).await.unwrap();
    let told = timeout(secs(60), all.wait()).await.expect("an answer").unwrap_err();
    assert!(matches!(told, SagaError::Detached { .. }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_saga_keeps_the_engine_that_has_it_parked() {
    let bench = Bench::new();
    let flaky = |run| if run == 1 { Fate::IsNotReached } else { Fate::Acts };
    let step = bench.world.step("a", flaky).backoff(Backoff::constant(secs(600)));
    let saga = saga([step]).build().unwrap();
    let process = bench.process(&saga);
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(process.in_flight(), 0);
    drop(process);
    timeout(secs(900), started).await.expect("the end").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_dropped_lets_its_sagas_end() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(300)));
    let saga = saga([slow.timeout(secs(600)), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
    let waiting = bench.wait(&saga, 2).await;
    drop(process);
    tokio::time::sleep(secs(400)).await;
    assert_eq!(bench.rests(id, secs(1)).await, SagaEnd::Completed);
    // It renews its leases, and claims nothing.
    assert_eq!(bench.head(id).await.epoch, 1);
    assert_eq!(bench.head(waiting).await.epoch, 0);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_does_not_answer_leaves_the_handle_armed() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(600)));
    let saga = saga([slow.timeout(secs(900)), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    let driven = there.start(&saga, &key(1), Order::default()).await.unwrap();
    let mut waits = here
        .start(&saga, &key(1), Order::default())
        .await
        .unwrap()
        .cancel_on_drop();
    here.way.inject(Call::Load, .., Fault::RequestLost);
    let told = timeout(secs(120), waits.wait()).await.expect("an answer").unwrap_err();
    assert!(
        matches!(
            &told,
            SagaError::Detached {
                reason: Detached::Journal(_),
                ..
            }
        ),
        "{told:?}"
    );
    drop(waits);
    assert!(matches!(driven.await, Err(SagaError::Compensated(_))));
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_turns_back_as_soon_as_it_is_asked_to() {
    let bench = Bench::new();
    let b = bench
        .world
        .step("b", |_| Fate::IsNotReached)
        .backoff(Backoff::constant(secs(3600)));
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.poll_interval(secs(3600)));
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(process.in_flight(), 0);
    let before = Instant::now();
    assert_eq!(started.cancel().await.unwrap(), CancelRequest::Requested);
    assert!(matches!(started.await, Err(SagaError::Compensated(_))));
    assert!(before.elapsed() < secs(1), "{:?}", before.elapsed());
    assert_eq!(bench.world.calls(), "a, b, undo a");
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_asked_to_turn_back_as_it_parks_does_so_at_once() {
    let bench = Bench::new();
    let b = bench
        .world
        .step("b", |_| Fate::IsNotReached)
        .backoff(Backoff::constant(secs(3600)));
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.poll_interval(secs(3600)));
    tokio::time::sleep(secs(1)).await;
    // It is parked in the journal, and does not know it yet, when the request comes.
    process.way.inject(Call::Append, 2..=2, Fault::ReplyDelayed(secs(2)));
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(process.in_flight(), 1);
    assert_eq!(started.cancel().await.unwrap(), CancelRequest::Requested);
    let before = Instant::now();
    assert!(matches!(started.await, Err(SagaError::Compensated(_))));
    assert!(before.elapsed() < secs(10), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_saga_that_is_driven_elsewhere_in_the_middle_of_a_step() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(50)));
    let saga = saga([slow, bench.world.step("b", acts)]).build().unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    let id = there.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(here.cancel(id).await.unwrap(), CancelRequest::Requested);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
    assert_eq!(bench.book.of(id), "C S(a) | +a U s(a) | ~a F:compensated");
}

/// Cancelled after so many milliseconds, at each of them: what was done is undone, or all is done.
#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_moment_ends_in_one_of_two_ways() {
    let mut ends = [0, 0];
    for moment in 0..60 {
        let bench = Bench::new();
        let world = &bench.world;
        let ten = |_| Fate::Takes(Duration::from_millis(10));
        let flaky = |run| {
            if run == 1 {
                Fate::IsNotReached
            } else {
                Fate::Takes(Duration::from_millis(10))
            }
        };
        let steps = [
            at_once(world.step("a", ten)),
            world
                .step("b", flaky)
                .backoff(Backoff::constant(Duration::from_millis(5))),
            steadfast::saga::Step::pivot("c", world.action(ten)),
        ];
        let saga = saga(steps).build().unwrap();
        let process = bench.process(&saga);
        let mut started = process.start(&saga, &key(1), Order::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let asked = started.cancel().await.unwrap();
        match started.wait().await {
            Ok(_) => {
                assert_ne!(asked, CancelRequest::Requested);
                assert_eq!(world.live(), 3, "{moment}");
                ends[0] += 1;
            }
            Err(SagaError::Compensated(_)) => {
                assert_eq!(asked, CancelRequest::Requested);
                assert_eq!(world.live(), 0, "{moment}: {}", bench.book.of(started.id()));
                ends[1] += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(ends[0] > 10 && ends[1] > 10, "{ends:?}");
}

#[test]
fn a_handle_that_is_dropped_outside_of_the_runtime_cancels_as_well() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let bench = Bench::new();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Arc::new(tokio::sync::Mutex::new(Some(released)));
    let waits = steadfast::saga::Step::read_only("b", async move |_: &mut steadfast::saga::Cx<Order>| {
        if let Some(released) = released.lock().await.take() {
            let _ = released.await;
        }
        Ok(())
    });
    let saga = saga([bench.world.step("a", acts), waits, bench.world.step("c", acts)])
        .build()
        .unwrap();
    let (process, started) = runtime.block_on(async {
        let process = bench.process(&saga);
        let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
        (process, started.cancel_on_drop())
    });
    let id = started.id();
    drop(started);
    let end = runtime.block_on(async {
        while !bench.head(id).await.cancel {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        bench.rests(id, secs(20)).await
    });
    assert_eq!(end, SagaEnd::Compensated);
    drop(process);
}
