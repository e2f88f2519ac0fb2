//! The HTTP preset of the retry: which requests may be sent again.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use super::classify::{ByErrorStatus, ByGrpcStatus, ByStatus};
use super::head::{HttpRequest, RequestHead, Sendable};
use super::idempotency_key::IDEMPOTENCY_KEY;
use crate::Verdict;
use crate::rejected::find;
use crate::retry::{Cause, Replay, Retry, RetryBudget, RetryBuilder};

/// The longest body that is kept for a retry: 64 KiB. It is memory for every request under way.
pub const DEFAULT_BODY_LIMIT: usize = 64 * 1024;

/// A retry for HTTP requests.
///
/// A [`RetryBuilder`] with its defaults, and: responses are judged [by status](ByStatus), the waits follow
/// `Retry-After`, the bodies are kept up to 64 KiB, the retries are paid from a [`RetryBudget`] of its own, and what is
/// not safe to repeat is not repeated.
///
/// Repeated are requests whose method is idempotent by RFC 9110 (GET, HEAD, OPTIONS, TRACE, PUT, DELETE), those with an
/// `Idempotency-Key`, and those that were never sent: the error is a rejection of ours that did not reach the client,
/// or says so by [`not_sent_if`](RetryBuilder::not_sent_if). Others where
/// [`retry_unsafe`](RetryBuilder::retry_unsafe) allows it. Where a retry would have happened and does not, the event
/// says [`NotReplayable`](crate::retry::StopReason::NotReplayable).
///
/// The rules hold in the Tower face, which sees the request. In the plain face it is you who says, by calling it, that
/// the operation may be repeated.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use steadfast::http;
/// use steadfast::timeout::Timeout;
/// use steadfast::Error;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ServiceBuilder::new()
///     .layer(http::retry().name("catalogue").build()?)
///     .layer(Timeout::attempt(Duration::from_secs(2)))
///     .map_err(Error::Inner)
///     .service(reqwest::Client::new());
///
/// let request = reqwest::Request::new(reqwest::Method::GET, "http://localhost:8080/books".parse()?);
/// let books = client.oneshot(request).await?;
/// # Ok(())
/// # }
/// ```
pub fn retry() -> RetryBuilder<ByStatus, HttpReplay> {
    Retry::builder()
        .name("http retry")
        .classifier(ByStatus::default())
        .budget(&RetryBudget::default())
        .replay(HttpReplay {
            body_limit: DEFAULT_BODY_LIMIT,
            not_sent: None,
            allowed: None,
        })
}

type ErrorTest = dyn Fn(&(dyn StdError + 'static)) -> bool + Send + Sync;
type HeadTest = dyn Fn(RequestHead<'_>) -> bool + Send + Sync;

/// Keeps HTTP requests, and says which may be sent again; made by [`retry`].
#[derive(Clone)]
pub struct HttpReplay {
    body_limit: usize,
    not_sent: Option<Arc<ErrorTest>>,
    allowed: Option<Arc<HeadTest>>,
}

impl HttpReplay {
    fn is_safe(&self, head: RequestHead<'_>, cause: &Cause<'_>) -> bool {
        head.method().is_idempotent()
            || head.headers().contains_key(IDEMPOTENCY_KEY)
            || !cause.may_have_been_sent
            || matches!((&self.not_sent, cause.error), (Some(never), Some(error)) if never(error))
            || self.allowed.as_ref().is_some_and(|allowed| allowed(head))
    }
}

impl<Req: HttpRequest> Replay<Req> for HttpReplay {
    type Sent = Req::Sent;

    fn accept(&self, request: Req) -> Req::Sent {
        request.into_sent(self.body_limit)
    }

    fn copy(&self, request: &Req::Sent) -> Option<Req::Sent> {
        request.copy()
    }

    fn allows(&self, kept: &Req::Sent, cause: &Cause<'_>) -> bool {
        kept.can_be_sent() && self.is_safe(kept.head(), cause)
    }
}

/// Settings of an HTTP retry.
impl<C> RetryBuilder<C, HttpReplay> {
    /// The longest body that is kept, in bytes; a longer one is streamed once and not retried. Default: 64 KiB.
    ///
    /// `reqwest` keeps the bodies itself: there the limit has no effect.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.replay_mut().body_limit = bytes;
        self
    }

    /// Says by the client's error that nothing was sent, so that any request may be sent again.
    ///
    /// Mostly `|error: &reqwest::Error| error.is_connect()`, or the same of hyper-util's, or for tonic
    /// `|_: &tonic::ConnectError| true`. The error is looked for along the sources of the attempt's.
    ///
    /// It is not the default, because only you know that it is true. `reqwest` follows redirects within an attempt, and
    /// its error does not tell: a POST that was answered by a redirect to where nobody listens looks like one that was
    /// never sent. Give such a client `redirect::Policy::none()` first.
    pub fn not_sent_if<E: StdError + 'static>(mut self, never: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.replay_mut().not_sent = Some(Arc::new(move |error| find::<E>(error).is_some_and(&never)));
        self
    }

    /// Says which requests may be sent again although their method is not idempotent.
    pub fn retry_unsafe(mut self, allowed: impl Fn(RequestHead<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.replay_mut().allowed = Some(Arc::new(allowed));
        self
    }
}

impl<D> RetryBuilder<ByStatus<D>, HttpReplay> {
    /// Judges `status` as `verdict`: see [`ByStatus::treat`].
    pub fn treat(self, status: StatusCode, verdict: Verdict) -> Self {
        self.map_classifier(|by_status| by_status.treat(status, verdict))
    }

    /// Judges errors alone, for calls that read the body as well: see [`ByErrorStatus`].
    pub fn any_response(self) -> RetryBuilder<ByErrorStatus<D>, HttpReplay> {
        self.map_classifier(ByErrorStatus::over)
    }

    /// Judges gRPC responses: see [`ByGrpcStatus`]. Every gRPC call is a POST: say with
    /// [`retry_unsafe`](Self::retry_unsafe) which may be repeated.
    pub fn grpc(self) -> RetryBuilder<ByGrpcStatus<D>, HttpReplay> {
        self.map_classifier(ByGrpcStatus::over)
    }
}

impl fmt::Debug for HttpReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpReplay")
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}
