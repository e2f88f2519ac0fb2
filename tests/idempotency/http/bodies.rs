//! Request bodies up to a limit, and responses that are too long, never end, or break off.

use ::tower::{Layer, ServiceExt};
use axum::Extension;
use axum::response::IntoResponse;
use futures::StreamExt;
use steadfast::http::idempotency::Streaming;

use super::*;

/// A request whose length is not told beforehand.
fn of_unknown_length(body: &'static [u8]) -> reqwest::Body {
    let chunks = body
        .chunks(3)
        .map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk)));
    reqwest::Body::wrap_stream(futures::stream::iter(chunks.collect::<Vec<_>>()))
}

fn limited(layer: IdempotencyLayer) -> IdempotencyLayer {
    layer.request_limit(10)
}

#[tokio::test]
async fn a_request_body_is_read_up_to_the_limit() {
    let shop = Shop::open_with(at_least_once(), limited, |call| {
        std::future::ready(respond(200, call.body))
    })
    .await;
    assert_eq!(shop.post("a", "0123456789").await.text(), "0123456789");
    assert_eq!(
        shop.post("b", of_unknown_length(b"0123456789")).await.text(),
        "0123456789"
    );
    assert_eq!(shop.post("c", "0123456789a").await.problem(413).0, "body-too-large");
    let too_long = shop.post("d", of_unknown_length(b"0123456789a")).await;
    assert_eq!(too_long.problem(413).0, "body-too-large");
    assert_eq!((shop.status("c").await, shop.status("d").await), (None, None));
    // The same content is the same request, however it was sent.
    assert!(shop.post("a", of_unknown_length(b"0123456789")).await.is_replay());
    assert_eq!(shop.runs(), 2);
}

#[tokio::test]
async fn an_upload_that_is_broken_off_leaves_no_claim() {
    let shop = Shop::open(at_least_once(), numbered(200)).await;
    let start = "POST /pay HTTP/1.1\r\nhost: shop\r\nx-tenant: tenant-7\r\nidempotency-key: order-1\r\n";
    for rest in [
        "content-length: 100\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let answer = shop.raw(format!("{start}{rest}").as_bytes()).await;
        // Whoever shuts a connection down may not be answered at all.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(shop.status("order-1").await, None);
    }
    assert_eq!(shop.runs(), 0);
    assert_eq!(shop.post("order-1", "whole").await.text(), "run 1");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_the_clients_mistake() {
    let policy = at_least_once().build().unwrap();
    let inner = ::tower::service_fn(async |_: Request| Ok::<_, std::convert::Infallible>(respond(200, "run")));
    let service = presets::idempotency(&policy, tenant).layer(inner);
    let request = http::Request::post("/pay").header("x-tenant", TENANT);
    let body = chunked([Ok("half"), Err(std::io::ErrorKind::ConnectionReset.into())]);
    let request = request.header("idempotency-key", "order-1").body(body).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(
        policy.inspect(policy.id(&Key::new(TENANT, "order-1"))).await.unwrap(),
        None
    );
}

/// A policy whose outcomes have at most 64 bytes.
fn small() -> IdempotencyBuilder {
    at_least_once().max_outcome(64)
}

async fn is_never_run_again(shop: &Shop) {
    assert_eq!(
        shop.post("order-1", "10 EUR").await.problem(409).0,
        "outcome-not-replayable"
    );
    assert_eq!(shop.post("order-1", "99 EUR").await.problem(422).0, "key-reused");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn a_response_over_the_limit_passes_and_is_never_run_again() {
    const PART: &str = "0123456789012345678901234567890123456789";
    for told in [true, false] {
        let shop = Shop::open(small(), move |_| {
            std::future::ready(if told {
                respond(200, PART.repeat(3))
            } else {
                respond(200, chunked([Ok(PART), Ok(PART), Ok(PART)]))
            })
        })
        .await;
        let first = shop.post("order-1", "10 EUR").await;
        assert_eq!((first.status, first.text()), (200, PART.repeat(3).as_str()));
        is_never_run_again(&shop).await;
    }
}

#[tokio::test]
async fn a_response_of_unknown_length_within_the_limit_is_replayed() {
    let shop = Shop::open(small(), |_| {
        std::future::ready(respond(200, chunked([Ok("one "), Ok(""), Ok("two")])))
    })
    .await;
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "one two");
    let again = shop.post("order-1", "10 EUR").await;
    assert_eq!((again.text(), again.is_replay(), shop.runs()), ("one two", true, 1));
}

#[tokio::test]
async fn a_head_that_does_not_fit_leaves_the_status() {
    let shop = Shop::open(small(), |_| {
        std::future::ready(([("x-long", "x".repeat(100))], "short").into_response())
    })
    .await;
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "short");
    is_never_run_again(&shop).await;
}

#[tokio::test]
async fn a_stream_reaches_the_client_while_it_is_made_and_is_never_run_again() {
    for kind in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "extension"] {
        let door = Door::default();
        let at = door.clone();
        let shop = Shop::open(at_least_once(), move |_| {
            let at = at.clone();
            let events = futures::stream::iter(["data: 1\n\n", "data: 2\n\n"]).enumerate();
            let events = events.then(move |(n, event)| {
                let at = at.clone();
                async move {
                    if n > 0 {
                        at.pass().await;
                    }
                    Ok::<_, std::io::Error>(event)
                }
            });
            let body = Body::from_stream(events);
            std::future::ready(match kind {
                "extension" => (Extension(Streaming), body).into_response(),
                content_type => ([("content-type", content_type)], body).into_response(),
            })
        })
        .await;
        let request = shop.request("POST", Some("order-1"), "10 EUR");
        let mut response = request.send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n", "{kind}");
        is_never_run_again(&shop).await;
        door.open();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 2\n\n", "{kind}");
        assert_eq!(response.chunk().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_interrupts_and_breaks_off_for_the_client_too() {
    let shop = Shop::open(at_least_once(), |call| {
        let broken = (call.run == 1).then(|| Err(std::io::ErrorKind::BrokenPipe.into()));
        let attempt = format!("attempt {}", call.attempt.unwrap().number());
        std::future::ready(match broken {
            Some(broken) => respond(200, chunked([Ok("half a res"), broken])),
            None => respond(200, attempt),
        })
    })
    .await;
    let cut = shop.request("POST", Some("order-1"), "10 EUR").send().await;
    if let Ok(response) = cut {
        response.bytes().await.unwrap_err();
    }
    shop.settled().await;
    assert_eq!(shop.status("order-1").await, Some(Status::Interrupted));
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), "attempt 2");
}
