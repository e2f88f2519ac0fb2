//! Records in PostgreSQL.

pub(in crate::idempotency) mod row;
pub(in crate::idempotency) mod sql;
mod together;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, Type};

use super::super::record::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Forgotten, Mode, Owner, Renewed, Resolution, Resolved,
};
use super::{Durability, Inspected, Store};
use crate::KeyId;
use crate::storage::postgres::{Group, Param, Way, microseconds, script, was_lock_timeout};
use crate::storage::{Migration, PostgresStorage, StorageError, StorageErrorKind};
use together::{Claims, Completion, Completions, MAX_OUTCOME};

const MIGRATIONS: &[Migration] = &[Migration::new("idempotency", 1, include_str!("schema_1.sql"))];

/// How often a statement without an answer is run: each time somebody else has changed the record meanwhile, so few are
/// ever needed.
pub(in crate::idempotency) const MAX_ROUNDS: usize = 16;
/// What a caller is told of a lease that somebody's open transaction hides: until when it lasts, nobody can see.
const HIDDEN_LEASE: Duration = Duration::from_secs(1);

/// Keeps records in PostgreSQL, in the table `steadfast.idempotency`.
///
/// A clone is the same store. Every transition is one statement, which works behind PgBouncer in transaction mode, and what
/// it writes is durable whatever `synchronous_commit` is by default. Time is the server's.
///
/// Claims of new keys that come faster than the server answers share statements, and so do completions: eight of each are
/// under way at once. Whoever comes meanwhile waits for one of them, and goes together with up to 63 others, in one
/// transaction, so that many callers need few connections and few commits. Who has waited for 100 ms goes in a ninth, with
/// those behind. A group waits for a locked row for 50 ms at most, whatever `lock_timeout` is; then each of it goes alone.
/// Outcomes over 16 KiB always go alone.
///
/// Call [`migrate`](Self::migrate) first, and [`purge`](Store::purge) now and then: it frees space, and changes no answer.
///
/// # Examples
///
/// ```no_run
/// use steadfast::idempotency::{Idempotency, PostgresStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://app@localhost/app").await?;
/// store.migrate().await?;
/// let idempotency = Idempotency::at_most_once(store).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    storage: PostgresStorage,
    claims: Arc<Group<Claims>>,
    completions: Arc<Group<Completions>>,
}

impl PostgresStore {
    /// The records in this database.
    #[must_use]
    pub fn new(storage: &PostgresStorage) -> Self {
        Self {
            storage: storage.clone(),
            claims: Group::new(Claims(storage.clone())),
            completions: Group::new(Completions(storage.clone())),
        }
    }

    /// The records in the database at `url`, over a pool of its own: see [`PostgresStorage::connect`].
    ///
    /// # Errors
    ///
    /// When the URL is none, or a first connection cannot be made.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let storage = PostgresStorage::connect(url).await?;
        Ok(Self::new(&storage))
    }

    /// Makes the tables, or brings those of an earlier version up to date. Where that was done it changes nothing; two
    /// that do it at once take turns.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses, and when its tables are of a version that this one does not know.
    ///
    /// # Cancel safety
    ///
    /// The steps are run in one transaction: all of them or none.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        self.storage.migrate(MIGRATIONS).await
    }

    /// The steps that [`migrate`](Self::migrate) runs, for who wants to read them.
    #[must_use]
    pub fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    /// The same as one script, with what notes that they were run: for a database in which the program may not make
    /// tables. `migrate` then finds the work done.
    #[must_use]
    pub fn migration_script() -> String {
        script(MIGRATIONS)
    }

    /// The database that it keeps its records in.
    #[must_use]
    pub fn storage(&self) -> &PostgresStorage {
        &self.storage
    }

    /// Runs a statement that may have no answer.
    async fn try_ask<A: Send>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&Row) -> Result<Option<A>, StorageError> + Send + Sync,
    ) -> Result<Option<A>, StorageError> {
        let rows = self.storage.query(sql, params).await?;
        Ok(rows.first().map(read).transpose()?.flatten())
    }

    /// Calls a function of the schema, which has one answer.
    async fn call<A: FromSqlOwned>(&self, sql: &str, params: &[Param<'_>]) -> Result<A, StorageError> {
        let rows = self.storage.query_prepared(sql, params).await?;
        row::get(rows.first().ok_or_else(row::corrupt)?, 0)
    }

    /// Runs a statement until it has an answer.
    async fn ask<A: Send>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&Row) -> Result<Option<A>, StorageError> + Send + Sync,
    ) -> Result<A, StorageError> {
        for _ in 0..MAX_ROUNDS {
            if let Some(answer) = self.try_ask(sql, params, &read).await? {
                return Ok(answer);
            }
        }
        Err(overtaken())
    }

    /// Runs a statement that answers with a row where it did something.
    async fn done(&self, sql: &str, params: &[Param<'_>]) -> Result<bool, StorageError> {
        Ok(!self.storage.query(sql, params).await?.is_empty())
    }
}

fn overtaken() -> StorageError {
    let what = "others changed the record again and again before this could";
    StorageError::new(StorageErrorKind::Unavailable, what)
}

fn number(row: &Row) -> Result<Option<i16>, StorageError> {
    row::get(row, 0)
}

/// Bytes of a hash or a number, whose length is part of their type.
pub(in crate::idempotency) fn bytes<const N: usize>(bytes: &[u8; N]) -> &[u8] {
    bytes
}

/// A fence as it is stored: no store has given out one that does not fit.
fn signed(fence: u64) -> i64 {
    i64::try_from(fence).unwrap_or(i64::MAX)
}

/// How long an interrupted record is kept; `None` for ever.
pub(in crate::idempotency) fn retention(mode: Mode) -> Option<i64> {
    match mode {
        Mode::AtLeastOnce { retention } => Some(microseconds(retention)),
        Mode::AtMostOnce => None,
    }
}

impl Store for PostgresStore {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let params: [Param<'_>; 6] = [
            (&bytes(id.as_bytes()), Type::BYTEA),
            (&bytes(claim.claim_id.as_bytes()), Type::BYTEA),
            (&bytes(claim.fingerprint.as_bytes()), Type::BYTEA),
            (&microseconds(claim.lease), Type::INT8),
            (&retention(claim.mode), Type::INT8),
            (&claim.origin.as_str(), Type::TEXT),
        ];
        let read = |row: &Row| row::claimed(row, claim);
        let claimed = async {
            let fence = match self.claims.join(|| (id, claim.clone())).await {
                Way::Done(fence) => fence,
                Way::Alone(turn) => {
                    let fence = self.call(sql::CLAIM_NEW, &params).await;
                    drop(turn);
                    fence?
                }
            };
            if let Some(fence) = fence {
                return row::owned(claim, fence, 1, None);
            }
            if let Some(answer) = self.try_ask(&sql::FOUND, &params, read).await? {
                return Ok(answer);
            }
            self.ask(&sql::CLAIM, &params, read).await
        };
        match claimed.await {
            Err(error) if was_lock_timeout(&error) => Ok(Claimed::InProgress {
                lease_left: HIDDEN_LEASE,
            }),
            answer => answer,
        }
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let params: [Param<'_>; 7] = [
            (&bytes(id.as_bytes()), Type::BYTEA),
            (&bytes(owner.claim_id.as_bytes()), Type::BYTEA),
            (&signed(owner.fence), Type::INT8),
            (&i64::from(owner.attempt), Type::INT8),
            (&bytes(owner.fingerprint.as_bytes()), Type::BYTEA),
            (&outcome.as_ref(), Type::BYTEA),
            (&microseconds(retention), Type::INT8),
        ];
        let way = if outcome.len() <= MAX_OUTCOME {
            let job = || Completion {
                id,
                owner: *owner,
                outcome: outcome.clone(),
                retention,
            };
            self.completions.join(job).await
        } else {
            Way::Alone(None)
        };
        let applied = match way {
            Way::Done(applied) => applied,
            Way::Alone(turn) => {
                let applied = self.call(sql::COMPLETE, &params).await;
                drop(turn);
                applied?
            }
        };
        if applied {
            return Ok(Completed::Applied);
        }
        for _ in 0..MAX_ROUNDS {
            let of_claim = |row: &Row| row::get(row, 0);
            match self.try_ask(&sql::COMPLETED, &params[..2], of_claim).await? {
                Some(true) => return Ok(Completed::AlreadyApplied),
                Some(false) => return Ok(Completed::Lost),
                None if self.call(sql::COMPLETE, &params).await? => return Ok(Completed::Applied),
                None => {}
            }
        }
        Err(overtaken())
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let params: [Param<'_>; 4] = [
            (&bytes(id.as_bytes()), Type::BYTEA),
            (&bytes(owner.claim_id.as_bytes()), Type::BYTEA),
            (&microseconds(lease), Type::INT8),
            (&checkpoint.map(AsRef::<[u8]>::as_ref), Type::BYTEA),
        ];
        let renewed = self.storage.query_in_reserve(&sql::RENEW, &params).await?;
        Ok(if renewed.is_empty() {
            Renewed::Lost
        } else {
            Renewed::Renewed
        })
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(&sql::RELEASE, id, owner).await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(&sql::INTERRUPT, id, owner).await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        let params: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
        self.ask(&sql::CANCEL, &params, |row| row::cancellation(row).map(Some))
            .await
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        let id: Param<'_> = (&bytes(id.as_bytes()), Type::BYTEA);
        let resolved = match resolution {
            Resolution::NotExecuted => self.done(&sql::RESOLVE_NOT_EXECUTED, &[id]).await?,
            Resolution::Completed { outcome, retention } => {
                self.resolve_by(&sql::RESOLVE_COMPLETED, id, outcome, *retention)
                    .await?
            }
            Resolution::Corrected { outcome, retention } => {
                self.resolve_by(&sql::CORRECT, id, outcome, *retention).await?
            }
        };
        Ok(if resolved {
            Resolved::Resolved
        } else {
            Resolved::NotInterrupted
        })
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        let params: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
        Ok(match self.ask(&sql::FORGET, &params, number).await? {
            1 => Forgotten::Forgotten,
            2 => Forgotten::Absent,
            _ => Forgotten::InProgress,
        })
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        let params: [Param<'_>; 1] = [(&bytes(id.as_bytes()), Type::BYTEA)];
        let rows = self.storage.query(&sql::INSPECT, &params).await?;
        let found = rows.first().map(row::inspected).transpose()?;
        Ok(found.map(|(_, inspected)| inspected))
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        // The empty string comes before every id.
        let after = after.as_ref().map_or(&[][..], |after| after.as_bytes());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params: [Param<'_>; 2] = [(&after, Type::BYTEA), (&limit, Type::INT8)];
        let rows = self.storage.query(&sql::LIST_INTERRUPTED, &params).await?;
        rows.iter().map(row::inspected).collect()
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        self.count(&sql::COUNT_INTERRUPTED, &[]).await
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.count(&sql::PURGE, &[(&limit, Type::INT8)]).await
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }
}

impl PostgresStore {
    async fn resolve_by(
        &self,
        sql: &str,
        id: Param<'_>,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<bool, StorageError> {
        let params: [Param<'_>; 4] = [
            id,
            (&bytes(ClaimId::NOBODY.as_bytes()), Type::BYTEA),
            (&outcome.as_ref(), Type::BYTEA),
            (&microseconds(retention), Type::INT8),
        ];
        self.done(sql, &params).await
    }

    async fn end(&self, sql: &str, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        let params: [Param<'_>; 2] = [
            (&bytes(id.as_bytes()), Type::BYTEA),
            (&bytes(owner.claim_id.as_bytes()), Type::BYTEA),
        ];
        Ok(match self.ask(sql, &params, number).await? {
            1 => Ended::Released,
            2 => Ended::Interrupted,
            _ => Ended::Lost,
        })
    }

    async fn count(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, StorageError> {
        let counted = self.ask(sql, params, |row| row::get::<Option<i64>>(row, 0)).await?;
        Ok(u64::try_from(counted).unwrap_or(0))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}
