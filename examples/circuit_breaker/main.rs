//! A circuit breaker through an outage: a real server on this machine goes down and comes back, and `reqwest` calls it all
//! the while, in turn as a plain call and through a Tower layer. Both are one breaker.
//!
//! Prints a timeline and ends after about three seconds. It fails if the breaker did not open, if a call was sent while it
//! was open, or if it did not close again.

mod server;
mod timeline;

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::Client;
use steadfast::circuit_breaker::State;
use steadfast::{Backoff, Error, http};
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};

use server::Server;
use timeline::{Tally, Timeline};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let time = Timeline(Instant::now());
    let server = Server::start().await?;
    let client = Client::builder().no_proxy().build()?;

    // It counts 5xx and 429 as failures, and opens when half of the last 20 calls have failed: for 400 ms, and each time
    // that its probes fail for twice as long. Three good probes close it.
    let breaker = http::circuit_breaker("payments")
        .count_window(20)
        .failure_rate(0.5)
        .open_backoff(Backoff::exponential(Duration::from_millis(400)))
        .samples(3)
        .success_rate(1.0)
        .on_event(move |event| time.tell(event))
        .build()?;

    // Whoever has to know waits for the changes: here the one on call.
    let mut changes = breaker.subscribe();
    let on_call = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(state) = changes.changed().await {
            time.say("on call", &format!("hears that the breaker is {}", state.as_str()));
            seen.push(state);
        }
        seen
    });

    // The two faces of the one breaker. `reqwest::Error` cannot hold a rejection: `Error` holds either.
    let plain = async || {
        let request = client.get(&server.url).send();
        breaker.call(async { request.await.map_err(Error::Inner) }).await
    };
    let service = ServiceBuilder::new()
        .layer(breaker.clone())
        .map_err(Error::Inner)
        .service(client.clone());
    let layered = async || {
        let request = client.get(&server.url).build().map_err(Error::Inner)?;
        service.clone().oneshot(request).await
    };
    // Calls by turns, every 20 ms, until `done`; what became of them in each face.
    let calls = async |done: &dyn Fn(u32) -> bool| {
        let mut tallies = [Tally::default(), Tally::default()];
        for number in 0.. {
            if done(number) {
                break;
            }
            let before = breaker.state();
            let (face, result) = match number % 2 {
                0 => (0, plain().await),
                _ => (1, layered().await),
            };
            let outcome = tallies[face].count(&result);
            if before != State::Closed && outcome != "rejected" {
                time.say("probe", outcome);
            }
            sleep(Duration::from_millis(20)).await;
        }
        let [plain, layered] = &tallies;
        time.say("calls", &format!("plain: {plain}"));
        time.say("", &format!("Tower: {layered}"));
        tallies
    };
    let limit = Duration::from_secs(4);

    time.say("server", "answers");
    let well = timeout(limit, calls(&|calls| calls == 20)).await?;
    assert!(well.iter().all(|face| face.answered == 10), "{well:?}");

    server.set_down(true);
    time.say("server", "answers 503");
    let opened_twice = |_| breaker.snapshot().openings == 2;
    let down = timeout(limit, calls(&opened_twice)).await;
    let down = down.map_err(|_| "the breaker did not open, and open again")?;
    assert!(down.iter().all(|face| face.failed > 0 && face.rejected > 0), "{down:?}");
    // What was rejected was not sent: of all calls the server has seen those that failed.
    assert_eq!(server.take_requests(), 20 + down[0].failed + down[1].failed);

    server.set_down(false);
    time.say("server", "answers again");
    let closed = |_| breaker.state() == State::Closed;
    let back = timeout(limit, calls(&closed)).await;
    let back = back.map_err(|_| "the breaker did not close")?;
    assert!(
        back.iter().all(|face| face.failed == 0 && face.rejected > 0),
        "{back:?}"
    );

    let well = timeout(limit, calls(&|calls| calls == 20)).await?;
    assert!(well.iter().all(|face| face.answered == 10), "{well:?}");

    // The last of the breaker ends the watch.
    drop((service, breaker));
    assert_eq!(on_call.await?.last(), Some(&State::Closed));
    Ok(())
}
