//! What is written to a journal: the one source of truth about a saga.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
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
    /// A step was running when its process died, and is not to be run again.
    Interrupted {
        /// Its name.
        step: String,
    },
    /// Somebody asked for it.
    Cancelled,
    /// Its deadline passed before the pivot.
    Deadline,
    /// An operator turned it back.
    Operator,
}

/// Why a saga is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Something could not be undone, or is in doubt and not to be undone blindly.
    NotUndone,
    /// A step after the pivot failed for good.
    NotFinished,
    /// Nobody knows whether the pivot has happened.
    PivotUnknown,
    /// A step was interrupted, and wants somebody to look.
    Interrupted,
    /// A step is in doubt, and its key is so old that its participant may have forgotten it.
    KeyExpired,
    /// Its owner was lost time and again without a result: it may be what kills them.
    CrashLoop,
    /// Its events cannot have happened, or cannot be read.
    Corrupt,
}

impl Obstacle {
    /// The obstacle as a word, as in `not_undone`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotUndone => "not_undone",
            Self::NotFinished => "not_finished",
            Self::PivotUnknown => "pivot_unknown",
            Self::Interrupted => "interrupted",
            Self::KeyExpired => "key_expired",
            Self::CrashLoop => "crash_loop",
            Self::Corrupt => "corrupt",
        }
    }
}

/// What an operator does with a saga.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// What failed for good is tried again, with all its attempts.
    Retry {
        /// Also where the key of a step is older than its participant may remember.
        force: bool,
    },
    /// A saga that is stuck on its way forward turns back, if it has not passed its pivot.
    Compensate,
    /// The truth about a step: its effect has happened.
    ResolveDone {
        /// Its name.
        step: String,
    },
    /// The truth about a step: its effect has not happened and never will, or is no more.
    ResolveNever {
        /// Its name.
        step: String,
    },
    /// What could not be undone is left as it is. The saga then ends abandoned.
    Skip {
        /// The name of the step.
        step: String,
    },
    /// The saga turns back, unless it has passed its pivot.
    Cancel,
    /// The saga is given up as it is.
    Abandon,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { force: false } => f.write_str("retry"),
            Self::Retry { force: true } => f.write_str("retry --force"),
            Self::Compensate => f.write_str("compensate"),
            Self::ResolveDone { step } => write!(f, "resolve {step} done"),
            Self::ResolveNever { step } => write!(f, "resolve {step} never"),
            Self::Skip { step } => write!(f, "skip {step}"),
            Self::Cancel => f.write_str("cancel"),
            Self::Abandon => f.write_str("abandon"),
        }
    }
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
    Created {
        /// Its steps: who has the journal alone can tell where the saga stands.
        #[serde(default, skip_serializing_if = "Plan::is_empty")]
        plan: Plan,
    },
    /// It goes on with a definition whose plan is another: steps were appended, or their policies changed.
    Replanned {
        /// The steps from now on.
        plan: Plan,
    },
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
        /// It speaks of every run of the step: its participant answers by key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        settles: bool,
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
    /// An operator has decided something.
    Operator {
        /// Who.
        who: String,
        /// What.
        #[serde(flatten)]
        verb: Verb,
        /// Why.
        note: String,
    },
    /// The saga rests.
    Finished {
        /// How.
        end: SagaEnd,
        /// Why, if it is stuck.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        obstacle: Option<Obstacle>,
    },
}
