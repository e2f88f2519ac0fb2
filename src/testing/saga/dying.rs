//! A journal as one process sees it, that dies at one of its writes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::crash::{Crash, Moment};
use crate::KeyId;
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Journal,
    JournalFuture, ListQuery, Loaded, MemoryJournal, NewSaga, OwnerId, Prune, Renewal,
};
use crate::storage::{Durability, StorageError, StorageErrorKind};

/// A clone is the same process.
#[derive(Clone)]
pub(super) struct Dying(Arc<Process>);

struct Process {
    journal: MemoryJournal,
    crash: Option<Crash>,
    writes: AtomicU64,
    dead: AtomicBool,
    died: Notify,
}

impl Dying {
    pub(super) fn new(journal: MemoryJournal, crash: Option<Crash>) -> Self {
        Self(Arc::new(Process {
            journal,
            crash,
            writes: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        }))
    }

    /// Ends when the process has died.
    pub(super) async fn died(&self) {
        loop {
            let died = self.0.died.notified();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Acquire)
    }

    fn die(&self) {
        self.0.dead.store(true, Ordering::Release);
        self.0.died.notify_waiters();
    }

    fn alive(&self) -> Result<&MemoryJournal, StorageError> {
        if self.is_dead() {
            Err(dead())
        } else {
            Ok(&self.0.journal)
        }
    }

    /// A write: at one of them the process dies.
    async fn write<T>(&self, write: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        self.alive()?;
        let number = self.0.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(Crash { moment, .. }) = self.0.crash.filter(|crash| crash.write == number) else {
            return write.await;
        };
        let written = if moment == Moment::Before {
            Err(dead())
        } else {
            write.await
        };
        self.die();
        written.and_then(|answer| {
            if moment == Moment::Within {
                Ok(answer)
            } else {
                Err(dead())
            }
        })
    }
}

fn dead() -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, "the process is dead")
}

impl Journal for Dying {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        Box::pin(self.write(self.0.journal.create(new)))
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        Box::pin(self.write(self.0.journal.append(append)))
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        Box::pin(async move { self.alive()?.claim(query).await })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        Box::pin(async move { self.alive()?.claim_one(id, owner, lease).await })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        Box::pin(async move { self.alive()?.renew(owner, lease, sagas).await })
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        Box::pin(async move { self.alive()?.release(owner, sagas).await })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        Box::pin(async move { self.alive()?.request_cancel(id).await })
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        Box::pin(async move { self.alive()?.load(id).await })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        Box::pin(async move { self.alive()?.find(key).await })
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        Box::pin(async move { self.alive()?.list(query).await })
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        Box::pin(async move { self.alive()?.count(definitions).await })
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        Box::pin(async move { self.alive()?.prune(prune).await })
    }

    fn durability(&self) -> Durability {
        self.0.journal.durability()
    }
}

impl fmt::Debug for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dying")
            .field("crash", &self.0.crash)
            .finish_non_exhaustive()
    }
}
