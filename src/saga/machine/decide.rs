//! What is to be done next: a function of the plan and the state.
//!
//! | the step | going forward | going back |
//! |---|---|---|
//! | untouched | start it | skip |
//! | started, no result | as its plan says: start it again, ask its hook, turn back, rest | unknown |
//! | succeeded | the next | undo it |
//! | failed without effect, retryable, attempts left | wait, start it | skip; unknown if an earlier run was |
//! | failed without effect, for good | turn back | skip; unknown if an earlier run was |
//! | failed, may have had its effect, attempts left | wait, start it | unknown |
//! | failed, may have had its effect, for good | turn back; a pivot: ask its hook, rest | unknown |
//! | its undo was started, or failed and may be tried again | | undo it, told the same |
//! | its undo failed for good | | skip, and rest in the end |
//! | undone | | skip |
//!
//! Unknown, going back: ask its hook if it has one, then undo, skip or rest as its plan says. After the pivot there is
//! no turning back: what would turn rests instead.

use super::super::event::{Known, Obstacle, Reality, Reason, SagaEnd};
use super::super::plan::{Plan, StepKind, StepPlan, WhenInterrupted, WhenUnknown};
use super::state::{Direction, Phase, State, StepState};
use crate::Effect;

/// Why a saga stops short of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    Deadline,
}

/// What matters for a decision and is no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// Something would be started that nobody needs any more.
    pub(crate) stop: Option<Stop>,
    /// The key of the step that is open is older than its participant may remember.
    pub(crate) key_expired: bool,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run a step, after a wait if it has failed so often.
    Start { step: usize, failures: u32 },
    /// Ask its hook what has happened.
    Reconcile { step: usize },
    /// Turn back.
    Unwind { reason: Reason },
    /// Run the undo of a step, after a wait if it has failed so often.
    Undo { step: usize, outcome: Known, failures: u32 },
    /// Rest.
    Finish { end: SagaEnd, obstacle: Option<Obstacle> },
    /// Nothing: it rests.
    Rest,
    /// Nothing: its events cannot have happened.
    Corrupt,
}

/// What is to be done next.
pub(crate) fn decide(plan: &Plan, state: &State, now: Circumstances) -> Next {
    if state.end.is_some() {
        return Next::Rest;
    }
    if state.abandoned {
        return finish(SagaEnd::Abandoned);
    }
    if state.corrupt || !state.created {
        return Next::Corrupt;
    }
    match state.direction {
        Direction::Forward => forward(plan, state, now),
        Direction::Backward(_) => backward(plan, state),
    }
}

fn finish(end: SagaEnd) -> Next {
    Next::Finish { end, obstacle: None }
}

fn stuck(obstacle: Obstacle) -> Next {
    Next::Finish {
        end: SagaEnd::Stuck,
        obstacle: Some(obstacle),
    }
}

fn forward(plan: &Plan, state: &State, now: Circumstances) -> Next {
    let open = state.steps.iter().position(|step| !step.is_done());
    let Some(step) = open else {
        return finish(SagaEnd::Completed);
    };
    let (planned, at) = (&plan.steps[step], &state.steps[step]);
    let turn = |reason| {
        if state.may_unwind(plan) {
            Next::Unwind { reason }
        } else if planned.kind == StepKind::Pivot {
            stuck(Obstacle::PivotUnknown)
        } else {
            stuck(Obstacle::NotFinished)
        }
    };
    let name = || planned.name.clone().into_owned();
    let failed = || turn(Reason::Failed { step: name() });
    let hook = planned.can_reconcile && !at.reconciled && at.is_unknown();
    let start = |failures| match now.stop {
        Some(why) if state.may_unwind(plan) => Next::Unwind {
            reason: match why {
                Stop::Cancelled => Reason::Cancelled,
                Stop::Deadline => Reason::Deadline,
            },
        },
        // A participant that has forgotten the key would do it a second time.
        _ if now.key_expired && at.is_unknown() && !state.forced => {
            if hook {
                Next::Reconcile { step }
            } else {
                stuck(Obstacle::KeyExpired)
            }
        }
        _ => Next::Start { step, failures },
    };
    match at.phase {
        Phase::Untouched => start(0),
        Phase::Started => match planned.when_interrupted {
            WhenInterrupted::Rerun => start(at.failures),
            WhenInterrupted::Reconcile if hook => Next::Reconcile { step },
            WhenInterrupted::Reconcile | WhenInterrupted::Stick => stuck(Obstacle::Interrupted),
            WhenInterrupted::TurnBack => turn(Reason::Interrupted { step: name() }),
        },
        Phase::Failed { retryable: true, .. } if at.failures < planned.attempts => start(at.failures),
        Phase::Failed { effect, .. } => {
            if planned.kind == StepKind::Pivot && (effect == Effect::Maybe || at.maybe) {
                // Neither way is allowed until it is known.
                return if hook {
                    Next::Reconcile { step }
                } else {
                    stuck(Obstacle::PivotUnknown)
                };
            }
            failed()
        }
        // It has not happened, but may still: it is safe to run it again, and nothing else.
        Phase::Reconciled(Reality::NotDone) if at.failures < planned.attempts.max(1) => start(at.failures),
        Phase::Reconciled(_) => failed(),
        Phase::Succeeded | Phase::Undoing(_) | Phase::UndoFailed { .. } | Phase::Undone | Phase::Skipped => {
            Next::Corrupt
        }
    }
}

fn backward(plan: &Plan, state: &State) -> Next {
    let mut unresolved = false;
    for (step, (planned, at)) in plan.steps.iter().zip(&state.steps).enumerate().rev() {
        match undo(planned, at, step) {
            Back::Nothing => {}
            Back::Do(next) => return next,
            Back::Unresolved if plan.halt_on_undo_failure => return stuck(Obstacle::NotUndone),
            Back::Unresolved => unresolved = true,
        }
    }
    if unresolved {
        stuck(Obstacle::NotUndone)
    } else if state.steps.iter().any(|step| step.phase == Phase::Skipped) {
        finish(SagaEnd::Abandoned)
    } else {
        finish(SagaEnd::Compensated)
    }
}

/// What a step needs on the way back.
enum Back {
    Nothing,
    Do(Next),
    /// Somebody has to look at it.
    Unresolved,
}

fn undo(planned: &StepPlan, at: &StepState, step: usize) -> Back {
    let run = |outcome| {
        Back::Do(Next::Undo {
            step,
            outcome,
            failures: at.undo_failures,
        })
    };
    match at.phase {
        Phase::Undone | Phase::Skipped => Back::Nothing,
        Phase::Undoing(outcome) | Phase::UndoFailed { outcome, last: false } => run(outcome),
        Phase::UndoFailed { last: true, .. } => Back::Unresolved,
        _ if !planned.has_undo => Back::Nothing,
        Phase::Succeeded => run(Known::Completed),
        _ if at.is_unknown() => {
            if planned.can_reconcile && !at.reconciled {
                return Back::Do(Next::Reconcile { step });
            }
            match planned.when_unknown {
                WhenUnknown::Undo => run(Known::Unknown),
                WhenUnknown::Skip => Back::Nothing,
                WhenUnknown::Stick => Back::Unresolved,
            }
        }
        _ => Back::Nothing,
    }
}

/// The names of the steps that somebody has to look at, of a saga that is stuck.
pub(crate) fn unresolved(plan: &Plan, state: &State) -> Vec<String> {
    let forward = state.direction == Direction::Forward;
    let steps = plan.steps.iter().zip(&state.steps).enumerate();
    let open = steps.filter(|(step, (planned, at))| {
        if forward {
            // The one that it stopped at.
            !at.is_done() && state.steps[..*step].iter().all(StepState::is_done)
        } else {
            !matches!(undo(planned, at, *step), Back::Nothing)
        }
    });
    let mut names: Vec<String> = open
        .map(|(_, (planned, _))| planned.name.clone().into_owned())
        .collect();
    if !forward {
        names.reverse();
    }
    names
}
