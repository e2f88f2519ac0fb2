//! A customer: tries again, under the same key, until there is an answer.

use std::error::Error;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use steadfast::retry::Retry;
use steadfast::{Backoff, Erased, Verdict, http};

#[derive(Clone)]
pub(crate) struct Customer {
    url: String,
    client: reqwest::Client,
    retry: Retry<Erased<Response, reqwest::Error>, http::HttpReplay>,
}

impl Customer {
    pub(crate) fn new(address: &str) -> Result<Self, Box<dyn Error>> {
        let retry = http::retry()
            .backoff(Backoff::exponential(Duration::from_millis(50)).max_delay(Duration::from_millis(500)))
            .max_attempts(30)
            // Somebody is at it: the shop says when to ask again.
            .treat(StatusCode::CONFLICT, Verdict::TRANSIENT)
            .build()?;
        Ok(Self {
            url: format!("http://{address}/payments"),
            client: reqwest::Client::builder().no_proxy().build()?,
            retry: retry.erased(),
        })
    }

    /// Pays for `order`, and says what came of it. The key makes it safe to try again.
    pub(crate) async fn pay(&self, key: &str, order: &str) -> Result<String, Box<dyn Error>> {
        let pay = || {
            let request = self.client.post(&self.url).header("idempotency-key", key);
            request.header("x-account", "customer-7").body(order.to_owned()).send()
        };
        let response = self.retry.call(pay).await?;
        let replayed = response.headers().contains_key("idempotent-replayed");
        let status = response.status();
        let body = response.text().await?;
        Ok(format!("{status}: {body}{}", if replayed { " (replayed)" } else { "" }))
    }
}
