//! What a bulkhead tells about itself.

use std::num::NonZeroU32;
use std::time::Duration;

use super::policy::Bulkhead;
use crate::event::tell;

/// Something happened in a bulkhead.
///
/// Every call that asked for a permit has one last event: all but `Queued`, `LimitChanged` and `KeysOverflowed` are
/// such.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A call waits for its permit.
    #[non_exhaustive]
    Queued {
        /// The name of the policy.
        policy: &'a str,
        /// How many calls it counts as.
        weight: NonZeroU32,
    },
    /// There was neither a permit nor room in the queue, or the limit is below the weight of the call.
    #[non_exhaustive]
    Full {
        /// The name of the policy.
        policy: &'a str,
        /// How many calls it counts as.
        weight: NonZeroU32,
    },
    /// A call has waited for as long as it may.
    #[non_exhaustive]
    QueueTimedOut {
        /// The name of the policy.
        policy: &'a str,
        /// How many calls it counts as.
        weight: NonZeroU32,
        /// How long it has waited.
        waited: Duration,
    },
    /// A call has ended, or a permit was given back.
    #[non_exhaustive]
    Completed {
        /// The name of the policy.
        policy: &'a str,
        /// How many calls it counts as.
        weight: NonZeroU32,
        /// How long it had waited for its permit.
        waited: Duration,
    },
    /// The caller dropped the call, or it panicked.
    #[non_exhaustive]
    Cancelled {
        /// The name of the policy.
        policy: &'a str,
        /// How many calls it counts as.
        weight: NonZeroU32,
        /// How long it had waited for its permit.
        waited: Duration,
        /// Whether it had been admitted.
        admitted: bool,
    },
    /// The limit was changed, of a bulkhead or of a whole keyed set. Calls go on.
    #[non_exhaustive]
    LimitChanged {
        /// The name of the policy.
        policy: &'a str,
        /// The limit from now on; 0 is a pause.
        max_concurrent: u32,
    },
    /// A keyed set had no room for a key: its calls share one bulkhead with other such keys. Told when it happens, and
    /// while it goes on once a minute.
    #[non_exhaustive]
    KeysOverflowed {
        /// The name of the policy.
        policy: &'a str,
        /// How many keys the set keeps.
        max_keys: usize,
        /// Lookups that found no room since this was last told.
        lookups: u64,
    },
}

impl Bulkhead {
    fn tell(&self, event: &Event<'_>) {
        if let Some(listener) = &self.shared.listener {
            tell(|| listener(event));
        }
    }

    #[cold]
    pub(crate) fn emit_queued(&self, weight: NonZeroU32) {
        let policy = self.name();
        tracing::debug!(target: "steadfast::bulkhead", policy, weight, "queued");
        #[cfg(feature = "metrics")]
        self.shared.meters.queued(&self.shared.name).increment(1.0);
        self.tell(&Event::Queued { policy, weight });
    }

    #[cold]
    pub(crate) fn emit_full(&self, weight: NonZeroU32) {
        let policy = self.name();
        tracing::info!(target: "steadfast::bulkhead", policy, weight, "full");
        #[cfg(feature = "metrics")]
        self.count(0, "full");
        self.tell(&Event::Full { policy, weight });
    }

    #[cold]
    pub(crate) fn emit_queue_timed_out(&self, weight: NonZeroU32, waited: Duration) {
        let policy = self.name();
        tracing::info!(target: "steadfast::bulkhead", policy, weight, ?waited, "queue timed out");
        #[cfg(feature = "metrics")]
        self.count(1, "queue_timed_out");
        self.tell(&Event::QueueTimedOut { policy, weight, waited });
    }

    #[cold]
    pub(crate) fn emit_completed(&self, weight: NonZeroU32, waited: Duration) {
        let policy = self.name();
        tracing::trace!(target: "steadfast::bulkhead", policy, weight, ?waited, "completed");
        #[cfg(feature = "metrics")]
        self.count(2, "completed");
        self.tell(&Event::Completed { policy, weight, waited });
    }

    #[cold]
    pub(crate) fn emit_cancelled(&self, weight: NonZeroU32, waited: Duration, admitted: bool) {
        let policy = self.name();
        tracing::debug!(target: "steadfast::bulkhead", policy, weight, ?waited, admitted, "cancelled");
        #[cfg(feature = "metrics")]
        self.count(3, "cancelled");
        self.tell(&Event::Cancelled {
            policy,
            weight,
            waited,
            admitted,
        });
    }

    pub(crate) fn emit_limit_changed(&self, max_concurrent: u32) {
        let policy = self.name();
        tracing::info!(target: "steadfast::bulkhead", policy, max_concurrent, "limit changed");
        self.tell(&Event::LimitChanged { policy, max_concurrent });
    }

    #[cold]
    pub(crate) fn emit_keys_overflowed(&self, max_keys: usize, lookups: u64) {
        let policy = self.name();
        tracing::warn!(target: "steadfast::bulkhead", policy, max_keys, lookups, "no room for new keys");
        self.tell(&Event::KeysOverflowed {
            policy,
            max_keys,
            lookups,
        });
    }
}

/// The gauges of `metrics` go up and down by what each call takes and gives back: what is set as a whole by two threads
/// may stay at what the slower one had read.
#[cfg(feature = "metrics")]
impl Bulkhead {
    fn count(&self, index: usize, outcome: &'static str) {
        let meters = &self.shared.meters.calls;
        meters.count("steadfast.bulkhead.calls", &self.shared.name, index, outcome);
    }

    pub(crate) fn count_admitted(&self, weight: NonZeroU32) {
        self.shared.meters.in_flight(&self.shared.name).increment(weight.get());
    }

    pub(crate) fn count_released(&self, weight: NonZeroU32) {
        self.shared.meters.in_flight(&self.shared.name).decrement(weight.get());
    }

    /// The end of a wait, whatever it came to.
    pub(crate) fn count_waited(&self, waited: Duration) {
        let Self { shared } = self;
        shared.meters.queued(&shared.name).decrement(1.0);
        let calls = &shared.meters.calls;
        calls.record("steadfast.bulkhead.wait_seconds", &shared.name, waited.as_secs_f64());
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "as with the feature `metrics`")]
impl Bulkhead {
    #[inline]
    pub(crate) fn count_admitted(&self, _: NonZeroU32) {}

    #[inline]
    pub(crate) fn count_released(&self, _: NonZeroU32) {}

    #[inline]
    pub(crate) fn count_waited(&self, _: Duration) {}
}

/// Handles to what is counted, registered when they are first needed.
#[cfg(feature = "metrics")]
pub(crate) struct BulkheadMeters {
    calls: crate::event::Meters<4>,
    in_flight: std::sync::OnceLock<metrics::Gauge>,
    queued: std::sync::OnceLock<metrics::Gauge>,
}

#[cfg(feature = "metrics")]
impl BulkheadMeters {
    pub(crate) fn new() -> Self {
        Self {
            calls: crate::event::Meters::new(),
            in_flight: std::sync::OnceLock::new(),
            queued: std::sync::OnceLock::new(),
        }
    }

    fn in_flight(&self, policy: &crate::rejected::Name) -> &metrics::Gauge {
        let register = || metrics::gauge!("steadfast.bulkhead.in_flight", "policy" => crate::event::label(policy));
        self.in_flight.get_or_init(register)
    }

    fn queued(&self, policy: &crate::rejected::Name) -> &metrics::Gauge {
        let register = || metrics::gauge!("steadfast.bulkhead.queued", "policy" => crate::event::label(policy));
        self.queued.get_or_init(register)
    }
}
