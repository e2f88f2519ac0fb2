//! A durable saga, as who started it sees it.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::super::code::race;
use super::super::error::{Detached, SagaError};
use super::super::id::SagaId;
use super::super::journal::{CancelRequest, SagaStatus};
use super::SagaEngine;
use super::core::Core;
use super::registered::{Ending, Ends};
use crate::storage::{StorageError, StorageErrorKind};

/// For how long a journal that does not answer is asked for the end of a saga.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long one look at a saga may take.
const LOOK: Duration = Duration::from_secs(10);

/// The longest pause between two looks at a saga that is driven elsewhere.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A saga that an engine has started, or had; made by [`SagaEngine::start`](super::SagaEngine::start).
///
/// `.await` it for the saga's end, wherever it is driven: it keeps its engine at work. Dropped, the saga goes on without
/// it.
#[must_use = "dropped, nobody hears how the saga ends"]
pub struct DurableSaga<C> {
    engine: SagaEngine,
    ends: Arc<dyn Ends<C>>,
    id: SagaId,
    ending: watch::Receiver<Ending<C>>,
    cancel_on_drop: bool,
    existed: bool,
}

impl<C> DurableSaga<C> {
    pub(crate) fn new(engine: SagaEngine, ends: Arc<dyn Ends<C>>, id: SagaId, existed: bool) -> Self {
        Self {
            ending: ends.watch(id),
            engine,
            ends,
            id,
            cancel_on_drop: false,
            existed,
        }
    }

    /// The saga's own id, that its keys begin with.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// Whether a saga of this key had been started before; then this is that one.
    #[must_use]
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Asks the saga to turn back, wherever it is driven: no step is begun any more, and the one that runs is awaited.
    /// What comes first, the pivot or the request, is told by the saga's end.
    ///
    /// # Errors
    ///
    /// Those of the journal; the request may then have been noted or not, and may be repeated.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the request may have been noted or not.
    pub async fn cancel(&self) -> Result<CancelRequest, StorageError> {
        request_cancel(self.engine.core(), self.id).await
    }

    /// Turns the saga back when this handle is dropped before it has told of the end. Default: the saga goes on.
    ///
    /// It is best effort: where the journal does not answer, or the runtime is shut down, the saga goes on.
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancel_on_drop = true;
        self
    }

    /// Where the saga stands.
    ///
    /// # Errors
    ///
    /// Those of the journal.
    pub async fn status(&self) -> Result<Option<SagaStatus>, StorageError> {
        let loaded = self.engine.core().journal.load(self.id).await?;
        Ok(loaded.map(|loaded| loaded.head.status))
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// [`SagaError`] says how the saga ended where it did not complete; or that nobody can tell.
    ///
    /// # Cancel safety
    ///
    /// Dropped, nothing is lost: call it again.
    pub async fn wait(&mut self) -> Result<C, SagaError>
    where
        C: Clone,
    {
        let result = self.wait_for_end().await;
        // Where nobody can tell for the time being, the end is still to come.
        let told = !matches!(
            &result,
            Err(SagaError::Detached {
                reason: Detached::Journal(_),
                ..
            })
        );
        self.cancel_on_drop = self.cancel_on_drop && !told;
        result
    }

    async fn wait_for_end(&mut self) -> Result<C, SagaError>
    where
        C: Clone,
    {
        let core = Arc::clone(self.engine.core());
        let poll = core.settings.poll_interval;
        let mut answered = Instant::now();
        let mut pause = poll;
        loop {
            if let Some(result) = self.ending.borrow_and_update().clone() {
                return result;
            }
            let (core, id) = (&core, self.id);
            let look = async move {
                if core.flight(id).is_some() {
                    return None;
                }
                // It may be driven elsewhere, or rest since long.
                Some(timeout(LOOK, core.journal.load(id)).await)
            };
            let problem = match race(look, self.ending.changed()).await {
                // It is driven here.
                Ok(None) => {
                    pause = poll;
                    None
                }
                Ok(Some(Ok(Ok(Some(loaded))))) => {
                    if let Some(result) = self.ends.end(&loaded) {
                        return result;
                    }
                    None
                }
                Ok(Some(Ok(Ok(None)))) => return Err(self.detached(Detached::Missing)),
                Ok(Some(Ok(Err(error)))) => Some(error),
                Ok(Some(Err(_))) => Some(StorageError::new(StorageErrorKind::Unavailable, "it does not answer")),
                Err(changed) => {
                    self.heed(changed.is_ok());
                    continue;
                }
            };
            match problem {
                None => answered = Instant::now(),
                Some(error) if answered.elapsed() >= PATIENCE => {
                    return Err(self.detached(Detached::Journal(Arc::new(error))));
                }
                Some(_) => {}
            }
            if let Ok(changed) = race(self.ending.changed(), sleep(pause)).await {
                self.heed(changed.is_ok());
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE.max(poll));
        }
    }

    /// Listens anew where whoever had the end to tell has told another.
    fn heed(&mut self, told: bool) {
        if !told {
            self.ending = self.ends.watch(self.id);
        }
    }

    fn detached(&self, reason: Detached) -> SagaError {
        SagaError::Detached {
            saga: self.ends.name().to_owned(),
            id: self.id,
            reason,
        }
    }
}

pub(crate) async fn request_cancel(core: &Core, id: SagaId) -> Result<CancelRequest, StorageError> {
    let answer = core.journal.request_cancel(id).await?;
    if answer == CancelRequest::Requested {
        if let Some(flight) = core.flight(id) {
            flight.cancel.request();
        }
        // It may be parked, or just about to be, and is due now.
        core.wake.notify_one();
    }
    Ok(answer)
}

impl<C: Clone + Send + Sync + 'static> IntoFuture for DurableSaga<C> {
    type Output = Result<C, SagaError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move { self.wait().await })
    }
}

impl<C> Drop for DurableSaga<C> {
    fn drop(&mut self) {
        let receiver = std::mem::replace(&mut self.ending, watch::channel(None).1);
        self.ends.unwatch(self.id, receiver);
        if !self.cancel_on_drop {
            return;
        }
        let (core, id) = (Arc::clone(self.engine.core()), self.id);
        let runtime = core.runtime.clone();
        runtime.spawn(async move {
            if let Err(error) = request_cancel(&core, id).await {
                tracing::warn!(target: "steadfast::saga", %id, %error, "it was not cancelled");
            }
        });
    }
}

impl<C> fmt::Debug for DurableSaga<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableSaga")
            .field("saga", &self.ends.name())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
