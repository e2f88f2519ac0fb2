//! One flaky server, three clients: a bare `reqwest`, and the same under a fallback, a total timeout, a retry, a circuit
//! breaker, a bulkhead and an attempt timeout, once as plain calls and once as Tower layers.
//!
//! `stack.rs` is the file to read. The server (`server.rs`) answers 500 and 503, hangs, drops connections, asks to come
//! back later, and is down for a while, by a script: every client meets the same troubles. It ends after about 13 seconds
//! with a table of who got how many answers, how fast, and what each policy did for it; the exit code is 1 if the stacks
//! did not do better than the bare client, or if a breaker did not open.

mod count;
mod measure;
mod server;
mod stack;

use std::error::Error;
use std::time::Duration;

use measure::{Column, PAUSE, REQUESTS, measure};
use server::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start().await?;
    // The server is on this machine: no proxy is to come between.
    let client = reqwest::Client::builder().no_proxy().build()?;

    println!(
        "A server that answers 500 and 503, drops connections, asks to come back in 1 s, and is down for a while."
    );
    println!("Each client sends it {REQUESTS} requests, one every {PAUSE:?}; a dot is 10 of them.\n");
    let bare = async |book| client.get(server.book(book)).send().await;
    let bare = measure("bare client", &server, bare).await;
    let [plain, layered] = stack::run(&server, &client).await?;
    print_table(&[&bare, &plain, &layered]);

    for stack in [&plain, &layered] {
        if stack.counts.openings == 0 {
            return Err(format!("under {} the breaker slept through the outage", stack.name).into());
        }
        if stack.failed > 0 || stack.answered <= bare.answered {
            return Err(format!("{} did not do better than the bare client", stack.name).into());
        }
    }
    println!(
        "\nOf the {} calls that the bare client lost, the stacks lost none: {} were left to the fallback.",
        bare.failed, plain.counts.fallbacks
    );
    Ok(())
}

fn print_table(columns: &[&Column; 3]) {
    let line = |label: &str, cell: &dyn Fn(&Column) -> String| {
        let [bare, plain, layered] = columns.map(cell);
        println!("{label:<34}{bare:>14}{plain:>14}{layered:>14}");
    };
    let ms = |time: Duration| format!("{} ms", time.as_millis());

    println!();
    line("", &|c| c.name.to_owned());
    line("answered", &|c| c.answered.to_string());
    line("  of these by the fallback", &|c| c.counts.fallbacks.to_string());
    line("failed", &|c| c.failed.to_string());
    line("latency, p50", &|c| ms(c.p50));
    line("latency, p99", &|c| ms(c.p99));
    line("attempts per request", &|c| format!("{:.2}", c.attempts));
    line("most requests at once", &|c| c.at_once.to_string());
    println!("what the policies did");
    line("  retries", &|c| c.counts.retries.to_string());
    line("    as late as Retry-After asked", &|c| {
        c.counts.waited_as_asked.to_string()
    });
    line("  times the breaker opened", &|c| c.counts.openings.to_string());
    line("    attempts it rejected", &|c| c.counts.circuit_open.to_string());
    line("  attempts queued by the bulkhead", &|c| c.counts.queued.to_string());
    line("    attempts it rejected", &|c| c.counts.no_permit.to_string());
    line("  attempts timed out", &|c| c.counts.attempts_timed_out.to_string());
    line("  calls timed out", &|c| c.counts.calls_timed_out.to_string());
}
