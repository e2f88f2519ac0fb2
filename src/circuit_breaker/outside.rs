//! What goes in and out of a cell besides calls.

use std::time::Duration;

use super::machine::{Automatic, Forced};
use super::state::State;
use super::window::{Counts, Remembered};

/// What a cell needs to be told, and whom it tells.
pub(crate) trait Outside {
    /// Nanoseconds since the breaker was made.
    fn now(&self) -> u64;

    /// How long to stay open, in nanoseconds, having opened so many times in a row.
    fn open_for(&self, openings: u32, retry_after: Option<Duration>) -> u64;

    /// The state has changed. No lock is held.
    fn announce(&self, transition: &Transition);
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    /// Grows with every change: of two transitions that are told at the same moment, the later has the larger.
    pub(crate) generation: u64,
    /// What the old state had counted.
    pub(crate) counts: Counts,
    pub(crate) openings: u32,
    /// For a breaker that is open now, nanoseconds until it admits a probe.
    pub(crate) open_for: Option<u64>,
}

/// How a breaker stands. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) state: State,
    /// When it was entered.
    pub(crate) since: u64,
    pub(crate) counts: Counts,
    pub(crate) failures_in_a_row: u32,
    pub(crate) openings: u32,
    pub(crate) probes_in_flight: u32,
    pub(crate) retry_after: Option<u64>,
    pub(crate) stale: u64,
    /// Calls below which a closed breaker knows no rate.
    pub(crate) minimum: u32,
}

/// What outlives a breaker. An open time is what is left of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) automatic: Automatic,
    pub(crate) forced: Option<Forced>,
    pub(crate) openings: u32,
    pub(crate) remembered: Remembered,
}

impl Kept {
    pub(crate) fn open_for_at_most(&mut self, longest: u64) {
        if let Automatic::Open { until } = &mut self.automatic {
            *until = longest.min(*until);
        }
    }
}
