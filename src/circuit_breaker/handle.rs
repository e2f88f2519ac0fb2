//! The handle: what a breaker can be asked and told, without awaiting anything.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::machine::Forced;
use super::outside::{Outside, Report};
use super::policy::{Breaker, CircuitBreaker};
use super::saved::CircuitBreakerExport;
use super::state::State;
use super::watch::StateChanges;
use crate::ConfigError;

/// How a circuit breaker stands; made by [`CircuitBreaker::snapshot`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it does with calls.
    pub state: State,
    /// How long it has been doing so.
    pub time_in_state: Duration,
    /// Calls in the window; while half-open the probes that are decided, while open what the state before had counted.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
    /// How many of them were slow.
    pub slow_calls: u32,
    /// Failures since the last success, where a rule asks for them.
    pub consecutive_failures: u32,
    /// The share of failed calls; `None` while a closed breaker has fewer than the minimum of calls.
    pub failure_rate: Option<f64>,
    /// The share of slow calls; `None` while a closed breaker has fewer than the minimum of calls.
    pub slow_call_rate: Option<f64>,
    /// How long until a probe is admitted, for an open breaker.
    pub retry_after: Option<Duration>,
    /// How many times in a row it has opened without closing.
    pub openings: u32,
    /// Probes under way.
    pub probes_in_flight: u32,
    /// Results that came after the state they belonged to was over, and changed nothing.
    pub stale_results: u64,
}

impl<C> CircuitBreaker<C> {
    /// What the breaker does with calls.
    ///
    /// No task moves it: it stays `Open` after its open time is over, until a call comes, which is then the first probe.
    #[must_use]
    pub fn state(&self) -> State {
        self.breaker().cell.state()
    }

    /// How the breaker stands.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let breaker = self.breaker();
        let Report {
            state,
            since,
            counts,
            failures_in_a_row,
            openings,
            probes_in_flight,
            retry_after,
            stale,
            minimum,
        } = breaker.cell.report(breaker);
        let counts_for_rates = match state {
            State::Closed | State::ForcedClosed => minimum,
            _ => 1,
        };
        let rate = |part| (counts.calls >= counts_for_rates).then(|| counts.rate(part));
        Snapshot {
            state,
            time_in_state: Duration::from_nanos(breaker.now().saturating_sub(since)),
            calls: counts.calls,
            failures: counts.failed,
            slow_calls: counts.slow,
            consecutive_failures: failures_in_a_row,
            failure_rate: rate(counts.failed),
            slow_call_rate: rate(counts.slow),
            retry_after: retry_after.map(Duration::from_nanos),
            openings,
            probes_in_flight,
            stale_results: stale,
        }
    }

    /// Rejects every call until [`reset`](Self::reset). Does nothing while [disabled](Self::disable).
    pub fn force_open(&self) {
        self.force(Forced::Open);
    }

    /// Admits and counts every call, and opens for nothing, until [`reset`](Self::reset). Does nothing while
    /// [disabled](Self::disable).
    pub fn force_closed(&self) {
        self.force(Forced::Closed);
    }

    /// Admits every call and counts nothing, until [`reset`](Self::reset).
    pub fn disable(&self) {
        self.force(Forced::Disabled);
    }

    fn force(&self, forced: Forced) {
        let breaker = self.breaker();
        breaker.cell.force(forced, breaker);
    }

    /// Back to closed: nothing counted, nothing forced, not disabled. Isolations stay until they are released.
    pub fn reset(&self) {
        let breaker = self.breaker();
        breaker.cell.reset(breaker);
    }

    /// Rejects every call for as long as the guard is held; several may hold one.
    ///
    /// The release of the last one uncovers what lay below, with nothing counted: closed, forced, disabled, or open, whose
    /// time has gone on.
    #[must_use = "dropping the guard ends the isolation"]
    pub fn isolate(&self) -> Isolation {
        let breaker = Arc::clone(&self.view.breaker);
        breaker.cell.isolate(&*breaker);
        Isolation { breaker }
    }

    /// Whether the breaker only says what it would reject.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.breaker().is_shadow()
    }

    /// Begins or ends shadow mode: the breaker counts and decides as ever, and rejects nothing.
    pub fn set_shadow(&self, shadow: bool) {
        self.breaker().shadow.store(shadow, Ordering::Relaxed);
    }

    /// The states that follow the one of now.
    #[must_use]
    pub fn subscribe(&self) -> StateChanges {
        self.breaker().watch.subscribe(|| self.breaker().cell.settled())
    }

    /// What is worth keeping over a restart: the state, what was forced, and what the window holds.
    ///
    /// Isolations are not kept: who holds one holds it in this process.
    #[must_use]
    pub fn export(&self) -> CircuitBreakerExport {
        let breaker = self.breaker();
        CircuitBreakerExport::new(breaker.cell.export(breaker))
    }

    /// Goes on where another breaker was: an open one has as much of its open time left, up to the longest that this
    /// breaker allows, and the same place in its backoff. A half-open one begins its probes anew.
    ///
    /// # Errors
    ///
    /// An export of calls over time is not restored to a window of a number of calls, nor the other way; and an export
    /// that was changed by hand has to make sense. Nothing has changed then.
    pub fn restore(&self, export: &CircuitBreakerExport) -> Result<(), ConfigError> {
        let breaker = self.breaker();
        let mut kept = export.check(&breaker.name)?;
        kept.open_for_at_most(breaker.opening.longest());
        if breaker.cell.restore(&kept, breaker) {
            return Ok(());
        }
        let allowed = "of the same kind of window as the breaker has: of a number of calls, or of time";
        Err(ConfigError::new(&breaker.name, "restore", export.kind(), allowed))
    }
}

/// Holds a circuit breaker isolated until it is dropped; made by [`CircuitBreaker::isolate`].
pub struct Isolation {
    breaker: Arc<Breaker>,
}

impl Isolation {
    /// Ends this isolation, as dropping it does.
    pub fn release(self) {}
}

impl Drop for Isolation {
    fn drop(&mut self) {
        self.breaker.cell.release(&*self.breaker);
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation")
            .field("circuit_breaker", &self.breaker.name)
            .finish_non_exhaustive()
    }
}
