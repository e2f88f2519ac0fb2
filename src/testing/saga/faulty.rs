//! A journal that fails on demand.

use std::any::Any;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::KeyId;
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Journal,
    JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal,
};
use crate::storage::Durability;
use crate::testing::fault::{Fault, Plan, befall};

/// A call of a [`Journal`], by the name of its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after its method")]
pub enum Call {
    Create,
    Append,
    Claim,
    ClaimOne,
    Renew,
    Release,
    RequestCancel,
    Load,
    Find,
    List,
    Count,
    Prune,
}

/// Wraps a journal, counts its calls, and has them fail as it was told to.
///
/// A clone is the same: it sees the same counts, and what is injected into one is so into the other. Several
/// [`over`](Self::over) one journal have faults of their own: one for each process.
///
/// # Examples
///
/// ```
/// use steadfast::saga::journal::{Journal, ListQuery, MemoryJournal};
/// use steadfast::testing::saga::{Call, Fault, Faulty};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let journal = Faulty::new(MemoryJournal::new());
/// journal.inject(Call::List, 2.., Fault::RequestLost);
///
/// let all = ListQuery { limit: 10, ..ListQuery::default() };
/// assert!(journal.list(&all).await.is_ok());
/// assert!(journal.list(&all).await.is_err());
/// assert_eq!(journal.calls(Call::List), 2);
/// # }
/// ```
pub struct Faulty<J> {
    journal: Arc<J>,
    plan: Arc<Mutex<Plan<Call>>>,
}

impl<J: Journal> Faulty<J> {
    /// The same journal, without a fault so far.
    #[must_use]
    pub fn new(journal: J) -> Self {
        Self::over(Arc::new(journal))
    }

    /// The same journal, which others use too, without a fault so far.
    #[must_use]
    pub fn over(journal: Arc<J>) -> Self {
        Self {
            journal,
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

    /// The journal inside.
    #[must_use]
    pub fn journal(&self) -> &J {
        &self.journal
    }

    fn plan(&self) -> MutexGuard<'_, Plan<Call>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `carry_out` owns what it needs: a late request arrives when its caller has gone.
    fn call<'a, A, F, Fut>(&'a self, call: Call, carry_out: F) -> JournalFuture<'a, A>
    where
        A: Send + 'static,
        F: FnOnce(Arc<J>) -> Fut + Send + 'a,
        Fut: Future<Output = Result<A, crate::storage::StorageError>> + Send + 'static,
    {
        Box::pin(async move {
            let fault = self.plan().next(call);
            befall(fault, carry_out(Arc::clone(&self.journal))).await
        })
    }
}

impl<J: Journal> Journal for Faulty<J> {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        let new = new.clone();
        self.call(Call::Create, |journal| async move { journal.create(&new).await })
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        let append = append.clone();
        self.call(Call::Append, |journal| async move { journal.append(&append).await })
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        let query = query.clone();
        self.call(Call::Claim, |journal| async move { journal.claim(&query).await })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        self.call(Call::ClaimOne, move |journal| async move {
            journal.claim_one(id, owner, lease).await
        })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        let sagas = sagas.to_vec();
        self.call(Call::Renew, move |journal| async move {
            journal.renew(owner, lease, &sagas).await
        })
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        let sagas = sagas.to_vec();
        self.call(Call::Release, move |journal| async move {
            journal.release(owner, &sagas).await
        })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        self.call(Call::RequestCancel, move |journal| async move {
            journal.request_cancel(id).await
        })
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        self.call(Call::Load, move |journal| async move { journal.load(id).await })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        self.call(Call::Find, move |journal| async move { journal.find(key).await })
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        let query = query.clone();
        self.call(Call::List, |journal| async move { journal.list(&query).await })
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        let definitions = definitions.to_vec();
        self.call(Call::Count, |journal| async move { journal.count(&definitions).await })
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        self.call(Call::Prune, move |journal| async move { journal.prune(prune).await })
    }

    fn durability(&self) -> Durability {
        self.journal.durability()
    }

    fn local(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.journal.local()
    }
}

impl<J> Clone for Faulty<J> {
    fn clone(&self) -> Self {
        Self {
            journal: Arc::clone(&self.journal),
            plan: Arc::clone(&self.plan),
        }
    }
}

impl<J: fmt::Debug> fmt::Debug for Faulty<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}
