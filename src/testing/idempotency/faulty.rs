//! A store that fails on demand.

use std::fmt;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::KeyId;
use crate::idempotency::store::{
    Cancellation, Claim, Claimed, Completed, Durability, Ended, Forgotten, Inspected, Owner, Renewed, Resolution,
    Resolved, Store,
};
use crate::storage::StorageError;
use crate::testing::fault::{Fault, Plan, befall};

/// A call of a [`Store`], by the name of its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after its method")]
pub enum Call {
    Claim,
    Complete,
    Renew,
    Release,
    Interrupt,
    Cancel,
    Resolve,
    Forget,
    Inspect,
    ListInterrupted,
    CountInterrupted,
    Purge,
}

/// Wraps a store, counts its calls, and has them fail as it was told to.
///
/// A clone is the same: it sees the same counts, and what is injected into one is so into the other.
///
/// # Examples
///
/// ```
/// use steadfast::idempotency::{Idempotency, MemoryStore};
/// use steadfast::testing::idempotency::{Call, Fault, Faulty};
/// use steadfast::{Key, Rejected};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Faulty::new(MemoryStore::new());
/// store.inject(Call::Complete, 1..=2, Fault::ReplyLost);
///
/// let payments = Idempotency::at_least_once(store.clone()).build()?;
/// let key = Key::new("tenant-7", "order-1234");
/// let receipt = payments.run(&key, &100, || async { Ok::<_, Rejected>(1) }).await?;
/// assert_eq!((receipt, store.calls(Call::Claim), store.calls(Call::Complete)), (1, 1, 3));
/// # Ok(())
/// # }
/// ```
pub struct Faulty<S> {
    store: Arc<S>,
    plan: Arc<Mutex<Plan<Call>>>,
}

impl<S: Store> Faulty<S> {
    /// The same store, without a fault so far.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self {
            store: Arc::new(store),
            plan: Arc::default(),
        }
    }

    /// Has the calls of these numbers go wrong; the first of each kind is 1, and `..` is every call. What is injected
    /// later counts more.
    pub fn inject(&self, call: Call, numbers: impl RangeBounds<u64>, fault: Fault) {
        self.plan().inject(call, &numbers, fault);
    }

    /// Has every call go wrong with this probability, in one of these ways; the same for the same seed and the same
    /// order of calls.
    pub fn inject_at_random(&self, seed: u64, probability: f64, faults: impl Into<Vec<Fault>>) {
        self.plan().inject_at_random(seed, probability, faults.into());
    }

    /// Nothing goes wrong from now on. The counts stay.
    pub fn heal(&self) {
        self.plan().heal();
    }

    /// How many calls there were, those that went wrong among them.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.plan().calls(call)
    }

    /// How many calls of any kind there were.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.plan().all_calls()
    }

    /// The store inside.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    fn plan(&self) -> MutexGuard<'_, Plan<Call>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<A, F, Fut>(&self, call: Call, carry_out: F) -> Answer<A>
    where
        A: Send + 'static,
        F: FnOnce(Arc<S>) -> Fut,
        Fut: Future<Output = Answer<A>> + Send + 'static,
    {
        let fault = self.plan().next(call);
        befall(fault, carry_out(Arc::clone(&self.store))).await
    }
}

type Answer<A> = Result<A, StorageError>;

impl<S: Store> Store for Faulty<S> {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Answer<Claimed> {
        let claim = claim.clone();
        self.call(Call::Claim, |store| async move { store.claim(id, &claim).await })
            .await
    }

    async fn complete(&self, id: KeyId, owner: &Owner, outcome: &Bytes, retention: Duration) -> Answer<Completed> {
        let (owner, outcome) = (*owner, outcome.clone());
        self.call(Call::Complete, |store| async move {
            store.complete(id, &owner, &outcome, retention).await
        })
        .await
    }

    async fn renew(&self, id: KeyId, owner: &Owner, lease: Duration, checkpoint: Option<&Bytes>) -> Answer<Renewed> {
        let (owner, checkpoint) = (*owner, checkpoint.cloned());
        self.call(Call::Renew, |store| async move {
            store.renew(id, &owner, lease, checkpoint.as_ref()).await
        })
        .await
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Answer<Ended> {
        let owner = *owner;
        self.call(Call::Release, |store| async move { store.release(id, &owner).await })
            .await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Answer<Ended> {
        let owner = *owner;
        self.call(
            Call::Interrupt,
            |store| async move { store.interrupt(id, &owner).await },
        )
        .await
    }

    async fn cancel(&self, id: KeyId) -> Answer<Cancellation> {
        self.call(Call::Cancel, |store| async move { store.cancel(id).await })
            .await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Answer<Resolved> {
        let resolution = resolution.clone();
        self.call(
            Call::Resolve,
            |store| async move { store.resolve(id, &resolution).await },
        )
        .await
    }

    async fn forget(&self, id: KeyId) -> Answer<Forgotten> {
        self.call(Call::Forget, |store| async move { store.forget(id).await })
            .await
    }

    async fn inspect(&self, id: KeyId) -> Answer<Option<Inspected>> {
        self.call(Call::Inspect, |store| async move { store.inspect(id).await })
            .await
    }

    async fn list_interrupted(&self, after: Option<KeyId>, limit: usize) -> Answer<Vec<(KeyId, Inspected)>> {
        self.call(Call::ListInterrupted, |store| async move {
            store.list_interrupted(after, limit).await
        })
        .await
    }

    async fn count_interrupted(&self) -> Answer<u64> {
        self.call(Call::CountInterrupted, |store| async move {
            store.count_interrupted().await
        })
        .await
    }

    async fn purge(&self, limit: usize) -> Answer<u64> {
        self.call(Call::Purge, |store| async move { store.purge(limit).await })
            .await
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            plan: Arc::clone(&self.plan),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
