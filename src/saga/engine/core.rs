//! What the parts of an engine share.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

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
    pub(crate) max_context: usize,
}

pub(crate) type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A definition without its types.
pub(crate) trait Drive: Send + Sync {
    /// Drives a saga that was claimed to where it rests, is parked or lost.
    fn drive(self: Arc<Self>, claimed: Claimed, seat: Seat) -> Driving;

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

pub(crate) type Registry = BTreeMap<DefinitionId, Arc<dyn Drive>>;

/// The pauses before a release that failed is sent again.
const RELEASE_PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
/// How long one release may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct Core {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) owner: OwnerId,
    pub(crate) settings: Settings,
    /// What can be driven, by each of the definitions that it fits.
    registry: RwLock<Registry>,
    permits: Arc<Semaphore>,
    /// Where everything of the engine runs, whoever calls it from wherever.
    pub(crate) runtime: Handle,
    state: Mutex<State>,
    /// The last flight has ended, and nothing is to become one.
    idle: Notify,
    /// Sagas that were created without a permit, as far as this process knows.
    pending: AtomicUsize,
    /// There is something to claim.
    pub(crate) wake: Notify,
    closed: Notify,
    pub(crate) origin: Instant,
}

/// What is under way.
#[derive(Default)]
struct State {
    flights: HashMap<SagaId, Arc<Flight>>,
    /// Claims and starts that the journal has not answered: a flight may come of each.
    entering: usize,
    /// There may be more to claim than there were permits for.
    hungry: bool,
    /// Nothing is begun any more.
    closing: bool,
    /// What is under way is to stop.
    stopping: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.entering == 0
    }
}

impl Core {
    pub(crate) fn new(journal: Arc<dyn Journal>, settings: Settings, registry: Registry) -> Self {
        Self {
            journal,
            owner: OwnerId(crate::random::unique()),
            settings,
            registry: RwLock::new(registry),
            permits: Arc::new(Semaphore::new(settings.max_concurrent)),
            runtime: Handle::current(),
            state: Mutex::default(),
            idle: Notify::new(),
            pending: AtomicUsize::new(0),
            wake: Notify::new(),
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn flights(&self) -> Vec<Arc<Flight>> {
        self.lock().flights.values().map(Arc::clone).collect()
    }

    pub(crate) fn flight(&self, id: SagaId) -> Option<Arc<Flight>> {
        self.lock().flights.get(&id).map(Arc::clone)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.lock().flights.len()
    }

    /// Announces what may become a flight, so that a shutdown waits for it; `None` once nothing is begun any more.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Entering> {
        let mut state = self.lock();
        if state.closing {
            return None;
        }
        state.entering += 1;
        Some(Entering(Arc::clone(self)))
    }

    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Permits for a claim: half of those that are free, so that who starts a saga meanwhile finds one.
    pub(crate) fn permits(&self, most: usize) -> Vec<OwnedSemaphorePermit> {
        let wanted = self.permits.available_permits().div_ceil(2).min(most);
        (0..wanted).map_while(|_| self.permit()).collect()
    }

    /// A saga takes its place among those that are driven here.
    pub(crate) fn seat(self: &Arc<Self>, flight: Flight, permit: OwnedSemaphorePermit) -> Seat {
        let flight = Arc::new(flight);
        let (before, stopping) = {
            let mut state = self.lock();
            (state.flights.insert(flight.id, Arc::clone(&flight)), state.stopping)
        };
        if let Some(before) = before {
            // Its lease ran out in this very process.
            before.taken();
        }
        if stopping {
            flight.stop();
        }
        Seat {
            core: Arc::clone(self),
            flight,
            permit: Some(permit),
        }
    }

    /// Whether a saga is driven here that may kill its process.
    pub(crate) fn has_suspect(&self) -> bool {
        self.lock().flights.values().any(|flight| flight.is_suspect())
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
        self.lock().hungry = false;
    }

    /// Whoever leaves a seat after this wakes who claims.
    pub(crate) fn hungry(&self) {
        self.lock().hungry = true;
    }

    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.closed.notify_waiters();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Stops what is under way, and what still becomes so.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        for flight in self.flights() {
            flight.stop();
        }
    }

    /// Lets go of sagas, so that others need not wait for the end of their leases.
    pub(crate) async fn release(&self, leases: &[(SagaId, u64)]) {
        if leases.is_empty() {
            return;
        }
        let mut pauses = RELEASE_PAUSES.into_iter();
        loop {
            let released = timeout(RELEASE_LIMIT, self.journal.release(self.owner, leases)).await;
            if matches!(released, Ok(Ok(()))) {
                return;
            }
            let Some(pause) = pauses.next() else {
                break;
            };
            sleep(pause).await;
        }
        // They are claimed when their leases have run out.
        tracing::warn!(target: "steadfast::saga", sagas = leases.len(), "leases were not released");
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
            if self.lock().is_idle() {
                return;
            }
            idle.await;
        }
    }
}

/// What may become a flight; dropped when it has, or will not.
pub(crate) struct Entering(Arc<Core>);

impl Drop for Entering {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.entering -= 1;
        let idle = state.is_idle();
        drop(state);
        if idle {
            self.0.idle.notify_waiters();
        }
    }
}

/// The place of one saga among those that are driven here; dropped, there is room for another.
pub(crate) struct Seat {
    pub(crate) core: Arc<Core>,
    pub(crate) flight: Arc<Flight>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before `hungry` is read: who was hungry before either finds the permit, or is woken.
        self.permit = None;
        let mut state = self.core.lock();
        let own = state
            .flights
            .get(&self.flight.id)
            .is_some_and(|at| Arc::ptr_eq(at, &self.flight));
        if own {
            state.flights.remove(&self.flight.id);
        }
        let (idle, hungry) = (state.is_idle(), state.hungry);
        drop(state);
        if idle {
            self.core.idle.notify_waiters();
        }
        if hungry {
            self.core.wake.notify_one();
        }
    }
}
