use std::hint::black_box;
use std::time::Duration;

use failsafe::{CircuitBreaker as _, backoff, failure_policy};
use seatbelt::{RecoveryInfo, ResilienceContext};
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};
use steadfast::{BoxedErrors, Rejected};
use tokio::task::unconstrained;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_resilience::circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, SlidingWindowType};

use super::inner::{Failure, limited_call, limited_serve};
use super::{Contender, Limit, Row, ours, peer};
use crate::measure::{Sample, at_once, each, on_runtime, on_two_threads, request_at_once};

/// An hour, in which nothing that is open closes.
const HOUR: Duration = Duration::from_secs(3_600);
const WINDOW: Duration = Duration::from_secs(10);

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "breaker closed, count window 100, plain",
            limit: Limit::Prototype(79),
            contenders: vec![
                ours("steadfast", |calls| closed(calls, |builder| builder)),
                peer("recloser", |calls| recloser(calls, 100)),
                peer("failsafe", failsafe),
                peer("seatbelt", seatbelt),
            ],
        },
        Row {
            name: "the same, count window 10,000",
            limit: Limit::Prototype(79),
            contenders: vec![
                ours("steadfast", |calls| {
                    closed(calls, |builder| builder.count_window(10_000))
                }),
                peer("recloser", |calls| recloser(calls, 10_000)),
            ],
        },
        Row {
            name: "the same, wherever it may grow",
            limit: Limit::Flat { percent: 10 },
            contenders: vec![
                ours("window 10, full", |calls| {
                    closed(calls, |builder| builder.count_window(10))
                }),
                ours("window 1,000,000, full", full),
                ours("100,000 clones", with_clones),
                ours("1,000,000 calls ago", aged),
            ],
        },
        Row {
            name: "breaker closed, time window, plain",
            limit: Limit::Prototype(139),
            contenders: vec![
                ours("steadfast", |calls| {
                    closed(calls, |builder| builder.time_window(WINDOW))
                }),
                peer("failsafe", failsafe),
                peer("seatbelt", seatbelt),
            ],
        },
        Row {
            name: "breaker closed, Tower",
            limit: Limit::Prototype(53),
            contenders: vec![
                ours("steadfast", layer),
                Contender {
                    may_be_below: true,
                    ..peer("the bare service", bare_service)
                },
                peer("seatbelt", seatbelt),
                peer("tower-resilience", |calls| {
                    tower_resilience(calls, SlidingWindowType::CountBased)
                }),
                peer("tower-resilience, time window", |calls| {
                    tower_resilience(calls, SlidingWindowType::TimeBased)
                }),
            ],
        },
        Row {
            name: "breaker open, rejected, plain",
            limit: Limit::Missed {
                prototype: 77,
                reached: 214,
            },
            contenders: vec![
                ours("steadfast", open),
                // They say no more than that they reject: a comparison of two instants, and not their difference.
                Contender {
                    may_be_below: true,
                    ..peer("recloser", recloser_open)
                },
                Contender {
                    may_be_below: true,
                    ..peer("failsafe", failsafe_open)
                },
            ],
        },
        Row {
            name: "breaker open, rejected, Tower",
            limit: Limit::Missed {
                prototype: 77,
                reached: 482,
            },
            contenders: vec![
                ours("steadfast", open_layer),
                peer("tower-resilience", tower_resilience_open),
            ],
        },
        Row {
            name: "two threads share one closed breaker",
            limit: Limit::None,
            contenders: vec![
                ours("steadfast", shared),
                peer("a shared `Arc`, cloned", shared_arc),
                peer("recloser", shared_recloser),
                peer("failsafe", shared_failsafe),
            ],
        },
    ]
}

fn builder() -> CircuitBreakerBuilder<BoxedErrors> {
    CircuitBreaker::builder("payments").boxed_errors()
}

type Build = fn(CircuitBreakerBuilder<BoxedErrors>) -> CircuitBreakerBuilder<BoxedErrors>;

fn closed(calls: u64, build: Build) -> Sample {
    on_runtime(async {
        let breaker = black_box(build(builder()).build().expect("in range"));
        each(calls, |context| at_once(context, breaker.call(limited_call())))
    })
}

fn with_clones(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(builder().build().expect("the defaults"));
        let clones: Vec<_> = (0..100_000).map(|_| breaker.clone()).collect();
        let sample = each(calls, |context| at_once(context, breaker.call(limited_call())));
        drop(clones);
        sample
    })
}

fn full(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(builder().count_window(1_000_000).build().expect("in range"));
        each(1_000_000, |context| at_once(context, breaker.call(limited_call())));
        each(calls, |context| at_once(context, breaker.call(limited_call())))
    })
}

fn aged(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(builder().build().expect("the defaults"));
        each(1_000_000, |context| at_once(context, breaker.call(limited_call())));
        each(calls, |context| at_once(context, breaker.call(limited_call())))
    })
}

fn layer(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = builder().build().expect("the defaults");
        let mut service = breaker.layer(service_fn(limited_serve));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

/// What a request costs without anything around it.
fn bare_service(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

/// A breaker that rejects for an hour. The error of its calls is the rejection itself: a box would be an allocation that
/// is not the breaker's.
fn opened() -> CircuitBreaker {
    let builder = CircuitBreaker::builder("payments").max_open_time(HOUR).open_time(HOUR);
    let breaker = builder.consecutive_failures(1).build().expect("in range");
    let failed = std::future::ready(Err::<u64, _>(Rejected::timed_out("test", Duration::ZERO)));
    at_once(
        &mut std::task::Context::from_waker(std::task::Waker::noop()),
        breaker.call(failed),
    );
    assert!(breaker.state().is_open());
    breaker
}

async fn never_called() -> Result<u64, Rejected> {
    Ok(black_box(1))
}

async fn never_served(request: u64) -> Result<u64, Rejected> {
    Ok(black_box(request))
}

fn open(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(opened());
        each(calls, |context| at_once(context, breaker.call(never_called())))
    })
}

fn open_layer(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = opened().layer(service_fn(never_served));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn shared(calls: u64) -> Sample {
    let breaker = builder().build().expect("the defaults");
    on_two_threads(calls, |context| at_once(context, breaker.call(limited_call())))
}

fn shared_arc(calls: u64) -> Sample {
    let shared = std::sync::Arc::new(());
    on_two_threads(calls, |_| {
        black_box(shared.clone());
    })
}

fn answer() -> Result<u64, Failure> {
    Ok(black_box(1))
}

fn failure() -> Result<u64, Failure> {
    Err("down".into())
}

fn of_recloser(window: usize) -> recloser::Recloser {
    let builder = recloser::Recloser::custom().error_rate(0.5).closed_len(window);
    builder.open_wait(HOUR).build()
}

fn recloser(calls: u64, window: usize) -> Sample {
    on_runtime(async {
        let breaker = black_box(of_recloser(window));
        each(calls, |_| {
            black_box(breaker.call(answer)).ok();
        })
    })
}

fn recloser_open(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(of_recloser(1));
        while !matches!(breaker.call(failure), Err(recloser::Error::Rejected)) {}
        each(calls, |_| {
            black_box(breaker.call(answer)).ok();
        })
    })
}

fn shared_recloser(calls: u64) -> Sample {
    let breaker = of_recloser(100);
    on_two_threads(calls, |_| {
        black_box(breaker.call(answer)).ok();
    })
}

fn of_failsafe() -> impl failsafe::CircuitBreaker {
    let policy = failure_policy::success_rate_over_time_window(0.5, 20, WINDOW, backoff::constant(HOUR));
    failsafe::Config::new().failure_policy(policy).build()
}

fn failsafe(calls: u64) -> Sample {
    on_runtime(async {
        let breaker = black_box(of_failsafe());
        each(calls, |_| {
            black_box(breaker.call(answer)).ok();
        })
    })
}

fn failsafe_open(calls: u64) -> Sample {
    on_runtime(async {
        let policy = failure_policy::consecutive_failures(1, backoff::constant(HOUR));
        let breaker = black_box(failsafe::Config::new().failure_policy(policy).build());
        while !matches!(breaker.call(failure), Err(failsafe::Error::Rejected)) {}
        each(calls, |_| {
            black_box(breaker.call(answer)).ok();
        })
    })
}

fn shared_failsafe(calls: u64) -> Sample {
    let breaker = of_failsafe();
    on_two_threads(calls, |_| {
        black_box(breaker.call(answer)).ok();
    })
}

fn seatbelt(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, Result<u64, Failure>>::new(tick::Clock::new_tokio());
        let breaker = seatbelt::breaker::Breaker::layer("breaker", &context)
            .recovery_with(|result: &Result<u64, Failure>, _| match result {
                Ok(_) => RecoveryInfo::never(),
                Err(_) => RecoveryInfo::retry(),
            })
            .rejected_input_error(|_, _| Failure::from("open"));
        let mut service = ServiceBuilder::new().layer(breaker).service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

/// It spends tokio's budget, and is not ready at once when a task has used that up.
fn tower_resilience(calls: u64, window: SlidingWindowType) -> Sample {
    on_runtime(unconstrained(async {
        let breaker = CircuitBreakerLayer::builder()
            .sliding_window_type(window)
            .sliding_window_size(100)
            .sliding_window_duration(WINDOW)
            .build()
            .expect("in range");
        let mut service = ServiceBuilder::new().layer(breaker).service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    }))
}

fn tower_resilience_open(calls: u64) -> Sample {
    on_runtime(unconstrained(async {
        let breaker = CircuitBreakerLayer::builder()
            .consecutive_failures(1)
            .wait_duration_in_open(HOUR)
            .build()
            .expect("in range");
        let fails = service_fn(|_: u64| async { failure() });
        let mut service = ServiceBuilder::new().layer(breaker).service(fails);
        while !matches!(
            tower::ServiceExt::oneshot(service.clone(), 7).await,
            Err(CircuitBreakerError::OpenCircuit)
        ) {}
        each(calls, |context| request_at_once(context, &mut service))
    }))
}
