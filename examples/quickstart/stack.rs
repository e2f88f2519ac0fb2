//! The policies, and the two ways to put them around a client: plain calls and Tower layers.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::{Client, Request, Response};
use steadfast::bulkhead::Bulkhead;
use steadfast::retry::RetryBudget;
use steadfast::timeout::Timeout;
use steadfast::{Backoff, Error, http};
use tower::{ServiceBuilder, ServiceExt};

use crate::count;
use crate::measure::{Column, measure};
use crate::server::{ATTEMPT, Server};

/// `reqwest::Error` cannot hold a rejection of ours: `Error` holds either.
type ClientError = Error<reqwest::Error>;

pub(crate) async fn run(server: &Server, client: &Client) -> Result<[Column; 2], Box<dyn StdError>> {
    // The policies are plain values. They are made once, and both stacks below share them.
    // It answers for a 503 that is left after the last attempt as well, not only for errors.
    let fallback = http::fallback()
        .on_event(count::fallback)
        .from_outcome(|_: Result<Response, ClientError>| async { Ok::<_, ClientError>(cached_answer()) });
    let total = Timeout::total(Duration::from_secs(2)).on_event(count::total_timeout);
    // One retry per call, not the default of one per five calls: this server fails more than yours.
    let budget = RetryBudget::builder().ratio(1.0).build()?;
    let retry = http::retry()
        .name("books")
        .backoff(Backoff::exponential(Duration::from_millis(20)))
        .max_attempts(4)
        .budget(&budget)
        .on_event(count::retry)
        .build()?;
    // Not by the default rate, half of the last 100: this server is near that on its good days.
    let breaker = http::circuit_breaker("books")
        .failure_rate(None)
        .consecutive_failures(10)
        .open_time(Duration::from_millis(200))
        .success_rate(0.5)
        .on_event(count::circuit_breaker)
        .build()?;
    let lanes = Bulkhead::builder("books")
        .max_concurrent(16)
        .max_queued(16)
        .max_wait(Duration::from_millis(100))
        .on_event(count::bulkhead)
        .build()?;
    let attempt = Timeout::attempt(Duration::from_millis(250)).on_event(count::attempt_timeout);

    // As plain calls: each policy calls the next one. The script of the server asks for the attempt's number; else
    // `retry.call(|| ..)` would do.
    let plain = async |book: u32| {
        let send = |number: u32| async move {
            let request = client.get(server.book(book)).header(ATTEMPT, number);
            request.send().await.map_err(Error::Inner)
        };
        let attempts = retry.call_with(|n| breaker.call(lanes.call(attempt.call(send(n.number())))));
        fallback.call(total.call(attempts)).await
    };

    // As Tower layers: the same policies in the same order, outermost first.
    let service = ServiceBuilder::new()
        .layer(fallback.clone())
        .layer(total.clone())
        .layer(retry.before_attempt(|request: &mut Request, n| {
            request.headers_mut().insert(ATTEMPT, n.number().into());
        }))
        .layer(breaker.clone())
        .layer(lanes.clone())
        .layer(attempt.clone())
        .map_err(Error::Inner)
        .service(client.clone());
    let layered = async |book: u32| {
        let request = client.get(server.book(book)).build().map_err(Error::Inner)?;
        service.clone().oneshot(request).await
    };

    Ok([
        measure("plain calls", server, plain).await,
        measure("Tower layers", server, layered).await,
    ])
}

/// What the fallback answers with: here a text, in a program perhaps what the cache still has.
fn cached_answer() -> Response {
    ::http::Response::new("the book as it was yesterday").into()
}
