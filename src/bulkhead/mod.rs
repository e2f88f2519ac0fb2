#![doc = include_str!("../../docs/bulkhead.md")]

mod admission;
mod builder;
mod config;
mod event;
mod future;
mod handle;
mod keyed;
mod layer;
mod permit;
mod policy;
mod queue;
mod semaphore;
mod wait;

pub use builder::BulkheadBuilder;
pub use config::{BulkheadConfig, DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_QUEUED};
pub use event::Event;
pub use future::ResponseFuture;
pub use handle::Snapshot;
pub use keyed::{Bulkheads, BulkheadsBuilder};
pub use layer::{BulkheadService, WeightedLayer};
pub use permit::{Acquire, Permit};
pub use policy::Bulkhead;
