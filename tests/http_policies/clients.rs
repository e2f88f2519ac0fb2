//! Which requests are retried and which are not, the same with each client.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use steadfast::http::{HttpReplay, RequestHead};
use steadfast::retry::{Retry, RetryBudget, StopReason};
use steadfast::timeout::Timeout;
use steadfast::{Classify, Error, Rejected, RejectedKind, Verdict};
use tower::{Layer, ServiceBuilder, ServiceExt};

use super::server::{Reply, Server, nobody};
use super::{Ends, retry};

type BoxError = Box<dyn StdError + Send + Sync>;

/// One request, whichever client sends it.
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
}

pub fn call(method: Method, url: String) -> Call {
    Call {
        method,
        url,
        headers: Vec::new(),
        body: "",
    }
}

impl Call {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }
}

pub type Answer = (StatusCode, HeaderMap, Bytes);

macro_rules! reqwest_client {
    ($name:ident) => {
        pub mod $name {
            use super::*;

            pub type ClientError = ::$name::Error;
            pub type Response = ::$name::Response;

            pub fn client() -> ::$name::Client {
                ::$name::Client::builder().no_proxy().build().unwrap()
            }

            pub fn request(call: Call) -> ::$name::Request {
                let mut request = ::$name::Request::new(call.method, call.url.parse().unwrap());
                for (name, value) in call.headers {
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
                if !call.body.is_empty() {
                    *request.body_mut() = Some(call.body.into());
                }
                request
            }

            pub async fn read(response: Response) -> Answer {
                let (status, headers) = (response.status(), response.headers().clone());
                (status, headers, response.bytes().await.unwrap())
            }

            /// What has to be told the preset for it to know that nothing was sent.
            pub fn told<C>(
                builder: steadfast::retry::RetryBuilder<C, HttpReplay>,
            ) -> steadfast::retry::RetryBuilder<C, HttpReplay> {
                builder.not_sent_if(|error: &ClientError| error.is_connect())
            }

            scenarios!();
        }
    };
}

pub mod hyper_client {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::connect::HttpConnector;
    use hyper_util::client::legacy::{Client, Error as LegacyError};
    use hyper_util::rt::TokioExecutor;
    use steadfast::http::ReplayBody;

    use super::*;

    pub type ClientError = LegacyError;
    pub type Response = ::http::Response<hyper::body::Incoming>;

    pub fn client() -> Client<HttpConnector, ReplayBody<Full<Bytes>>> {
        Client::builder(TokioExecutor::new()).build_http()
    }

    pub fn request(call: Call) -> ::http::Request<Full<Bytes>> {
        let mut request = ::http::Request::builder().method(call.method).uri(call.url);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        request.body(Full::from(call.body)).unwrap()
    }

    pub async fn read(response: Response) -> Answer {
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    pub fn told<C>(
        builder: steadfast::retry::RetryBuilder<C, HttpReplay>,
    ) -> steadfast::retry::RetryBuilder<C, HttpReplay> {
        builder.not_sent_if(|error: &LegacyError| error.is_connect())
    }

    scenarios!();
}

macro_rules! scenarios {
    () => {
        async fn send<C>(retry: Retry<C, HttpReplay>, call: Call) -> Result<Response, ClientError>
        where
            C: Classify<Response, ClientError>,
        {
            retry.layer(client()).oneshot(request(call)).await
        }

        #[tokio::test]
        async fn transient_statuses_are_retried() {
            for status in [408, 429, 500, 502, 503, 504] {
                let server = Server::start([Reply::Status(status), Reply::Status(status)]).await;
                let (retry, ends) = Ends::of(retry());
                let response = send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                assert_eq!(read(response).await.2, "answer 3", "{status}");
                assert_eq!(ends.only(), (3, StopReason::Success), "{status}");
                assert_eq!(server.connections(), 3, "{status}");
            }
        }

        #[tokio::test]
        async fn statuses_that_are_the_requests_fault_or_final_are_not_retried() {
            for (status, stop) in [
                (200, StopReason::Success),
                (400, StopReason::Success),
                (404, StopReason::Success),
                (409, StopReason::Success),
                (501, StopReason::NotRetryable),
                (505, StopReason::NotRetryable),
            ] {
                let server = Server::start([Reply::Status(status)]).await;
                let (retry, ends) = Ends::of(retry());
                let response = send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                assert_eq!(read(response).await.0, status);
                assert_eq!((ends.only(), server.connections()), ((1, stop), 1), "{status}");
            }
        }

        #[tokio::test]
        async fn when_attempts_run_out_the_last_response_is_returned_as_it_came() {
            let last = Reply::With(503, vec![("x-which", "the last".to_owned())]);
            let server = Server::start([Reply::Status(503), Reply::Status(500), last]).await;
            let (retry, ends) = Ends::of(retry());
            let response = send(retry, call(Method::GET, server.url("/"))).await.unwrap();
            let (status, headers, body) = read(response).await;
            assert_eq!((status.as_u16(), &body[..]), (503, &b"answer 3"[..]));
            assert_eq!(headers["x-which"], "the last");
            assert_eq!(ends.only(), (3, StopReason::MaxAttempts));
        }

        #[tokio::test]
        async fn requests_that_may_be_repeated_are_after_a_503_and_a_dropped_connection() {
            for method in [
                Method::GET,
                Method::HEAD,
                Method::OPTIONS,
                Method::PUT,
                Method::DELETE,
            ] {
                let server = Server::start([Reply::Status(503), Reply::DropRead, Reply::DropUnread]).await;
                let (retry, ends) = Ends::of(retry().max_attempts(4));
                let request = call(method.clone(), server.url("/")).body("ten bytes!");
                let response = send(retry, request).await.unwrap();
                assert_eq!(read(response).await.0, 200, "{method}");
                assert_eq!(ends.only(), (4, StopReason::Success), "{method}");
                let bodies: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
                assert_eq!(bodies, ["ten bytes!"; 3], "{method}");
            }
        }

        #[tokio::test]
        async fn a_post_or_patch_is_not_retried_after_a_503() {
            for method in [
                Method::POST,
                Method::PATCH,
                Method::from_bytes(b"CHARGE").unwrap(),
            ] {
                let server = Server::start([Reply::Status(503)]).await;
                let (retry, ends) = Ends::of(retry());
                let response = send(retry, call(method.clone(), server.url("/"))).await.unwrap();
                assert_eq!(read(response).await.0, 503, "{method}");
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::NotReplayable), 1),
                    "{method}"
                );
            }
        }

        #[tokio::test]
        async fn a_post_is_not_retried_after_a_dropped_connection() {
            for reply in [Reply::DropRead, Reply::DropUnread] {
                let server = Server::start([reply.clone()]).await;
                let (retry, ends) = Ends::of(told(retry()));
                let request = call(Method::POST, server.url("/")).body("pay");
                assert!(send(retry, request).await.is_err());
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::NotReplayable), 1),
                    "{reply:?}"
                );
            }
        }

        #[tokio::test]
        async fn a_post_with_an_idempotency_key_is_retried_and_the_key_stays() {
            let server = Server::start([Reply::Status(503), Reply::DropRead]).await;
            let (retry, ends) = Ends::of(retry());
            let request = call(Method::POST, server.url("/"))
                .header("idempotency-key", "7f")
                .body("pay");
            assert_eq!(read(send(retry, request).await.unwrap()).await.0, 200);
            assert_eq!(ends.only(), (3, StopReason::Success));
            for seen in server.seen() {
                assert_eq!(
                    (&seen.method, &seen.path[..], &seen.body[..]),
                    (&Method::POST, "/", &b"pay"[..])
                );
                assert_eq!(seen.headers["idempotency-key"], "7f");
            }
        }

        #[tokio::test]
        async fn a_post_is_retried_where_the_user_allows_it_and_nowhere_else() {
            let safe = |head: RequestHead<'_>| head.path() == "/search" && head.headers().contains_key("x-safe");
            for (path, header, attempts) in [
                ("/search", "x-safe", 2),
                ("/search", "x", 1),
                ("/pay", "x-safe", 1),
            ] {
                let server = Server::start([Reply::Status(503)]).await;
                let (retry, ends) = Ends::of(retry().retry_unsafe(safe));
                let request = call(Method::POST, server.url(path)).header(header, "1");
                send(retry, request).await.unwrap();
                assert_eq!(ends.only().0, attempts, "{path} {header}");
            }
        }

        #[tokio::test]
        async fn a_post_whose_connection_was_never_made_is_retried_if_that_is_told() {
            for (preset, end) in [
                (retry(), (1, StopReason::NotReplayable)),
                (told(retry()), (3, StopReason::MaxAttempts)),
            ] {
                let (retry, ends) = Ends::of(preset);
                let error = send(retry, call(Method::POST, nobody().await)).await.unwrap_err();
                assert!(error.is_connect());
                assert_eq!(ends.only(), end);
            }
        }

        #[tokio::test]
        async fn retry_after_nonsense_is_the_backoff_and_a_day_ends_the_call() {
            let hint = |value: &str| Reply::With(503, vec![("retry-after", value.to_owned())]);
            for value in ["soon", "-1", "1.5", ""] {
                let server = Server::start([hint(value)]).await;
                let (retry, ends) = Ends::of(retry());
                let began = now();
                send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                assert_eq!(ends.only(), (2, StopReason::Success), "{value:?}");
                assert!(began.elapsed() < Duration::from_millis(900), "{value:?}");
            }
            for value in [
                "86400",
                "Fri, 31 Dec 9999 23:59:59 GMT",
                "99999999999999999999999",
            ] {
                let server = Server::start([hint(value)]).await;
                let (retry, ends) = Ends::of(retry());
                let response = send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                assert_eq!(read(response).await.0, 503);
                assert_eq!(
                    (ends.only(), server.connections()),
                    ((1, StopReason::HintTooLong), 1),
                    "{value:?}"
                );
            }
        }

        #[tokio::test]
        async fn retry_after_in_seconds_and_as_a_date_is_waited_for() {
            let seconds = vec![("retry-after", "1".to_owned())];
            // By the server's own clock, which is years behind.
            let date = vec![
                ("date", "Sat, 01 Jan 2000 12:00:00 GMT".to_owned()),
                ("retry-after", "Sat, 01 Jan 2000 12:00:01 GMT".to_owned()),
            ];
            let waited = |headers| async {
                let server = Server::start([Reply::With(429, headers)]).await;
                let (retry, ends) = Ends::of(retry());
                let began = now();
                send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                assert_eq!(ends.only(), (2, StopReason::Success));
                began.elapsed()
            };
            let (seconds, date) = tokio::join!(waited(seconds), waited(date));
            assert!(seconds >= Duration::from_secs(1), "{seconds:?}");
            assert!(date >= Duration::from_secs(1), "{date:?}");
        }

        #[tokio::test]
        async fn a_status_is_judged_as_the_user_says() {
            let server = Server::start([Reply::Status(409), Reply::Status(503)]).await;
            let judged = retry()
                .treat(StatusCode::CONFLICT, Verdict::TRANSIENT)
                .treat(StatusCode::SERVICE_UNAVAILABLE, Verdict::Permanent);
            let (retry, ends) = Ends::of(judged);
            let response = send(retry, call(Method::GET, server.url("/"))).await.unwrap();
            assert_eq!(read(response).await.0, 503);
            assert_eq!(ends.only(), (2, StopReason::NotRetryable));
        }

        #[tokio::test]
        async fn a_predicate_for_errors_leaves_statuses_as_they_were() {
            let server = Server::start([Reply::Status(503), Reply::Status(501)]).await;
            let (policy, ends) = Ends::of(retry().retry_if(|_: &ClientError| false));
            let response = send(policy, call(Method::GET, server.url("/"))).await.unwrap();
            assert_eq!(read(response).await.0, 501);
            assert_eq!(ends.only(), (2, StopReason::NotRetryable));

            let server = Server::start([Reply::DropRead]).await;
            let (policy, ends) = Ends::of(retry().retry_if(|_: &ClientError| false));
            assert!(send(policy, call(Method::GET, server.url("/"))).await.is_err());
            assert_eq!(ends.only(), (1, StopReason::NotRetryable));
        }

        #[tokio::test]
        async fn boxed_errors_leave_statuses_exceptions_and_what_was_never_sent_as_they_were() {
            let boxed = || told(retry().treat(StatusCode::CONFLICT, Verdict::TRANSIENT)).boxed_errors();
            let server = Server::start([Reply::Status(503), Reply::Status(409)]).await;
            let (retry, ends) = Ends::of(boxed());
            let client = client().map_err(|error| BoxError::from(error));
            let service = retry.layer(client.clone());
            service
                .oneshot(request(call(Method::GET, server.url("/"))))
                .await
                .unwrap();
            assert_eq!(ends.only(), (3, StopReason::Success));

            let (retry, ends) = Ends::of(boxed());
            let refused = retry
                .layer(client)
                .oneshot(request(call(Method::POST, nobody().await)));
            assert!(refused.await.is_err());
            assert_eq!(ends.only(), (3, StopReason::MaxAttempts));
        }

        #[tokio::test]
        async fn an_attempt_that_hangs_times_out_and_is_retried() {
            let server = Server::start([Reply::Hang]).await;
            let (retry, ends) = Ends::of(retry());
            let service = ServiceBuilder::new()
                .layer(retry)
                .layer(Timeout::attempt(Duration::from_millis(150)))
                .map_err(Error::Inner)
                .service(client());
            let request = request(call(Method::PUT, server.url("/")).body("again"));
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(read(response).await.2, "answer 2");
            assert_eq!(ends.only(), (2, StopReason::Success));
            assert_eq!(server.seen().last().unwrap().body, "again");
        }

        #[tokio::test]
        async fn a_post_that_timed_out_is_not_retried_and_a_post_that_was_never_sent_is() {
            let stack = |retry| {
                ServiceBuilder::new()
                    .layer(retry)
                    .layer(Timeout::attempt(Duration::from_millis(150)))
                    .map_err(Error::Inner)
                    .service(client())
            };
            let server = Server::start([Reply::Hang]).await;
            let (policy, ends) = Ends::of(told(retry()));
            let hung = stack(policy).oneshot(request(call(Method::POST, server.url("/"))));
            let error = hung.await.unwrap_err();
            let rejected = Rejected::find(&error).unwrap();
            assert!(rejected.kind() == RejectedKind::TimedOut && rejected.reached_inner());
            assert_eq!(
                (ends.only(), server.connections()),
                ((1, StopReason::NotReplayable), 1)
            );

            let (policy, ends) = Ends::of(told(retry()));
            let refused = stack(policy).oneshot(request(call(Method::POST, nobody().await)));
            assert!(refused.await.unwrap_err().into_inner().is_some());
            assert_eq!(ends.only(), (3, StopReason::MaxAttempts));
        }

        #[tokio::test]
        async fn a_total_timeout_ends_the_attempt_under_way() {
            let server = Server::start([Reply::Status(503), Reply::Hang]).await;
            let (retry, ends) = Ends::of(retry());
            let service = ServiceBuilder::new()
                .layer(Timeout::total(Duration::from_millis(200)))
                .layer(retry)
                .map_err(Error::Inner)
                .service(client());
            let error = service
                .oneshot(request(call(Method::GET, server.url("/"))))
                .await
                .unwrap_err();
            assert_eq!(Rejected::find(&error).unwrap().policy(), "total timeout");
            assert_eq!(
                (ends.only(), server.connections()),
                ((2, StopReason::Cancelled), 2)
            );
        }

        #[tokio::test]
        async fn policies_that_share_a_budget_pay_from_it_together() {
            let budget = RetryBudget::builder().ratio(0.0).floor(0.2).build().unwrap();
            let server = Server::start(vec![Reply::Status(500); 20]).await;
            let mut retries = Vec::new();
            for _ in 0..5 {
                let (retry, ends) = Ends::of(retry().budget(&budget));
                send(retry, call(Method::GET, server.url("/"))).await.unwrap();
                retries.push(ends.only().0 - 1);
            }
            // The floor holds ten seconds: two retries, and not two for each.
            assert_eq!(retries.iter().sum::<u32>(), 2, "{retries:?}");
            assert_eq!(server.connections(), 7);
        }
    };
}

use scenarios;

reqwest_client!(reqwest);
reqwest_client!(reqwest_0_12);

#[allow(clippy::disallowed_methods, reason = "real waits on real sockets")]
fn now() -> Instant {
    Instant::now()
}
