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

impl Sample {
    pub(crate) const GOOD: Self = Self {
        failed: false,
        slow: false,
    };
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
#[allow(
    clippy::large_enum_variant,
    reason = "each breaker has one, in an allocation that it has anyway"
)]
pub(crate) enum Recent {
    /// No rule asks for a rate.
    None,
    Count(CountWindow),
    Time(TimeWindow),
}

/// A window that has a short way for good calls.
pub(crate) enum Way<'a> {
    Count(&'a CountWindow),
    Time(&'a TimeWindow),
}

/// What became of a call on the short way.
#[derive(Clone, Copy)]
pub(crate) enum Shortcut {
    /// Nothing: it has to be recorded.
    NotTaken,
    /// It is recorded, and the window holds neither a failure nor a slow call.
    Healthy,
    /// It is recorded.
    Recorded,
}

/// Everything that the rules ask for.
pub(crate) struct Memory {
    rules: Rules,
    recent: Recent,
    streak: Streak,
}

impl Memory {
    pub(crate) fn new(rules: Rules, recent: Recent) -> Self {
        Self {
            rules,
            recent,
            streak: Streak::new(),
        }
    }

    /// Forgets everything; called before `generation` is made known.
    pub(crate) fn begin(&self, generation: u64) {
        self.streak.begin(generation);
        if let Recent::Count(window) = &self.recent {
            window.begin(generation);
        }
    }

    /// Records one call of `generation`, and says whether a rule is now met.
    ///
    /// Of any number of threads that record at once, the last to be done sees what all of them recorded: no opening is
    /// missed, but for what a [`TimeWindow`] says. `now` is asked for where the window is one of time.
    pub(crate) fn record(&self, generation: u64, sample: Sample, now: impl FnOnce() -> u64) -> bool {
        let in_a_row = self
            .rules
            .consecutive
            .is_some_and(|limit| self.streak.record(generation, sample.failed) >= limit);
        // What there is no doubt of is not computed: most calls are recorded between calls that were no different.
        let counts = match &self.recent {
            Recent::None => None,
            Recent::Count(window) => window.record(generation, sample),
            Recent::Time(window) => window.record(generation, sample, now()),
        };
        in_a_row || counts.is_some_and(|counts| self.rules.exceeded_by(counts))
    }

    /// The short way for a call that was neither failed nor slow, where there is one.
    #[inline]
    pub(crate) fn shortcut(&self) -> Option<Way<'_>> {
        if self.rules.consecutive.is_some() {
            return None;
        }
        match &self.recent {
            Recent::None => None,
            Recent::Count(window) => Some(Way::Count(window)),
            Recent::Time(window) => Some(Way::Time(window)),
        }
    }

    /// Whether a rule is met by what is remembered of `generation`, and by `counts`.
    pub(crate) fn is_met(&self, generation: u64, counts: Counts) -> bool {
        let consecutive = self.rules.consecutive;
        let in_a_row = consecutive.is_some_and(|limit| self.streak.length(generation) >= limit);
        in_a_row || self.rules.exceeded_by(counts)
    }

    /// What is remembered of `generation`.
    pub(crate) fn counts(&self, generation: u64, now: u64) -> Counts {
        match &self.recent {
            Recent::None => Counts::default(),
            Recent::Count(window) => window.counts(generation),
            Recent::Time(window) => window.counts(generation, now),
        }
    }

    pub(crate) fn failures_in_a_row(&self, generation: u64) -> u32 {
        self.streak.length(generation)
    }

    pub(crate) fn minimum(&self) -> u32 {
        self.rules.minimum
    }

    pub(crate) fn export(&self, generation: u64, now: u64) -> Remembered {
        Remembered {
            failures_in_a_row: self.streak.length(generation),
            calls: match &self.recent {
                Recent::None => Calls::None,
                Recent::Count(window) => Calls::Count(window.samples(generation)),
                Recent::Time(window) => Calls::Time(window.samples(generation, now)),
            },
        }
    }

    /// Whether calls of this kind can be remembered here.
    pub(crate) fn takes(&self, remembered: &Remembered) -> bool {
        matches!(
            (&self.recent, &remembered.calls),
            (_, Calls::None)
                | (Recent::None, _)
                | (Recent::Count(_), Calls::Count(_))
                | (Recent::Time(_), Calls::Time(_))
        )
    }

    /// Remembers in `generation` what was remembered elsewhere, as far as a rule asks for it; called before it is made
    /// known.
    pub(crate) fn restore(&self, remembered: &Remembered, generation: u64, now: u64) {
        if self.rules.consecutive.is_some() {
            self.streak.set(generation, remembered.failures_in_a_row);
        }
        let slow_counts = self.rules.slow_rate.is_some();
        match (&self.recent, &remembered.calls) {
            (Recent::Count(window), Calls::Count(samples)) => {
                for sample in samples {
                    let slow = sample.slow && slow_counts;
                    window.record(generation, Sample { slow, ..*sample });
                }
            }
            (Recent::Time(window), Calls::Time(buckets)) => {
                let counted = |counts: Counts| Counts {
                    slow: if slow_counts { counts.slow } else { 0 },
                    ..counts
                };
                let past = buckets.iter().map(|past| Past {
                    age: past.age,
                    counts: counted(past.counts),
                });
                window.fill(generation, now, past);
            }
            (Recent::None | Recent::Count(_) | Recent::Time(_), _) => {}
        }
    }
}

/// What is remembered, to be kept elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) failures_in_a_row: u32,
    pub(crate) calls: Calls,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Calls {
    None,
    /// The oldest first.
    Count(Vec<Sample>),
    /// The oldest first.
    Time(Vec<Past>),
}

/// Calls of the past, and how many nanoseconds ago they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) age: u64,
    pub(crate) counts: Counts,
}
