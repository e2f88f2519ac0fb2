//! Shutting down, in every state.

use std::time::Duration;

use steadfast::Backoff;
use steadfast::saga::{SagaEnd, StartError};
use steadfast::testing::saga::{Call, Fault};
use tokio::time::Instant;

use super::world::{Bench, Fate, Order, acts, key, saga, secs};

#[tokio::test(start_paused = true)]
async fn a_saga_that_ends_within_the_grace_is_waited_for() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
    let saga = saga([slow, bench.world.step("b", acts)]).build().unwrap();
    let process = bench.process(&saga);
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    let before = Instant::now();
    assert!(process.shutdown(secs(60)).await);
    assert_eq!(before.elapsed().as_secs(), 5);
    started.await.unwrap();
    let refused = process.start(&saga, &key(2), Order::default()).await;
    assert!(matches!(refused, Err(StartError::ShuttingDown)));
}

// T53
#[tokio::test(start_paused = true)]
async fn what_does_not_end_within_the_grace_is_released_and_goes_on_elsewhere_within_a_second() {
    let bench = Bench::new();
    let hangs = |run| if run == 1 { Fate::Hangs } else { Fate::Acts };
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", hangs)])
        .build()
        .unwrap();
    let (here, _there) = (bench.process(&saga), bench.process(&saga));
    let id = here.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    assert!(!here.shutdown(secs(2)).await);
    assert_eq!(bench.rests(id, secs(1)).await, SagaEnd::Completed);
    // It did not crash.
    assert_eq!(bench.head(id).await.recoveries, 0);
    assert_eq!(bench.book.of(id), "C S(a) | +a S(b) | S(b) | +b F:completed");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_under_way_is_given_back() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", |_| Fate::Takes(secs(60)))])
        .build()
        .unwrap();
    let id = bench.wait(&saga, 1).await;
    let process = bench.process(&saga);
    process.way.inject(Call::Claim, 1..=1, Fault::ReplyDelayed(secs(5)));
    tokio::time::sleep(secs(1)).await;
    process.shutdown(secs(20)).await;
    tokio::time::sleep(secs(1)).await;
    let head = bench.head(id).await;
    assert_eq!((head.owner, process.in_flight()), (None, 0));
    assert_eq!(bench.world.calls(), "");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_under_way_is_waited_for() {
    for (grace, ends) in [(secs(2), false), (secs(20), true)] {
        let bench = Bench::new();
        let saga = saga([bench.world.step("a", |_| Fate::Takes(secs(1)))]).build().unwrap();
        let process = bench.process(&saga);
        process.way.inject(Call::Create, 1..=1, Fault::ReplyDelayed(secs(4)));
        let (key, engine) = (key(1), process.engine.clone());
        let starting = tokio::spawn({
            let saga = saga.clone();
            async move {
                engine
                    .start(&saga, &key, Order::default())
                    .await
                    .map(|started| started.id())
            }
        });
        tokio::time::sleep(secs(1)).await;
        assert_eq!(process.shutdown(grace).await, ends);
        let id = starting.await.unwrap().unwrap();
        let head = bench.head(id).await;
        assert_eq!((head.owner, process.in_flight()), (None, 0));
        // Another engine need not wait for a lease.
        let _other = bench.process(&saga);
        assert_eq!(bench.rests(id, secs(3)).await, SagaEnd::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_being_read_is_released() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let id = bench.wait(&saga, 1).await;
    let process = bench.process(&saga);
    process.way.inject(Call::Load, .., Fault::RequestHangs);
    tokio::time::sleep(secs(2)).await;
    assert_eq!(process.in_flight(), 1);
    assert!(!process.shutdown(secs(1)).await);
    assert_eq!(bench.head(id).await.owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_write_fails_is_released() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    process.way.inject(Call::Append, .., Fault::RequestLost);
    let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(2)).await;
    assert!(!process.shutdown(secs(1)).await);
    assert_eq!(bench.head(id).await.owner, None);
    let _other = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(3)).await, SagaEnd::Completed);
    assert_eq!(bench.world.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_failed_is_sent_again() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", |_| Fate::Hangs)]).build().unwrap();
    let process = bench.process(&saga);
    process.way.inject(Call::Release, 1..=1, Fault::RequestLost);
    let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
    assert!(!process.shutdown(secs(1)).await);
    assert_eq!(bench.head(id).await.owner, None);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_gone_does_not_keep_the_process_from_ending() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", |_| Fate::Hangs)]).build().unwrap();
    let process = bench.process(&saga);
    let _started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    process.die();
    let before = Instant::now();
    assert!(!process.shutdown(secs(1)).await);
    assert!(before.elapsed() <= secs(7), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_saga_in_its_backoff_is_released_or_parked() {
    for backoff in [Duration::from_secs(5), secs(600)] {
        let bench = Bench::new();
        let flaky = |run| if run == 1 { Fate::IsNotReached } else { Fate::Acts };
        let step = bench.world.step("a", flaky).backoff(Backoff::constant(backoff));
        let saga = saga([step]).build().unwrap();
        let process = bench.process(&saga);
        let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let parked = backoff > secs(10);
        assert_eq!(process.shutdown(secs(1)).await, parked);
        assert_eq!(bench.head(id).await.owner, None);
        let _other = bench.process(&saga);
        assert_eq!(bench.rests(id, secs(700)).await, SagaEnd::Completed);
    }
}

/// Shut down after so many milliseconds, at each of them, with another engine beside.
#[tokio::test(start_paused = true)]
async fn a_shutdown_at_any_moment_leaves_nothing_behind() {
    for moment in 0..45 {
        let bench = Bench::new();
        let ten = |_| Fate::Takes(Duration::from_millis(10));
        let last = if moment % 2 == 0 { acts } else { |_| Fate::Refuses };
        let steps = [
            bench.world.step("a", ten),
            bench.world.step("b", ten),
            bench.world.step("c", last),
        ];
        let saga = saga(steps).build().unwrap();
        let process = bench.process(&saga);
        for call in [Call::Create, Call::Append] {
            process
                .way
                .inject(call, .., Fault::RequestDelayed(Duration::from_millis(3)));
        }
        let (engine, starts) = (process.engine.clone(), saga.clone());
        let starting =
            tokio::spawn(async move { engine.start(&starts, &key(1), Order::default()).await.map(|s| s.id()) });
        tokio::time::sleep(Duration::from_millis(moment)).await;
        process.shutdown(Duration::ZERO).await;
        let _other = bench.process(&saga);
        let Ok(id) = starting.await.unwrap() else {
            continue;
        };
        assert_eq!(process.in_flight(), 0);
        let end = bench.rests(id, secs(3)).await;
        let live = if end == SagaEnd::Completed { 3 } else { 0 };
        assert_eq!(bench.world.live(), live, "{moment}: {}", bench.book.of(id));
        assert_eq!(bench.head(id).await.recoveries, 0);
    }
}
