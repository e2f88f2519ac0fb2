//! Where records are kept: the trait, and the stores of this crate.

pub(super) mod memory;
#[cfg(feature = "postgres")]
pub(super) mod postgres;
#[cfg(feature = "redis")]
pub(super) mod redis;
pub(super) mod shared;
#[cfg(feature = "sqlite")]
pub(super) mod sqlite;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::KeyId;
use crate::storage::StorageError;

pub use super::record::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Face, Forgotten, Interrupted, Mode, Origin, Outcome,
    Owner, Record, Renewed, Resolution, Resolved, Step, Write,
};
pub use crate::storage::Durability;
pub use shared::SharedStore;

/// Keeps the records of keys: bytes only, each call one atomic transition of one record.
///
/// What each call has to do and to answer is written down as a pure function of the same name of [`Record`]; a store
/// that can read and write a record in one transaction calls that function and is done. The others are held against it
/// by the conformance suite, `steadfast::testing` with the feature `testing`.
///
/// Time is the store's own clock, which all clients of one store share. Every call may be sent again after an error: it
/// changes nothing more, and a claim or what its owner writes answers as if it had been sent once.
///
/// # Errors
///
/// A call that fails with [`Unavailable`](crate::storage::StorageErrorKind::Unavailable) may have been carried out or
/// not. No error may show what was to be stored.
///
/// # Cancel safety
///
/// A call whose future is dropped may be carried out or not, and may still be.
pub trait Store: Send + Sync + 'static {
    /// [`Record::claim`], with a fence that is larger than any the key has had.
    fn claim(&self, id: KeyId, claim: &Claim) -> impl Future<Output = Result<Claimed, StorageError>> + Send;

    /// [`Record::complete`].
    fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> impl Future<Output = Result<Completed, StorageError>> + Send;

    /// [`Record::renew`].
    fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> impl Future<Output = Result<Renewed, StorageError>> + Send;

    /// [`Record::release`].
    fn release(&self, id: KeyId, owner: &Owner) -> impl Future<Output = Result<Ended, StorageError>> + Send;

    /// [`Record::interrupt`].
    fn interrupt(&self, id: KeyId, owner: &Owner) -> impl Future<Output = Result<Ended, StorageError>> + Send;

    /// [`Record::cancel`].
    fn cancel(&self, id: KeyId) -> impl Future<Output = Result<Cancellation, StorageError>> + Send;

    /// [`Record::resolve`].
    fn resolve(
        &self,
        id: KeyId,
        resolution: &Resolution,
    ) -> impl Future<Output = Result<Resolved, StorageError>> + Send;

    /// [`Record::forget`].
    fn forget(&self, id: KeyId) -> impl Future<Output = Result<Forgotten, StorageError>> + Send;

    /// The record, unless it has expired.
    fn inspect(&self, id: KeyId) -> impl Future<Output = Result<Option<Inspected>, StorageError>> + Send;

    /// At most `limit` interrupted records whose ids come after `after`, by id.
    fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(KeyId, Inspected)>, StorageError>> + Send;

    /// How many records are interrupted.
    fn count_interrupted(&self) -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// Removes at most `limit` expired records, and says how many. It frees space and changes no answer.
    fn purge(&self, limit: usize) -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// What the store can lose.
    fn durability(&self) -> Durability;

    /// The store behind a pointer, without a type parameter.
    fn shared(self) -> SharedStore
    where
        Self: Sized,
    {
        SharedStore::wrap(self)
    }
}

/// A record, and the time at which the store read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The record.
    pub record: Record,
    /// The store's time.
    pub now: Duration,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Somebody is at it.
    InProgress,
    /// Its lease is over, and there is no outcome.
    Interrupted,
    /// There is an outcome.
    Completed,
    /// It is closed, and nothing was done under it.
    Cancelled,
    /// It is closed, and an interrupted attempt may have had its effect.
    CancelledUnknown,
}

impl Inspected {
    /// Where the record stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.record {
            Record::InProgress { .. } if self.record.is_interrupted(self.now) => Status::Interrupted,
            Record::InProgress { .. } => Status::InProgress,
            Record::Completed { .. } => Status::Completed,
            Record::Cancelled { interrupted: None, .. } => Status::Cancelled,
            Record::Cancelled {
                interrupted: Some(_), ..
            } => Status::CancelledUnknown,
        }
    }

    /// The last attempt; 0 where nothing was ever run.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match &self.record {
            Record::InProgress { owner, .. } | Record::Completed { owner, .. } => owner.attempt,
            Record::Cancelled { interrupted, .. } => interrupted.as_ref().map_or(0, |interrupted| interrupted.attempt),
        }
    }

    /// What the last attempt noted for the next.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&[u8]> {
        match &self.record {
            Record::InProgress { checkpoint, .. } => checkpoint.as_deref(),
            Record::Completed { .. } => None,
            Record::Cancelled { interrupted, .. } => interrupted.as_ref()?.checkpoint.as_deref(),
        }
    }

    /// Whose it is: which namespace, and which face of its policy; `None` once it is in progress no longer.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match &self.record {
            Record::InProgress { origin, .. } => Some(origin),
            Record::Completed { .. } | Record::Cancelled { .. } => None,
        }
    }

    /// How long it is kept from when it was read; `None` for ever.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        let expires_at = self.record.expires_at()?;
        Some(expires_at.saturating_sub(self.now))
    }
}

impl fmt::Debug for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected")
            .field("status", &self.status())
            .field("record", &self.record)
            .field("now", &self.now)
            .finish()
    }
}
