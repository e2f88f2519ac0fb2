//! A payment service that charges once, whatever its clients do and whenever it dies.
//!
//! ```text
//!  customers            the shop, a process of its own             the bank
//!  retry, double  POST  one effect per Idempotency-Key,     POST   one effect per key of the shop's,
//!  click, leave  ─────► kept in SQLite                     ──────► counts what it has charged
//! ```
//!
//! The customers double-click, repeat, leave in the middle, and one reuses a key for another order. The last one pays
//! while the shop is killed (SIGKILL) between the charge and its record; it is started again on the same file. In the
//! end each order has been charged once, or the exit code is 1. Takes about 4 seconds.
//!
//! `PAYMENTS_STORE=postgres://user@host/database` or `PAYMENTS_STORE=redis://host` keeps the records there instead.

mod bank;
mod customer;
mod shop;

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use bank::Bank;
use customer::Customer;

/// What the customers ordered and are to be charged for, once each.
const ORDERS: [&str; 4] = ["double-clicked", "repeated", "left", "killed"];

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let [_, role, address, bank, store] = &std::env::args().collect::<Vec<_>>()[..] {
        assert_eq!(role, "shop");
        shop::serve(address, bank, store).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = Folder::new()?;
    let store = std::env::var("PAYMENTS_STORE").unwrap_or_else(|_| folder.0.join("payments.db").display().to_string());
    let (bank, bank_address) = Bank::open().await?;
    let address = free_address().await?;
    let mut shop = Shop::start(&address, &bank_address, &store).await?;
    let customer = Customer::new(&address)?;

    println!("a double click: two requests at once");
    let (one, other) = tokio::join!(
        customer.pay("key-1", "double-clicked"),
        customer.pay("key-1", "double-clicked"),
    );
    println!("  {}\n  {}", one?, other?);

    println!("a repetition, after the answer was lost");
    println!("  {}", customer.pay("key-2", "repeated").await?);
    println!("  {}", customer.pay("key-2", "repeated").await?);

    println!("the same key for another order");
    println!("  {}", customer.pay("key-2", "something else").await?);

    println!("a customer that leaves after 20 ms, and comes back");
    let impatient = tokio::time::timeout(Duration::from_millis(20), customer.pay("key-3", "left")).await;
    println!(
        "  {}",
        if impatient.is_err() {
            "left"
        } else {
            "was faster than that"
        }
    );
    println!("  {}", customer.pay("key-3", "left").await?);

    println!("the shop is killed after the bank has charged, and before it could note it");
    let paying = tokio::spawn({
        let customer = customer.clone();
        async move { customer.pay("key-4", "killed").await.map_err(|error| error.to_string()) }
    });
    bank.charged("killed").await;
    shop.0.kill().await?;
    println!("  killed; it is started again");
    shop = Shop::start(&address, &bank_address, &store).await?;
    println!("  {}", paying.await??);
    shop.0.kill().await?;

    let charges = bank.charges();
    println!("\nthe bank has charged");
    let mut correct = charges.len() == ORDERS.len();
    for order in ORDERS {
        let times = charges.get(order).copied().unwrap_or_default();
        println!("  {order:<16} {times} times");
        correct &= times == 1;
    }
    Ok(if correct { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The shop's process.
struct Shop(Child);

impl Shop {
    /// Starts it, and waits until it listens.
    async fn start(address: &str, bank: &str, store: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["shop", address, bank, store])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let mut shop = command.spawn()?;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if let Some(ended) = shop.try_wait()? {
                return Err(format!("the shop did not start: {ended}").into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(Self(shop))
    }
}

/// An address that nobody listens at: the shop takes it, twice.
async fn free_address() -> Result<String, Box<dyn Error>> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// A folder for the SQLite file, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("steadfast-payments-{}", std::process::id()));
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
