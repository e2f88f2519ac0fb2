//! What a closed breaker remembers of past calls: shared by threads, without a lock.
//!
//! Every word here carries the generation it belongs to, or something that grows with it. A thread that held a result
//! while the breaker moved on finds a younger word, and leaves it alone: nothing is ever recorded in a generation other
//! than its own, and nothing has to be cleared when one begins.

use super::count_window::CountWindow;
use super::streak::Streak;
use super::time_window::TimeWindow;

/// What is recorded of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// How many calls a window holds, and what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u32,
    pub(crate) failed: u32,
    pub(crate) slow: u32,
}

impl Counts {
    /// `part` of the calls as a rate; 0 without calls.
    pub(crate) fn rate(self, part: u32) -> f64 {
        if self.calls == 0 {
            return 0.0;
        }
        f64::from(part) / f64::from(self.calls)
    }
}

/// When a closed breaker opens: when any rule says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Calls below which no rate is known.
    pub(crate) minimum: u32,
    pub(crate) failure_rate: Option<f64>,
    pub(crate) slow_rate: Option<f64>,
    pub(crate) consecutive: Option<u32>,
}

impl Rules {
    fn exceeded_by(&self, counts: Counts) -> bool {
        let exceeds = |part, limit: Option<f64>| limit.is_some_and(|limit| counts.rate(part) >= limit);
        counts.calls >= self.minimum
            && (exceeds(counts.failed, self.failure_rate) || exceeds(counts.slow, self.slow_rate))
    }
}

/// The calls that the rates are computed over.
pub(crate) enum Window {
    /// No rule asks for a rate.
    None,
    Count(CountWindow),
    Time(TimeWindow),
}

/// Everything that the rules ask for.
pub(crate) struct Memory {
    rules: Rules,
    window: Window,
    streak: Streak,
}

impl Memory {
    pub(crate) fn new(rules: Rules, window: Window) -> Self {
        Self {
            rules,
            window,
            streak: Streak::new(),
        }
    }

    /// Forgets everything; called before `generation` is made known.
    pub(crate) fn begin(&self, generation: u64) {
        self.streak.begin(generation);
        if let Window::Count(window) = &self.window {
            window.begin(generation);
        }
    }

    /// Records one call of `generation`, and says whether a rule is now met.
    ///
    /// Of any number of threads that record at once, the last to be done sees what all of them recorded: no opening is
    /// missed. `now` is asked for where the window is one of time.
    #[inline]
    pub(crate) fn record(&self, generation: u64, sample: Sample, now: impl FnOnce() -> u64) -> bool {
        let in_a_row = self
            .rules
            .consecutive
            .is_some_and(|limit| self.streak.record(generation, sample.failed) >= limit);
        // What there is no doubt of is not computed: most calls are recorded between calls that were no different.
        let counts = match &self.window {
            Window::None => None,
            Window::Count(window) => window.record(generation, sample),
            Window::Time(window) => window.record(generation, sample, now()),
        };
        in_a_row || counts.is_some_and(|counts| self.rules.exceeded_by(counts))
    }

    /// What is remembered of `generation`.
    pub(crate) fn counts(&self, generation: u64, now: u64) -> Counts {
        match &self.window {
            Window::None => Counts::default(),
            Window::Count(window) => window.counts(generation),
            Window::Time(window) => window.counts(generation, now),
        }
    }

    pub(crate) fn failures_in_a_row(&self, generation: u64) -> u32 {
        self.streak.length(generation)
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn streak(&self) -> &Streak {
        &self.streak
    }
}
