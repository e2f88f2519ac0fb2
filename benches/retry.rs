//! What a retry costs where it has little to do, and where it retries without a delay.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::hint::black_box;
use std::io;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use steadfast::retry::{Retry, RetryBudget};
use tower::{Layer, Service, ServiceExt, service_fn};

async fn succeed(request: u64) -> io::Result<u64> {
    Ok(black_box(request))
}

/// The first two of three attempts fail.
async fn fail_twice(attempt: u32) -> io::Result<u64> {
    if black_box(attempt) < 3 {
        Err(io::ErrorKind::ConnectionReset.into())
    } else {
        Ok(black_box(1))
    }
}

fn first_attempt_ok(c: &mut Criterion) {
    let mut group = c.benchmark_group("retry, first attempt ok");
    group.bench_function("bare", |b| b.iter(|| block_on(succeed(7))));

    let retry = Retry::default();
    group.bench_function("plain", |b| b.iter(|| block_on(retry.call(|| succeed(7)))));

    let budget = RetryBudget::default();
    let budgeted = Retry::builder().budget(&budget).build().expect("in range");
    group.bench_function("plain, with a budget", |b| {
        b.iter(|| block_on(budgeted.call(|| succeed(7))));
    });

    let mut service = retry.layer(service_fn(succeed));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn two_failures(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    let retry = Retry::constant(Duration::ZERO).build().expect("in range");

    let mut group = c.benchmark_group("retry, 2 failures without a delay, on a runtime");
    group.bench_function("plain", |b| {
        b.iter(|| runtime.block_on(retry.call_with(|attempt| fail_twice(attempt.number()))));
    });
    let numbered = retry.replay(steadfast::retry::ByClone);
    let numbered = numbered.before_attempt(|number: &mut u32, attempt| *number = attempt.number());
    let mut service = numbered.layer(service_fn(fail_twice));
    group.bench_function("tower", |b| {
        b.iter(|| runtime.block_on(async { service.ready().await?.call(0).await }));
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = short(); targets = first_attempt_ok, two_failures);
criterion_main!(benches);
