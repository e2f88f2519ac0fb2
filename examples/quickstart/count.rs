//! Listeners that count what the policies did. Each policy hands its events to one of them.

use std::sync::atomic::{AtomicU32, Ordering};

use steadfast::circuit_breaker::State;
use steadfast::{bulkhead, circuit_breaker, fallback, retry, timeout};

static RETRIES: AtomicU32 = AtomicU32::new(0);
static WAITED_AS_ASKED: AtomicU32 = AtomicU32::new(0);
static OPENINGS: AtomicU32 = AtomicU32::new(0);
static CIRCUIT_OPEN: AtomicU32 = AtomicU32::new(0);
static QUEUED: AtomicU32 = AtomicU32::new(0);
static NO_PERMIT: AtomicU32 = AtomicU32::new(0);
static ATTEMPTS_TIMED_OUT: AtomicU32 = AtomicU32::new(0);
static CALLS_TIMED_OUT: AtomicU32 = AtomicU32::new(0);
static FALLBACKS: AtomicU32 = AtomicU32::new(0);

/// What the policies did.
pub(crate) struct Counts {
    pub(crate) retries: u32,
    /// Retries that waited for as long as the server's `Retry-After` said.
    pub(crate) waited_as_asked: u32,
    /// How many times the breaker opened.
    pub(crate) openings: u32,
    /// Attempts that it rejected.
    pub(crate) circuit_open: u32,
    /// Attempts that had to wait for a permit of the bulkhead.
    pub(crate) queued: u32,
    /// Attempts that it rejected.
    pub(crate) no_permit: u32,
    pub(crate) attempts_timed_out: u32,
    pub(crate) calls_timed_out: u32,
    pub(crate) fallbacks: u32,
}

/// What the policies did since this was asked last.
pub(crate) fn take() -> Counts {
    Counts {
        retries: RETRIES.swap(0, Ordering::Relaxed),
        waited_as_asked: WAITED_AS_ASKED.swap(0, Ordering::Relaxed),
        openings: OPENINGS.swap(0, Ordering::Relaxed),
        circuit_open: CIRCUIT_OPEN.swap(0, Ordering::Relaxed),
        queued: QUEUED.swap(0, Ordering::Relaxed),
        no_permit: NO_PERMIT.swap(0, Ordering::Relaxed),
        attempts_timed_out: ATTEMPTS_TIMED_OUT.swap(0, Ordering::Relaxed),
        calls_timed_out: CALLS_TIMED_OUT.swap(0, Ordering::Relaxed),
        fallbacks: FALLBACKS.swap(0, Ordering::Relaxed),
    }
}

fn add_one(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn retry(event: &retry::Event<'_>) {
    if let retry::Event::Retrying { verdict, .. } = event {
        add_one(&RETRIES);
        if verdict.retry_after().is_some() {
            add_one(&WAITED_AS_ASKED);
        }
    }
}

pub(crate) fn circuit_breaker(event: &circuit_breaker::Event<'_>) {
    match event {
        circuit_breaker::Event::StateChanged { to: State::Open, .. } => add_one(&OPENINGS),
        circuit_breaker::Event::Rejected { .. } => add_one(&CIRCUIT_OPEN),
        _ => {}
    }
}

pub(crate) fn bulkhead(event: &bulkhead::Event<'_>) {
    match event {
        bulkhead::Event::Queued { .. } => add_one(&QUEUED),
        bulkhead::Event::Full { .. } | bulkhead::Event::QueueTimedOut { .. } => add_one(&NO_PERMIT),
        _ => {}
    }
}

pub(crate) fn attempt_timeout(event: &timeout::Event<'_>) {
    if let timeout::Event::TimedOut { .. } = event {
        add_one(&ATTEMPTS_TIMED_OUT);
    }
}

pub(crate) fn total_timeout(event: &timeout::Event<'_>) {
    if let timeout::Event::TimedOut { .. } = event {
        add_one(&CALLS_TIMED_OUT);
    }
}

pub(crate) fn fallback(event: &fallback::Event<'_>) {
    if let fallback::Event::Recovering { .. } = event {
        add_one(&FALLBACKS);
    }
}
