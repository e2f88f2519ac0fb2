//! Which requests are under a key, and what a key looks like.

use ::tower::limit::ConcurrencyLimit;
use ::tower::{Layer, Service, ServiceExt};
use futures::FutureExt;
use http::Method;

use super::*;

#[tokio::test]
async fn a_request_without_a_key_is_refused_unless_the_key_is_optional() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    for method in ["POST", "PATCH"] {
        let (slug, retry_after) = Answer::of(shop.request(method, None, "")).await.problem(400);
        assert_eq!((slug.as_str(), retry_after), ("key-missing", None), "{method}");
    }
    assert_eq!(shop.runs(), 0);

    let shop = Shop::open_with(at_least_once(), IdempotencyLayer::optional, numbered(200)).await;
    for run in ["run 1", "run 2"] {
        assert_eq!(Answer::of(shop.request("POST", None, "")).await.text(), run);
    }
    assert_eq!(shop.post("order-1", "").await.text(), "run 3");
    assert!(shop.post("order-1", "").await.is_replay());
    assert_eq!(shop.post("", "").await.problem(400).0, "key-malformed");
}

#[tokio::test]
async fn other_methods_are_not_touched_even_with_a_key() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    for (method, run) in [
        ("GET", "run 1"),
        ("PUT", "run 2"),
        ("DELETE", "run 3"),
        ("GET", "run 4"),
    ] {
        let answer = Answer::of(shop.request(method, Some("order-1"), "")).await;
        assert_eq!((answer.text(), answer.is_replay()), (run, false), "{method}");
    }
    assert_eq!(shop.status("order-1").await, None);

    let only_put = |layer: IdempotencyLayer| layer.methods([Method::PUT]);
    let shop = Shop::open_with(at_least_once(), only_put, numbered(200)).await;
    assert_eq!(Answer::of(shop.request("POST", None, "")).await.text(), "run 1");
    assert_eq!(
        Answer::of(shop.request("PUT", None, "")).await.problem(400).0,
        "key-missing"
    );
}

#[tokio::test]
async fn a_request_of_nobody_is_refused_before_anything_else_is_said_of_it() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    let url = format!("http://{}/pay", shop.address);
    for key in [Some("order-1"), Some("mal formed"), None] {
        let mut request = shop.client.post(&url);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        assert_eq!(Answer::of(request).await.problem(401).0, "unauthenticated", "{key:?}");
    }
    assert_eq!(shop.runs(), 0);
}

#[tokio::test]
async fn malformed_keys_are_refused() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    let too_long = "k".repeat(256);
    for key in ["", "\"\"", "a b", "a\tb", "\"a\"b\"", "a\\b", too_long.as_str()] {
        assert_eq!(shop.post(key, "").await.problem(400).0, "key-malformed", "{key:?}");
    }
    let longest = "k".repeat(255);
    assert_eq!(shop.post(&longest, "").await.status, 200);

    let start = b"POST /pay HTTP/1.1\r\nhost: shop\r\nx-tenant: tenant-7\r\nconnection: close\r\n".as_slice();
    for headers in [
        b"idempotency-key: caf\xE9\r\n\r\n".as_slice(),
        b"idempotency-key: a\r\nidempotency-key: a\r\n\r\n",
        b"idempotency-key: a\r\nIdempotency-Key: b\r\n\r\n",
    ] {
        let answer = shop.raw(&[start, headers].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("#key-malformed"), "{answer}");
    }
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn what_tells_requests_apart_can_be_chosen() {
    let by_first_byte = |layer: IdempotencyLayer| {
        layer.fingerprint(|_, body| steadfast::idempotency::Fingerprint::of_parts(&[&body[..1]]))
    };
    let shop = Shop::open_with(at_least_once(), by_first_byte, numbered(200)).await;
    shop.post("order-1", "a1").await;
    assert!(shop.post("order-1", "a2").await.is_replay());
    assert_eq!(shop.post("order-1", "b1").await.problem(422).0, "key-reused");
}

#[tokio::test]
async fn the_types_of_problems_can_be_ones_own() {
    let own = |layer: IdempotencyLayer| layer.problem_types("https://shop.example/problems/");
    let shop = Shop::open_with(at_least_once(), own, numbered(200)).await;
    let answer = Answer::of(shop.request("POST", None, "")).await;
    let document: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(document["type"], "https://shop.example/problems/key-missing");
}

#[tokio::test]
async fn no_request_keeps_its_place_in_the_service_below() {
    let policy = at_least_once().build().unwrap();
    let paid = ::tower::service_fn(async |_: Request| Ok::<_, std::convert::Infallible>(respond(200, "paid")));
    let layer = presets::idempotency(&policy, tenant);
    let mut service = layer.layer(ConcurrencyLimit::new(paid, 1));
    for (method, key) in [("POST", ""), ("POST", "order-1"), ("POST", "order-1"), ("GET", "")] {
        let request = http::Request::builder().method(method).uri("/pay");
        let request = request.header("x-tenant", TENANT).header("idempotency-key", key);
        let request = request.body(Body::empty()).unwrap();
        let ready = service.ready().now_or_never().expect("the place is free").unwrap();
        // The future is still there, and its response.
        let mut call = std::pin::pin!(ready.call(request));
        let _response = call.as_mut().await.unwrap();
        assert!(service.clone().ready().now_or_never().is_some(), "{method} {key}");
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    use presets::idempotency::{DEFAULT_PROBLEM_TYPES, DEFAULT_REQUEST_LIMIT};

    let mebibytes = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let page = include_str!("../../../docs/idempotency_http.md");
    let layer = include_str!("../../../src/http/idempotency/layer.rs");
    let request = mebibytes(DEFAULT_REQUEST_LIMIT);
    let outcome = mebibytes(steadfast::idempotency::DEFAULT_MAX_OUTCOME);
    for (text, line) in [
        (page, format!("| `request_limit` | {request} |")),
        (page, format!("| longest response that is stored | {outcome} |")),
        (layer, format!("refused with 413. Default: {request}.")),
    ] {
        assert!(text.contains(&line), "no longer written: {line}");
    }
    assert!(DEFAULT_PROBLEM_TYPES.ends_with("/steadfast/http/idempotency/#"));
}
