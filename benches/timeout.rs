//! What a timeout costs where no timer is needed, and where one is made for nothing.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use steadfast::Rejected;
use steadfast::timeout::Timeout;
use tokio::runtime::Runtime;
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt, service_fn};

const LIMIT: Duration = Duration::from_secs(3_600);

async fn at_once(request: u64) -> Result<u64, Rejected> {
    Ok(black_box(request))
}

async fn pending_once(request: u64) -> Result<u64, Rejected> {
    yield_now().await;
    Ok(black_box(request))
}

/// With a timer far away: one that is the earliest of all would wake the driver, which is a system call.
fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.spawn(async { tokio::time::sleep(Duration::from_secs(1_000)).await });
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    runtime
}

fn ready_at_once(c: &mut Criterion) {
    let timeout = Timeout::new(LIMIT);
    let mut group = c.benchmark_group("timeout, ready at once");
    group.bench_function("bare", |b| b.iter(|| block_on(at_once(7))));
    group.bench_function("plain", |b| b.iter(|| block_on(timeout.call(at_once(7)))));
    let mut service = timeout.layer(service_fn(at_once));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn pending(c: &mut Criterion) {
    let runtime = runtime();
    let timeout = Timeout::new(LIMIT);
    let mut group = c.benchmark_group("timeout, pending once");
    group.bench_function("bare", |b| b.iter(|| runtime.block_on(pending_once(7))));
    group.bench_function("plain", |b| b.iter(|| runtime.block_on(timeout.call(pending_once(7)))));
    let mut service = timeout.layer(service_fn(pending_once));
    group.bench_function("tower", |b| {
        b.iter(|| runtime.block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = short(); targets = ready_at_once, pending);
criterion_main!(benches);
