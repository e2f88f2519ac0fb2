//! The bulkhead: what it does in both faces, what it holds, and what it never keeps.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "modules of one test program"
)]

mod campaign;
mod cancellation;
mod config;
mod contract;
mod events;
mod extremes;
mod scenarios;
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/telemetry.rs"]
mod telemetry;

use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use steadfast::bulkhead::{Bulkhead, BulkheadBuilder};
use steadfast::{Rejected, RejectedKind};
use support::{Backend, Failure, MS, Probe};
use tower::{Layer, ServiceExt};

const WAIT: Duration = Duration::from_millis(50);

fn w(weight: u32) -> NonZeroU32 {
    NonZeroU32::new(weight).unwrap()
}

/// A bulkhead of so many permits and so many places, where a call may wait for 50 ms.
fn lanes(max_concurrent: u32, max_queued: u32) -> Bulkhead {
    builder(max_concurrent, max_queued).build().unwrap()
}

fn builder(max_concurrent: u32, max_queued: u32) -> BulkheadBuilder {
    let builder = Bulkhead::builder("lanes").max_concurrent(max_concurrent);
    match max_queued {
        0 => builder,
        _ => builder.max_queued(max_queued).max_wait(WAIT),
    }
}

/// In flight, queued, available.
fn gauges(bulkhead: &Bulkhead) -> (u32, u32, u32) {
    let snapshot = bulkhead.snapshot();
    let gauges = (bulkhead.in_flight(), bulkhead.queued(), bulkhead.available());
    assert_eq!(gauges, (snapshot.in_flight, snapshot.queued, snapshot.available));
    gauges
}

type Call = Pin<Box<dyn Future<Output = Result<u32, Failure>> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Face {
    Plain,
    Tower,
    Permit,
}

const FACES: [Face; 3] = [Face::Plain, Face::Tower, Face::Permit];

impl Face {
    /// A call that does nothing before its first poll.
    fn call(self, bulkhead: &Bulkhead, weight: NonZeroU32, backend: &Backend) -> Call {
        let (bulkhead, backend) = (bulkhead.clone(), backend.clone());
        match self {
            Self::Plain => Box::pin(async move {
                // The operation is made when it is polled, so that the backend counts what was admitted.
                bulkhead
                    .call_weighted(weight, async move { backend.call().await })
                    .await
            }),
            Self::Tower => {
                let probe: Probe = backend.service();
                let layer = bulkhead.weighted(move |()| weight);
                Box::pin(layer.layer(probe).oneshot(()))
            }
            Self::Permit => Box::pin(async move {
                let permit = bulkhead.acquire_weighted(weight).await?;
                let result = backend.call().await;
                drop(permit);
                result
            }),
        }
    }
}

#[track_caller]
fn rejected(result: Result<u32, Failure>, kind: RejectedKind) {
    let error = result.unwrap_err();
    let rejected = Rejected::find(&error).unwrap();
    assert_eq!(rejected.kind(), kind);
    assert_eq!(rejected.policy(), "lanes");
    assert!(!rejected.reached_inner());
}

/// Long enough for everything that is woken to be polled.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// A millisecond, `n` times.
fn ms(n: u32) -> Duration {
    n * MS
}
