//! Sends the requests through one client, and says how it went.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use reqwest::Response;
use tokio::time::{Instant, sleep_until};

use crate::count::{self, Counts};
use crate::server::Server;

pub(crate) const REQUESTS: u32 = 300;
/// Requests come at their own pace, and do not wait for the answers to those before them.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// One column of the table.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) answered: u32,
    pub(crate) failed: u32,
    /// Half of the calls took no longer.
    pub(crate) p50: Duration,
    /// 99 of 100 calls took no longer.
    pub(crate) p99: Duration,
    /// Requests that reached the server, for each call.
    pub(crate) attempts: f64,
    /// The most requests that the server had to work on at once.
    pub(crate) at_once: u32,
    pub(crate) counts: Counts,
}

/// Asks for every book once by `call`, and draws a dot for every tenth.
pub(crate) async fn measure<E>(
    name: &'static str,
    server: &Server,
    call: impl AsyncFn(u32) -> Result<Response, E>,
) -> Column {
    let started = Instant::now();
    print!("{name:<14}");
    let ask = async |book| {
        sleep_until(started + book * PAUSE).await;
        let started = Instant::now();
        let answered = is_answer(call(book).await).await;
        (answered, started.elapsed())
    };
    let mut calls: FuturesUnordered<_> = (0..REQUESTS).map(ask).collect();
    let (mut answered, mut times) = (0, Vec::new());
    while let Some((was_answered, time)) = calls.next().await {
        answered += u32::from(was_answered);
        times.push(time);
        if times.len() % 10 == 0 {
            print!(".");
            // Progress is no use if it comes late; that it cannot be shown is no reason to stop.
            let _ = std::io::stdout().flush();
        }
    }
    println!(" {:.1} s", started.elapsed().as_secs_f64());

    times.sort();
    Column {
        name,
        answered,
        failed: REQUESTS - answered,
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        attempts: f64::from(server.take_requests()) / f64::from(REQUESTS),
        at_once: server.take_at_once(),
        counts: count::take(),
    }
}

/// An answer is a success with its whole body.
async fn is_answer<E>(result: Result<Response, E>) -> bool {
    match result {
        Ok(response) if response.status().is_success() => response.text().await.is_ok(),
        Ok(_) | Err(_) => false,
    }
}
