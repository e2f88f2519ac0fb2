//! What a timeout tells about itself.

use std::time::Duration;

use super::policy::Timeout;
use crate::event::tell;

/// The end of a call under a timeout.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The time was up first.
    #[non_exhaustive]
    TimedOut {
        /// The name of the policy.
        policy: &'a str,
        /// How long the call was given.
        limit: Duration,
        /// Whether the call had been sent: not, if the inner service never became ready.
        reached_inner: bool,
    },
    /// There was a result in time.
    #[non_exhaustive]
    Completed {
        /// The name of the policy.
        policy: &'a str,
        /// Time from the first `Pending`; 0 for a call that was ready at once.
        elapsed: Duration,
    },
    /// The caller dropped the call, or it panicked.
    #[non_exhaustive]
    Cancelled {
        /// The name of the policy.
        policy: &'a str,
        /// Time from the first `Pending`; 0 before it.
        elapsed: Duration,
    },
}

#[cfg(feature = "metrics")]
pub(crate) const OUTCOMES: usize = 3;

impl Timeout {
    #[cold]
    pub(crate) fn emit_timed_out(&self, limit: Duration, reached_inner: bool) {
        let name = self.full_name();
        let policy = name.as_str();
        tracing::info!(target: "steadfast::timeout", policy, ?limit, reached_inner, "timed out");
        #[cfg(feature = "metrics")]
        self.meters.count("steadfast.timeout.calls", &name, 0, "timed_out");
        if let Some(listener) = self.listener() {
            let event = Event::TimedOut {
                policy,
                limit,
                reached_inner,
            };
            tell(|| listener(&event));
        }
    }

    #[cold]
    pub(crate) fn emit_completed(&self, elapsed: Duration) {
        let name = self.full_name();
        let policy = name.as_str();
        tracing::trace!(target: "steadfast::timeout", policy, ?elapsed, "completed");
        #[cfg(feature = "metrics")]
        self.meters.count("steadfast.timeout.calls", &name, 1, "completed");
        if let Some(listener) = self.listener() {
            let event = Event::Completed { policy, elapsed };
            tell(|| listener(&event));
        }
    }

    #[cold]
    pub(crate) fn emit_cancelled(&self, elapsed: Duration) {
        let name = self.full_name();
        let policy = name.as_str();
        tracing::debug!(target: "steadfast::timeout", policy, ?elapsed, "cancelled");
        #[cfg(feature = "metrics")]
        self.meters.count("steadfast.timeout.calls", &name, 2, "cancelled");
        if let Some(listener) = self.listener() {
            let event = Event::Cancelled { policy, elapsed };
            tell(|| listener(&event));
        }
    }
}
