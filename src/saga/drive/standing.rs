//! Where a saga stands, and what is told of it in the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::definition::Definition;
use super::super::error::{Cause, Report, SagaError, StepFailure};
use super::super::event::{Event, SagaEnd};
use super::super::id::SagaId;
use super::super::journal::SagaStatus;
use super::super::machine::{Direction, State, unresolved};
use super::super::plan::Plan;
use crate::clock::after;

type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// A saga as its events have left it.
pub(crate) struct Standing<C> {
    pub(crate) state: State,
    /// As the last success has left it.
    pub(crate) context: C,
    /// The last error of each action and of each undo.
    pub(crate) errors: Vec<Option<SharedError>>,
    pub(crate) undo_errors: Vec<Option<SharedError>>,
    /// Until when the key of each step is good, from its first start on.
    pub(crate) keys: Vec<Option<Instant>>,
    /// Until when undos are tried again, from the turning back on.
    pub(crate) undo_until: Option<Instant>,
    /// The plan that was written down last.
    pub(super) recorded: Plan,
}

impl<C> Standing<C> {
    pub(crate) fn new<D>(saga: &Definition<C, D>, context: C) -> Self {
        let steps = saga.plan.steps.len();
        Self {
            state: State::new(&saga.plan),
            context,
            errors: vec![None; steps],
            undo_errors: vec![None; steps],
            keys: vec![None; steps],
            undo_until: None,
            recorded: Plan::default(),
        }
    }

    /// Takes one more event, that happened so long ago.
    pub(crate) fn apply<D>(&mut self, saga: &Definition<C, D>, event: &Event, ago: Duration) {
        let left = |time: Duration| after(time.saturating_sub(ago));
        let (plan, forward) = (&saga.plan, self.state.direction == Direction::Forward);
        self.state.apply(plan, event);
        if let Event::Started { step } = event {
            if let Some(step) = plan.index(step) {
                let valid = saga.code[step].code.key_valid_for;
                self.keys[step].get_or_insert_with(|| left(valid));
            }
        }
        if let Event::Created { plan } | Event::Replanned { plan } = event {
            self.recorded = plan.clone();
        }
        let back = self.state.direction != Direction::Forward;
        if back && (forward || matches!(event, Event::Operator { .. })) {
            self.undo_until = Some(left(saga.undo_budget));
        }
    }
}

impl<C> Standing<C> {
    /// What is told of a saga that rests.
    pub(crate) fn end<D>(self, saga: &Definition<C, D>, id: SagaId) -> Result<C, SagaError> {
        let end = self.state.end.unwrap_or(SagaEnd::Stuck);
        if end == SagaEnd::Completed {
            return Ok(self.context);
        }
        let plan = &saga.plan;
        let failure = |errors: &[Option<SharedError>], step: usize| {
            let error = errors.get(step)?.clone()?;
            Some(StepFailure {
                step: saga.code[step].name.as_ref().to_owned(),
                error,
            })
        };
        let error_of = |step: &str| failure(&self.errors, plan.index(step)?);
        let unresolved = unresolved(plan, &self.state);
        let cause = match &self.state.direction {
            Direction::Backward(reason) => Some(Cause::of(reason, error_of)),
            Direction::Forward => unresolved.first().and_then(|step| error_of(step)).map(Cause::Failed),
        };
        let report = Box::new(Report {
            saga: saga.name.as_str().to_owned(),
            id,
            end,
            obstacle: self.state.obstacle,
            cause,
            unresolved,
            undo_errors: (0..plan.steps.len())
                .rev()
                .filter_map(|step| failure(&self.undo_errors, step))
                .collect(),
        });
        Err(match end {
            SagaEnd::Compensated => SagaError::Compensated(report),
            SagaEnd::Abandoned => SagaError::Abandoned(report),
            SagaEnd::Stuck | SagaEnd::Completed => SagaError::Stuck(report),
        })
    }
}

impl State {
    /// Where the saga stands.
    pub(crate) fn status(&self) -> SagaStatus {
        match (self.end, &self.direction) {
            (None, Direction::Forward) => SagaStatus::Running,
            (None, Direction::Backward(_)) => SagaStatus::Compensating,
            (Some(SagaEnd::Completed), _) => SagaStatus::Completed,
            (Some(SagaEnd::Compensated), _) => SagaStatus::Compensated,
            (Some(SagaEnd::Stuck), _) => SagaStatus::Stuck,
            (Some(SagaEnd::Abandoned), _) => SagaStatus::Abandoned,
        }
    }
}
