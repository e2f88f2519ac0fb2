#![doc = include_str!("../../docs/circuit_breaker.md")]

mod builder;
mod by_hand;
mod cell;
mod config;
mod control;
mod count_window;
mod event;
mod future;
mod handle;
mod keyed;
mod layer;
mod machine;
#[cfg(test)]
mod model;
mod opening;
mod outside;
mod packed;
mod policy;
mod ring;
mod saved;
mod state;
mod streak;
mod time_window;
mod watch;
mod window;

pub use builder::CircuitBreakerBuilder;
pub use config::{
    Abandoned, CircuitBreakerConfig, DEFAULT_ABANDONED, DEFAULT_FAILURE_RATE, DEFAULT_MAX_OPEN_TIME,
    DEFAULT_MAX_PROBE_TIME, DEFAULT_MINIMUM_CALLS, DEFAULT_OPEN_TIME, DEFAULT_SAMPLES, DEFAULT_SUCCESS_RATE,
    DEFAULT_WINDOW, Window,
};
pub use event::{End, Event};
pub use future::ResponseFuture;
pub use handle::{Isolation, Snapshot};
pub use keyed::{CircuitBreakers, CircuitBreakersBuilder};
pub use layer::CircuitBreakerService;
pub use policy::CircuitBreaker;
pub use saved::CircuitBreakerExport;
pub use state::State;
pub use watch::StateChanges;
