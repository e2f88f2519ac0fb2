//! A conformance suite for journals of sagas, and a journal that fails on demand.

mod conformance;
mod faulty;

pub use super::fault::Fault;
pub use conformance::conformance;
pub use faulty::{Call, Faulty};
