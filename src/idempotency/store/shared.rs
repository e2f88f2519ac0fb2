//! A store behind a pointer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::record::{
    Cancellation, Claim, Claimed, Completed, Ended, Forgotten, Owner, Renewed, Resolution, Resolved,
};
use super::{Durability, Inspected, Store};
use crate::KeyId;
use crate::storage::StorageError;

/// A call of a store that owns what it needs: whoever started it may leave, and the call goes on elsewhere.
pub(crate) type StoreCall<T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send>>;

/// Any store, behind a pointer: cheap to clone, without a type parameter.
///
/// Made by [`Store::shared`], and by everything that takes a store.
#[derive(Clone)]
pub struct SharedStore(Arc<dyn DynStore>);

trait DynStore: Send + Sync {
    fn claim(self: Arc<Self>, id: KeyId, claim: Claim) -> StoreCall<Claimed>;
    fn complete(self: Arc<Self>, id: KeyId, owner: Owner, outcome: Bytes, retention: Duration) -> StoreCall<Completed>;
    fn renew(
        self: Arc<Self>,
        id: KeyId,
        owner: Owner,
        lease: Duration,
        checkpoint: Option<Bytes>,
    ) -> StoreCall<Renewed>;
    fn release(self: Arc<Self>, id: KeyId, owner: Owner) -> StoreCall<Ended>;
    fn interrupt(self: Arc<Self>, id: KeyId, owner: Owner) -> StoreCall<Ended>;
    fn cancel(self: Arc<Self>, id: KeyId) -> StoreCall<Cancellation>;
    fn resolve(self: Arc<Self>, id: KeyId, resolution: Resolution) -> StoreCall<Resolved>;
    fn forget(self: Arc<Self>, id: KeyId) -> StoreCall<Forgotten>;
    fn inspect(self: Arc<Self>, id: KeyId) -> StoreCall<Option<Inspected>>;
    fn list_interrupted(self: Arc<Self>, after: Option<KeyId>, limit: usize) -> StoreCall<Vec<(KeyId, Inspected)>>;
    fn count_interrupted(self: Arc<Self>) -> StoreCall<u64>;
    fn purge(self: Arc<Self>, limit: usize) -> StoreCall<u64>;
    fn durability(&self) -> Durability;
}

impl<S: Store> DynStore for S {
    fn claim(self: Arc<Self>, id: KeyId, claim: Claim) -> StoreCall<Claimed> {
        Box::pin(async move { Store::claim(&*self, id, &claim).await })
    }

    fn complete(self: Arc<Self>, id: KeyId, owner: Owner, outcome: Bytes, retention: Duration) -> StoreCall<Completed> {
        Box::pin(async move { Store::complete(&*self, id, &owner, &outcome, retention).await })
    }

    fn renew(
        self: Arc<Self>,
        id: KeyId,
        owner: Owner,
        lease: Duration,
        checkpoint: Option<Bytes>,
    ) -> StoreCall<Renewed> {
        Box::pin(async move { Store::renew(&*self, id, &owner, lease, checkpoint.as_ref()).await })
    }

    fn release(self: Arc<Self>, id: KeyId, owner: Owner) -> StoreCall<Ended> {
        Box::pin(async move { Store::release(&*self, id, &owner).await })
    }

    fn interrupt(self: Arc<Self>, id: KeyId, owner: Owner) -> StoreCall<Ended> {
        Box::pin(async move { Store::interrupt(&*self, id, &owner).await })
    }

    fn cancel(self: Arc<Self>, id: KeyId) -> StoreCall<Cancellation> {
        Box::pin(async move { Store::cancel(&*self, id).await })
    }

    fn resolve(self: Arc<Self>, id: KeyId, resolution: Resolution) -> StoreCall<Resolved> {
        Box::pin(async move { Store::resolve(&*self, id, &resolution).await })
    }

    fn forget(self: Arc<Self>, id: KeyId) -> StoreCall<Forgotten> {
        Box::pin(async move { Store::forget(&*self, id).await })
    }

    fn inspect(self: Arc<Self>, id: KeyId) -> StoreCall<Option<Inspected>> {
        Box::pin(async move { Store::inspect(&*self, id).await })
    }

    fn list_interrupted(self: Arc<Self>, after: Option<KeyId>, limit: usize) -> StoreCall<Vec<(KeyId, Inspected)>> {
        Box::pin(async move { Store::list_interrupted(&*self, after, limit).await })
    }

    fn count_interrupted(self: Arc<Self>) -> StoreCall<u64> {
        Box::pin(async move { Store::count_interrupted(&*self).await })
    }

    fn purge(self: Arc<Self>, limit: usize) -> StoreCall<u64> {
        Box::pin(async move { Store::purge(&*self, limit).await })
    }

    fn durability(&self) -> Durability {
        Store::durability(self)
    }
}

impl SharedStore {
    pub(super) fn wrap(store: impl Store) -> Self {
        Self(Arc::new(store))
    }

    fn store(&self) -> Arc<dyn DynStore> {
        Arc::clone(&self.0)
    }

    pub(crate) fn start_claim(&self, id: KeyId, claim: Claim) -> StoreCall<Claimed> {
        self.store().claim(id, claim)
    }

    pub(crate) fn start_complete(
        &self,
        id: KeyId,
        owner: Owner,
        outcome: Bytes,
        retention: Duration,
    ) -> StoreCall<Completed> {
        self.store().complete(id, owner, outcome, retention)
    }
}

impl Store for SharedStore {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        self.store().claim(id, claim.clone()).await
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        self.store().complete(id, *owner, outcome.clone(), retention).await
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        self.store().renew(id, *owner, lease, checkpoint.cloned()).await
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.store().release(id, *owner).await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.store().interrupt(id, *owner).await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        self.store().cancel(id).await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        self.store().resolve(id, resolution.clone()).await
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.store().forget(id).await
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        self.store().inspect(id).await
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        self.store().list_interrupted(after, limit).await
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        self.store().count_interrupted().await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.store().purge(limit).await
    }

    fn durability(&self) -> Durability {
        self.0.durability()
    }

    fn shared(self) -> SharedStore {
        self
    }
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore")
            .field("durability", &self.0.durability())
            .finish_non_exhaustive()
    }
}
