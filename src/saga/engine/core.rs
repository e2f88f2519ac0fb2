//! What the parts of an engine share.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::super::id::SagaId;
use super::super::journal::{Claimed, DefinitionId, Journal, OwnerId};
use super::flight::Flight;

/// How an engine works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) max_concurrent: usize,
    pub(crate) max_pending: usize,
    pub(crate) max_recoveries: u32,
}

pub(crate) type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A definition without its types.
pub(crate) trait Drive: Send + Sync {
    /// Drives a saga that was claimed to where it rests, is parked or lost.
    fn drive(self: Arc<Self>, claimed: Claimed, seat: Seat) -> Driving;

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

pub(crate) type Registry = BTreeMap<DefinitionId, Arc<dyn Drive>>;

pub(crate) struct Core {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) owner: OwnerId,
    pub(crate) settings: Settings,
    /// What can be driven, by each of the definitions that it fits.
    registry: RwLock<Registry>,
    permits: Arc<Semaphore>,
    flights: Mutex<HashMap<SagaId, Arc<Flight>>>,
    /// The last flight has ended.
    idle: Notify,
    /// Sagas that were created without a permit, as far as this process knows.
    pending: AtomicUsize,
    /// There may be more to claim than there were permits for.
    hungry: AtomicBool,
    suspects: AtomicUsize,
    /// There is something to claim.
    pub(crate) wake: Notify,
    closing: AtomicBool,
    closed: Notify,
    pub(crate) origin: Instant,
}

impl Core {
    pub(crate) fn new(journal: Arc<dyn Journal>, settings: Settings, registry: Registry) -> Self {
        Self {
            journal,
            owner: OwnerId(crate::random::unique()),
            settings,
            registry: RwLock::new(registry),
            permits: Arc::new(Semaphore::new(settings.max_concurrent)),
            flights: Mutex::default(),
            idle: Notify::new(),
            pending: AtomicUsize::new(0),
            hungry: AtomicBool::new(false),
            suspects: AtomicUsize::new(0),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            origin: Instant::now(),
        }
    }

    /// What drives sagas of this definition.
    pub(crate) fn registered(&self, definition: &DefinitionId) -> Option<Arc<dyn Drive>> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.get(definition).map(Arc::clone)
    }

    /// Everything that can be driven here.
    pub(crate) fn definitions(&self) -> Vec<DefinitionId> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        registry.keys().cloned().collect()
    }

    /// Drives what none drives yet.
    pub(crate) fn register(&self, definitions: Vec<DefinitionId>, drive: &Arc<dyn Drive>) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        for definition in definitions {
            registry.entry(definition).or_insert_with(|| Arc::clone(drive));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SagaId, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn flights(&self) -> Vec<Arc<Flight>> {
        self.lock().values().map(Arc::clone).collect()
    }

    pub(crate) fn flight(&self, id: SagaId) -> Option<Arc<Flight>> {
        self.lock().get(&id).map(Arc::clone)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// A saga takes its place among those that are driven here.
    pub(crate) fn seat(self: &Arc<Self>, flight: Flight, permit: OwnedSemaphorePermit, suspect: bool) -> Seat {
        let flight = Arc::new(flight);
        let before = self.lock().insert(flight.id, Arc::clone(&flight));
        if let Some(before) = before {
            // Its lease ran out in this very process.
            before.taken();
        }
        self.suspects.fetch_add(usize::from(suspect), Ordering::Relaxed);
        Seat {
            core: Arc::clone(self),
            flight,
            suspect,
            permit: Some(permit),
        }
    }

    pub(crate) fn suspects(&self) -> usize {
        self.suspects.load(Ordering::Relaxed)
    }

    /// Takes a place among those that wait for a permit, unless there are too many.
    pub(crate) fn queue(&self) -> bool {
        if self.settings.max_concurrent == 0 {
            // They wait for others, and nobody here hears when they have been claimed.
            return true;
        }
        let max = self.settings.max_pending;
        let more = |pending: usize| (pending < max).then_some(pending + 1);
        let queued = self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        queued.is_ok()
    }

    pub(crate) fn unqueue(&self) {
        let fewer = |pending: usize| pending.checked_sub(1);
        // Nothing was counted where others have claimed what was created here.
        let _ = self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// A claim has left nothing that was due.
    pub(crate) fn sated(&self) {
        self.pending.store(0, Ordering::Relaxed);
        self.hungry.store(false, Ordering::Relaxed);
    }

    pub(crate) fn hungry(&self) {
        self.hungry.store(true, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.closed.notify_waiters();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends when the engine takes nothing new any more.
    pub(crate) async fn closing(&self) {
        loop {
            let closed = self.closed.notified();
            if self.is_closing() {
                return;
            }
            closed.await;
        }
    }

    /// Ends when nothing is driven here.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.lock().is_empty() {
                return;
            }
            idle.await;
        }
    }
}

/// The place of one saga among those that are driven here; dropped, there is room for another.
pub(crate) struct Seat {
    pub(crate) core: Arc<Core>,
    pub(crate) flight: Arc<Flight>,
    suspect: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut flights = self.core.lock();
        let own = flights
            .get(&self.flight.id)
            .is_some_and(|at| Arc::ptr_eq(at, &self.flight));
        if own {
            flights.remove(&self.flight.id);
        }
        let idle = flights.is_empty();
        drop(flights);
        if idle {
            self.core.idle.notify_waiters();
        }
        self.core
            .suspects
            .fetch_sub(usize::from(self.suspect), Ordering::Relaxed);
        // Before the worker is woken, which is to find it.
        drop(self.permit.take());
        if self.core.hungry.load(Ordering::Relaxed) {
            self.core.wake.notify_one();
        }
    }
}
