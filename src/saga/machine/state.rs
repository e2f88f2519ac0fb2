//! Where a saga stands: a fold of its events, and nothing else.

use super::super::event::{Event, Known, Obstacle, Reality, Reason, SagaEnd, Verb};
use super::super::plan::{Plan, StepKind, StepPlan};
use crate::Effect;

/// Where one step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It was never run.
    Untouched,
    /// It was started, and there is no result.
    Started,
    Succeeded,
    Failed {
        effect: Effect,
        retryable: bool,
    },
    /// A hook was asked after it.
    Reconciled(Reality),
    /// Its undo was started, and there is no result.
    Undoing(Known),
    UndoFailed {
        outcome: Known,
        last: bool,
    },
    Undone,
    /// An operator has left it as it is.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StepState {
    pub(crate) phase: Phase,
    /// Any of its runs may have had the effect. A later clean failure does not take that back: it speaks of its own run.
    pub(crate) maybe: bool,
    /// Failures that were recorded: a crash costs no attempt.
    pub(crate) failures: u32,
    pub(crate) undo_failures: u32,
    /// The hook was asked since the step was last run.
    pub(crate) reconciled: bool,
}

/// Which way it goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Forward,
    Backward(Reason),
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub(crate) struct State {
    pub(crate) steps: Vec<StepState>,
    pub(crate) direction: Direction,
    pub(crate) created: bool,
    pub(crate) end: Option<SagaEnd>,
    pub(crate) obstacle: Option<Obstacle>,
    /// An operator has said that the age of the open step's key does not matter.
    pub(crate) forced: bool,
    /// An operator has given it up.
    pub(crate) abandoned: bool,
    /// An event that cannot have happened: nothing is done any more.
    pub(crate) corrupt: bool,
}

impl State {
    pub(crate) fn new(plan: &Plan) -> Self {
        let untouched = StepState {
            phase: Phase::Untouched,
            maybe: false,
            failures: 0,
            undo_failures: 0,
            reconciled: false,
        };
        Self {
            steps: vec![untouched; plan.steps.len()],
            direction: Direction::Forward,
            created: false,
            end: None,
            obstacle: None,
            forced: false,
            abandoned: false,
            corrupt: false,
        }
    }

    /// Takes one more event. What cannot have happened makes the state corrupt, for good.
    pub(crate) fn apply(&mut self, plan: &Plan, event: &Event) {
        match event {
            // What is corrupt can be laid to rest, and given up.
            Event::Finished { end, obstacle } if self.corrupt => {
                self.end = Some(*end);
                self.obstacle = *obstacle;
            }
            Event::Operator {
                verb: Verb::Abandon, ..
            } if self.corrupt => {
                self.abandoned = true;
                self.end = None;
            }
            _ => self.corrupt = self.corrupt || self.try_apply(plan, event).is_none(),
        }
    }

    /// `None` for what cannot have happened.
    fn try_apply(&mut self, plan: &Plan, event: &Event) -> Option<()> {
        let operator = matches!(event, Event::Operator { .. });
        if (self.end.is_some() && !operator) || (!self.created && !matches!(event, Event::Created { .. })) {
            return None;
        }
        match event {
            Event::Created { .. } if self.created => return None,
            Event::Created { .. } => self.created = true,
            // The plan that all is folded over is the last one: what was there keeps its name and its place.
            Event::Replanned { .. } => {}
            Event::Started { step } => self.start(plan, step)?,
            Event::Succeeded { step } => {
                let index = self.forward(plan, step)?;
                self.ran(plan, index)?.phase = Phase::Succeeded;
                self.forced = false;
            }
            Event::Failed {
                step,
                effect,
                retryable,
                settles,
                ..
            } => {
                let index = self.forward(plan, step)?;
                let step = self.ran(plan, index)?;
                step.phase = Phase::Failed {
                    effect: *effect,
                    retryable: *retryable,
                };
                // Only a participant that answers for every run under the key can take a doubt back.
                step.maybe = match effect {
                    Effect::Maybe => true,
                    Effect::None if *settles => false,
                    Effect::None => step.maybe,
                };
                step.failures = step.failures.saturating_add(1);
            }
            Event::Reconciled { step, reality } => {
                let index = plan.index(step)?;
                let unknown = self.steps[index].is_unknown() && !self.steps[index].reconciled;
                unknown.then_some(())?;
                let step = &mut self.steps[index];
                step.reconciled = true;
                step.maybe = *reality != Reality::Never;
                step.phase = match reality {
                    Reality::Done => Phase::Succeeded,
                    other => Phase::Reconciled(*other),
                };
                self.forced &= *reality != Reality::Done;
            }
            Event::Unwinding { reason } => {
                self.may_unwind(plan).then_some(())?;
                self.direction = Direction::Backward(reason.clone());
            }
            Event::UndoStarted { step, outcome } => {
                let index = self.backward(plan, step)?;
                let step = &mut self.steps[index];
                match step.phase {
                    Phase::Undoing(before)
                    | Phase::UndoFailed {
                        outcome: before,
                        last: false,
                    } => {
                        (before == *outcome).then_some(())?;
                    }
                    Phase::Succeeded => (*outcome == Known::Completed).then_some(())?,
                    _ => (step.is_unknown() && *outcome == Known::Unknown).then_some(())?,
                }
                step.phase = Phase::Undoing(*outcome);
            }
            Event::UndoSucceeded { step } => {
                let index = self.backward(plan, step)?;
                self.expect(index, |phase| matches!(phase, Phase::Undoing(_)))?.phase = Phase::Undone;
            }
            Event::UndoFailed { step, last, .. } => {
                let index = self.backward(plan, step)?;
                let step = &mut self.steps[index];
                let Phase::Undoing(outcome) = step.phase else {
                    return None;
                };
                step.phase = Phase::UndoFailed { outcome, last: *last };
                step.undo_failures = step.undo_failures.saturating_add(1);
            }
            Event::Operator { verb, .. } => self.operate(plan, verb).ok()?,
            Event::Finished { end, obstacle } => {
                self.end = Some(*end);
                self.obstacle = *obstacle;
            }
        }
        Some(())
    }

    fn forward(&self, plan: &Plan, step: &str) -> Option<usize> {
        (self.direction == Direction::Forward).then_some(())?;
        plan.index(step)
    }

    fn backward(&self, plan: &Plan, step: &str) -> Option<usize> {
        matches!(self.direction, Direction::Backward(_)).then_some(())?;
        plan.index(step)
    }

    /// One in a transaction is never started: it has succeeded, or nothing has happened.
    fn start(&mut self, plan: &Plan, step: &str) -> Option<()> {
        let index = self.forward(plan, step)?;
        let before = self.steps[..index].iter().all(StepState::is_done);
        (before && !plan.steps[index].local).then_some(())?;
        let step = &mut self.steps[index];
        match step.phase {
            Phase::Untouched | Phase::Failed { .. } | Phase::Reconciled(Reality::NotDone | Reality::Unknown) => {}
            // It was interrupted: that run may have had the effect.
            Phase::Started => step.maybe = true,
            _ => return None,
        }
        step.phase = Phase::Started;
        step.reconciled = false;
        Some(())
    }

    /// A step that has a result: it was started, unless it runs in a transaction.
    fn ran(&mut self, plan: &Plan, index: usize) -> Option<&mut StepState> {
        if plan.steps[index].local {
            self.steps[..index].iter().all(StepState::is_done).then_some(())?;
            return self.expect(index, |phase| matches!(phase, Phase::Untouched | Phase::Failed { .. }));
        }
        self.expect(index, |phase| phase == Phase::Started)
    }

    fn expect(&mut self, index: usize, is: impl Fn(Phase) -> bool) -> Option<&mut StepState> {
        let step = &mut self.steps[index];
        is(step.phase).then_some(step)
    }

    /// Whether there is a way back: the pivot neither succeeded nor may have.
    pub(crate) fn may_unwind(&self, plan: &Plan) -> bool {
        self.direction == Direction::Forward
            && self
                .pivot(plan)
                .is_none_or(|pivot| !pivot.is_done() && !pivot.is_unknown())
    }

    pub(crate) fn pivot(&self, plan: &Plan) -> Option<&StepState> {
        let is_pivot = |step: &StepPlan| step.kind == StepKind::Pivot;
        self.steps.get(plan.steps.iter().position(is_pivot)?)
    }
}

impl StepState {
    /// Its effect has happened.
    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Succeeded
    }

    /// Its effect may have happened, and nobody knows.
    pub(crate) fn is_unknown(&self) -> bool {
        match self.phase {
            Phase::Started => true,
            Phase::Failed { .. } => self.maybe,
            Phase::Reconciled(reality) => reality != Reality::Never,
            Phase::Untouched
            | Phase::Succeeded
            | Phase::Undoing(_)
            | Phase::UndoFailed { .. }
            | Phase::Undone
            | Phase::Skipped => false,
        }
    }
}
