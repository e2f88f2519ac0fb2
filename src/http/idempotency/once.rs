//! A request that is handled once for its key.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use tower_service::Service;

use super::body::{Read, ResponseBody, Tail};
use super::future::Answered;
use super::gate::Gate;
use super::problem::Problem;
use super::rules::{Rules, streams};
use super::stored::{Head, Stored, mark_replayed};
use super::tombstone::Tombstone;
use crate::idempotency::store::Face;
use crate::idempotency::{Attempt, Disposition, Driven, Keyed, Recovery, Settlement, Unreadable};
use crate::rejected::Idempotency as Why;
use crate::{Key, KeyId, Rejected, RejectedKind};

/// What is left to be done: the handler, and the request.
pub(super) struct Work<S> {
    pub(super) service: S,
    pub(super) head: request::Parts,
    pub(super) body: Bytes,
}

/// Has the request handled once for its key.
pub(super) async fn once<S, B, R>(rules: Arc<Rules>, gate: Gate, key: Key, work: Work<S>) -> Answered<R, S::Error>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + 'static>,
    B: From<Bytes>,
    R: Body<Data = Bytes>,
{
    let policy = &rules.policy;
    let id = policy.id(&key);
    let answer = match drive_or_recover(&rules, &gate, id, work).await {
        Ok(Driven::Ran { value, .. }) => return value.answered,
        Ok(Driven::Stored { outcome, attempt, .. }) => {
            let outcome = policy.codec.read(id, &outcome).ok();
            match outcome.clone().and_then(Stored::read) {
                Some(Stored {
                    status,
                    headers,
                    body: Some(body),
                }) => Ok(Stored::replay(status, headers, body)),
                tombstone => rebuild(&rules, Unreadable { id, attempt, outcome }, tombstone).await,
            }
        }
        Err(rejected) => Err(Problem::from(&rejected)),
    };
    Ok(answer.unwrap_or_else(|problem| problem.response(&rules.problem_types)))
}

/// Where an earlier attempt was interrupted, asks what it did before the client hears that nobody knows.
async fn drive_or_recover<S, B, R>(
    rules: &Rules,
    gate: &Gate,
    id: KeyId,
    work: Work<S>,
) -> Result<Driven<Handled<R, S::Error>>, Rejected>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + 'static>,
    B: From<Bytes>,
    R: Body<Data = Bytes>,
{
    let fingerprint = rules.fingerprint(&work.head, &work.body);
    let face = Face::Http;
    let keyed = Keyed { id, fingerprint, face };
    let mut work = Some(work);
    let driven = drive(rules, gate, keyed, &mut work).await;
    let (Err(rejected), Some(recover)) = (&driven, &rules.recover) else {
        return driven;
    };
    // What has run here, and was refused its outcome, is not asked about: its lease may not be over.
    if rejected.kind() != RejectedKind::OutcomeUnknown || work.is_none() {
        return driven;
    }
    let ask = async |interruption| Ok::<_, Rejected>(recover(interruption).await);
    let found = rules
        .policy
        .find_out(keyed, ask, |response| encode_whole(rules, id, response));
    match found.await {
        Ok(Recovery::Unknown) => driven,
        // The store has it now, as every later repetition gets it.
        Ok(Recovery::Completed(_) | Recovery::NotExecuted) => drive(rules, gate, keyed, &mut work).await,
        Err(failed) => Err(rules.policy.error(failed)),
    }
}

/// Has `work` done, which is taken then, or finds what came of it before.
async fn drive<S, B, R>(
    rules: &Rules,
    gate: &Gate,
    keyed: Keyed,
    work: &mut Option<Work<S>>,
) -> Result<Driven<Handled<R, S::Error>>, Rejected>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + 'static>,
    B: From<Bytes>,
    R: Body<Data = Bytes>,
{
    let operation = async |attempt| match work.take() {
        Some(work) if gate.pass() => handle(rules, work, attempt).await,
        _ => left(rules),
    };
    let settle = |handled: &Handled<R, S::Error>| settle(rules, keyed.id, handled);
    rules.policy.drive(keyed, operation, settle).await
}

/// Has the response made anew, if there is somebody to make it.
async fn rebuild<R: Body>(
    rules: &Rules,
    record: Unreadable,
    head: Option<Stored>,
) -> Result<Response<ResponseBody<R>>, Problem> {
    let made = match &rules.rebuild {
        Some(rebuild) => rebuild(Tombstone::new(record, head)).await,
        None => None,
    };
    let mut response = made.ok_or(Problem::NotReplayable)?.map(ResponseBody::from);
    mark_replayed(response.headers_mut());
    Ok(response)
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
    Work {
        mut service,
        mut head,
        body,
    }: Work<S>,
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

/// A response that was found out about.
pub(super) fn encode_whole(rules: &Rules, id: KeyId, response: &Response<Bytes>) -> Result<Bytes, Why> {
    let head = Head::of(response.status(), response.headers());
    let body = [response.body().clone()].into();
    rules.policy.codec.encode_by(id, |outcome| {
        head.write_with(&body, None, outcome);
        Ok::<_, Infallible>(())
    })
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

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
        let (service, body) = (Never, Bytes::new());
        let work = Work { service, head, body };
        let answered = once(rules, gate, key.clone(), work).await;
        assert_eq!(answered.unwrap().status(), 409);
        assert_eq!(policy.inspect(policy.id(&key)).await.unwrap(), None);
        assert_eq!(policy.in_flight(), 0);
        assert!(Never.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
