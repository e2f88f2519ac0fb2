//! Every way that a small saga can take, with what really happens at its participants beside what it knows.
//!
//! A run of a step ends in each way there is, its effect having happened or not as far as that way leaves it open; the
//! process may die at any point. Each distinct state is visited once.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::event::{Event, Known, Reality, Reason, SagaEnd};
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
}

struct Explorer<'p> {
    plan: &'p Plan,
    halt: Option<Stop>,
    seen: HashSet<World>,
    todo: Vec<World>,
    ends: HashSet<SagaEnd>,
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
    fn explore(plan: &Plan, halt: Option<Stop>) -> (usize, HashSet<SagaEnd>) {
        let mut explorer = Explorer {
            plan,
            halt,
            seen: HashSet::new(),
            todo: Vec::new(),
            ends: HashSet::new(),
        };
        let mut begun = State::new(plan);
        begun.apply(plan, &Event::Created { plan: plan.clone() });
        explorer.visit(World {
            truth: vec![Truth::Nothing; plan.steps.len()],
            undone: Vec::new(),
            pivot_succeeded: false,
            state: begun,
        });
        while let Some(world) = explorer.todo.pop() {
            explorer.step(&world);
        }
        (explorer.seen.len(), explorer.ends)
    }

    fn visit(&mut self, world: World) {
        assert!(!world.state.corrupt, "{world:?}");
        if self.seen.insert(world.clone()) {
            self.todo.push(world);
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
        self.take(world, None);
        // The request to turn back may come at any moment.
        if self.halt.is_some() {
            self.take(world, self.halt);
        }
    }

    fn take(&mut self, world: &World, halt: Option<Stop>) {
        let now = Circumstances {
            stop: halt,
            ..Circumstances::default()
        };
        match decide(self.plan, &world.state, now) {
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
        let started = self.after(world, &Event::Started { step: name.clone() });
        let before = started.truth[step];
        // The process dies: before the request, after it, or while it is under way.
        for truth in [before, done(before), delayed(before)] {
            let mut died = started.clone();
            died.truth[step] = truth;
            self.visit(died);
        }
        let mut succeeded = self.after(&started, &Event::Succeeded { step: name.clone() });
        succeeded.truth[step] = done(before);
        succeeded.pivot_succeeded |= self.plan.steps[step].kind == StepKind::Pivot;
        self.visit(succeeded);
        for retryable in [false, true] {
            for effect in [Effect::None, Effect::Maybe] {
                let failed = Event::Failed {
                    step: name.clone(),
                    effect,
                    retryable,
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
        assert!(
            world.undone.iter().all(|undone| *undone > step),
            "not in reverse: {world:?}"
        );
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

    fn rest(&mut self, world: &World) {
        let end = world.state.end.expect("it rests");
        self.ends.insert(end);
        let unresolved = unresolved(self.plan, &world.state);
        let steps = self.plan.steps.iter().zip(&world.truth);
        match end {
            SagaEnd::Completed => {
                assert!(steps.clone().all(|(_, truth)| *truth == Truth::Happened), "{world:?}");
                assert!(unresolved.is_empty());
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
            }
            SagaEnd::Stuck => {
                assert!(!unresolved.is_empty(), "stuck, and nowhere: {world:?}");
                let pivot = self.plan.steps.iter().zip(&world.state.steps);
                let mut asked =
                    pivot.filter(|(step, at)| step.kind == StepKind::Pivot && step.can_reconcile && at.is_unknown());
                assert!(asked.all(|(_, at)| at.reconciled), "given up without asking: {world:?}");
            }
            SagaEnd::Abandoned => unreachable!("nobody gives it up"),
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
            let (found, ends) = Explorer::explore(&plan, halt);
            assert!(ends.contains(&SagaEnd::Completed), "{name}");
            states += found;
            if halt.is_some() {
                assert!(ends.contains(&SagaEnd::Compensated), "{name}");
            }
        }
    }
    println!("figure: states of sagas visited: {states}");
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
                    assert!(matches!(next, Next::Corrupt | Next::Rest), "{after:?}");
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
    events
}
