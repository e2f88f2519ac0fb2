//! The breaker that threads share: one word says what to do with a call, and a closed breaker takes no lock.
//!
//! `control` holds the generation and the state. A call loads it on its way in, takes the generation along in its
//! ticket, and loads it again on its way out: the same generation means that the state is still the same. What it then
//! records goes into words that carry their generation, so that a change in between loses the record and nothing else.
//!
//! Everything but counting in a closed breaker happens under the lock of the machine: changes of state, and probes.
//! Whoever changes something first prepares what belongs to the new generation (an empty window, the end of the open
//! time) and then publishes `control`.
//!
//! **Orderings.** `control` is stored with release and loaded with acquire: who sees a generation sees what was
//! prepared for it. Counting brings its own orderings, described with the windows. `stale` publishes nothing.

use std::num::NonZeroU32;
use std::sync::PoisonError;
use std::time::Duration;

use super::machine::{Automatic, Finding, Forced, Machine, OpenTime, Probe, Probing, State};
use super::time_window::TimeWindow;
use super::window::{Counts, Memory, Remembered, Sample, Shortcut, Way};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

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

/// The right to make one call; it has to come back, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// 0 for a call that is not counted.
    generation: u64,
    probe: Option<NonZeroU32>,
}

impl Ticket {
    /// For a call that is not counted.
    pub(crate) const UNCOUNTED: Self = Self {
        generation: 0,
        probe: None,
    };
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: State,
    /// Nanoseconds until a probe is admitted, where that is known.
    pub(crate) retry_after: Option<u64>,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Yes,
    /// It says nothing about the dependency, or nobody counts.
    No,
    /// It belongs to a state that is over.
    Stale,
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

/// Generation and state in one word.
#[derive(Clone, Copy)]
struct Control(u64);

impl Control {
    const STATE_BITS: u32 = 3;

    fn of(machine: &Machine) -> Self {
        let state = match machine.state() {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
            State::ForcedOpen => 3,
            State::ForcedClosed => 4,
            State::Disabled => 5,
            State::Isolated => 6,
        };
        Self(machine.generation() << Self::STATE_BITS | state)
    }

    #[inline]
    fn generation(self) -> u64 {
        self.0 >> Self::STATE_BITS
    }

    #[inline]
    fn is_closed(self) -> bool {
        self.0 & ((1 << Self::STATE_BITS) - 1) == 0
    }

    #[inline]
    fn is_open(self) -> bool {
        self.0 & ((1 << Self::STATE_BITS) - 1) == 1
    }

    /// What most breakers do with most calls.
    #[inline]
    fn admits_as_closed(self) -> Option<Ticket> {
        let ticket = || Ticket {
            generation: self.generation(),
            probe: None,
        };
        self.is_closed().then(ticket)
    }

    /// What a state without probes does with a call; `None` for open and half-open.
    fn admits(self) -> Option<Result<Ticket, Refusal>> {
        let state = self.state();
        match state {
            State::Closed | State::ForcedClosed => Some(Ok(Ticket {
                generation: self.generation(),
                probe: None,
            })),
            State::Disabled => Some(Ok(Ticket::UNCOUNTED)),
            State::ForcedOpen | State::Isolated => Some(Err(Refusal {
                state,
                retry_after: None,
            })),
            State::Open | State::HalfOpen => None,
        }
    }

    fn state(self) -> State {
        match self.0 & ((1 << Self::STATE_BITS) - 1) {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            4 => State::ForcedClosed,
            5 => State::Disabled,
            _ => State::Isolated,
        }
    }
}

pub(crate) struct Cell {
    control: AtomicU64,
    /// When an open breaker admits a probe.
    until: AtomicU64,
    /// Results that came too late.
    stale: AtomicU64,
    memory: Memory,
    machine: Mutex<Machine>,
}

impl Cell {
    pub(crate) fn new(memory: Memory, probing: Probing, now: u64) -> Self {
        let machine = Machine::new(probing, now);
        memory.begin(machine.generation());
        Self {
            control: AtomicU64::new(Control::of(&machine).0),
            until: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            memory,
            machine: Mutex::new(machine),
        }
    }

    #[inline]
    fn control(&self) -> Control {
        Control(self.control.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self) -> State {
        self.control().state()
    }

    /// The generation and the state, after every change that is yet to be announced.
    pub(crate) fn settled(&self) -> (u64, State) {
        let machine = self.lock();
        (machine.generation(), machine.state())
    }

    /// Admits a call, or says why not.
    #[inline]
    pub(crate) fn enter(&self, outside: &impl Outside) -> Result<Ticket, Refusal> {
        let control = self.control();
        let ticket = match control.admits_as_closed() {
            Some(ticket) => ticket,
            None => self.enter_unless_closed(control, outside)?,
        };
        Ok(ticket)
    }

    #[cold]
    #[inline(never)]
    fn enter_unless_closed(&self, control: Control, outside: &impl Outside) -> Result<Ticket, Refusal> {
        match self.refused_while_open(control, outside) {
            Some(refusal) => Err(refusal),
            None => self.enter_by_state(control, outside),
        }
    }

    /// The refusal of a breaker that is open and whose time is not over: no lock is needed for it.
    #[inline]
    fn refused_while_open(&self, control: Control, outside: &impl Outside) -> Option<Refusal> {
        if !control.is_open() {
            return None;
        }
        let left = self.until.load(Ordering::Relaxed).saturating_sub(outside.now());
        (left > 0).then_some(Refusal {
            state: State::Open,
            retry_after: Some(left),
        })
    }

    #[inline(never)]
    fn enter_by_state(&self, control: Control, outside: &impl Outside) -> Result<Ticket, Refusal> {
        control.admits().unwrap_or_else(|| {
            self.change(outside, None, |machine, now, time| {
                let decided = Control::of(machine).admits();
                decided.unwrap_or_else(|| match machine.probe(now, time) {
                    Probe::Admitted { id } => Ok(Ticket {
                        generation: machine.generation(),
                        probe: Some(id),
                    }),
                    Probe::Refused => Err(refusal(machine, now)),
                })
            })
        })
    }

    /// What [`enter`](Self::enter) would refuse a call with now; it may think otherwise a moment later.
    #[inline]
    pub(crate) fn would_refuse(&self, outside: &impl Outside) -> Option<Refusal> {
        let control = self.control();
        if control.is_closed() {
            return None;
        }
        self.would_refuse_unless_closed(control, outside)
    }

    #[cold]
    #[inline(never)]
    fn would_refuse_unless_closed(&self, control: Control, outside: &impl Outside) -> Option<Refusal> {
        let while_open = self.refused_while_open(control, outside);
        while_open.or_else(|| self.would_refuse_by_state(control, outside))
    }

    #[inline(never)]
    fn would_refuse_by_state(&self, control: Control, outside: &impl Outside) -> Option<Refusal> {
        let admitted = control.admits().unwrap_or_else(|| {
            let machine = self.lock();
            let now = outside.now();
            let decided = Control::of(&machine).admits();
            decided.unwrap_or_else(|| {
                let probes = machine.would_probe(now);
                if probes {
                    Ok(Ticket::UNCOUNTED)
                } else {
                    Err(refusal(&machine, now))
                }
            })
        });
        admitted.err()
    }

    /// Gives up probes that had their time, as every call does that could be a probe itself.
    #[cold]
    pub(crate) fn give_up_old_probes(&self, outside: &impl Outside) {
        if self.state() == State::HalfOpen {
            self.change(outside, None, Machine::give_up);
        }
    }

    /// Takes a ticket back, with what was seen of the dependency; `None` is nothing.
    ///
    /// An opening that follows from it lasts for `retry_after`, where the policy says so.
    pub(crate) fn exit(
        &self,
        ticket: Ticket,
        sample: Option<Sample>,
        retry_after: Option<Duration>,
        outside: &impl Outside,
    ) -> Counted {
        if let Some(probe) = ticket.probe {
            return self.exit_probe(ticket.generation, probe, sample, retry_after, outside);
        }
        let Some(sample) = sample else {
            return Counted::No;
        };
        let control = self.control();
        if control.generation() != ticket.generation {
            return self.exit_late(ticket);
        }
        let met = self.memory.record(ticket.generation, sample, || outside.now());
        if met && control.is_closed() {
            self.trip(ticket.generation, retry_after, outside);
        }
        Counted::Yes
    }

    /// The same for a call that was neither failed nor slow, which most are.
    // It calls nothing but in the end, so that the usual way saves no registers.
    #[inline]
    pub(crate) fn exit_good(&self, ticket: Ticket, outside: &impl Outside) -> Counted {
        let generation = ticket.generation;
        if ticket.probe.is_some() || self.control().generation() != generation {
            return self.exit_good_slowly(ticket, outside);
        }
        let taken = match self.memory.shortcut() {
            Some(Way::Count(window)) => window.record_good(generation),
            Some(Way::Time(window)) => return self.exit_good_in_time(window, ticket, outside),
            None => Shortcut::NotTaken,
        };
        match taken {
            Shortcut::Healthy => Counted::Yes,
            Shortcut::NotTaken => self.exit_good_slowly(ticket, outside),
            Shortcut::Recorded => self.decide(generation, 0, outside),
        }
    }

    #[inline(never)]
    fn exit_good_in_time(&self, window: &TimeWindow, ticket: Ticket, outside: &impl Outside) -> Counted {
        let now = outside.now();
        match window.record_good(ticket.generation, now) {
            Shortcut::Healthy => Counted::Yes,
            Shortcut::NotTaken => self.exit_good_slowly(ticket, outside),
            Shortcut::Recorded => self.decide(ticket.generation, now, outside),
        }
    }

    #[inline(never)]
    fn exit_good_slowly(&self, ticket: Ticket, outside: &impl Outside) -> Counted {
        self.exit(ticket, Some(Sample::GOOD), None, outside)
    }

    /// Opens if a rule is met; a count window does not ask for `now`.
    #[inline(never)]
    fn decide(&self, generation: u64, now: u64, outside: &impl Outside) -> Counted {
        let counts = self.memory.counts(generation, now);
        if self.memory.is_met(generation, counts) && self.control().is_closed() {
            self.trip(generation, None, outside);
        }
        Counted::Yes
    }

    #[cold]
    #[inline(never)]
    fn exit_late(&self, ticket: Ticket) -> Counted {
        if ticket == Ticket::UNCOUNTED {
            return Counted::No;
        }
        self.stale.fetch_add(1, Ordering::Relaxed);
        Counted::Stale
    }

    #[cold]
    #[inline(never)]
    fn trip(&self, generation: u64, retry_after: Option<Duration>, outside: &impl Outside) {
        self.change(outside, retry_after, |machine, now, time| {
            // Somebody else has seen it too, and was here first.
            if machine.generation() != generation {
                return;
            }
            // A thread that was held up on its way here may bring old news.
            let counts = self.memory.counts(generation, now);
            if self.memory.is_met(generation, counts) {
                machine.trip(counts, now, time);
            }
        });
    }

    #[cold]
    #[inline(never)]
    fn exit_probe(
        &self,
        generation: u64,
        probe: NonZeroU32,
        sample: Option<Sample>,
        retry_after: Option<Duration>,
        outside: &impl Outside,
    ) -> Counted {
        let finding = match sample {
            None => Finding::Nothing,
            Some(Sample {
                failed: false,
                slow: false,
            }) => Finding::Good,
            Some(_) => Finding::Bad,
        };
        let in_time = self.change(outside, retry_after, |machine, now, time| {
            machine.generation() == generation && machine.found(probe, finding, now, time)
        });
        match (in_time, finding) {
            (true, Finding::Nothing) => Counted::No,
            (true, _) => Counted::Yes,
            (false, _) => {
                self.stale.fetch_add(1, Ordering::Relaxed);
                Counted::Stale
            }
        }
    }

    pub(crate) fn force(&self, forced: Forced, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.force(forced, self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn reset(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.reset(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn isolate(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.isolate(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn release(&self, outside: &impl Outside) {
        self.change(outside, None, |machine, now, _| {
            machine.release(self.counts_of(machine, now), now);
        });
    }

    pub(crate) fn report(&self, outside: &impl Outside) -> Report {
        let machine = self.lock();
        let now = outside.now();
        let Refusal { state, retry_after } = refusal(&machine, now);
        Report {
            state,
            since: machine.since(),
            counts: self.counts_of(&machine, now),
            failures_in_a_row: self.memory.failures_in_a_row(machine.generation()),
            openings: machine.openings(),
            probes_in_flight: machine.probes_in_flight(),
            retry_after,
            stale: self.stale.load(Ordering::Relaxed),
            minimum: self.memory.minimum(),
        }
    }

    pub(crate) fn export(&self, outside: &impl Outside) -> Kept {
        let machine = self.lock();
        let now = outside.now();
        Kept {
            automatic: match machine.automatic() {
                Automatic::Open { until } => Automatic::Open {
                    until: until.saturating_sub(now),
                },
                closed_or_half_open => closed_or_half_open,
            },
            forced: machine.forced(),
            openings: machine.openings(),
            remembered: self.memory.export(machine.generation(), now),
        }
    }

    /// Goes on from what was kept; false if its calls are not of the kind that this breaker remembers.
    pub(crate) fn restore(&self, kept: &Kept, outside: &impl Outside) -> bool {
        if !self.memory.takes(&kept.remembered) {
            return false;
        }
        let drive = |machine: &mut Machine, now: u64, _: &OpenTime<'_>| {
            let automatic = match kept.automatic {
                Automatic::Open { until } => Automatic::Open {
                    until: now.saturating_add(until),
                },
                // Its probes are not here: the next call begins another round.
                Automatic::HalfOpen => Automatic::Open { until: now },
                Automatic::Closed => Automatic::Closed,
            };
            machine.restore(automatic, kept.forced, kept.openings, self.counts_of(machine, now), now);
        };
        let fill = |generation, now| self.memory.restore(&kept.remembered, generation, now);
        self.change_and_fill(outside, None, drive, fill);
        true
    }

    /// What the current generation has counted, or the one before it, if this one counts nothing.
    fn counts_of(&self, machine: &Machine, now: u64) -> Counts {
        match machine.state() {
            State::Closed | State::ForcedClosed => self.memory.counts(machine.generation(), now),
            State::HalfOpen => machine.round(),
            State::Open | State::ForcedOpen | State::Disabled | State::Isolated => machine.counts_before(),
        }
    }

    /// Drives the machine, publishes the generation that follows from it, and then announces the new state.
    fn change<T>(
        &self,
        outside: &impl Outside,
        retry_after: Option<Duration>,
        drive: impl FnOnce(&mut Machine, u64, &OpenTime<'_>) -> T,
    ) -> T {
        self.change_and_fill(outside, retry_after, drive, |_, _| {})
    }

    /// The same; `fill` puts into the new generation's memory what it begins with.
    fn change_and_fill<T>(
        &self,
        outside: &impl Outside,
        retry_after: Option<Duration>,
        drive: impl FnOnce(&mut Machine, u64, &OpenTime<'_>) -> T,
        fill: impl FnOnce(u64, u64),
    ) -> T {
        let mut machine = self.lock();
        let now = outside.now();
        let (from, generation) = (machine.state(), machine.generation());
        let result = drive(&mut machine, now, &|openings| outside.open_for(openings, retry_after));
        if machine.generation() == generation {
            return result;
        }
        self.memory.begin(machine.generation());
        fill(machine.generation(), now);
        if let Automatic::Open { until } = machine.automatic() {
            self.until.store(until, Ordering::Relaxed);
        }
        self.control.store(Control::of(&machine).0, Ordering::Release);
        let transition = Transition {
            from,
            to: machine.state(),
            generation: machine.generation(),
            counts: machine.counts_before(),
            openings: machine.openings(),
            open_for: refusal(&machine, now).retry_after,
        };
        drop(machine);
        if transition.from != transition.to {
            outside.announce(&transition);
        }
        result
    }

    /// Whether a new breaker would not do as well, if nobody has called this one for a while: it is open or half-open, and
    /// not for longer than `memory` after its open time. Nobody else has the breaker, so nobody has the lock.
    pub(crate) fn must_stay(&self, memory: u64, outside: &impl Outside) -> bool {
        match self.state() {
            State::Closed => false,
            State::ForcedOpen | State::ForcedClosed | State::Disabled | State::Isolated => true,
            State::Open | State::HalfOpen => {
                let machine = self.lock();
                let over = match machine.automatic() {
                    Automatic::Open { until } => until,
                    Automatic::Closed | Automatic::HalfOpen => machine.since(),
                };
                outside.now() < over.saturating_add(memory)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing in the locked sections can panic half-way.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(machine: &Machine, now: u64) -> Refusal {
    let state = machine.state();
    let retry_after = match (state, machine.automatic()) {
        (State::Open, Automatic::Open { until }) => Some(until.saturating_sub(now)),
        _ => None,
    };
    Refusal { state, retry_after }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as Value;

    use super::super::count_window::CountWindow;
    use super::super::time_window::TimeWindow;
    use super::super::window::{Calls, Recent, Rules};
    use super::*;

    const SLOW_FAILURE: Sample = Sample {
        failed: true,
        slow: true,
    };

    /// A clock that goes on each time it is looked at.
    struct Passing {
        now: Value<u64>,
        by: u64,
    }

    impl Outside for Passing {
        fn now(&self) -> u64 {
            self.now.replace(self.now.get() + self.by)
        }

        fn open_for(&self, _: u32, _: Option<Duration>) -> u64 {
            1
        }

        fn announce(&self, _: &Transition) {}
    }

    fn at(now: u64) -> Passing {
        Passing {
            now: Value::new(now),
            by: 0,
        }
    }

    fn time_window() -> Recent {
        Recent::Time(TimeWindow::new(100))
    }

    fn cell(minimum: u32, recent: Recent, slow_rate: Option<f64>) -> Cell {
        let rules = Rules {
            minimum,
            failure_rate: Some(1.0),
            slow_rate,
            consecutive: None,
        };
        let probing = Probing {
            samples: 1,
            needed: 1,
            max_concurrent: 1,
            max_probe_time: 10,
            max_undecided: 1,
        };
        Cell::new(Memory::new(rules, recent), probing, 0)
    }

    fn state_after_a_failure_with_a_clock_that_goes_on_by(by: u64) -> State {
        let cell = cell(1, time_window(), None);
        let outside = Passing { now: Value::new(0), by };
        let ticket = cell.enter(&outside).unwrap();
        assert_eq!(cell.exit(ticket, Some(SLOW_FAILURE), None, &outside), Counted::Yes);
        cell.state()
    }

    #[test]
    fn a_thread_that_was_held_up_before_the_lock_opens_nothing_with_old_news() {
        assert_eq!(state_after_a_failure_with_a_clock_that_goes_on_by(90), State::Open);
        assert_eq!(state_after_a_failure_with_a_clock_that_goes_on_by(100), State::Closed);
    }

    fn after_a_slow_failure(recent: Recent, slow_rate: Option<f64>) -> Cell {
        let cell = cell(2, recent, slow_rate);
        let ticket = cell.enter(&at(0)).unwrap();
        assert_eq!(cell.exit(ticket, Some(SLOW_FAILURE), None, &at(0)), Counted::Yes);
        cell
    }

    fn count_window(with_slow: bool) -> Recent {
        Recent::Count(CountWindow::new(2, with_slow))
    }

    #[test]
    fn calls_are_restored_to_the_same_kind_of_window_or_to_none() {
        let by_count = after_a_slow_failure(count_window(true), Some(1.0)).export(&at(0));
        let by_time = after_a_slow_failure(time_window(), Some(1.0)).export(&at(0));
        let none = after_a_slow_failure(Recent::None, None).export(&at(0));
        assert_eq!(none.remembered.calls, Calls::None);
        let taken =
            |into: fn() -> Recent| [&by_count, &by_time, &none].map(|kept| cell(2, into(), None).restore(kept, &at(0)));
        assert_eq!(taken(|| count_window(false)), [true, false, true]);
        assert_eq!(taken(time_window), [false, true, true]);
        assert_eq!(taken(|| Recent::None), [true, true, true]);
    }

    #[test]
    fn what_cannot_be_restored_changes_nothing() {
        let kept = after_a_slow_failure(time_window(), None).export(&at(0));
        let other = after_a_slow_failure(count_window(false), None);
        let ticket = other.enter(&at(0)).unwrap();
        assert!(!other.restore(&kept, &at(0)));
        assert_eq!(other.enter(&at(0)), Ok(ticket));
    }

    #[test]
    fn a_slow_call_is_restored_where_a_rule_counts_it() {
        for window in [count_window, |_| time_window()] {
            let kept = after_a_slow_failure(window(true), Some(1.0)).export(&at(0));
            let counts_after = |with_slow: bool| {
                let cell = cell(2, window(with_slow), with_slow.then_some(1.0));
                assert!(cell.restore(&kept, &at(0)));
                let Counts { failed, slow, .. } = cell.report(&at(0)).counts;
                (failed, slow)
            };
            assert_eq!((counts_after(true), counts_after(false)), ((1, 1), (1, 0)));
        }
    }

    #[test]
    fn what_is_left_of_an_open_time_is_kept_up_to_a_limit() {
        let cell = cell(1, time_window(), None);
        let ticket = cell.enter(&at(7)).unwrap();
        cell.exit(ticket, Some(SLOW_FAILURE), None, &at(7));
        let mut kept = cell.export(&at(7));
        kept.automatic = Automatic::Open { until: 9 };
        kept.open_for_at_most(10);
        assert_eq!(kept.automatic, Automatic::Open { until: 9 });
        kept.open_for_at_most(5);
        assert!(cell.restore(&kept, &at(20)));
        assert_eq!(cell.report(&at(22)).retry_after, Some(3));
    }
}
