#![doc = include_str!("../../docs/fallback.md")]

mod builder;
mod event;
mod future;
mod layer;
mod policy;
mod recover;

pub use builder::FallbackBuilder;
pub use event::{Event, Outcome};
pub use future::ResponseFuture;
pub use layer::FallbackService;
pub use policy::{EveryError, Failures, Fallback};
pub use recover::{
    ErasedHandler, FromError, FromErrorAsync, FromOutcome, FromRequest, Oneshot, OtherService, Recover, Value,
};
