//! PostgreSQL: a pool of connections, statements that PgBouncer in transaction mode can stand in front of, and the
//! steps of a schema.
//!
//! Nothing outlives a transaction: no setting of the session, no session lock, and no prepared statement unless the user
//! says that connections are sessions.

mod error;
mod handle;
mod migrate;
mod settings;
mod together;

#[cfg(feature = "saga")]
pub(crate) use error::is_refusal;
pub(crate) use error::{describe, is_lock_timeout, was_lock_timeout};
#[cfg(feature = "saga")]
pub(crate) use handle::Held;
pub(crate) use handle::Param;
pub use handle::PostgresStorage;
pub(crate) use migrate::script;
pub(crate) use settings::{MICROSECOND, SETTINGS, microseconds};
pub(crate) use together::{Group, Together, Way};
