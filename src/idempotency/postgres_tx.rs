//! Effect and record in one transaction of the user's.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row, Transaction};

use super::calls::unavailable;
use super::disposition::{Decide, Disposition};
use super::drive::RETRY_AFTER;
use super::event::EventKind;
use super::fingerprint::Fingerprint;
use super::policy::{Idempotency, Policy};
use super::store::postgres::row::{claimed, transaction_id};
use super::store::postgres::{MAX_ROUNDS, bytes, retention, sql};
use super::store::{Claim, ClaimId, Claimed, Face, Owner};
use crate::random::unique;
use crate::rejected::Idempotency as Why;
use crate::storage::postgres::{Param, describe, is_lock_timeout, microseconds};
use crate::storage::{StorageError, StorageErrorKind};
use crate::{Key, KeyId, Rejected};

const SAVEPOINT: &str = "steadfast_idempotency";

impl<D> Idempotency<D> {
    /// Runs `work` once for `key`, its effect and its record in the transaction `tx`: both are committed, or neither.
    ///
    /// For work whose whole effect is in the same database: where the process crashes, nothing is left of it. Never call
    /// a remote service inside: its effect is not undone. The record is in the table of
    /// [`PostgresStore`](super::PostgresStore), in the database of `tx`; the store that the policy was made with is not
    /// asked.
    ///
    /// An `Err` of `work`, a panic, and a future that is dropped undo what it has done, and the key is free again. The
    /// transaction itself goes on, and is the caller's to commit: an outcome is replayed to others once that is done.
    /// What was committed by `work` itself, which it should not do, counts as interrupted.
    ///
    /// A duplicate waits for the transaction of the first, which decides what it gets: for as long as the policy's
    /// `store_timeout`, or the transaction's own `lock_timeout` where that is set. After that it is in progress.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use steadfast::idempotency::Idempotency;
    /// use steadfast::storage::{deadpool_postgres::Pool, tokio_postgres};
    /// use steadfast::{Key, Rejected};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum BookingError {
    ///     #[error("the database: {0}")]
    ///     Database(#[from] tokio_postgres::Error),
    ///     #[error("no connection: {0}")]
    ///     Pool(#[from] steadfast::storage::deadpool_postgres::PoolError),
    ///     #[error(transparent)]
    ///     Rejected(#[from] Rejected),
    /// }
    ///
    /// async fn book(bookings: &Idempotency, pool: &Pool, key: &Key, seat: &str) -> Result<i64, BookingError> {
    ///     let mut client = pool.get().await?;
    ///     let mut tx = client.transaction().await?;
    ///     let booking = bookings.once_in_postgres_tx(&mut tx, key, seat, async |tx| {
    ///         let row = tx.query_one("INSERT INTO booking (seat) VALUES ($1) RETURNING id", &[&seat]).await?;
    ///         Ok::<i64, BookingError>(row.get(0))
    ///     });
    ///     let booking = booking.await?;
    ///     tx.commit().await?;
    ///     Ok(booking)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `work`; a [`Rejected`] of the kinds that [`run`](Self::run) has; and what the database says of the
    /// statements for the record. Whatever the error, nothing that `work` did is left in the transaction. After a
    /// serialization failure (SQLSTATE 40001) or a deadlock (40P01) the whole transaction is the caller's to run again.
    ///
    /// # Cancel safety
    ///
    /// Dropped half way, what `work` did is undone before the next statement of the transaction.
    pub fn once_in_postgres_tx<'a, 'tx, R, T, E, W>(
        &'a self,
        tx: &'a mut Transaction<'tx>,
        key: &Key,
        request: &R,
        work: W,
    ) -> impl Future<Output = Result<T, E>> + use<'a, 'tx, R, T, E, W, D>
    where
        R: Serialize + ?Sized,
        T: Serialize + DeserializeOwned,
        E: From<Rejected> + From<Error>,
        W: AsyncFnOnce(&mut Transaction<'_>) -> Result<T, E>,
        D: Decide<T, E>,
    {
        let policy = &*self.policy;
        let once = Once {
            policy,
            id: policy.id(key),
        };
        let fingerprint = Fingerprint::of(request).map_err(|_| policy.reject(Why::NoFingerprint));
        async move {
            let fingerprint = fingerprint?;
            // Dropped without its release, it undoes what came after it.
            let mut savepoint = tx.savepoint(SAVEPOINT).await?;
            let begun = match once.claim(&savepoint, fingerprint).await {
                Ok(begun) => begun,
                Err(failed) => {
                    savepoint.rollback().await?;
                    return Err(failed.into_error());
                }
            };
            let owner = match begun {
                Begun::Outcome(outcome) => {
                    savepoint.commit().await?;
                    let value = policy.codec.decode(once.id, &outcome);
                    return Ok(value.map_err(|why| policy.reject(why))?);
                }
                Begun::Owner(owner) => owner,
            };
            let ended = match work(&mut savepoint).await {
                Ok(value) => {
                    let disposition = self.decide.decide(Ok(&value));
                    let ended = once.end(&savepoint, &owner, disposition, &value).await;
                    ended.map(|()| value).map_err(Failed::into_error)
                }
                Err(error) => Err(error),
            };
            match ended {
                Ok(value) => {
                    savepoint.commit().await?;
                    Ok(value)
                }
                Err(error) => {
                    // Where not even this can be done, the connection is gone and the transaction with it.
                    let _ = savepoint.rollback().await;
                    Err(error)
                }
            }
        }
    }
}

/// One key in one transaction.
struct Once<'a> {
    policy: &'a Policy,
    id: KeyId,
}

enum Begun {
    Owner(OwnerInTx),
    Outcome(Bytes),
}

struct OwnerInTx {
    owner: Owner,
    /// Which transaction it is the owner in.
    transaction: i64,
}

enum Failed {
    Database(Error),
    Rejected(Rejected),
}

impl Failed {
    fn into_error<E: From<Rejected> + From<Error>>(self) -> E {
        match self {
            Self::Database(error) => error.into(),
            Self::Rejected(rejected) => rejected.into(),
        }
    }
}

impl From<Rejected> for Failed {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl Once<'_> {
    /// Claims the key, the lease over at once: what is committed before the outcome is there reads as interrupted.
    async fn claim(&self, tx: &Transaction<'_>, fingerprint: Fingerprint) -> Result<Begun, Failed> {
        let policy = self.policy;
        let claim = Claim {
            claim_id: ClaimId::from_bytes(unique()),
            fingerprint,
            mode: policy.mode,
            lease: Duration::ZERO,
            origin: policy.origins.of(Face::Call),
        };
        // Zero would be for ever.
        let wait = policy.store_timeout.as_millis().clamp(1, 2_147_483_647);
        let wait = format!("{wait}ms");
        let params: [Param<'_>; 7] = [
            (&bytes(self.id.as_bytes()), Type::BYTEA),
            (&bytes(claim.claim_id.as_bytes()), Type::BYTEA),
            (&bytes(claim.fingerprint.as_bytes()), Type::BYTEA),
            (&microseconds(claim.lease), Type::INT8),
            (&retention(claim.mode), Type::INT8),
            (&claim.origin.as_str(), Type::TEXT),
            (&wait, Type::TEXT),
        ];
        for _ in 0..MAX_ROUNDS {
            let rows = match tx.query_typed(&sql::CLAIM_IN_TX, &params).await {
                Ok(rows) => rows,
                Err(error) if is_lock_timeout(&error) => return Err(self.refuse(in_progress(RETRY_AFTER)).into()),
                Err(error) => return Err(self.failed(error)),
            };
            if let Some(row) = rows.first() {
                if let Some(claimed) = claimed(row, &claim).map_err(|error| self.unreadable(&error))? {
                    return self.begin(row, claimed);
                }
            }
        }
        let what = "others changed the record again and again before this could";
        Err(self
            .unreadable(&StorageError::new(StorageErrorKind::Unavailable, what))
            .into())
    }

    fn begin(&self, row: &Row, claimed: Claimed) -> Result<Begun, Failed> {
        let refused = match claimed {
            Claimed::Owned { owner, .. } => {
                let transaction = transaction_id(row).map_err(|error| self.unreadable(&error))?;
                let attempt = owner.attempt;
                self.policy.emit(self.id, EventKind::Claimed { attempt });
                return Ok(Begun::Owner(OwnerInTx { owner, transaction }));
            }
            Claimed::Completed { outcome, .. } => {
                self.policy.emit(self.id, EventKind::Replayed);
                return Ok(Begun::Outcome(outcome.0));
            }
            Claimed::InProgress { lease_left } => in_progress(lease_left.min(RETRY_AFTER)),
            Claimed::Mismatch => (EventKind::Mismatch, Why::KeyMismatch),
            Claimed::Unknown(interrupted) => unknown(interrupted.attempt),
            Claimed::Cancelled => (EventKind::Refused, Why::KeyCancelled),
        };
        Err(self.refuse(refused).into())
    }

    async fn end<T: Serialize>(
        &self,
        tx: &Transaction<'_>,
        owner: &OwnerInTx,
        disposition: Disposition,
        value: &T,
    ) -> Result<(), Failed> {
        let retention = match disposition {
            Disposition::Store => self.policy.retention,
            Disposition::StoreFor(retention) => retention,
            Disposition::Release => return self.release(tx, owner).await,
            // The lease is over already.
            Disposition::Interrupt => return Ok(()),
        };
        let OwnerInTx { owner, transaction } = owner;
        let outcome = self.policy.codec.encode(self.id, value);
        let outcome = outcome.map_err(|why| self.policy.reject(why))?;
        let params: [Param<'_>; 5] = [
            (&bytes(self.id.as_bytes()), Type::BYTEA),
            (&bytes(owner.claim_id.as_bytes()), Type::BYTEA),
            (transaction, Type::INT8),
            (&outcome.as_ref(), Type::BYTEA),
            (&microseconds(retention), Type::INT8),
        ];
        let completed = tx.query_typed(&sql::COMPLETE_IN_TX, &params).await;
        if completed.map_err(|error| self.failed(error))?.is_empty() {
            // The work has ended the transaction, or written to the record of its own key.
            return Err(self.refuse(unknown(owner.attempt)).into());
        }
        Ok(())
    }

    /// Frees the key, unless an earlier attempt was interrupted: then it stays so.
    async fn release(&self, tx: &Transaction<'_>, owner: &OwnerInTx) -> Result<(), Failed> {
        let params: [Param<'_>; 3] = [
            (&bytes(self.id.as_bytes()), Type::BYTEA),
            (&bytes(owner.owner.claim_id.as_bytes()), Type::BYTEA),
            (&owner.transaction, Type::INT8),
        ];
        let released = tx.query_typed(&sql::RELEASE_IN_TX, &params).await;
        released.map(drop).map_err(|error| self.failed(error))
    }

    fn refuse(&self, (event, why): (EventKind<'_>, Why)) -> Rejected {
        self.policy.emit(self.id, event);
        self.policy.reject(why)
    }

    /// The database's own error is the caller's, who may have to run the transaction again; a listener hears what it means.
    fn failed(&self, error: Error) -> Failed {
        self.emit_failed(&describe(&error));
        Failed::Database(error)
    }

    fn unreadable(&self, error: &StorageError) -> Rejected {
        self.emit_failed(error);
        self.policy.reject(unavailable(error))
    }

    fn emit_failed(&self, error: &StorageError) {
        let call = "once_in_postgres_tx";
        self.policy.emit(self.id, EventKind::StoreFailed { call, error });
    }
}

fn in_progress(retry_after: Duration) -> (EventKind<'static>, Why) {
    (EventKind::InProgress, Why::InProgress { retry_after })
}

fn unknown(attempt: u32) -> (EventKind<'static>, Why) {
    (EventKind::OutcomeUnknown { attempt }, Why::OutcomeUnknown { attempt })
}
