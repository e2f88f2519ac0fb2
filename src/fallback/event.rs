//! What a fallback tells about itself.

use std::error::Error;
use std::sync::Arc;

use crate::Verdict;
use crate::event::tell;
use crate::rejected::Name;

/// Something happened in a fallback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The call failed and the recovery begins.
    #[non_exhaustive]
    Recovering {
        /// The name of the policy.
        policy: &'a str,
        /// What the result was judged to be.
        verdict: Verdict,
        /// Its error, where it is a standard one.
        error: Option<&'a (dyn Error + 'static)>,
    },
    /// The call has ended.
    #[non_exhaustive]
    Finished {
        /// The name of the policy.
        policy: &'a str,
        /// How.
        outcome: Outcome,
    },
}

/// How a call under a fallback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// With its own result.
    NotNeeded,
    /// With the answer of the recovery.
    Recovered,
    /// With the error of the recovery.
    RecoveryFailed,
    /// The caller dropped it, or it panicked.
    Cancelled,
}

impl Outcome {
    #[cfg(feature = "metrics")]
    pub(crate) const COUNT: usize = 4;

    /// The outcome as a label, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotNeeded => "not_needed",
            Self::Recovered => "recovered",
            Self::RecoveryFailed => "recovery_failed",
            Self::Cancelled => "cancelled",
        }
    }
}

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Where the events of one policy go.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) name: Name,
    pub(crate) listener: Option<Listener>,
    #[cfg(feature = "metrics")]
    pub(crate) meters: Arc<crate::event::Meters<{ Outcome::COUNT }>>,
}

impl Telemetry {
    #[cold]
    pub(crate) fn emit_recovering(&self, verdict: Verdict, error: Option<&(dyn Error + 'static)>) {
        let policy = self.name.as_str();
        tracing::info!(target: "steadfast::fallback", policy, verdict = verdict.as_str(), error, "recovering");
        if let Some(listener) = &self.listener {
            let event = Event::Recovering { policy, verdict, error };
            tell(|| listener(&event));
        }
    }

    #[cold]
    pub(crate) fn emit_finished(&self, outcome: Outcome) {
        let policy = self.name.as_str();
        let label = outcome.as_str();
        match outcome {
            Outcome::NotNeeded => tracing::trace!(target: "steadfast::fallback", policy, outcome = label, "finished"),
            Outcome::RecoveryFailed => {
                tracing::warn!(target: "steadfast::fallback", policy, outcome = label, "finished");
            }
            _ => tracing::debug!(target: "steadfast::fallback", policy, outcome = label, "finished"),
        }
        #[cfg(feature = "metrics")]
        {
            #[allow(clippy::as_conversions, reason = "the discriminant of a field-less enum")]
            let index = outcome as usize;
            self.meters.count("steadfast.fallback.calls", &self.name, index, label);
        }
        if let Some(listener) = &self.listener {
            let event = Event::Finished { policy, outcome };
            tell(|| listener(&event));
        }
    }
}
