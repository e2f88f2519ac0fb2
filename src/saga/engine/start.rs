//! How a durable saga is started.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::definition::Saga;
use super::super::drive::{Interpreter, Standing};
use super::super::event::Event;
use super::super::id::SagaId;
use super::super::journal::{Created, DefinitionId, NewSaga};
use super::super::record::BoxError;
use super::core::{Core, Entering};
use super::flight::Flight;
use super::handle::DurableSaga;
use super::journaled::{Journaled, TooLarge, encode, entry};
use super::registered::Registered;
use super::{SagaData, SagaEngine};
use crate::Key;
use crate::storage::{StorageError, StorageErrorKind, hash_parts};

/// The pauses before a request that failed is sent again.
const CREATE_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// A saga was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is a saga of this key that was started with another context.
    #[error("a saga `{saga}` of this key was started with another context")]
    KeyConflict {
        /// The name of the definition.
        saga: String,
    },
    /// The engine does not drive this definition.
    #[error("saga `{saga}` version {version} is not registered with this engine")]
    NotRegistered {
        /// The name of the definition.
        saga: String,
        /// Its version.
        version: u32,
    },
    /// The context cannot be written as JSON, or not be read again, or is too large.
    #[error("the context of saga `{saga}` cannot be stored")]
    Context {
        /// The name of the definition.
        saga: String,
        /// What went wrong.
        source: BoxError,
    },
    /// Too many sagas wait already.
    #[error("{max_pending} sagas wait to be driven already")]
    Full {
        /// How many may.
        max_pending: usize,
    },
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The journal failed. The saga may have been started or not: start it again with the same key.
    #[error("the journal could not be written")]
    Journal(#[from] StorageError),
}

/// A saga on its way into the journal.
struct Beginning<C, D> {
    core: Arc<Core>,
    registered: Arc<Registered<C, D>>,
    new: NewSaga,
    standing: Standing<C>,
    permit: Option<OwnedSemaphorePermit>,
}

/// The id of the saga that there was before, if there was one.
type Reply = oneshot::Sender<Result<Option<SagaId>, StartError>>;

impl SagaEngine {
    /// Starts a saga under a key of your business, once: where one of this key was started before, with the same context,
    /// it gives that one. `await` the handle for the end, or drop it.
    ///
    /// Two contexts are the same if their JSON is, whatever the order of its fields.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the saga may have been started or not; if so, it goes on. Start it again with the same key.
    pub async fn start<C, D>(&self, saga: &Saga<C, D>, key: &Key, context: C) -> Result<DurableSaga<C>, StartError>
    where
        C: SagaData,
        D: Send + Sync + 'static,
    {
        let core = self.core();
        let Some(entering) = core.enter() else {
            return Err(StartError::ShuttingDown);
        };
        let registered = registered(core, saga)?;
        let permit = core.permit();
        if permit.is_none() && !core.queue() {
            let max_pending = core.settings.max_pending;
            return Err(StartError::Full { max_pending });
        }
        let waits = permit.is_none();
        let beginning = Beginning::new(core, &registered, key, &context, permit).map_err(|source| {
            if waits {
                core.unqueue();
            }
            let saga = saga.name().to_owned();
            StartError::Context { saga, source }
        })?;
        let handle = |id, existed| {
            let ends = Arc::<Registered<C, D>>::clone(&registered);
            DurableSaga::new(self.clone(), ends, id, existed)
        };
        // Made before the saga is, so that its end is not missed.
        let started = handle(beginning.new.id, false);
        let (reply, answer) = oneshot::channel();
        // On a task of its own: who started it may leave.
        core.runtime.spawn(beginning.begin(reply, entering));
        let existing = answer.await.map_err(|_| unheard())??;
        Ok(existing.map_or(started, |id| handle(id, true)))
    }
}

fn registered<C: SagaData, D: Send + Sync + 'static>(
    core: &Core,
    saga: &Saga<C, D>,
) -> Result<Arc<Registered<C, D>>, StartError> {
    let definition = DefinitionId {
        name: saga.name().to_owned(),
        version: saga.version(),
        fingerprint: *saga.fingerprint().as_bytes(),
    };
    let found = core.registered(&definition);
    let found = found.and_then(|drive| drive.as_any().downcast::<Registered<C, D>>().ok());
    found.ok_or_else(|| StartError::NotRegistered {
        saga: definition.name,
        version: definition.version,
    })
}

impl<C: SagaData, D: Send + Sync + 'static> Beginning<C, D> {
    fn new(
        core: &Arc<Core>,
        registered: &Arc<Registered<C, D>>,
        key: &Key,
        context: &C,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, BoxError> {
        let saga = &registered.saga;
        let input = input(context)?;
        let (bytes, context) = encode(context)?;
        TooLarge::check(bytes.len(), core.settings.max_context)?;
        let mut standing = Standing::new(saga, context);
        let mut entries = Vec::new();
        let mut write = |event: &Event, context: Option<&Bytes>| {
            standing.apply(saga, event, Duration::ZERO);
            entries.push(entry(event, context));
        };
        let plan = saga.plan.clone();
        write(&Event::Created { plan }, Some(&bytes));
        if permit.is_some() && !saga.plan.steps[0].local {
            // Its first step is started in the same breath.
            let step = saga.code[0].name.as_ref().to_owned();
            write(&Event::Started { step }, None);
        }
        let new = NewSaga {
            id: SagaId::new(),
            key: key.id(saga.name.as_str(), None),
            input,
            definition: registered.definition(),
            deadline: saga.deadline,
            lease: permit.as_ref().map(|_| (core.owner, core.settings.lease)),
            entries,
            can_turn: standing.state.may_unwind(&saga.plan),
        };
        Ok(Self {
            core: Arc::clone(core),
            registered: Arc::clone(registered),
            new,
            standing,
            permit,
        })
    }

    /// Tried again where the journal fails in passing: the first request may have been carried out.
    async fn create(&self) -> Result<Created, StorageError> {
        let until = Instant::now() + self.core.settings.lease / 3;
        let mut pauses = CREATE_PAUSES.into_iter();
        loop {
            let error = match timeout_at(until, self.core.journal.create(&self.new)).await {
                Ok(Ok(created)) => return Ok(created),
                Ok(Err(error)) => error,
                Err(_) => return Err(unheard()),
            };
            match pauses.next() {
                Some(pause) if error.is_retryable() => sleep(pause).await,
                _ => return Err(error),
            }
        }
    }

    async fn begin(self, reply: Reply, entering: Entering) {
        let (core, saga) = (&self.core, Arc::clone(&self.registered.saga));
        // A lease counts from the first try.
        let asked = Instant::now();
        let created = self.create().await;
        if self.permit.is_none() && !matches!(created, Ok(Created::New)) {
            core.unqueue();
        }
        let id = self.new.id;
        match created {
            Ok(Created::New) => {}
            Ok(Created::Existing(head)) => {
                let _ = reply.send(Ok(Some(head.id)));
                return;
            }
            Ok(Created::Conflict) => {
                let saga = saga.name.as_str().to_owned();
                let _ = reply.send(Err(StartError::KeyConflict { saga }));
                return;
            }
            Err(error) => {
                let unheard = error.is_retryable();
                let _ = reply.send(Err(StartError::Journal(error)));
                if let (Some(permit), true) = (self.permit, unheard) {
                    drop(permit);
                    // If it was written after all, nobody need wait for the end of its lease.
                    core.release(&[(id, 1)]).await;
                    core.wake.notify_one();
                }
                return;
            }
        }
        let plan = saga.plan.clone();
        saga.emit(id, &Event::Created { plan });
        let Some(permit) = self.permit else {
            core.hungry();
            core.wake.notify_one();
            let _ = reply.send(Ok(None));
            return;
        };
        let started = self.new.entries.len() > 1;
        let length = self.new.entries[0].context.as_ref().map_or(0, Bytes::len);
        if started {
            let step = saga.code[0].name.as_ref().to_owned();
            saga.emit(id, &Event::Started { step });
        }
        let flight = Flight::new(id, 1, core.origin, asked, core.settings.lease, false);
        let seat = core.seat(flight, permit);
        drop(entering);
        let _ = reply.send(Ok(None));
        let recorder = Journaled::new(&seat, if started { 2 } else { 1 }, length);
        let cancel = Arc::clone(&seat.flight.cancel);
        let deadline = saga.deadline;
        let interpreter = Interpreter::new(saga, id, self.standing, recorder, cancel).deadline(deadline);
        let left = if started {
            interpreter.go_on(0).await
        } else {
            interpreter.run().await
        };
        self.registered.landed(left, seat).await;
    }
}

/// Nobody has heard what became of a request.
fn unheard() -> StorageError {
    StorageError::new(
        StorageErrorKind::Unavailable,
        "it was not heard whether the saga was written",
    )
}

/// A hash of a context: of its JSON with the fields in order.
fn input<C: SagaData>(context: &C) -> Result<[u8; 32], BoxError> {
    let mut value = serde_json::to_value(context)?;
    value.sort_all_objects();
    Ok(hash_parts(&[&serde_json::to_vec(&value)?]))
}
