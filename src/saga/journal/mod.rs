//! Where durable sagas are written.
//!
//! A journal keeps for each saga its [`Head`] and its events. What happens to a head is given by pure functions of it
//! ([`Head::append`], [`Head::claim`] and so on); a journal carries each out in one transaction.

mod head;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod types;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use super::id::SagaId;
use crate::KeyId;
use crate::storage::{Durability, StorageError};

pub use memory::{DEFAULT_MAX_SAGAS, MemoryJournal};
#[cfg(feature = "postgres")]
pub use postgres::PostgresJournal;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;
pub use types::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Entry, Head, Hold,
    ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal, SUSPECT_AFTER, SagaStatus, StoredEntry,
};

/// What a call of a journal gives.
pub type JournalFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// Where durable sagas are written: implemented for memory, SQLite and PostgreSQL, and by your own.
///
/// Each call is one transaction, durable when it answers. An error says that it may have been carried out or not; the
/// same call may then be sent again, and has the effect of one. Times are those of the journal's own clock, which all
/// its users share; a lease of 0 is over at once, and one of more than 100 years counts as 100 years.
///
/// What the calls mean is written once, as functions of [`Head`].
///
/// # Cancel safety
///
/// A call whose future is dropped may have been carried out or not.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Writes a new saga: [`Head::of`], or [`Head::meets`] where there is one of its key. An id that another key has is an
    /// error, and not one that may pass.
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created>;

    /// Writes events and the head after them: [`Head::append`]. Where that gives nothing, the stored events are compared:
    /// if each of these is there, in its place and with this epoch, the call was carried out before.
    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended>;

    /// Claims sagas that are due and that the query fits, the longest due first: [`Head::is_due`], [`Head::fits`],
    /// [`Head::claim`]. Two claims at once never get the same saga.
    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>>;

    /// Claims one saga, whatever it stands at, unless it [is held](Head::is_held).
    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne>;

    /// Extends the leases of these sagas, each in the epoch given: [`Head::renew`], [`Head::renewal`]. One answer for
    /// each, in any order; a saga that does not exist is not held.
    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>>;

    /// Lets go of these sagas, each in the epoch given: [`Head::release`].
    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()>;

    /// Asks that a saga turn back: [`Head::request_cancel`].
    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest>;

    /// A saga with its events, read at one time.
    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>>;

    /// The head of the saga of this key.
    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>>;

    /// The heads that the query asks for, in the order of their ids.
    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>>;

    /// How many sagas there are; `definitions` are those that the caller can drive.
    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts>;

    /// Clears away what is over, and says of how many sagas: [`Head::events_are_over`] and [`Head::is_over`]. It keeps
    /// nobody else waiting for long.
    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64>;

    /// What the journal can lose.
    fn durability(&self) -> Durability;

    /// The journal itself, where steps can run in its transactions, as in [`Step::postgres_tx`](super::Step::postgres_tx).
    /// One that wraps another gives the other's, and does not hear of their appends.
    fn local(&self) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
}
