//! What a step works with.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::event::Known;
use super::id::SagaId;

/// The context of a saga, as one run of a step sees it: the step's private copy, kept if the step succeeds.
///
/// It derefs to the context.
pub struct Cx<C, D = ()> {
    pub(crate) data: C,
    pub(crate) deps: Arc<D>,
    pub(crate) run: RunOf,
}

/// Which run it is.
#[derive(Clone, Debug)]
pub(crate) struct RunOf {
    pub(crate) saga: SagaId,
    pub(crate) step: Arc<str>,
    pub(crate) attempt: u32,
    /// In which ownership.
    pub(crate) fence: u64,
    /// `None` in an action.
    pub(crate) undo: Option<Known>,
}

impl<C, D> Cx<C, D> {
    /// What the saga was given to work with: clients, pools, settings.
    #[must_use]
    pub fn deps(&self) -> &D {
        &self.deps
    }

    /// The saga's own id.
    #[must_use]
    pub fn saga_id(&self) -> SagaId {
        self.run.saga
    }

    /// The name of the step.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.run.step
    }

    /// 1 for the first run of this action, or of this undo.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.run.attempt
    }

    /// In an undo: whether the action succeeded, or may have had its effect. In an action it is
    /// [`Unknown`](Known::Unknown), as it has yet to happen.
    #[must_use]
    pub fn outcome(&self) -> Known {
        self.run.undo.unwrap_or(Known::Unknown)
    }

    /// A number that grows with each process that takes the saga over: a service that remembers the largest one that it
    /// has seen can refuse what arrives late from the process before. In memory it is 1.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.run.fence
    }

    /// The key to send along with the step's request, as its `Idempotency-Key`: the same in every attempt, another for
    /// the undo.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        self.key(if self.run.undo.is_some() { "undo" } else { "do" })
    }

    /// In an undo: the key that the action was sent with, to close it at the participant, or to find out what it did.
    #[must_use]
    pub fn action_key(&self) -> String {
        self.key("do")
    }

    /// The key of one of several requests of this step.
    #[must_use]
    pub fn subkey(&self, request: &str) -> String {
        format!("{}:{request}", self.idempotency_key())
    }

    fn key(&self, verb: &str) -> String {
        let RunOf { saga, step, .. } = &self.run;
        // The one is the run of the step: no operator's verb drives a step again that was undone.
        format!("{saga}:1:{step}:{verb}")
    }
}

impl<C, D> Deref for Cx<C, D> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.data
    }
}

impl<C, D> DerefMut for Cx<C, D> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.data
    }
}

impl<C: fmt::Debug, D> fmt::Debug for Cx<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("data", &self.data)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}
