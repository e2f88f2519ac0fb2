//! What a saga under way costs.

use std::pin::pin;
use std::task::{Context, Waker};

use steadfast::saga::SagaEnd;

use super::world::{Bench, Fate, Order, acts, key, saga, secs};

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn a_saga_under_way_costs_one_task_and_a_parked_one_none() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(50)));
    let parks = |run| if run == 1 { Fate::IsNotReached } else { Fate::Acts };
    let parks = bench
        .world
        .step("b", parks)
        .backoff(steadfast::Backoff::constant(secs(600)));
    let saga = saga([slow, parks.attempts(1_000)]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.max_concurrent(1_000));
    tokio::time::sleep(secs(1)).await;
    let engine = tasks();
    let mut all = Vec::new();
    for n in 0..100 {
        all.push(process.start(&saga, &key(n), Order::default()).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    assert_eq!((engine, tasks()), (2, 102));
    // The first of them parks, and the others follow: the counter of the step is theirs together.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(process.in_flight(), 0);
    assert_eq!(tasks(), 2);
}

#[test]
fn what_a_saga_under_way_holds_in_memory_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let bench = Bench::new();
    let hangs = bench.world.step("a", |_| Fate::Hangs);
    let saga = saga([hangs, bench.world.step("b", acts)]).build().unwrap();
    let process = runtime.block_on(async {
        let process = bench.process_with(&saga, |engine| engine.max_concurrent(10_000));
        let warm = process.start(&saga, &key(0), Order::default()).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        drop(warm);
        process
    });
    let info = allocation_counter::measure(|| {
        runtime.block_on(async {
            for n in 1..=1_000 {
                let started = process.start(&saga, &key(n), Order::default()).await.unwrap();
                drop(started);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        });
    });
    let bytes = info.bytes_current / 1_000;
    let written = allocation_counter::measure(|| {
        runtime.block_on(async {
            let starts = bench.process_with(&saga, |engine| engine.max_concurrent(0));
            for n in 2_001..=3_000 {
                drop(starts.start(&saga, &key(n), Order::default()).await.unwrap());
            }
        });
    });
    let written = written.bytes_current / 1_000;
    let future = {
        let key = key(1);
        std::mem::size_of_val(&process.start(&saga, &key, Order::default()))
    };
    println!("a saga under way holds {bytes} bytes, about {written} of them in the journal in memory");
    println!("the future of a start has {future} bytes");
    assert!(bytes < 12_000 && future < 2_000, "{bytes}, {future}");
}

/// `start` is polled so often, and dropped.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_at_any_point_leaves_no_place_taken() {
    let mut pending = 0;
    for polls in 0..6 {
        let bench = Bench::new();
        let saga = saga([bench.world.step("a", acts)]).build().unwrap();
        let process = bench.process_with(&saga, |engine| engine.max_concurrent(1));
        tokio::time::sleep(secs(1)).await;
        {
            let key = key(1);
            let mut start = pin!(process.start(&saga, &key, Order::default()));
            for _ in 0..polls {
                let polled = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if polled.is_ready() {
                    break;
                }
                pending += 1;
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(secs(1)).await;
        assert_eq!(process.in_flight(), 0);
        let again = process.start(&saga, &key(1), Order::default()).await.unwrap();
        assert_eq!(again.existed(), polls > 0);
        again.await.unwrap();
        assert_eq!(bench.world.calls(), "a");
    }
    assert!(pending > 0);
}

/// `wait` is polled so often, and dropped: the end is still heard of.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_at_any_point_loses_nothing() {
    for polls in 0..6 {
        for elsewhere in [false, true] {
            let bench = Bench::new();
            let slow = bench
                .world
                .step("a", |_| Fate::Takes(std::time::Duration::from_millis(2)));
            let saga = saga([slow]).build().unwrap();
            let (here, there) = (bench.process(&saga), bench.process(&saga));
            tokio::time::sleep(secs(1)).await;
            let drives = if elsewhere { &there } else { &here };
            let _driven = drives.start(&saga, &key(1), Order::default()).await.unwrap();
            let mut started = here.start(&saga, &key(1), Order::default()).await.unwrap();
            {
                let mut wait = pin!(started.wait());
                for _ in 0..polls {
                    if wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            assert_eq!(
                tokio::time::timeout(secs(60), started.wait())
                    .await
                    .unwrap()
                    .unwrap()
                    .done,
                ["a"]
            );
        }
    }
}

/// `shutdown` is polled so often, and dropped: nothing new is begun, and what is under way ends.
#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_lets_the_sagas_end() {
    for polls in 1..4 {
        let bench = Bench::new();
        let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
        let saga = saga([slow]).build().unwrap();
        let process = bench.process(&saga);
        let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
        {
            let mut shutdown = pin!(process.shutdown(secs(1)));
            for _ in 0..polls {
                assert!(
                    shutdown
                        .as_mut()
                        .poll(&mut Context::from_waker(Waker::noop()))
                        .is_pending()
                );
            }
        }
        assert!(process.start(&saga, &key(2), Order::default()).await.is_err());
        assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Completed);
        assert!(process.shutdown(secs(1)).await);
    }
}
