//! What proves a store of your own, and how a program bears one that fails. For dev-dependencies.

pub mod idempotency;
