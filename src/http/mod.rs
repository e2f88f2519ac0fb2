#![doc = include_str!("../../docs/http.md")]

#[cfg(any(feature = "circuit-breaker", feature = "bulkhead"))]
mod authority;
mod body;
#[cfg(feature = "circuit-breaker")]
mod circuit_breaker;
mod classify;
mod client;
mod head;
#[cfg(feature = "idempotency")]
pub mod idempotency;
mod idempotency_key;
mod not_executed;
mod replay;
mod retry_after;
mod server;
mod tape;

#[cfg(any(feature = "circuit-breaker", feature = "bulkhead"))]
pub use authority::{ByAuthority, HasAuthority, authority};
pub use body::ReplayBody;
#[cfg(feature = "circuit-breaker")]
pub use circuit_breaker::circuit_breaker;
#[cfg(feature = "fallback")]
pub use classify::fallback;
pub use classify::{ByErrorStatus, ByGrpcStatus, ByStatus};
pub use head::{HttpRequest, HttpResponse, RequestHead, Sendable};
#[cfg(feature = "idempotency")]
pub use idempotency::layer::idempotency;
pub use idempotency_key::{HasHeaders, IdempotencyKeyLayer, IdempotencyKeyService, idempotency_key};
pub use not_executed::NotExecuted;
pub use replay::{DEFAULT_BODY_LIMIT, HttpReplay, retry};
pub use retry_after::retry_after;
pub use server::{ByKind, Fallible, FallibleFuture, Respond, Server, ServerFuture, ServerService, server};
