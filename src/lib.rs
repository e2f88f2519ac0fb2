//! Resilience patterns for async Rust: each one a plain value, called around a future or handed to Tower.
//!
//! ```
//! use std::time::Duration;
//! use steadfast::{Rejected, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker};
//! use steadfast::{fallback::Fallback, retry::Retry, timeout::Timeout};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(Debug, thiserror::Error)]
//! enum ApiError {
//!     #[error("out of stock")]
//!     OutOfStock,
//!     #[error(transparent)]
//!     Rejected(#[from] Rejected),
//! }
//!
//! async fn price(item: u32) -> Result<u32, ApiError> {
//!     if item == 7 { Err(ApiError::OutOfStock) } else { Ok(3) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fallback = Fallback::value(0);
//! let retry = Retry::exponential(Duration::from_millis(50))
//!     .max_attempts(4)
//!     .retry_if(|error: &ApiError| !matches!(error, ApiError::OutOfStock))
//!     .build()?;
//! let breaker = CircuitBreaker::builder("prices")
//!     .failure_if(|error: &ApiError| !matches!(error, ApiError::OutOfStock))
//!     .build()?;
//! let lanes = Bulkhead::builder("prices").max_concurrent(32).build()?;
//! let timeout = Timeout::attempt(Duration::from_millis(250));
//!
//! // plain: read from the inside out; one error type, your own
//! let by_call = fallback.call(retry.call(|| breaker.call(lanes.call(timeout.call(price(1)))))).await?;
//!
//! // Tower: the same values, the same state; read from top to bottom
//! let service = ServiceBuilder::new()
//!     .layer(fallback)
//!     .layer(retry)
//!     .layer(breaker.clone())
//!     .layer(lanes)
//!     .layer(timeout)
//!     .service(service_fn(price));
//! let by_service = service.oneshot(1).await?;
//! assert_eq!(by_call, by_service);
//! assert_eq!(breaker.snapshot().calls, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Patterns
//!
//! | module | what it does |
//! |---|---|
#![cfg_attr(
    feature = "retry",
    doc = "| [`retry`] | tries again, with jittered backoff, server hints and a budget |"
)]
#![cfg_attr(
    feature = "circuit-breaker",
    doc = "| [`circuit_breaker`] | stops calling a dependency that fails, until a probe succeeds |"
)]
#![cfg_attr(
    feature = "bulkhead",
    doc = "| [`bulkhead`] | limits how many calls run at once, with a bounded queue |"
)]
#![cfg_attr(feature = "timeout", doc = "| [`timeout`] | limits how long a call may take |")]
#![cfg_attr(feature = "fallback", doc = "| [`fallback`] | answers for a call that failed |")]
#![cfg_attr(
    feature = "idempotency",
    doc = "| [`idempotency`] | one effect per key, on memory, SQLite, PostgreSQL and Redis |"
)]
#![cfg_attr(
    feature = "saga",
    doc = "| [`saga`] | steps that are undone when a later one fails |"
)]
#![cfg_attr(
    feature = "http",
    doc = "| [`http`] | presets for HTTP and gRPC clients, and for servers |"
)]
#![cfg_attr(
    any(feature = "circuit-breaker", feature = "bulkhead"),
    doc = "| [`keyed`] | a circuit breaker or a bulkhead for each host, tenant or endpoint |"
)]
//!
//! # In which order
//!
//! From the outside in: fallback, total timeout, retry, circuit breaker, bulkhead, attempt timeout, the call.
//!
//! - The **fallback** answers for everything inside it.
//! - A **total timeout** outside of the retry bounds the whole, but hides the last error: prefer `max_elapsed`, and set
//!   the timeout a little above it.
//! - The **retry** is outside of the breaker, so that each attempt is counted and none is made while it is open: what the
//!   breaker rejects is not tried again. It is outside of the bulkhead, so that no permit is held during a wait.
//! - The **breaker** is outside of the bulkhead: what it rejects waits in no queue and takes no permit. That the bulkhead
//!   is full is our doing and says nothing of the dependency, so the breaker does not count it.
//! - The **bulkhead** is outside of the attempt timeout: the wait in its queue has its own limit, `max_wait`. Under the
//!   timeout it would count as a failure of the dependency, which was never called.
//! - The **attempt timeout** is innermost, so that each attempt has its own, and so that the breaker sees a call that
//!   hangs as one that failed.
//!
//! # One error type
//!
//! A policy that refuses a call does so with a [`Rejected`], inside your own error type: a variant with
//! `#[from] Rejected` is all it takes. [`Error`] wraps a foreign error that has no such variant; boxed errors and
//! `anyhow` take it as they are. A stack of any depth therefore has one flat error type, and [`Rejected::find`] tells
//! a refusal from a failure.
//!
//! What a result means is a [`Verdict`]. [`ByError`] finds it: every standard error is transient, but for a rejection and
//! six kinds of `io::Error`. Closures in the builders (`retry_if`, `classify`) or your own [`Classify`] say otherwise.
//!
//! Keep `#[error(transparent)]` for the `Rejected`. It hides the type of what it holds, and what is to be found in an
//! error (an `io::Error`, a `reqwest::Error`) is not found then: write `#[error("the price service: {0}")]` there.
//!
//! A policy for a field of a struct is `retry.erased()`: its type names the result and no closure. `call` borrows the
//! policy; a spawned task takes a clone along.
//!
//! # What the compiler says
//!
//! | it says | what to do |
//! |---|---|
//! | `ByError` cannot judge a `Result<_, anyhow::Error>` | `.boxed_errors()` in the builder; for a type that is no error `.any_error()` |
//! | `ByError` cannot decide what becomes of a `Result<_, anyhow::Error>`, under an idempotency policy | `.boxed_errors()` in the builder; for a type that is no error `.any_error()` |
//! | `From<Rejected>` is not implemented for your error | give it a variant with `#[from] Rejected`, or wrap it innermost: `.map_err(Error::Inner)`, in a plain call `async { call.await.map_err(Error::Inner) }` |
//! | `ByClone` cannot keep a request of this type | `retry.replay(..)`; for HTTP requests the preset `http::retry()` |
//! | `Clone` is not implemented for `BoxService`, under a breaker or a bulkhead | `BoxCloneService` or tower's `Buffer`: they need a clone of the service inside for who comes after a rejection |
//! | `reqwest`'s `Response` is no HTTP response, or `HttpReplay` cannot keep its `Request` | the feature `reqwest-0_13` or `reqwest-0_12`, whichever yours is |
//! | `String` is no HTTP response | `error_for_status()?` in the operation, `.any_response()` in the builder |
//! | the method `oneshot` (`call`, `ready`) exists, but its trait bounds were not satisfied | one of those above: `ServiceExt::<Request>::oneshot(service, request)`, with the request's type written out, shows which |
//! | the method `service` exists, but `RetryBuilder` (`CircuitBreakerBuilder`, `BulkheadBuilder`) is no `Layer` | `.build()?` |
//! | the breaker (bulkhead, retry) does not live long enough, in `tokio::spawn` | move a clone in: `async move { breaker.call(..).await }` |
//! | `From<Rejected>` is not implemented for `Infallible` | put the layer into `http::server(..)` |
//! | expected `Request<Full<Bytes>>`, found `Request<ReplayBody<..>>` | make hyper's client with `build_http::<ReplayBody<Full<Bytes>>>()` |
//!
//! # Features
//!
//! | feature | default | what it gives | what it costs |
//! |---|---|---|---|
//! | `retry`, `circuit-breaker`, `bulkhead`, `timeout`, `fallback` | yes | the module of that name | nothing |
//! | `http` | no | the module of that name | `http`, `http-body`, `bytes`, `httpdate` |
//! | `idempotency` | no | the module of that name, in memory | `serde`, `serde_json`, `bytes`, `sha2`, `hmac` |
//! | `sqlite`, `sqlite-bundled` | no | durable state in SQLite files: of the system's SQLite, or of one compiled in | `rusqlite`, a C compiler |
//! | `postgres` | no | durable state in PostgreSQL | `tokio-postgres`, `deadpool-postgres` |
//! | `redis` | no | idempotency on Redis | `redis` |
//! | `saga` | no | the module of that name | what `idempotency` costs |
//! | `testing` | no | the conformance suite for stores, and a store that fails on demand | nothing; for tests |
//! | `reqwest-0_12`, `reqwest-0_13` | no | `http` knows that client's types | that client, without its features |
//! | `serde` | no | configurations from a file: `RetryConfig`, `CircuitBreakerConfig`, `BulkheadConfig`, `TimeoutConfig` | `serde` with its derive, `humantime` |
//! | `metrics` | no | counters through the `metrics` facade | the facade |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "retry",
        feature = "circuit-breaker",
        feature = "bulkhead",
        feature = "timeout",
        feature = "fallback"
    )),
    allow(
        dead_code,
        reason = "the kernel serves every pattern, and no one of them uses all of it"
    )
)]

mod backoff;
mod clock;
#[cfg(feature = "serde")]
mod config;
mod curve;
mod error;
mod event;
mod guard;
#[cfg(test)]
mod histories;
mod judgement;
mod outcome;
mod poll;
mod random;
#[cfg(any(feature = "bulkhead", feature = "timeout"))]
mod rare;
mod rejected;
#[cfg(any(feature = "retry", feature = "circuit-breaker", feature = "bulkhead"))]
mod sync;

#[cfg(feature = "bulkhead")]
pub mod bulkhead;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "idempotency")]
pub mod idempotency;
#[cfg(any(feature = "circuit-breaker", feature = "bulkhead"))]
pub mod keyed;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "saga")]
pub mod saga;
#[cfg(any(feature = "idempotency", feature = "saga"))]
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "timeout")]
pub mod timeout;

pub use backoff::{Backoff, DEFAULT_FACTOR, DEFAULT_MAX_DELAY, Delays, Jitter};
pub use error::{ConfigError, Error};
pub use judgement::{Erased, ErrorPredicate, OutcomeFn};
pub use outcome::{AnyError, BoxedErrors, ByError, Classify, Effect, ExchangeErrors, Verdict};
pub use rejected::{Rejected, RejectedKind};
#[cfg(any(feature = "idempotency", feature = "saga"))]
pub use storage::key::{InvalidKeyId, Key, KeyId};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
