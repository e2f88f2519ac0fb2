//! The sagas that are killed: their steps, and how they may end.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::Backoff;
use steadfast::saga::{Cx, Known, Saga, Step, StepError, StepResult};

use super::super::support::kill::Child;
use super::world::{Call, World};

/// What the steps have done to it, each by its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) done: Vec<String>,
    pub(crate) undone: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) world: Arc<World>,
    pub(crate) child: Arc<Child>,
}

/// What an action does. All but the first two have their effect.
#[derive(Clone, Copy)]
pub(super) enum Does {
    /// It says no.
    Fail,
    /// Nothing is sent the first time.
    FailOnce,
    Succeed,
    /// It loses every reply.
    Break,
    /// It succeeds, or says no where it was called before: a participant that has forgotten the key.
    Forget,
    /// Its process dies of it.
    Kill,
}

#[derive(Clone, Copy)]
enum Undoes {
    Succeed,
    FailOnce,
    Fail,
}

/// A saga of the steps `a`, `b` and `c`, of which `b` is a pivot where `c` is retriable.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    steps: [(Does, Undoes); 3],
    pub(crate) pivot: bool,
    /// The effect of `b` is in the journal's own database.
    pub(crate) local: bool,
    /// How often a run writes that nothing disturbs.
    pub(crate) writes: usize,
    /// How it may end, the first where nothing disturbs it.
    pub(crate) ends: &'static [&'static str],
}

const WELL: (Does, Undoes) = (Does::Succeed, Undoes::Succeed);
const ENDS_WELL: &[&str] = &["completed"];
const TURNS_BACK: &[&str] = &["compensated"];

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "completes",
        steps: [WELL; 3],
        pivot: false,
        local: false,
        writes: 4,
        ends: ENDS_WELL,
    },
    Scenario {
        name: "turns_back",
        steps: [WELL, WELL, (Does::Fail, Undoes::Succeed)],
        pivot: false,
        local: false,
        writes: 6,
        ends: TURNS_BACK,
    },
    Scenario {
        name: "unknown",
        steps: [WELL, (Does::Break, Undoes::Succeed), WELL],
        pivot: false,
        local: false,
        writes: 7,
        ends: TURNS_BACK,
    },
    Scenario {
        name: "forgets",
        steps: [WELL, (Does::Forget, Undoes::Succeed), WELL],
        pivot: false,
        local: false,
        writes: 4,
        ends: &["completed", "compensated"],
    },
    Scenario {
        name: "undo_fails_once",
        steps: [WELL, (Does::Succeed, Undoes::FailOnce), (Does::Fail, Undoes::Succeed)],
        pivot: false,
        local: false,
        writes: 8,
        ends: TURNS_BACK,
    },
    Scenario {
        name: "undo_fails",
        steps: [WELL, (Does::Succeed, Undoes::Fail), (Does::Fail, Undoes::Succeed)],
        pivot: false,
        local: false,
        writes: 10,
        ends: &["stuck not_undone b"],
    },
    Scenario {
        name: "pivot",
        steps: [WELL; 3],
        pivot: true,
        local: false,
        writes: 4,
        ends: ENDS_WELL,
    },
    Scenario {
        name: "flaky_after_pivot",
        steps: [WELL, WELL, (Does::FailOnce, Undoes::Succeed)],
        pivot: true,
        local: false,
        writes: 6,
        ends: ENDS_WELL,
    },
    Scenario {
        name: "local",
        steps: [WELL; 3],
        pivot: false,
        local: true,
        writes: 4,
        ends: ENDS_WELL,
    },
    Scenario {
        name: "local_turns_back",
        steps: [WELL, (Does::FailOnce, Undoes::FailOnce), (Does::Fail, Undoes::Succeed)],
        pivot: false,
        local: true,
        writes: 9,
        ends: TURNS_BACK,
    },
    Scenario {
        name: "local_pivot",
        steps: [WELL, WELL, (Does::FailOnce, Undoes::Succeed)],
        pivot: true,
        local: true,
        writes: 6,
        ends: ENDS_WELL,
    },
    Scenario {
        name: "poison",
        steps: [WELL, (Does::Kill, Undoes::Succeed), WELL],
        pivot: false,
        local: false,
        writes: 4,
        ends: &["stuck crash_loop b"],
    },
];

impl Scenario {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        SCENARIOS.into_iter()
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::all().find(|scenario| scenario.name == name).expect(name)
    }

    pub(crate) fn saga(self, deps: &Deps) -> Saga<Order, Deps> {
        let [a, b, c] = self.steps;
        let builder = Saga::builder_with(self.name, deps.clone()).with(step("a", a));
        let b = match (self.local, self.pivot) {
            (false, false) => step("b", b),
            (false, true) => quick(Step::pivot("b", async move |cx: &mut Cx<Order, Deps>| act(cx, b.0))),
            (true, pivot) => {
                let step = quick(deps.world.bookings.step(b.0));
                if pivot {
                    step.as_pivot()
                } else {
                    step.with_undo(async move |cx: &mut Cx<Order, Deps>| undo_local(cx, b.1))
                }
            }
        };
        let c = if self.pivot {
            quick(Step::retriable("c", async move |cx: &mut Cx<Order, Deps>| act(cx, c.0)))
        } else {
            step("c", c)
        };
        builder.with(b).with(c).build().unwrap()
    }
}

fn step(name: &'static str, (does, undoes): (Does, Undoes)) -> Step<Order, Deps> {
    quick(Step::compensatable(
        name,
        async move |cx: &mut Cx<Order, Deps>| act(cx, does),
        async move |cx: &mut Cx<Order, Deps>| undo(cx, undoes),
    ))
}

/// Two attempts, three undos, and hardly a wait between them.
fn quick(step: Step<Order, Deps>) -> Step<Order, Deps> {
    let pause = Backoff::constant(Duration::from_millis(1));
    step.attempts(2)
        .undo_attempts(3)
        .backoff(pause.clone())
        .undo_backoff(pause)
}

pub(super) fn call(cx: &Cx<Order, Deps>, verb: &str) -> Call {
    let outcome = match cx.outcome() {
        Known::Completed => "completed",
        Known::Unknown => "unknown",
    };
    Call {
        saga: cx.saga_id().to_string(),
        step: cx.step().to_owned(),
        verb: verb.to_owned(),
        key: cx.idempotency_key(),
        action_key: cx.action_key(),
        epoch: cx.fence().try_into().unwrap(),
        outcome: outcome.to_owned(),
        context: serde_json::to_string(&**cx).unwrap(),
    }
}

fn act(cx: &mut Cx<Order, Deps>, does: Does) -> StepResult {
    let Deps { world, child } = cx.deps().clone();
    let call = call(cx, "do");
    let step = call.step.clone();
    child.reach(&format!("before do {step}"));
    let times = world.note(&call);
    match does {
        Does::Fail => return Err(StepError::failed("no")),
        Does::FailOnce if times == 1 => return Err(StepError::not_sent("nothing was sent")),
        Does::Forget if times > 1 => return Err(StepError::failed("no")),
        Does::Kill => child.reach("poison"),
        _ => {}
    }
    if !world.act(&call) {
        return Err(StepError::failed("the key is closed"));
    }
    child.reach(&format!("after do {step}"));
    if matches!(does, Does::Break) {
        return Err(StepError::unknown("the reply was lost"));
    }
    cx.done.push(step);
    Ok(())
}

fn undo(cx: &mut Cx<Order, Deps>, undoes: Undoes) -> StepResult {
    let Deps { world, child } = cx.deps().clone();
    let call = call(cx, "undo");
    let step = call.step.clone();
    child.reach(&format!("before undo {step}"));
    let times = world.note(&call);
    match undoes {
        Undoes::Fail => return Err(StepError::failed("no")),
        Undoes::FailOnce if times == 1 => return Err(StepError::unknown("the reply was lost")),
        _ => world.undo(&call),
    }
    child.reach(&format!("after undo {step}"));
    cx.undone.push(step);
    Ok(())
}

fn undo_local(cx: &mut Cx<Order, Deps>, undoes: Undoes) -> StepResult {
    let Deps { world, child } = cx.deps().clone();
    let call = call(cx, "undo");
    child.reach("before undo b");
    if matches!((undoes, world.note(&call)), (Undoes::FailOnce, 1)) {
        return Err(StepError::unknown("the database could not be reached"));
    }
    world.bookings.remove(&call.saga);
    child.reach("after undo b");
    cx.undone.push(call.step);
    Ok(())
}
