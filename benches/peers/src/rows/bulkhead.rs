use std::future::ready;
use std::hint::black_box;
use std::pin::pin;

use steadfast::Rejected;
use steadfast::bulkhead::Bulkhead;
use tokio::sync::Semaphore;
use tokio::task::unconstrained;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_resilience::bulkhead::BulkheadLayer;

use super::inner::{limited_call, limited_serve};
use super::{Contender, Limit, Row, ours, peer};
use crate::measure::{Sample, at_once, each, on_runtime, request_at_once};

const LIMIT: u32 = 64;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "bulkhead free, plain",
            limit: Limit::Missed {
                prototype: 18,
                reached: 70,
            },
            contenders: vec![
                ours("steadfast", plain),
                Contender {
                    may_be_below: true,
                    ..peer("the bare call", bare)
                },
                peer("tokio `Semaphore::try_acquire`", tokio_semaphore),
            ],
        },
        Row {
            name: "bulkhead free, Tower",
            limit: Limit::Missed {
                prototype: 23,
                reached: 128,
            },
            contenders: vec![
                ours("steadfast", layer),
                Contender {
                    may_be_below: true,
                    ..peer("the bare service", bare_service)
                },
                peer("tower `ConcurrencyLimit`", tower),
                peer("tower-resilience", tower_resilience),
            ],
        },
        Row {
            name: "bulkhead full, rejected, plain",
            limit: Limit::None,
            contenders: vec![ours("steadfast", rejected)],
        },
    ]
}

fn bulkhead() -> Bulkhead {
    let bulkhead = Bulkhead::builder("payments").max_concurrent(black_box(LIMIT)).build();
    bulkhead.expect("a bulkhead with these settings can be built")
}

fn plain(calls: u64) -> Sample {
    on_runtime(async {
        let bulkhead = bulkhead();
        each(calls, |context| at_once(context, bulkhead.call(limited_call())))
    })
}

fn rejected(calls: u64) -> Sample {
    on_runtime(async {
        let bulkhead = bulkhead();
        bulkhead.set_max_concurrent(0);
        each(calls, |context| {
            let call = pin!(bulkhead.call(ready(Ok::<u64, Rejected>(1))));
            black_box(call.poll(context).is_ready());
        })
    })
}

/// What the call costs without anything around it.
fn bare(calls: u64) -> Sample {
    on_runtime(async { each(calls, |context| at_once(context, limited_call())) })
}

fn tokio_semaphore(calls: u64) -> Sample {
    on_runtime(async {
        let semaphore = Semaphore::new(black_box(64));
        each(calls, |context| {
            at_once(context, async {
                let permit = semaphore.try_acquire()?;
                let answer = limited_call().await;
                drop(permit);
                answer
            });
        })
    })
}

fn layer(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = bulkhead().layer(service_fn(limited_serve));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

/// What the service costs without anything around it.
fn bare_service(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new()
            .concurrency_limit(black_box(64))
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    // It takes its permit at the price of tokio's budget, and is not ready at once when a task has used that up.
    on_runtime(unconstrained(async {
        let bulkhead = BulkheadLayer::builder().max_concurrent_calls(black_box(64)).build();
        let bulkhead = bulkhead.expect("a bulkhead with these settings can be built");
        let mut service = ServiceBuilder::new().layer(bulkhead).service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    }))
}
