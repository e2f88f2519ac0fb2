#![doc = include_str!("../../docs/idempotency.md")]

mod attempt;
mod builder;
mod calls;
mod claim;
mod coalesce;
mod codec;
mod disposition;
mod drive;
mod encoding;
mod event;
mod execute;
mod fingerprint;
mod flight;
mod hook;
mod inside;
mod layer;
mod leading;
mod operator;
mod policy;
#[cfg(feature = "postgres")]
mod postgres_tx;
mod rebuild;
mod record;
mod recover;
#[cfg(feature = "sqlite")]
mod sqlite_tx;
pub mod store;

pub use attempt::Attempt;
pub use builder::{
    DEFAULT_MAX_OUTCOME, DEFAULT_MAX_RENEWAL, DEFAULT_MAX_WAITERS, DEFAULT_RETENTION, DEFAULT_STORE_TIMEOUT,
    IdempotencyBuilder,
};
pub use codec::Sealer;
pub use disposition::{Decide, DecideFn, Disposition, ErasedDecision};
pub use drive::Source;
#[cfg(feature = "http")]
pub(crate) use drive::{Driven, Keyed, Settlement};
pub use encoding::{Codec, Json};
pub use event::{Event, EventKind};
pub use execute::Executed;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use hook::{Hook, NoHook};
#[cfg(feature = "http")]
pub(crate) use inside::called_from_here;
pub use layer::{IdempotencyLayer, IdempotencyService, ResponseFuture};
pub use policy::Idempotency;
#[cfg(feature = "http")]
pub(crate) use policy::Policy;
pub use rebuild::Unreadable;
pub use recover::{Interruption, Recovery};
pub use store::memory::{DEFAULT_MAX_RECORDS, MemoryStore};
#[cfg(feature = "postgres")]
pub use store::postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use store::redis::{DEFAULT_REDIS_PREFIX, RedisStore};
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStore;
