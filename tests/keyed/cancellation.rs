//! Calls under a key, dropped after each of their polls: everything comes back, and the key can go.

use steadfast::bulkhead::Bulkheads;
use steadfast::circuit_breaker::{Abandoned, CircuitBreakers, State};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

use super::support::{Backend, Driven, Failure, cancel_everywhere, ok};
use super::{MAX_OPEN_TIME, MS, OPEN_TIME, breaker, bulkhead, fails};

type Call = std::pin::Pin<Box<dyn Future<Output = Result<u32, Failure>>>>;

const KEY: u32 = 7;

fn breakers() -> CircuitBreakers<u32> {
    let breaker = breaker().abandoned(Abandoned::Ignore);
    breaker.keyed().max_keys(1).build().unwrap()
}

fn lanes() -> Bulkheads<u32> {
    bulkhead().keyed().max_keys(1).build().unwrap()
}

/// A call of the plain face or of Tower's.
macro_rules! call {
    ($set:ident, $tower:expr) => {{
        let backend = Backend::new([ok(200).after(3 * MS)]);
        let (set, called) = ($set.clone(), backend.clone());
        let call: Call = if $tower {
            Box::pin(
                set.layer_by(|key: &u32| *key)
                    .layer(called.service_for::<u32>())
                    .oneshot(KEY),
            )
        } else {
            Box::pin(async move { set.get(&KEY).call(async move { called.call().await }).await })
        };
        (backend, call)
    }};
}

fn check_ended<T>(backend: &Backend, driven: &Driven<T>) {
    assert_eq!(backend.running(), 0);
    assert!(driven.wakes <= driven.polls);
}

#[tokio::test(start_paused = true)]
async fn a_call_under_a_breaker_can_be_dropped_anywhere() {
    for tower in [false, true] {
        let make = || {
            let set = breakers();
            let (backend, call) = call!(set, tower);
            ((set, backend), call)
        };
        cancel_everywhere(make, |(set, backend), driven| {
            check_ended(&backend, &driven);
            assert_eq!(set.get(&KEY).state(), State::Closed);
            assert_eq!(set.get(&KEY).snapshot().probes_in_flight, 0);
            drop(set.get(&(KEY + 1)));
            assert!(set.peek(&KEY).is_none(), "evictable again");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_under_a_key_can_be_dropped_anywhere() {
    for tower in [false, true] {
        for polls in 0..3 {
            let set = breakers();
            set.get(&KEY).call(fails()).await.unwrap_err();
            advance(OPEN_TIME).await;
            let (backend, call) = call!(set, tower);
            let driven = super::support::drive(call, polls, false).await;
            check_ended(&backend, &driven);
            let snapshot = set.get(&KEY).snapshot();
            assert_eq!(snapshot.probes_in_flight, 0);
            assert_eq!(snapshot.state == State::HalfOpen, driven.polls > 0);
            advance(MAX_OPEN_TIME).await;
            drop(set.get(&(KEY + 1)));
            assert!(set.peek(&KEY).is_none(), "evictable again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_under_a_bulkhead_can_be_dropped_anywhere_running_or_queued() {
    for tower in [false, true] {
        for full in [false, true] {
            let make = || {
                let set = lanes();
                let permit = full.then(|| {
                    let permit = set.get(&KEY).try_acquire().unwrap();
                    tokio::spawn(async move {
                        tokio::time::sleep(5 * MS).await;
                        drop(permit);
                    })
                });
                let (backend, call) = call!(set, tower);
                ((set, backend, permit), call)
            };
            let mut cases = Vec::new();
            cancel_everywhere(make, |(set, backend, permit), driven| {
                check_ended(&backend, &driven);
                cases.push((set, permit));
            })
            .await;
            for (set, permit) in cases {
                if let Some(permit) = permit {
                    permit.await.unwrap();
                }
                let lane = set.get(&KEY);
                assert_eq!((lane.in_flight(), lane.queued(), lane.available()), (0, 0, 1));
                drop(lane);
                drop(set.get(&(KEY + 1)));
                assert!(set.peek(&KEY).is_none(), "evictable again");
            }
        }
    }
}
