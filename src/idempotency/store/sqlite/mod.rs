//! Records in a SQLite file.

mod row;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use super::super::record::{
    Cancellation, Claim, Claimed, Completed, Ended, Forgotten, Mode, Owner, Record, Renewed, Resolution, Resolved, Step,
};
use super::{Durability, Inspected, Store};
use crate::KeyId;
use crate::storage::sqlite::value::stored;
use crate::storage::sqlite::{Fault, Terms, Turn, check};
use crate::storage::{Migration, SqliteStorage, StorageError};

pub(crate) use schema::MIGRATIONS;

/// How many expired records are removed at a time; between two times others have their turn.
const PURGE: usize = 128;

/// Keeps records in a SQLite file: durable, for one machine.
///
/// Each call is one transaction of the file's writer, and those that wait share a commit. Its clock is the machine's,
/// read once per transaction, and never goes back while the process runs. A clone is the same store.
///
/// # Examples
///
/// ```
/// use steadfast::idempotency::{Idempotency, SqliteStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("steadfast-doc-store-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("app.db");
/// let store = SqliteStore::open(path).await?;
/// store.migrate().await?;
/// let idempotency = Idempotency::at_most_once(store).build()?;
/// # drop(idempotency); std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteStore {
    storage: SqliteStorage,
    /// The schema was found to be one that this version works with. Only ever set: relaxed.
    checked: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens the file with the defaults of [`SqliteStorage`].
    ///
    /// # Errors
    ///
    /// Those of [`SqliteStorageBuilder::open`](crate::storage::SqliteStorageBuilder::open).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Ok(Self::new(&SqliteStorage::open(path).await?))
    }

    /// The store in a file that is open already.
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
    async fn call<A: Send + 'static>(
        &self,
        terms: Terms,
        work: impl FnOnce(&Turn<'_>) -> Result<A, Fault> + Send + 'static,
    ) -> Result<A, StorageError> {
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

    async fn step<A: Send + 'static>(
        &self,
        id: KeyId,
        step: impl FnOnce(Option<&Record>, Duration) -> Step<A> + Send + 'static,
    ) -> Result<A, StorageError> {
        let work = move |turn: &Turn<'_>| transition(turn.connection, id, |record| step(record, turn.now));
        self.call(Terms::one_write(), work).await
    }
}

/// Runs one transition of the record of `id`, in a transaction that may write.
pub(crate) fn transition<A>(
    connection: &Connection,
    id: KeyId,
    step: impl FnOnce(Option<&Record>) -> Step<A>,
) -> Result<A, Fault> {
    let record = row::load(connection, id)?;
    let Step { answer, write } = step(record.as_ref());
    row::apply(connection, id, record.as_ref(), &write)?;
    Ok(answer)
}

/// Claims the key of `id` with the next fence of the store, in a transaction that may write.
///
/// The fence is noted before the record is written: a fence that nobody has got does no harm.
pub(crate) fn claim(connection: &Connection, id: KeyId, claim: &Claim, now: Duration) -> Result<Claimed, Fault> {
    let last = row::last_fence(connection)?;
    let record = row::load(connection, id)?;
    let Step { answer, write } = Record::claim(record.as_ref(), claim, now, last.saturating_add(1));
    match &answer {
        Claimed::Owned { owner, .. } if owner.fence > last => row::note_fence(connection, owner.fence)?,
        _ => {}
    }
    row::apply(connection, id, record.as_ref(), &write)?;
    Ok(answer)
}

/// The claim as it can be stored.
pub(crate) fn clamped(claim: &Claim) -> Claim {
    Claim {
        lease: stored(claim.lease),
        mode: match claim.mode {
            Mode::AtLeastOnce { retention } => Mode::AtLeastOnce {
                retention: stored(retention),
            },
            Mode::AtMostOnce => Mode::AtMostOnce,
        },
        ..claim.clone()
    }
}

impl Store for SqliteStore {
    async fn claim(&self, id: KeyId, claimed: &Claim) -> Result<Claimed, StorageError> {
        let claimed = clamped(claimed);
        // Nobody would run what a caller that has gone had claimed.
        let terms = Terms::one_write().needs_caller();
        self.call(terms, move |turn| claim(turn.connection, id, &claimed, turn.now))
            .await
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let (owner, outcome, retention) = (*owner, outcome.clone(), stored(retention));
        self.step(id, move |record, now| {
            Record::complete(record, &owner, &outcome, retention, now)
        })
        .await
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let (owner, lease, checkpoint) = (*owner, stored(lease), checkpoint.cloned());
        let terms = Terms::one_write().urgent();
        self.call(terms, move |turn| {
            let renew = |record: Option<&Record>| Record::renew(record, &owner, lease, checkpoint.as_ref(), turn.now);
            transition(turn.connection, id, renew)
        })
        .await
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        let owner = *owner;
        self.step(id, move |record, now| Record::release(record, &owner, now))
            .await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        let owner = *owner;
        self.step(id, move |record, now| Record::interrupt(record, &owner, now))
            .await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        self.step(id, Record::cancel).await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        let resolution = match resolution.clone() {
            Resolution::Completed { outcome, retention } => Resolution::Completed {
                outcome,
                retention: stored(retention),
            },
            Resolution::NotExecuted => Resolution::NotExecuted,
            Resolution::Corrected { outcome, retention } => Resolution::Corrected {
                outcome: outcome.clone(),
                retention: stored(retention),
            },
        };
        self.step(id, move |record, now| Record::resolve(record, &resolution, now))
            .await
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.step(id, Record::forget).await
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        self.call(Terms::one_write().needs_caller(), move |turn| {
            let now = turn.now;
            let record = row::load(turn.connection, id)?;
            let record = record.filter(|record| Record::live(Some(record), now).is_some());
            Ok(record.map(|record| Inspected { record, now }))
        })
        .await
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        self.call(Terms::one_write().needs_caller(), move |turn| {
            let now = turn.now;
            let found = row::interrupted(turn.connection, now, after, limit)?;
            let found = found.into_iter();
            Ok(found.map(|(id, record)| (id, Inspected { record, now })).collect())
        })
        .await
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        self.call(Terms::one_write().needs_caller(), |turn| {
            row::count_interrupted(turn.connection, turn.now)
        })
        .await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let mut removed = 0;
        while removed < limit {
            let batch = PURGE.min(limit - removed);
            let gone = self
                .call(Terms::one_write(), move |turn| {
                    row::purge(turn.connection, turn.now, batch)
                })
                .await?;
            removed += gone;
            if gone < batch {
                break;
            }
        }
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }

    fn durability(&self) -> Durability {
        self.storage.durability()
    }
}
