//! Sagas that survive their process.

mod builder;
mod core;
mod flight;
mod handle;
mod journaled;
mod read;
mod registered;
mod start;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::definition::Saga;
use super::id::SagaId;
use super::journal::{CancelRequest, Counts, Journal, Prune};
use crate::storage::StorageError;
use core::Core;
use registered::Registered;

pub use builder::{
    DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_CONTEXT, DEFAULT_MAX_PENDING, DEFAULT_MAX_RECOVERIES, DEFAULT_POLL_INTERVAL,
    SagaEngineBuilder,
};
pub use handle::DurableSaga;
pub(crate) use journaled::entry;
pub use start::StartError;

/// How long sagas that are told to stop may take to do so.
const STOPPING: Duration = Duration::from_secs(5);

/// A context that can be written down: for all of its kind.
pub trait SagaData: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<C: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> SagaData for C {}

/// Drives sagas that survive their process: what happens is written to a [`Journal`] before anything else happens.
///
/// Several engines, in several processes, may share one journal: each saga is driven by one at a time, and taken over when
/// its process dies. A clone is the same engine, and so is what a [`DurableSaga`] holds. When the last of them is dropped
/// nothing new is begun or claimed, and the sagas under way go on to their ends for as long as the runtime lives;
/// [`shutdown`](Self::shutdown) is the orderly way. Everything runs on the runtime that the engine was built in.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use steadfast::Key;
/// use steadfast::saga::journal::MemoryJournal;
/// use steadfast::saga::{Cx, Saga, SagaEngine};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order {
///     id: u32,
///     paid: bool,
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let orders = Saga::<Order>::builder("order")
///     .pivot("charge", async |cx: &mut Cx<Order>| {
///         // payments.charge(cx.id, cx.idempotency_key()).await?;
///         cx.paid = true;
///         Ok(())
///     })
///     .build()?;
/// let engine = SagaEngine::builder(MemoryJournal::new()).register(&orders).build()?;
///
/// let order = Order { id: 17, paid: false };
/// let done = engine.start(&orders, &Key::new("shop", "order-17"), order).await?.await?;
/// assert!(done.paid);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SagaEngine(Arc<Handle>);

struct Handle(Arc<Core>);

impl SagaEngine {
    /// An engine over this journal.
    pub fn builder(journal: impl Journal) -> SagaEngineBuilder {
        SagaEngineBuilder::new(Arc::new(journal))
    }

    fn of(core: Arc<Core>) -> Self {
        Self(Arc::new(Handle(core)))
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.0
    }

    /// Drives sagas of this definition from now on, unless one of its name, version and steps is registered already.
    ///
    /// Better register with the [builder](SagaEngineBuilder::register), which refuses what does not fit together.
    pub(crate) fn register<C: SagaData, D: Send + Sync + 'static>(&self, saga: &Saga<C, D>) {
        let registered = Arc::new(Registered::new(Arc::clone(&saga.0)));
        let definitions = registered.definitions();
        let drive: Arc<dyn core::Drive> = registered;
        self.core().register(definitions, &drive);
        self.core().wake.notify_one();
    }

    /// Asks a saga to turn back, wherever it is driven; see [`DurableSaga::cancel`].
    ///
    /// # Errors
    ///
    /// Those of the journal; the request may then have been noted or not, and may be repeated.
    pub async fn cancel(&self, id: SagaId) -> Result<CancelRequest, StorageError> {
        handle::request_cancel(self.core(), id).await
    }

    /// How many sagas this engine drives at the moment.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core().in_flight()
    }

    /// How many sagas the journal has: active, stuck, without a definition that this engine has, overdue.
    ///
    /// # Errors
    ///
    /// Those of the journal.
    pub async fn counts(&self) -> Result<Counts, StorageError> {
        self.core().journal.count(&self.core().definitions()).await
    }

    /// Clears away what is over: events first, and later what is left of a saga, its key, under which it cannot be started
    /// again until then. What is active or stuck is kept. Says of how many sagas; call it again while that is the limit.
    ///
    /// # Errors
    ///
    /// Those of the journal.
    pub async fn prune(&self, prune: Prune) -> Result<u64, StorageError> {
        self.core().journal.prune(prune).await
    }

    /// Begins and claims nothing any more, gives the sagas under way so long to come to their ends, then stops those that
    /// have not, in the middle of a step if need be, and releases them: another engine goes on with them at once.
    ///
    /// Whether all came to an end. With a journal that does not answer it takes 5 s more than `grace` at most.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the sagas under way go on; nothing new is begun.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        let core = self.core();
        core.close();
        if timeout(grace, core.idle()).await.is_ok() {
            return true;
        }
        core.stop();
        let _ = timeout(STOPPING, core.idle()).await;
        false
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for SagaEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaEngine")
            .field("journal", &self.core().journal)
            .field("settings", &self.core().settings)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
