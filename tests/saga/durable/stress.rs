//! Real threads and real time: races that a paused clock on one thread does not have.

use std::sync::Arc;
use std::time::Duration;

use steadfast::saga::{SagaEnd, SagaEngine};
use steadfast::testing::saga::Faulty;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::world::{Bench, Fate, Order, acts, key, saga, secs};

fn threads(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// The worker looks only when it is woken: a wakeup that is lost is a saga that is not driven.
#[test]
fn whoever_waits_for_a_place_is_driven_when_one_is_free() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let runtime = threads(4);
    runtime.block_on(async {
        let process = bench.process_with(&saga, |engine| {
            engine.max_concurrent(2).poll_interval(secs(3600)).max_pending(100_000)
        });
        for round in 0..20 {
            let mut all = tokio::task::JoinSet::new();
            for n in 0..100 {
                let (engine, saga) = (process.engine.clone(), saga.clone());
                all.spawn(async move {
                    let started = engine
                        .start(&saga, &key(round * 100 + n), Order::default())
                        .await
                        .unwrap();
                    started.await.unwrap()
                });
            }
            let ended = timeout(secs(60), all.join_all()).await;
            assert!(ended.is_ok(), "round {round}: {:?}", process.counts().await);
        }
        assert!(process.shutdown(secs(1)).await);
        assert_eq!(process.in_flight(), 0);
    });
}

/// A runtime is shut down in the middle, as a process that ends without a word; another one takes its sagas over.
#[test]
fn sagas_of_a_runtime_that_was_shut_down_end_in_another() {
    for moment in 0..12 {
        let bench = Bench::new();
        let short = |_| Fate::Takes(Duration::from_millis(5));
        let last = if moment % 2 == 0 { acts } else { |_| Fate::Refuses };
        let steps = [
            bench.world.step("a", short),
            bench.world.step("b", short),
            bench.world.step("c", last),
        ];
        let saga = saga(steps).build().unwrap();
        let engine = || {
            let way = Faulty::over(Arc::clone(&bench.book));
            let engine = SagaEngine::builder(way).register(&saga);
            let soon = Duration::from_millis(20);
            engine
                .lease(Duration::from_millis(200))
                .poll_interval(soon)
                .build()
                .unwrap()
        };
        let first = threads(2);
        let ids = first.block_on(async {
            let engine = engine();
            let mut ids = Vec::new();
            for n in 0..10 {
                ids.push(engine.start(&saga, &key(n), Order::default()).await.unwrap().id());
            }
            tokio::time::sleep(Duration::from_millis(2 * moment)).await;
            ids
        });
        first.shutdown_background();
        threads(2).block_on(async {
            let _engine = engine();
            let mut live = 0;
            for id in ids {
                let end = bench.rests(id, secs(20)).await;
                live += if end == SagaEnd::Completed { 3 } else { 0 };
                assert_ne!(end, SagaEnd::Stuck);
            }
            assert_eq!(bench.world.live(), live);
            assert!(bench.world.once());
        });
    }
}

/// Keeps a thread of the runtime from anything else.
#[allow(clippy::disallowed_methods, reason = "it is to block")]
fn block(time: Duration) {
    std::thread::sleep(time);
}

/// Two engines with short leases, on threads that are busier than the leases are long.
#[test]
fn leases_that_run_out_on_a_busy_machine_cost_no_books() {
    let bench = Bench::new();
    let slow = |_| Fate::Takes(Duration::from_millis(100));
    let steps = [
        bench.world.step("a", slow),
        bench.world.step("b", slow),
        bench.world.step("c", acts),
    ];
    let saga = saga(steps).build().unwrap();
    threads(2).block_on(async {
        let soon = Duration::from_millis(20);
        let short = |engine: steadfast::saga::SagaEngineBuilder| {
            engine
                .lease(Duration::from_millis(200))
                .poll_interval(soon)
                .max_recoveries(1_000)
        };
        let both = [bench.process_with(&saga, short), bench.process_with(&saga, short)];
        let hog = tokio::spawn(async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
                block(Duration::from_millis(150));
            }
        });
        let mut all = Vec::new();
        for n in 0..100 {
            let at = usize::try_from(n % 2).unwrap();
            all.push(both[at].start(&saga, &key(n), Order::default()).await.unwrap());
        }
        for started in all {
            timeout(secs(60), started).await.expect("an end").unwrap();
        }
        hog.await.unwrap();
        assert_eq!(bench.world.live(), 300);
        assert!(bench.world.once());
        for process in both {
            assert!(process.shutdown(secs(5)).await);
        }
    });
}
