//! The definition of a saga.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::action::Action;
use super::emit::{Listener, SagaEvent};
use super::fingerprint::Fingerprint;
use super::plan::{Plan, StepKind, StepPlan, WhenInterrupted};
use super::step::{Step, StepCode};
use crate::ConfigError;
use crate::curve::Curve;
use crate::rejected::Name;

/// Steps that are done one after the other, or undone.
///
/// See the [module](super) for when to use it. A clone is the same definition.
pub struct Saga<C, D = ()>(pub(crate) Arc<Definition<C, D>>);

pub(crate) struct Definition<C, D> {
    pub(crate) name: Name,
    pub(crate) version: u32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) compatible: Vec<Fingerprint>,
    pub(crate) upcasts: Vec<(u32, Upcast)>,
    pub(crate) undo_budget: Duration,
    pub(crate) plan: Plan,
    pub(crate) code: Vec<Runnable<C, D>>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) listener: Option<Listener>,
    pub(crate) deps: Arc<D>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Upcast = Arc<dyn Fn(serde_json::Value) -> Result<serde_json::Value, BoxError> + Send + Sync>;

/// For how long undos are tried.
pub const DEFAULT_UNDO_BUDGET: Duration = Duration::from_secs(24 * 3600);

/// A step's code, checked.
pub(crate) struct Runnable<C, D> {
    pub(crate) name: Arc<str>,
    pub(crate) code: StepCode<C, D>,
    pub(crate) backoff: Curve,
    pub(crate) undo_backoff: Curve,
}

impl<C: Send + 'static> Saga<C> {
    /// A saga over a context `C`, called `name` in errors and logs.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> SagaBuilder<C> {
        Saga::builder_with(name, ())
    }
}

impl<C: Send + 'static, D: Send + Sync + 'static> Saga<C, D> {
    /// The same, with what its steps need beside the context: clients, pools, settings. Steps have it as `cx.deps()`.
    pub fn builder_with(name: impl Into<Cow<'static, str>>, deps: D) -> SagaBuilder<C, D> {
        SagaBuilder {
            name: name.into().into(),
            version: 1,
            compatible: Vec::new(),
            upcasts: Vec::new(),
            undo_budget: DEFAULT_UNDO_BUDGET,
            steps: Vec::new(),
            halt_on_undo_failure: false,
            deadline: None,
            listener: None,
            deps,
        }
    }
}

impl<C, D> Saga<C, D> {
    /// The name of the definition.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// The version of the definition.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// A hash of the steps' names and kinds, in order: a test that compares it to the one of the last release finds out
    /// that sagas under way would no longer fit.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// The names of the steps, in order, and their kinds.
    pub fn steps(&self) -> impl Iterator<Item = (&str, StepKind)> {
        self.0.plan.steps.iter().map(|step| (&*step.name, step.kind))
    }

    /// The steps as a graph, for Graphviz: `dot -Tsvg`.
    ///
    /// Solid lines lead forward, dashed ones back.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut dot = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_dot(&mut dot);
        dot
    }

    fn write_dot(&self, dot: &mut String) -> fmt::Result {
        writeln!(dot, "digraph {:?} {{", self.name())?;
        writeln!(dot, "  rankdir=LR; node [shape=box, style=rounded];")?;
        writeln!(dot, "  \"begin\" [shape=circle, label=\"\"];")?;
        writeln!(
            dot,
            "  \"completed\" [shape=doublecircle, label=\"\", xlabel=\"completed\"];"
        )?;
        let mut previous = "begin";
        let mut passed = false;
        for step in self.0.plan.steps.iter() {
            let shape = match step.kind {
                StepKind::Pivot => ", style=\"rounded,bold\"",
                StepKind::ReadOnly => ", style=\"rounded,dotted\"",
                StepKind::Compensatable | StepKind::Retriable => "",
            };
            writeln!(
                dot,
                "  {:?} [label=\"{}\\n{}\"{shape}];",
                step.name,
                step.name,
                step.kind.as_str()
            )?;
            writeln!(dot, "  {previous:?} -> {:?};", step.name)?;
            if step.has_undo && !passed {
                writeln!(dot, "  {:?} -> {previous:?} [style=dashed, label=\"undo\"];", step.name)?;
            }
            passed |= step.kind == StepKind::Pivot;
            previous = &step.name;
        }
        writeln!(dot, "  {previous:?} -> \"completed\";")?;
        writeln!(dot, "}}")
    }
}

/// Makes a [`Saga`]; see [`Saga::builder`].
#[must_use]
pub struct SagaBuilder<C, D = ()> {
    name: Name,
    version: u32,
    compatible: Vec<Fingerprint>,
    upcasts: Vec<(u32, Upcast)>,
    undo_budget: Duration,
    steps: Vec<Step<C, D>>,
    halt_on_undo_failure: bool,
    deadline: Option<Duration>,
    listener: Option<Listener>,
    deps: D,
}

impl<C: Send + 'static, D: Send + Sync + 'static> SagaBuilder<C, D> {
    /// Adds a step whose effect `undo` takes back.
    pub fn step(self, name: impl Into<Cow<'static, str>>, action: impl Action<C, D>, undo: impl Action<C, D>) -> Self {
        self.with(Step::compensatable(name, action, undo))
    }

    /// Adds a step without an effect.
    pub fn read_only(self, name: impl Into<Cow<'static, str>>, action: impl Action<C, D>) -> Self {
        self.with(Step::read_only(name, action))
    }

    /// Adds the point of no return.
    pub fn pivot(self, name: impl Into<Cow<'static, str>>, action: impl Action<C, D>) -> Self {
        self.with(Step::pivot(name, action))
    }

    /// Adds a step after the pivot, that has to succeed in the end.
    pub fn retriable(self, name: impl Into<Cow<'static, str>>, action: impl Action<C, D>) -> Self {
        self.with(Step::retriable(name, action))
    }

    /// Adds a step with its options.
    pub fn with(mut self, step: Step<C, D>) -> Self {
        self.steps.push(step);
        self
    }

    /// Stops undoing at the first undo that fails for good. Default: the steps before it are undone all the same.
    pub fn halt_on_undo_failure(mut self) -> Self {
        self.halt_on_undo_failure = true;
        self
    }

    /// Turns back where the pivot has not been reached so long after the start: no step is begun any more, and the one
    /// that runs is awaited. It never limits what comes after the pivot, or an undo. Default: none.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Gives up an undo that still fails so long after the saga turned back, whatever attempts are left. Default: 24 h.
    pub fn undo_budget(mut self, budget: Duration) -> Self {
        self.undo_budget = budget;
        self
    }

    /// The version of the definition: another one for other steps, or another context. An engine drives a saga only with
    /// the version that it was started from. Default: 1.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Drives sagas too that were started from a definition of this [fingerprint](Saga::fingerprint): one whose steps
    /// are the first of these.
    pub fn compatible_with(mut self, fingerprint: Fingerprint) -> Self {
        self.compatible.push(fingerprint);
        self
    }

    /// Drives sagas too that were started in version `from`, if their fingerprint fits: `upcast` turns a context of that
    /// version into one of this.
    pub fn upcast(
        mut self,
        from: u32,
        upcast: impl Fn(serde_json::Value) -> Result<serde_json::Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.upcasts.push((from, Arc::new(upcast)));
        self
    }

    /// Hears of every event of every saga of this definition.
    ///
    /// Called on the saga's task. A panic in it is logged, and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&SagaEvent<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The saga, if the step of this name is its pivot.
    pub(crate) fn build_around(self, pivot: &str) -> Result<Saga<C, D>, ConfigError> {
        let is_pivot = |step: &Step<C, D>| step.plan.kind == StepKind::Pivot && step.plan.name == pivot;
        if !self.steps.iter().any(is_pivot) {
            return Err(ConfigError::new(&self.name, "pivot", pivot, "one of the steps"));
        }
        self.build()
    }

    /// The saga.
    ///
    /// # Errors
    ///
    /// When it has no steps, two of one name, a name that is none, or an order of steps that makes no sense.
    pub fn build(self) -> Result<Saga<C, D>, ConfigError> {
        check(&self.name, &self.steps)?;
        let plan = Plan {
            steps: self.steps.iter().map(|step| step.plan.clone()).collect(),
            halt_on_undo_failure: self.halt_on_undo_failure,
        };
        let code: Result<_, ConfigError> = self.steps.into_iter().map(|step| runnable(&self.name, step)).collect();
        Ok(Saga(Arc::new(Definition {
            fingerprint: Fingerprint::of(&plan),
            plan,
            code: code?,
            name: self.name,
            version: self.version,
            compatible: self.compatible,
            upcasts: self.upcasts,
            undo_budget: self.undo_budget,
            deadline: self.deadline,
            listener: self.listener,
            deps: Arc::new(self.deps),
        })))
    }
}

fn runnable<C, D>(saga: &Name, step: Step<C, D>) -> Result<Runnable<C, D>, ConfigError> {
    Ok(Runnable {
        name: step.plan.name.into(),
        backoff: step.code.backoff.check(saga)?,
        undo_backoff: step.code.undo_backoff.check(saga)?,
        code: step.code,
    })
}

/// The longest name of a step: it is part of a key that is sent as a header.
const MAX_NAME: usize = 48;

fn check<C, D>(saga: &Name, steps: &[Step<C, D>]) -> Result<(), ConfigError> {
    let wrong = |setting, value: &dyn fmt::Debug, allowed: &str| Err(ConfigError::new(saga, setting, value, allowed));
    if steps.is_empty() {
        return wrong("steps", &steps.len(), "at least one step");
    }
    let mut pivot: Option<&StepPlan> = None;
    for (index, step) in steps.iter().enumerate() {
        let Step { plan, code } = step;
        let name = &*plan.name;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return wrong("step", &name, "named with 1 to 48 of a to z, 0 to 9, _ and -");
        }
        if steps[..index].iter().any(|before| before.plan.name == plan.name) {
            return wrong("step", &name, "the only one of its name");
        }
        match (plan.kind, pivot) {
            (StepKind::Pivot, Some(_)) => return wrong("pivot", &name, "the only one"),
            (StepKind::Pivot, None) => pivot = Some(plan),
            (StepKind::Compensatable, Some(_)) => {
                return wrong(
                    "step",
                    &name,
                    "before the pivot: after it there is no way back, so it has to be retriable",
                );
            }
            (StepKind::Retriable, None) => {
                return wrong(
                    "retriable",
                    &name,
                    "after a pivot: before it a failure turns the saga back",
                );
            }
            _ => {}
        }
        if plan.has_undo && plan.kind != StepKind::Compensatable {
            return wrong("undo", &name, "of a step before the pivot that has an effect");
        }
        if plan.local && plan.can_reconcile {
            return wrong(
                "reconcile",
                &name,
                "a step whose effect may be in doubt: one in a transaction is not",
            );
        }
        if plan.has_undo && plan.kind != StepKind::Compensatable {
            return wrong(
                "undo",
                &name,
                "of a step before the pivot that has an effect: no other is undone",
            );
        }
        if plan.attempts == 0 {
            return wrong("attempts", &0, "at least 1");
        }
        if plan.undo_attempts == 0 {
            return wrong("undo_attempts", &0, "at least 1");
        }
        if plan.when_interrupted == WhenInterrupted::Reconcile && !plan.can_reconcile {
            return wrong(
                "when_interrupted",
                &plan.when_interrupted,
                "a step that has a reconcile hook",
            );
        }
        let turns = matches!(plan.kind, StepKind::Pivot | StepKind::Retriable);
        if plan.when_interrupted == WhenInterrupted::TurnBack && turns {
            return wrong("when_interrupted", &plan.when_interrupted, "a step before the pivot");
        }
        if code.timeout.is_zero() || code.undo_timeout.is_zero() {
            return wrong("timeout", &0, "more than 0");
        }
    }
    Ok(())
}

impl<C, D> Clone for Saga<C, D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C, D> fmt::Debug for Saga<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga")
            .field("name", &self.name())
            .field(
                "steps",
                &self.0.plan.steps.iter().map(|step| &step.name).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl<C, D> fmt::Debug for SagaBuilder<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaBuilder")
            .field("name", &self.name)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
