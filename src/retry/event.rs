//! What a retry tells about itself.

use std::error::Error;
use std::time::Duration;

use super::attempt::{Report, StopReason};
use super::policy::Policy;
use crate::Verdict;
use crate::event::tell;

/// Something happened in a retry.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt failed and another one follows after a wait.
    #[non_exhaustive]
    Retrying {
        /// The name of the policy.
        policy: &'a str,
        /// The number of the attempt that failed.
        attempt: u32,
        /// What it was judged to be.
        verdict: Verdict,
        /// How long the wait is.
        wait: Duration,
        /// Its error, where it is a standard one.
        error: Option<&'a (dyn Error + 'static)>,
    },
    /// The call has ended: with success, without, or because it was dropped.
    #[non_exhaustive]
    Finished {
        /// The name of the policy.
        policy: &'a str,
        /// What became of the call.
        report: Report,
        /// Its error, where it failed with a standard one.
        error: Option<&'a (dyn Error + 'static)>,
    },
}

impl Policy {
    #[cold]
    pub(crate) fn emit_retrying(
        &self,
        attempt: u32,
        verdict: Verdict,
        wait: Duration,
        error: Option<&(dyn Error + 'static)>,
    ) {
        let policy = self.name.as_str();
        tracing::debug!(
            target: "steadfast::retry",
            policy,
            attempt,
            verdict = verdict.as_str(),
            ?wait,
            error,
            "retrying"
        );
        #[cfg(feature = "metrics")]
        self.meters
            .record("steadfast.retry.wait_seconds", &self.name, wait.as_secs_f64());
        if let Some(listener) = &self.listener {
            let event = Event::Retrying {
                policy,
                attempt,
                verdict,
                wait,
                error,
            };
            tell(|| listener(&event));
        }
    }

    /// The end of a call whose first attempt could not be started.
    #[cold]
    pub(crate) fn emit_cancelled_at_start(&self) {
        let report = Report {
            attempts: 1,
            elapsed: Duration::ZERO,
            waited: Duration::ZERO,
            stop: StopReason::Cancelled,
        };
        self.emit_finished(report.attempts, report.stop, || report, None);
    }

    /// The end of a call. `report` is made only if somebody hears it.
    #[inline]
    pub(crate) fn emit_finished(
        &self,
        attempts: u32,
        stop: StopReason,
        report: impl Fn() -> Report,
        error: Option<&(dyn Error + 'static)>,
    ) {
        let policy = self.name.as_str();
        let stop_reason = stop.as_str();
        match stop {
            StopReason::Success if attempts == 1 => {
                tracing::trace!(target: "steadfast::retry", policy, attempts, stop_reason, "succeeded");
            }
            StopReason::Success | StopReason::NotRetryable | StopReason::Cancelled => {
                tracing::debug!(
                    target: "steadfast::retry",
                    policy, attempts, elapsed = ?report().elapsed, waited = ?report().waited, stop_reason, error, "ended"
                );
            }
            _ => tracing::warn!(
                target: "steadfast::retry",
                policy, attempts, elapsed = ?report().elapsed, waited = ?report().waited, stop_reason, error, "gave up"
            ),
        }
        #[cfg(feature = "metrics")]
        {
            #[allow(clippy::as_conversions, reason = "the discriminant of a field-less enum")]
            let index = stop as usize;
            self.meters
                .count("steadfast.retry.calls", &self.name, index, stop_reason);
        }
        if let Some(listener) = &self.listener {
            let report = report();
            let event = Event::Finished { policy, report, error };
            tell(|| listener(&event));
        }
    }
}
