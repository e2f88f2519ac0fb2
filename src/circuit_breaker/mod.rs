//! Stops calling a dependency that fails, until a probe succeeds.

mod cell;
mod count_window;
mod machine;
#[cfg(test)]
mod model;
mod packed;
mod streak;
mod time_window;
mod window;

pub use machine::State;
