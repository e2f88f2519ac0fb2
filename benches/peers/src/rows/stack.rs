use std::hint::black_box;
use std::time::Duration;

use seatbelt::{RecoveryInfo, ResilienceContext};
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use tower::ServiceBuilder;
use tower_resilience::retry::RetryLayer;
use tower_resilience::timelimiter::{TimeLimiterError, TimeLimiterLayer};

use super::inner::{Failure, limited_serve};
use super::retry::Attempts;
use super::{Limit, Row, ours, peer};
use crate::measure::{Sample, each, on_runtime, request_at_once};

const LIMIT: Duration = Duration::from_secs(3_600);

pub fn rows() -> Vec<Row> {
    vec![Row {
        name: "stack so far: retry, timeout, Tower",
        // Gated as a whole, once the breaker and the bulkhead are in it.
        limit: Limit::None,
        contenders: vec![
            ours("steadfast", steadfast),
            peer("tower", tower),
            peer("seatbelt", seatbelt),
            peer("tower-resilience", tower_resilience),
        ],
    }]
}

fn steadfast(calls: u64) -> Sample {
    on_runtime(async {
        let retry = Retry::builder().boxed_errors().build().expect("the defaults");
        let mut service = ServiceBuilder::new()
            .layer(retry)
            .layer(Timeout::new(black_box(LIMIT)))
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new()
            .retry(Attempts(black_box(2)))
            .timeout(black_box(LIMIT))
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn seatbelt(calls: u64) -> Sample {
    on_runtime(async {
        let context = ResilienceContext::<u64, Result<u64, Failure>>::new(tick::Clock::new_tokio());
        let retry = seatbelt::retry::Retry::layer("retry", &context);
        let retry = retry
            .clone_input()
            .recovery_with(|result: &Result<u64, Failure>, _| match result {
                Ok(_) => RecoveryInfo::never(),
                Err(_) => RecoveryInfo::retry(),
            });
        let timeout = seatbelt::timeout::Timeout::layer("timeout", &context);
        let timeout = timeout
            .timeout(black_box(LIMIT))
            .timeout_error(|_| Failure::from("elapsed"));
        let mut service = ServiceBuilder::new()
            .layer(retry)
            .layer(timeout)
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    on_runtime(async {
        let retry = RetryLayer::<u64, u64, TimeLimiterError<Failure>>::builder().build();
        let timeout = TimeLimiterLayer::builder().timeout_duration(black_box(LIMIT)).build();
        let mut service = ServiceBuilder::new()
            .layer(retry)
            .layer(timeout)
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}
