//! What is under way, so that a shutdown can wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::clock::after;

/// Counts operations, and what has to be told to the store after their callers have left.
pub(crate) struct Flights(Arc<watch::Sender<usize>>);

impl Default for Flights {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One of them, until it is dropped.
pub(crate) struct Flight(Arc<watch::Sender<usize>>);

impl Flights {
    pub(crate) fn begin(&self) -> Flight {
        self.0.send_modify(|flights| *flights += 1);
        Flight(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there are none, for at most `patience`, and says how many are left.
    pub(crate) async fn drain(&self, patience: Duration) -> usize {
        let mut flights = self.0.subscribe();
        let landed = flights.wait_for(|flights| *flights == 0);
        let _ = timeout_at(after(patience), landed).await;
        self.count()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.send_modify(|flights| *flights -= 1);
    }
}
