//! The interpreter: does what the machine decides, and writes down what has happened before it does anything else.
//!
//! Events that nothing comes between are written together: a result with the start of the next step, the turning back
//! with the first undo, the last result with the end. They are applied to the state at once and written before anything
//! is done: run, waited for, or told. Where they cannot be written the interpreter ends, and its state with it.

mod standing;
mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::code::race;
use super::definition::Definition;
use super::error::SagaError;
use super::event::{Event, Obstacle, SagaEnd};
use super::id::SagaId;
use super::machine::{Circumstances, Next, Stop, decide};
use super::record::{Batch, Lost, Recorder, Then};
use crate::clock::after;
use crate::curve::{Curve, Progress};
use crate::random::{Random, seed};

pub(crate) use standing::Standing;

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

    fn end(self) -> Result<C, SagaError> {
        self.standing.end(&self.saga, self.id)
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
