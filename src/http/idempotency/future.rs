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

use std::convert::Infallible;
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
use super::problem::Problem;
use super::rules::{Rules, streams};
use super::stored::{Head, Stored};
use crate::idempotency::{Attempt, Disposition, Driven, Settlement, called_from_here};
use crate::poll::polled_after_completion;
use crate::rejected::Idempotency as Why;
use crate::{Key, KeyId};

type Answered<R, E> = Result<Response<ResponseBody<R>>, E>;

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
    let once = called_from_here(once(rules, gate.clone(), service, key, head, read.concat()));
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

/// Has the request handled once for its key.
async fn once<S, B, R>(
    rules: Arc<Rules>,
    gate: Gate,
    service: S,
    key: Key,
    head: request::Parts,
    body: Bytes,
) -> Answered<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + 'static>,
    B: From<Bytes>,
    R: Body<Data = Bytes>,
{
    let policy = &rules.policy;
    let id = policy.id(&key);
    let fingerprint = rules.fingerprint(&head, &body);
    let operation = async |attempt| {
        if gate.pass() {
            handle(&rules, service, head, body, attempt).await
        } else {
            left(&rules)
        }
    };
    let driven = policy.drive(id, fingerprint, operation, |handled| settle(&rules, id, handled));
    let problem = match driven.await {
        Ok(Driven::Ran { value, .. }) => return value.answered,
        Ok(Driven::Stored { outcome, .. }) => {
            let outcome = policy.codec.read(id, &outcome).ok();
            match outcome.and_then(Stored::read).and_then(Stored::replay) {
                Some(response) => return Ok(response),
                None => Problem::NotReplayable,
            }
        }
        Err(rejected) => Problem::from(&rejected),
    };
    Ok(problem.response(&rules.problem_types))
}

/// What the handler answered, and what that means for the record.
struct Handled<R: Body, E> {
    answered: Answered<R, E>,
    disposition: Disposition,
}

/// What nobody sees: the client has left before the handler was begun.
fn left<R: Body, E>(rules: &Rules) -> Handled<R, E> {
    let retry_after = Duration::ZERO;
    Handled {
        answered: Ok(Problem::InProgress { retry_after }.response(&rules.problem_types)),
        disposition: Disposition::Release,
    }
}

/// Calls the handler, and reads its response where it is to be stored.
async fn handle<S, B, R>(
    rules: &Rules,
    mut service: S,
    mut head: request::Parts,
    body: Bytes,
    attempt: Attempt,
) -> Handled<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + 'static>,
    B: From<Bytes>,
    R: Body<Data = Bytes>,
{
    head.extensions.insert(attempt);
    let response = match service.call(Request::from_parts(head, B::from(body))).await {
        Ok(response) => response,
        Err(error) => {
            return Handled {
                disposition: Rules::disposition_of_error(&error),
                answered: Err(error),
            };
        }
    };
    let (head, body) = response.into_parts();
    let mut disposition = rules.disposition(&head);
    let is_stored = matches!(disposition, Disposition::Store | Disposition::StoreFor(_));
    let body = if is_stored && !streams(&head) {
        let room = Head::of(head.status, &head.headers).room(rules.policy.codec.limit);
        let read = Read::up_to(room, body).await;
        if let Tail::Broken(_) = read.tail {
            disposition = Disposition::Interrupt;
        }
        ResponseBody::read(read)
    } else {
        ResponseBody::untouched(body)
    };
    Handled {
        answered: Ok(Response::from_parts(head, body)),
        disposition,
    }
}

fn settle<R: Body<Data = Bytes>, E>(rules: &Rules, id: KeyId, handled: &Handled<R, E>) -> Settlement {
    let retention = match handled.disposition {
        Disposition::Store => rules.policy.retention,
        Disposition::StoreFor(retention) => retention,
        Disposition::Release => return Settlement::Release,
        Disposition::Interrupt => return Settlement::Interrupt,
    };
    let Ok(response) = &handled.answered else {
        return Settlement::Interrupt;
    };
    match encode(rules, id, response) {
        Some(outcome) => Settlement::Store { outcome, retention },
        None => Settlement::Interrupt,
    }
}

/// The response as it is stored, or as much of it as fits: a tombstone at the least, so that it is not run again.
fn encode<R: Body<Data = Bytes>>(rules: &Rules, id: KeyId, response: &Response<ResponseBody<R>>) -> Option<Bytes> {
    let head = Head::of(response.status(), response.headers());
    let write = |write: &dyn Fn(&mut Vec<u8>)| {
        let written = rules.policy.codec.encode_by(id, |outcome| {
            write(outcome);
            Ok::<_, Infallible>(())
        });
        match written {
            Err(Why::NotStorable { limit: Some(_) }) => None,
            written => Some(written),
        }
    };
    response
        .body()
        .known()
        .and_then(|(chunks, trailers)| write(&|outcome| head.write_with(chunks, trailers, outcome)))
        .or_else(|| write(&|outcome| head.write(outcome)))
        .or_else(|| write(&|outcome| Head::without_headers(response.status()).write(outcome)))?
        .ok()
}

impl<F, R: Body, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::Full;

    use super::super::layer::idempotency;
    use super::*;
    use crate::idempotency::{Idempotency, MemoryStore};

    /// A handler that must not be called.
    struct Never;

    impl Service<Request<Full<Bytes>>> for Never {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            panic!("nobody waits for it")
        }
    }

    /// A client can leave between the claim and the handler, while both tasks run.
    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_client_has_left_is_not_begun_and_its_key_is_free() {
        let policy = Idempotency::at_most_once(MemoryStore::new()).accept_relaxed_durability();
        let policy = policy.build().unwrap();
        let rules = idempotency(&policy, |_| Some("tenant")).rules;
        let gate = Gate::default();
        assert!(gate.pass());
        let key = Key::new("tenant", "order-1");
        let (head, ()) = Request::new(()).into_parts();
        let answered = once(rules, gate, Never, key.clone(), head, Bytes::new()).await;
        assert_eq!(answered.unwrap().status(), 409);
        assert_eq!(policy.inspect(policy.id(&key)).await.unwrap(), None);
        assert_eq!(policy.in_flight(), 0);
        assert!(Never.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
