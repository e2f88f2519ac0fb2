//! How the events of a saga are told.

use std::sync::Arc;

use super::definition::Definition;
use super::event::{Event, SagaEnd};
use super::id::SagaId;
use crate::event::tell;

pub(crate) type Listener = Arc<dyn Fn(&SagaEvent<'_>) + Send + Sync>;

/// An event of a saga.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SagaEvent<'a> {
    /// The name of the definition.
    pub saga: &'a str,
    /// The saga's own id.
    pub id: SagaId,
    /// What happened.
    pub event: &'a Event,
}

impl<C, D> Definition<C, D> {
    pub(crate) fn emit(&self, id: SagaId, event: &Event) {
        let saga = self.name.as_str();
        match event {
            Event::Finished {
                end: SagaEnd::Stuck,
                obstacle,
            } => {
                let obstacle = obstacle.map(super::event::Obstacle::as_str);
                tracing::warn!(target: "steadfast::saga", saga, %id, obstacle, "stuck: it needs somebody to look");
            }
            Event::Finished { end, .. } => {
                let end = end.as_str();
                tracing::info!(target: "steadfast::saga", saga, %id, end, "finished");
            }
            event => tracing::debug!(target: "steadfast::saga", saga, %id, ?event),
        }
        #[cfg(feature = "metrics")]
        self.count(event);
        if let Some(listener) = &self.listener {
            tell(|| listener(&SagaEvent { saga, id, event }));
        }
    }

    #[cfg(feature = "metrics")]
    fn count(&self, event: &Event) {
        let saga = crate::event::label(&self.name);
        let step = |step: &str, outcome| {
            let step = step.to_owned();
            metrics::counter!("steadfast.saga.steps", "saga" => saga.clone(), "step" => step, "outcome" => outcome)
                .increment(1);
        };
        match event {
            Event::Created { .. } => metrics::counter!("steadfast.saga.started", "saga" => saga).increment(1),
            Event::Finished { end, .. } => {
                metrics::counter!("steadfast.saga.finished", "saga" => saga, "end" => end.as_str()).increment(1);
            }
            Event::Succeeded { step: name } => step(name, "succeeded"),
            Event::Failed { step: name, .. } => step(name, "failed"),
            Event::UndoSucceeded { step: name } => step(name, "undone"),
            Event::UndoFailed { step: name, .. } => step(name, "undo_failed"),
            Event::Replanned { .. }
            | Event::Started { .. }
            | Event::Reconciled { .. }
            | Event::Unwinding { .. }
            | Event::UndoStarted { .. }
            | Event::Operator { .. } => {}
        }
    }
}
