//! What a circuit breaker costs while it is closed, by window and by what the window holds, and while it is open.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::future::{Ready, ready};
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use steadfast::Rejected;
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};
use tower::{Layer, Service, ServiceExt, service_fn};

fn answer(request: u64) -> Ready<Result<u64, Rejected>> {
    ready(Ok(black_box(request)))
}

fn failure() -> Ready<Result<u64, Rejected>> {
    ready(Err(Rejected::timed_out("dependency", Duration::ZERO)))
}

fn builder() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("payments")
}

fn build(builder: CircuitBreakerBuilder) -> CircuitBreaker {
    builder.build().expect("settings in range")
}

fn closed(c: &mut Criterion) {
    let mut group = c.benchmark_group("circuit breaker, closed");
    group.bench_function("bare", |b| b.iter(|| block_on(answer(7))));
    let streak = builder().failure_rate(None).consecutive_failures(5);
    for (window, builder) in [
        ("the last 100 calls", builder()),
        ("the last 1,000,000 calls", builder().count_window(1_000_000)),
        ("the last 10 s", builder().time_window(Duration::from_secs(10))),
        ("failures in a row", streak),
    ] {
        let breaker = build(builder);
        group.bench_function(window, |b| b.iter(|| block_on(breaker.call(answer(7)))));
    }
    let breaker = build(builder());
    group.bench_function("one failure in ten", |b| {
        let mut calls = 0_u32;
        b.iter(|| {
            calls = calls.wrapping_add(1);
            block_on(breaker.call(if calls % 10 == 0 { failure() } else { answer(7) })).is_ok()
        });
    });
    let mut service = breaker.layer(service_fn(answer));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn open(c: &mut Criterion) {
    let breaker = build(builder());
    breaker.force_open();
    let timed = build(builder().consecutive_failures(1).open_time(Duration::from_secs(300)));
    black_box(block_on(timed.call(failure())).is_err());
    let mut group = c.benchmark_group("circuit breaker, open");
    group.bench_function("rejected", |b| b.iter(|| block_on(timed.call(answer(7))).is_err()));
    group.bench_function("rejected, forced", |b| {
        b.iter(|| block_on(breaker.call(answer(7))).is_err());
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = short(); targets = closed, open);
criterion_main!(benches);
