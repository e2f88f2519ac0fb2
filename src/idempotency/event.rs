//! What an idempotency policy tells about itself.

use std::sync::Arc;
use std::time::Duration;

use super::policy::Policy;
use crate::KeyId;
use crate::event::tell;
use crate::storage::StorageError;

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Something happened to an operation. Keys are shown by their hashes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The name of the policy.
    pub policy: &'a str,
    /// The hash of the key.
    pub id: KeyId,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// The key was claimed: the operation runs.
    #[non_exhaustive]
    Claimed {
        /// 1 for the first run.
        attempt: u32,
    },
    /// The operation ran and its outcome is stored.
    #[non_exhaustive]
    Stored {
        /// The attempt that had it.
        attempt: u32,
    },
    /// There was an outcome already.
    Replayed,
    /// A duplicate was refused, or gave up waiting.
    InProgress,
    /// The key belongs to another request.
    Mismatch,
    /// An interrupted attempt may have had its effect, and nobody may run it again.
    #[non_exhaustive]
    OutcomeUnknown {
        /// The attempt that was interrupted.
        attempt: u32,
    },
    /// The key was closed before.
    Refused,
    /// Somebody has said that what was resolved before has another outcome: that is replayed from now on.
    Corrected,
    /// Nothing had happened: the key is free again.
    Released,
    /// The operation failed, panicked or was dropped, and may have had its effect.
    #[non_exhaustive]
    Interrupted {
        /// The attempt that was interrupted.
        attempt: u32,
    },
    /// The lease is over, or somebody else has taken it, while the operation runs.
    LeaseLost,
    /// Somebody else has completed the operation; its value was returned.
    Superseded,
    /// The operation ran, and its outcome could not be stored: whoever repeats it may have it run again.
    Unrecorded,
    /// A call of the store failed.
    #[non_exhaustive]
    StoreFailed {
        /// The call, as the store's method is named.
        call: &'static str,
        /// Why.
        error: &'a StorageError,
    },
    /// A call of the store had no answer in time.
    #[non_exhaustive]
    StoreTimedOut {
        /// The call, as the store's method is named.
        call: &'static str,
        /// How long it was given.
        limit: Duration,
    },
}

impl EventKind<'_> {
    /// The event as a label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Stored { .. } => "stored",
            Self::Replayed => "replayed",
            Self::InProgress => "in_progress",
            Self::Mismatch => "mismatch",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Refused => "refused",
            Self::Corrected => "corrected",
            Self::Released => "released",
            Self::Interrupted { .. } => "interrupted",
            Self::LeaseLost => "lease_lost",
            Self::Superseded => "superseded",
            Self::Unrecorded => "unrecorded",
            Self::StoreFailed { .. } => "store_failed",
            Self::StoreTimedOut { .. } => "store_timed_out",
        }
    }
}

impl Policy {
    #[cold]
    pub(crate) fn emit(&self, id: KeyId, kind: EventKind<'_>) {
        let policy = self.name.as_str();
        let event = kind.as_str();
        match kind {
            EventKind::Claimed { attempt } | EventKind::Stored { attempt } => {
                tracing::debug!(target: "steadfast::idempotency", policy, %id, event, attempt);
            }
            EventKind::Replayed | EventKind::InProgress | EventKind::Released => {
                tracing::debug!(target: "steadfast::idempotency", policy, %id, event);
            }
            EventKind::Mismatch | EventKind::Refused | EventKind::Corrected => {
                tracing::info!(target: "steadfast::idempotency", policy, %id, event);
            }
            EventKind::OutcomeUnknown { attempt } | EventKind::Interrupted { attempt } => {
                tracing::warn!(target: "steadfast::idempotency", policy, %id, event, attempt);
            }
            EventKind::LeaseLost | EventKind::Superseded | EventKind::Unrecorded => {
                tracing::warn!(target: "steadfast::idempotency", policy, %id, event);
            }
            EventKind::StoreFailed { call, error } => {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::warn!(target: "steadfast::idempotency", policy, %id, event, call, error);
            }
            EventKind::StoreTimedOut { call, limit } => {
                tracing::warn!(target: "steadfast::idempotency", policy, %id, event, call, ?limit);
            }
        }
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "steadfast.idempotency.events",
            "policy" => crate::event::label(&self.name), "event" => event
        )
        .increment(1);
        if let Some(listener) = &self.listener {
            let event = Event { policy, id, kind };
            tell(|| listener(&event));
        }
    }
}
