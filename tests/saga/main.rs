//! The public face of the saga module.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "tests fail by panicking"
)]

mod admin;
mod conformance;
mod defects;
mod definition;
mod durable;
mod engine;
mod kill;
mod kill_postgres;
mod kill_sqlite;
mod memory;
mod outage;
mod postgres;
mod processes;
mod proving;
mod random;
mod simulation;
mod sqlite;
mod sqlite_tx;
#[path = "../idempotency/support/mod.rs"]
mod support;
mod tower;
mod world;
