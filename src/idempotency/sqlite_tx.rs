//! Effect and record in one transaction of the user's.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::unavailable;
use super::disposition::{Decide, Disposition};
use super::drive::RETRY_AFTER;
use super::event::EventKind;
use super::fingerprint::Fingerprint;
use super::policy::{Idempotency, Policy};
use super::store::sqlite::{MIGRATIONS, claim, clamped, transition};
use super::store::{Claim, ClaimId, Claimed, Completed, Face, Owner, Record};
use crate::random::unique;
use crate::rejected::Idempotency as Why;
use crate::storage::StorageError;
use crate::storage::sqlite::value::stored;
use crate::storage::sqlite::{Clock, Fault, Savepoint, check};
use crate::{Key, KeyId, Rejected};

impl<D> Idempotency<D> {
    /// Runs `work` once for `key`, its effect and its record in the transaction `tx`: both are committed, or neither.
    ///
    /// For work whose whole effect is in the same database: where the process crashes, nothing is left of it. Never call
    /// a remote service inside: its effect is not undone. The record is in the tables of
    /// [`SqliteStore`](super::SqliteStore), in the database of `tx`; the store that the policy was made with is not asked.
    ///
    /// Begin the transaction as [`Immediate`](rusqlite::TransactionBehavior::Immediate). One that has read before it
    /// writes cannot write any more once somebody else has, and no wait cures that.
    ///
    /// A connection of yours waits for the file by itself. The store's writer leaves it for about a millisecond twenty times a
    /// second when it has work without a pause, and SQLite's own `busy_timeout` looks every 100 ms only: under such load it
    /// may well end without a turn. Look each millisecond instead, as the example does.
    ///
    /// An `Err` of `work`, and a panic, undo what it has done; the key is free again. The transaction itself goes on, and
    /// is the caller's to commit: an outcome is replayed to others once that is done. What was committed by `work`
    /// itself, which it should not do, counts as interrupted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use steadfast::idempotency::{Idempotency, SqliteStore};
    /// use steadfast::storage::rusqlite::{self, Connection, TransactionBehavior};
    /// use steadfast::{Key, Rejected};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum BookingError {
    ///     #[error("the database: {0}")]
    ///     Database(#[from] rusqlite::Error),
    ///     #[error(transparent)]
    ///     Rejected(#[from] Rejected),
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("steadfast-doc-tx-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let path = folder.join("app.db");
    /// let store = SqliteStore::open(&path).await?;
    /// store.migrate().await?;
    /// let bookings = Idempotency::at_most_once(store).namespace("bookings").build()?;
    ///
    /// let mut connection = Connection::open(&path)?;
    /// // for 5 s or so
    /// connection.busy_handler(Some(|looks| {
    ///     std::thread::sleep(Duration::from_millis(1));
    ///     looks < 5_000
    /// }))?;
    /// connection.execute("CREATE TABLE booking (seat TEXT)", [])?;
    /// for _ in 0..2 {
    ///     let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    ///     let seat = bookings.once_in_sqlite_tx(&tx, &Key::new("tenant-7", "order-1234"), "12 A", |tx| {
    ///         tx.execute("INSERT INTO booking VALUES ('12 A')", [])?;
    ///         Ok::<_, BookingError>("12 A".to_owned())
    ///     })?;
    ///     tx.commit()?;
    ///     assert_eq!(seat, "12 A");
    /// }
    /// let booked: i64 = connection.query_row("SELECT count(*) FROM booking", [], |row| row.get(0))?;
    /// assert_eq!(booked, 1);
    /// # drop((connection, bookings)); std::fs::remove_dir_all(folder)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `work`, and a [`Rejected`] of the kinds that [`run`](Self::run) has. Whatever the error, nothing that
    /// `work` did is left in the transaction.
    pub fn once_in_sqlite_tx<R, T, E>(
        &self,
        tx: &Transaction<'_>,
        key: &Key,
        request: &R,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        R: Serialize + ?Sized,
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        D: Decide<T, E>,
    {
        let policy = &*self.policy;
        let id = policy.id(key);
        let fingerprint = Fingerprint::of(request).map_err(|_| policy.reject(Why::NoFingerprint))?;
        let once = Once { policy, id, tx };
        // Whoever leaves without its release undoes what came after it.
        let savepoint = once.stored(Savepoint::new(tx).map_err(Fault::from))?;
        let owner = match once.claim(fingerprint)? {
            Begun::Owner(owner) => owner,
            Begun::Outcome(outcome) => {
                let value = policy.codec.decode(id, &outcome);
                return Ok(value.map_err(|why| policy.reject(why))?);
            }
        };
        let value = work(tx)?;
        if tx.is_autocommit() {
            // The work has ended the transaction: what it did may be committed, and the record says interrupted.
            return Err(once.unknown(&owner).into());
        }
        match self.decide.decide(Ok(&value)) {
            Disposition::Store => once.complete(&owner, &value, policy.retention)?,
            Disposition::StoreFor(retention) => once.complete(&owner, &value, retention)?,
            Disposition::Release => once.release(&owner)?,
            // The lease is over already.
            Disposition::Interrupt => {}
        }
        // A savepoint that is gone: the work has ended the transaction, and begun another.
        savepoint.release().map_err(|_| once.unknown(&owner))?;
        Ok(value)
    }
}

/// One key in one transaction.
struct Once<'a> {
    policy: &'a Policy,
    id: KeyId,
    tx: &'a Connection,
}

enum Begun {
    Owner(Owner),
    Outcome(Bytes),
}

impl Once<'_> {
    fn now() -> Duration {
        Clock::system().now()
    }

    /// Claims the key, the lease over at once: what is committed before the outcome is there reads as interrupted.
    fn claim(&self, fingerprint: Fingerprint) -> Result<Begun, Rejected> {
        let policy = self.policy;
        let wanted = clamped(&Claim {
            claim_id: ClaimId::from_bytes(unique()),
            fingerprint,
            mode: policy.mode,
            lease: Duration::ZERO,
            origin: policy.origins.of(Face::Call),
        });
        let claimed = self.stored(self.begin_write().and_then(|()| {
            check(self.tx, MIGRATIONS)?;
            claim(self.tx, self.id, &wanted, Self::now())
        }))?;
        let (kind, why) = match claimed {
            Claimed::Owned { owner, .. } => {
                let attempt = owner.attempt;
                policy.emit(self.id, EventKind::Claimed { attempt });
                return Ok(Begun::Owner(owner));
            }
            Claimed::Completed { outcome, .. } => {
                policy.emit(self.id, EventKind::Replayed);
                return Ok(Begun::Outcome(outcome.0));
            }
            Claimed::InProgress { lease_left } => {
                let retry_after = lease_left.min(RETRY_AFTER);
                (EventKind::InProgress, Why::InProgress { retry_after })
            }
            Claimed::Mismatch => (EventKind::Mismatch, Why::KeyMismatch),
            Claimed::Unknown(interrupted) => {
                let attempt = interrupted.attempt;
                (EventKind::OutcomeUnknown { attempt }, Why::OutcomeUnknown { attempt })
            }
            Claimed::Cancelled => (EventKind::Refused, Why::KeyCancelled),
        };
        policy.emit(self.id, kind);
        Err(policy.reject(why))
    }

    /// Takes the lock for writing before anything is read, in case the transaction is a deferred one.
    fn begin_write(&self) -> Result<(), Fault> {
        let mut statement = self
            .tx
            .prepare_cached("DELETE FROM steadfast_idempotency_fence WHERE one = 0")?;
        statement.execute([])?;
        Ok(())
    }

    fn complete<T: Serialize>(&self, owner: &Owner, value: &T, retention: Duration) -> Result<(), Rejected> {
        let outcome = self.policy.codec.encode(self.id, value);
        let outcome = outcome.map_err(|why| self.policy.reject(why))?;
        let complete =
            |record: Option<&Record>| Record::complete(record, owner, &outcome, stored(retention), Self::now());
        match self.stored(transition(self.tx, self.id, complete))? {
            Completed::Applied | Completed::AlreadyApplied => Ok(()),
            // The work has written to the record of its own key.
            Completed::Lost => Err(self.unknown(owner)),
        }
    }

    fn release(&self, owner: &Owner) -> Result<(), Rejected> {
        let release = |record: Option<&Record>| Record::release(record, owner, Self::now());
        self.stored(transition(self.tx, self.id, release)).map(drop)
    }

    fn unknown(&self, owner: &Owner) -> Rejected {
        let attempt = owner.attempt;
        self.policy.emit(self.id, EventKind::OutcomeUnknown { attempt });
        self.policy.reject(Why::OutcomeUnknown { attempt })
    }

    /// An error of the tables as a rejection; a listener hears which.
    fn stored<T>(&self, result: Result<T, Fault>) -> Result<T, Rejected> {
        result.map_err(|fault| {
            let error = &StorageError::from(fault);
            let call = "once_in_sqlite_tx";
            self.policy.emit(self.id, EventKind::StoreFailed { call, error });
            self.policy.reject(unavailable(error))
        })
    }
}
