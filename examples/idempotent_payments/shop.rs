//! The shop: one effect for each `Idempotency-Key` of a customer.

use std::error::Error;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use steadfast::http;
use steadfast::idempotency::store::{SharedStore, Store};
use steadfast::idempotency::{Attempt, Idempotency, PostgresStore, RedisStore, SqliteStore};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Shop {
    bank: String,
    client: reqwest::Client,
}

pub(crate) async fn serve(address: &str, bank: &str, store: &str) -> Result<(), Box<dyn Error>> {
    let payments = Idempotency::at_least_once(open(store).await?)
        .namespace("payments")
        // A shop that was killed keeps its customers waiting for so long; 30 s is the default.
        .lease(Duration::from_secs(2))
        .build()?;
    // Whose key it is. In earnest: whoever the request was authenticated for.
    let customer = |head: &axum::http::request::Parts| account(&head.headers);
    let shop = Shop {
        bank: bank.to_owned(),
        client: reqwest::Client::builder().no_proxy().build()?,
    };
    let app = Router::new()
        .route("/payments", post(pay).layer(http::idempotency(&payments, customer)))
        .with_state(shop);
    Ok(axum::serve(TcpListener::bind(address).await?, app).await?)
}

/// Runs once for each key, and again only where it was interrupted. The bank is then sent the same key of ours.
async fn pay(State(shop): State<Shop>, Extension(attempt): Extension<Attempt>, order: String) -> Response {
    println!("    shop: attempt {} for {order}", attempt.number());
    let charge = shop
        .client
        .post(shop.bank)
        .header("idempotency-key", attempt.derived_key("charge"));
    match charge
        .body(order.clone())
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
    {
        Ok(_) => (
            StatusCode::CREATED,
            format!("paid for {order}, at attempt {}", attempt.number()),
        )
            .into_response(),
        // Nobody knows what the bank has done: the record is interrupted, and the next request asks the bank again.
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

fn account(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-account")?.to_str().ok()?.to_owned())
}

async fn open(store: &str) -> Result<SharedStore, Box<dyn Error>> {
    Ok(match store.split(':').next() {
        Some("postgres" | "postgresql") => {
            let store = PostgresStore::connect(store).await?;
            store.migrate().await?;
            store.shared()
        }
        Some("redis" | "rediss") => RedisStore::connect(store).await?.shared(),
        _ => {
            let store = SqliteStore::open(store).await?;
            store.migrate().await?;
            store.shared()
        }
    })
}
