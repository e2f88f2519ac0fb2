//! What proves a store or a journal of your own, and how a program bears one that fails. For dev-dependencies.

mod check;
mod fault;
pub mod idempotency;
#[cfg(feature = "saga")]
pub mod saga;
