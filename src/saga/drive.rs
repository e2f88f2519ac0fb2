//! The interpreter: does what the machine decides, and writes down what has happened before it does anything else.
//!
//! Events that nothing comes between are written together: a result with the start of the next step, the turning back
//! with the first undo, the last result with the end. They are applied to the state at once and written before anything
//! is done: run, waited for, or told. Where they cannot be written the interpreter ends, and its state with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::code::{guarded, race, run};
use super::cx::{Cx, RunOf};
use super::definition::Definition;
use super::error::{Cause, Report, SagaError, StepError, StepFailure};
use super::event::{Event, Known, Obstacle, Reality, SagaEnd};
use super::id::SagaId;
use super::journal::SagaStatus;
use super::local::LocalCode;
use super::machine::{Circumstances, Direction, Next, State, Stop, decide, unresolved};
use super::plan::Plan;
use super::record::{Batch, Lost, Recorder, Then};
use crate::Effect;
use crate::clock::after;
use crate::curve::{Curve, Progress};
use crate::random::{Random, seed};

pub(crate) type SharedError = Arc<dyn std::error::Error + Send + Sync>;

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
    recorded: Plan,
}

/// One saga, from where it stands to its end.
pub(crate) struct Interpreter<C, D, R> {
    saga: Arc<Definition<C, D>>,
    id: SagaId,
    standing: Standing<C>,
    recorder: R,
    /// What is applied and not written yet.
    pending: Vec<(Event, Option<Bytes>)>,
    random: Random,
    cancel: Arc<Cancel>,
    deadline: Option<Instant>,
    /// What has been waited for: the next run of a step, or of its undo, after so many failures.
    waited: Waited,
}

/// How an interpreter ends.
pub(crate) enum Left<C> {
    /// The saga rests.
    Ended(Result<C, SagaError>),
    /// It goes on later, with whoever claims it then.
    Parked,
    /// It goes on elsewhere.
    Lost(Lost),
}

/// Why an interpreter ends before the saga does.
enum Leave {
    Parked,
    Lost(Lost),
}

impl From<Lost> for Leave {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// For nothing.
    No,
    /// For what comes next, whatever it is.
    Next,
    /// For the run of this step after so many failures.
    For { step: usize, failures: u32 },
}

/// The request to turn back.
#[derive(Default)]
pub(crate) struct Cancel {
    requested: AtomicBool,
    changed: Notify,
}

impl Cancel {
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }
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

impl<C, D, R> Interpreter<C, D, R>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
    R: Recorder<C>,
{
    pub(crate) fn new(
        saga: Arc<Definition<C, D>>,
        id: SagaId,
        standing: Standing<C>,
        recorder: R,
        cancel: Arc<Cancel>,
    ) -> Self {
        Self {
            saga,
            id,
            standing,
            recorder,
            pending: Vec::new(),
            random: Random::stream(seed(), 0),
            cancel,
            deadline: None,
            waited: Waited::No,
        }
    }

    /// In how long it is to turn back unless it has reached its pivot.
    pub(crate) fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline.map(after);
        self
    }

    pub(crate) fn waited(mut self, waited: Waited) -> Self {
        self.waited = waited;
        self
    }

    /// A saga that does not exist yet.
    pub(crate) async fn begin(mut self) -> Left<C> {
        let plan = self.saga.plan.clone();
        self.record(Event::Created { plan }, None);
        self.run().await
    }

    /// A saga whose step `started` has just been started, and is to be run now.
    pub(crate) async fn go_on(mut self, started: usize) -> Left<C> {
        let first = self.act(started, 1, true).await;
        match first {
            Ok(()) => self.run().await,
            Err(leave) => leave.into(),
        }
    }

    pub(crate) async fn run(mut self) -> Left<C> {
        if self.standing.recorded != self.saga.plan {
            // It goes along with what is written next.
            let plan = self.saga.plan.clone();
            self.record(Event::Replanned { plan }, None);
        }
        loop {
            let step = match self.decide() {
                Next::Start { step, failures } => self.start(step, failures).await,
                Next::Reconcile { step } => self.reconcile(step).await,
                Next::Unwind { reason } => {
                    self.record(Event::Unwinding { reason }, None);
                    Ok(())
                }
                Next::Undo {
                    step,
                    outcome,
                    failures,
                } => self.undo(step, outcome, failures).await,
                Next::Finish { end, obstacle } => {
                    self.finish(end, obstacle);
                    Ok(())
                }
                Next::Corrupt => {
                    self.finish(SagaEnd::Stuck, Some(Obstacle::Corrupt));
                    Ok(())
                }
                Next::Rest => match self.flush(Then::Rest).await {
                    Ok(()) => return Left::Ended(self.end()),
                    Err(lost) => Err(lost.into()),
                },
            };
            if let Err(leave) = step {
                return leave.into();
            }
        }
    }

    fn decide(&self) -> Next {
        let state = &self.standing.state;
        let open = state.steps.iter().position(|step| !step.is_done());
        let expires = open.and_then(|step| self.standing.keys[step]);
        let now = Circumstances {
            stop: self.stop(),
            key_expired: expires.is_some_and(|expires| Instant::now() >= expires),
        };
        decide(&self.saga.plan, state, now)
    }

    fn record(&mut self, event: Event, context: Option<Bytes>) {
        self.standing.apply(&self.saga, &event, Duration::ZERO);
        self.pending.push((event, context));
    }

    fn finish(&mut self, end: SagaEnd, obstacle: Option<Obstacle>) {
        self.record(Event::Finished { end, obstacle }, None);
    }

    /// Writes what is pending, and tells of it.
    async fn flush(&mut self, then: Then) -> Result<(), Lost> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = Batch {
            events: &self.pending,
            status: self.standing.state.status(),
            can_turn: self.can_turn(),
            then,
        };
        self.recorder.append(&batch).await?;
        for (event, _) in self.pending.drain(..) {
            self.saga.emit(self.id, &event);
        }
        Ok(())
    }

    fn can_turn(&self) -> bool {
        self.standing.state.may_unwind(&self.saga.plan)
    }

    /// Why nothing more is to be begun.
    fn stop(&self) -> Option<Stop> {
        if self.cancel.is_requested() {
            return Some(Stop::Cancelled);
        }
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        passed.then_some(Stop::Deadline)
    }

    /// Waits until a step, or its undo, may be run again; shorter, if it is not to be run any more.
    async fn wait(&mut self, step: usize, failures: u32, backoff: fn(&Self, usize) -> &Curve) -> Result<(), Leave> {
        let this = Waited::For { step, failures };
        let before = std::mem::replace(&mut self.waited, this);
        let Some(retry) = failures.checked_sub(1) else {
            return Ok(());
        };
        if before == this || before == Waited::Next {
            return Ok(());
        }
        let draw = self.random.unit();
        let delay = backoff(self, step).next(&mut Progress::after(retry), || draw);
        let delay = delay.unwrap_or_default();
        if self.recorder.parks(delay) && !self.pending.is_empty() {
            self.flush(Then::Park(delay)).await?;
            return Err(Leave::Parked);
        }
        self.flush(Then::GoOn).await?;
        // What cannot turn back any more waits its time, whatever was asked for and however late it is.
        let can_turn = self.can_turn();
        let mut until = after(delay);
        if let Some(deadline) = self.deadline.filter(|_| can_turn) {
            until = until.min(deadline);
        }
        let cancel = Arc::clone(&self.cancel);
        let turned = async move {
            while !(can_turn && cancel.is_requested()) {
                cancel.changed.notified().await;
            }
        };
        match race(race(sleep_until(until), turned), self.recorder.lost()).await {
            Ok(_) => Ok(()),
            Err(lost) => Err(lost.into()),
        }
    }

    fn cx(&self, step: usize, attempt: u32, undo: Option<Known>) -> Cx<C, D> {
        Cx {
            data: self.standing.context.clone(),
            deps: Arc::clone(&self.saga.deps),
            run: RunOf {
                saga: self.id,
                step: Arc::clone(&self.saga.code[step].name),
                attempt,
                fence: self.recorder.fence(),
                undo,
            },
        }
    }

    async fn start(&mut self, step: usize, failures: u32) -> Result<(), Leave> {
        self.wait(step, failures, |this, step| &this.saga.code[step].backoff)
            .await?;
        if self.can_turn() && self.stop().is_some() {
            // It came while it was waited for.
            return Ok(());
        }
        let local = self.saga.code[step].code.local.clone();
        if let Some(too_much) = self.recorder.too_much() {
            if local.is_none() {
                self.record(Event::Started { step: self.name(step) }, None);
            }
            self.failed(step, StepError::failed(too_much));
            return Ok(());
        }
        if let Some(local) = local {
            return self.start_local(step, &*local, failures + 1).await;
        }
        let can_turn = self.can_turn();
        self.record(Event::Started { step: self.name(step) }, None);
        self.flush(Then::GoOn).await?;
        self.act(step, failures + 1, can_turn).await
    }

    /// Runs a step that is written as started.
    async fn act(&mut self, step: usize, attempt: u32, could_turn: bool) -> Result<(), Leave> {
        self.recorder.may_start().await?;
        let name = self.name(step);
        if could_turn && self.stop().is_some() {
            // The request came between the decision and its record.
            let event = Event::Failed {
                step: name,
                effect: Effect::None,
                retryable: true,
                settles: false,
                error: "it was not run: the saga turns back".to_owned(),
            };
            self.record(event, None);
            return Ok(());
        }
        let mut cx = self.cx(step, attempt, None);
        let code = &self.saga.code[step].code;
        let result = run(&self.saga.name, &*code.action, &mut cx, code.timeout);
        let result = race(result, self.recorder.lost()).await?;
        let kept = result.and_then(|()| {
            let encoded = guarded(|| self.recorder.encode(cx.data));
            encoded.map_err(StepError::fatal_unknown)
        });
        match kept {
            Ok((bytes, context)) => {
                self.standing.context = context;
                self.record(Event::Succeeded { step: name }, bytes);
            }
            Err(failed) => self.failed(step, failed),
        }
        Ok(())
    }

    /// Runs a step in a transaction of the journal. What follows from its success at once, the start of the next step or
    /// the end, is written with it.
    async fn start_local(&mut self, step: usize, local: &dyn LocalCode<C, D>, attempt: u32) -> Result<(), Leave> {
        self.flush(Then::GoOn).await?;
        self.recorder.may_start().await?;
        if self.can_turn() && self.stop().is_some() {
            return Ok(());
        }
        let saga = Arc::clone(&self.saga);
        let mut after = self.standing.state.clone();
        let succeeded = Event::Succeeded { step: self.name(step) };
        after.apply(&saga.plan, &succeeded);
        let could_turn = after.may_unwind(&saga.plan);
        let next = decide(&saga.plan, &after, Circumstances::default());
        let (follows, then) = match next {
            Next::Start { step: next, .. } if saga.code[next].code.local.is_none() => {
                (Some(Event::Started { step: self.name(next) }), Then::GoOn)
            }
            Next::Finish { end, obstacle } => (Some(Event::Finished { end, obstacle }), Then::Rest),
            _ => (None, Then::GoOn),
        };
        let events: Vec<_> = [Some(succeeded), follows]
            .into_iter()
            .flatten()
            .map(|event| (event, None))
            .collect();
        for (event, _) in &events[1..] {
            after.apply(&saga.plan, event);
        }
        let batch = Batch {
            events: &events,
            status: after.status(),
            can_turn: after.may_unwind(&saga.plan),
            then,
        };
        let cx = self.cx(step, attempt, None);
        match self
            .recorder
            .local(local, cx, saga.code[step].code.timeout, &batch)
            .await?
        {
            Ok(context) => {
                self.standing.context = context;
                for (event, _) in &events {
                    self.standing.apply(&saga, event, Duration::ZERO);
                    saga.emit(self.id, event);
                }
                if let (Next::Start { step: next, .. }, true) = (next, events.len() > 1) {
                    self.waited = Waited::For {
                        step: next,
                        failures: 0,
                    };
                    return self.act(next, 1, could_turn).await;
                }
            }
            Err(failed) => self.failed(step, failed),
        }
        Ok(())
    }

    fn failed(&mut self, step: usize, failed: StepError) {
        let answers = self.saga.plan.steps[step].answers_by_key;
        let event = Event::Failed {
            step: self.name(step),
            effect: failed.effect,
            retryable: failed.retryable,
            settles: answers && failed.effect == Effect::None && !failed.retryable,
            error: text_of(&*failed.error),
        };
        self.standing.errors[step] = Some(failed.error.into());
        self.record(event, None);
    }

    async fn reconcile(&mut self, step: usize) -> Result<(), Leave> {
        self.flush(Then::GoOn).await?;
        self.recorder.may_start().await?;
        let mut cx = self.cx(step, 1, None);
        let code = &self.saga.code[step].code;
        let Some(hook) = code.reconcile.clone() else {
            return Ok(());
        };
        let result = race(
            run(&self.saga.name, &*hook, &mut cx, code.timeout),
            self.recorder.lost(),
        )
        .await?;
        let mut reality = result.unwrap_or(Reality::Unknown);
        let mut bytes = None;
        if reality == Reality::Done {
            match guarded(|| self.recorder.encode(cx.data)) {
                Ok((encoded, context)) => {
                    bytes = encoded;
                    self.standing.context = context;
                }
                Err(_) => reality = Reality::Unknown,
            }
        }
        let step = self.name(step);
        self.record(Event::Reconciled { step, reality }, bytes);
        Ok(())
    }

    async fn undo(&mut self, step: usize, outcome: Known, failures: u32) -> Result<(), Leave> {
        self.wait(step, failures, |this, step| &this.saga.code[step].undo_backoff)
            .await?;
        let name = self.name(step);
        let started = Event::UndoStarted {
            step: name.clone(),
            outcome,
        };
        self.record(started, None);
        self.flush(Then::GoOn).await?;
        self.recorder.may_start().await?;
        let mut cx = self.cx(step, failures + 1, Some(outcome));
        let code = &self.saga.code[step].code;
        let Some(undo) = code.undo.clone() else {
            // It had one when its undo was first started.
            let event = Event::UndoFailed {
                step: name,
                error: "the definition has no undo of it any more".to_owned(),
                last: true,
            };
            self.record(event, None);
            return Ok(());
        };
        let result = race(
            run(&self.saga.name, &*undo, &mut cx, code.undo_timeout),
            self.recorder.lost(),
        )
        .await?;
        let kept = result.and_then(|()| {
            let encoded = guarded(|| self.recorder.encode(cx.data));
            encoded.map_err(StepError::fatal_unknown)
        });
        match kept {
            Ok((bytes, context)) => {
                self.standing.context = context;
                self.record(Event::UndoSucceeded { step: name }, bytes);
            }
            Err(failed) => {
                let over = self.standing.undo_until.is_some_and(|until| Instant::now() >= until);
                let event = Event::UndoFailed {
                    step: name,
                    error: text_of(&*failed.error),
                    last: over || failures + 1 >= self.saga.plan.steps[step].undo_attempts,
                };
                self.standing.undo_errors[step] = Some(failed.error.into());
                self.record(event, None);
            }
        }
        Ok(())
    }

    fn name(&self, step: usize) -> String {
        self.saga.code[step].name.as_ref().to_owned()
    }

    fn end(self) -> Result<C, SagaError> {
        self.standing.end(&self.saga, self.id)
    }
}

/// The text of an error, which is code of others too.
fn text_of(error: &(dyn std::error::Error + Send + Sync)) -> String {
    guarded(|| Ok(error.to_string())).unwrap_or_else(|_| "it panics when it is shown".to_owned())
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

impl<C> From<Leave> for Left<C> {
    fn from(leave: Leave) -> Self {
        match leave {
            Leave::Parked => Self::Parked,
            Leave::Lost(lost) => Self::Lost(lost),
        }
    }
}
