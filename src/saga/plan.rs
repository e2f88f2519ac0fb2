//! What the machine has to know of a saga: its steps without their code.

use std::borrow::Cow;

/// What a step is to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Its effect can be undone.
    Compensatable,
    /// It has no effect.
    ReadOnly,
    /// The point of no return: there is one at most.
    Pivot,
    /// After the pivot: it has to succeed in the end.
    Retriable,
}

impl StepKind {
    /// The kind as a word: `compensatable`, `read-only`, `pivot` or `retriable`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compensatable => "compensatable",
            Self::ReadOnly => "read-only",
            Self::Pivot => "pivot",
            Self::Retriable => "retriable",
        }
    }
}

/// What becomes of a step whose effect nobody knows, when the saga is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WhenUnknown {
    /// It is undone, and told that it may not have happened.
    #[default]
    Undo,
    /// It is left as it is.
    Skip,
    /// The saga rests as stuck, for somebody to look.
    Stick,
}

/// What becomes of a step that was running when its process died, or lost its lease, while the saga goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WhenInterrupted {
    /// It is run again, under the same key.
    #[default]
    Rerun,
    /// Its hook is asked first.
    Reconcile,
    /// The saga turns back.
    TurnBack,
    /// The saga rests as stuck, for somebody to look.
    Stick,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepPlan {
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: StepKind,
    pub(crate) has_undo: bool,
    pub(crate) can_reconcile: bool,
    /// A run under the same key answers with the truth about all runs before it.
    pub(crate) answers_by_key: bool,
    pub(crate) attempts: u32,
    pub(crate) undo_attempts: u32,
    pub(crate) when_unknown: WhenUnknown,
    pub(crate) when_interrupted: WhenInterrupted,
}

/// All of them, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<StepPlan>,
    /// A step that cannot be undone keeps those before it from being undone.
    pub(crate) halt_on_undo_failure: bool,
}

impl Plan {
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }
}
