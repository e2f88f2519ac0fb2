//! What is shown of a record: never what it holds for its user.

use std::fmt;

use bytes::Bytes;

use super::types::{ClaimId, Claimed, Interrupted, Outcome, Record, Resolution};

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimId(")?;
        crate::storage::write_hex(self.as_bytes(), f)?;
        f.write_str(")")
    }
}

struct Size<'a>(&'a Bytes);

impl fmt::Debug for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outcome").field(&Size(&self.0)).finish()
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned { owner, checkpoint } => f
                .debug_struct("Owned")
                .field("owner", owner)
                .field("checkpoint", &checkpoint.as_ref().map(Size))
                .finish(),
            Self::Completed { attempt, outcome } => f
                .debug_struct("Completed")
                .field("attempt", attempt)
                .field("outcome", outcome)
                .finish(),
            Self::InProgress { lease_left } => f.debug_struct("InProgress").field("lease_left", lease_left).finish(),
            Self::Mismatch => f.write_str("Mismatch"),
            Self::Unknown(interrupted) => f.debug_tuple("Unknown").field(interrupted).finish(),
            Self::Cancelled => f.write_str("Cancelled"),
        }
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupted")
            .field("attempt", &self.attempt)
            .field("checkpoint", &self.checkpoint.as_ref().map(Size))
            .finish()
    }
}

impl fmt::Debug for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed { outcome, retention } => f
                .debug_struct("Completed")
                .field("outcome", &Size(outcome))
                .field("retention", retention)
                .finish(),
            Self::NotExecuted => f.write_str("NotExecuted"),
            Self::Corrected { outcome, retention } => f
                .debug_struct("Corrected")
                .field("outcome", &Size(outcome))
                .field("retention", retention)
                .finish(),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress {
                owner,
                lease_until,
                expires_at,
                checkpoint,
                origin,
            } => f
                .debug_struct("InProgress")
                .field("owner", owner)
                .field("lease_until", lease_until)
                .field("expires_at", expires_at)
                .field("checkpoint", &checkpoint.as_ref().map(Size))
                .field("origin", origin)
                .finish(),
            Self::Completed {
                owner,
                expires_at,
                outcome,
            } => f
                .debug_struct("Completed")
                .field("owner", owner)
                .field("expires_at", expires_at)
                .field("outcome", &Size(outcome))
                .finish(),
            Self::Cancelled { fence, interrupted } => f
                .debug_struct("Cancelled")
                .field("fence", fence)
                .field("interrupted", interrupted)
                .finish(),
        }
    }
}
