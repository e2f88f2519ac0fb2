//! The record of one key, and every transition of it: pure, so that each store can be held against it.
//!
//! ```text
//!            claim                    complete
//!   absent ---------> in progress -----------------> completed ---> absent, when it expires
//!      ^                |      ^ claim, at least once
//!      | release,       |      | (attempt + 1)
//!      | first attempt  v      |
//!      +------------ (lease over) interrupted ---> cancelled, outcome unknown
//!      |                  cancel                        (for ever)
//!      +---> cancelled (for ever)
//! ```
//!
//! A record in progress whose lease is over is *interrupted*. A record that has expired counts as absent in every
//! transition, whether it has been purged or not. Both are half-open: over, and expired, when `now >= t`.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::fingerprint::Fingerprint;

/// What names one claim: 128 random bits, chosen by the caller before it asks.
///
/// So a request whose reply was lost can be sent again and recognises itself; and whoever was overtaken cannot write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId([u8; 16]);

impl ClaimId {
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

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimId(")?;
        crate::storage::write_hex(&self.0, f)?;
        f.write_str(")")
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Chosen by the caller, the same in every repetition of this request.
    pub claim_id: ClaimId,
    /// Of the request.
    pub fingerprint: Fingerprint,
    /// What becomes of the record if it is interrupted.
    pub mode: Mode,
    /// How long the claim lasts unless it is renewed.
    pub lease: Duration,
}

/// Who claimed a key: every later write names it, and changes nothing where somebody else has claimed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// Its last attempt.
    pub attempt: u32,
    /// What that attempt, or one before it, noted.
    pub checkpoint: Option<Bytes>,
}

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// What resolving did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It is resolved.
    Resolved,
    /// The record is not an interrupted one. Nothing was changed.
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

fn keep<A>(answer: A) -> Step<A> {
    Step {
        answer,
        write: Write::Keep,
    }
}

fn put<A>(answer: A, record: Record) -> Step<A> {
    Step {
        answer,
        write: Write::Put(record),
    }
}

fn delete<A>(answer: A) -> Step<A> {
    Step {
        answer,
        write: Write::Delete,
    }
}

impl Record {
    /// The record as it counts at `now`: not at all once it has expired.
    #[must_use]
    pub fn live(record: Option<&Self>, now: Duration) -> Option<&Self> {
        record.filter(|record| record.expires_at().is_none_or(|expires_at| now < expires_at))
    }

    /// When it expires; `None` for never.
    #[must_use]
    pub fn expires_at(&self) -> Option<Duration> {
        match self {
            Self::InProgress { expires_at, .. } => *expires_at,
            Self::Completed { expires_at, .. } => Some(*expires_at),
            Self::Cancelled { .. } => None,
        }
    }

    /// The last fence that was given out for the key.
    #[must_use]
    pub fn fence(&self) -> u64 {
        match self {
            Self::InProgress { owner, .. } | Self::Completed { owner, .. } => owner.fence,
            Self::Cancelled { fence, .. } => *fence,
        }
    }

    /// Whether it is in progress and its lease is over at `now`.
    #[must_use]
    pub fn is_interrupted(&self, now: Duration) -> bool {
        matches!(self, Self::InProgress { lease_until, .. } if now >= *lease_until)
    }

    /// Claims the key.
    ///
    /// `fence` is the store's next one; where the record, expired or not, has had that or a larger one, the claim gets
    /// the next after it.
    #[must_use]
    pub fn claim(record: Option<&Self>, claim: &Claim, now: Duration, fence: u64) -> Step<Claimed> {
        let fence = record.map_or(fence, |record| fence.max(record.fence().saturating_add(1)));
        let owned = |attempt, fence, checkpoint: Option<Bytes>| {
            let owner = Owner {
                claim_id: claim.claim_id,
                fence,
                attempt,
                fingerprint: claim.fingerprint,
            };
            let lease_until = now.saturating_add(claim.lease);
            let record = Self::InProgress {
                owner,
                lease_until,
                expires_at: match claim.mode {
                    Mode::AtLeastOnce { retention } => Some(lease_until.saturating_add(retention)),
                    Mode::AtMostOnce => None,
                },
                checkpoint: checkpoint.clone(),
            };
            put(Claimed::Owned { owner, checkpoint }, record)
        };
        match Self::live(record, now) {
            None => owned(1, fence, None),
            Some(Self::Cancelled { .. }) => keep(Claimed::Cancelled),
            Some(Self::InProgress { owner, .. } | Self::Completed { owner, .. })
                if owner.fingerprint != claim.fingerprint =>
            {
                keep(Claimed::Mismatch)
            }
            Some(Self::Completed { owner, outcome, .. }) => keep(Claimed::Completed {
                attempt: owner.attempt,
                outcome: Outcome(outcome.clone()),
            }),
            Some(Self::InProgress { owner, checkpoint, .. }) if owner.claim_id == claim.claim_id => {
                owned(owner.attempt, owner.fence, checkpoint.clone())
            }
            Some(Self::InProgress { lease_until, .. }) if now < *lease_until => keep(Claimed::InProgress {
                lease_left: lease_until.saturating_sub(now),
            }),
            Some(Self::InProgress {
                owner,
                expires_at,
                checkpoint,
                ..
            }) => match (claim.mode, expires_at) {
                (Mode::AtLeastOnce { .. }, Some(_)) => {
                    owned(owner.attempt.saturating_add(1), fence, checkpoint.clone())
                }
                // Whoever ran it, or whoever asks, wants it at most once.
                _ => keep(Claimed::Unknown(Interrupted {
                    attempt: owner.attempt,
                    checkpoint: checkpoint.clone(),
                })),
            },
        }
    }

    /// Stores the outcome. Time alone never refuses it: where nobody has claimed the key since, a late result is still
    /// the truth.
    #[must_use]
    pub fn complete(
        record: Option<&Self>,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
        now: Duration,
    ) -> Step<Completed> {
        let completed = |owner: &Owner| {
            let record = Self::Completed {
                owner: *owner,
                expires_at: now.saturating_add(retention),
                outcome: outcome.clone(),
            };
            put(Completed::Applied, record)
        };
        match Self::live(record, now) {
            None => completed(owner),
            Some(Self::InProgress { owner: held, .. }) if held.claim_id == owner.claim_id => completed(held),
            Some(Self::Completed { owner: held, .. }) if held.claim_id == owner.claim_id => {
                keep(Completed::AlreadyApplied)
            }
            Some(_) => keep(Completed::Lost),
        }
    }

    /// Begins the lease anew, and notes a checkpoint where there is one.
    #[must_use]
    pub fn renew(
        record: Option<&Self>,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
        now: Duration,
    ) -> Step<Renewed> {
        match Self::live(record, now) {
            Some(Self::InProgress {
                owner: held,
                lease_until,
                expires_at,
                checkpoint: noted,
            }) if held.claim_id == owner.claim_id => {
                let renewed_until = now.saturating_add(lease);
                let record = Self::InProgress {
                    owner: *held,
                    lease_until: renewed_until,
                    expires_at: expires_at.map(|at| renewed_until.saturating_add(at.saturating_sub(*lease_until))),
                    checkpoint: checkpoint.or(noted.as_ref()).cloned(),
                };
                put(Renewed::Renewed, record)
            }
            _ => keep(Renewed::Lost),
        }
    }

    /// Gives the claim up, as nothing has happened: the key is free, unless there was an earlier attempt. That one may
    /// have had its effect, so then the operation is interrupted.
    #[must_use]
    pub fn release(record: Option<&Self>, owner: &Owner, now: Duration) -> Step<Ended> {
        match Self::live(record, now) {
            None => keep(Ended::Released),
            Some(Self::InProgress { owner: held, .. }) if held.claim_id == owner.claim_id && held.attempt == 1 => {
                delete(Ended::Released)
            }
            record => Self::interrupt(record, owner, now),
        }
    }

    /// Gives the claim up, as something may have happened: the lease is over at once.
    #[must_use]
    pub fn interrupt(record: Option<&Self>, owner: &Owner, now: Duration) -> Step<Ended> {
        match Self::live(record, now) {
            Some(Self::InProgress {
                owner: held,
                lease_until,
                expires_at,
                checkpoint,
            }) if held.claim_id == owner.claim_id => {
                if now >= *lease_until {
                    return keep(Ended::Interrupted);
                }
                let record = Self::InProgress {
                    owner: *held,
                    lease_until: now,
                    expires_at: expires_at.map(|at| now.saturating_add(at.saturating_sub(*lease_until))),
                    checkpoint: checkpoint.clone(),
                };
                put(Ended::Interrupted, record)
            }
            _ => keep(Ended::Lost),
        }
    }

    /// Closes the key for ever.
    #[must_use]
    pub fn cancel(record: Option<&Self>, now: Duration) -> Step<Cancellation> {
        let fence = record.map_or(0, Self::fence);
        match Self::live(record, now) {
            None => put(
                Cancellation::Cancelled,
                Self::Cancelled {
                    fence,
                    interrupted: None,
                },
            ),
            Some(Self::Cancelled { interrupted, .. }) => keep(match interrupted {
                None => Cancellation::Cancelled,
                Some(interrupted) => Cancellation::CancelledUnknown(interrupted.clone()),
            }),
            Some(Self::Completed { outcome, .. }) => keep(Cancellation::AlreadyDone(Outcome(outcome.clone()))),
            Some(Self::InProgress { lease_until, .. }) if now < *lease_until => keep(Cancellation::InProgress {
                lease_left: lease_until.saturating_sub(now),
            }),
            Some(Self::InProgress { owner, checkpoint, .. }) => {
                let interrupted = Interrupted {
                    attempt: owner.attempt,
                    checkpoint: checkpoint.clone(),
                };
                let record = Self::Cancelled {
                    fence,
                    interrupted: Some(interrupted.clone()),
                };
                put(Cancellation::CancelledUnknown(interrupted), record)
            }
        }
    }

    /// Settles an interrupted operation.
    #[must_use]
    pub fn resolve(record: Option<&Self>, resolution: &Resolution, now: Duration) -> Step<Resolved> {
        match Self::live(record, now) {
            Some(Self::InProgress { owner, lease_until, .. }) if now >= *lease_until => match resolution {
                Resolution::NotExecuted => delete(Resolved::Resolved),
                Resolution::Completed { outcome, retention } => put(
                    Resolved::Resolved,
                    Self::Completed {
                        owner: *owner,
                        expires_at: now.saturating_add(*retention),
                        outcome: outcome.clone(),
                    },
                ),
            },
            _ => keep(Resolved::NotInterrupted),
        }
    }

    /// Removes the record, whatever it says, unless somebody is at it.
    #[must_use]
    pub fn forget(record: Option<&Self>, now: Duration) -> Step<Forgotten> {
        match Self::live(record, now) {
            None => keep(Forgotten::Absent),
            Some(Self::InProgress { lease_until, .. }) if now < *lease_until => keep(Forgotten::InProgress),
            Some(_) => delete(Forgotten::Forgotten),
        }
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
            } => f
                .debug_struct("InProgress")
                .field("owner", owner)
                .field("lease_until", lease_until)
                .field("expires_at", expires_at)
                .field("checkpoint", &checkpoint.as_ref().map(Size))
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
