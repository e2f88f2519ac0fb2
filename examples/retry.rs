//! The retry, as a plain call: how long it waits, what it tries again, and how a budget holds it back.
//!
//! Prints the waits of each backoff, then a call that recovers, one that is not worth a second try, and a hundred
//! under a budget. Ends in less than a second.

use std::error::Error;
use std::time::Duration;

use steadfast::retry::{Retry, RetryBudget};
use steadfast::{Backoff, Jitter};

#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error("the shop does not answer")]
    NoAnswer,
    #[error("there is no such book")]
    NoSuchBook,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let base = Duration::from_millis(100);
    println!("the first five waits, in ms");
    for (name, backoff) in [
        ("constant", Backoff::constant(base)),
        ("linear", Backoff::linear(base)),
        ("fibonacci", Backoff::fibonacci(base)),
        (
            "exponential, no jitter",
            Backoff::exponential(base).jitter(Jitter::None),
        ),
        ("exponential, full jitter", Backoff::exponential(base)),
        ("decorrelated", Backoff::decorrelated(base)),
        ("smooth", Backoff::smooth(base)),
    ] {
        // The seed makes the drawn ones the same at every run.
        let waits: Vec<_> = backoff.delays(7)?.take(5).map(|wait| wait.as_millis()).collect();
        println!("  {name:<26}{waits:?}");
    }

    // Only the shop's silence is worth another try: a book that is not there will not be there in a moment either.
    let retry = Retry::exponential(Duration::from_millis(50))
        .max_attempts(4)
        .retry_if(|error: &ShopError| matches!(error, ShopError::NoAnswer))
        .build()?;

    println!("\nthe shop is silent twice");
    let order = |attempt| async move {
        if attempt < 3 {
            Err(ShopError::NoAnswer)
        } else {
            Ok("a receipt")
        }
    };
    let call = retry.call_with(|attempt| order(attempt.number()));
    // What the call took is told beside its result.
    let (result, report) = call.with_report().await;
    println!("  {result:?}\n  {report:?}");

    println!("there is no such book");
    let call = retry.call(|| async { Err::<(), _>(ShopError::NoSuchBook) });
    let (result, report) = call.with_report().await;
    println!("  {result:?}\n  {report:?}");

    // When the shop is down for everyone, retries only add to the load. By this budget each call earns a tenth of a
    // retry. Without it these hundred calls would make two hundred.
    let budget = RetryBudget::builder().ratio(0.1).floor(0.0).build()?;
    let careful = Retry::constant(Duration::from_millis(1)).budget(&budget).build()?;
    let mut attempts = 0;
    for _ in 0..100 {
        let call = careful.call(|| async { Err::<(), _>(ShopError::NoAnswer) });
        let (_, report) = call.with_report().await;
        attempts += report.attempts;
    }
    println!("the shop is down: a hundred calls under a budget make {attempts} attempts");
    Ok(())
}
