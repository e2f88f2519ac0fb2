//! A saga whose steps run twice, for tests.

use std::pin::Pin;
use std::sync::Arc;

use super::action::{Code, SharedCode};
use super::cx::Cx;
use super::definition::{Definition, Runnable, Saga};
use super::error::StepResult;
use super::step::StepCode;

/// Code that is run again where it succeeds, with the context that it had: as if its first result had been lost.
struct Twice<C, D>(SharedCode<C, D, StepResult>);

impl<C, D> Code<C, D, StepResult> for Twice<C, D>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
{
    fn call<'a>(&self, cx: &'a mut Cx<C, D>) -> Pin<Box<dyn Future<Output = StepResult> + Send + 'a>> {
        let code = Arc::clone(&self.0);
        Box::pin(async move {
            let mut first = Cx {
                data: cx.data.clone(),
                deps: Arc::clone(&cx.deps),
                run: cx.run.clone(),
            };
            code.call(&mut first).await?;
            code.call(cx).await
        })
    }
}

impl<C, D> Saga<C, D>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
{
    /// The same saga, of which this step runs twice, forward and back; every step, with `None`.
    pub(crate) fn twice(&self, step: Option<&str>) -> Self {
        let saga = &self.0;
        let code = saga.code.iter().map(|runnable| {
            let chosen = step.is_none_or(|step| *runnable.name == *step);
            let twice = |code: &SharedCode<C, D, StepResult>| -> SharedCode<C, D, StepResult> {
                if chosen {
                    Arc::new(Twice(Arc::clone(code)))
                } else {
                    Arc::clone(code)
                }
            };
            let code = &runnable.code;
            Runnable {
                name: Arc::clone(&runnable.name),
                code: StepCode {
                    action: twice(&code.action),
                    undo: code.undo.as_ref().map(twice),
                    reconcile: code.reconcile.clone(),
                    // Its effect and the note of it are committed together: it never runs again after it has.
                    local: code.local.clone(),
                    backoff: code.backoff.clone(),
                    undo_backoff: code.undo_backoff.clone(),
                    ..*code
                },
                backoff: runnable.backoff.clone(),
                undo_backoff: runnable.undo_backoff.clone(),
            }
        });
        Self(Arc::new(Definition {
            name: saga.name.clone(),
            compatible: saga.compatible.clone(),
            upcasts: saga.upcasts.clone(),
            plan: saga.plan.clone(),
            code: code.collect(),
            listener: saga.listener.clone(),
            deps: Arc::clone(&saga.deps),
            ..**saga
        }))
    }
}
