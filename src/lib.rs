//! front page
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "retry", feature = "timeout", feature = "fallback")),
    allow(
        dead_code,
        reason = "the kernel serves every pattern, and no one of them uses all of it"
    )
)]

mod backoff;
mod event;
mod guard;
mod outcome;
mod random;
mod rejected;

#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "timeout")]
pub mod timeout;

pub use backoff::{Backoff, DEFAULT_FACTOR, DEFAULT_MAX_DELAY, Delays, Jitter};
pub use outcome::{
    AnyError, BoxedErrors, ByError, Classify, Erased, ErrorPredicate, ExchangeErrors, OutcomeFn, Verdict,
};
pub use rejected::{ConfigError, Error, Rejected, RejectedKind};
