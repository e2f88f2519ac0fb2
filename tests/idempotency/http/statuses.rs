//! What each status means for the record of its key.

use axum::Extension;
use axum::response::IntoResponse;
use steadfast::bulkhead::Bulkhead;
use steadfast::circuit_breaker::CircuitBreaker;
use steadfast::http::NotExecuted;
use steadfast::idempotency::Disposition;

use super::*;

/// What a retry finds after a response with `status`.
async fn after(policy: IdempotencyBuilder, status: u16) -> Option<Status> {
    let shop = Shop::open(policy, numbered(status)).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, status);
    shop.settled().await;
    shop.status("order-1").await
}

#[tokio::test]
async fn at_least_once_what_is_refused_before_the_handler_frees_the_key_and_failures_do_not() {
    for (status, record) in [
        (200, Some(Status::Completed)),
        (204, Some(Status::Completed)),
        (303, Some(Status::Completed)),
        (402, Some(Status::Completed)),
        (404, Some(Status::Completed)),
        (409, Some(Status::Completed)),
        (400, None),
        (401, None),
        (403, None),
        (405, None),
        (406, None),
        (411, None),
        (413, None),
        (414, None),
        (415, None),
        (422, None),
        (431, None),
        (408, Some(Status::Interrupted)),
        (425, Some(Status::Interrupted)),
        (429, Some(Status::Interrupted)),
        (500, Some(Status::Interrupted)),
        (502, Some(Status::Interrupted)),
        (503, Some(Status::Interrupted)),
        (599, Some(Status::Interrupted)),
        (600, Some(Status::Interrupted)),
    ] {
        assert_eq!(after(at_least_once(), status).await, record, "{status}");
    }
}

#[tokio::test]
async fn at_most_once_every_client_error_is_an_outcome() {
    for status in [200, 400, 401, 403, 405, 406, 411, 413, 414, 415, 422, 431] {
        assert_eq!(after(at_most_once(), status).await, Some(Status::Completed), "{status}");
    }
    for status in [408, 425, 429, 500, 503] {
        assert_eq!(
            after(at_most_once(), status).await,
            Some(Status::Interrupted),
            "{status}"
        );
    }
}

#[tokio::test]
async fn after_a_server_error_the_retry_runs_again_or_never_as_the_mode_says() {
    let failing_once = |call: Call| {
        let attempt = call.attempt.unwrap().number();
        std::future::ready(respond(
            if call.run == 1 { 500 } else { 200 },
            format!("attempt {attempt}"),
        ))
    };
    let shop = Shop::open(at_least_once(), failing_once).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, 500);
    // The key is not free: it is still this request's.
    assert_eq!(shop.post("order-1", "99 EUR").await.problem(422).0, "key-reused");
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "attempt 2");
    assert!(shop.post("order-1", "10 EUR").await.is_replay());

    let shop = Shop::open(at_most_once(), failing_once).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, 500);
    assert_eq!(shop.post("order-1", "10 EUR").await.problem(409).0, "outcome-unknown");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn what_an_operator_has_found_out_is_replayed() {
    let shop = Shop::open(at_most_once(), numbered(500)).await;
    shop.post("order-1", "10 EUR").await;
    shop.settled().await;
    let (id, _) = shop.policy.list_interrupted(None, 10).await.unwrap().remove(0);
    let mut response = http::Response::new(Bytes::from_static(b"paid after all"));
    *response.status_mut() = http::StatusCode::CREATED;
    response
        .headers_mut()
        .insert("etag", http::HeaderValue::from_static("7"));
    let layer = presets::idempotency(&shop.policy, tenant);
    let too_long = http::Response::new(vec![0; 2 << 20].into());
    let error = layer.resolve_completed(id, too_long).await.unwrap_err();
    assert_eq!(error.kind(), steadfast::storage::StorageErrorKind::Refused);
    layer.resolve_completed(id, response).await.unwrap();
    let answer = shop.post("order-1", "10 EUR").await;
    assert_eq!(
        (answer.status, answer.text(), answer.is_replay()),
        (201, "paid after all", true)
    );
    assert_eq!((answer.header("etag"), shop.runs()), (Some("7"), 1));
}

#[tokio::test]
async fn server_errors_are_replayed_where_that_is_asked_for() {
    let storing = |layer: IdempotencyLayer| layer.store_server_errors();
    let shop = Shop::open_with(at_least_once(), storing, numbered(500)).await;
    shop.post("order-1", "10 EUR").await;
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((again.status, again.text(), again.is_replay()), (500, "run 1", true));

    let shop = Shop::open_with(at_least_once(), storing, numbered(429)).await;
    shop.post("order-1", "10 EUR").await;
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "run 2");
}

#[tokio::test]
async fn what_was_not_executed_frees_the_key_for_a_corrected_request() {
    let picky = |call: Call| {
        std::future::ready(match &call.body[..] {
            b"10 EUR" => respond(200, "paid"),
            _ => (Extension(NotExecuted), respond(422, "10 EUR or nothing")).into_response(),
        })
    };
    for policy in [at_least_once(), at_most_once()] {
        let shop = Shop::open(policy, picky).await;
        assert_eq!(shop.post("order-1", "9 EUR").await.text(), "10 EUR or nothing");
        assert_eq!(shop.post("order-1", "10 EUR").await.text(), "paid");
        assert!(shop.post("order-1", "10 EUR").await.is_replay());
    }
}

#[tokio::test]
async fn what_a_policy_refuses_below_the_layer_frees_the_key() {
    let policy = at_most_once().build().unwrap();
    let breaker = CircuitBreaker::builder("ledger")
        .classify(|_: Result<&Response, &steadfast::Rejected>| steadfast::Verdict::Success)
        .build()
        .unwrap();
    breaker.force_open();
    let router = Router::new()
        .route("/pay", any(async || "paid"))
        .layer(presets::server(breaker.clone()))
        .layer(presets::idempotency(&policy, tenant));
    let shop = Shop::serve(policy, Arc::default(), router).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, 503);
    assert_eq!(shop.status("order-1").await, None);
    breaker.reset();
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "paid");
}

#[tokio::test]
async fn an_error_of_the_stack_below_is_passed_on_and_frees_the_key_if_nothing_was_sent() {
    let policy = at_most_once().build().unwrap();
    let lanes = Bulkhead::builder("lanes").max_concurrent(1).build().unwrap();
    let permit = lanes.try_acquire().unwrap();
    let stack = ::tower::ServiceBuilder::new()
        .layer(presets::idempotency(&policy, tenant))
        .layer(lanes.clone());
    let router = Router::new()
        .route("/pay", any(async || "paid"))
        .layer(presets::server(stack));
    let shop = Shop::serve(policy, Arc::default(), router).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, 503);
    shop.settled().await;
    assert_eq!(shop.status("order-1").await, None);
    drop(permit);
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "paid");
}

#[tokio::test]
async fn a_response_can_be_judged_by_hand() {
    let by_hand = |layer: IdempotencyLayer| {
        layer.classify(|head| match head.status.as_u16() {
            402 => Some(Disposition::Release),
            500 => Some(Disposition::StoreFor(Duration::from_secs(3600))),
            404 => Some(Disposition::Interrupt),
            _ => None,
        })
    };
    for (status, record) in [
        (402, None),
        (500, Some(Status::Completed)),
        (404, Some(Status::Interrupted)),
        (503, Some(Status::Interrupted)),
    ] {
        let shop = Shop::open_with(at_least_once(), by_hand, numbered(status)).await;
        shop.post("order-1", "10 EUR").await;
        shop.settled().await;
        assert_eq!(shop.status("order-1").await, record, "{status}");
        if status == 500 {
            let left = shop.record("order-1").await.unwrap().expires_in().unwrap();
            assert!(left <= Duration::from_secs(3600), "{left:?}");
        }
    }
}
