//! A retry and a timeout around hyper-util's client.
//!
//! A flaky server refuses the first two requests. Prints what the server sees and what the caller gets, and then how a
//! POST to a port where nobody listens is tried again, as it was never sent. Ends in less than a second.

mod support;

use std::error::Error as StdError;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, Error as HyperError};
use hyper_util::rt::TokioExecutor;
use steadfast::http::{self, ReplayBody};
use steadfast::retry::Event;
use steadfast::timeout::Timeout;
use steadfast::{Backoff, Error};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let server = support::flaky_server().await?;

    // The retry keeps request bodies: what the client gets to send is a `ReplayBody` of yours.
    let hyper = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Full<Bytes>>>();
    let retry = http::retry()
        .name("shop")
        .backoff(Backoff::exponential(Duration::from_millis(50)))
        // Where there was no connection nothing was sent, and a POST may be tried again too.
        .not_sent_if(|error: &HyperError| error.is_connect())
        .on_event(|event| {
            if let Event::Retrying { attempt, wait, .. } = event {
                println!("    retry: attempt {attempt} failed, the next one follows in {wait:?}");
            }
        })
        .build()?;
    let client = ServiceBuilder::new()
        .layer(retry)
        .layer(Timeout::attempt(Duration::from_secs(1)))
        .map_err(Error::Inner)
        .service(hyper);

    println!("a GET to a flaky server");
    let request = Request::get(format!("{server}/book")).body(Full::default())?;
    let response = client.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("  {status}: {}", String::from_utf8_lossy(&body).trim_end());

    println!("a POST to a port where nobody listens");
    // The listener is gone at the end of the line, and its port free.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let request = Request::post(format!("http://{nobody}/order")).body(Full::from("1 book"))?;
    match client.oneshot(request).await {
        Ok(response) => println!("  {}", response.status()),
        Err(error) => println!("  {error}"),
    }
    Ok(())
}
