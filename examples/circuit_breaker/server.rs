//! The server that goes down and comes back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;

/// A server that is well, or is not.
pub(crate) struct Server {
    pub(crate) url: String,
    is_down: Arc<AtomicBool>,
    requests: Arc<AtomicU32>,
}

impl Server {
    pub(crate) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self {
            url: format!("http://{}", listener.local_addr()?),
            is_down: Arc::default(),
            requests: Arc::default(),
        };
        let (is_down, requests) = (Arc::clone(&server.is_down), Arc::clone(&server.requests));
        let answer = async move || {
            requests.fetch_add(1, Ordering::Relaxed);
            if is_down.load(Ordering::Relaxed) {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            }
        };
        tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
        Ok(server)
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// How many requests have arrived since this was asked last.
    pub(crate) fn take_requests(&self) -> u32 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}
