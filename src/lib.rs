//! front page
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod backoff;
mod event;
mod guard;
mod outcome;
mod random;
mod rejected;

#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "timeout")]
pub mod timeout;

pub use backoff::{Backoff, DEFAULT_FACTOR, DEFAULT_MAX_DELAY, Delays, Jitter};
pub use outcome::{AnyError, BoxedErrors, ByError, Classify, Erased, ErrorPredicate, OutcomeFn, Verdict};
pub use rejected::{ConfigError, Error, Rejected, RejectedKind};
