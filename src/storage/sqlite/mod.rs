//! A SQLite file, written by one thread.
//!
//! ```text
//!   callers, async                      the writer, a thread
//!   ------> two bounded queues ------>  BEGIN IMMEDIATE
//!           renewals first              every job that waits, in turn
//!                                       COMMIT, one fsync for all of them
//!   <------ answers, now <------------
//! ```
//!
//! SQLite admits one writer at a time, and a commit costs an fsync: so those who wait share one. An answer is sent when
//! it is durable, and not before.

mod builder;
mod clock;
mod error;
mod handle;
mod job;
mod migrate;
mod network;
mod open;
mod queue;
mod savepoint;
mod shift;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod value;
mod writer;

pub use builder::{DEFAULT_BUSY_TIMEOUT, SqliteStorageBuilder};
pub(crate) use clock::Clock;
pub(crate) use error::Fault;
pub use handle::SqliteStorage;
pub(crate) use job::{Terms, Turn};
pub(crate) use migrate::check;
pub(crate) use savepoint::Savepoint;
