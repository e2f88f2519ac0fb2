//! The states of a breaker and what moves it from one to another: no clock, no policy, no window.
//!
//! ```text
//!            a rule is met                       the open time is over
//!   Closed ─────────────────▶ Open(until) ───────────────────────────────▶ HalfOpen(round)
//!     ▲                          ▲                                             │   │
//!     │                          └── too few successes, or nothing was learned ┘   │
//!     └────────────────────────────────── enough successes ────────────────────────┘
//! ```
//!
//! Over this lies what somebody asked for by hand: isolated before disabled before forced. Each change, of what is seen
//! or of what lies below, begins a generation. A ticket knows the generation that it was given out in, and whoever
//! returns one of an earlier generation changes nothing.
//!
//! **A half-open round ends.** It admits a probe only while `decided + in flight < samples`. Each probe is decided by its
//! result, or is given up after `max_probe_time`, or gives its place back undecided, which counts towards
//! `max_undecided`. So a round is over, as soon as calls come, after `samples` decisions or `max_undecided` places given
//! back; and no probe can be missing, because one that nobody returns is given up.

use std::num::NonZeroU32;

use super::state::State;
use super::window::Counts;

/// How a half-open round is decided. Times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probing {
    pub(crate) samples: u32,
    /// Successes that close the breaker.
    pub(crate) needed: u32,
    pub(crate) max_concurrent: u32,
    pub(crate) max_probe_time: u64,
    /// Probes that end undecided before the round is given up.
    pub(crate) max_undecided: u32,
}

/// What the calls decide by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Automatic {
    Closed,
    Open { until: u64 },
    HalfOpen,
}

/// What somebody asked for, until a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    Open,
    Closed,
    Disabled,
}

/// A result, as a half-open round sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Good,
    Bad,
    /// Says nothing about the dependency.
    Nothing,
}

/// What became of a request for a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Admitted {
        id: NonZeroU32,
    },
    /// There is no place for it now, or no longer a round.
    Refused,
}

/// How a half-open round stands.
struct Round {
    good: u32,
    bad: u32,
    undecided: u32,
    next_id: NonZeroU32,
    in_flight: Vec<InFlight>,
}

struct InFlight {
    id: NonZeroU32,
    since: u64,
}

impl Round {
    fn new(places: u32) -> Self {
        Self {
            good: 0,
            bad: 0,
            undecided: 0,
            next_id: NonZeroU32::MIN,
            in_flight: Vec::with_capacity(usize::try_from(places).unwrap_or(usize::MAX)),
        }
    }

    /// Empties the round; no number of a probe is used again.
    fn clear(&mut self) {
        (self.good, self.bad, self.undecided) = (0, 0, 0);
        self.in_flight.clear();
    }

    fn counts(&self) -> Counts {
        Counts {
            calls: self.good + self.bad,
            failed: self.bad,
            slow: 0,
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }
}

/// How long a breaker that opens stays open, in nanoseconds; told how many times in a row it has now opened.
pub(crate) type OpenTime<'a> = dyn Fn(u32) -> u64 + 'a;

/// The states, driven by whoever holds the lock around it.
pub(crate) struct Machine {
    probing: Probing,
    automatic: Automatic,
    forced: Option<Forced>,
    isolations: u32,
    generation: u64,
    since: u64,
    openings: u32,
    counts_before: Counts,
    round: Round,
}

impl Machine {
    pub(crate) fn new(probing: Probing, now: u64) -> Self {
        Self {
            probing,
            automatic: Automatic::Closed,
            forced: None,
            isolations: 0,
            generation: 1,
            since: now,
            openings: 0,
            counts_before: Counts::default(),
            round: Round::new(probing.max_concurrent),
        }
    }

    pub(crate) fn state(&self) -> State {
        if self.isolations > 0 {
            return State::Isolated;
        }
        match (self.forced, self.automatic) {
            (Some(Forced::Disabled), _) => State::Disabled,
            (Some(Forced::Open), _) => State::ForcedOpen,
            (Some(Forced::Closed), _) => State::ForcedClosed,
            (None, Automatic::Closed) => State::Closed,
            (None, Automatic::Open { .. }) => State::Open,
            (None, Automatic::HalfOpen) => State::HalfOpen,
        }
    }

    pub(crate) fn automatic(&self) -> Automatic {
        self.automatic
    }

    pub(crate) fn forced(&self) -> Option<Forced> {
        self.forced
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// When the state was entered.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// How many times in a row the breaker has opened without closing.
    pub(crate) fn openings(&self) -> u32 {
        self.openings
    }

    /// What the generation before this one had counted.
    pub(crate) fn counts_before(&self) -> Counts {
        self.counts_before
    }

    /// The samples of the round.
    pub(crate) fn round(&self) -> Counts {
        self.round.counts()
    }

    pub(crate) fn probes_in_flight(&self) -> u32 {
        self.round.in_flight()
    }

    /// Makes a change, which begins a generation.
    fn change(&mut self, counts: Counts, now: u64, change: impl FnOnce(&mut Self)) {
        let before = self.state();
        change(self);
        self.generation += 1;
        self.counts_before = counts;
        self.round.clear();
        if self.state() != before {
            self.since = now;
        }
    }

    /// A rule is met by `counts`.
    pub(crate) fn trip(&mut self, counts: Counts, now: u64, time: &OpenTime<'_>) {
        let openings = self.openings.saturating_add(1);
        let until = now.saturating_add(time(openings));
        self.change(counts, now, |machine| {
            machine.openings = openings;
            machine.automatic = Automatic::Open { until };
        });
    }

    /// A call asks to be a probe.
    pub(crate) fn probe(&mut self, now: u64, time: &OpenTime<'_>) -> Probe {
        match self.automatic {
            Automatic::Closed => return Probe::Refused,
            Automatic::Open { until } if now < until => return Probe::Refused,
            Automatic::Open { .. } => {
                let counts = self.counts_before;
                self.change(counts, now, |machine| machine.automatic = Automatic::HalfOpen);
            }
            Automatic::HalfOpen => {
                if self.give_up_old_probes(now, time) {
                    return Probe::Refused;
                }
            }
        }
        let (decided, in_flight) = (self.round.counts().calls, self.round.in_flight());
        if decided + in_flight >= self.probing.samples || in_flight >= self.probing.max_concurrent {
            return Probe::Refused;
        }
        let id = self.round.next_id;
        self.round.next_id = id.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.round.in_flight.push(InFlight { id, since: now });
        Probe::Admitted { id }
    }

    /// Whether a call that asked now would be a probe; changes nothing.
    pub(crate) fn would_probe(&self, now: u64) -> bool {
        match self.automatic {
            Automatic::Closed => false,
            Automatic::Open { until } => now >= until,
            Automatic::HalfOpen => {
                let in_flight = self.round.in_flight.iter().filter(|probe| !self.is_over(probe, now));
                let in_flight = u32::try_from(in_flight.count()).unwrap_or(u32::MAX);
                let given_up = self.round.in_flight() - in_flight;
                let decided = self.round.counts().calls + given_up;
                self.round.bad + given_up <= self.tolerated()
                    && decided + in_flight < self.probing.samples
                    && in_flight < self.probing.max_concurrent
            }
        }
    }

    /// A probe of this generation comes back. False if it had been given up.
    pub(crate) fn found(&mut self, id: NonZeroU32, finding: Finding, now: u64, time: &OpenTime<'_>) -> bool {
        if self.give_up_old_probes(now, time) {
            return false;
        }
        let Some(place) = self.round.in_flight.iter().position(|probe| probe.id == id) else {
            return false;
        };
        self.round.in_flight.swap_remove(place);
        match finding {
            Finding::Good => self.round.good += 1,
            Finding::Bad => self.round.bad += 1,
            Finding::Nothing => self.round.undecided += 1,
        }
        self.decide(now, time);
        true
    }

    fn is_over(&self, probe: &InFlight, now: u64) -> bool {
        now >= probe.since.saturating_add(self.probing.max_probe_time)
    }

    /// Bad samples that a round can have and still close the breaker.
    fn tolerated(&self) -> u32 {
        self.probing.samples - self.probing.needed
    }

    /// Somebody looks in who is no probe.
    pub(crate) fn give_up(&mut self, now: u64, time: &OpenTime<'_>) {
        if self.automatic == Automatic::HalfOpen {
            self.give_up_old_probes(now, time);
        }
    }

    /// Counts probes that had their time as failed; true if that decided the round.
    fn give_up_old_probes(&mut self, now: u64, time: &OpenTime<'_>) -> bool {
        let (before, limit) = (self.round.in_flight(), self.probing.max_probe_time);
        self.round
            .in_flight
            .retain(|probe| now < probe.since.saturating_add(limit));
        self.round.bad += before - self.round.in_flight();
        self.decide(now, time)
    }

    /// Ends the round as soon as its outcome is certain; true if it has ended.
    fn decide(&mut self, now: u64, time: &OpenTime<'_>) -> bool {
        let counts = self.round.counts();
        if self.round.good >= self.probing.needed {
            self.change(counts, now, |machine| {
                machine.openings = 0;
                machine.automatic = Automatic::Closed;
            });
        } else if self.round.bad > self.tolerated() || self.round.undecided >= self.probing.max_undecided {
            self.trip(counts, now, time);
        } else {
            return false;
        }
        true
    }

    pub(crate) fn force(&mut self, forced: Forced, counts: Counts, now: u64) {
        // Disabled lies above forced, and only a reset ends either.
        if self.forced != Some(Forced::Disabled) {
            self.change(counts, now, |machine| machine.forced = Some(forced));
        }
    }

    /// Back to closed, with nothing counted and nothing forced; an isolation stays.
    pub(crate) fn reset(&mut self, counts: Counts, now: u64) {
        self.restore(Automatic::Closed, None, 0, counts, now);
    }

    /// Takes over what another breaker has exported; an isolation stays.
    pub(crate) fn restore(
        &mut self,
        automatic: Automatic,
        forced: Option<Forced>,
        openings: u32,
        counts: Counts,
        now: u64,
    ) {
        self.change(counts, now, |machine| {
            machine.automatic = automatic;
            machine.forced = forced;
            machine.openings = openings;
        });
    }

    pub(crate) fn isolate(&mut self, counts: Counts, now: u64) {
        self.change(counts, now, |machine| machine.isolations += 1);
    }

    pub(crate) fn release(&mut self, counts: Counts, now: u64) {
        self.change(counts, now, |machine| machine.isolations -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_to_the_lock_before_the_open_time_is_over_is_no_probe() {
        let probing = Probing {
            samples: 1,
            needed: 1,
            max_concurrent: 1,
            max_probe_time: 1,
            max_undecided: 1,
        };
        let mut machine = Machine::new(probing, 0);
        let open_for_ten = |_| 10;
        assert_eq!(machine.probe(0, &open_for_ten), Probe::Refused);
        machine.trip(Counts::default(), 0, &open_for_ten);
        assert_eq!(machine.probe(9, &open_for_ten), Probe::Refused);
        assert_eq!(machine.state(), State::Open);
        assert_eq!(
            machine.probe(10, &open_for_ten),
            Probe::Admitted { id: NonZeroU32::MIN }
        );
    }

    #[test]
    fn a_state_says_what_it_is_called_and_whether_it_rejects_every_call() {
        let states = [
            (State::Closed, "closed", false),
            (State::Open, "open", true),
            (State::HalfOpen, "half_open", false),
            (State::ForcedOpen, "forced_open", true),
            (State::ForcedClosed, "forced_closed", false),
            (State::Disabled, "disabled", false),
            (State::Isolated, "isolated", true),
        ];
        for (state, label, open) in states {
            assert_eq!((state.as_str(), state.is_open()), (label, open));
        }
    }
}
