//! An order that touches three services, each a real HTTP server, as a saga.
//!
//! ```text
//!            stock              bank               carrier
//!   forward  reserve ────────►  charge ─────────►  ship
//!   back     release             (the pivot)        (has to succeed in the end)
//! ```
//!
//! The services fail in scripted ways: a card is declined, an answer is lost after the reservation was made, the
//! carrier is down for a while, the bank's answer never comes. Each saga ends completed, compensated or visibly stuck;
//! and the books of the three services are compared with that: the exit code is 1 if they do not add up. Takes about 2
//! seconds.
//!
//! Both ends are shown: the steps send their key as `Idempotency-Key`, the services run each key once, and an undo closes
//! the key of its action with `cancel`, so that a reservation that arrives late is refused.

mod order;
mod services;

use std::error::Error;
use std::process::ExitCode;

use steadfast::saga::SagaError;

use order::{Clients, Order};
use services::{Fault, Services};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let services = Services::start().await?;
    let orders = order::saga(Clients::new(&services)?)?;
    println!("{}", orders.dot());

    let script: [(&str, &[(&str, Fault)]); 6] = [
        ("all goes well", &[]),
        ("the card is declined", &[("charge", Fault::Refuse)]),
        (
            "the answer to the reservation is lost, and it is sent again",
            &[("reserve", Fault::LoseAnswer)],
        ),
        (
            "every answer to the reservation is lost: it is undone, as it may have been made",
            &[
                ("reserve", Fault::LoseAnswer),
                ("reserve", Fault::LoseAnswer),
                ("reserve", Fault::LoseAnswer),
            ],
        ),
        (
            "the carrier is down for a while",
            &[("ship", Fault::Down), ("ship", Fault::Down)],
        ),
        (
            "nobody knows whether the bank has charged",
            &[
                ("charge", Fault::LoseAnswer),
                ("charge", Fault::LoseAnswer),
                ("charge", Fault::LoseAnswer),
            ],
        ),
    ];
    let mut correct = true;
    for (number, (what, faults)) in script.into_iter().enumerate() {
        println!("\n{what}");
        services.script(faults);
        let order = Order::new(format!("order-{number}"));
        let ended = orders.run(order).await;
        let books = services.books(&format!("order-{number}"));
        println!("  the books: {books}");
        correct &= match &ended {
            Ok(order) => {
                println!("  completed: parcel {}", order.parcel.as_deref().unwrap_or("none"));
                (books.reserved, books.charged, books.shipped) == (1, 1, 1)
            }
            Err(SagaError::Compensated(report)) => {
                println!(
                    "  compensated: {}",
                    report.cause.as_ref().map_or_else(String::new, ToString::to_string)
                );
                (books.reserved, books.charged, books.shipped) == (0, 0, 0)
            }
            Err(stuck) => {
                // The bank charged once at most, and somebody can look: nothing was undone behind its back.
                println!("  {stuck}");
                books.reserved == 1 && books.charged <= 1 && books.shipped == 0
            }
        };
    }
    println!(
        "\n{}",
        if correct {
            "the books add up"
        } else {
            "the books do NOT add up"
        }
    );
    Ok(if correct { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
