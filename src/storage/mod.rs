//! What durable patterns share: keys, leases, and the databases that keep their state.

mod durability;
mod error;
pub(crate) mod key;
pub(crate) mod lease;
mod migration;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub use durability::Durability;
pub use error::{StorageError, StorageErrorKind};
#[cfg(feature = "idempotency")]
pub(crate) use key::Secret;
pub(crate) use key::{hash_parts, write_hex};
pub use migration::Migration;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStorage;
/// The client of SQLite whose types this crate takes.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use sqlite::{DEFAULT_BUSY_TIMEOUT, SqliteStorage, SqliteStorageBuilder};
/// The pool and the client of PostgreSQL whose types this crate takes.
#[cfg(feature = "postgres")]
pub use {deadpool_postgres, tokio_postgres};
