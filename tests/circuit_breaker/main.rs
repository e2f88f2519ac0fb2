//! The circuit breaker from outside: as a plain call, as a Tower layer, by its handle.
#![allow(unreachable_pub, reason = "modules of one test program")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    reason = "what a test does when it fails"
)]

mod cancellation;
mod cases;
mod config;
mod contract;
mod events;
mod export;
mod extremes;
mod handle;
mod random;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/telemetry.rs"]
mod telemetry;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder, Event, State};
use steadfast::{Erased, Rejected, RejectedKind, Verdict};
use support::{Backend, Failure, Log, Step, down, fail, hang, judge, ok, panics};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const ZERO: Duration = Duration::ZERO;

/// A result that says nothing about the dependency.
const IGNORED: u32 = 499;

/// A breaker under the type that a struct would hold it.
type Breaker = CircuitBreaker<Erased<u32, Failure>>;

type Call = Pin<Box<dyn Future<Output = Result<u32, Failure>> + Send>>;

/// How a breaker is used.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Face {
    Plain,
    Tower,
}

const FACES: [Face; 2] = [Face::Plain, Face::Tower];

fn verdict(result: Result<&u32, &Failure>) -> Verdict {
    match result {
        Ok(&IGNORED) => Verdict::Ignored,
        other => judge(other),
    }
}

/// A breaker, a dependency, and what the breaker told.
#[derive(Clone)]
struct Rig {
    face: Face,
    breaker: Breaker,
    sent: Log<Backend>,
    /// Changes of state, as `closed > open 3/5 slow 0`.
    changes: Log<String>,
    /// One for each call that ended, and each that was rejected.
    ends: Log<String>,
}

impl Rig {
    fn new(face: Face, builder: CircuitBreakerBuilder) -> Self {
        let (changes, ends) = (Log::default(), Log::default());
        let (to_changes, to_ends) = (changes.clone(), ends.clone());
        let builder = builder.classify(verdict).on_event(move |event| match event {
            Event::StateChanged {
                from,
                to,
                calls,
                failures,
                slow_calls,
                ..
            } => to_changes.push(format!(
                "{} > {} {failures}/{calls} slow {slow_calls}",
                from.as_str(),
                to.as_str()
            )),
            Event::Rejected { .. } => to_ends.push("rejected".to_owned()),
            Event::Finished { end, .. } => to_ends.push(end.as_str().to_owned()),
            other => panic!("an event that no test knows: {other:?}"),
        });
        Self {
            face,
            breaker: builder.build().unwrap().erased(),
            sent: Log::default(),
            changes,
            ends,
        }
    }

    /// A call of a dependency that does as `step` says.
    fn call(&self, step: Step) -> Call {
        let backend = Backend::new([step]);
        self.sent.push(backend.clone());
        call(self.face, &self.breaker, &backend)
    }

    /// A call that is under way and has no end.
    fn hanging(&self) -> Call {
        self.begun(hang())
    }

    /// A call that was polled once, and is pending.
    fn begun(&self, step: Step) -> Call {
        let mut call = self.call(step);
        assert!(poll(&mut call).is_pending());
        call
    }

    /// Calls that the dependency has seen.
    fn sent(&self) -> u32 {
        self.sent.all().iter().map(Backend::started).sum()
    }

    /// One call after the other, and what each came to: `S`uccess, `F`ailure, `I`gnored, small letters for those that
    /// take five seconds, and `x` for one that was rejected.
    async fn run(&self, letters: &str) -> String {
        let mut seen = String::new();
        for letter in letters.chars() {
            let step = match letter.to_ascii_uppercase() {
                'S' => ok(200),
                'F' => down(),
                'I' => ok(IGNORED),
                other => panic!("{other}"),
            };
            let delay = if letter.is_lowercase() { 5 * SECOND } else { ZERO };
            seen.push(match self.call(step.after(delay)).await {
                Ok(200) => 'S',
                Ok(IGNORED) => 'I',
                Err(Failure::Down) => 'F',
                Err(Failure::Rejected(rejected)) if rejected.kind() == RejectedKind::CircuitOpen => 'x',
                other => panic!("{other:?}"),
            });
        }
        seen
    }

    /// A call that has to be rejected, and what it is told to wait.
    async fn rejection(&self) -> Option<Duration> {
        let before = self.sent();
        let error = self.call(ok(200)).await.unwrap_err();
        assert_eq!(self.sent(), before, "a rejected call was sent");
        let rejected = Rejected::find(&error).unwrap();
        assert_eq!(rejected.kind(), RejectedKind::CircuitOpen);
        assert!(!rejected.reached_inner());
        rejected.retry_after()
    }

    fn state(&self) -> State {
        self.breaker.state()
    }

    /// Calls and failures in the window.
    fn counts(&self) -> (u32, u32) {
        let snapshot = self.breaker.snapshot();
        (snapshot.calls, snapshot.failures)
    }

    fn in_flight(&self) -> u32 {
        self.breaker.snapshot().probes_in_flight
    }
}

/// A call of `backend` through `breaker`, which begins at its first poll.
fn call(face: Face, breaker: &Breaker, backend: &Backend) -> Call {
    let (breaker, backend) = (breaker.clone(), backend.clone());
    match face {
        Face::Plain => Box::pin(async move { breaker.call(async { backend.call().await }).await }),
        Face::Tower => Box::pin(breaker.layer(backend.service()).oneshot(())),
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    support::poll_once(Pin::new(future))
}

fn readiness<S: Service<Req>, Req>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

/// Failure rate and slow rate of 50 % over 20 s, at least 5 calls; open for 5 s, then 4 samples of at most 1 s.
fn by_time() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("payments")
        .failure_rate(0.5)
        .slow_call_rate(0.5)
        .slow_call_duration(4 * SECOND)
        .time_window(20 * SECOND)
        .minimum_calls(5)
        .open_time(5 * SECOND)
        .samples(4)
        .success_rate(0.75)
        .max_probe_time(SECOND)
}

/// Opens at the first failure, for a second, and closes at the first success.
fn brittle() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("payments")
        .consecutive_failures(1)
        .open_time(SECOND)
        .samples(1)
        .success_rate(1.0)
}

/// Rates over the last `calls`, known from the first one on.
fn by_count(calls: u32) -> CircuitBreakerBuilder {
    CircuitBreaker::builder("payments").count_window(calls).minimum_calls(1)
}

/// A rig whose breaker has opened and whose open time is over: the next call is a probe.
async fn expired(face: Face, builder: CircuitBreakerBuilder) -> Rig {
    let rig = Rig::new(face, builder);
    while !rig.state().is_open() {
        rig.run("F").await;
    }
    advance(rig.breaker.snapshot().retry_after.unwrap()).await;
    rig.ends.take();
    rig.changes.take();
    rig
}
