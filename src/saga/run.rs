//! The simple face: a saga in memory.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::definition::Saga;
use super::drive::{Cancel, Interpreter, Left, Standing};
use super::error::{Detached, SagaError};
use super::id::SagaId;
use super::record::Volatile;

impl<C: Clone + Send + 'static, D: Send + Sync + 'static> Saga<C, D> {
    /// Runs the saga in memory, on a task of its own.
    ///
    /// # Errors
    ///
    /// [`SagaError::Compensated`] when a step failed and everything before it was undone; [`SagaError::Stuck`] when
    /// something could not be undone, or a step after the pivot failed for good.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll, it never ran. Dropped later, the saga goes on to its end. It ends with the runtime:
    /// what has to survive that needs a journal.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled. A panic of a step does not pass: it counts as a failure that may
    /// have had its effect.
    pub async fn run(&self, context: C) -> Result<C, SagaError> {
        self.start(context).await
    }

    /// Starts the saga at once, on a task of its own. The handle awaits its end, and can turn it back.
    ///
    /// # Panics
    ///
    /// As for [`run`](Self::run).
    pub fn start(&self, context: C) -> SagaHandle<C> {
        let (id, cancel) = (SagaId::new(), Arc::<Cancel>::default());
        let standing = Standing::new(&self.0, context);
        let interpreter = Interpreter::new(Arc::clone(&self.0), id, standing, Volatile, Arc::clone(&cancel));
        SagaHandle {
            task: tokio::spawn(interpreter.deadline(self.0.deadline).begin()),
            cancel,
            saga: self.name().to_owned(),
            id,
        }
    }
}

/// A saga under way; made by [`Saga::start`]. It is the future of its end; dropped, the saga goes on without it.
#[must_use = "dropped, nobody hears how the saga ends"]
pub struct SagaHandle<C> {
    task: JoinHandle<Left<C>>,
    cancel: Arc<Cancel>,
    saga: String,
    id: SagaId,
}

impl<C> SagaHandle<C> {
    /// The saga's own id, that its keys begin with.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// Asks the saga to turn back: no step is begun any more, and the one that runs is awaited. After the pivot it has
    /// no effect. Which came first is told by the saga's end.
    pub fn cancel(&self) {
        self.cancel.request();
    }
}

impl<C> Future for SagaHandle<C> {
    type Output = Result<C, SagaError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.task).poll(cx));
        Poll::Ready(match ended {
            Ok(Left::Ended(result)) => result,
            // In memory nothing is parked, and no lease is lost.
            Ok(Left::Parked | Left::Lost(_)) | Err(_) => Err(SagaError::Detached {
                saga: self.saga.clone(),
                id: self.id,
                reason: Detached::TaskGone,
            }),
        })
    }
}

impl<C> fmt::Debug for SagaHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaHandle")
            .field("saga", &self.saga)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
