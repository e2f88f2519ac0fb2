//! The preset around a tonic channel. What fails is a layer in front of the service, which answers in the head.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use steadfast::circuit_breaker::State;
use steadfast::http::{self, ByGrpcStatus, HttpReplay, ReplayBody, RequestHead};
use steadfast::retry::{Retry, RetryBuilder, StopReason};
use steadfast::timeout::Timeout;
use steadfast::{Error, Rejected, RejectedKind};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceBuilder};

use super::server::nobody;
use super::{Ends, retry};

/// What the layer in front does with one call.
#[derive(Clone)]
enum Front {
    /// Answers with these headers and nothing else.
    Head(u16, Vec<(&'static str, String)>),
    /// Answers 200, and has the status in the trailers.
    Trailers(i32),
    Hang,
}

fn status(code: i32) -> Front {
    Front::Head(200, vec![("grpc-status", code.to_string())])
}

#[derive(Clone)]
struct Fronted<S> {
    inner: S,
    script: Arc<Mutex<VecDeque<Front>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl<S, B> Service<Request<B>> for Fronted<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error: 'static, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.calls.lock().unwrap().push(request.uri().path().to_owned());
        let Some(front) = self.script.lock().unwrap().pop_front() else {
            return Box::pin(self.inner.call(request));
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        match front {
            Front::Hang => return Box::pin(std::future::pending()),
            Front::Head(status, more) => {
                for (name, value) in more {
                    headers.insert(HeaderName::from_static(name), value.parse().unwrap());
                }
                *response.status_mut() = status.try_into().unwrap();
            }
            Front::Trailers(code) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.into());
                let frames = futures::stream::iter([Ok::<_, tonic::Status>(Frame::trailers(trailers))]);
                *response.body_mut() = Body::new(StreamBody::new(frames));
            }
        }
        Box::pin(async { Ok(response) })
    }
}

/// A health service behind the front; its channel, and the paths that were called.
async fn health(script: impl IntoIterator<Item = Front>) -> (Channel, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let script = Arc::new(Mutex::new(script.into_iter().collect()));
    let seen = calls.clone();
    let front = tower::layer::layer_fn(move |inner| Fronted {
        inner,
        script: script.clone(),
        calls: seen.clone(),
    });
    let (_, service) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(front).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (Endpoint::from_shared(url).unwrap().connect().await.unwrap(), calls)
}

/// The preset for gRPC, with every call of the health service allowed.
fn grpc() -> RetryBuilder<ByGrpcStatus, HttpReplay> {
    retry()
        .grpc()
        .retry_unsafe(|head: RequestHead<'_>| head.path().starts_with("/grpc.health.v1.Health/"))
}

/// Asks for the state of the whole server.
async fn check(channel: Channel, retry: Retry<ByGrpcStatus, HttpReplay>) -> Result<ServingStatus, tonic::Status> {
    let service = ServiceBuilder::new()
        .layer(retry)
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    let request = HealthCheckRequest { service: String::new() };
    let response = HealthClient::new(service).check(request).await?;
    Ok(response.into_inner().status())
}

#[tokio::test]
async fn what_is_unavailable_is_retried_until_the_real_answer() {
    let (channel, calls) = health([status(14), status(8)]).await;
    let (retry, ends) = Ends::of(grpc());
    assert_eq!(check(channel, retry).await.unwrap(), ServingStatus::Serving);
    assert_eq!(ends.only(), (3, StopReason::Success));
    assert_eq!(*calls.lock().unwrap(), ["/grpc.health.v1.Health/Check"; 3]);
}

#[tokio::test]
async fn each_status_is_judged_by_the_table() {
    for code in 1..=16 {
        let (channel, calls) = health(vec![status(code); 3]).await;
        let (retry, ends) = Ends::of(grpc());
        let error = check(channel, retry).await.unwrap_err();
        assert_eq!(error.code(), Code::from(code));
        let end = match code {
            4 | 8 | 10 | 14 => (3, StopReason::MaxAttempts),
            1 | 2 | 13 | 15 => (1, StopReason::NotRetryable),
            _ => (1, StopReason::Success),
        };
        assert_eq!(ends.only(), end, "{code}");
        assert_eq!(calls.lock().unwrap().len(), usize::try_from(end.0).unwrap(), "{code}");
    }
}

#[tokio::test]
async fn a_call_is_not_repeated_where_nobody_said_it_may() {
    let (channel, calls) = health([status(14)]).await;
    let (retry, ends) = Ends::of(retry().grpc());
    assert_eq!(check(channel, retry).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(
        (ends.only(), calls.lock().unwrap().len()),
        ((1, StopReason::NotReplayable), 1)
    );
}

#[tokio::test]
async fn a_call_that_was_never_sent_is_repeated_without_leave() {
    let nowhere = || {
        Endpoint::from_shared(futures::executor::block_on(nobody()))
            .unwrap()
            .connect_lazy()
    };
    let (untold, ends) = Ends::of(retry().grpc());
    assert!(check(nowhere(), untold).await.is_err());
    assert_eq!(ends.only(), (1, StopReason::NotReplayable));

    let (told, ends) = Ends::of(retry().grpc().not_sent_if(|_: &tonic::ConnectError| true));
    assert!(check(nowhere(), told).await.is_err());
    assert_eq!(ends.only(), (3, StopReason::MaxAttempts));
}

#[tokio::test]
async fn pushback_is_waited_for_or_forbids_the_retry() {
    let pushed = |value: &str| {
        let headers = [("grpc-status", "14"), ("grpc-retry-pushback-ms", value)];
        Front::Head(200, headers.map(|(name, value)| (name, value.to_owned())).into())
    };
    let (channel, _) = health([pushed("300")]).await;
    let (retry, ends) = Ends::of(grpc());
    let began = now();
    check(channel, retry).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(ends.only(), (2, StopReason::Success));

    for value in ["-1", "soon"] {
        let (channel, calls) = health([pushed(value)]).await;
        let (retry, ends) = Ends::of(grpc());
        assert_eq!(check(channel, retry).await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(
            (ends.only(), calls.lock().unwrap().len()),
            ((1, StopReason::NotRetryable), 1),
            "{value}"
        );
    }
}

#[tokio::test]
async fn a_proxy_in_front_is_judged_by_its_http_status() {
    for (http, attempts) in [(503, 2), (502, 2), (404, 1), (501, 1)] {
        let (channel, calls) = health([Front::Head(http, Vec::new())]).await;
        let (retry, ends) = Ends::of(grpc());
        assert_eq!(check(channel, retry).await.is_ok(), attempts == 2);
        assert_eq!(
            (ends.only().0, calls.lock().unwrap().len()),
            (attempts, attempts.try_into().unwrap())
        );
    }
}

#[tokio::test]
async fn a_status_in_the_trailers_is_not_seen() {
    let (channel, calls) = health([Front::Trailers(14)]).await;
    let (retry, ends) = Ends::of(grpc());
    assert_eq!(check(channel, retry).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(
        (ends.only(), calls.lock().unwrap().len()),
        ((1, StopReason::Success), 1)
    );
}

#[tokio::test]
async fn a_stream_of_answers_comes_through_after_a_retry() {
    let (channel, _) = health([status(14)]).await;
    let (retry, ends) = Ends::of(grpc());
    let service = ServiceBuilder::new()
        .layer(retry)
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    let request = HealthCheckRequest { service: String::new() };
    let mut answers = HealthClient::new(service).watch(request).await.unwrap().into_inner();
    assert_eq!(
        answers.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    assert_eq!(ends.only(), (2, StopReason::Success));
}

#[tokio::test]
async fn an_attempt_that_hangs_times_out_and_is_retried() {
    let (channel, calls) = health([Front::Hang]).await;
    let (retry, ends) = Ends::of(grpc());
    let stack = ServiceBuilder::new()
        .layer(retry)
        .layer(Timeout::attempt(Duration::from_millis(150)))
        .map_err(Error::Inner)
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new));
    let request = HealthCheckRequest { service: String::new() };
    let response = HealthClient::new(stack.service(channel)).check(request).await.unwrap();
    assert_eq!(response.into_inner().status(), ServingStatus::Serving);
    assert_eq!(
        (ends.only(), calls.lock().unwrap().len()),
        ((2, StopReason::Success), 2)
    );
}

#[tokio::test]
async fn a_breaker_counts_by_the_table_and_sends_nothing_while_it_is_open() {
    for code in 1..=16 {
        let (channel, calls) = health(vec![status(code); 2]).await;
        let breaker = http::circuit_breaker("health").grpc().consecutive_failures(2);
        let breaker = breaker.build().unwrap();
        let service = ServiceBuilder::new()
            .layer(breaker.clone())
            .map_err(Error::Inner)
            .service(channel);
        let mut client = HealthClient::new(service);
        let request = || HealthCheckRequest { service: String::new() };
        for _ in 0..2 {
            assert_eq!(client.check(request()).await.unwrap_err().code(), Code::from(code));
        }
        let last = client.check(request()).await;
        let (state, counted) = (breaker.state(), breaker.snapshot().calls);
        match code {
            2 | 4 | 8 | 10 | 13 | 14 | 15 => {
                let rejected = Rejected::find(&last.unwrap_err()).unwrap();
                assert_eq!(
                    (rejected.kind(), rejected.policy()),
                    (RejectedKind::CircuitOpen, "health")
                );
                assert_eq!(
                    (state, counted, calls.lock().unwrap().len()),
                    (State::Open, 2, 2),
                    "{code}"
                );
            }
            // What the caller cancelled says nothing.
            1 => assert_eq!((last.is_ok(), state, counted), (true, State::Closed, 1)),
            _ => assert_eq!((last.is_ok(), state, counted), (true, State::Closed, 3), "{code}"),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "real waits on real sockets")]
fn now() -> Instant {
    Instant::now()
}
