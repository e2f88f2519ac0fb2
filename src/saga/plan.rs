//! What the machine has to know of a saga: its steps without their code.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The attempts that a plan does not write down. It belongs to the form in which plans are stored, and stays as it is
/// whatever the default of a definition becomes.
const UNWRITTEN_ATTEMPTS: u32 = 3;

/// What a step is to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// One step of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and written by its name"
)]
pub struct StepPlan {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is to the whole.
    pub kind: StepKind,
    /// Whether it has an undo.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_undo: bool,
    /// Whether it has a hook that finds out what has happened.
    #[serde(default, skip_serializing_if = "is_false")]
    pub can_reconcile: bool,
    /// A run under the same key answers with the truth about all runs before it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub answers_by_key: bool,
    /// How often it is run.
    #[serde(default = "unwritten_attempts", skip_serializing_if = "is_unwritten")]
    pub attempts: u32,
    /// How often its undo is run.
    #[serde(default = "unwritten_attempts", skip_serializing_if = "is_unwritten")]
    pub undo_attempts: u32,
    /// What becomes of it on the way back, if nobody knows whether it has happened.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_unknown: WhenUnknown,
    /// What becomes of it if its process dies while it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_interrupted: WhenInterrupted,
    /// Whether it runs in a transaction of the journal: it is not started, and has its effect when it has succeeded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
}

/// The steps of a saga without their code: what an operator's tool has to know, which has a journal and no definition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The steps, in order.
    #[serde(serialize_with = "write_steps", deserialize_with = "read_steps")]
    pub steps: Arc<[StepPlan]>,
    /// A step that cannot be undone keeps those before it from being undone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub halt_on_undo_failure: bool,
}

impl Plan {
    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    /// Whether it tells nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

fn write_steps<S: Serializer>(steps: &[StepPlan], serializer: S) -> Result<S::Ok, S::Error> {
    steps.serialize(serializer)
}

fn read_steps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[StepPlan]>, D::Error> {
    Ok(Vec::deserialize(deserializer)?.into())
}

fn unwritten_attempts() -> u32 {
    UNWRITTEN_ATTEMPTS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_unwritten(attempts: &u32) -> bool {
    *attempts == UNWRITTEN_ATTEMPTS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::*;

    fn reads(json: &str) -> Event {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_plan_is_short_and_readable_and_reads_as_it_was_written() {
        let step = |name: &'static str, kind| StepPlan {
            name: name.into(),
            kind,
            has_undo: kind == StepKind::Compensatable,
            can_reconcile: false,
            answers_by_key: false,
            attempts: UNWRITTEN_ATTEMPTS,
            undo_attempts: UNWRITTEN_ATTEMPTS,
            when_unknown: WhenUnknown::Undo,
            when_interrupted: WhenInterrupted::Rerun,
            local: false,
        };
        let charge = StepPlan {
            can_reconcile: true,
            answers_by_key: true,
            attempts: 7,
            undo_attempts: 1,
            when_unknown: WhenUnknown::Stick,
            when_interrupted: WhenInterrupted::TurnBack,
            local: true,
            ..step("charge", StepKind::Pivot)
        };
        let steps = vec![step("reserve", StepKind::Compensatable), charge];
        let plan = Plan {
            steps: steps.into(),
            halt_on_undo_failure: true,
        };
        let event = Event::Created { plan };
        let json = r#"{"event":"created","plan":{"steps":[{"name":"reserve","kind":"compensatable","has_undo":true},{"name":"charge","kind":"pivot","can_reconcile":true,"answers_by_key":true,"attempts":7,"undo_attempts":1,"when_unknown":"stick","when_interrupted":"turn_back","local":true}],"halt_on_undo_failure":true}}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(reads(json), event);
    }

    #[test]
    fn a_saga_that_was_created_without_a_plan_can_be_read() {
        let plan = Plan::default();
        assert_eq!(reads(r#"{"event":"created"}"#), Event::Created { plan });
    }
}
