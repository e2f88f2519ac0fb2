//! What is written to a journal: the one source of truth about a saga.

use serde::{Deserialize, Serialize};

use crate::Effect;

/// Why a saga turned back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Reason {
    /// A step failed for good.
    Failed {
        /// Its name.
        step: String,
    },
    /// Somebody asked for it.
    Cancelled,
    /// Its deadline passed before the pivot.
    Deadline,
}

/// What is known about an effect that is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// The step succeeded.
    Completed,
    /// It may have had its effect, or not; or it may have it later.
    Unknown,
}

/// What a reconcile hook found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reality {
    /// The effect has happened. The hook has put into the context what the step would have.
    Done,
    /// It has not happened so far; a delayed request may still arrive.
    NotDone,
    /// It has not happened and never will: the participant has closed the key.
    Never,
    /// It cannot be said.
    Unknown,
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaEnd {
    /// Every step succeeded.
    Completed,
    /// Everything that had, or may have had, an effect was undone.
    Compensated,
    /// It rests half way, and needs somebody to look.
    Stuck,
    /// An operator gave it up.
    Abandoned,
}

impl SagaEnd {
    /// The end as a word: `completed`, `compensated`, `stuck` or `abandoned`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }
}

/// One event. Steps are named, and never counted: a definition may grow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The saga exists.
    Created,
    /// A step is about to run.
    Started {
        /// Its name.
        step: String,
    },
    /// A step succeeded. The context after it is stored with the event.
    Succeeded {
        /// Its name.
        step: String,
    },
    /// A step failed.
    Failed {
        /// Its name.
        step: String,
        /// Whether it may have had its effect.
        effect: Effect,
        /// Whether another run may help.
        retryable: bool,
        /// What went wrong.
        error: String,
    },
    /// A reconcile hook has answered. Where the effect has happened, the context after it is stored with the event.
    Reconciled {
        /// The step.
        step: String,
        /// What it found.
        reality: Reality,
    },
    /// The saga turns back.
    Unwinding {
        /// Why.
        reason: Reason,
    },
    /// The undo of a step is about to run.
    UndoStarted {
        /// Its name.
        step: String,
        /// What it is told.
        outcome: Known,
    },
    /// A step is undone. The context after it is stored with the event.
    UndoSucceeded {
        /// Its name.
        step: String,
    },
    /// The undo of a step failed.
    UndoFailed {
        /// Its name.
        step: String,
        /// What went wrong.
        error: String,
        /// It is not tried again.
        last: bool,
    },
    /// The saga rests.
    Finished {
        /// How.
        end: SagaEnd,
    },
}
