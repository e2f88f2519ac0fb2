//! Layers under `axum::serve`, over real connections: axum clones a service for each request and applies a layer to
//! each connection, and wants errors handled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod support;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use steadfast::circuit_breaker::{CircuitBreaker, State};
use steadfast::fallback::Fallback;
use steadfast::retry::{Retry, RetryBudget};
use steadfast::timeout::Timeout;
use steadfast::{Rejected, Verdict};
use support::{Log, MS};
use tower::ServiceBuilder;

/// Serves `router` on loopback, and asks it over this many connections at once.
async fn statuses(router: Router, connections: usize) -> Vec<u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let calls = (0..connections).map(|_| async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut statuses = Vec::new();
        // Twice each: the second request reuses the connection, and so its service.
        for _ in 0..2 {
            let response = client.get(format!("http://{address}/")).send().await.unwrap();
            statuses.push(response.status().as_u16());
        }
        statuses
    });
    let statuses = futures::future::join_all(calls).await.concat();
    server.abort();
    statuses
}

fn status(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Answers nothing, for ever.
fn hanging_router() -> Router {
    Router::new().route("/", get(|| async { std::future::pending::<()>().await }))
}

fn never(error: Infallible) -> Rejected {
    match error {}
}

#[tokio::test]
async fn a_timeout_serves_axum_behind_its_own_error_layer() {
    let layer = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|rejected: Rejected| async move {
            (StatusCode::GATEWAY_TIMEOUT, rejected.to_string())
        }))
        .layer(Timeout::new(20 * MS))
        .map_err(never);
    assert_eq!(statuses(hanging_router().layer(layer), 8).await, [504; 16]);
}

#[tokio::test]
async fn an_infallible_fallback_serves_axum_without_it() {
    let fallback = Fallback::from_error(|_: Rejected| Ok::<_, Infallible>(status(503))).infallible();
    let layer = ServiceBuilder::new()
        .layer(fallback)
        .layer(Timeout::new(20 * MS))
        .map_err(never);
    assert_eq!(statuses(hanging_router().layer(layer), 8).await, [503; 16]);
}

#[tokio::test]
async fn a_retry_serves_axum_and_its_budget_is_one_for_all_connections() {
    let calls = Log::default();
    let log = calls.clone();
    let router = Router::new().route(
        "/",
        get(move || {
            log.push(());
            async { StatusCode::SERVICE_UNAVAILABLE }
        }),
    );
    let ratio = 0.5;
    let budget = RetryBudget::builder().ratio(ratio).floor(0.0).build().unwrap();
    let retry = Retry::constant(MS)
        .budget(&budget)
        .classify(|result: Result<&Response<Body>, &Infallible>| match result {
            Ok(response) if response.status().is_server_error() => Verdict::TRANSIENT,
            _ => Verdict::Success,
        })
        .build()
        .unwrap();
    let replay = |request: &Request<Body>| {
        let mut copy = Request::new(Body::empty());
        *copy.uri_mut() = request.uri().clone();
        Some(copy)
    };
    assert_eq!(statuses(router.layer(retry.replay(replay)), 8).await, [503; 16]);
    // 16 calls earn 8 retries, and none of them goes unused.
    assert_eq!(calls.take().len(), 24);
}

#[tokio::test]
async fn a_circuit_breaker_serves_axum_and_is_one_for_all_connections() {
    let calls = Log::default();
    let log = calls.clone();
    let router = Router::new().route(
        "/",
        get(move || {
            log.push(());
            async { StatusCode::SERVICE_UNAVAILABLE }
        }),
    );
    let breaker = CircuitBreaker::builder("handlers")
        .failure_rate(1.0)
        .count_window(10)
        .classify(judge_response)
        .build()
        .unwrap();
    let layer = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|rejected: Rejected| async move {
            (StatusCode::IM_A_TEAPOT, rejected.to_string())
        }))
        .layer(breaker.clone())
        .map_err(never);
    let router = router.layer(layer);
    // Eight connections, two requests each: the first ten are answered, by whichever connection they come.
    let mut statuses = statuses(router, 8).await;
    statuses.sort_unstable();
    let answered = calls.take().len();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), answered);
    assert_eq!(statuses.iter().filter(|status| **status == 418).count(), 16 - answered);
    // A few of those that were under way when the tenth failed came after it.
    assert!((10..=16).contains(&answered), "{answered}");
    let snapshot = breaker.snapshot();
    assert_eq!((snapshot.state, snapshot.calls), (State::Open, 10));
    assert_eq!(snapshot.stale_results, u64::try_from(answered).unwrap() - 10);
}

#[tokio::test]
async fn a_stack_of_all_three_serves_axum() {
    let retry = Retry::constant(MS)
        .classify(judge_response)
        .build()
        .unwrap()
        .replay(|request: &Request<Body>| {
            let mut copy = Request::new(Body::empty());
            *copy.uri_mut() = request.uri().clone();
            Some(copy)
        });
    let fallback =
        Fallback::from_outcome(|_: Result<Response<Body>, Rejected>| async { Ok::<_, Infallible>(status(203)) });
    let layer = ServiceBuilder::new()
        .layer(fallback.infallible())
        .layer(retry)
        .layer(Timeout::attempt(20 * MS))
        .map_err(never);
    assert_eq!(statuses(hanging_router().layer(layer), 8).await, [203; 16]);
}

fn judge_response(result: Result<&Response<Body>, &Rejected>) -> Verdict {
    match result {
        Ok(response) if response.status().is_server_error() => Verdict::TRANSIENT,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::TRANSIENT,
    }
}
