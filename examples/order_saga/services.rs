//! Stock, bank and carrier: three HTTP servers that run each key once, and fail as they are told to.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use steadfast::idempotency::store::Cancellation;
use steadfast::idempotency::{Idempotency, MemoryStore};
use steadfast::{Key, http};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Whose keys they are: there is one customer of these services, the shop.
const SHOP: &str = "the shop";

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with a "no".
    Refuse,
    /// It is carried out, and its answer never comes.
    LoseAnswer,
    /// It is answered with 503.
    Down,
}

/// What the three have in their books for one order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Books {
    pub(crate) reserved: i32,
    pub(crate) charged: i32,
    pub(crate) shipped: i32,
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reserved,
            charged,
            shipped,
        } = self;
        write!(f, "reserved {reserved}, charged {charged}, shipped {shipped}")
    }
}

#[derive(Clone)]
pub(crate) struct Services {
    ledger: Ledger,
    urls: [String; 3],
}

#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    books: BTreeMap<String, Books>,
    faults: VecDeque<(String, Fault)>,
}

impl Services {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let ledger = Ledger::default();
        let urls = [
            serve(&ledger, "reserve", |books| books.reserved += 1).await?,
            serve(&ledger, "charge", |books| books.charged += 1).await?,
            serve(&ledger, "ship", |books| books.shipped += 1).await?,
        ];
        Ok(Self { ledger, urls })
    }

    pub(crate) fn urls(&self) -> [String; 3] {
        self.urls.clone()
    }

    /// The next requests of these kinds go wrong so.
    pub(crate) fn script(&self, faults: &[(&str, Fault)]) {
        self.ledger.lock().faults = faults
            .iter()
            .map(|(what, fault)| ((*what).to_owned(), *fault))
            .collect();
    }

    pub(crate) fn books(&self, order: &str) -> Books {
        self.ledger.lock().books.get(order).copied().unwrap_or_default()
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, what: &str) -> Option<Fault> {
        let mut pages = self.lock();
        let next = pages.faults.front().is_some_and(|(planned, _)| planned == what);
        if next {
            pages.faults.pop_front().map(|(_, fault)| fault)
        } else {
            None
        }
    }
}

/// One of the three, on a free port.
async fn serve(ledger: &Ledger, what: &'static str, enter: fn(&mut Books)) -> Result<String, Box<dyn Error>> {
    let once = Idempotency::at_least_once(MemoryStore::new()).namespace(what).build()?;
    let layer = http::idempotency(&once, |_| Some(SHOP));
    let effect = {
        let ledger = ledger.clone();
        move |order: String| {
            let ledger = ledger.clone();
            async move { carry_out(&ledger, what, &order, enter) }
        }
    };
    let unreliable = {
        let ledger = ledger.clone();
        axum::middleware::from_fn(move |request, next: axum::middleware::Next| {
            let fault = ledger.fault(what);
            async move {
                match fault {
                    Some(Fault::Refuse) => (StatusCode::PAYMENT_REQUIRED, "declined").into_response(),
                    Some(Fault::Down) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    Some(Fault::LoseAnswer) => {
                        let response = next.run(request).await;
                        sleep(Duration::from_secs(60)).await;
                        response
                    }
                    None => next.run(request).await,
                }
            }
        })
    };
    let app = Router::new()
        .route(&format!("/{what}"), post(effect).layer(layer).layer(unreliable))
        .route("/release/{key}", post(release))
        .with_state((ledger.clone(), once));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}

fn carry_out(ledger: &Ledger, what: &str, order: &str, enter: fn(&mut Books)) -> Response {
    enter(ledger.lock().books.entry(order.to_owned()).or_default());
    (StatusCode::CREATED, format!("{what}-{order}")).into_response()
}

/// Closes the key of a reservation, and takes it back if it was made.
async fn release(
    State((ledger, once)): State<(Ledger, Idempotency)>,
    Path(key): Path<String>,
    order: String,
) -> Response {
    match once.cancel(&Key::new(SHOP, key)).await {
        // Nothing was reserved under it, and never will be.
        Ok(Cancellation::Cancelled) => StatusCode::NO_CONTENT.into_response(),
        Ok(Cancellation::AlreadyDone(_) | Cancellation::CancelledUnknown(_)) => {
            if let Some(books) = ledger.lock().books.get_mut(&order) {
                books.reserved = 0;
            }
            StatusCode::NO_CONTENT.into_response()
        }
        // It is being reserved at this moment, or the store is away: ask again.
        Ok(_) | Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
