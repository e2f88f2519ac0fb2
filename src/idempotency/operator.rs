//! What operators, sagas and shutdowns ask a policy for.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::event::EventKind;
use super::policy::{Idempotency, Policy};
use super::store::{Cancellation, Forgotten, Inspected, Record, Resolution, Resolved, Store};
use crate::rejected::Idempotency as Why;
use crate::storage::{StorageError, StorageErrorKind};
use crate::{Key, KeyId, Rejected};

/// # For operators
///
/// These calls take the [`KeyId`] that logs show. Each is one call of the store, and fails as such.
impl<D> Idempotency<D> {
    /// Closes `key` for ever: what has not begun by now never will.
    ///
    /// For who has to undo the operation, and does not know how far it has come.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn cancel(&self, key: &Key) -> Result<Cancellation, StorageError> {
        let id = self.id(key);
        self.policy.one_call("cancel", id, self.policy.store.cancel(id)).await
    }

    /// The record, unless there is none or it has expired.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        self.policy.one_call("inspect", id, self.policy.store.inspect(id)).await
    }

    /// The stored value of a record, if it has one.
    ///
    /// # Errors
    ///
    /// [`NotReplayable`](crate::RejectedKind::NotReplayable) when it cannot be read as a `T`.
    pub fn outcome<T: DeserializeOwned>(&self, id: KeyId, inspected: &Inspected) -> Result<Option<T>, Rejected> {
        let Record::Completed { outcome, .. } = &inspected.record else {
            return Ok(None);
        };
        let value = self.policy.codec.decode(id, outcome);
        value.map(Some).map_err(|why| self.policy.reject(why))
    }

    /// At most `limit` interrupted operations of the store after `after`, by id. They are those of every policy on the
    /// store: [`origin`](Inspected::origin) says whose each is, and which face of that policy resolves it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let request = self.policy.store.list_interrupted(after, limit);
        self.policy.general_call(request).await
    }

    /// How many operations of the store are interrupted. Sets the gauge `steadfast.idempotency.interrupted`.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn count_interrupted(&self) -> Result<u64, StorageError> {
        let count = self.policy.general_call(self.policy.store.count_interrupted()).await?;
        #[cfg(feature = "metrics")]
        {
            #[allow(
                clippy::cast_precision_loss,
                clippy::as_conversions,
                reason = "the facade's gauges are floats"
            )]
            let gauge = count as f64;
            metrics::gauge!("steadfast.idempotency.interrupted", "policy" => crate::event::label(&self.policy.name))
                .set(gauge);
        }
        Ok(count)
    }

    /// An interrupted operation was carried out, with this value: it is replayed from now on.
    ///
    /// What a layer ran is resolved by that layer, which encodes in its own way.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Refused`](StorageErrorKind::Refused) when the value is too large or has no encoding.
    pub async fn resolve_completed<T: Serialize>(&self, id: KeyId, value: &T) -> Result<Resolved, StorageError> {
        let outcome = self.policy.codec.encode(id, value);
        self.policy.resolve_completed(id, outcome).await
    }

    /// What was [resolved](Self::resolve_completed) has another value than was said then, or one of another type: it is
    /// replayed from now on. Who has had the one before is not told.
    ///
    /// The outcome of a run is none to be corrected. Tells of it by the event `corrected`.
    ///
    /// # Errors
    ///
    /// As for [`resolve_completed`](Self::resolve_completed).
    pub async fn correct<T: Serialize>(&self, id: KeyId, value: &T) -> Result<Resolved, StorageError> {
        let outcome = self.policy.codec.encode(id, value);
        self.policy.correct(id, outcome).await
    }

    /// An interrupted operation was not carried out: the next caller runs it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn resolve_not_executed(&self, id: KeyId) -> Result<Resolved, StorageError> {
        self.policy.resolve(id, &Resolution::NotExecuted).await
    }

    /// Removes the record, whatever it says, unless the operation is in progress. **The key is free then**: whoever
    /// repeats the request has it run again, also where it was carried out before.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.policy.one_call("forget", id, self.policy.store.forget(id)).await
    }

    /// Removes at most `limit` expired records of the store, and says how many. It frees space and changes no answer:
    /// call it now and then, with a limit of some hundreds.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        self.policy.general_call(self.policy.store.purge(limit)).await
    }

    /// How many operations of this policy are under way in this process, those among them whose callers have left and
    /// that the store has not been told of yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.policy.flights.count()
    }

    /// Waits until nothing is under way, for at most `patience`, and says how many operations are left: their leases
    /// end by themselves. For a shutdown, after the last request has been accepted.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.policy.flights.drain(patience).await
    }
}

/// The outcome that an operator has given, if it can be stored.
fn given(outcome: Result<Bytes, Why>) -> Result<Bytes, StorageError> {
    outcome.map_err(|why| {
        let what = match why {
            Why::NotStorable { limit: Some(_) } => "the value is larger than max_outcome",
            _ => "the value has no encoding",
        };
        StorageError::new(StorageErrorKind::Refused, what)
    })
}

impl Policy {
    /// An interrupted operation was carried out, with this outcome.
    pub(crate) async fn resolve_completed(
        &self,
        id: KeyId,
        outcome: Result<Bytes, Why>,
    ) -> Result<Resolved, StorageError> {
        let (outcome, retention) = (given(outcome)?, self.retention);
        self.resolve(id, &Resolution::Completed { outcome, retention }).await
    }

    /// What was resolved has this outcome, and not the one that was given then.
    pub(crate) async fn correct(&self, id: KeyId, outcome: Result<Bytes, Why>) -> Result<Resolved, StorageError> {
        let (outcome, retention) = (given(outcome)?, self.retention);
        let resolved = self.resolve(id, &Resolution::Corrected { outcome, retention }).await?;
        if resolved == Resolved::Resolved {
            self.emit(id, EventKind::Corrected);
        }
        Ok(resolved)
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        self.one_call("resolve", id, self.store.resolve(id, resolution)).await
    }
}
