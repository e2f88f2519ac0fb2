//! What the keyed sets of every pattern have in common: their layer, and how many keys they keep.
//!
//! The sets are [`CircuitBreakers`] and [`Bulkheads`]: one policy for each host, tenant or endpoint, made on demand from one
//! configuration. The guides of these modules say what they do.
//!
//! [`CircuitBreakers`]: https://docs.rs/steadfast/latest/steadfast/circuit_breaker/struct.CircuitBreakers.html
//! [`Bulkheads`]: https://docs.rs/steadfast/latest/steadfast/bulkhead/struct.Bulkheads.html

mod key;
mod layer;
mod policies;
mod set;
mod shard;
#[cfg(test)]
mod tests;

#[cfg(feature = "http")]
pub(crate) use key::KeyOf;
pub use key::{ByKey, ByRef};
pub(crate) use layer::Admit;
pub use layer::{KeyedLayer, KeyedService};
pub use policies::DEFAULT_MAX_KEYS;
pub(crate) use policies::{Member, Policies};
pub(crate) use set::{Resident, is_only};
