//! A store that a process can be killed at.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use steadfast::KeyId;
use steadfast::idempotency::store::{
    Cancellation, Claim, Claimed, Completed, Durability, Ended, Forgotten, Inspected, Owner, Renewed, Resolution,
    Resolved, Store,
};
use steadfast::storage::StorageError;

use super::kill::Child;

/// A store with a kill point before and after each of its writes.
pub(crate) struct Stopping<S> {
    store: S,
    child: Arc<Child>,
}

impl<S: Store> Stopping<S> {
    pub(crate) fn new(store: S, child: &Arc<Child>) -> Self {
        Self {
            store,
            child: Arc::clone(child),
        }
    }
}

impl<S: Store> Store for Stopping<S> {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        self.child.around("claim", self.store.claim(id, claim)).await
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let complete = self.store.complete(id, owner, outcome, retention);
        self.child.around("complete", complete).await
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let renew = self.store.renew(id, owner, lease, checkpoint);
        self.child.around("renew", renew).await
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.child.around("release", self.store.release(id, owner)).await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.child.around("interrupt", self.store.interrupt(id, owner)).await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        self.child.around("cancel", self.store.cancel(id)).await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        self.child.around("resolve", self.store.resolve(id, resolution)).await
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.child.around("forget", self.store.forget(id)).await
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        self.store.inspect(id).await
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        self.store.list_interrupted(after, limit).await
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        self.store.count_interrupted().await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.store.purge(limit).await
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }
}
