//! What a client gets that sends its request again, while it is in progress and afterwards.

use ::tower::{Layer, ServiceExt};
use axum::middleware::Next;
use axum::routing::post;
use http::{HeaderName, HeaderValue};
use http_body_util::Full;

use super::*;

fn receipt(call: Call) -> std::future::Ready<Response> {
    let Call { run, body, .. } = call;
    let mut response = respond(201, format!("receipt {run} for {body:?}\u{20AC}"));
    let headers = response.headers_mut();
    for (name, value) in [
        ("link", b"</a>; rel=a".as_slice()),
        ("link", b"</b>; rel=b"),
        ("x-raw", b"caf\xE9"),
        ("content-type", b"text/plain; charset=utf-8"),
        ("set-cookie", b"session=secret"),
        ("connection", b"x-hop"),
        ("x-hop", b"1"),
        ("date", b"Fri, 20 Nov 2026 12:00:00 GMT"),
    ] {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    std::future::ready(response)
}

#[tokio::test]
async fn a_retry_gets_the_first_response_again_byte_for_byte() {
    let shop = Shop::open(at_least_once(), receipt).await;
    let first = shop.post("order-1", "10 EUR").await;
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((first.status, first.is_replay()), (201, false));
    assert_eq!((again.status, again.is_replay(), shop.runs()), (201, true, 1));
    assert_eq!(again.text(), "receipt 1 for b\"10 EUR\"\u{20AC}");
    assert_eq!(first.body, again.body);

    // What is not about the response is not in the replay; the server adds a date of its own.
    let (mut first, mut again) = (first.headers, again.headers);
    assert_ne!(first.remove("date"), again.remove("date"));
    for name in ["set-cookie", "connection", "x-hop"] {
        assert!(first.remove(name).is_some(), "{name}");
    }
    again.remove("idempotent-replayed");
    assert_eq!(first, again);
    assert_eq!(again.get_all("link").iter().count(), 2);
    assert_eq!(again["x-raw"].as_bytes(), b"caf\xE9");
}

#[tokio::test]
async fn a_key_means_the_same_with_quotes_and_without() {
    let shop = Shop::open(at_least_once(), receipt).await;
    shop.post("\"order-1\"", "10 EUR").await;
    assert!(shop.post("order-1", "10 EUR").await.is_replay());
}

#[tokio::test]
async fn the_second_click_hears_when_to_ask_again_and_then_gets_the_response() {
    let door = Door::default();
    let at = door.clone();
    let shop = Shop::open(at_least_once(), move |call| {
        let at = at.clone();
        async move {
            at.pass().await;
            respond(200, format!("run {}", call.run))
        }
    })
    .await;
    let shop = Arc::new(shop);
    let first = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.post("order-1", "10 EUR").await }
    });
    door.knocked().await;
    let (slug, retry_after) = shop.post("order-1", "10 EUR").await.problem(409);
    assert_eq!(slug, "in-progress");
    assert!(retry_after.unwrap() >= 1);
    // Another request under the key has no reason to wait.
    let (slug, retry_after) = shop.post("order-1", "99 EUR").await.problem(422);
    assert_eq!((slug.as_str(), retry_after), ("key-reused", None));

    door.open();
    assert_eq!(first.await.unwrap().text(), "run 1");
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((again.text(), again.is_replay()), ("run 1", true));
    assert_eq!(shop.post("order-1", "99 EUR").await.problem(422).0, "key-reused");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn a_policy_that_waits_gives_all_of_a_burst_the_one_response() {
    let shop = Shop::open(at_least_once().wait(Duration::from_secs(30)), async |call: Call| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        respond(200, format!("run {}", call.run))
    })
    .await;
    let clicks = futures::future::join_all((0..20).map(|_| shop.post("order-1", "10 EUR"))).await;
    assert!(
        clicks
            .iter()
            .all(|click| click.status == 200 && click.text() == "run 1")
    );
    assert_eq!(clicks.iter().filter(|click| !click.is_replay()).count(), 1);
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn the_same_key_of_another_tenant_is_another_key() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "run 1");
    let request = shop.request("POST", Some("order-1"), "10 EUR");
    // It comes after the other tenant's, and takes its place.
    let mut request = request.build().unwrap();
    request
        .headers_mut()
        .insert("x-tenant", HeaderValue::from_static("tenant-8"));
    let other = Answer::read(shop.client.execute(request).await.unwrap()).await;
    assert_eq!((other.text(), other.is_replay()), ("run 2", false));
}

#[tokio::test]
async fn a_panic_reaches_the_server_and_the_operation_is_interrupted() {
    let handler = async |call: Call| match call.run {
        1 => panic!("the handler panics"),
        _ => respond(200, format!("attempt {}", call.attempt.unwrap().number())),
    };
    let shop = Shop::open(at_least_once(), handler).await;
    // As without the layer: the connection is closed.
    shop.request("POST", Some("order-1"), "10 EUR")
        .send()
        .await
        .unwrap_err();
    shop.settled().await;
    assert_eq!(shop.status("order-1").await, Some(Status::Interrupted));
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "attempt 2");

    let shop = Shop::open(at_most_once(), handler).await;
    shop.request("POST", Some("order-1"), "10 EUR")
        .send()
        .await
        .unwrap_err();
    shop.settled().await;
    let (slug, retry_after) = shop.post("order-1", "10 EUR").await.problem(409);
    assert_eq!((slug.as_str(), retry_after, shop.runs()), ("outcome-unknown", None, 1));
}

#[tokio::test]
async fn a_handler_knows_its_attempt() {
    let shop = Shop::open(at_least_once(), async |call: Call| {
        let attempt = call.attempt.unwrap();
        respond(200, format!("{} {}", attempt.number(), attempt.derived_key("charge")))
    })
    .await;
    let answer = shop.post("order-1", "10 EUR").await;
    let (number, key) = answer.text().split_once(' ').unwrap();
    assert_eq!((number, key.len()), ("1", 64));
    let passed = Shop::open_with(at_least_once(), IdempotencyLayer::optional, async |call: Call| {
        respond(200, call.attempt.is_none().to_string())
    })
    .await;
    assert_eq!(Answer::of(passed.request("POST", None, "")).await.text(), "true");
}

#[tokio::test]
async fn a_layer_inside_of_itself_refuses_at_once_instead_of_waiting_for_itself() {
    let policy = at_least_once().wait(Duration::from_secs(3600)).build().unwrap();
    let layer = presets::idempotency(&policy, tenant);
    let router = Router::new().route("/pay", post(async || "paid"));
    let shop = Shop::serve(policy, Arc::default(), router.layer(layer.clone()).layer(layer)).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.problem(409).0, "in-progress");
    // Nothing of it is kept.
    assert_eq!(shop.status("order-1").await, None);
}

#[tokio::test]
async fn a_cancelled_key_and_a_store_that_refuses_are_told_apart() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    shop.policy.cancel(&Key::new(TENANT, "order-1")).await.unwrap();
    let (slug, retry_after) = shop.post("order-1", "10 EUR").await.problem(409);
    assert_eq!((slug.as_str(), retry_after), ("key-cancelled", None));

    let full = Idempotency::at_least_once(MemoryStore::with_max_records(0));
    let shop = Shop::open(full, numbered(200)).await;
    let (slug, retry_after) = shop.post("order-1", "10 EUR").await.problem(503);
    assert_eq!(slug, "store-unavailable");
    assert!(retry_after.unwrap() >= 1);
    assert_eq!(shop.runs(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_as_a_response_is_not_run_again() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    // Another face of the same policy has stored a value of its own there.
    let request = presets::idempotency(&shop.policy, tenant).fingerprint(|_, _| fixed());
    let key = Key::new(TENANT, "order-1");
    let stored = shop
        .policy
        .execute(&key, fixed(), async |_| Ok::<_, steadfast::Rejected>(7));
    stored.await.unwrap();
    let router = Router::new().route("/pay", post(async || "run")).layer(request);
    let shop = Shop::serve(shop.policy, Arc::new(AtomicU32::new(0)), router).await;
    assert_eq!(shop.post("order-1", "").await.problem(409).0, "outcome-not-replayable");
}

fn fixed() -> steadfast::idempotency::Fingerprint {
    steadfast::idempotency::Fingerprint::of_parts(&[b"always the same"])
}

#[tokio::test]
async fn the_layer_fits_a_server_of_hypers_own() {
    let policy = at_least_once().build().unwrap();
    let paid = async |_: http::Request<Body>| {
        let body = Full::new(Bytes::from_static(b"paid"));
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    };
    let service = presets::idempotency(&policy, tenant).layer(::tower::service_fn(paid));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = service.clone();
            // hyper's own body cannot be made of bytes, and axum's can be made of it.
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                service.clone().oneshot(request.map(Body::new))
            });
            let connection = hyper_util::rt::TokioIo::new(connection);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(connection, service));
        }
    });
    let shop = Shop::at(address, policy, Arc::default());
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "paid");
    assert!(shop.post("order-1", "10 EUR").await.is_replay());
}

#[tokio::test]
async fn the_layer_fits_between_middleware_that_wants_axums_own_requests() {
    let outer = async |request: Request, next: Next| next.run(request).await;
    let policy = at_least_once().build().unwrap();
    let stack = ::tower::ServiceBuilder::new()
        .layer(axum::middleware::from_fn(outer))
        .layer(presets::idempotency(&policy, tenant))
        .layer(axum::middleware::from_fn(outer));
    let router = Router::new().route("/pay", post(async || "paid")).layer(stack);
    let shop = Shop::serve(policy, Arc::new(AtomicU32::new(0)), router).await;
    assert_eq!(shop.post("order-1", "").await.text(), "paid");
    assert!(shop.post("order-1", "").await.is_replay());
}
