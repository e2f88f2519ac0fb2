//! The saga, and the clients of its steps.

use std::error::Error;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use steadfast::Backoff;
use steadfast::saga::{Cx, Saga, Step, StepError, StepResult};

use crate::services::Services;

/// The context: what was ordered, and what the steps have found out.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) parcel: Option<String>,
}

impl Order {
    pub(crate) fn new(id: String) -> Self {
        Self { id, parcel: None }
    }
}

/// What the steps need beside the context.
pub(crate) struct Clients {
    http: reqwest::Client,
    stock: String,
    bank: String,
    carrier: String,
}

impl Clients {
    pub(crate) fn new(services: &Services) -> Result<Self, Box<dyn Error>> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_millis(200))
            .build()?;
        let [stock, bank, carrier] = services.urls();
        Ok(Self {
            http,
            stock,
            bank,
            carrier,
        })
    }

    /// Sends a request under the key of its step. An answer of 402 or 404 is a "no" of the business; whatever else is
    /// not an answer leaves open what has happened.
    async fn post(&self, url: String, key: String, order: &str) -> Result<Response, StepError> {
        let response = self
            .http
            .post(url)
            .header("idempotency-key", key)
            .body(order.to_owned())
            .send()
            .await?;
        match response.status() {
            StatusCode::PAYMENT_REQUIRED | StatusCode::NOT_FOUND => Err(StepError::failed(response.text().await?)),
            _ => Ok(response.error_for_status()?),
        }
    }
}

pub(crate) fn saga(clients: Clients) -> Result<Saga<Order, Clients>, steadfast::ConfigError> {
    let soon = || Backoff::exponential(Duration::from_millis(20));
    Saga::builder_with("order", clients)
        .with(
            Step::compensatable("reserve", reserve, release)
                .backoff(soon())
                .undo_backoff(soon()),
        )
        .with(Step::pivot("charge", charge).backoff(soon()))
        .with(Step::retriable("ship", ship).attempts(20).backoff(soon()))
        .on_event(|told| println!("    {:?}", told.event))
        .build()
}

async fn reserve(cx: &mut Cx<Order, Clients>) -> StepResult {
    let clients = cx.deps();
    clients
        .post(format!("{}/reserve", clients.stock), cx.idempotency_key(), &cx.id)
        .await?;
    Ok(())
}

/// Takes the reservation back, and closes its key: one that is still under way comes to nothing.
async fn release(cx: &mut Cx<Order, Clients>) -> StepResult {
    let clients = cx.deps();
    let url = format!("{}/release/{}", clients.stock, cx.action_key());
    clients.post(url, cx.idempotency_key(), &cx.id).await?;
    Ok(())
}

async fn charge(cx: &mut Cx<Order, Clients>) -> StepResult {
    let clients = cx.deps();
    clients
        .post(format!("{}/charge", clients.bank), cx.idempotency_key(), &cx.id)
        .await?;
    Ok(())
}

async fn ship(cx: &mut Cx<Order, Clients>) -> StepResult {
    let clients = cx.deps();
    let response = clients
        .post(format!("{}/ship", clients.carrier), cx.idempotency_key(), &cx.id)
        .await?;
    let parcel = response.text().await?;
    cx.parcel = Some(parcel);
    Ok(())
}
