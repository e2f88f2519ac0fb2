//! A timeout and a fallback, as plain calls and as Tower layers.
//!
//! A shop that takes too long is cut off after 50 ms, and yesterday's price is the answer instead. Prints each result
//! and what the two policies tell of themselves. Ends in less than a second.

use std::error::Error;
use std::time::Duration;

use steadfast::Rejected;
use steadfast::fallback::{self, Fallback};
use steadfast::timeout::{self, Timeout};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// What a timeout refuses with has to fit into the error type: one variant with `#[from] Rejected`.
#[derive(Debug, thiserror::Error)]
enum ShopError {
    #[error("there is no such book")]
    NoSuchBook,
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Book 1 has a price, book 2 takes too long, any other does not exist.
async fn price(book: u32) -> Result<&'static str, ShopError> {
    match book {
        1 => Ok("12 euros"),
        2 => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok("20 euros")
        }
        _ => Err(ShopError::NoSuchBook),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let timeout = Timeout::new(Duration::from_millis(50))
        .name("the price lookup")
        .on_event(|event| {
            if let timeout::Event::TimedOut { policy, limit, .. } = event {
                println!("    {policy} is cut off after {limit:?}");
            }
        });
    let fallback = Fallback::builder()
        .name("yesterday's price")
        // A book that does not exist had no price yesterday.
        .fallback_if(|error: &ShopError| !matches!(error, ShopError::NoSuchBook))
        .on_event(|event| {
            if let fallback::Event::Recovering { policy, .. } = event {
                println!("    {policy} steps in");
            }
        })
        .value("18 euros, as of yesterday");

    println!("a timeout alone, as a plain call");
    let result = timeout.call(price(2)).await;
    println!("  book 2: {result:?}");

    println!("\na fallback around the timeout, as plain calls");
    for book in 1..=3 {
        let result = fallback.call(timeout.call(price(book))).await;
        println!("  book {book}: {result:?}");
    }

    println!("\nthe same as Tower layers");
    let shop = ServiceBuilder::new()
        .layer(fallback)
        .layer(timeout)
        .service(service_fn(price));
    for book in 1..=3 {
        let result = shop.clone().oneshot(book).await;
        println!("  book {book}: {result:?}");
    }
    Ok(())
}
