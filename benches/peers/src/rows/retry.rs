use std::future::{Ready, ready};
use std::hint::black_box;
use std::io;
use std::time::Duration;

use backon::Retryable;
use layered::{Execute, Service as _, Stack};
use seatbelt::{RecoveryInfo, ResilienceContext};
use steadfast::retry::Retry;
use tower::retry::Policy;
use tower::{Layer, ServiceBuilder, service_fn};

use super::inner::{call, fail_twice, serve};
use super::{Contender, Limit, Row, ours, peer};
use crate::measure::{Sample, at_once, each, each_awaited, on_runtime, request_at_once};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "retry, first attempt ok, plain",
            limit: Limit::Prototype(56),
            contenders: vec![
                ours("steadfast", plain),
                peer("backon", backon),
                peer("tokio-retry", tokio_retry),
                peer("seatbelt", seatbelt),
            ],
        },
        Row {
            name: "retry, first attempt ok, Tower",
            limit: Limit::Prototype(42),
            contenders: vec![
                ours("steadfast", layer),
                Contender {
                    may_be_below: true,
                    ..peer("tower", tower)
                },
                peer("seatbelt", seatbelt_layer),
                peer("tower-resilience", tower_resilience),
            ],
        },
        Row {
            name: "retry, 2 failures, no delay, on a runtime",
            limit: Limit::Prototype(170),
            contenders: vec![
                ours("steadfast", plain_failing),
                Contender {
                    may_be_below: true,
                    ..peer("a bare loop", bare_failing)
                },
                peer("backon", backon_failing),
                peer("tokio-retry", tokio_retry_failing),
                peer("seatbelt", seatbelt_failing),
                peer("tower-resilience", tower_resilience_failing),
            ],
        },
        Row {
            name: "the same, Tower",
            limit: Limit::Prototype(170),
            contenders: vec![
                ours("steadfast", layer_failing),
                Contender {
                    may_be_below: true,
                    ..peer("tower", tower_failing)
                },
            ],
        },
    ]
}

fn plain(calls: u64) -> Sample {
    on_runtime(async {
        let retry = black_box(Retry::default());
        each(calls, |context| at_once(context, retry.call(call)))
    })
}

fn plain_failing(calls: u64) -> Sample {
    on_runtime(async {
        let retry = Retry::constant(Duration::ZERO)
            .build()
            .expect("the settings are in range");
        let retry = black_box(retry);
        each_awaited(calls, async || retry.call(|| fail_twice(black_box(7))).await).await
    })
}

/// What the three attempts cost without anything around them.
fn bare_failing(calls: u64) -> Sample {
    on_runtime(async {
        each_awaited(calls, async || {
            let mut attempt = 1;
            loop {
                let result = fail_twice(black_box(7)).await;
                if result.is_ok() || attempt >= black_box(3) {
                    return result;
                }
                attempt += 1;
            }
        })
        .await
    })
}

fn backon(calls: u64) -> Sample {
    on_runtime(async {
        let schedule = black_box(backon::ExponentialBuilder::default());
        each(calls, |context| at_once(context, call.retry(schedule)))
    })
}

fn backon_failing(calls: u64) -> Sample {
    on_runtime(async {
        let schedule = backon::ConstantBuilder::default()
            .with_delay(Duration::ZERO)
            .with_max_times(2);
        let schedule = black_box(schedule);
        each_awaited(calls, async || (|| fail_twice(black_box(7))).retry(schedule).await).await
    })
}

fn tokio_retry(calls: u64) -> Sample {
    on_runtime(async {
        let schedule = black_box(tokio_retry::strategy::ExponentialBackoff::from_millis(100));
        each(calls, |context| {
            at_once(context, tokio_retry::Retry::start(schedule.clone().take(2), call));
        })
    })
}

fn tokio_retry_failing(calls: u64) -> Sample {
    on_runtime(async {
        let schedule = black_box(tokio_retry::strategy::FixedInterval::new(Duration::ZERO));
        each_awaited(calls, async || {
            tokio_retry::Retry::start(schedule.clone().take(2), || fail_twice(black_box(7))).await
        })
        .await
    })
}

fn recovery(result: &io::Result<u64>, _: seatbelt::retry::RecoveryArgs) -> RecoveryInfo {
    match result {
        Ok(_) => RecoveryInfo::never(),
        Err(_) => RecoveryInfo::retry(),
    }
}

fn seatbelt(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, io::Result<u64>>::new(tick::Clock::new_tokio());
        let retry = seatbelt::retry::Retry::layer("retry", &context);
        let service = (retry.clone_input().recovery_with(recovery), Execute::new(serve)).into_service();
        each(calls, |context| at_once(context, service.execute(black_box(7))))
    })
}

fn seatbelt_failing(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, io::Result<u64>>::new(tick::Clock::new_tokio());
        let retry = seatbelt::retry::Retry::layer("retry", &context).base_delay(Duration::ZERO);
        let service = (retry.clone_input().recovery_with(recovery), Execute::new(fail_twice)).into_service();
        each_awaited(calls, async || service.execute(black_box(7)).await).await
    })
}

fn layer(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = Retry::default().layer(service_fn(serve));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn layer_failing(calls: u64) -> Sample {
    on_runtime(async {
        let retry = Retry::constant(Duration::ZERO)
            .build()
            .expect("the settings are in range");
        let mut service = retry.layer(service_fn(fail_twice));
        each(calls, |context| request_at_once(context, &mut service))
    })
}

/// Retries errors, so often.
#[derive(Clone)]
pub struct Attempts(pub u32);

impl<E> Policy<u64, u64, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Ready<()>> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

fn tower(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new().retry(Attempts(black_box(2))).service_fn(serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_failing(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new()
            .retry(Attempts(black_box(2)))
            .service_fn(fail_twice);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn seatbelt_layer(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, io::Result<u64>>::new(tick::Clock::new_tokio());
        let retry = seatbelt::retry::Retry::layer("retry", &context);
        let retry = retry.clone_input().recovery_with(recovery);
        let mut service = ServiceBuilder::new().layer(retry).service_fn(serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    on_runtime(async {
        let retry = tower_resilience::retry::RetryLayer::<u64, u64, io::Error>::builder().build();
        let mut service = ServiceBuilder::new().layer(retry).service_fn(serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience_failing(calls: u64) -> Sample {
    on_runtime(async {
        let retry = tower_resilience::retry::RetryLayer::<u64, u64, io::Error>::builder();
        let retry = retry.fixed_backoff(Duration::ZERO).build();
        let service = ServiceBuilder::new().layer(retry).service_fn(fail_twice);
        each_awaited(calls, async || {
            tower::ServiceExt::oneshot(service.clone(), black_box(7)).await
        })
        .await
    })
}
