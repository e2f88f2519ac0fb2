//! The bank: a service of somebody else's, that charges once for each key it is sent.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use steadfast::http;
use steadfast::idempotency::{Idempotency, MemoryStore};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

#[derive(Clone, Default)]
pub(crate) struct Bank(Arc<Books>);

#[derive(Default)]
struct Books {
    charges: Mutex<BTreeMap<String, u32>>,
    charged: Notify,
}

impl Bank {
    /// Opens a bank on a free port, and says where.
    pub(crate) async fn open() -> Result<(Self, String), Box<dyn Error>> {
        let bank = Self::default();
        let once = Idempotency::at_least_once(MemoryStore::new())
            .wait(Duration::from_secs(5))
            .build()?;
        // There is one customer: the shop.
        let once = http::idempotency(&once, |_| Some("the shop"));
        let app = Router::new()
            .route("/charges", post(charge).layer(once))
            .with_state(bank.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}/charges", listener.local_addr()?);
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok((bank, address))
    }

    /// How often each order was charged.
    pub(crate) fn charges(&self) -> BTreeMap<String, u32> {
        self.0.charges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `order` has been charged.
    pub(crate) async fn charged(&self, order: &str) {
        loop {
            let charged = self.0.charged.notified();
            if self.charges().contains_key(order) {
                return;
            }
            charged.await;
        }
    }
}

/// Charges at once, and takes its time to say so.
async fn charge(State(bank): State<Bank>, order: String) -> String {
    *bank
        .0
        .charges
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(order.clone())
        .or_default() += 1;
    bank.0.charged.notify_waiters();
    sleep(Duration::from_millis(100)).await;
    format!("charged for {order}")
}
