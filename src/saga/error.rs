//! How steps and sagas fail.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::event::{Obstacle, Reason, SagaEnd};
use super::id::SagaId;
use crate::Effect;
use crate::rejected::Reason as RejectedReason;
use crate::storage::StorageError;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a step and its undo give.
pub type StepResult = Result<(), StepError>;

/// Why a run of a step failed: whether it may have had its effect, and whether another run may help.
///
/// `?` on any error says *unknown*: the connection that broke may have carried the request. Only a [`Rejected`](crate::Rejected) of a
/// policy that [did not reach](crate::Rejected::reached_inner) what it protects says that nothing was sent. A "no" of the
/// business is said out loud: [`failed`](Self::failed).
///
/// It is no `std::error::Error` itself, so that every such error turns into it.
#[derive(Debug)]
pub struct StepError {
    pub(crate) effect: Effect,
    pub(crate) retryable: bool,
    pub(crate) error: BoxError,
}

impl StepError {
    fn new(effect: Effect, retryable: bool, error: impl Into<BoxError>) -> Self {
        Self {
            effect,
            retryable,
            error: error.into(),
        }
    }

    /// No, and for good: nothing has happened, and another run would not help. The card was declined.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::new(Effect::None, false, error)
    }

    /// Nothing has happened, and another run may help. The service could not be reached.
    pub fn not_sent(error: impl Into<BoxError>) -> Self {
        Self::new(Effect::None, true, error)
    }

    /// It may have happened, and another run may help: what `?` says.
    pub fn unknown(error: impl Into<BoxError>) -> Self {
        Self::new(Effect::Maybe, true, error)
    }

    /// It may have happened, and another run would not help.
    pub fn fatal_unknown(error: impl Into<BoxError>) -> Self {
        Self::new(Effect::Maybe, false, error)
    }

    /// Whether the run may have had its effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Whether another run may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl StepError {
    /// What `?` says of an error that is boxed.
    pub(crate) fn of_boxed(error: BoxError) -> Self {
        match RejectedReason::find(&*error) {
            Some(rejected) if !rejected.reached_inner() => Self::not_sent(error),
            _ => Self::unknown(error),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        match RejectedReason::find(&error) {
            Some(rejected) if !rejected.reached_inner() => Self::not_sent(error),
            _ => Self::unknown(error),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The error of a step, or of its undo.
#[derive(Clone, Debug, thiserror::Error)]
#[error("step `{step}`")]
#[non_exhaustive]
pub struct StepFailure {
    /// The name of the step.
    pub step: String,
    /// What went wrong in its last run.
    #[source]
    pub error: Arc<dyn Error + Send + Sync>,
}

/// Why a saga turned back, or stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A step failed.
    #[error("step `{}` failed", .0.step)]
    Failed(#[source] StepFailure),
    /// Somebody asked for it.
    #[error("it was cancelled")]
    Cancelled,
    /// Its deadline passed before the pivot.
    #[error("its deadline passed")]
    Deadline,
    /// An operator turned it back.
    #[error("an operator turned it back")]
    Operator,
    /// A step was running when its process died, and is not to be run again.
    #[error("step `{step}` was interrupted")]
    Interrupted {
        /// The name of the step.
        step: String,
    },
}

impl Cause {
    /// The cause that `reason` stands for, where the steps' errors are known.
    pub(crate) fn of(reason: &Reason, error_of: impl Fn(&str) -> Option<StepFailure>) -> Self {
        match reason {
            Reason::Cancelled => Self::Cancelled,
            Reason::Operator => Self::Operator,
            Reason::Interrupted { step } => Self::Interrupted { step: step.clone() },
            Reason::Deadline => Self::Deadline,
            Reason::Failed { step } => {
                error_of(step).map_or_else(|| Self::Interrupted { step: step.clone() }, Self::Failed)
            }
        }
    }
}

/// What is told of a saga that did not complete.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The name of the saga's definition.
    pub saga: String,
    /// The saga's own id.
    pub id: SagaId,
    /// How it ended.
    pub end: SagaEnd,
    /// Why it is stuck, if it is.
    pub obstacle: Option<Obstacle>,
    /// Why it turned back, or stopped.
    pub cause: Option<Cause>,
    /// The steps that somebody has to look at, in the order in which they were to be undone.
    pub unresolved: Vec<String>,
    /// The last error of each undo that failed.
    pub undo_errors: Vec<StepFailure>,
}

/// A saga did not complete.
///
/// So `?` never ships an order that was rolled back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SagaError {
    /// Everything that had, or may have had, an effect was undone.
    Compensated(Box<Report>),
    /// It rests half way: not everything could be undone, or it can go neither way.
    Stuck(Box<Report>),
    /// An operator gave it up.
    Abandoned(Box<Report>),
    /// Nobody here can say how it ends.
    Detached {
        /// The name of the saga's definition.
        saga: String,
        /// The saga's own id.
        id: SagaId,
        /// Why.
        reason: Detached,
    },
}

/// Why nobody can say how a saga ends.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Detached {
    /// The task that ran it is gone: its runtime was shut down, or the `Clone` of the context panicked. In memory, the
    /// saga is lost where it stood.
    #[error("its task is gone")]
    TaskGone,
    /// The journal does not know the saga: it has ended, and all that there was of it was cleared away.
    #[error("its journal does not know it")]
    Missing,
    /// The journal does not answer. The saga goes on once it does.
    #[error("its journal does not answer")]
    Journal(#[source] Arc<StorageError>),
    /// Its events were cleared away, and it ended so.
    #[error("it has {}, and its events were cleared away", .0.as_str())]
    Pruned(SagaEnd),
    /// Its events are there, and its context cannot be read: it is of another version.
    #[error("its context cannot be read")]
    Unreadable(#[source] Arc<dyn Error + Send + Sync>),
}

impl SagaError {
    /// What is told of its end, where it has one.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Compensated(report) | Self::Stuck(report) | Self::Abandoned(report) => Some(report),
            Self::Detached { .. } => None,
        }
    }
}

impl fmt::Display for SagaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compensated(report) => write!(f, "saga `{}` was rolled back", report.saga),
            Self::Stuck(report) => {
                write!(
                    f,
                    "saga `{}` is stuck at `{}`",
                    report.saga,
                    report.unresolved.join("`, `")
                )
            }
            Self::Abandoned(report) => write!(f, "saga `{}` was abandoned", report.saga),
            Self::Detached { saga, id, .. } => write!(f, "how saga `{saga}` {id} ends cannot be said here"),
        }
    }
}

impl Error for SagaError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Detached { reason, .. } = self {
            return Some(reason);
        }
        let cause: &(dyn Error + 'static) = self.report()?.cause.as_ref()?;
        Some(cause)
    }
}
