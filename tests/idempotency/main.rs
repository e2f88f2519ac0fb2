//! The public face of the idempotency module, and its stores on real databases.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    clippy::unused_async,
    reason = "tests fail by panicking, and what they call is async whether it waits or not"
)]

mod cancellation;
mod conformance;
mod contention;
mod defects;
mod details;
mod driver;
mod duplicates;
mod edges;
mod events;
mod faults;
mod histories;
mod http;
mod kill_postgres;
mod kill_sqlite;
mod leases;
mod operators;
mod outage;
mod postgres;
mod postgres_together;
mod postgres_tx;
mod rebuild;
mod recovery;
mod redis;
mod redis_record;
mod shared;
mod sqlite;
mod sqlite_tx;
mod support;
mod tower;
