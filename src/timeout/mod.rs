#![doc = include_str!("../../docs/timeout.md")]

mod config;
mod event;
mod future;
mod layer;
mod policy;

pub use config::TimeoutConfig;
pub use event::Event;
pub use future::ResponseFuture;
pub use layer::{RequestTimeoutLayer, RequestTimeoutService, TimeoutService};
pub use policy::Timeout;
