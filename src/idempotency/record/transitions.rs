//! Every transition of a record.

use std::time::Duration;

use bytes::Bytes;

use super::types::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Forgotten, Interrupted, Mode, Outcome, Owner, Record,
    Renewed, Resolution, Resolved, Step, Write,
};

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
                origin: claim.origin.clone(),
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
                origin,
            }) if held.claim_id == owner.claim_id => {
                let renewed_until = now.saturating_add(lease);
                let record = Self::InProgress {
                    owner: *held,
                    lease_until: renewed_until,
                    expires_at: expires_at.map(|at| renewed_until.saturating_add(at.saturating_sub(*lease_until))),
                    checkpoint: checkpoint.or(noted.as_ref()).cloned(),
                    origin: origin.clone(),
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
                origin,
            }) if held.claim_id == owner.claim_id => {
                if now >= *lease_until {
                    return keep(Ended::Interrupted);
                }
                let record = Self::InProgress {
                    owner: *held,
                    lease_until: now,
                    expires_at: expires_at.map(|at| now.saturating_add(at.saturating_sub(*lease_until))),
                    checkpoint: checkpoint.clone(),
                    origin: origin.clone(),
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

    /// Settles an interrupted operation. From then on its last owner has lost it: the outcome may differ from its own.
    ///
    /// What was settled so can be corrected, by another outcome: it is what somebody said, and not what a run has had.
    #[must_use]
    pub fn resolve(record: Option<&Self>, resolution: &Resolution, now: Duration) -> Step<Resolved> {
        let completed = |owner: &Owner, outcome: &Bytes, retention: Duration| {
            let record = Self::Completed {
                owner: Owner {
                    claim_id: ClaimId::NOBODY,
                    ..*owner
                },
                expires_at: now.saturating_add(retention),
                outcome: outcome.clone(),
            };
            put(Resolved::Resolved, record)
        };
        match (Self::live(record, now), resolution) {
            (Some(Self::InProgress { owner, lease_until, .. }), Resolution::Completed { outcome, retention })
                if now >= *lease_until =>
            {
                completed(owner, outcome, *retention)
            }
            (Some(Self::InProgress { lease_until, .. }), Resolution::NotExecuted) if now >= *lease_until => {
                delete(Resolved::Resolved)
            }
            (Some(Self::Completed { owner, .. }), Resolution::Corrected { outcome, retention })
                if owner.claim_id == ClaimId::NOBODY =>
            {
                completed(owner, outcome, *retention)
            }
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
