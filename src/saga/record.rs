//! Where the interpreter writes down what happens.

use std::future::{pending, ready};
use std::time::Duration;

use bytes::Bytes;

use super::cx::Cx;
use super::error::StepError;
use super::event::Event;
use super::journal::SagaStatus;
use super::local::{LocalCode, NoTransaction};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a saga is not driven on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Somebody else has it, or may.
    Lease,
    /// This process is to stop.
    Shutdown,
    /// It could not be read for as long as a lease lasts.
    Unread,
}

/// What becomes of the saga after an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It goes on at once.
    GoOn,
    /// Whoever has it then goes on after so long.
    Park(Duration),
    /// It rests.
    Rest,
}

/// Events to be written, and where the saga stands after them.
pub(crate) struct Batch<'e> {
    pub(crate) events: &'e [(Event, Option<Bytes>)],
    pub(crate) status: SagaStatus,
    pub(crate) can_turn: bool,
    pub(crate) then: Then,
}

/// Where the interpreter writes.
pub(crate) trait Recorder<C>: Send {
    /// In which ownership it is.
    fn fence(&self) -> u64;

    /// A context as it is written, and as it is read again: what the next step sees is what it would see after a crash.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or not be read again.
    fn encode(&mut self, context: C) -> Result<(Option<Bytes>, C), BoxError>;

    /// Why no further step is to be run: the context has grown too large.
    fn too_much(&self) -> Option<BoxError>;

    /// Writes events. They are durable when it returns; where it does not succeed, nobody here may act on them.
    fn append(&mut self, batch: &Batch<'_>) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Runs a step in a transaction that writes these events as well: the first of them with the context after it.
    fn local<D: Send + Sync + 'static>(
        &mut self,
        code: &dyn LocalCode<C, D>,
        cx: Cx<C, D>,
        limit: Duration,
        batch: &Batch<'_>,
    ) -> impl Future<Output = Result<Result<C, StepError>, Lost>> + Send;

    /// Waits until something may be started; at once, but for a lease that is nearly over.
    fn may_start(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Ends when the saga is not to be driven on here.
    fn lost(&self) -> impl Future<Output = Lost> + Send;

    /// Whether so long a wait is worth giving the saga away.
    fn parks(&self, wait: Duration) -> bool;
}

/// In memory: nothing is written.
pub(crate) struct Volatile;

impl<C: Send> Recorder<C> for Volatile {
    fn fence(&self) -> u64 {
        1
    }

    fn encode(&mut self, context: C) -> Result<(Option<Bytes>, C), BoxError> {
        Ok((None, context))
    }

    fn too_much(&self) -> Option<BoxError> {
        None
    }

    fn append(&mut self, _: &Batch<'_>) -> impl Future<Output = Result<(), Lost>> + Send {
        ready(Ok(()))
    }

    fn local<D: Send + Sync + 'static>(
        &mut self,
        _: &dyn LocalCode<C, D>,
        _: Cx<C, D>,
        _: Duration,
        _: &Batch<'_>,
    ) -> impl Future<Output = Result<Result<C, StepError>, Lost>> + Send {
        ready(Ok(Err(StepError::failed(NoTransaction))))
    }

    fn may_start(&mut self) -> impl Future<Output = Result<(), Lost>> + Send {
        ready(Ok(()))
    }

    fn lost(&self) -> impl Future<Output = Lost> + Send {
        pending()
    }

    fn parks(&self, _: Duration) -> bool {
        false
    }
}
