//! One step, and how it is run.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, DynStep, Object, Reconcile, SharedCode, action, reconcile};
use super::cx::Cx;
use super::error::{StepError, StepResult};
use super::event::Reality;
use super::local::{LocalCode, NoTransaction};
use super::plan::{StepKind, StepPlan, WhenInterrupted, WhenUnknown};
use crate::Backoff;

/// How often an action, or an undo, is run: the first time, and twice more.
pub const DEFAULT_ATTEMPTS: u32 = 3;
/// How long one run may take.
pub const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// For how long a participant is taken to remember a key.
pub const DEFAULT_KEY_VALID_FOR: Duration = Duration::from_secs(24 * 3600);
/// What the waits between two runs begin with.
pub const DEFAULT_STEP_BACKOFF: Duration = Duration::from_millis(100);

/// A step with its options: for [`SagaBuilder::with`](super::SagaBuilder::with).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::saga::{Cx, Saga, Step};
///
/// let charge = Step::pivot("charge", async |_: &mut Cx<u32>| Ok(()))
///     .attempts(5)
///     .timeout(Duration::from_secs(10));
/// let order = Saga::<u32>::builder("order").with(charge).build()?;
/// # Ok::<_, steadfast::ConfigError>(())
/// ```
#[must_use]
pub struct Step<C, D = ()> {
    pub(crate) plan: StepPlan,
    pub(crate) code: StepCode<C, D>,
}

/// The code of a step, and how it is run.
pub(crate) struct StepCode<C, D> {
    pub(crate) action: SharedCode<C, D, StepResult>,
    /// In place of the action.
    pub(crate) local: Option<Arc<dyn LocalCode<C, D>>>,
    pub(crate) undo: Option<SharedCode<C, D, StepResult>>,
    pub(crate) reconcile: Option<SharedCode<C, D, Result<Reality, StepError>>>,
    pub(crate) backoff: Backoff,
    pub(crate) undo_backoff: Backoff,
    pub(crate) timeout: Duration,
    pub(crate) undo_timeout: Duration,
    pub(crate) key_valid_for: Duration,
}

impl<C: Send + 'static, D: Send + Sync + 'static> Step<C, D> {
    /// A step whose effect `undo` takes back.
    pub fn compensatable(name: impl Into<Cow<'static, str>>, act: impl Action<C, D>, undo: impl Action<C, D>) -> Self {
        let mut step = Self::new(name.into(), StepKind::Compensatable, action(act));
        step.code.undo = Some(action(undo));
        step.plan.has_undo = true;
        step
    }

    /// A step whose effect need not be taken back: a log line, a reservation that expires by itself.
    pub fn without_undo(name: impl Into<Cow<'static, str>>, act: impl Action<C, D>) -> Self {
        Self::new(name.into(), StepKind::Compensatable, action(act))
    }

    /// A step without an effect.
    pub fn read_only(name: impl Into<Cow<'static, str>>, act: impl Action<C, D>) -> Self {
        Self::new(name.into(), StepKind::ReadOnly, action(act))
    }

    /// The point of no return: when it has succeeded, nothing is undone any more.
    pub fn pivot(name: impl Into<Cow<'static, str>>, act: impl Action<C, D>) -> Self {
        Self::new(name.into(), StepKind::Pivot, action(act))
    }

    /// A step after the pivot, that has to succeed in the end.
    pub fn retriable(name: impl Into<Cow<'static, str>>, act: impl Action<C, D>) -> Self {
        Self::new(name.into(), StepKind::Retriable, action(act))
    }

    /// A step that a trait object does and takes back. It may be made the [pivot](Self::as_pivot), or
    /// [retriable](Self::as_retriable): then nothing is taken back.
    pub fn object(name: impl Into<Cow<'static, str>>, step: Arc<dyn DynStep<C, D>>) -> Self {
        let act = Object {
            step: Arc::clone(&step),
            undoes: false,
        };
        let mut made = Self::new(name.into(), StepKind::Compensatable, Arc::new(act));
        made.code.undo = Some(Arc::new(Object { step, undoes: true }));
        made.plan.has_undo = true;
        made
    }

    /// A step that runs in a transaction of the journal; compensatable, without an undo.
    pub(crate) fn local(name: Cow<'static, str>, code: Arc<dyn LocalCode<C, D>>) -> Self {
        // An engine does not get to run it, but for one over another journal.
        let no = async |_: &mut Cx<C, D>| Err(StepError::failed(NoTransaction));
        let mut step = Self::new(name, StepKind::Compensatable, action(no));
        step.plan.local = true;
        step.code.local = Some(code);
        step
    }

    /// Has its effect taken back by `undo`. For a step that was made without an undo.
    pub fn with_undo(mut self, undo: impl Action<C, D>) -> Self {
        self.code.undo = Some(action(undo));
        self.plan.has_undo = true;
        self
    }

    /// Makes it the point of no return. An undo that it has is dropped.
    pub fn as_pivot(self) -> Self {
        self.without_return(StepKind::Pivot)
    }

    /// Makes it a step after the pivot, that has to succeed in the end. An undo that it has is dropped.
    pub fn as_retriable(self) -> Self {
        self.without_return(StepKind::Retriable)
    }

    fn without_return(mut self, kind: StepKind) -> Self {
        self.plan.kind = kind;
        self.plan.has_undo = false;
        self.code.undo = None;
        self
    }

    fn new(name: Cow<'static, str>, kind: StepKind, action: SharedCode<C, D, StepResult>) -> Self {
        Self {
            plan: StepPlan {
                name,
                kind,
                has_undo: false,
                can_reconcile: false,
                answers_by_key: false,
                attempts: DEFAULT_ATTEMPTS,
                undo_attempts: DEFAULT_ATTEMPTS,
                when_unknown: WhenUnknown::default(),
                when_interrupted: WhenInterrupted::default(),
                local: false,
            },
            code: StepCode {
                action,
                local: None,
                undo: None,
                reconcile: None,
                backoff: Backoff::exponential(DEFAULT_STEP_BACKOFF),
                undo_backoff: Backoff::exponential(DEFAULT_STEP_BACKOFF),
                timeout: DEFAULT_STEP_TIMEOUT,
                undo_timeout: DEFAULT_STEP_TIMEOUT,
                key_valid_for: DEFAULT_KEY_VALID_FOR,
            },
        }
    }

    /// How often the action is run at most. At least 1. Default: 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.plan.attempts = attempts;
        self
    }

    /// How often the undo is run at most. At least 1. Default: 3.
    pub fn undo_attempts(mut self, attempts: u32) -> Self {
        self.plan.undo_attempts = attempts;
        self
    }

    /// The waits between two runs of the action. Default: exponential from 100 ms, full jitter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.code.backoff = backoff;
        self
    }

    /// The waits between two runs of the undo. Default: exponential from 100 ms, full jitter.
    pub fn undo_backoff(mut self, backoff: Backoff) -> Self {
        self.code.undo_backoff = backoff;
        self
    }

    /// How long one run of the action may take; then it may have had its effect. Default: 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.code.timeout = timeout;
        self
    }

    /// How long one run of the undo may take. Default: 60 s.
    pub fn undo_timeout(mut self, timeout: Duration) -> Self {
        self.code.undo_timeout = timeout;
        self
    }

    /// Asks `hook` what has happened where nobody knows: before an undo, and before a pivot is given up.
    pub fn reconcile(mut self, hook: impl Reconcile<C, D>) -> Self {
        self.code.reconcile = Some(reconcile(hook));
        self.plan.can_reconcile = true;
        self
    }

    /// The participant answers a run under the same key with the truth about all of them: a clean failure then takes
    /// back the doubt that an earlier run has left.
    pub fn answers_by_key(mut self) -> Self {
        self.plan.answers_by_key = true;
        self
    }

    /// What becomes of it on the way forward where its process died in the middle of it. Default: it is run again, under
    /// the same key.
    pub fn when_interrupted(mut self, when_interrupted: WhenInterrupted) -> Self {
        self.plan.when_interrupted = when_interrupted;
        self
    }

    /// For how long its participant remembers a key, from the first run on: later a step in doubt is not run again
    /// blindly. Its hook is asked, or the saga ends stuck. Default: 24 h.
    pub fn key_valid_for(mut self, valid: Duration) -> Self {
        self.code.key_valid_for = valid;
        self
    }

    /// What becomes of it on the way back where nobody knows whether it had its effect. Default: it is undone.
    pub fn when_unknown(mut self, when_unknown: WhenUnknown) -> Self {
        self.plan.when_unknown = when_unknown;
        self
    }
}

impl<C, D> fmt::Debug for Step<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("name", &self.plan.name)
            .field("kind", &self.plan.kind)
            .field("attempts", &self.plan.attempts)
            .finish_non_exhaustive()
    }
}
