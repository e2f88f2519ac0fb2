//! A conformance suite for journals of sagas, a journal that fails on demand, and what proves a saga: that it survives
//! the death of its process anywhere, and that its steps may run twice.

mod conformance;
mod crash;
mod dying;
mod faulty;
mod rerun;

pub use super::fault::Fault;
pub use conformance::conformance;
pub use crash::{Crash, Moment, Run, crash_everywhere};
pub use faulty::{Call, Faulty};
pub use rerun::rerun_every_step;
