//! Policies around axum's handlers, served by `axum::serve` to eight connections at once.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Request, StatusCode};
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, put};
use futures::future::{Either, Ready, join_all, ready};
use steadfast::bulkhead::{Bulkhead, Event};
use steadfast::fallback::Fallback;
use steadfast::retry::StopReason;
use steadfast::timeout::Timeout;
use steadfast::{Rejected, RejectedKind, http};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder};

use super::{Ends, retry};

const LIMIT: Duration = Duration::from_millis(200);

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    content_type: Option<String>,
    body: String,
}

async fn fetch(client: &reqwest::Client, url: &str) -> Answer {
    let response = client.get(url).send().await.unwrap();
    let header = |name| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    Answer {
        status: response.status().as_u16(),
        retry_after: header("retry-after"),
        content_type: header("content-type"),
        body: response.text().await.unwrap(),
    }
}

/// Asks eight times at once, each time over a connection of its own.
async fn eight(url: &str) -> Vec<Answer> {
    let client = || reqwest::Client::builder().no_proxy().build().unwrap();
    join_all((0..8).map(|_| async move { fetch(&client(), url).await })).await
}

/// Lets `admitted` calls in at all, and rejects every other one.
#[derive(Clone)]
struct Admit {
    admitted: Arc<AtomicUsize>,
    rejection: fn() -> Rejected,
}

fn admit(admitted: usize, rejection: fn() -> Rejected) -> Admit {
    Admit {
        admitted: Arc::new(AtomicUsize::new(admitted)),
        rejection,
    }
}

#[derive(Clone)]
struct Admitting<S> {
    inner: S,
    admit: Admit,
}

impl<S> Layer<S> for Admit {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting {
            inner,
            admit: self.clone(),
        }
    }
}

impl<S, Req> Service<Req> for Admitting<S>
where
    S: Service<Req, Error = Rejected>,
{
    type Response = S::Response;
    type Error = Rejected;
    type Future = Either<S::Future, Ready<Result<S::Response, Rejected>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let left = &self.admit.admitted;
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Either::Left(self.inner.call(request)),
            Err(_) => Either::Right(ready(Err((self.admit.rejection)()))),
        }
    }
}

fn open_circuit() -> Rejected {
    Rejected::circuit_open("x", Duration::from_millis(1_500))
}

#[tokio::test]
async fn a_handler_that_hangs_is_a_504_with_one_line_of_text() {
    let app = Router::new()
        .route("/slow", get(pending::<String>))
        .route("/quick", get(async || "here"))
        .layer(http::server(Timeout::new(LIMIT).name("orders")));
    let url = serve(app).await;
    for answer in eight(&format!("{url}/slow")).await {
        assert_eq!((answer.status, &*answer.body), (504, "no answer in time\n"));
        assert_eq!(answer.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.retry_after, None);
    }
    for answer in eight(&format!("{url}/quick")).await {
        assert_eq!((answer.status, &*answer.body), (200, "here"));
    }
}

#[tokio::test]
async fn an_open_circuit_is_a_503_with_a_retry_after_that_is_rounded_up() {
    let app = Router::new()
        .route("/", get(async || "here"))
        .layer(http::server(admit(3, open_circuit)));
    let answers = eight(&serve(app).await).await;
    let (served, rejected): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), rejected.len()), (3, 5));
    for answer in rejected {
        assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("2")));
        assert_eq!(answer.body, "not available at the moment\n");
    }
}

#[tokio::test]
async fn a_kind_of_rejection_has_the_status_that_was_mapped_to_it() {
    let layer = || {
        http::server(admit(0, || Rejected::bulkhead_full("x")))
            .status(RejectedKind::BulkheadFull, StatusCode::IM_A_TEAPOT)
            .status(RejectedKind::BulkheadFull, StatusCode::TOO_MANY_REQUESTS)
            .status(RejectedKind::TimedOut, StatusCode::BAD_GATEWAY)
    };
    let url = serve(Router::new().route("/", get(async || "here")).layer(layer())).await;
    for answer in eight(&url).await {
        assert_eq!((answer.status, &*answer.body), (429, "not available at the moment\n"));
    }
}

#[tokio::test]
async fn the_whole_response_is_the_users() {
    let layer = http::server(admit(0, open_circuit)).respond(|rejected: Rejected| {
        Response::builder()
            .status(418)
            .header("retry-after", "9")
            .body(Body::from(format!("{:?} by {}", rejected.kind(), rejected.policy())))
            .unwrap()
    });
    let url = serve(Router::new().route("/", get(async || "here")).layer(layer)).await;
    for answer in eight(&url).await {
        assert_eq!((answer.status, &*answer.body), (418, "CircuitOpen by x"));
        assert_eq!(answer.retry_after.as_deref(), Some("9"));
    }
}

#[tokio::test]
async fn a_route_layer_leaves_unknown_routes_alone() {
    let app = Router::new()
        .route("/", get(async || "here"))
        .route_layer(http::server(admit(0, open_circuit)));
    let url = serve(app).await;
    assert!(eight(&url).await.iter().all(|answer| answer.status == 503));
    assert!(
        eight(&format!("{url}/unknown"))
            .await
            .iter()
            .all(|answer| answer.status == 404)
    );
}

#[tokio::test]
async fn layers_of_one_router_stack() {
    let app = Router::new()
        .route(
            "/{wait}",
            get(|Path(wait): Path<u64>| async move {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                "here"
            }),
        )
        .layer(http::server(Timeout::new(LIMIT).name("inner")))
        .layer(http::server(admit(12, open_circuit)));
    let url = serve(app).await;
    assert!(
        eight(&format!("{url}/1000"))
            .await
            .iter()
            .all(|answer| answer.status == 504)
    );
    let statuses: Vec<_> = eight(&format!("{url}/0"))
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        4,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 503).count(),
        4,
        "{statuses:?}"
    );
}

#[tokio::test]
async fn a_retry_within_repeats_the_handler_with_the_same_body() {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let (retry, ends) = Ends::of(retry());
    let app = Router::new()
        .route(
            "/",
            put(move |body: String| async move {
                let mut seen = seen.lock().unwrap();
                seen.push(body);
                if seen.len() < 3 {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::OK
                }
            }),
        )
        .layer(http::server(
            ServiceBuilder::new().layer(retry).layer(Timeout::attempt(LIMIT)),
        ));
    let url = serve(app).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = client.put(url).body("again").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["again"; 3]);
    assert_eq!(ends.only(), (3, StopReason::Success));
}

#[tokio::test]
async fn a_retry_within_repeats_what_timed_out_and_not_what_was_rejected() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = calls.clone();
    let (policy, ends) = Ends::of(retry());
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                if counting.fetch_add(1, Ordering::Relaxed) == 0 {
                    pending::<()>().await;
                }
                "here"
            }),
        )
        .layer(http::server(
            ServiceBuilder::new().layer(policy).layer(Timeout::attempt(LIMIT)),
        ));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(fetch(&client, &serve(app).await).await.body, "here");
    assert_eq!(
        (ends.only(), calls.load(Ordering::Relaxed)),
        ((2, StopReason::Success), 2)
    );

    let (policy, ends) = Ends::of(retry());
    let app = Router::new().route("/", get(async || "here")).layer(http::server(
        ServiceBuilder::new().layer(policy).layer(admit(0, open_circuit)),
    ));
    assert_eq!(fetch(&client, &serve(app).await).await.status, 503);
    assert_eq!(ends.only(), (1, StopReason::NotRetryable));
}

#[tokio::test]
async fn a_fallback_within_answers_instead_of_the_rejection() {
    let fallback = Fallback::from_error(|rejected: Rejected| {
        Ok::<_, Rejected>(Response::new(Body::from(format!("cached, as {rejected}"))))
    });
    let app = Router::new().route("/", get(pending::<String>)).layer(http::server(
        ServiceBuilder::new().layer(fallback).layer(Timeout::new(LIMIT)),
    ));
    for answer in eight(&serve(app).await).await {
        assert_eq!(
            (answer.status, &*answer.body),
            (200, "cached, as timed out at `timeout`")
        );
    }
}

/// A request that is being served.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn eight_connections_share_one_limit_and_those_that_wait_too_long_are_504() {
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Also when the timeout drops it half-way.
                let _busy = Busy(busy);
                tokio::time::sleep(LIMIT / 2).await;
                "here"
            }),
        )
        .layer(http::server(
            ServiceBuilder::new()
                .layer(Timeout::new(LIMIT))
                .layer(GlobalConcurrencyLimitLayer::new(1)),
        ));
    let answers = eight(&serve(app).await).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(peak.load(Ordering::SeqCst), 1);
    // One at once, half a limit each: the first is served, and there is no time for a third.
    assert!(
        (1..=2).contains(&count(200)) && count(200) + count(504) == 8,
        "{}",
        count(200)
    );
}

#[tokio::test]
async fn a_breaker_that_handlers_opened_answers_for_them_with_its_open_time() {
    let calls = Arc::new(AtomicUsize::new(0));
    let handled = calls.clone();
    let breaker = http::circuit_breaker("orders").consecutive_failures(3).build().unwrap();
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                handled.fetch_add(1, Ordering::SeqCst);
                StatusCode::SERVICE_UNAVAILABLE
            }),
        )
        .route("/well", get(async || "here"))
        .layer(http::server(breaker.clone()));
    let url = serve(app).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..3 {
        let answer = fetch(&client, &url).await;
        assert_eq!((answer.status, answer.retry_after, &*answer.body), (503, None, ""));
    }
    // The same breaker on every connection, and on every route of the layer.
    for answer in eight(&url).await.into_iter().chain(eight(&format!("{url}/well")).await) {
        assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("10")));
        assert_eq!(answer.body, "not available at the moment\n");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    breaker.reset();
    assert_eq!(fetch(&client, &format!("{url}/well")).await.body, "here");
}

#[tokio::test]
async fn a_bulkhead_has_one_limit_for_all_connections_and_the_rest_are_503_at_once() {
    let (gate, refused) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (handlers, opener) = (gate.clone(), gate.clone());
    let lanes = Bulkhead::builder("orders")
        .max_concurrent(2)
        .on_event(move |event| {
            // The two that are in wait until the other six have been refused.
            if let Event::Full { .. } = event
                && refused.fetch_add(1, Ordering::SeqCst) == 5
            {
                opener.add_permits(2);
            }
        })
        .build()
        .unwrap();
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                handlers.acquire().await.unwrap().forget();
                "here"
            }),
        )
        .layer(http::server(lanes.clone()));
    let (served, refused): (Vec<_>, Vec<_>) = eight(&serve(app).await)
        .await
        .into_iter()
        .partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (2, 6));
    for answer in refused {
        assert_eq!((answer.status, &*answer.body), (503, "not available at the moment\n"));
        assert_eq!(answer.retry_after, None);
    }
    assert_eq!((lanes.in_flight(), lanes.available()), (0, 2));
}

#[tokio::test]
async fn who_waits_too_long_in_a_bulkhead_is_a_503() {
    let lanes = Bulkhead::builder("orders")
        .max_concurrent(1)
        .max_queued(8)
        .max_wait(Duration::from_millis(50))
        .build()
        .unwrap();
    let app = Router::new()
        .route("/", get(async || "here"))
        .layer(http::server(lanes.clone()));
    let url = serve(app).await;
    let permit = lanes.try_acquire().unwrap();
    for answer in eight(&url).await {
        assert_eq!((answer.status, &*answer.body), (503, "not available at the moment\n"));
    }
    drop(permit);
    assert!(eight(&url).await.iter().all(|answer| answer.status == 200));
}

/// A service that cannot fail and is never ready, or is at once.
#[derive(Clone)]
struct Gate(bool);

impl Service<Request<Body>> for Gate {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::from("here"))))
    }
}

#[tokio::test]
async fn a_service_that_is_never_ready_is_a_504() {
    let app = Router::new()
        .route_service("/open", http::server(Timeout::new(LIMIT)).layer(Gate(true)))
        .route_service("/closed", http::server(Timeout::new(LIMIT)).layer(Gate(false)));
    let url = serve(app).await;
    assert!(
        eight(&format!("{url}/closed"))
            .await
            .iter()
            .all(|answer| answer.status == 504)
    );
    assert!(
        eight(&format!("{url}/open"))
            .await
            .iter()
            .all(|answer| answer.body == "here")
    );
}

/// Rejects in `poll_ready`, once.
struct Unready {
    rejects: bool,
}

impl Service<Request<Body>> for Unready {
    type Response = Response;
    type Error = Rejected;
    type Future = Ready<Result<Response, Rejected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        if std::mem::take(&mut self.rejects) {
            Poll::Ready(Err(open_circuit()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::from("here"))))
    }
}

#[tokio::test]
async fn a_rejection_while_it_becomes_ready_answers_the_next_call_and_no_other() {
    let unready = tower::layer::layer_fn(|_: http::Fallible<Gate>| Unready { rejects: true });
    let mut service = http::server(unready).layer(Gate(true));
    for status in [503, 200] {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let response = service.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), status);
    }
}
