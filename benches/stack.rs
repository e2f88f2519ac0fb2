//! What the patterns cost together: a fallback around a retry around a timeout.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use steadfast::Rejected;
use steadfast::fallback::Fallback;
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use tower::{Service, ServiceBuilder, ServiceExt};

async fn succeed(request: u64) -> Result<u64, Rejected> {
    Ok(black_box(request))
}

fn happy_path(c: &mut Criterion) {
    let fallback = Fallback::value(0_u64);
    let retry = Retry::default();
    let timeout = Timeout::new(Duration::from_secs(3_600));

    let mut group = c.benchmark_group("stack of fallback, retry, timeout");
    group.bench_function("bare", |b| b.iter(|| block_on(succeed(7))));
    group.bench_function("plain", |b| {
        b.iter(|| block_on(fallback.call(retry.call(|| timeout.call(succeed(7))))));
    });
    let mut service = ServiceBuilder::new()
        .layer(fallback.clone())
        .layer(retry.clone())
        .layer(timeout.clone())
        .service_fn(succeed);
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

criterion_group!(name = benches; config = short(); targets = happy_path);
criterion_main!(benches);
