//! What a fallback costs where it is not taken, and where it is.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use steadfast::fallback::Fallback;
use tower::{Layer, Service, ServiceExt, service_fn};

async fn succeed(request: u64) -> io::Result<u64> {
    Ok(black_box(request))
}

async fn fail(_: u64) -> io::Result<u64> {
    Err(black_box(io::ErrorKind::ConnectionReset).into())
}

fn not_taken(c: &mut Criterion) {
    let fallback = Fallback::value(0_u64);
    let mut group = c.benchmark_group("fallback, not taken");
    group.bench_function("bare", |b| b.iter(|| block_on(succeed(7))));
    group.bench_function("plain", |b| b.iter(|| block_on(fallback.call(succeed(7)))));
    let mut service = fallback.layer(service_fn(succeed));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn taken(c: &mut Criterion) {
    let fallback = Fallback::value(0_u64);
    let mut group = c.benchmark_group("fallback, taken");
    group.bench_function("bare", |b| b.iter(|| block_on(fail(7))));
    group.bench_function("plain", |b| b.iter(|| block_on(fallback.call(fail(7)))));
    let mut service = fallback.layer(service_fn(fail));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = short(); targets = not_taken, taken);
criterion_main!(benches);
