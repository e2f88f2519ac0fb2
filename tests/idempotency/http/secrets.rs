//! What is logged shows neither keys nor bodies.

use super::*;
use crate::shared::telemetry::logged;

const KEY: &str = "key-4711";
const SECRETS: [&str; 5] = [KEY, "card-4242", "receipt-99", "session-7", TENANT];

#[test]
fn neither_keys_nor_tenants_nor_bodies_are_logged() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ((), lines) = logged(|| runtime.block_on(everything()));
    for event in [
        "claimed",
        "stored",
        "replayed",
        "mismatch",
        "interrupted",
        "released",
        "store_failed",
    ] {
        let event = format!("event=\"{event}\"");
        assert!(lines.iter().any(|line| line.contains(&event)), "{event} in {lines:#?}");
    }
    for line in lines {
        assert!(!SECRETS.iter().any(|secret| line.contains(secret)), "{line}");
    }
}

/// Everything that leads to an event.
async fn everything() {
    let handler = async |call: Call| match (&call.body[..], call.run) {
        (b"card-4242 fails", _) => respond(500, "receipt-99"),
        (b"card-4242 refused", _) => respond(422, "receipt-99"),
        (b"card-4242 panics", _) => panic!("receipt-99"),
        _ => {
            let mut response = respond(200, "receipt-99");
            let cookie = http::HeaderValue::from_static("session-7");
            response.headers_mut().insert("set-cookie", cookie);
            response
        }
    };
    let shop = Shop::open(at_least_once(), handler).await;
    for body in ["card-4242", "card-4242", "card-4242 other"] {
        shop.post(KEY, body).await;
    }
    for (at, body) in ["card-4242 fails", "card-4242 refused"].into_iter().enumerate() {
        shop.post(&format!("{KEY}-{at}"), body).await;
    }
    let panics = shop
        .request("POST", Some("key-4711-panics"), "card-4242 panics")
        .send()
        .await;
    panics.unwrap_err();
    shop.post("key-4711 malformed", "card-4242").await;
    shop.settled().await;

    let full = Idempotency::at_least_once(MemoryStore::with_max_records(0));
    Shop::open(full, handler).await.post(KEY, "card-4242").await;
}

#[tokio::test]
async fn nothing_of_a_request_or_a_response_is_in_an_answer_to_somebody_else() {
    let shop = Shop::open(at_least_once(), async |_| respond(200, "receipt-99")).await;
    shop.post(KEY, "card-4242").await;
    let other = shop.post(KEY, "another").await;
    assert_eq!(other.status, 422);
    let shown = format!("{other:?}");
    assert!(!SECRETS.iter().any(|secret| shown.contains(secret)), "{shown}");
}
