//! Policies on the routes of an axum server, whose services cannot fail.
//!
//! `/slow` takes too long and is cut off, `/slow-but-kind` too, with a response of its own, and `/shelf` answers
//! although what it calls has failed. A small client prints the status, `Retry-After` and body of each. Ends in less
//! than a second.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use steadfast::fallback::Fallback;
use steadfast::timeout::Timeout;
use steadfast::{Rejected, http};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_secs(60)).await;
    "at last"
}

async fn shelf(_: Request) -> io::Result<Response> {
    Err(io::Error::other("the database is down"))
}

fn app() -> Router {
    let timeout = Timeout::new(Duration::from_millis(100)).name("page");
    // What a caller is told instead of the usual 504.
    let come_back = |_: Rejected| {
        let body = "please come back in a moment\n";
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
    };
    // Outside of `infallible` no error is left: that is what axum asks for.
    let bestsellers = Fallback::from_error(|error: io::Error| {
        println!("    server: {error}, answering with the bestsellers");
        Ok::<_, Infallible>("Pride and Prejudice\n".into_response())
    });
    let shelf = ServiceBuilder::new()
        .layer(bestsellers.infallible())
        .service(service_fn(shelf));

    Router::new()
        // `http::server` turns what the timeout refuses into a response.
        .route("/slow", get(slow).layer(http::server(timeout.clone())))
        .route(
            "/slow-but-kind",
            get(slow).layer(http::server(timeout).respond(come_back)),
        )
        .route_service("/shelf", shelf)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app()).await });

    let client = reqwest::Client::builder().no_proxy().build()?;
    for path in ["/slow", "/slow-but-kind", "/shelf"] {
        println!("GET {path}");
        let response = client.get(format!("{url}{path}")).send().await?;
        println!("  {}", response.status());
        if let Some(seconds) = response.headers().get(RETRY_AFTER) {
            println!("  retry-after: {}", seconds.to_str()?);
        }
        println!("  {}", response.text().await?.trim_end());
    }
    Ok(())
}
