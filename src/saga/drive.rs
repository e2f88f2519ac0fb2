//! The interpreter: does what the machine decides, and writes down what has happened before it does anything else.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::action::Code;
use super::cx::{Cx, RunOf};
use super::definition::Definition;
use super::error::{Cause, Report, SagaError, StepError, StepFailure};
use super::event::{Event, Known, Reality, SagaEnd};
use super::machine::{Direction, Next, State, Stop, decide, unresolved};
use crate::clock::after;
use crate::curve::{Curve, Progress};
use crate::random::{Random, seed};

type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// A run of a step ended without a result of its own.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it had no result within {0:?}")]
    TimedOut(Duration),
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// One saga, from where it stands to its end.
pub(crate) struct Interpreter<C, D> {
    saga: Arc<Definition<C, D>>,
    id: Arc<str>,
    state: State,
    /// As the last success has left it.
    context: C,
    /// The last error of each action and of each undo.
    errors: Vec<Option<SharedError>>,
    undo_errors: Vec<Option<SharedError>>,
    random: Random,
    cancel: Arc<Cancel>,
    deadline: Option<Instant>,
    /// What has been waited for: the next run of this step, after so many failures.
    waited: Option<(usize, u32)>,
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

impl<C: Clone + Send + 'static, D: Send + Sync + 'static> Interpreter<C, D> {
    pub(crate) fn new(saga: Arc<Definition<C, D>>, id: Arc<str>, context: C, cancel: Arc<Cancel>) -> Self {
        let steps = saga.plan.steps.len();
        Self {
            state: State::new(&saga.plan),
            errors: vec![None; steps],
            undo_errors: vec![None; steps],
            random: Random::stream(seed(), 0),
            cancel,
            deadline: saga.deadline.map(after),
            waited: None,
            saga,
            id,
            context,
        }
    }

    pub(crate) async fn run(mut self) -> Result<C, SagaError> {
        self.record(&Event::Created);
        loop {
            match decide(&self.saga.plan, &self.state, self.stop()) {
                Next::Start { step, failures } if failures > 0 && self.waited != Some((step, failures)) => {
                    self.wait(step, failures).await;
                }
                Next::Start { step, failures } => self.start(step, failures).await,
                Next::Reconcile { step } => self.reconcile(step).await,
                Next::Unwind { reason } => self.record(&Event::Unwinding { reason }),
                Next::Undo {
                    step,
                    outcome,
                    failures,
                } => {
                    if let Some(retry) = failures.checked_sub(1) {
                        sleep(self.delay(retry, &self.saga.clone().code[step].undo_backoff)).await;
                    }
                    self.undo(step, outcome, failures).await;
                }
                Next::Finish { end } => self.record(&Event::Finished { end }),
                Next::Rest | Next::Corrupt => return self.end(),
            }
        }
    }

    fn record(&mut self, event: &Event) {
        self.state.apply(&self.saga.plan, event);
        self.saga.emit(&self.id, event);
    }

    /// Why nothing more is to be begun.
    fn stop(&self) -> Option<Stop> {
        if self.cancel.is_requested() {
            return Some(Stop::Cancelled);
        }
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        passed.then_some(Stop::Deadline)
    }

    /// Waits until a step may be run again; shorter, if it is not to be run any more.
    async fn wait(&mut self, step: usize, failures: u32) {
        self.waited = Some((step, failures));
        let backoff = &self.saga.clone().code[step].backoff;
        let until = after(self.delay(failures - 1, backoff));
        // What cannot turn back any more waits its time, whatever was asked for and however late it is.
        if !self.state.may_unwind(&self.saga.plan) {
            return sleep_until(until).await;
        }
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        let cancel = Arc::clone(&self.cancel);
        if !cancel.is_requested() {
            let _ = timeout_at(until, cancel.changed.notified()).await;
        }
    }

    fn delay(&mut self, retry: u32, backoff: &Curve) -> Duration {
        let random = &mut self.random;
        let delay = backoff.next(&mut Progress::after(retry), || random.unit());
        delay.unwrap_or_default()
    }

    fn cx(&self, step: usize, attempt: u32, undo: Option<Known>) -> Cx<C, D> {
        Cx {
            data: self.context.clone(),
            deps: Arc::clone(&self.saga.deps),
            run: RunOf {
                saga: Arc::clone(&self.id),
                step: Arc::clone(&self.saga.code[step].name),
                attempt,
                round: 1,
                undo,
            },
        }
    }

    async fn start(&mut self, step: usize, failures: u32) {
        let name = self.name(step);
        self.record(&Event::Started { step: name.clone() });
        let mut cx = self.cx(step, failures + 1, None);
        let code = &self.saga.code[step].code;
        let (action, limit) = (Arc::clone(&code.action), code.timeout);
        match run(&*action, &mut cx, limit).await {
            Ok(()) => {
                self.context = cx.data;
                self.record(&Event::Succeeded { step: name });
            }
            Err(failed) => {
                let event = Event::Failed {
                    step: name,
                    effect: failed.effect,
                    retryable: failed.retryable,
                    error: failed.error.to_string(),
                };
                self.errors[step] = Some(failed.error.into());
                self.record(&event);
            }
        }
    }

    async fn reconcile(&mut self, step: usize) {
        let mut cx = self.cx(step, 1, None);
        let code = &self.saga.code[step].code;
        let reality = match &code.reconcile {
            None => Reality::Unknown,
            Some(hook) => {
                let (hook, limit) = (Arc::clone(hook), code.timeout);
                run(&*hook, &mut cx, limit).await.unwrap_or(Reality::Unknown)
            }
        };
        if reality == Reality::Done {
            self.context = cx.data;
        }
        let step = self.name(step);
        self.record(&Event::Reconciled { step, reality });
    }

    async fn undo(&mut self, step: usize, outcome: Known, failures: u32) {
        let name = self.name(step);
        let started = Event::UndoStarted {
            step: name.clone(),
            outcome,
        };
        self.record(&started);
        let mut cx = self.cx(step, failures + 1, Some(outcome));
        let code = &self.saga.code[step].code;
        let Some(undo) = code.undo.clone() else {
            return self.record(&Event::UndoSucceeded { step: name });
        };
        let limit = code.undo_timeout;
        match run(&*undo, &mut cx, limit).await {
            Ok(()) => {
                self.context = cx.data;
                self.record(&Event::UndoSucceeded { step: name });
            }
            Err(failed) => {
                let event = Event::UndoFailed {
                    step: name,
                    error: failed.error.to_string(),
                    last: failures + 1 >= self.saga.plan.steps[step].undo_attempts,
                };
                self.undo_errors[step] = Some(failed.error.into());
                self.record(&event);
            }
        }
    }

    fn name(&self, step: usize) -> String {
        self.saga.code[step].name.as_ref().to_owned()
    }

    fn end(self) -> Result<C, SagaError> {
        let end = self.state.end.unwrap_or(SagaEnd::Stuck);
        if end == SagaEnd::Completed {
            return Ok(self.context);
        }
        let plan = &self.saga.plan;
        let failure = |errors: &[Option<SharedError>], step: usize| {
            let error = errors.get(step)?.clone()?;
            Some(StepFailure {
                step: self.name(step),
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
            saga: self.saga.name.as_str().to_owned(),
            id: self.id.as_ref().to_owned(),
            end,
            cause,
            unresolved,
            undo_errors: (0..plan.steps.len())
                .rev()
                .filter_map(|step| failure(&self.undo_errors, step))
                .collect(),
        });
        Err(match end {
            SagaEnd::Compensated => SagaError::Compensated(report),
            _ => SagaError::Stuck(report),
        })
    }
}

/// Runs code within `limit`. What it does not say itself (it took too long, it panicked) may have had its effect.
async fn run<C, D, T>(
    code: &dyn Code<C, D, Result<T, StepError>>,
    cx: &mut Cx<C, D>,
    limit: Duration,
) -> Result<T, StepError> {
    match timeout(limit, caught(code, cx)).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(StepError::fatal_unknown(Ended::Panicked(text(&*panic)))),
        Err(_) => Err(StepError::unknown(Ended::TimedOut(limit))),
    }
}

/// The panic of code as a value. Code that panics before it has made its future does so in the first poll as well.
async fn caught<C, D, T>(code: &dyn Code<C, D, T>, cx: &mut Cx<C, D>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(async move { code.call(cx).await });
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with a value that is no text").to_owned()
}
