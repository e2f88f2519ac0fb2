//! What the errors of `reqwest` mean, the same for both of its versions.

use std::future::ready;

use ::http::Method;
use steadfast::circuit_breaker::State;
use steadfast::http::{self, HttpReplay};
use steadfast::retry::{Retry, StopReason};
use steadfast::{Classify, Rejected};
use tower::{Layer, Service, ServiceExt};

use super::server::{Reply, Server, nobody};
use super::{Ends, retry};

macro_rules! reqwest_version {
    ($name:ident, $reqwest:ident) => {
        mod $name {
            use super::*;

            use ::$reqwest::{Body, Client, Error, Request, Response};

            fn client() -> Client {
                Client::builder().no_proxy().build().unwrap()
            }

            fn request(method: Method, url: String) -> Request {
                Request::new(method, url.parse().unwrap())
            }

            /// A client for which statuses from 400 on are errors.
            async fn send_checked<C>(retry: Retry<C, HttpReplay>, request: Request) -> Result<Response, Error>
            where
                C: Classify<Response, Error>,
            {
                let checked = client().and_then(|response: Response| ready(response.error_for_status()));
                retry.layer(checked).oneshot(request).await
            }

            #[tokio::test]
            async fn a_status_that_became_an_error_is_judged_as_the_status() {
                for (status, end) in [
                    (503, (3, StopReason::MaxAttempts)),
                    (500, (3, StopReason::MaxAttempts)),
                    (404, (1, StopReason::Success)),
                    (501, (1, StopReason::NotRetryable)),
                ] {
                    let server = Server::start(vec![Reply::Status(status); 3]).await;
                    let (retry, ends) = Ends::of(retry());
                    let error = send_checked(retry, request(Method::GET, server.url("/")))
                        .await
                        .unwrap_err();
                    assert_eq!(error.status().unwrap(), status);
                    assert_eq!(ends.only(), end, "{status}");
                }
            }

            #[tokio::test]
            async fn a_post_whose_status_became_an_error_is_not_retried() {
                let server = Server::start([Reply::Status(503)]).await;
                let (retry, ends) = Ends::of(retry());
                assert!(
                    send_checked(retry, request(Method::POST, server.url("/")))
                        .await
                        .is_err()
                );
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::NotReplayable), 1)
                );
            }

            #[tokio::test]
            async fn an_exception_holds_for_a_status_that_became_an_error() {
                let server = Server::start([Reply::Status(409)]).await;
                let (retry, ends) = Ends::of(retry().treat(409.try_into().unwrap(), steadfast::Verdict::TRANSIENT));
                assert!(
                    send_checked(retry, request(Method::GET, server.url("/")))
                        .await
                        .is_ok()
                );
                assert_eq!(ends.only(), (2, StopReason::Success));
            }

            #[tokio::test]
            async fn a_streaming_body_is_sent_once() {
                let server = Server::start([Reply::Status(503)]).await;
                let (retry, ends) = Ends::of(retry());
                let mut request = request(Method::PUT, server.url("/"));
                let parts = futures::stream::iter(["one ", "two"].map(Ok::<_, std::io::Error>));
                *request.body_mut() = Some(Body::wrap_stream(parts));
                let response = retry.layer(client()).oneshot(request).await.unwrap();
                assert_eq!(response.status(), 503);
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::NotReplayable), 1)
                );
                assert_eq!(server.seen()[0].body, "one two");
            }

            #[tokio::test]
            async fn a_request_that_cannot_be_built_is_not_retried() {
                let (retry, ends) = Ends::of(retry());
                let request = request(Method::GET, "ftp://localhost/".to_owned());
                let error = retry.layer(client()).oneshot(request).await.unwrap_err();
                assert!(error.is_builder(), "{error:?}");
                assert_eq!(ends.only(), (1, StopReason::NotRetryable));
            }

            /// The body of an answer, read within the call; a status from 400 on is an error, inside of the caller's own.
            async fn body(url: String) -> Result<String, ApiError> {
                let response = client().get(url).send().await?;
                Ok(response.error_for_status()?.text().await?)
            }

            #[derive(Debug, thiserror::Error)]
            enum ApiError {
                #[error("http: {0}")]
                Http(#[from] Error),
                #[error(transparent)]
                Rejected(#[from] Rejected),
            }

            #[tokio::test]
            async fn where_the_call_reads_the_body_the_status_of_its_error_is_judged() {
                let server = Server::start([404, 404, 503, 500, 503].map(Reply::Status)).await;
                let breaker = http::circuit_breaker("x").any_response().consecutive_failures(3);
                let breaker = breaker.build().unwrap();
                for _ in 0..2 {
                    let (retry, ends) = Ends::of(retry().any_response());
                    let missing = retry.call(|| breaker.call(body(server.url("/")))).await;
                    assert!(matches!(missing, Err(ApiError::Http(_))), "{missing:?}");
                    assert_eq!(ends.only(), (1, StopReason::Success));
                }
                assert_eq!((breaker.snapshot().calls, breaker.snapshot().failures), (2, 0));

                let (retry, ends) = Ends::of(retry().any_response().max_attempts(5));
                let down = retry.call(|| breaker.call(body(server.url("/")))).await;
                assert!(matches!(down, Err(ApiError::Rejected(_))), "{down:?}");
                assert_eq!(ends.only(), (4, StopReason::NotRetryable));
                assert_eq!((breaker.snapshot().failures, server.connections()), (3, 5));

                breaker.reset();
                assert_eq!(breaker.call(body(server.url("/"))).await.unwrap(), "answer 6");
                assert_eq!(breaker.snapshot().failures, 0);
            }

            #[tokio::test]
            async fn a_breaker_does_not_count_what_no_request_could_be_made_of() {
                let breaker = http::circuit_breaker("x")
                    .consecutive_failures(1)
                    .build()
                    .unwrap();
                let service = breaker.layer(client().map_err(steadfast::Error::Inner));
                let request = request(Method::GET, "ftp://localhost/".to_owned());
                let error = service.oneshot(request).await.unwrap_err().into_inner().unwrap();
                assert!(error.is_builder(), "{error:?}");
                assert_eq!((breaker.state(), breaker.snapshot().calls), (State::Closed, 0));

                let refused = client().get(nobody().await).send();
                let refused = async { refused.await.map_err(steadfast::Error::Inner) };
                assert!(breaker.call(refused).await.is_err());
                assert_eq!((breaker.state(), breaker.snapshot().calls), (State::Open, 1));
            }

            #[tokio::test]
            async fn a_loop_of_redirects_is_not_retried() {
                let to_itself = Reply::With(302, vec![("location", "/".to_owned())]);
                let server = Server::start(vec![to_itself; 100]).await;
                let (retry, ends) = Ends::of(retry());
                let looping = retry
                    .layer(client())
                    .oneshot(request(Method::GET, server.url("/")));
                assert!(looping.await.unwrap_err().is_redirect());
                assert_eq!(ends.only(), (1, StopReason::NotRetryable));
            }

            #[tokio::test]
            async fn a_clients_own_timeout_is_retried_but_not_for_a_post() {
                for (method, end) in [
                    (Method::GET, (2, StopReason::Success)),
                    (Method::POST, (1, StopReason::NotReplayable)),
                ] {
                    let server = Server::start([Reply::Hang]).await;
                    let (retry, ends) = Ends::of(retry());
                    let mut request = request(method, server.url("/"));
                    *request.timeout_mut() = Some(std::time::Duration::from_millis(150));
                    let result = retry.layer(client()).oneshot(request).await;
                    assert_eq!(result.is_ok(), end.1 == StopReason::Success);
                    assert_eq!(ends.only(), end);
                }
            }

            /// A client whose answers are read to their end.
            fn reading()
            -> impl Service<Request, Response = ::http::Response<String>, Error = Error, Future: Send> + Clone {
                client().and_then(|response: Response| async move {
                    let status = response.status();
                    let mut whole = ::http::Response::new(response.text().await?);
                    *whole.status_mut() = status;
                    Ok(whole)
                })
            }

            #[tokio::test]
            async fn a_connection_lost_within_the_answer_is_retried() {
                let server = Server::start([Reply::Cut]).await;
                let (retry, ends) = Ends::of(retry());
                let result = retry
                    .layer(reading())
                    .oneshot(request(Method::GET, server.url("/")))
                    .await;
                assert_eq!(ends.only(), (2, StopReason::Success), "{result:?}");
                assert_eq!(result.unwrap().body(), "answer 2");
            }

            #[tokio::test]
            async fn a_connection_lost_within_the_answer_to_a_post_is_not_retried() {
                let server = Server::start([Reply::Cut]).await;
                let (retry, ends) = Ends::of(retry());
                let result = retry
                    .layer(reading())
                    .oneshot(request(Method::POST, server.url("/")))
                    .await;
                assert!(result.is_err());
                assert_eq!(ends.only(), (1, StopReason::NotReplayable));
            }

            #[tokio::test]
            async fn an_answer_that_cannot_be_decoded_is_not_retried() {
                let (retry, ends) = Ends::of(retry());
                let garbled = tower::service_fn(|_: Request| async {
                    let garbage = futures::stream::iter([Err::<&str, _>(std::io::Error::other("not gzip"))]);
                    let response = ::http::Response::new(Body::wrap_stream(garbage));
                    Response::from(response).text().await.map(::http::Response::new)
                });
                let error = retry
                    .layer(garbled)
                    .oneshot(request(Method::GET, "http://localhost/".to_owned()))
                    .await
                    .unwrap_err();
                assert!(error.is_decode(), "{error:?}");
                assert_eq!(ends.only(), (1, StopReason::NotRetryable));
            }

            #[tokio::test]
            async fn a_post_that_was_sent_and_redirected_to_where_nobody_listens_is_not_retried() {
                let elsewhere = Reply::With(303, vec![("location", nobody().await)]);
                let server = Server::start(vec![elsewhere; 3]).await;
                let (retry, ends) = Ends::of(retry());
                let result = retry
                    .layer(client())
                    .oneshot(request(Method::POST, server.url("/")))
                    .await;
                assert!(result.is_err());
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::NotReplayable), 1),
                    "{result:?}"
                );
            }
        }
    };
}

reqwest_version!(v0_12, reqwest_0_12);
reqwest_version!(v0_13, reqwest);
