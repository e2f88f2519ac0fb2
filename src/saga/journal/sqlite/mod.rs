//! A journal in a SQLite file.

mod entries;
mod local;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod transitions;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Hold,
    Journal, JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal,
};
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::sqlite::value::stored;
use crate::storage::sqlite::{Fault, Terms, Turn, check};
use crate::storage::{Durability, Migration, SqliteStorage, StorageError};

use schema::MIGRATIONS;

/// How many sagas are cleared away at a time; between two times others have their turn.
const PRUNE: usize = 32;
/// Between two batches: SQLite wakes nobody who waits for the file, so whoever does has to find it free when it looks.
const BREATH: Duration = Duration::from_millis(5);

/// Keeps sagas in a SQLite file: durable, for one machine.
///
/// Each call is one transaction of the file's writer, and those that wait share a commit; renewals go first. Its clock is
/// the machine's, read once per transaction in milliseconds, and never goes back while the process runs. A clone is the
/// same journal. Other processes on the machine may drive sagas of the same file.
///
/// The views `steadfast_sagas` and `steadfast_saga_events` show sagas, events and contexts readable.
///
/// # Examples
///
/// ```
/// use steadfast::saga::journal::{Journal, ListQuery, SqliteJournal};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("steadfast-doc-journal-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("app.db");
/// let journal = SqliteJournal::open(path).await?;
/// journal.migrate().await?;
/// assert!(journal.list(&ListQuery { limit: 10, ..ListQuery::default() }).await?.is_empty());
/// # drop(journal); std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteJournal {
    storage: SqliteStorage,
    /// The schema was found to be one that this version works with. Only ever set: relaxed.
    checked: Arc<AtomicBool>,
}

impl SqliteJournal {
    /// Opens the file with the defaults of [`SqliteStorage`].
    ///
    /// # Errors
    ///
    /// Those of [`SqliteStorageBuilder::open`](crate::storage::SqliteStorageBuilder::open).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Ok(Self::new(&SqliteStorage::open(path).await?))
    }

    /// The journal in a file that is open already; a store of idempotency may be in it too.
    #[must_use]
    pub fn new(storage: &SqliteStorage) -> Self {
        Self {
            storage: storage.clone(),
            checked: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Makes the tables, or brings them to this version. Where nothing is to be done, it does nothing; several processes
    /// may call it at once.
    ///
    /// # Errors
    ///
    /// [`NotMigrated`](crate::storage::StorageErrorKind::NotMigrated) where the tables were made by other steps, or by a
    /// version of this crate that is too new; and when the file cannot be written.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        self.storage.migrate(MIGRATIONS).await
    }

    /// The steps that [`migrate`](Self::migrate) runs, to be printed and reviewed.
    ///
    /// Whoever runs them by other means notes each in `steadfast_migrations`.
    #[must_use]
    pub fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    /// The file that it is in.
    #[must_use]
    pub fn storage(&self) -> &SqliteStorage {
        &self.storage
    }

    /// Has the writer do `work`, once the tables are known to be there.
    async fn call<T: Send + 'static>(
        &self,
        terms: Terms,
        work: impl FnOnce(&Turn<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StorageError> {
        let checked = Arc::clone(&self.checked);
        let work = move |turn: &Turn<'_>| {
            if !checked.load(Ordering::Relaxed) {
                check(turn.connection, MIGRATIONS)?;
                checked.store(true, Ordering::Relaxed);
            }
            work(turn)
        };
        self.storage.call(terms, work).await
    }

    fn boxed<T: Send + 'static>(
        &self,
        terms: Terms,
        work: impl FnOnce(&Turn<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> JournalFuture<'_, T> {
        Box::pin(self.call(terms, work))
    }
}

/// Of a request that nobody has a use for once its caller has gone: one that reads, or gives something to drive.
fn for_its_caller() -> Terms {
    Terms::default().needs_caller()
}

/// What becomes of the lease, as it can be stored.
fn clamped(hold: Hold) -> Hold {
    match hold {
        Hold::Keep(lease) => Hold::Keep(stored(lease)),
        Hold::Park(delay) => Hold::Park(stored(delay)),
        Hold::Rest => Hold::Rest,
    }
}

impl Journal for SqliteJournal {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        let new = NewSaga {
            deadline: new.deadline.map(stored),
            lease: new.lease.map(|(owner, lease)| (owner, stored(lease))),
            ..new.clone()
        };
        self.boxed(for_its_caller(), move |turn| transitions::create(turn, &new))
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        let append = Append {
            hold: clamped(append.hold),
            ..append.clone()
        };
        self.boxed(Terms::default(), move |turn| transitions::append(turn, &append))
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        let query = ClaimQuery {
            lease: stored(query.lease),
            ..query.clone()
        };
        self.boxed(for_its_caller(), move |turn| transitions::claim(turn, &query))
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        let lease = stored(lease);
        self.boxed(for_its_caller(), move |turn| {
            transitions::claim_one(turn, id, owner, lease)
        })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        let (lease, sagas) = (stored(lease), sagas.to_vec());
        let terms = Terms::one_write().urgent();
        self.boxed(terms, move |turn| transitions::renew(turn, owner, lease, &sagas))
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        let sagas = sagas.to_vec();
        self.boxed(Terms::one_write(), move |turn| {
            transitions::release(turn, owner, &sagas)
        })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        self.boxed(Terms::one_write(), move |turn| transitions::request_cancel(turn, id))
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        self.boxed(for_its_caller(), move |turn| transitions::load(turn, id))
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        self.boxed(for_its_caller(), move |turn| row::find(turn.connection, key))
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        let query = query.clone();
        self.boxed(for_its_caller(), move |turn| transitions::list(turn.connection, &query))
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        let definitions = definitions.to_vec();
        self.boxed(for_its_caller(), move |turn| transitions::count(turn, &definitions))
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        Box::pin(async move {
            let mut pruned = 0;
            while pruned < prune.limit {
                let batch = PRUNE.min(prune.limit - pruned);
                let work = move |turn: &Turn<'_>| transitions::prune(turn, &prune, batch);
                let gone = self.call(Terms::default(), work).await?;
                pruned += gone;
                if gone < batch || pruned == prune.limit {
                    break;
                }
                sleep(BREATH).await;
            }
            Ok(u64::try_from(pruned).unwrap_or(u64::MAX))
        })
    }

    fn durability(&self) -> Durability {
        self.storage.durability()
    }

    fn local(&self) -> Option<&(dyn Any + Send + Sync)> {
        Some(self)
    }
}
