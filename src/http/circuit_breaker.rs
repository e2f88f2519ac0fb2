//! The HTTP preset of the circuit breaker.

use std::borrow::Cow;

use http::StatusCode;

use super::classify::{ByErrorStatus, ByGrpcStatus, ByStatus};
use crate::Verdict;
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};

/// A circuit breaker for HTTP: one for each host, under the name that events and errors call it.
///
/// A [`CircuitBreakerBuilder`] with its defaults that judges responses [by status](ByStatus): 429, 408 and every 5xx is
/// a failure, and a 404 is a success of a server that is well. A call is judged when the head of its response has come,
/// and ends there.
///
/// [`use_retry_after`](CircuitBreakerBuilder::use_retry_after) stays open for as long as the server's `Retry-After` asks.
///
/// # Examples
///
/// ```
/// use ::http::{Response, StatusCode};
/// use steadfast::{Rejected, RejectedKind, http};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = http::circuit_breaker("payments").consecutive_failures(3).build()?;
/// let overloaded = || async {
///     let mut response = Response::new(());
///     *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
///     Ok::<_, Rejected>(response)
/// };
/// for _ in 0..3 {
///     assert_eq!(breaker.call(overloaded()).await?.status(), StatusCode::SERVICE_UNAVAILABLE);
/// }
/// let rejected = breaker.call(overloaded()).await.unwrap_err();
/// assert_eq!(rejected.kind(), RejectedKind::CircuitOpen);
/// # Ok(())
/// # }
/// ```
///
/// As a layer around a client, whose error is wrapped once, innermost:
///
/// ```
/// use steadfast::{Error, http};
/// use tower::ServiceBuilder;
///
/// # fn main() -> Result<(), steadfast::ConfigError> {
/// let breaker = http::circuit_breaker("payments").build()?;
/// let client = ServiceBuilder::new()
///     .layer(breaker.clone())
///     .map_err(Error::Inner)
///     .service(reqwest::Client::new());
/// # let _ = tower::ServiceExt::<reqwest::Request>::map_err(client, |error| error);
/// # Ok(())
/// # }
/// ```
pub fn circuit_breaker(name: impl Into<Cow<'static, str>>) -> CircuitBreakerBuilder<ByStatus> {
    CircuitBreaker::builder(name).classifier(ByStatus::default())
}

/// Settings of a circuit breaker for HTTP.
impl<D> CircuitBreakerBuilder<ByStatus<D>> {
    /// Judges `status` as `verdict`: see [`ByStatus::treat`].
    pub fn treat(self, status: StatusCode, verdict: Verdict) -> Self {
        self.map_classifier(|by_status| by_status.treat(status, verdict))
    }

    /// Judges errors alone, for calls that read the body as well: see [`ByErrorStatus`].
    pub fn any_response(self) -> CircuitBreakerBuilder<ByErrorStatus<D>> {
        self.map_classifier(ByErrorStatus::over)
    }

    /// Judges gRPC responses: see [`ByGrpcStatus`].
    pub fn grpc(self) -> CircuitBreakerBuilder<ByGrpcStatus<D>> {
        self.map_classifier(ByGrpcStatus::over)
    }
}
