#![doc = include_str!("../../docs/fallback.md")]

mod event;
mod future;
mod layer;
mod policy;
mod recover;

pub use event::{Event, Outcome};
pub use future::ResponseFuture;
pub use layer::FallbackService;
pub use policy::{EveryError, Failures, Fallback, FallbackBuilder};
pub use recover::{
    ErasedHandler, FromError, FromErrorAsync, FromOutcome, FromRequest, Oneshot, OtherService, Recover, Value,
};
