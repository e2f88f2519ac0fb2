//! What every pattern's events have in common: how they reach listeners and the `metrics` facade.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::level_filters::LevelFilter;

/// Calls a listener. It only watches: its panic is logged and the call goes on.
pub(crate) fn tell(listener: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(listener)).is_err() {
        tracing::error!(target: "steadfast", "an event listener panicked");
    }
}

/// Whether anybody may hear of an event of this level; one relaxed load where the answer is no.
///
/// Asked before an event is emitted, where the emission is cold and its arguments need not be computed in vain.
#[inline]
pub(crate) fn heard(has_listener: bool, level: LevelFilter) -> bool {
    has_listener || cfg!(feature = "metrics") || LevelFilter::current() >= level
}

/// Handles to a counter per outcome, registered when they are first needed.
///
/// A handle belongs to the recorder that was installed at that moment.
#[cfg(feature = "metrics")]
pub(crate) struct Counters<const N: usize>([std::sync::OnceLock<metrics::Counter>; N]);

#[cfg(feature = "metrics")]
impl<const N: usize> Counters<N> {
    pub(crate) fn new() -> Self {
        Self([const { std::sync::OnceLock::new() }; N])
    }

    pub(crate) fn count(
        &self,
        name: &'static str,
        policy: &crate::rejected::Name,
        index: usize,
        outcome: &'static str,
    ) {
        let register = || metrics::counter!(name, "policy" => label(policy), "outcome" => outcome);
        self.0[index].get_or_init(register).increment(1);
    }
}

/// The same, and a histogram.
#[cfg(feature = "metrics")]
pub(crate) struct Meters<const N: usize> {
    outcomes: Counters<N>,
    histogram: std::sync::OnceLock<metrics::Histogram>,
}

#[cfg(feature = "metrics")]
impl<const N: usize> Meters<N> {
    pub(crate) fn new() -> Self {
        Self {
            outcomes: Counters::new(),
            histogram: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn count(
        &self,
        name: &'static str,
        policy: &crate::rejected::Name,
        index: usize,
        outcome: &'static str,
    ) {
        self.outcomes.count(name, policy, index, outcome);
    }

    pub(crate) fn record(&self, name: &'static str, policy: &crate::rejected::Name, value: f64) {
        let register = || metrics::histogram!(name, "policy" => label(policy));
        self.histogram.get_or_init(register).record(value);
    }
}

#[cfg(feature = "metrics")]
pub(crate) fn label(policy: &crate::rejected::Name) -> metrics::SharedString {
    match policy {
        crate::rejected::Name::Static(name) => (*name).into(),
        crate::rejected::Name::Shared(name) => std::sync::Arc::clone(name).into(),
    }
}
