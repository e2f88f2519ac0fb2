//! The HTTP preset and the server's face, with real clients and servers on loopback.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "modules of one test program")]

mod bodies;
mod breakers;
mod clients;
mod grpc;
mod keyed;
mod reqwest_errors;
#[path = "../support/server.rs"]
mod server;
mod servers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast::Backoff;
use steadfast::http::{self, ByStatus, HttpReplay};
use steadfast::retry::{Event, Retry, RetryBuilder, StopReason};

/// The preset, with waits that tests can afford.
fn retry() -> RetryBuilder<ByStatus, HttpReplay> {
    http::retry().backoff(Backoff::constant(Duration::from_millis(1)))
}

/// How the calls under a policy ended: their attempts, and why there was no other.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<(u32, StopReason)>>>);

impl Ends {
    fn of<C, R>(builder: RetryBuilder<C, R>) -> (Retry<C, R>, Self) {
        let ends = Self::default();
        let listening = ends.clone();
        let retry = builder.on_event(move |event| {
            if let Event::Finished { report, .. } = event {
                let mut ends = listening.0.lock().unwrap_or_else(PoisonError::into_inner);
                ends.push((report.attempts, report.stop));
            }
        });
        (retry.build().unwrap(), ends)
    }

    /// The end of the only call.
    fn only(&self) -> (u32, StopReason) {
        let ends = self.0.lock().unwrap();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0]
    }
}
