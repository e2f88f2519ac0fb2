//! Keyed sets of circuit breakers and of bulkheads, from outside.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "modules of one test program"
)]

mod breakers;
mod bulkheads;
mod cancellation;
mod contract;
mod events;
mod extremes;
mod resources;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use steadfast::bulkhead::{Bulkhead, BulkheadBuilder, Bulkheads};
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder, CircuitBreakers};
use support::Failure;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const OPEN_TIME: Duration = Duration::from_secs(10);
const MAX_OPEN_TIME: Duration = Duration::from_secs(60);

/// A breaker that one failure opens, for 10 s, and that is remembered for 60 s more.
fn breaker() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("hosts")
        .failure_rate(None)
        .consecutive_failures(1)
        .samples(2)
        .success_rate(1.0)
        .open_time(OPEN_TIME)
        .max_open_time(MAX_OPEN_TIME)
}

fn breakers(max_keys: usize) -> CircuitBreakers<u32> {
    breaker().keyed().max_keys(max_keys).build().unwrap()
}

/// One permit, one place in the queue for 50 ms.
fn bulkhead() -> BulkheadBuilder {
    Bulkhead::builder("lanes")
        .max_concurrent(1)
        .max_queued(1)
        .max_wait(50 * MS)
}

fn bulkheads(max_keys: usize) -> Bulkheads<u32> {
    bulkhead().keyed().max_keys(max_keys).build().unwrap()
}

async fn succeeds() -> Result<u32, Failure> {
    Ok(1)
}

async fn fails() -> Result<u32, Failure> {
    Err(Failure::Down)
}
