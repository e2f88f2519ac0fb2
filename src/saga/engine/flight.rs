//! One saga that this process drives: its lease, and whether it is to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::super::drive::Cancel;
use super::super::id::SagaId;
use super::super::record::Lost;
use crate::storage::lease::Lease;

/// A saga under way. Its lease is counted from `origin`.
pub(crate) struct Flight {
    pub(crate) id: SagaId,
    pub(crate) epoch: u64,
    pub(crate) cancel: Arc<Cancel>,
    origin: Instant,
    lease: Mutex<Lease>,
    /// The lease was renewed or taken, or the flight is to stop.
    changed: Notify,
    stopped: AtomicBool,
    /// It was claimed several times in a row without a result, and has shown none here.
    suspect: AtomicBool,
    /// Its last append lets go of the lease: what a renewal says of it no longer matters.
    landing: AtomicBool,
}

impl Flight {
    /// A saga whose claim was sent at `sent`.
    pub(crate) fn new(id: SagaId, epoch: u64, origin: Instant, sent: Instant, ttl: Duration, suspect: bool) -> Self {
        Self {
            id,
            epoch,
            cancel: Arc::default(),
            origin,
            lease: Mutex::new(Lease::claimed(sent - origin, ttl, Duration::MAX)),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            suspect: AtomicBool::new(suspect),
            landing: AtomicBool::new(false),
        }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(crate) fn renewed(&self, sent: Instant) {
        self.lease().renewed(sent - self.origin);
        self.changed.notify_waiters();
    }

    /// Somebody else has it.
    pub(crate) fn taken(&self) {
        if !self.landing.load(Ordering::Acquire) {
            self.lease().taken();
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// It has shown a result.
    pub(crate) fn cleared(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }

    /// The next append lets go of the lease, or after all does not.
    pub(crate) fn landing(&self, landing: bool) {
        self.landing.store(landing, Ordering::Release);
    }

    pub(crate) fn is_landing(&self) -> bool {
        self.landing.load(Ordering::Acquire)
    }

    /// It is not to be driven on in this process.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn is_lost(&self) -> Option<Lost> {
        if self.stopped.load(Ordering::Acquire) {
            return Some(Lost::Shutdown);
        }
        self.lease().is_lost(self.now()).then_some(Lost::Lease)
    }

    /// Ends when the journal has said that somebody else has it, or when it is to stop; not at the end of its lease.
    pub(crate) async fn refused(&self) -> Lost {
        loop {
            let changed = self.changed.notified();
            if self.stopped.load(Ordering::Acquire) {
                return Lost::Shutdown;
            }
            if self.lease().is_taken() {
                return Lost::Lease;
            }
            changed.await;
        }
    }

    /// Ends when it is not to be driven on here: at the end of its lease at the latest.
    pub(crate) async fn lost(&self) -> Lost {
        loop {
            // Made before the state is looked at: what changes after that wakes it.
            let changed = self.changed.notified();
            if let Some(lost) = self.is_lost() {
                return lost;
            }
            let ends = self.lease().ends();
            let _ = timeout_at(self.origin + ends, changed).await;
        }
    }

    /// Waits until something may be started: not in the last fifth of the lease.
    pub(crate) async fn may_start(&self) -> Result<(), Lost> {
        loop {
            let changed = self.changed.notified();
            if let Some(lost) = self.is_lost() {
                return Err(lost);
            }
            if self.lease().may_start(self.now()) {
                return Ok(());
            }
            let ends = self.lease().ends();
            let _ = timeout_at(self.origin + ends, changed).await;
        }
    }
}
