//! A bulkhead, as a plain call and as a Tower layer: one slow dependency does not drown the other.
//!
//! A shop has eight workers. Half of its requests ask for a price, which takes 5 ms; the other half asks for reviews, and
//! that service hangs today. Prints how many prices the shop told, without and with a bulkhead around the reviews.
//! Ends in about a second.

use std::error::Error;
use std::time::Duration;

use futures::future::join_all;
use steadfast::bulkhead::{Bulkhead, Event};
use steadfast::{Rejected, RejectedKind};
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Answer = Result<&'static str, Rejected>;

async fn price() -> Answer {
    sleep(Duration::from_millis(5)).await;
    Ok("12 euros")
}

/// Hangs today.
async fn reviews() -> Answer {
    sleep(Duration::from_secs(3_600)).await;
    Ok("four stars")
}

/// A bulkhead too: eight at once, and a request for which there is no worker within 200 ms is refused.
fn workers() -> Result<Bulkhead, Box<dyn Error>> {
    let workers = Bulkhead::builder("workers").max_concurrent(8).max_queued(100);
    Ok(workers.max_wait(Duration::from_millis(200)).build()?)
}

/// Fifty customers come at once, and each wants to see reviews and a price; how many were told the price.
async fn prices_told(workers: &Bulkhead, reviews: impl AsyncFn() -> Answer) -> usize {
    let answers = join_all((0..50).map(|_| async {
        let reviews = tokio::time::timeout(Duration::from_millis(400), workers.call(reviews()));
        let (_reviews, price) = futures::join!(reviews, workers.call(price()));
        price
    }));
    answers.await.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let told = prices_told(&workers()?, reviews).await;
    println!("no bulkhead:      {told:2} of 50 prices; every worker waits for reviews");

    // Two of the workers may wait for reviews; the next request for them is refused at once.
    let lanes = Bulkhead::builder("reviews")
        .max_concurrent(2)
        .on_event(|event| {
            if let Event::LimitChanged { max_concurrent, .. } = event {
                println!("    the limit is {max_concurrent} now");
            }
        })
        .build()?;
    let told = prices_told(&workers()?, async || lanes.call(reviews()).await).await;
    println!("as a plain call:  {told:2} of 50 prices");

    // The same value as a layer: the same two permits.
    let service = ServiceBuilder::new()
        .layer(lanes.clone())
        .service(service_fn(|()| reviews()));
    let told = prices_told(&workers()?, async || service.clone().oneshot(()).await).await;
    println!("as a Tower layer: {told:2} of 50 prices");

    // The handle: what is under way, and a limit that changes while calls run.
    let permit = lanes.try_acquire()?;
    println!("one permit taken: {:?}", lanes.snapshot());
    lanes.set_max_concurrent(1);
    if let Err(refused) = lanes.try_acquire() {
        assert_eq!(refused.kind(), RejectedKind::BulkheadFull);
        println!("and the next is refused: {refused}");
    }
    drop(permit);
    Ok(())
}
