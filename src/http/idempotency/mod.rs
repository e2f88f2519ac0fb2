#![doc = include_str!("../../../docs/idempotency_http.md")]

mod body;
mod fingerprint;
mod future;
mod gate;
mod key;
pub(super) mod layer;
mod once;
mod problem;
mod rules;
mod stored;
mod tombstone;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::{DEFAULT_REQUEST_LIMIT, IdempotencyLayer, IdempotencyService};
pub use problem::DEFAULT_PROBLEM_TYPES;
pub use tombstone::Tombstone;

/// An extension of a response: its body is to reach the client while it is made.
///
/// A body that is stored is read to its end before the client gets any of it. One with this extension, of the content
/// type `text/event-stream`, or after 101, is passed on as it comes, and leaves no more than a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming;
