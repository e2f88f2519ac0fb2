//! One step at a time: its run, its hook, its undo.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::code::{guarded, race, run};
use super::super::cx::{Cx, RunOf};
use super::super::error::StepError;
use super::super::event::{Event, Known, Reality};
use super::super::local::LocalCode;
use super::super::machine::{Circumstances, Next, decide};
use super::super::record::{Batch, Recorder, Then};
use super::{Interpreter, Leave, Waited};
use crate::Effect;

impl<C, D, R> Interpreter<C, D, R>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
    R: Recorder<C>,
{
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

    pub(super) async fn start(&mut self, step: usize, failures: u32) -> Result<(), Leave> {
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
            // The participant was not asked: a doubt about earlier runs stays.
            self.failed(step, StepError::failed(too_much), false);
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
    pub(super) async fn act(&mut self, step: usize, attempt: u32, could_turn: bool) -> Result<(), Leave> {
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
            Err(failed) => {
                let answers = self.saga.plan.steps[step].answers_by_key;
                let settles = answers && failed.effect == Effect::None && !failed.retryable;
                self.failed(step, failed, settles);
            }
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
            Err(failed) => self.failed(step, failed, false),
        }
        Ok(())
    }

    /// Notes a failure; whether it settles what is in doubt about earlier runs.
    fn failed(&mut self, step: usize, failed: StepError, settles: bool) {
        let event = Event::Failed {
            step: self.name(step),
            effect: failed.effect,
            retryable: failed.retryable,
            settles,
            error: text_of(&*failed.error),
        };
        self.standing.errors[step] = Some(failed.error.into());
        self.record(event, None);
    }

    pub(super) async fn reconcile(&mut self, step: usize) -> Result<(), Leave> {
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

    pub(super) async fn undo(&mut self, step: usize, outcome: Known, failures: u32) -> Result<(), Leave> {
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
}

/// The text of an error, which is code of others too.
fn text_of(error: &(dyn std::error::Error + Send + Sync)) -> String {
    guarded(|| Ok(error.to_string())).unwrap_or_else(|_| "it panics when it is shown".to_owned())
}
