//! A journal that a process can be killed at.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use steadfast::KeyId;
use steadfast::saga::SagaId;
use steadfast::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Journal,
    JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal,
};
use steadfast::storage::Durability;

use super::super::support::kill::Child;

/// A journal with a kill point before and after each write of a saga.
///
/// There is none before a claim, as most claims find nothing, nor at a renewal, as when they come is a matter of time:
/// where a process died is to be the same in every run.
#[derive(Debug)]
pub(crate) struct Stopping {
    journal: Arc<dyn Journal>,
    child: Arc<Child>,
}

impl Stopping {
    pub(crate) fn new(journal: Arc<dyn Journal>, child: &Arc<Child>) -> Self {
        Self {
            journal,
            child: Arc::clone(child),
        }
    }
}

impl Journal for Stopping {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        Box::pin(self.child.around("create", self.journal.create(new)))
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        Box::pin(self.child.around("append", self.journal.append(append)))
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        Box::pin(async move {
            let claimed = self.journal.claim(query).await?;
            if !claimed.is_empty() {
                self.child.reach("after claim");
            }
            Ok(claimed)
        })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        self.journal.claim_one(id, owner, lease)
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        self.journal.renew(owner, lease, sagas)
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        Box::pin(self.child.around("release", self.journal.release(owner, sagas)))
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        Box::pin(self.child.around("cancel", self.journal.request_cancel(id)))
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        self.journal.load(id)
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        self.journal.find(key)
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        self.journal.list(query)
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        self.journal.count(definitions)
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        self.journal.prune(prune)
    }

    fn durability(&self) -> Durability {
        self.journal.durability()
    }

    /// Past the kill points: a step in a transaction has its own.
    fn local(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.journal.local()
    }
}
