//! The machine of a saga: a fold of events, and a decision. No clock, no futures, nothing but what was written down.

mod decide;
#[cfg(test)]
mod fold;
#[cfg(test)]
mod model;
mod operate;
mod state;
#[cfg(test)]
mod table;

pub(crate) use decide::{Circumstances, Next, Stop, decide, unresolved};
pub use operate::Refusal;
pub(crate) use state::{Direction, State};
