//! A breaker around each client, in both faces: what opens it, and that nothing is sent while it is open.

use std::time::Duration;

use ::http::{Method, StatusCode};
use futures::future::join_all;
use steadfast::circuit_breaker::State;
use steadfast::http::{self, ByStatus};
use steadfast::retry::StopReason;
use steadfast::timeout::Timeout;
use steadfast::{Error, Rejected, RejectedKind, Verdict};
use tower::{Layer, ServiceBuilder, ServiceExt};

use super::clients::{Call, call};
use super::server::{Reply, Server, nobody};
use super::{Ends, retry};

type CircuitBreaker = steadfast::circuit_breaker::CircuitBreaker<ByStatus>;
type Builder = steadfast::circuit_breaker::CircuitBreakerBuilder<ByStatus>;

/// Opens at the third failure in a row, for longer than a test takes.
fn builder() -> Builder {
    let hour = Duration::from_secs(3_600);
    http::circuit_breaker("shop")
        .consecutive_failures(3)
        .open_time(hour)
        .max_open_time(hour)
}

fn breaker() -> CircuitBreaker {
    builder().build().unwrap()
}

macro_rules! with_client {
    ($client:ident) => {
        mod $client {
            use super::super::clients::$client::{ClientError, Response, client, read, request};
            use super::*;

            /// As a layer; the retry is there for hyper's client, which sends the kind of body that it makes.
            async fn layered(breaker: &CircuitBreaker, call: Call) -> Result<Response, Error<ClientError>> {
                let service = ServiceBuilder::new()
                    .layer(retry().max_attempts(1).build().unwrap())
                    .layer(breaker.clone())
                    .map_err(Error::Inner)
                    .service(client());
                service.oneshot(request(call)).await
            }

            /// As a plain call.
            async fn called(breaker: &CircuitBreaker, call: Call) -> Result<Response, Error<ClientError>> {
                let sent = retry().max_attempts(1).build().unwrap().layer(client());
                let sent = sent.oneshot(request(call));
                breaker.call(async { sent.await.map_err(Error::Inner) }).await
            }

            async fn is_rejected_in_both_faces(breaker: &CircuitBreaker, url: &str) {
                let get = || call(Method::GET, url.to_owned());
                for result in [called(breaker, get()).await, layered(breaker, get()).await] {
                    let rejected = Rejected::find(&result.unwrap_err()).unwrap();
                    assert_eq!(
                        (rejected.kind(), rejected.policy()),
                        (RejectedKind::CircuitOpen, "shop")
                    );
                    assert!(!rejected.reached_inner() && rejected.retry_after().is_some());
                }
            }

            #[tokio::test]
            async fn opens_on_failures_by_status_and_sends_nothing_then() {
                for status in [408, 429, 500, 501, 502, 503, 504] {
                    let server = Server::start(vec![Reply::Status(status); 3]).await;
                    let breaker = breaker();
                    let get = || call(Method::GET, server.url("/"));
                    assert_eq!(read(called(&breaker, get()).await.unwrap()).await.0, status);
                    assert_eq!(read(layered(&breaker, get()).await.unwrap()).await.0, status);
                    assert_eq!(breaker.state(), State::Closed);
                    assert_eq!(read(layered(&breaker, get()).await.unwrap()).await.0, status);
                    assert_eq!(breaker.state(), State::Open, "{status}");
                    is_rejected_in_both_faces(&breaker, &server.url("/")).await;
                    assert_eq!(server.connections(), 3, "{status}");
                }
            }

            #[tokio::test]
            async fn what_was_wrong_with_the_request_does_not_open() {
                let server = Server::start([400, 401, 403, 404, 409, 422].map(Reply::Status)).await;
                let breaker = breaker();
                for _ in 0..7 {
                    layered(&breaker, call(Method::GET, server.url("/")))
                        .await
                        .unwrap();
                }
                let snapshot = breaker.snapshot();
                assert_eq!(
                    (snapshot.state, snapshot.calls, snapshot.failures),
                    (State::Closed, 7, 0)
                );
            }

            #[tokio::test]
            async fn a_status_counts_as_the_user_says() {
                let server = Server::start([404, 404, 404, 503].map(Reply::Status)).await;
                let breaker = builder()
                    .treat(StatusCode::NOT_FOUND, Verdict::TRANSIENT)
                    .treat(StatusCode::SERVICE_UNAVAILABLE, Verdict::Success)
                    .consecutive_failures(4)
                    .build()
                    .unwrap();
                for _ in 0..4 {
                    layered(&breaker, call(Method::GET, server.url("/")))
                        .await
                        .unwrap();
                }
                let snapshot = breaker.snapshot();
                assert_eq!(
                    (snapshot.state, snapshot.calls, snapshot.failures),
                    (State::Closed, 4, 3)
                );
            }

            #[tokio::test]
            async fn opens_where_nobody_listens_and_where_connections_are_dropped() {
                let dropping = Server::start(vec![Reply::DropRead; 3]).await;
                for url in [nobody().await, dropping.url("/")] {
                    let breaker = breaker();
                    for _ in 0..3 {
                        let post = call(Method::POST, url.clone());
                        assert!(layered(&breaker, post).await.unwrap_err().into_inner().is_some());
                    }
                    is_rejected_in_both_faces(&breaker, &url).await;
                }
                assert_eq!(dropping.connections(), 3);
            }

            #[tokio::test]
            async fn opens_on_calls_that_time_out_inside() {
                let server = Server::start(vec![Reply::Hang; 3]).await;
                let breaker = breaker();
                let service = ServiceBuilder::new()
                    .layer(retry().max_attempts(1).build().unwrap())
                    .layer(breaker.clone())
                    .layer(Timeout::attempt(Duration::from_millis(100)))
                    .map_err(Error::Inner)
                    .service(client());
                let send = || {
                    service
                        .clone()
                        .oneshot(request(call(Method::GET, server.url("/"))))
                };
                for result in join_all([send(), send(), send()]).await {
                    let rejected = Rejected::find(&result.unwrap_err()).unwrap();
                    assert_eq!(rejected.kind(), RejectedKind::TimedOut);
                }
                let rejected = Rejected::find(&send().await.unwrap_err()).unwrap();
                assert_eq!(rejected.kind(), RejectedKind::CircuitOpen);
                assert_eq!(server.connections(), 3);
            }

            #[tokio::test]
            async fn a_retry_outside_has_each_attempt_counted_and_sends_none_while_open() {
                let server = Server::start(vec![Reply::Status(503); 5]).await;
                let breaker = breaker();
                let (retry, ends) = Ends::of(retry().max_attempts(5));
                let service = ServiceBuilder::new()
                    .layer(retry)
                    .layer(breaker.clone())
                    .map_err(Error::Inner)
                    .service(client());
                let sent = service.oneshot(request(call(Method::GET, server.url("/")))).await;
                let rejected = Rejected::find(&sent.unwrap_err()).unwrap();
                assert_eq!(rejected.kind(), RejectedKind::CircuitOpen);
                // The three before it were sent.
                assert!(rejected.reached_inner());
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((4, StopReason::NotRetryable), 3)
                );
                assert_eq!(breaker.snapshot().failures, 3);
            }

            #[tokio::test]
            async fn stays_open_for_as_long_as_retry_after_asks_and_closes_by_probes() {
                let busy = Reply::With(503, vec![("retry-after", "1".to_owned())]);
                let server = Server::start([Reply::Status(503), Reply::Status(503), busy]).await;
                let breaker = builder().use_retry_after(true).samples(2).build().unwrap();
                for _ in 0..3 {
                    layered(&breaker, call(Method::GET, server.url("/")))
                        .await
                        .unwrap();
                }
                let retry_after = breaker.snapshot().retry_after.unwrap();
                assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
                is_rejected_in_both_faces(&breaker, &server.url("/")).await;

                tokio::time::sleep(retry_after).await;
                let get = || call(Method::GET, server.url("/"));
                assert_eq!(read(called(&breaker, get()).await.unwrap()).await.2, "answer 4");
                assert_eq!(breaker.state(), State::HalfOpen);
                assert_eq!(read(layered(&breaker, get()).await.unwrap()).await.2, "answer 5");
                assert_eq!(breaker.state(), State::Closed);
            }
        }
    };
}

with_client!(reqwest);
with_client!(reqwest_0_12);
with_client!(hyper_client);
