//! A conformance suite for stores of idempotency records, and a store that fails on demand.

mod conformance;
mod faulty;

pub use super::fault::Fault;
pub use conformance::conformance;
pub use faulty::{Call, Faulty};
