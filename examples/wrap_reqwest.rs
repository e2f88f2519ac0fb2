//! A retry and a timeout around a `reqwest` client.
//!
//! A flaky server refuses the first two requests for each path. Prints what the server sees, how the retry ends, and
//! what the caller gets: a GET is repeated until it is answered, a POST is not, a POST with an `Idempotency-Key` is.
//! Ends in less than a second.

mod support;

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::Method;
use steadfast::retry::Event;
use steadfast::timeout::Timeout;
use steadfast::{Backoff, Error, http};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let server = support::flaky_server().await?;
    let reqwest = reqwest::Client::builder().no_proxy().build()?;

    // It reads the status and `Retry-After`, and knows which methods may be repeated.
    let retry = http::retry()
        .name("shop")
        .backoff(Backoff::exponential(Duration::from_millis(50)))
        .on_event(|event| {
            if let Event::Finished { report, .. } = event {
                println!("    retry: {} at attempt {}", report.stop.as_str(), report.attempts);
            }
        })
        .build()?;
    let client = ServiceBuilder::new()
        .layer(retry)
        .layer(Timeout::attempt(Duration::from_secs(1)))
        // A timeout's refusal has to fit into the error type. `reqwest::Error` cannot hold it, `Error` holds either.
        .map_err(Error::Inner)
        .service(reqwest.clone());

    let book = reqwest.get(format!("{server}/book")).build()?;
    let order = reqwest.post(format!("{server}/order")).body("1 book").build()?;
    let order_with_key = reqwest
        .request(Method::POST, format!("{server}/order-with-key"))
        .header("idempotency-key", "order-1")
        .body("1 book")
        .build()?;

    for (what, request) in [
        ("a GET", book),
        ("a POST: not repeated, it might order twice", order),
        ("a POST with an Idempotency-Key", order_with_key),
    ] {
        println!("{what}");
        let response = client.clone().oneshot(request).await?;
        println!("  {}: {}", response.status(), response.text().await?.trim_end());
    }
    Ok(())
}
