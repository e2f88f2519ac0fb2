//! What a record is made of, what is asked of it, and what it answers.

use std::time::Duration;

use bytes::Bytes;

use super::super::fingerprint::Fingerprint;
use super::origin::Origin;

/// What names one claim: 128 random bits, chosen by the caller before it asks.
///
/// So a request whose reply was lost can be sent again and recognises itself; and whoever was overtaken cannot write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId([u8; 16]);

impl ClaimId {
    /// What stands in a record that an operator has completed: nobody's, so that who ran the operation is told
    /// that it has lost the key, and asks for the outcome.
    pub const NOBODY: Self = Self([0; 16]);

    /// The id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What becomes of an operation that was interrupted: its process crashed, its future was dropped, it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The next caller runs it again. The interrupted record is kept for `retention` after the end of its lease.
    AtLeastOnce {
        /// How long an interrupted record is kept.
        retention: Duration,
    },
    /// Nobody runs it again, and the record is kept until an operator has resolved it.
    AtMostOnce,
}

/// A claim of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Chosen by the caller, the same in every repetition of this request.
    pub claim_id: ClaimId,
    /// Of the request.
    pub fingerprint: Fingerprint,
    /// What becomes of the record if it is interrupted.
    pub mode: Mode,
    /// How long the claim lasts unless it is renewed.
    pub lease: Duration,
    /// Who claims it, for an operator to read.
    pub origin: Origin,
}

/// Who claimed a key: every later write names it, and changes nothing where somebody else has claimed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The claim: the one thing that is compared.
    pub claim_id: ClaimId,
    /// Grows with every claim of the key, for ever, over expiry and purge too.
    pub fence: u64,
    /// 1 for the first run, one more for each after an interruption.
    pub attempt: u32,
    /// Of the request.
    pub fingerprint: Fingerprint,
}

/// The record of one key. Times are the store's own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Record {
    /// Claimed, and interrupted if the lease is over.
    InProgress {
        /// Who claimed it.
        owner: Owner,
        /// When the lease is over.
        lease_until: Duration,
        /// When the record is gone; `None` for one of [`Mode::AtMostOnce`].
        expires_at: Option<Duration>,
        /// What the operation noted for the next attempt.
        checkpoint: Option<Bytes>,
        /// Who claimed it, for an operator to read.
        origin: Origin,
    },
    /// There is an outcome.
    Completed {
        /// Who completed it.
        owner: Owner,
        /// When the record is gone.
        expires_at: Duration,
        /// The outcome, encoded.
        outcome: Bytes,
    },
    /// Closed for ever.
    Cancelled {
        /// The last fence that was given out; 0 for none.
        fence: u64,
        /// The attempt that was interrupted before, and may have had its effect.
        interrupted: Option<Interrupted>,
    },
}

/// What is known of an interrupted operation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Interrupted {
    /// Its last attempt.
    pub attempt: u32,
    /// What that attempt, or one before it, noted.
    pub checkpoint: Option<Bytes>,
}

/// What a claim found.
#[derive(Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The caller owns the key, and runs the operation.
    Owned {
        /// As which every later write has to name it.
        owner: Owner,
        /// What an interrupted attempt noted.
        checkpoint: Option<Bytes>,
    },
    /// There is an outcome already.
    Completed {
        /// The attempt that had it.
        attempt: u32,
        /// The outcome, encoded.
        outcome: Outcome,
    },
    /// Somebody else is at it.
    InProgress {
        /// Until the end of the other's lease.
        lease_left: Duration,
    },
    /// The key belongs to another request.
    Mismatch,
    /// An earlier attempt was interrupted, and nobody may run it again.
    Unknown(Interrupted),
    /// The key was closed.
    Cancelled,
}

/// The encoded outcome of an operation. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome(pub Bytes);

/// What a completion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// The outcome is stored.
    Applied,
    /// It was stored before: the reply to an earlier sending of this request was lost.
    AlreadyApplied,
    /// Somebody else has claimed the key since, or it was closed. Nothing was changed.
    Lost,
}

/// What a renewal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease lasts from now, also if it was over: nobody had taken it.
    Renewed,
    /// The key is not the caller's any more. Nothing was changed.
    Lost,
}

/// What giving a claim up did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The key is free.
    Released,
    /// The operation is interrupted: as asked for, or because an earlier attempt may have had its effect.
    Interrupted,
    /// The key is not the caller's any more. Nothing was changed.
    Lost,
}

/// What closing a key for ever did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// It is closed, and nothing had been done under it.
    Cancelled,
    /// It is closed; an interrupted attempt may have had its effect, and may still have it.
    CancelledUnknown(Interrupted),
    /// The operation has completed, and stays so.
    AlreadyDone(Outcome),
    /// Somebody is at it. Nothing was changed.
    InProgress {
        /// Until the end of the lease.
        lease_left: Duration,
    },
}

/// What an operator has found out about an interrupted operation.
#[derive(Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It was carried out, with this outcome.
    Completed {
        /// The outcome, encoded.
        outcome: Bytes,
        /// How long it is kept.
        retention: Duration,
    },
    /// It was not carried out: the next caller runs it.
    NotExecuted,
    /// It has been resolved before, and this is the outcome that it should have got. What its own run has stored is
    /// nothing to be corrected.
    Corrected {
        /// The outcome, encoded.
        outcome: Bytes,
        /// How long it is kept.
        retention: Duration,
    },
}

/// What resolving did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is resolved.
    Resolved,
    /// The record is not an interrupted one, or for [`Resolution::Corrected`] not one that was resolved. Nothing was
    /// changed.
    NotInterrupted,
}

/// What forgetting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// The record is gone.
    Forgotten,
    /// There was none.
    Absent,
    /// Somebody is at it. Nothing was changed.
    InProgress,
}

/// A transition: what it answers, and what it does to the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<A> {
    /// The answer.
    pub answer: A,
    /// What is to be written.
    pub write: Write,
}

/// What a transition does to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Nothing.
    Keep,
    /// The record is now this one.
    Put(Record),
    /// There is no record any more.
    Delete,
}
