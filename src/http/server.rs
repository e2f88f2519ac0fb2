//! Policies around servers that cannot fail.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::not_executed::NotExecuted;
use super::retry_after::whole_seconds;
use crate::poll::polled_after_completion;
use crate::{Rejected, RejectedKind};

/// Fits `layer` around a server whose error is `Infallible`, as axum wants it.
///
/// Inside, the error type is [`Rejected`]. Outside, every rejection is a response: 504 for what timed out, 503 for an
/// open circuit, a full bulkhead or a queue that took too long, with `Retry-After` where the policy knows, and one line
/// of plain text that tells nothing of the inside. What was refused before the handler was called has the extension
/// [`NotExecuted`]. [`status`](Server::status) maps a kind to another status (429), [`respond`](Server::respond) makes
/// the whole response.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use steadfast::{http, timeout::Timeout};
///
/// let app: Router = Router::new()
///     .route("/slow", get(|| std::future::pending::<String>()))
///     .layer(http::server(Timeout::new(Duration::from_secs(2))));
/// ```
pub fn server<L>(layer: L) -> Server<L> {
    Server {
        layer,
        respond: ByKind { statuses: Vec::new() },
    }
}

/// A layer around a server that cannot fail; made by [`server`].
#[derive(Clone, Debug)]
pub struct Server<L, R = ByKind> {
    layer: L,
    respond: R,
}

/// Makes the response for a rejection. A function `Fn(Rejected) -> Response<B>` is one.
pub trait Respond<B> {
    /// The response.
    fn respond(&self, rejected: Rejected) -> Response<B>;
}

impl<B, F: Fn(Rejected) -> Response<B>> Respond<B> for F {
    fn respond(&self, rejected: Rejected) -> Response<B> {
        self(rejected)
    }
}

/// Responds with a status for the kind of rejection, and one line of plain text.
#[derive(Clone, Debug)]
pub struct ByKind {
    statuses: Vec<(RejectedKind, StatusCode)>,
}

impl<B: From<Bytes>> Respond<B> for ByKind {
    fn respond(&self, rejected: Rejected) -> Response<B> {
        let kind = rejected.kind();
        let mapped = self.statuses.iter().find(|(known, _)| *known == kind);
        let by_default = match kind {
            RejectedKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            RejectedKind::InProgress
            | RejectedKind::OutcomeUnknown
            | RejectedKind::KeyCancelled
            | RejectedKind::NotReplayable => StatusCode::CONFLICT,
            RejectedKind::KeyMismatch | RejectedKind::NoFingerprint => StatusCode::UNPROCESSABLE_ENTITY,
            RejectedKind::NotStorable => StatusCode::INTERNAL_SERVER_ERROR,
            RejectedKind::CircuitOpen
            | RejectedKind::BulkheadFull
            | RejectedKind::QueueTimedOut
            | RejectedKind::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        // Nothing of the inside: the name of the policy is for our own logs.
        let text: &[u8] = match kind {
            RejectedKind::TimedOut => b"no answer in time\n",
            _ => b"not available at the moment\n",
        };
        let mut response = Response::new(B::from(Bytes::from_static(text)));
        *response.status_mut() = mapped.map_or(by_default, |(_, status)| *status);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(retry_after) = rejected.retry_after() {
            headers.insert(RETRY_AFTER, whole_seconds(retry_after).into());
        }
        response
    }
}

impl<L> Server<L> {
    /// Responds with `status` to rejections of this kind.
    #[must_use]
    pub fn status(mut self, kind: RejectedKind, status: StatusCode) -> Self {
        self.respond.statuses.retain(|(known, _)| *known != kind);
        self.respond.statuses.push((kind, status));
        self
    }

    /// Responds with what `respond` makes of the rejection.
    pub fn respond<B, F>(self, respond: F) -> Server<L, F>
    where
        F: Fn(Rejected) -> Response<B>,
    {
        Server {
            layer: self.layer,
            respond,
        }
    }
}

impl<S, L, R> Layer<S> for Server<L, R>
where
    L: Layer<Fallible<S>>,
    R: Clone,
{
    type Service = ServerService<L::Service, R>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner: self.layer.layer(Fallible { inner }),
            respond: self.respond.clone(),
            parked: None,
        }
    }
}

/// A server that cannot fail, as one that could: what the layer inside [`server`] sees.
#[derive(Clone, Debug)]
pub struct Fallible<S> {
    inner: S,
}

impl<S, Req> Service<Req> for Fallible<S>
where
    S: Service<Req, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Rejected;
    type Future = FallibleFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx).map_err(|never| match never {})
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        FallibleFuture {
            inner: self.inner.call(request),
        }
    }
}

/// The future of a [`Fallible`] service.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct FallibleFuture<F> {
    #[pin]
    inner: F,
}

impl<F, T> Future for FallibleFuture<F>
where
    F: Future<Output = Result<T, Infallible>>,
{
    type Output = Result<T, Rejected>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx).map_err(|never| match never {})
    }
}

/// A server under a layer, whose rejections are responses.
#[derive(Debug)]
pub struct ServerService<S, R = ByKind> {
    inner: S,
    respond: R,
    /// A rejection of the inner `poll_ready`, for the next call.
    parked: Option<Rejected>,
}

impl<S, R, Req, B> Service<Req> for ServerService<S, R>
where
    S: Service<Req, Response = Response<B>, Error = Rejected>,
    R: Respond<B> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = ServerFuture<S::Future, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.parked.is_none() {
            self.parked = ready!(self.inner.poll_ready(cx)).err();
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let state = match self.parked.take() {
            Some(rejected) => State::Rejected {
                rejected: Some(rejected),
            },
            None => State::Called {
                future: self.inner.call(request),
            },
        };
        ServerFuture {
            state,
            respond: self.respond.clone(),
        }
    }
}

/// A clone has nothing parked.
impl<S: Clone, R: Clone> Clone for ServerService<S, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            respond: self.respond.clone(),
            parked: None,
        }
    }
}

/// The future of a [`ServerService`].
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ServerFuture<F, R> {
    #[pin]
    state: State<F>,
    respond: R,
}

#[pin_project(project = StateProjection)]
enum State<F> {
    Called {
        #[pin]
        future: F,
    },
    Rejected {
        rejected: Option<Rejected>,
    },
}

impl<F, R, B> Future for ServerFuture<F, R>
where
    F: Future<Output = Result<Response<B>, Rejected>>,
    R: Respond<B>,
{
    type Output = Result<Response<B>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state.project() {
            StateProjection::Called { future } => ready!(future.poll(cx)),
            StateProjection::Rejected { rejected } => match rejected.take() {
                Some(rejected) => Err(rejected),
                None => return polled_after_completion("server"),
            },
        };
        Poll::Ready(Ok(result.unwrap_or_else(|rejected| {
            let reached_inner = rejected.reached_inner();
            let mut response = this.respond.respond(rejected);
            if !reached_inner {
                response.extensions_mut().insert(NotExecuted);
            }
            response
        })))
    }
}

impl<F, R> fmt::Debug for ServerFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(rejected: Rejected) -> Response<Bytes> {
        ByKind { statuses: Vec::new() }.respond(rejected)
    }

    #[test]
    fn each_kind_has_its_status() {
        let second = Duration::from_secs(1);
        for (rejected, status, retry_after, text) in [
            (Rejected::timed_out("x", second), 504, None, "no answer in time\n"),
            (
                Rejected::circuit_open("x", second),
                503,
                Some("1"),
                "not available at the moment\n",
            ),
            (Rejected::bulkhead_full("x"), 503, None, "not available at the moment\n"),
            (
                Rejected::queue_timed_out("x", second),
                503,
                None,
                "not available at the moment\n",
            ),
        ] {
            let line = rejected.to_string();
            let response = answer(rejected);
            assert_eq!(response.status(), status, "{line}");
            let header = response.headers().get(RETRY_AFTER);
            assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after, "{line}");
            assert_eq!(response.into_body(), text);
        }
    }

    #[test]
    fn the_time_until_a_retry_is_rounded_up_at_any_size() {
        for (retry_after, header) in [
            (Duration::ZERO, "0"),
            (Duration::from_nanos(1), "1"),
            (Duration::from_millis(1_500), "2"),
            (Duration::from_secs(2), "2"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            let response = answer(Rejected::circuit_open("x", retry_after));
            assert_eq!(response.headers()[RETRY_AFTER], header);
        }
    }
}
