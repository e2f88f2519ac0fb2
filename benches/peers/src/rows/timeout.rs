use std::hint::black_box;
use std::time::Duration;

use seatbelt::ResilienceContext;
use steadfast::timeout::Timeout;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_resilience::timelimiter::TimeLimiterLayer;

use super::inner::{Failure, PendingOnce, limited_call, limited_serve};
use super::{Contender, Limit, Row, ours, peer};
use crate::measure::{Sample, at_once, at_the_second_poll, each, on_runtime, request_at_once};

/// Beyond the timer that keeps the driver asleep.
const LIMIT: Duration = Duration::from_secs(3_600);

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "timeout, inner ready at once, plain",
            limit: Limit::Prototype(10),
            contenders: vec![
                ours("steadfast", plain),
                Contender {
                    may_be_below: true,
                    ..peer("the bare call", bare)
                },
                peer("tokio", tokio_timeout),
            ],
        },
        Row {
            name: "timeout, inner ready at once, Tower",
            limit: Limit::Missed {
                prototype: 10,
                reached: 75,
            },
            contenders: vec![
                ours("steadfast", layer),
                Contender {
                    may_be_below: true,
                    ..peer("the bare service", bare_service)
                },
                peer("tower", tower),
                peer("seatbelt", seatbelt_layer),
                peer("tower-resilience", tower_resilience),
            ],
        },
        Row {
            name: "timeout, inner pending once, plain",
            limit: Limit::Peer {
                name: "tokio",
                percent: 115,
            },
            contenders: vec![ours("steadfast", plain_pending), peer("tokio", tokio_timeout_pending)],
        },
    ]
}

fn plain(calls: u64) -> Sample {
    on_runtime(async {
        let timeout = black_box(Timeout::new(LIMIT));
        each(calls, |context| at_once(context, timeout.call(limited_call())))
    })
}

/// What the call costs without anything around it.
fn bare(calls: u64) -> Sample {
    on_runtime(async { each(calls, |context| at_once(context, limited_call())) })
}

/// The same for a request.
fn bare_service(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn plain_pending(calls: u64) -> Sample {
    on_runtime(async {
        let timeout = black_box(Timeout::new(LIMIT));
        each(calls, |context| {
            at_the_second_poll(context, timeout.call(PendingOnce::default()));
        })
    })
}

fn tokio_timeout(calls: u64) -> Sample {
    on_runtime(async {
        each(calls, |context| {
            at_once(context, tokio::time::timeout(black_box(LIMIT), limited_call()));
        })
    })
}

fn tokio_timeout_pending(calls: u64) -> Sample {
    on_runtime(async {
        each(calls, |context| {
            at_the_second_poll(context, tokio::time::timeout(black_box(LIMIT), PendingOnce::default()));
        })
    })
}

fn layer(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = Timeout::new(black_box(LIMIT)).layer(service_fn(limited_serve));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new()
            .timeout(black_box(LIMIT))
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn seatbelt_layer(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, Result<u64, Failure>>::new(tick::Clock::new_tokio());
        let timeout = seatbelt::timeout::Timeout::layer("timeout", &context);
        let timeout = timeout
            .timeout(black_box(LIMIT))
            .timeout_error(|_| Failure::from("elapsed"));
        let mut service = ServiceBuilder::new().layer(timeout).service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    on_runtime(async {
        let timeout = TimeLimiterLayer::builder().timeout_duration(black_box(LIMIT)).build();
        let mut service = ServiceBuilder::new().layer(timeout).service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}
