//! What a circuit breaker tells about itself.

use std::error::Error;
use std::time::Duration;

use super::control::Refusal;
use super::outside::Transition;
use super::policy::Breaker;
use super::state::State;
use crate::Verdict;
use crate::event::tell;

/// Something happened at a circuit breaker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The state has changed.
    #[non_exhaustive]
    StateChanged {
        /// The name of the breaker.
        policy: &'a str,
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// Grows with every change: of two changes that are told at the same moment, the later has the larger.
        generation: u64,
        /// Calls that the old state had counted: those in the window, or the probes of a half-open one. One that counts
        /// nothing passes on what the state before it had counted.
        calls: u32,
        /// How many of them had failed.
        failures: u32,
        /// How many of them were slow.
        slow_calls: u32,
        /// How many times in a row the breaker has opened without closing.
        openings: u32,
        /// How long it stays open, where it is open now.
        open_for: Option<Duration>,
    },
    /// A call was rejected, or would have been in shadow mode.
    #[non_exhaustive]
    Rejected {
        /// The name of the breaker.
        policy: &'a str,
        /// The state that rejects.
        state: State,
        /// How long until a probe is admitted, where that is known.
        retry_after: Option<Duration>,
        /// Whether the call was admitted all the same, uncounted.
        shadow: bool,
    },
    /// An admitted call has ended.
    #[non_exhaustive]
    Finished {
        /// The name of the breaker.
        policy: &'a str,
        /// How it ended.
        end: End,
        /// What its result was judged to be, if it had one.
        verdict: Option<Verdict>,
        /// Whether it took longer than a call should, where a rule asks.
        slow: bool,
        /// Whether it changed what the breaker knows: not, if it says nothing or came too late.
        counted: bool,
        /// Its error, where it failed with a standard one.
        error: Option<&'a (dyn Error + 'static)>,
    },
    /// A keyed set had no room for a key: its calls share one breaker with other such keys. Told when it happens, and
    /// while it goes on once a minute.
    #[non_exhaustive]
    KeysOverflowed {
        /// The name of the set.
        policy: &'a str,
        /// How many keys the set keeps.
        max_keys: usize,
        /// Lookups that found no room since this was last told.
        lookups: u64,
    },
}

/// How an admitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// With a result that was judged a success.
    Success,
    /// With a result that was judged a failure.
    Failure,
    /// With a result that says nothing about the dependency.
    Ignored,
    /// It was dropped before it had a result.
    Abandoned,
    /// It panicked.
    Panicked,
}

impl End {
    /// The end as a label: `success`, `failure`, `ignored`, `abandoned` or `panicked`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
            Self::Abandoned => "abandoned",
            Self::Panicked => "panicked",
        }
    }

    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Ignored => Self::Ignored,
            Verdict::Transient { .. } | Verdict::Overloaded { .. } | Verdict::Permanent => Self::Failure,
        }
    }
}

#[cfg(feature = "metrics")]
pub(crate) const OUTCOMES: usize = 7;
#[cfg(feature = "metrics")]
const REJECTED: usize = 5;
#[cfg(feature = "metrics")]
const WOULD_REJECT: usize = 6;

/// A refusal, and what became of it.
#[derive(Clone, Copy)]
pub(crate) struct Rejection {
    pub(crate) refusal: Refusal,
    pub(crate) shadow: bool,
}

/// The end of a call.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) end: End,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) slow: bool,
    pub(crate) counted: bool,
    pub(crate) error: Option<&'a (dyn Error + 'static)>,
}

/// One that is evicted while it is open is not counted any more.
#[cfg(feature = "metrics")]
impl Drop for Breaker {
    fn drop(&mut self) {
        if self.kind.keyed {
            self.count_open(self.cell.state().is_open(), false);
        }
    }
}

impl Breaker {
    #[cold]
    pub(crate) fn emit_transition(&self, transition: &Transition) {
        let policy = self.name.as_str();
        let &Transition {
            from,
            to,
            generation,
            counts,
            openings,
            open_for,
        } = transition;
        let open_for = open_for.map(Duration::from_nanos);
        if to.is_open() {
            tracing::warn!(
                target: "steadfast::circuit_breaker",
                policy,
                from = from.as_str(),
                to = to.as_str(),
                calls = counts.calls,
                failures = counts.failed,
                slow_calls = counts.slow,
                openings,
                open_for = ?open_for,
                "rejects calls"
            );
        } else {
            tracing::info!(
                target: "steadfast::circuit_breaker",
                policy,
                from = from.as_str(),
                to = to.as_str(),
                calls = counts.calls,
                failures = counts.failed,
                slow_calls = counts.slow,
                "admits calls"
            );
        }
        #[cfg(feature = "metrics")]
        {
            let label = || crate::event::label(&self.name);
            metrics::counter!("steadfast.circuit_breaker.transitions", "policy" => label(), "to" => to.as_str())
                .increment(1);
            if self.kind.keyed {
                self.count_open(from.is_open(), to.is_open());
            } else {
                self.set_open();
            }
        }
        if let Some(listener) = &self.kind.listener {
            let event = Event::StateChanged {
                policy,
                from,
                to,
                generation,
                calls: counts.calls,
                failures: counts.failed,
                slow_calls: counts.slow,
                openings,
                open_for,
            };
            tell(|| listener(&event));
        }
    }

    #[cfg(feature = "metrics")]
    fn open_gauge(&self) -> metrics::Gauge {
        metrics::gauge!("steadfast.circuit_breaker.open", "policy" => crate::event::label(&self.name))
    }

    /// As it is, not as it was, and looked at again: of two threads that come here at once, the last to set the gauge sees
    /// what the other has done.
    #[cfg(feature = "metrics")]
    fn set_open(&self) {
        loop {
            let open = self.cell.state().is_open();
            self.open_gauge().set(if open { 1.0 } else { 0.0 });
            if self.cell.state().is_open() == open {
                break;
            }
        }
    }

    /// Breakers of one name are counted: every change is told once.
    #[cfg(feature = "metrics")]
    fn count_open(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.open_gauge().increment(1.0),
            (true, false) => self.open_gauge().decrement(1.0),
            _ => {}
        }
    }

    #[cold]
    pub(crate) fn emit_rejected(&self, Rejection { refusal, shadow }: Rejection) {
        let policy = self.name.as_str();
        let state = refusal.state;
        let retry_after = refusal.retry_after.map(Duration::from_nanos);
        tracing::debug!(
            target: "steadfast::circuit_breaker",
            policy, state = state.as_str(), ?retry_after, shadow, "rejected"
        );
        #[cfg(feature = "metrics")]
        {
            let (index, outcome) = if shadow {
                (WOULD_REJECT, "would_reject")
            } else {
                (REJECTED, "rejected")
            };
            self.kind
                .meters
                .count("steadfast.circuit_breaker.calls", &self.name, index, outcome);
        }
        if let Some(listener) = &self.kind.listener {
            let event = Event::Rejected {
                policy,
                state,
                retry_after,
                shadow,
            };
            tell(|| listener(&event));
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn emit_finished(&self, finish: Finish<'_>) {
        let policy = self.name.as_str();
        let Finish {
            end,
            verdict,
            slow,
            counted,
            error,
        } = finish;
        let label = verdict.map(Verdict::as_str);
        if end == End::Success && !slow {
            tracing::trace!(target: "steadfast::circuit_breaker", policy, end = end.as_str(), counted, "finished");
        } else {
            tracing::debug!(
                target: "steadfast::circuit_breaker",
                policy, end = end.as_str(), verdict = label, slow, counted, error, "finished"
            );
        }
        #[cfg(feature = "metrics")]
        {
            #[allow(clippy::as_conversions, reason = "the discriminant of a field-less enum")]
            let index = end as usize;
            self.kind
                .meters
                .count("steadfast.circuit_breaker.calls", &self.name, index, end.as_str());
        }
        if let Some(listener) = &self.kind.listener {
            let event = Event::Finished {
                policy,
                end,
                verdict,
                slow,
                counted,
                error,
            };
            tell(|| listener(&event));
        }
    }

    #[cold]
    pub(crate) fn emit_keys_overflowed(&self, max_keys: usize, lookups: u64) {
        let policy = self.name.as_str();
        tracing::warn!(target: "steadfast::circuit_breaker", policy, max_keys, lookups, "no room for new keys");
        if let Some(listener) = &self.kind.listener {
            let event = Event::KeysOverflowed {
                policy,
                max_keys,
                lookups,
            };
            tell(|| listener(&event));
        }
    }
}
