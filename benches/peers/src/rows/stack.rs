use std::hint::black_box;
use std::time::Duration;

use seatbelt::{RecoveryInfo, ResilienceContext};
use steadfast::bulkhead::Bulkhead;
use steadfast::circuit_breaker::CircuitBreaker;
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use tokio::task::unconstrained;
use tower::ServiceBuilder;
use tower_resilience::bulkhead::{BulkheadLayer, BulkheadServiceError};
use tower_resilience::circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience::retry::RetryLayer;
use tower_resilience::timelimiter::{TimeLimiterError, TimeLimiterLayer};

use super::inner::{Failure, limited_serve};
use super::retry::Attempts;
use super::{Limit, Row, ours, peer};
use crate::measure::{Sample, each, on_runtime, request_at_once};

const LIMIT: Duration = Duration::from_secs(3_600);

pub fn rows() -> Vec<Row> {
    vec![Row {
        name: "stack: retry, breaker, bulkhead, timeout, Tower",
        limit: Limit::Missed {
            prototype: 153,
            reached: 440,
        },
        contenders: vec![
            ours("steadfast", steadfast),
            peer("tower, without a breaker", tower),
            peer("seatbelt, tower's limit", seatbelt),
            peer("tower-resilience", tower_resilience),
        ],
    }]
}

fn steadfast(calls: u64) -> Sample {
    on_runtime(async {
        let retry = Retry::builder().boxed_errors().build().expect("the defaults");
        let breaker = CircuitBreaker::builder("payments")
            .boxed_errors()
            .build()
            .expect("the defaults");
        let bulkhead = Bulkhead::builder("payments").build().expect("the defaults");
        let mut service = ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(bulkhead)
            .layer(Timeout::new(black_box(LIMIT)))
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower(calls: u64) -> Sample {
    on_runtime(async {
        let mut service = ServiceBuilder::new()
            .retry(Attempts(black_box(2)))
            .concurrency_limit(black_box(64))
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
        let breaker = seatbelt::breaker::Breaker::layer("breaker", &context)
            .recovery_with(|result: &Result<u64, Failure>, _| match result {
                Ok(_) => RecoveryInfo::never(),
                Err(_) => RecoveryInfo::retry(),
            })
            .rejected_input_error(|_, _| Failure::from("open"));
        let mut service = ServiceBuilder::new()
            // Further out than it should be: seatbelt's layers call clones that were not polled ready, and tower's limit
            // panics inside of them.
            .concurrency_limit(black_box(64))
            .layer(retry)
            .layer(breaker)
            .layer(timeout)
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    })
}

fn tower_resilience(calls: u64) -> Sample {
    type Limited = BulkheadServiceError<TimeLimiterError<Failure>>;
    // Its bulkhead spends tokio's budget, and is not ready at once when a task has used that up.
    on_runtime(unconstrained(async {
        let retry = RetryLayer::<u64, u64, CircuitBreakerError<Limited>>::builder().build();
        let breaker = CircuitBreakerLayer::builder().build().expect("the defaults");
        let bulkhead = BulkheadLayer::builder()
            .max_concurrent_calls(black_box(64))
            .build()
            .expect("in range");
        let timeout = TimeLimiterLayer::builder().timeout_duration(black_box(LIMIT)).build();
        let mut service = ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(bulkhead)
            .layer(timeout)
            .service_fn(limited_serve);
        each(calls, |context| request_at_once(context, &mut service))
    }))
}
