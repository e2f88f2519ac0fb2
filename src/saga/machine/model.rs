//! Every way that a small saga can take, with what really happens at its participants beside what it knows.
//!
//! A run of a step ends in each way there is, its effect having happened or not as far as that way leaves it open; the
//! process may die at any point, and its keys may be too old from then on. At every state an operator may say whatever
//! is true, or make it true by hand before they say it. Each distinct state is visited once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::super::event::{Event, Known, Obstacle, Reality, Reason, SagaEnd, Verb};
use super::super::plan::{Plan, StepKind, StepPlan, WhenInterrupted, WhenUnknown};
use super::state::Phase;
use super::{Circumstances, Direction, Next, State, Stop, decide, unresolved};
use crate::Effect;

/// What has really happened at a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Truth {
    Nothing,
    Happened,
    /// A request is under way that may still arrive.
    Delayed,
    /// Taken back, or closed: what arrives later has no effect.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    state: State,
    truth: Vec<Truth>,
    /// Undos that succeeded, in their order.
    undone: Vec<usize>,
    pivot_succeeded: bool,
    /// How often an operator has said something.
    operated: u8,
    /// Its owners were lost too often, once.
    crashed: bool,
    /// For which step an operator has said that the age of its key does not matter.
    forced: Option<usize>,
    /// An operator has left something as it is.
    given_up: bool,
}

struct Explorer<'p> {
    plan: &'p Plan,
    halt: Option<Stop>,
    /// How often an operator may say something.
    operators: u8,
    /// Each state by its number.
    seen: HashMap<World, usize>,
    todo: Vec<World>,
    ends: HashSet<SagaEnd>,
    /// The state that is looked at, and which leads to which.
    at: usize,
    edges: Vec<(usize, usize)>,
    stuck: Vec<usize>,
    good: Vec<usize>,
}

/// A step that may fail twice, and so may its undo.
pub(super) fn step(name: &'static str, kind: StepKind) -> StepPlan {
    StepPlan {
        name: Cow::Borrowed(name),
        kind,
        has_undo: kind == StepKind::Compensatable,
        can_reconcile: false,
        answers_by_key: false,
        attempts: 2,
        undo_attempts: 2,
        when_unknown: WhenUnknown::Undo,
        when_interrupted: WhenInterrupted::Rerun,
        local: false,
    }
}

pub(super) fn plan(steps: Vec<StepPlan>) -> Plan {
    Plan {
        steps: steps.into(),
        halt_on_undo_failure: false,
    }
}

impl Explorer<'_> {
    /// Explores everything, and says how many states there are and which ends were seen.
    fn explore(plan: &Plan, halt: Option<Stop>, operators: u8) -> (usize, HashSet<SagaEnd>) {
        let mut explorer = Explorer {
            plan,
            halt,
            operators,
            seen: HashMap::new(),
            todo: Vec::new(),
            ends: HashSet::new(),
            at: 0,
            edges: Vec::new(),
            stuck: Vec::new(),
            good: Vec::new(),
        };
        let mut begun = State::new(plan);
        begun.apply(plan, &Event::Created { plan: plan.clone() });
        explorer.visit(World {
            truth: vec![Truth::Nothing; plan.steps.len()],
            undone: Vec::new(),
            pivot_succeeded: false,
            operated: 0,
            crashed: false,
            forced: None,
            given_up: false,
            state: begun,
        });
        while let Some(world) = explorer.todo.pop() {
            explorer.at = explorer.seen[&world];
            explorer.step(&world);
        }
        if operators > 0 {
            explorer.nothing_is_stuck_for_ever();
        }
        (explorer.seen.len(), explorer.ends)
    }

    fn visit(&mut self, world: World) {
        assert!(!world.state.corrupt, "{world:?}");
        let number = self.seen.len();
        let known = self.seen.get(&world).copied();
        let to = known.unwrap_or_else(|| {
            self.seen.insert(world.clone(), number);
            self.todo.push(world);
            number
        });
        self.edges.push((self.at, to));
    }

    /// From each state in which a saga is stuck, a way leads to completed or compensated, without giving anything up.
    fn nothing_is_stuck_for_ever(&self) {
        let mut from = vec![Vec::new(); self.seen.len()];
        for (before, after) in &self.edges {
            from[*after].push(*before);
        }
        let mut saved = vec![false; self.seen.len()];
        let mut todo = self.good.clone();
        while let Some(state) = todo.pop() {
            if !std::mem::replace(&mut saved[state], true) {
                todo.extend(&from[state]);
            }
        }
        if let Some(lost) = self.stuck.iter().find(|state| !saved[**state]) {
            let world = self.seen.iter().find(|(_, number)| *number == lost);
            panic!("no verb helps: {world:?}");
        }
    }

    fn name(&self, step: usize) -> String {
        self.plan.steps[step].name.clone().into_owned()
    }

    /// The world after `event`.
    fn after(&self, world: &World, event: &Event) -> World {
        let mut next = world.clone();
        next.state.apply(self.plan, event);
        assert!(!next.state.corrupt, "{event:?} in {world:?}");
        next
    }

    fn step(&mut self, world: &World) {
        let mut taken = Vec::new();
        // The request to turn back may come at any moment, and a key be too old at any.
        for stop in [None, self.halt] {
            for key_expired in [false, true] {
                let now = Circumstances { stop, key_expired };
                let next = decide(self.plan, &world.state, now);
                if let Next::Start { step, .. } = next {
                    let blind = key_expired && world.state.steps[step].is_unknown();
                    assert!(
                        !blind || world.forced == Some(step),
                        "its participant may have forgotten it, and nobody has forced it: {world:?}"
                    );
                }
                if !taken.contains(&next) {
                    taken.push(next.clone());
                    self.take(world, next);
                }
            }
        }
        if world.operated < self.operators && !world.state.abandoned {
            if world.state.end.is_none() && !world.crashed {
                // Its owners were lost too often.
                let crashed = Event::Finished {
                    end: SagaEnd::Stuck,
                    obstacle: Some(Obstacle::CrashLoop),
                };
                let mut crashed = self.after(world, &crashed);
                crashed.crashed = true;
                self.visit(crashed);
            }
            self.operate(world);
        }
    }

    fn take(&mut self, world: &World, next: Next) {
        match next {
            Next::Corrupt => unreachable!("{world:?}"),
            Next::Rest => self.rest(world),
            Next::Finish { end, obstacle } => self.visit(self.after(world, &Event::Finished { end, obstacle })),
            Next::Unwind { reason } => {
                let pivot = self.plan.steps.iter().zip(&world.truth);
                let mut pivot = pivot.filter(|(step, _)| step.kind == StepKind::Pivot);
                assert!(!world.pivot_succeeded, "turned back after the pivot: {world:?}");
                assert!(
                    pivot.all(|(_, truth)| matches!(truth, Truth::Nothing | Truth::Closed)),
                    "turned back although the pivot may have happened: {world:?}"
                );
                self.visit(self.after(world, &Event::Unwinding { reason }));
            }
            Next::Start { step, failures } => {
                assert!(failures < self.plan.steps[step].attempts, "one run too many: {world:?}");
                self.run(world, step);
            }
            Next::Reconcile { step } => self.reconcile(world, step),
            Next::Undo { step, outcome, .. } => self.undo(world, step, outcome),
        }
    }

    fn run(&mut self, world: &World, step: usize) {
        assert!(
            world.state.steps[..step]
                .iter()
                .all(|before| before.phase == Phase::Succeeded),
            "started before those before it: {world:?}"
        );
        let name = self.name(step);
        if self.plan.steps[step].local {
            return self.run_in_transaction(world, step, &name);
        }
        let started = self.after(world, &Event::Started { step: name.clone() });
        let before = started.truth[step];
        // The process dies: before the request, after it, or while it is under way.
        for truth in [before, done(before), delayed(before)] {
            let mut died = started.clone();
            died.truth[step] = truth;
            self.visit(died);
        }
        // What is closed refuses what comes under its key.
        if before != Truth::Closed {
            let mut succeeded = self.after(&started, &Event::Succeeded { step: name.clone() });
            succeeded.truth[step] = done(before);
            succeeded.pivot_succeeded |= self.plan.steps[step].kind == StepKind::Pivot;
            self.visit(succeeded);
        }
        for retryable in [false, true] {
            for effect in [Effect::None, Effect::Maybe] {
                let failed = Event::Failed {
                    step: name.clone(),
                    effect,
                    retryable,
                    settles: self.plan.steps[step].answers_by_key && effect == Effect::None && !retryable,
                    error: String::new(),
                };
                let failed = self.after(&started, &failed);
                let answers = self.plan.steps[step].answers_by_key && effect == Effect::None && !retryable;
                let truths = match effect {
                    // The truth about all runs: there is no effect, and none is under way.
                    Effect::None if answers && before != Truth::Happened => vec![Truth::Nothing],
                    Effect::None if answers => continue,
                    Effect::None => vec![before],
                    Effect::Maybe => vec![before, done(before), delayed(before)],
                };
                for truth in truths {
                    let mut failed = failed.clone();
                    failed.truth[step] = truth;
                    self.visit(failed);
                }
            }
        }
    }

    /// The effect and its event are committed together: nothing is ever in doubt.
    fn run_in_transaction(&mut self, world: &World, step: usize, name: &str) {
        let step_name = || name.to_owned();
        let mut succeeded = self.after(world, &Event::Succeeded { step: step_name() });
        succeeded.truth[step] = Truth::Happened;
        succeeded.pivot_succeeded |= self.plan.steps[step].kind == StepKind::Pivot;
        self.visit(succeeded);
        for retryable in [false, true] {
            let failed = Event::Failed {
                step: step_name(),
                effect: Effect::None,
                retryable,
                settles: false,
                error: String::new(),
            };
            self.visit(self.after(world, &failed));
        }
    }

    fn reconcile(&mut self, world: &World, step: usize) {
        let name = self.name(step);
        let truth = world.truth[step];
        let answers = [
            (Reality::Done, truth == Truth::Happened, truth),
            (
                Reality::NotDone,
                matches!(truth, Truth::Nothing | Truth::Delayed),
                truth,
            ),
            (Reality::Never, truth != Truth::Happened, Truth::Closed),
            (Reality::Unknown, true, truth),
        ];
        for (reality, possible, truth) in answers {
            if possible {
                let event = Event::Reconciled {
                    step: name.clone(),
                    reality,
                };
                let mut told = self.after(world, &event);
                told.truth[step] = truth;
                told.pivot_succeeded |= reality == Reality::Done && self.plan.steps[step].kind == StepKind::Pivot;
                self.visit(told);
            }
        }
    }

    fn undo(&mut self, world: &World, step: usize, outcome: Known) {
        assert!(matches!(world.state.direction, Direction::Backward(_)));
        // What an operator has reopened comes after what was undone meanwhile; nothing is undone twice.
        let order = |undone: &usize| *undone > step || (world.operated > 0 && *undone != step);
        assert!(world.undone.iter().all(order), "not in reverse, or twice: {world:?}");
        if outcome == Known::Completed {
            let happened = matches!(world.truth[step], Truth::Happened | Truth::Closed);
            assert!(happened, "told that it has happened: {world:?}");
        }
        let name = self.name(step);
        let started = Event::UndoStarted {
            step: name.clone(),
            outcome,
        };
        let started = self.after(world, &started);
        // The process dies before the undo arrives, or after.
        self.visit(started.clone());
        let mut died = started.clone();
        died.truth[step] = Truth::Closed;
        self.visit(died);
        let mut undone = self.after(&started, &Event::UndoSucceeded { step: name.clone() });
        undone.truth[step] = Truth::Closed;
        undone.undone.push(step);
        self.visit(undone);
        let last = started.state.steps[step].undo_failures + 1 >= self.plan.steps[step].undo_attempts;
        let failed = Event::UndoFailed {
            step: name,
            error: String::new(),
            last,
        };
        self.visit(self.after(&started, &failed));
    }

    fn stuck(&mut self, world: &World) {
        if world.operated == 0 {
            self.stuck.push(self.at);
        }
    }

    /// Whatever an operator may truthfully say here, and no lie.
    fn operate(&mut self, world: &World) {
        for verb in [
            Verb::Retry { force: false },
            Verb::Retry { force: true },
            Verb::Compensate,
            Verb::Cancel,
            Verb::Abandon,
        ] {
            self.say(world, &verb);
        }
        let forward = world.state.direction == Direction::Forward;
        for step in 0..self.plan.steps.len() {
            let with = |truth| {
                let mut world = world.clone();
                world.truth[step] = truth;
                world
            };
            let name = || self.name(step);
            let (done, never, skip) = (
                Verb::ResolveDone { step: name() },
                Verb::ResolveNever { step: name() },
                Verb::Skip { step: name() },
            );
            let truth = world.truth[step];
            // On the way forward they may have done by hand what the step should have.
            if forward || truth == Truth::Happened {
                self.say(&with(Truth::Happened), &done);
            }
            // They have looked, or have taken it back by hand, or have had what is under way stopped.
            self.say(&with(Truth::Closed), &never);
            if truth == Truth::Nothing {
                self.say(world, &never);
            }
            self.say(world, &skip);
        }
    }

    fn say(&mut self, world: &World, verb: &Verb) {
        let permitted = world.state.permits(self.plan, verb);
        let mut next = world.clone();
        let event = Event::Operator {
            who: String::new(),
            verb: verb.clone(),
            note: String::new(),
        };
        next.state.apply(self.plan, &event);
        assert_eq!(permitted.is_err(), next.state.corrupt, "{verb:?} in {world:?}");
        if permitted.is_err() {
            return;
        }
        next.operated += 1;
        let open = world.state.steps.iter().position(|step| !step.is_done());
        match verb {
            Verb::Retry { force } => next.forced = open.filter(|_| *force),
            Verb::ResolveDone { step } if world.state.direction == Direction::Forward => {
                let step = self.plan.index(step).expect("a step");
                next.pivot_succeeded |= self.plan.steps[step].kind == StepKind::Pivot;
            }
            Verb::Compensate | Verb::Cancel => {
                let mut pivot = self.plan.steps.iter().zip(&world.truth);
                let pivot = pivot.find(|(step, _)| step.kind == StepKind::Pivot);
                assert!(
                    pivot.is_none_or(|(_, truth)| matches!(truth, Truth::Nothing | Truth::Closed)),
                    "turned back although the pivot may have happened: {world:?}"
                );
            }
            Verb::Skip { .. } | Verb::Abandon => next.given_up = true,
            _ => {}
        }
        self.visit(next);
    }

    fn rest(&mut self, world: &World) {
        let end = world.state.end.expect("it rests");
        self.ends.insert(end);
        let unresolved = unresolved(self.plan, &world.state);
        let steps = self.plan.steps.iter().zip(&world.truth);
        match end {
            SagaEnd::Completed => {
                assert!(steps.clone().all(|(_, truth)| *truth == Truth::Happened), "{world:?}");
                assert!(unresolved.is_empty());
                self.good.push(self.at);
            }
            SagaEnd::Compensated => {
                for (planned, truth) in steps {
                    let needs_none = planned.kind == StepKind::ReadOnly
                        || (planned.kind == StepKind::Compensatable && !planned.has_undo)
                        || planned.when_unknown == WhenUnknown::Skip;
                    assert!(
                        needs_none || matches!(truth, Truth::Nothing | Truth::Closed),
                        "{} is still there: {world:?}",
                        planned.name
                    );
                }
                assert!(unresolved.is_empty(), "{world:?}");
                self.good.push(self.at);
            }
            SagaEnd::Stuck if world.state.obstacle == Some(Obstacle::CrashLoop) => self.stuck(world),
            SagaEnd::Stuck => {
                self.stuck(world);
                assert!(!unresolved.is_empty(), "stuck, and nowhere: {world:?}");
                let by_itself = world.state.obstacle == Some(Obstacle::PivotUnknown);
                let pivot = self.plan.steps.iter().zip(&world.state.steps);
                let mut asked = pivot.filter(|(step, at)| {
                    step.kind == StepKind::Pivot && step.can_reconcile && at.is_unknown() && by_itself
                });
                assert!(asked.all(|(_, at)| at.reconciled), "given up without asking: {world:?}");
            }
            SagaEnd::Abandoned => assert!(world.given_up, "nobody has given it up: {world:?}"),
        }
    }
}

fn done(truth: Truth) -> Truth {
    match truth {
        Truth::Closed => Truth::Closed,
        Truth::Nothing | Truth::Happened | Truth::Delayed => Truth::Happened,
    }
}

fn delayed(truth: Truth) -> Truth {
    match truth {
        Truth::Nothing => Truth::Delayed,
        other => other,
    }
}

fn plans() -> Vec<(&'static str, Plan)> {
    use StepKind::{Compensatable, Pivot, ReadOnly, Retriable};
    let with = |kind, change: &dyn Fn(&mut StepPlan)| {
        let mut step = step("b", kind);
        change(&mut step);
        step
    };
    let hook = |step: &mut StepPlan| step.can_reconcile = true;
    let local = |step: &mut StepPlan| step.local = true;
    vec![
        ("one", plan(vec![step("a", Compensatable)])),
        (
            "three",
            plan(vec![
                step("a", Compensatable),
                step("b", Compensatable),
                step("c", Compensatable),
            ]),
        ),
        (
            "read-only",
            plan(vec![
                step("a", Compensatable),
                step("b", ReadOnly),
                step("c", Compensatable),
            ]),
        ),
        (
            "pivot",
            plan(vec![step("a", Compensatable), step("b", Pivot), step("c", Retriable)]),
        ),
        ("pivot alone", plan(vec![step("b", Pivot)])),
        (
            "step in a transaction",
            plan(vec![
                step("a", Compensatable),
                with(Compensatable, &local),
                step("c", Compensatable),
            ]),
        ),
        (
            "pivot in a transaction",
            plan(vec![
                step("a", Compensatable),
                with(Pivot, &local),
                step("c", Retriable),
            ]),
        ),
        (
            "pivot with a hook",
            plan(vec![step("a", Compensatable), with(Pivot, &hook), step("c", Retriable)]),
        ),
        (
            "hook",
            plan(vec![
                step("a", Compensatable),
                with(Compensatable, &hook),
                step("c", Compensatable),
            ]),
        ),
        (
            "no undo",
            plan(vec![
                step("a", Compensatable),
                with(Compensatable, &|step| step.has_undo = false),
            ]),
        ),
        (
            "answers by key",
            plan(vec![
                step("a", Compensatable),
                with(Pivot, &|step| step.answers_by_key = true),
                step("c", Retriable),
            ]),
        ),
        (
            "skips",
            plan(vec![
                step("a", Compensatable),
                with(Compensatable, &|step| step.when_unknown = WhenUnknown::Skip),
            ]),
        ),
        (
            "sticks",
            plan(vec![
                step("a", Compensatable),
                with(Compensatable, &|step| step.when_unknown = WhenUnknown::Stick),
            ]),
        ),
        (
            "halts",
            Plan {
                halt_on_undo_failure: true,
                ..plan(vec![
                    step("a", Compensatable),
                    step("b", Compensatable),
                    step("c", Compensatable),
                ])
            },
        ),
    ]
}

#[test]
fn every_way_of_every_saga_ends_completed_compensated_or_visibly_stuck_and_the_books_balance() {
    let mut states = 0;
    for (name, plan) in plans() {
        for halt in [None, Some(Stop::Cancelled), Some(Stop::Deadline)] {
            let (found, ends) = Explorer::explore(&plan, halt, 0);
            assert!(ends.contains(&SagaEnd::Completed), "{name}");
            states += found;
            if halt.is_some() {
                assert!(ends.contains(&SagaEnd::Compensated), "{name}");
            }
        }
    }
    println!("figure: states of sagas visited: {states}");
}

/// One attempt each, as operators give new ones; and every policy that decides where a saga gets stuck.
fn plans_for_operators() -> Vec<(String, Plan)> {
    use StepKind::{Compensatable, Pivot, ReadOnly, Retriable};
    let once = |name, kind, change: &dyn Fn(&mut StepPlan)| {
        let mut step = step(name, kind);
        (step.attempts, step.undo_attempts) = (1, 1);
        change(&mut step);
        step
    };
    let as_is = |_: &mut StepPlan| {};
    let two = || vec![once("a", Compensatable, &as_is), once("b", Compensatable, &as_is)];
    let mut plans = vec![("two".to_owned(), plan(two()))];
    plans.push((
        "two, halting".to_owned(),
        Plan {
            halt_on_undo_failure: true,
            ..plan(two())
        },
    ));
    plans.push((
        "all".to_owned(),
        plan(vec![
            once("a", Compensatable, &as_is),
            once("b", Pivot, &as_is),
            once("c", Retriable, &as_is),
        ]),
    ));
    let local = |step: &mut StepPlan| step.local = true;
    for (kind, then) in [(Compensatable, Compensatable), (Pivot, Retriable)] {
        plans.push((
            format!("{kind:?} in a transaction"),
            plan(vec![once("a", kind, &local), once("b", then, &local)]),
        ));
    }
    for interrupted in [
        WhenInterrupted::Rerun,
        WhenInterrupted::Reconcile,
        WhenInterrupted::TurnBack,
        WhenInterrupted::Stick,
    ] {
        for hook in [false, true] {
            let policy = |step: &mut StepPlan| {
                step.when_interrupted = interrupted;
                step.can_reconcile = hook;
            };
            if interrupted == WhenInterrupted::Reconcile && !hook {
                continue;
            }
            let name = |what: &str| format!("{what}, {interrupted:?}, hook: {hook}");
            for unknown in [WhenUnknown::Undo, WhenUnknown::Skip, WhenUnknown::Stick] {
                let step = once("a", Compensatable, &|step| {
                    policy(step);
                    step.when_unknown = unknown;
                });
                plans.push((name(&format!("step, {unknown:?}")), plan(vec![step])));
            }
            let no_undo = once("a", Compensatable, &|step| {
                policy(step);
                step.has_undo = false;
            });
            plans.push((name("without undo"), plan(vec![no_undo])));
            plans.push((name("read-only"), plan(vec![once("a", ReadOnly, &policy)])));
            if interrupted == WhenInterrupted::TurnBack {
                continue;
            }
            for answers in [false, true] {
                let pivot = once("b", Pivot, &|step| {
                    policy(step);
                    step.answers_by_key = answers;
                });
                plans.push((name("pivot"), plan(vec![pivot, once("c", Retriable, &as_is)])));
            }
            let retriable = once("c", Retriable, &policy);
            plans.push((name("retriable"), plan(vec![once("b", Pivot, &as_is), retriable])));
        }
    }
    plans
}

#[test]
fn whatever_an_operator_truthfully_says_the_books_balance_and_nothing_is_stuck_for_ever() {
    let mut states = 0;
    for (name, plan) in plans_for_operators() {
        let (found, ends) = Explorer::explore(&plan, None, 2);
        println!("{name}: {found}");
        for end in [SagaEnd::Completed, SagaEnd::Stuck, SagaEnd::Abandoned] {
            assert!(ends.contains(&end), "{name}: never {end:?}");
        }
        states += found;
    }
    println!("figure: states of sagas visited, operators included: {states}");
}

/// Every event in every state is applied without a panic, and what cannot have happened makes the state corrupt.
#[test]
fn the_fold_is_total() {
    let plan = &plans()[3].1;
    let (mut corrupt, mut sound) = (0, 0);
    let mut states = vec![State::new(plan)];
    for _ in 0..4 {
        let mut next = Vec::new();
        for state in &states {
            for event in events(&["a", "b", "c", "nobody"]) {
                let mut after = state.clone();
                after.apply(plan, &event);
                if after.corrupt {
                    corrupt += 1;
                    let next = decide(plan, &after, Circumstances::default());
                    let given_up = matches!(
                        next,
                        Next::Finish {
                            end: SagaEnd::Abandoned,
                            ..
                        }
                    ) && after.abandoned;
                    assert!(matches!(next, Next::Corrupt | Next::Rest) || given_up, "{after:?}");
                } else {
                    sound += 1;
                    assert_ne!(
                        decide(plan, &after, Circumstances::default()),
                        Next::Corrupt,
                        "{after:?}"
                    );
                    next.push(after);
                }
            }
        }
        states = next;
    }
    assert!(corrupt > 100 && sound > 50, "{corrupt} and {sound}");
}

fn events(steps: &[&str]) -> Vec<Event> {
    let plan = Plan::default();
    let mut events = vec![Event::Created { plan: plan.clone() }, Event::Replanned { plan }];
    for step in steps {
        let step = || (*step).to_owned();
        events.push(Event::Started { step: step() });
        events.push(Event::Succeeded { step: step() });
        for (effect, retryable) in [(Effect::None, false), (Effect::Maybe, true)] {
            let error = String::new();
            events.push(Event::Failed {
                step: step(),
                effect,
                retryable,
                settles: !retryable,
                error,
            });
        }
        for reality in [Reality::Done, Reality::NotDone, Reality::Never, Reality::Unknown] {
            events.push(Event::Reconciled { step: step(), reality });
        }
        events.push(Event::Unwinding {
            reason: Reason::Failed { step: step() },
        });
        for outcome in [Known::Completed, Known::Unknown] {
            events.push(Event::UndoStarted { step: step(), outcome });
        }
        events.push(Event::UndoSucceeded { step: step() });
        for last in [false, true] {
            let error = String::new();
            events.push(Event::UndoFailed {
                step: step(),
                error,
                last,
            });
        }
    }
    for end in [SagaEnd::Completed, SagaEnd::Compensated, SagaEnd::Stuck] {
        events.push(Event::Finished { end, obstacle: None });
    }
    let mut verbs = vec![
        Verb::Retry { force: true },
        Verb::Compensate,
        Verb::Cancel,
        Verb::Abandon,
    ];
    for step in steps {
        let step = || (*step).to_owned();
        verbs.push(Verb::ResolveDone { step: step() });
        verbs.push(Verb::ResolveNever { step: step() });
        verbs.push(Verb::Skip { step: step() });
    }
    events.extend(verbs.into_iter().map(|verb| Event::Operator {
        who: String::new(),
        verb,
        note: String::new(),
    }));
    events
}
