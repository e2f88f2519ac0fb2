//! What is asked before a client hears that nobody has its response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::StatusCode;
use steadfast::http::idempotency::Tombstone;
use steadfast::idempotency::{Interruption, Recovery};

use super::{Shop, at_least_once, at_most_once, chunked, numbered, respond};

const LONG: &str = "0123456789012345678901234567890123456789";

fn found(status: u16, body: &'static str) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[tokio::test]
async fn a_long_response_is_made_anew_from_where_the_handler_has_put_it() {
    let kept = Arc::new(std::sync::Mutex::new(None));
    let (keeps, finds) = (Arc::clone(&kept), kept);
    let hook = move |tombstone: Tombstone| {
        let under = tombstone.derived_key("report");
        let found = finds.lock().unwrap().clone().filter(|(key, _)| *key == under);
        async move {
            assert_eq!(
                (tombstone.attempt(), tombstone.status()),
                (1, Some(StatusCode::CREATED))
            );
            let kind = tombstone.headers()?.get("x-kind")?.clone();
            let (_, report): (String, Bytes) = found?;
            let mut response = http::Response::new(report);
            response.headers_mut().insert("x-kind", kind);
            Some(response)
        }
    };
    let handler = move |call: super::Call| {
        let key = call.attempt.unwrap().derived_key("report");
        *keeps.lock().unwrap() = Some((key, Bytes::from(LONG.repeat(3))));
        let mut response = respond(201, chunked([Ok(LONG), Ok(LONG), Ok(LONG)]));
        response.headers_mut().insert("x-kind", "report".parse().unwrap());
        std::future::ready(response)
    };
    let small = at_least_once().max_outcome(100);
    let shop = Shop::open_with(small, |layer| layer.rebuild(hook), handler).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.text(), LONG.repeat(3));
    for _ in 0..2 {
        let again = shop.post("order-1", "10 EUR").await;
        assert_eq!((again.text(), again.is_replay()), (LONG.repeat(3).as_str(), true));
        assert_eq!(again.header("x-kind"), Some("report"));
    }
    assert_eq!(shop.post("order-1", "99 EUR").await.problem(422).0, "key-reused");
    assert_eq!(shop.runs(), 1);
}

#[tokio::test]
async fn what_the_hook_cannot_make_either_is_refused_as_without_one() {
    let small = at_least_once().max_outcome(64);
    let handler = |_| std::future::ready(respond(200, LONG.repeat(3)));
    let shop = Shop::open_with(small, |layer| layer.rebuild(async |_| None), handler).await;
    shop.post("order-1", "10 EUR").await;
    let refused = shop.post("order-1", "10 EUR").await;
    assert_eq!(
        (refused.problem(409).0.as_str(), shop.runs()),
        ("outcome-not-replayable", 1)
    );
}

#[tokio::test]
async fn a_response_that_can_be_replayed_is_not_made_anew() {
    let hook = async |_| panic!("it was stored");
    let shop = Shop::open_with(at_least_once(), |layer| layer.rebuild(hook), numbered(200)).await;
    for _ in 0..2 {
        assert_eq!(shop.post("order-1", "10 EUR").await.text(), "run 1");
    }
}

#[tokio::test]
async fn what_the_hook_has_found_out_is_replayed_without_asking_again() {
    let asked = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&asked);
    let hook = move |interrupted: Interruption| {
        counts.fetch_add(1, Ordering::SeqCst);
        assert_eq!(interrupted.attempt(), 1);
        async { Recovery::Completed(found(201, "receipt 7")) }
    };
    let shop = Shop::open_with(at_most_once(), |layer| layer.recover(hook), numbered(500)).await;
    assert_eq!(shop.post("order-1", "10 EUR").await.status, 500);
    for _ in 0..2 {
        let recovered = shop.post("order-1", "10 EUR").await;
        assert_eq!((recovered.status, recovered.text()), (201, "receipt 7"));
        assert!(recovered.is_replay());
    }
    assert_eq!((asked.load(Ordering::SeqCst), shop.runs()), (1, 1));
}

#[tokio::test]
async fn what_was_not_carried_out_is_handled_and_what_nobody_knows_stays_unknown() {
    for (known, runs) in [(true, 2), (false, 1)] {
        let hook = move |_| {
            let answer = if known {
                Recovery::NotExecuted
            } else {
                Recovery::Unknown
            };
            std::future::ready(answer)
        };
        let shop = Shop::open_with(
            at_most_once(),
            |layer| layer.recover(hook),
            |call| {
                let status = if call.run == 1 { 500 } else { 200 };
                std::future::ready(respond(status, format!("run {}", call.run)))
            },
        );
        let shop = shop.await;
        assert_eq!(shop.post("order-1", "10 EUR").await.status, 500);
        let again = shop.post("order-1", "10 EUR").await;
        if known {
            assert_eq!((again.text(), again.is_replay()), ("run 2", false));
        } else {
            assert_eq!(again.problem(409).0, "outcome-unknown");
        }
        assert_eq!(shop.runs(), runs);
    }
}

#[tokio::test]
async fn at_least_once_nobody_is_asked_what_an_interrupted_request_did() {
    let hook = async |_| panic!("it is handled again by itself");
    let shop = Shop::open_with(at_least_once(), |layer| layer.recover(hook), numbered(500)).await;
    for run in 1..3 {
        assert_eq!(shop.post("order-1", "10 EUR").await.text(), format!("run {run}"));
    }
}
