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

use super::control::{Control, Counted, Refusal, Ticket};
use super::machine::{Automatic, Finding, Machine, OpenTime, Probe, Probing};
use super::outside::{Outside, Transition};
use super::state::State;
use super::time_window::TimeWindow;
use super::window::{Counts, Memory, Sample, Shortcut, Way};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

pub(crate) struct Cell {
    control: AtomicU64,
    /// When an open breaker admits a probe.
    until: AtomicU64,
    /// Results that came too late.
    pub(super) stale: AtomicU64,
    pub(super) memory: Memory,
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
                    Probe::Refused => Err(Refusal::by(machine, now)),
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
                    Err(Refusal::by(&machine, now))
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

    /// What the current generation has counted, or the one before it, if this one counts nothing.
    pub(super) fn counts_of(&self, machine: &Machine, now: u64) -> Counts {
        match machine.state() {
            State::Closed | State::ForcedClosed => self.memory.counts(machine.generation(), now),
            State::HalfOpen => machine.round(),
            State::Open | State::ForcedOpen | State::Disabled | State::Isolated => machine.counts_before(),
        }
    }

    /// Drives the machine, publishes the generation that follows from it, and then announces the new state.
    pub(super) fn change<T>(
        &self,
        outside: &impl Outside,
        retry_after: Option<Duration>,
        drive: impl FnOnce(&mut Machine, u64, &OpenTime<'_>) -> T,
    ) -> T {
        self.change_and_fill(outside, retry_after, drive, |_, _| {})
    }

    /// The same; `fill` puts into the new generation's memory what it begins with.
    pub(super) fn change_and_fill<T>(
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
            open_for: Refusal::by(&machine, now).retry_after,
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        // Nothing in the locked sections can panic half-way.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell as Value;

    use super::super::count_window::CountWindow;
    use super::super::machine::Forced;
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

    #[test]
    fn a_breaker_can_be_forgotten_when_its_open_time_is_long_over_and_nobody_asked_for_its_state() {
        let cell = cell(1, count_window(false), None);
        let stays = |now| cell.must_stay(10, &at(now));
        assert!(!stays(0));
        let ticket = cell.enter(&at(5)).unwrap();
        cell.exit(ticket, Some(SLOW_FAILURE), None, &at(5));
        // Open until 6, and half-open since 8.
        assert_eq!([5, 6, 15, 16].map(stays), [true, true, true, false]);
        let probe = cell.enter(&at(8));
        assert_eq!([8, 17, 18].map(stays), [true, true, false]);
        assert_eq!(
            cell.exit(probe.unwrap(), Some(Sample::GOOD), None, &at(8)),
            Counted::Yes
        );
        assert!(!stays(8));
        cell.force(Forced::Closed, &at(8));
        assert!(stays(1_000));
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
