//! A slow and obvious breaker, and the real one beside it over random histories.

use std::cell::{Cell as Value, RefCell};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::cell::Cell;
use super::control::{Counted, Refusal, Ticket};
use super::count_window::CountWindow;
use super::machine::{Forced, Probing};
use super::outside::{Outside, Transition};
use super::state::State;
use super::time_window::TimeWindow;
use super::window::{Counts, Memory, Recent, Rules, Sample};
use crate::histories::histories;

const MS: u64 = 1_000_000;
const GOOD: Sample = Sample::GOOD;

#[derive(Clone, Copy, Debug)]
enum Kind {
    None,
    Count(u32),
    Time(u64),
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    rules: Rules,
    kind: Kind,
    probing: Probing,
    /// Of the first opening; it grows by as much each time.
    open_for: u64,
}

/// A clock that is set by hand, and a record of what was announced.
struct World {
    now: Value<u64>,
    open_for: u64,
    announced: RefCell<Vec<Transition>>,
}

impl Outside for World {
    fn now(&self) -> u64 {
        self.now.get()
    }

    fn open_for(&self, openings: u32, retry_after: Option<Duration>) -> u64 {
        let asked = retry_after.map(|wait| u64::try_from(wait.as_nanos()).unwrap());
        asked.unwrap_or(self.open_for * u64::from(openings))
    }

    fn announce(&self, transition: &Transition) {
        self.announced.borrow_mut().push(*transition);
    }
}

impl Setup {
    fn world(&self) -> World {
        World {
            now: Value::new(0),
            open_for: self.open_for,
            announced: RefCell::default(),
        }
    }

    fn cell(&self) -> Cell {
        let recent = match self.kind {
            Kind::None => Recent::None,
            Kind::Count(size) => Recent::Count(CountWindow::new(size, self.rules.slow_rate.is_some())),
            Kind::Time(length) => Recent::Time(TimeWindow::new(length)),
        };
        Cell::new(Memory::new(self.rules, recent), self.probing, 0)
    }
}

/// The reference: every call is kept, and everything is counted again each time.
#[derive(Clone, Debug)]
struct Model {
    setup: Setup,
    now: u64,
    basis: Basis,
    /// Calls since the last change, each with the time it was recorded at.
    calls: Vec<(u64, Sample)>,
    forced: Option<Forced>,
    isolations: u32,
    openings: u32,
    /// Changes so far: tickets of an earlier number are stale.
    changes: u32,
    counts_before: Counts,
    next_id: u32,
}

#[derive(Clone, Debug)]
enum Basis {
    Closed,
    Open { until: u64 },
    HalfOpen(Vec<Probe>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Probe {
    id: u32,
    since: u64,
    /// `None` while it is in flight.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Good,
    Bad,
    Nothing,
}

/// What the model gives out as a ticket.
#[derive(Clone, Copy, Debug)]
enum Paper {
    Uncounted,
    Counted { change: u32 },
    Probe { change: u32, id: u32 },
}

impl Model {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            now: 0,
            basis: Basis::Closed,
            calls: Vec::new(),
            forced: None,
            isolations: 0,
            openings: 0,
            changes: 0,
            counts_before: Counts::default(),
            next_id: 0,
        }
    }

    fn state(&self) -> State {
        if self.isolations > 0 {
            State::Isolated
        } else if let Some(forced) = self.forced {
            match forced {
                Forced::Open => State::ForcedOpen,
                Forced::Closed => State::ForcedClosed,
                Forced::Disabled => State::Disabled,
            }
        } else {
            match self.basis {
                Basis::Closed => State::Closed,
                Basis::Open { .. } => State::Open,
                Basis::HalfOpen(_) => State::HalfOpen,
            }
        }
    }

    /// What the state has counted: the calls in the window as the rules see them now, or the samples of the round.
    fn counts(&self) -> Counts {
        match (self.state(), &self.basis) {
            (State::Closed | State::ForcedClosed, _) => {}
            (State::HalfOpen, Basis::HalfOpen(probes)) => {
                let ends = |end| u32::try_from(probes.iter().filter(|probe| probe.end == Some(end)).count()).unwrap();
                return Counts {
                    calls: ends(End::Good) + ends(End::Bad),
                    failed: ends(End::Bad),
                    slow: 0,
                };
            }
            _ => return self.counts_before,
        }
        let newest = match self.setup.kind {
            Kind::None => 0,
            Kind::Count(size) => usize::try_from(size).unwrap(),
            Kind::Time(_) => usize::MAX,
        };
        let bucket = |time: u64| match self.setup.kind {
            Kind::Time(length) => time / length.div_ceil(10),
            Kind::None | Kind::Count(_) => 0,
        };
        let now = bucket(self.now);
        let mut counts = Counts::default();
        for (time, sample) in self.calls.iter().rev().take(newest) {
            if now - bucket(*time) < 10 {
                counts.calls += 1;
                counts.failed += u32::from(sample.failed);
                counts.slow += u32::from(sample.slow);
            }
        }
        counts
    }

    /// When the open time is over, or the first probe is to be given up.
    fn next_edge(&self) -> Option<u64> {
        match &self.basis {
            Basis::Closed => None,
            Basis::Open { until } => Some(*until),
            Basis::HalfOpen(probes) => {
                let in_flight = probes.iter().filter(|probe| probe.end.is_none());
                let ends = in_flight.map(|probe| probe.since + self.setup.probing.max_probe_time);
                ends.min()
            }
        }
    }

    fn in_flight(&self) -> u32 {
        let Basis::HalfOpen(probes) = &self.basis else {
            return 0;
        };
        u32::try_from(probes.iter().filter(|probe| probe.end.is_none()).count()).unwrap()
    }

    fn change(&mut self, counts: Counts, change: impl FnOnce(&mut Self)) {
        change(self);
        self.changes += 1;
        self.counts_before = counts;
        self.calls.clear();
        if let Basis::HalfOpen(probes) = &mut self.basis {
            probes.clear();
        }
    }

    fn open(&mut self, counts: Counts, retry_after: Option<u64>) {
        let open_for = retry_after.unwrap_or(self.setup.open_for * u64::from(self.openings + 1));
        self.change(counts, |model| {
            model.openings += 1;
            model.basis = Basis::Open {
                until: model.now + open_for,
            };
        });
    }

    fn rules_are_met(&self) -> bool {
        let rules = self.setup.rules;
        let counts = self.counts();
        let by_rate = |part: u32, limit: Option<f64>| {
            limit.is_some_and(|limit| {
                counts.calls >= rules.minimum && counts.calls > 0 && f64::from(part) / f64::from(counts.calls) >= limit
            })
        };
        by_rate(counts.failed, rules.failure_rate)
            || by_rate(counts.slow, rules.slow_rate)
            || rules.consecutive.is_some_and(|limit| self.in_a_row() >= limit)
    }

    fn in_a_row(&self) -> u32 {
        let failed = self.calls.iter().rev().take_while(|(_, sample)| sample.failed);
        u32::try_from(failed.count()).unwrap()
    }

    /// Gives up what had its time, and ends the round where it is decided.
    fn settle_round(&mut self, retry_after: Option<u64>) {
        let Probing {
            samples,
            needed,
            max_probe_time,
            max_undecided,
            ..
        } = self.setup.probing;
        let now = self.now;
        let Basis::HalfOpen(probes) = &mut self.basis else {
            return;
        };
        for probe in probes.iter_mut() {
            if probe.end.is_none() && now >= probe.since + max_probe_time {
                probe.end = Some(End::Bad);
            }
        }
        let ends = |end| u32::try_from(probes.iter().filter(|probe| probe.end == Some(end)).count()).unwrap();
        let (good, bad, nothing) = (ends(End::Good), ends(End::Bad), ends(End::Nothing));
        let counts = self.counts();
        if good >= needed {
            self.change(counts, |model| {
                model.openings = 0;
                model.basis = Basis::Closed;
            });
        } else if bad > samples - needed || nothing >= max_undecided {
            self.open(counts, retry_after);
        }
    }

    fn refusal(&self) -> Refusal {
        let state = self.state();
        let retry_after = match self.basis {
            Basis::Open { until } if state == State::Open => Some(until.saturating_sub(self.now)),
            _ => None,
        };
        Refusal { state, retry_after }
    }

    fn enter(&mut self) -> Result<Paper, Refusal> {
        match self.state() {
            State::Disabled => return Ok(Paper::Uncounted),
            State::ForcedOpen | State::Isolated => return Err(self.refusal()),
            State::Closed | State::ForcedClosed => return Ok(Paper::Counted { change: self.changes }),
            State::Open | State::HalfOpen => {}
        }
        if let Basis::Open { until } = self.basis {
            if self.now < until {
                return Err(self.refusal());
            }
            let counts = self.counts_before;
            self.change(counts, |model| model.basis = Basis::HalfOpen(Vec::new()));
        }
        self.settle_round(None);
        let Probing {
            samples,
            max_concurrent,
            ..
        } = self.setup.probing;
        let (change, id, now) = (self.changes, self.next_id, self.now);
        if let Basis::HalfOpen(probes) = &mut self.basis {
            let in_flight = probes.iter().filter(|probe| probe.end.is_none()).count();
            let decided = probes
                .iter()
                .filter(|probe| matches!(probe.end, Some(End::Good | End::Bad)))
                .count();
            let room = in_flight + decided < usize::try_from(samples).unwrap();
            if room && in_flight < usize::try_from(max_concurrent).unwrap() {
                probes.push(Probe {
                    id,
                    since: now,
                    end: None,
                });
                self.next_id += 1;
                return Ok(Paper::Probe { change, id });
            }
        }
        Err(self.refusal())
    }

    fn exit(&mut self, paper: Paper, sample: Option<Sample>, retry_after: Option<u64>) -> Counted {
        match (paper, sample) {
            (Paper::Uncounted, _) | (Paper::Counted { .. }, None) => Counted::No,
            (Paper::Counted { change } | Paper::Probe { change, .. }, _) if change != self.changes => Counted::Stale,
            (Paper::Counted { .. }, Some(sample)) => {
                self.calls.push((self.now, sample));
                if self.state() == State::Closed && self.rules_are_met() {
                    self.open(self.counts(), retry_after);
                }
                Counted::Yes
            }
            (Paper::Probe { change, id }, sample) => {
                // What is over is over, before this one is looked at.
                self.settle_round(retry_after);
                if change != self.changes {
                    return Counted::Stale;
                }
                let Basis::HalfOpen(probes) = &mut self.basis else {
                    return Counted::Stale;
                };
                let probe = probes.iter_mut().find(|probe| probe.id == id).unwrap();
                if probe.end.is_some() {
                    return Counted::Stale;
                }
                let end = match sample {
                    None => End::Nothing,
                    Some(GOOD) => End::Good,
                    Some(_) => End::Bad,
                };
                probe.end = Some(end);
                self.settle_round(retry_after);
                if end == End::Nothing { Counted::No } else { Counted::Yes }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    /// To where the next time is over, or to just before that.
    AdvanceToTheEdge {
        before: bool,
    },
    Enter,
    Exit {
        which: u32,
        sample: Option<Sample>,
        retry_after: Option<u64>,
    },
    /// A call that is never heard of again.
    Lose(u32),
    /// A call that begins and ends.
    Call(Sample),
    Force(Forced),
    Reset,
    Isolate,
    Release,
    /// An export, and back.
    Restore,
}

// Plain numbers, decoded: a choice between strategies would make a generator of random numbers for each alternative, and
// take most of the time. A smaller number is a simpler step.

/// The point of `0..below` that lies where `number` lies among all.
fn scaled(number: u32, below: u64) -> u64 {
    u64::try_from((u128::from(number) * u128::from(below)) >> 32).unwrap()
}

fn setups() -> impl Strategy<Value = Setup> {
    let rules = (1..8_u32, any::<[u32; 3]>()).prop_map(|(minimum, [failed, slow, in_a_row])| Rules {
        minimum,
        failure_rate: (failed % 5 < 4).then(|| rate(failed / 5)),
        slow_rate: (slow % 5 > 2).then(|| rate(slow / 5)),
        consecutive: (in_a_row % 10 > 6).then(|| 1 + in_a_row / 10 % 4),
    });
    let kind = any::<u32>().prop_map(|number| match number % 9 {
        0 => Kind::None,
        1 | 2 => Kind::Count(1 + number / 9 % 5),
        3 | 4 => Kind::Count(30 + number / 9 % 40),
        5 | 6 => Kind::Time(10 * MS),
        _ => Kind::Time(1 + scaled(number, 2_000 * MS)),
    });
    let probing = (1..6_u32, 1..6_u32, 1..6_u32, 1..3_000_u64, 1..4_u32).prop_map(
        |(samples, needed, max_concurrent, max_probe_time, rounds)| Probing {
            samples,
            needed: needed.min(samples),
            max_concurrent: max_concurrent.min(samples),
            max_probe_time: max_probe_time * MS,
            max_undecided: rounds * samples,
        },
    );
    (rules, kind, probing, 1..2_000_u64).prop_map(|(rules, kind, probing, open_for)| Setup {
        rules,
        kind,
        probing,
        open_for: open_for * MS,
    })
}

fn rate(number: u32) -> f64 {
    match number % 3 {
        0 => 0.5,
        1 => 1.0,
        _ => f64::from(1 + number / 3 % 100) / 100.0,
    }
}

fn sample(number: u32) -> Sample {
    Sample {
        failed: number % 2 == 1,
        slow: number / 2 % 5 == 4,
    }
}

fn step((kind, number): (u32, u32)) -> Step {
    match kind {
        0..12 => Step::Call(sample(number)),
        12..22 => Step::Enter,
        22..30 => Step::Exit {
            which: number,
            sample: (number % 5 < 4).then(|| sample(number / 5)),
            retry_after: (number / 50 % 10 == 9).then(|| scaled(number.rotate_left(16), 3_000 * MS)),
        },
        30..33 => Step::Advance(scaled(number, 50 * MS)),
        33..36 => Step::Advance(scaled(number, 4_000 * MS)),
        36 => Step::Lose(number),
        37 => Step::Reset,
        38 => Step::Force([Forced::Open, Forced::Closed, Forced::Disabled][usize::try_from(number % 3).unwrap()]),
        39 => Step::Isolate,
        40 | 41 => Step::Release,
        42 => Step::Restore,
        _ => Step::AdvanceToTheEdge {
            before: number % 2 == 1,
        },
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..45_u32, any::<u32>()).prop_map(step), 1..80)
}

/// The real breaker and the model, which take the same steps.
struct Pair {
    world: World,
    cell: Cell,
    model: Model,
    calls: Vec<(Ticket, Paper)>,
    /// When the state was last another.
    since: u64,
}

impl Pair {
    fn new(setup: Setup) -> Self {
        Self {
            world: setup.world(),
            cell: setup.cell(),
            model: Model::new(setup),
            calls: Vec::new(),
            since: 0,
        }
    }

    fn advance(&mut self, time: u64) {
        self.model.now += time;
        self.world.now.set(self.model.now);
    }

    fn enter(&mut self) -> Result<(Ticket, Paper), Refusal> {
        let foreseen = self.cell.would_refuse(&self.world).is_some();
        let before = self.cell.state();
        let entered = self.cell.enter(&self.world);
        assert_eq!(foreseen, entered.is_err(), "what was foreseen in {before:?}");
        match (entered, self.model.enter()) {
            (Ok(ticket), Ok(paper)) => Ok((ticket, paper)),
            (Err(refusal), Err(expected)) => {
                assert_eq!(refusal, expected);
                Err(refusal)
            }
            (entered, expected) => panic!("{entered:?}, not {expected:?}"),
        }
    }

    fn exit(&mut self, (ticket, paper): (Ticket, Paper), sample: Option<Sample>, retry_after: Option<u64>) {
        // As the driver does: without a rule for slow calls no call is slow.
        let slow_rule = self.model.setup.rules.slow_rate.is_some();
        let sample = sample.map(|sample| Sample {
            slow: sample.slow && slow_rule,
            ..sample
        });
        // A success asks for nothing.
        let retry_after = retry_after.filter(|_| sample != Some(GOOD));
        let wait = retry_after.map(Duration::from_nanos);
        let counted = match sample {
            // A good call has two ways out: the driver takes the one where it is asked for more than the other.
            Some(GOOD) if self.model.now % 2 == 0 => self.cell.exit_good(ticket, &self.world),
            _ => self.cell.exit(ticket, sample, wait, &self.world),
        };
        assert_eq!(counted, self.model.exit(paper, sample, retry_after));
    }

    fn take(&mut self, which: u32) -> Option<(Ticket, Paper)> {
        let calls = u64::try_from(self.calls.len()).unwrap();
        (calls > 0).then(|| self.calls.swap_remove(usize::try_from(scaled(which, calls)).unwrap()))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Advance(time) => self.advance(*time),
            Step::AdvanceToTheEdge { before } => {
                let edge = self.model.next_edge().unwrap_or(0);
                let until = edge.saturating_sub(u64::from(*before));
                self.advance(until.saturating_sub(self.model.now));
            }
            Step::Enter => {
                if let Ok(call) = self.enter() {
                    self.calls.push(call);
                }
            }
            Step::Exit {
                which,
                sample,
                retry_after,
            } => {
                if let Some(call) = self.take(*which) {
                    self.exit(call, *sample, *retry_after);
                }
            }
            Step::Lose(which) => {
                self.take(*which);
            }
            Step::Call(sample) => {
                if let Ok(call) = self.enter() {
                    self.exit(call, Some(*sample), None);
                }
            }
            Step::Force(forced) => {
                self.cell.force(*forced, &self.world);
                if self.model.forced != Some(Forced::Disabled) {
                    let counts = self.model.counts();
                    self.model.change(counts, |model| model.forced = Some(*forced));
                }
            }
            Step::Reset => {
                self.cell.reset(&self.world);
                let counts = self.model.counts();
                self.model.change(counts, |model| {
                    model.forced = None;
                    model.openings = 0;
                    model.basis = Basis::Closed;
                });
            }
            Step::Isolate => {
                self.cell.isolate(&self.world);
                let counts = self.model.counts();
                self.model.change(counts, |model| model.isolations += 1);
            }
            Step::Restore => {
                let kept = self.cell.export(&self.world);
                assert!(self.cell.restore(&kept, &self.world));
                let (counts, calls) = (self.model.counts(), self.model.calls.clone());
                self.model.change(counts, |model| {
                    let now = model.now;
                    match &mut model.basis {
                        Basis::Closed => {}
                        Basis::Open { until } => *until = now.max(*until),
                        half_open @ Basis::HalfOpen(_) => *half_open = Basis::Open { until: now },
                    }
                });
                self.model.calls = calls;
            }
            Step::Release => {
                if self.model.isolations > 0 {
                    self.cell.release(&self.world);
                    let counts = self.model.counts();
                    self.model.change(counts, |model| model.isolations -= 1);
                }
            }
        }
    }

    /// Takes a step on both sides, and compares all that can be seen.
    fn take_step(&mut self, step: &Step) {
        let before = self.model.state();
        self.step(step);
        let report = self.cell.report(&self.world);
        let state = self.model.state();
        assert_eq!(report.state, state);
        assert_eq!(self.cell.state(), state);
        assert_eq!(report.counts, self.model.counts(), "{state:?}");
        assert_eq!(report.openings, self.model.openings);
        assert_eq!(report.probes_in_flight, self.model.in_flight());
        let rules = self.model.setup.rules;
        let in_a_row = rules.consecutive.map_or(0, |_| self.model.in_a_row());
        assert_eq!((report.failures_in_a_row, report.minimum), (in_a_row, rules.minimum));
        assert_eq!(report.retry_after, self.model.refusal().retry_after);
        let told = self.world.announced.take();
        if !told.is_empty() {
            self.since = self.model.now;
        }
        assert_eq!(report.since, self.since);
        let [first, .., last] = told.as_slice() else {
            // None, or one.
            let expected = (before != state).then_some((before, state));
            assert_eq!(told.first().map(|told| (told.from, told.to)), expected);
            return;
        };
        // A call that begins and ends may do two things.
        assert_eq!((told.len(), first.to), (2, last.from));
        assert_eq!((first.from, last.to), (before, state));
    }
}

#[test]
fn the_breaker_is_the_model_over_random_histories() {
    let mut runner = TestRunner::new(histories(100_000));
    runner
        .run(&(setups(), steps()), |(setup, steps)| {
            let mut pair = Pair::new(setup);
            for step in &steps {
                pair.take_step(step);
            }
            Ok(())
        })
        .unwrap();
}

/// Whatever has happened: calls that succeed close the breaker.
#[test]
fn a_healthy_dependency_closes_the_breaker_from_every_state() {
    let mut runner = TestRunner::new(histories(20_000));
    runner
        .run(&(setups(), steps(), 1..500_u64), |(setup, steps, pause)| {
            let mut pair = Pair::new(setup);
            for step in &steps {
                pair.take_step(step);
            }
            while pair.model.isolations > 0 {
                pair.take_step(&Step::Release);
            }
            if pair.model.forced.is_some() {
                pair.take_step(&Step::Reset);
            }
            // Calls that are under way are never heard of again, and the next one comes after a pause.
            let pause = pause * MS;
            let waited_for = pair.model.refusal().retry_after.unwrap_or(0);
            let opens_again = setup.open_for * u64::from(pair.model.openings + 1);
            let round = setup.probing.max_probe_time + opens_again;
            let calls = u64::from(setup.probing.needed) + 4;
            let deadline = pair.model.now + waited_for + round + calls * pause;
            while pair.model.state() != State::Closed {
                assert!(pair.model.now <= deadline, "still {:?}", pair.model.state());
                pair.take_step(&Step::Call(GOOD));
                pair.advance(pause);
            }
            Ok(())
        })
        .unwrap();
}
