//! A definition that an engine drives.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::super::code::race;
use super::super::definition::Definition;
use super::super::drive::{Interpreter, Left, Waited};
use super::super::error::{Detached, SagaError};
use super::super::event::{Event, Obstacle, SagaEnd};
use super::super::id::SagaId;
use super::super::journal::{Append, Claimed, DefinitionId, Head, Hold, Loaded, SagaStatus};
use super::super::record::Lost;
use super::SagaData;
use super::core::{Drive, Driving, Seat};
use super::journaled::{Journaled, entry};
use super::read::{Unread, is_whole, read};

/// How a saga ended, once it has.
pub(crate) type Ending<C> = Option<Result<C, SagaError>>;

pub(crate) struct Registered<C, D> {
    pub(crate) saga: Arc<Definition<C, D>>,
    /// Who waits for the end of a saga.
    watchers: Mutex<HashMap<SagaId, watch::Sender<Ending<C>>>>,
}

/// How the end of a saga over `C` is heard of, and read.
pub(crate) trait Ends<C>: Send + Sync {
    fn name(&self) -> &str;
    /// What is told of a saga; `None` while it is active.
    fn end(&self, loaded: &Loaded) -> Ending<C>;
    fn watch(&self, id: SagaId) -> watch::Receiver<Ending<C>>;
    /// Takes the receiver along, so that the last one of a saga is known to be the last.
    fn unwatch(&self, id: SagaId, receiver: watch::Receiver<Ending<C>>);
}

impl<C: SagaData, D: Send + Sync + 'static> Registered<C, D> {
    pub(crate) fn new(saga: Arc<Definition<C, D>>) -> Self {
        Self {
            saga,
            watchers: Mutex::default(),
        }
    }

    /// What its own sagas are started as.
    pub(crate) fn definition(&self) -> DefinitionId {
        DefinitionId {
            name: self.saga.name.as_str().to_owned(),
            version: self.saga.version,
            fingerprint: *self.saga.fingerprint.as_bytes(),
        }
    }

    /// All that it can drive.
    pub(crate) fn definitions(&self) -> Vec<DefinitionId> {
        let versions = self.saga.upcasts.iter().map(|(from, _)| *from);
        let mut definitions = Vec::new();
        for version in versions.chain([self.saga.version]) {
            for fingerprint in self.saga.compatible.iter().chain([&self.saga.fingerprint]) {
                definitions.push(DefinitionId {
                    version,
                    fingerprint: *fingerprint.as_bytes(),
                    ..self.definition()
                });
            }
        }
        definitions
    }

    fn watchers(&self) -> MutexGuard<'_, HashMap<SagaId, watch::Sender<Ending<C>>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn claimed(self: Arc<Self>, claimed: Claimed, seat: Seat) {
        let left = match self.go_on(claimed, &seat).await {
            Ok(left) => left,
            Err(lost) => Left::Lost(lost),
        };
        self.landed(left, seat).await;
    }

    async fn go_on(&self, claimed: Claimed, seat: &Seat) -> Result<Left<C>, Lost> {
        if claimed.head.recoveries > seat.core.settings.max_recoveries {
            // Before it is read: that may be what kills whoever drives it.
            return self.stick(&claimed.head, seat, Obstacle::CrashLoop, None).await;
        }
        let loaded = load(seat).await?;
        if loaded.head.epoch != seat.flight.epoch {
            return Err(Lost::Lease);
        }
        if loaded.head.cancel {
            seat.flight.cancel.request();
        }
        let standing = match read(&self.saga, &loaded) {
            Ok(standing) => standing,
            Err(Unread::Truncated) => return Err(Lost::Unread),
            Err(Unread::Context(error)) => {
                let error = format!("its context cannot be read: {error}");
                return self.stick(&loaded.head, seat, Obstacle::Corrupt, Some(error)).await;
            }
        };
        let recorder = Journaled::new(seat, loaded.head.seq, length_of(&loaded));
        let cancel = Arc::clone(&seat.flight.cancel);
        let interpreter = Interpreter::new(Arc::clone(&self.saga), seat.flight.id, standing, recorder, cancel);
        let waited = if claimed.parked { Waited::Next } else { Waited::No };
        Ok(interpreter.deadline(claimed.deadline_in).waited(waited).run().await)
    }

    /// Lays a saga to rest that cannot be driven. Who waits for it finds its end in the journal.
    async fn stick(
        &self,
        head: &Head,
        seat: &Seat,
        obstacle: Obstacle,
        error: Option<String>,
    ) -> Result<Left<C>, Lost> {
        let event = Event::Finished {
            end: SagaEnd::Stuck,
            obstacle: Some(obstacle),
        };
        let append = Append {
            id: head.id,
            epoch: seat.flight.epoch,
            seq: head.seq,
            entries: vec![entry(&event, None)],
            status: SagaStatus::Stuck,
            can_turn: head.can_turn,
            progress: true,
            hold: Hold::Rest,
            error,
        };
        seat.flight.landing(true);
        Journaled::<C>::new(seat, head.seq, 0).write(&append).await?;
        self.saga.emit(head.id, &event);
        Ok(Left::Parked)
    }

    /// What is to be done when a saga is not driven here any more.
    pub(crate) async fn landed(&self, left: Left<C>, seat: Seat) {
        let id = seat.flight.id;
        match left {
            Left::Ended(result) => {
                // Whoever hears of the end may start another at once, and is to find the place free.
                drop(seat);
                if let Some(watcher) = self.watchers().remove(&id) {
                    watcher.send_replace(Some(result));
                }
            }
            Left::Parked => {}
            Left::Lost(Lost::Shutdown | Lost::Unread) => seat.core.release(&[(id, seat.flight.epoch)]).await,
            Left::Lost(Lost::Lease) => {
                let saga = self.saga.name.as_str();
                tracing::warn!(target: "steadfast::saga", saga, %id, "its lease was lost: it goes on elsewhere");
                #[cfg(feature = "metrics")]
                metrics::counter!("steadfast.saga.fenced", "saga" => crate::event::label(&self.saga.name)).increment(1);
            }
        }
    }
}

/// The events of a saga, all of them; tried for as long as a lease lasts. What cannot be read then takes its place behind
/// the others that are due.
async fn load(seat: &Seat) -> Result<Loaded, Lost> {
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    let lease = seat.core.settings.lease;
    let until = Instant::now() + lease;
    let mut pause = FIRST_PAUSE;
    loop {
        let id = seat.flight.id;
        let loading = timeout(lease / 3, seat.core.journal.load(id));
        let problem = match race(loading, seat.flight.lost()).await? {
            Ok(Ok(Some(loaded))) if is_whole(&loaded) => return Ok(loaded),
            Ok(Ok(Some(_))) => "not all of its events were read".to_owned(),
            Ok(Ok(None)) => "it is not there".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the journal does not answer".to_owned(),
        };
        tracing::warn!(target: "steadfast::saga", %id, problem, "a saga was not read");
        if Instant::now() >= until {
            return Err(Lost::Unread);
        }
        race(sleep(pause), seat.flight.lost()).await?;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The length of the last context that was written.
fn length_of(loaded: &Loaded) -> usize {
    let contexts = loaded.entries.iter().rev().map(|stored| stored.entry.context.as_ref());
    contexts.flatten().next().map_or(0, bytes::Bytes::len)
}

impl<C: SagaData, D: Send + Sync + 'static> Drive for Registered<C, D> {
    fn drive(self: Arc<Self>, claimed: Claimed, seat: Seat) -> Driving {
        Box::pin(self.claimed(claimed, seat))
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<C: SagaData, D: Send + Sync + 'static> Ends<C> for Registered<C, D> {
    fn name(&self) -> &str {
        self.saga.name.as_str()
    }

    fn end(&self, loaded: &Loaded) -> Ending<C> {
        let (saga, id) = (self.name().to_owned(), loaded.head.id);
        let end = match loaded.head.status {
            SagaStatus::Running | SagaStatus::Compensating => return None,
            SagaStatus::Completed => SagaEnd::Completed,
            SagaStatus::Compensated => SagaEnd::Compensated,
            SagaStatus::Stuck => SagaEnd::Stuck,
            SagaStatus::Abandoned => SagaEnd::Abandoned,
        };
        let detached = |reason| Err(SagaError::Detached { saga, id, reason });
        Some(if loaded.head.pruned {
            detached(Detached::Pruned(end))
        } else {
            match read(&self.saga, loaded) {
                Ok(standing) => standing.end(&self.saga, id),
                Err(Unread::Context(error)) => detached(Detached::Unreadable(error.into())),
                Err(Unread::Truncated) => return None,
            }
        })
    }

    fn watch(&self, id: SagaId) -> watch::Receiver<Ending<C>> {
        let mut watchers = self.watchers();
        watchers
            .entry(id)
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe()
    }

    fn unwatch(&self, id: SagaId, receiver: watch::Receiver<Ending<C>>) {
        let mut watchers = self.watchers();
        drop(receiver);
        if watchers.get(&id).is_some_and(|watcher| watcher.receiver_count() == 0) {
            watchers.remove(&id);
        }
    }
}
