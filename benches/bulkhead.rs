//! What a bulkhead costs where a permit is free, where it is full, and where two threads share one.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::future::{Ready, ready};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use futures::future::join;
use steadfast::Rejected;
use steadfast::bulkhead::Bulkhead;
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, service_fn};

fn answer(request: u64) -> Ready<Result<u64, Rejected>> {
    ready(Ok(black_box(request)))
}

fn bulkhead(max_concurrent: u32) -> Bulkhead {
    let builder = Bulkhead::builder("lanes").max_concurrent(max_concurrent);
    let builder = builder.max_queued(1).max_wait(Duration::from_secs(3_600));
    builder.build().expect("settings in range")
}

fn free(c: &mut Criterion) {
    let bulkhead = bulkhead(64);
    let mut group = c.benchmark_group("bulkhead, free");
    group.bench_function("bare", |b| b.iter(|| block_on(answer(7))));
    group.bench_function("plain", |b| b.iter(|| block_on(bulkhead.call(answer(7)))));
    group.bench_function("permit", |b| b.iter(|| bulkhead.try_acquire().is_ok()));
    let semaphore = Semaphore::new(64);
    group.bench_function("tokio's semaphore", |b| b.iter(|| semaphore.try_acquire().is_ok()));
    let mut service = bulkhead.layer(service_fn(answer));
    group.bench_function("tower", |b| {
        b.iter(|| block_on(async { service.ready().await?.call(7).await }));
    });
    group.finish();
}

fn full(c: &mut Criterion) {
    let bulkhead = bulkhead(1);
    bulkhead.set_max_queued(0).expect("no queue is a queue of 0");
    let _permit = bulkhead.try_acquire();
    let mut group = c.benchmark_group("bulkhead, full");
    group.bench_function("rejected", |b| b.iter(|| block_on(bulkhead.call(answer(7))).is_err()));
    group.finish();
}

/// Two callers in turns: each time one waits in the queue, and is handed the permit of the other.
fn handed_on(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    let bulkhead = bulkhead(1);
    let call = || {
        bulkhead.call(async {
            tokio::task::yield_now().await;
            Ok::<_, Rejected>(1)
        })
    };
    let mut group = c.benchmark_group("bulkhead, handed on");
    group.bench_function("two calls", |b| b.iter(|| runtime.block_on(join(call(), call()))));
    group.finish();
}

fn shared(c: &mut Criterion) {
    let bulkhead = bulkhead(64);
    let mut group = c.benchmark_group("bulkhead, two threads");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(block_on(bulkhead.call(answer(7))).is_ok());
            }
        });
        group.bench_function("plain", |b| b.iter(|| block_on(bulkhead.call(answer(7)))));
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group!(name = benches; config = short(); targets = free, full, handed_on, shared);
criterion_main!(benches);
