//! The driver: what becomes of a request under a key.
//!
//! ```text
//!  the connection's task                      a task of its own
//!
//!  read the body --> spawn ................>  claim --> handler --> read its response --> store
//!                    wait for the answer  <.............................................../
//! ```
//!
//! A client that leaves drops the left side. If the handler has begun by then it goes on, and its response is there when
//! the client asks again.

use std::error::Error;
use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use pin_project::pin_project;
use tower_service::Service;
use tracing::Instrument;

use super::body::{Read, ResponseBody, Tail};
use super::gate::Gate;
use super::once::{Work, once};
use super::problem::Problem;
use super::rules::Rules;
use crate::Key;
use crate::idempotency::called_from_here;
use crate::poll::polled_after_completion;

pub(super) type Answered<R, E> = Result<Response<ResponseBody<R>>, E>;

/// The future of an [`IdempotencyService`](super::IdempotencyService).
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<F, R: Body, E>(#[pin] Way<F, R, E>);

#[pin_project(project = WayProjection)]
enum Way<F, R: Body, E> {
    /// The request is not under a key. `None` once it has its response: nothing below is held any longer.
    Passed(#[pin] Option<F>),
    Keyed(Pin<Box<dyn Future<Output = Answered<R, E>> + Send>>),
}

impl<F, R: Body, E> ResponseFuture<F, R, E> {
    pub(super) fn passed(call: F) -> Self {
        Self(Way::Passed(Some(call)))
    }

    pub(super) fn keyed(call: impl Future<Output = Answered<R, E>> + Send + 'static) -> Self {
        Self(Way::Keyed(Box::pin(call)))
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Answered<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            WayProjection::Passed(mut passed) => {
                let Some(call) = passed.as_mut().as_pin_mut() else {
                    return polled_after_completion("idempotency");
                };
                let result = ready!(call.poll(cx));
                passed.set(None);
                Poll::Ready(result.map(|response| response.map(ResponseBody::untouched)))
            }
            WayProjection::Keyed(call) => call.as_mut().poll(cx),
        }
    }
}

/// Reads the request, has it handled elsewhere, and waits for the answer.
pub(super) async fn perform<S, B, R>(
    rules: Arc<Rules>,
    service: S,
    key: Key,
    head: request::Parts,
    body: B,
) -> Answered<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + Send + 'static, Future: Send> + Send + 'static,
    B: Body<Data = Bytes, Error: Send> + From<Bytes> + Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    let types = rules.problem_types.clone();
    let read = Read::up_to(rules.request_limit, body).await;
    let problem = match &read.tail {
        Tail::End(_) => None,
        Tail::Rest(_) => Some(Problem::BodyTooLarge),
        Tail::Broken(_) => Some(Problem::BodyIncomplete),
    };
    if let Some(problem) = problem {
        return Ok(problem.response(&types));
    }
    let gate = Gate::default();
    let once = called_from_here(once(
        rules,
        gate.clone(),
        key,
        Work {
            service,
            head,
            body: read.concat(),
        },
    ));
    let task = tokio::spawn(once.in_current_span());
    match gate.wait(task).await {
        Ok(answered) => answered,
        Err(ended) => match ended.try_into_panic() {
            // Here it reaches whoever catches the panics of handlers.
            Ok(panic) => resume_unwind(panic),
            // The runtime is being shut down.
            Err(_) => Ok(Problem::InProgress {
                retry_after: Duration::ZERO,
            }
            .response(&types)),
        },
    }
}

impl<F, R: Body, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
