//! One effect per key: an operation runs once, and whoever repeats it gets the outcome of the first.

mod builder;
mod codec;
mod disposition;
mod event;
mod fingerprint;
mod policy;
mod record;
pub mod store;

pub use builder::{
    DEFAULT_MAX_OUTCOME, DEFAULT_MAX_RENEWAL, DEFAULT_MAX_WAITERS, DEFAULT_RETENTION, DEFAULT_STORE_TIMEOUT,
    IdempotencyBuilder,
};
pub use codec::Sealer;
pub use disposition::{Decide, DecideFn, Disposition, ErasedDecision};
pub use event::{Event, EventKind};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use policy::Idempotency;
pub use store::memory::{DEFAULT_MAX_RECORDS, MemoryStore};
