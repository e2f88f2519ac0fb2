//! What durable patterns share: keys, leases, and the databases that keep their state.

mod error;
pub(crate) mod key;
pub(crate) mod lease;
mod migration;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub use error::{StorageError, StorageErrorKind};
pub(crate) use key::{Secret, hash_parts, write_hex};
pub use migration::Migration;
/// The client of SQLite whose types this crate takes.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use sqlite::{DEFAULT_BUSY_TIMEOUT, SqliteStorage, SqliteStorageBuilder};
