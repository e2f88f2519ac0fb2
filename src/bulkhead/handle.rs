//! What can be asked of a bulkhead and changed in it while calls run, all of it synchronous.

use std::time::Duration;

use super::config::{Limits, check_max_wait, needs_max_wait};
use super::policy::{Bulkhead, wake};
use super::semaphore::Gauges;
use crate::ConfigError;

/// A bulkhead at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls may run at once.
    pub max_concurrent: u32,
    /// How many run; each counts as often as it weighs.
    pub in_flight: u32,
    /// How many more could run.
    pub available: u32,
    /// How many calls may wait.
    pub max_queued: u32,
    /// How many wait; each counts once.
    pub queued: u32,
    /// How long a call may wait.
    pub max_wait: Option<Duration>,
}

impl Bulkhead {
    /// The name of the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// How many calls may run at once.
    #[must_use]
    pub fn max_concurrent(&self) -> u32 {
        self.gauges().limit
    }

    /// How many calls run; each counts as often as it weighs.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.gauges().in_flight
    }

    /// How many calls wait; each counts once.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.gauges().queued
    }

    /// How many more calls could run; 0 while more run than a lowered limit allows.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.snapshot().available
    }

    /// Everything at one moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let gauges = self.gauges();
        Snapshot {
            max_concurrent: gauges.limit,
            in_flight: gauges.in_flight,
            available: gauges.limit.saturating_sub(gauges.in_flight),
            max_queued: gauges.max_queued,
            queued: gauges.queued,
            max_wait: gauges.max_wait,
        }
    }

    /// Changes how many calls may run at once, for every clone and layer; 0 pauses.
    ///
    /// No call is interrupted. Under a lower limit none is admitted until fewer run; calls that wait and weigh more are
    /// refused. A higher limit admits who waits at once. While it pauses, calls wait as far as queue and `max_wait`
    /// allow.
    pub fn set_max_concurrent(&self, max_concurrent: u32) {
        wake(self.shared.semaphore.set_limit(max_concurrent));
        self.emit_limit_changed(max_concurrent);
    }

    /// Changes how many calls may wait. Those that wait already stay.
    ///
    /// # Errors
    ///
    /// More than 0 where no `max_wait` was ever set.
    pub fn set_max_queued(&self, max_queued: u32) -> Result<(), ConfigError> {
        if !self.shared.semaphore.set_max_queued(max_queued) {
            return Err(needs_max_wait(&self.shared.name, max_queued));
        }
        Ok(())
    }

    /// Changes how long those calls may wait that come from now on.
    ///
    /// # Errors
    ///
    /// No time at all.
    pub fn set_max_wait(&self, max_wait: Duration) -> Result<(), ConfigError> {
        check_max_wait(&self.shared.name, max_wait)?;
        self.shared.semaphore.set_max_wait(max_wait);
        Ok(())
    }

    /// Whether the limits are others than those of its kind.
    pub(crate) fn is_changed(&self) -> bool {
        let gauges = self.gauges();
        let limits = Limits {
            max_concurrent: gauges.limit,
            max_queued: gauges.max_queued,
            max_wait: gauges.max_wait,
        };
        limits != self.shared.usual.limits()
    }

    /// Takes the limit of its kind, which was changed for all.
    ///
    /// Looked at again: two threads that change it for all at once may come here in any order, and the last to set the limit
    /// sees what the other wanted.
    pub(crate) fn take_usual_limit(&self) {
        loop {
            let max_concurrent = self.shared.usual.limits().max_concurrent;
            wake(self.shared.semaphore.set_limit(max_concurrent));
            if self.shared.usual.limits().max_concurrent == max_concurrent {
                break;
            }
        }
    }

    fn gauges(&self) -> Gauges {
        self.shared.semaphore.gauges()
    }
}
