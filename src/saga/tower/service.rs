//! A saga as a service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::super::definition::Saga;
use super::super::engine::{SagaData, SagaEngine, StartError};
use super::super::error::SagaError;
use crate::Key;

/// A durable saga did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It was not started.
    #[error("the saga was not started")]
    NotStarted(#[from] StartError),
    /// It was, and did not complete.
    #[error(transparent)]
    Ended(#[from] SagaError),
}

pub(crate) type KeyOf<C> = Arc<dyn Fn(&C) -> Key + Send + Sync>;

/// A durable saga as a service over its context: the request is the context that it starts with, the response the one
/// that it ends with.
///
/// It is always ready; what is too much, the engine refuses. A request that is repeated, by a retry or by the client,
/// joins the saga that there is under its key. A timeout or a caller that leaves does not stop it: to give up waiting is not
/// to turn back.
///
/// # Examples
///
/// ```
/// use steadfast::Key;
/// use steadfast::saga::journal::MemoryJournal;
/// use steadfast::saga::{Cx, Saga, SagaEngine, SagaService};
/// use tower::ServiceExt as _;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let double = Saga::<u32>::builder("double")
///     .read_only("double", async |cx: &mut Cx<u32>| {
///         **cx *= 2;
///         Ok(())
///     })
///     .build()?;
/// let engine = SagaEngine::builder(MemoryJournal::new()).register(&double).build()?;
/// let service = SagaService::new(&engine, &double, |n: &u32| Key::new("numbers", n.to_string()));
/// assert_eq!(service.oneshot(21).await?, 42);
/// # Ok(())
/// # }
/// ```
pub struct SagaService<C, D = ()> {
    engine: SagaEngine,
    saga: Saga<C, D>,
    key: KeyOf<C>,
}

impl<C: SagaData, D: Send + Sync + 'static> SagaService<C, D> {
    /// Starts sagas of this definition with this engine; `key` gives the business key of a context.
    pub fn new(engine: &SagaEngine, saga: &Saga<C, D>, key: impl Fn(&C) -> Key + Send + Sync + 'static) -> Self {
        Self::with(engine.clone(), saga.clone(), Arc::new(key))
    }

    pub(super) fn with(engine: SagaEngine, saga: Saga<C, D>, key: KeyOf<C>) -> Self {
        Self { engine, saga, key }
    }
}

impl<C: SagaData, D: Send + Sync + 'static> Service<C> for SagaService<C, D> {
    type Response = C;
    type Error = ServiceError;
    type Future = Pin<Box<dyn Future<Output = Result<C, ServiceError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, context: C) -> Self::Future {
        let (engine, saga, key) = (self.engine.clone(), self.saga.clone(), (self.key)(&context));
        Box::pin(async move {
            let started = engine.start(&saga, &key, context).await?;
            Ok(started.await?)
        })
    }
}

impl<C, D> Clone for SagaService<C, D> {
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            saga: self.saga.clone(),
            key: Arc::clone(&self.key),
        }
    }
}

impl<C, D> fmt::Debug for SagaService<C, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaService")
            .field("engine", &self.engine)
            .field("saga", &self.saga)
            .finish_non_exhaustive()
    }
}
