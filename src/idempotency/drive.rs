//! The driver: from a key to a value, whoever has it.
//!
//! ```text
//!  enter --> wait for the one that leads --------------------------------------> its outcome
//!    |                 | its turn
//!    v                 v
//!  lead: claim --> completed, mismatch, unknown, cancelled --------------------> told to all
//!    |      |  ^
//!    |      v  | pause (another process is at it, and the policy waits)
//!    |     in progress
//!    v
//!  run, while the keeper renews --> settle --> complete | release | interrupt --> told to all, or the next one leads
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::Attempt;
use super::calls::Pauses;
use super::coalesce::{Seat, Word};
use super::event::EventKind;
use super::fingerprint::Fingerprint;
use super::inside::Inside;
use super::leading::{Begun, Leading};
use super::policy::Policy;
use super::store::{Face, Record, Store};
use crate::clock::after;
use crate::rejected::Idempotency as Why;
use crate::{KeyId, Rejected};

/// When a duplicate is told to ask again, unless the lease ends before.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The operation ran for this call.
    Executed,
    /// It had run before.
    Replayed,
    /// It ran for this call, but somebody else has taken over and completed it: this is the other's value.
    Superseded,
    /// It was interrupted before, and the recover hook has found out what it did.
    Recovered,
    /// It had run before, and the rebuild hook has made its value anew.
    Rebuilt,
    /// It ran, and its outcome is not stored: whoever repeats it may have it run again.
    Unrecorded,
}

/// What a call is about: the key, the request, and the face that it came by.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    pub(crate) id: KeyId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) face: Face,
}

impl Keyed {
    /// By a plain call.
    pub(crate) fn by_call(id: KeyId, fingerprint: Fingerprint) -> Self {
        let face = Face::Call;
        Self { id, fingerprint, face }
    }
}

/// What becomes of the record.
pub(crate) enum Settlement {
    /// The framed outcome is kept for `retention`.
    Store { outcome: Bytes, retention: Duration },
    /// Nothing has happened.
    Release,
    /// Something may have happened.
    Interrupt,
}

/// What came of a call.
pub(crate) enum Driven<R> {
    /// The operation ran here.
    Ran { value: R, source: Source, attempt: u32 },
    /// Somebody else's outcome, framed.
    Stored {
        outcome: Bytes,
        source: Source,
        attempt: u32,
    },
}

impl Policy {
    /// Runs `operation` once per key. `settle` says what its result means for the record.
    ///
    /// The caller's future drives the operation; dropped before its first poll it releases the key, and interrupts the
    /// operation after.
    pub(crate) async fn drive<R, F, Fut, S>(
        self: &Arc<Self>,
        keyed: Keyed,
        operation: F,
        settle: S,
    ) -> Result<Driven<R>, Rejected>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = R>,
        S: FnOnce(&R) -> Settlement,
    {
        let Keyed { id, fingerprint, .. } = keyed;
        if Inside::contains(self, id) {
            return Err(self.refuse(id, in_progress(RETRY_AFTER)));
        }
        let brief = self.wait.max.is_zero();
        let deadline = after(if brief { self.store_timeout } else { self.wait.max });
        let lead = match self.slots.enter(id, fingerprint, brief, self.wait.max_waiters) {
            Seat::Lead(lead) => Some(lead),
            Seat::Alone => None,
            Seat::InProgress => return Err(self.refuse(id, in_progress(RETRY_AFTER))),
            Seat::Wait(mut waiter) => match timeout_at(deadline, waiter.word()).await {
                Ok(Word::Lead(lead)) => Some(lead),
                Ok(Word::Outcome {
                    outcome,
                    recorded,
                    attempt,
                }) => {
                    self.emit(id, EventKind::Replayed);
                    let source = if recorded { Source::Replayed } else { Source::Unrecorded };
                    return Ok(Driven::Stored {
                        outcome,
                        source,
                        attempt,
                    });
                }
                Ok(Word::Rejected(why)) => return Err(self.refuse(id, why)),
                Ok(Word::InProgress) | Err(_) => return Err(self.refuse(id, in_progress(RETRY_AFTER))),
            },
        };
        let leading = Leading::new(self, keyed, lead);
        let claimed = leading.claim((!brief).then_some(deadline)).await?;
        match claimed {
            Begun::Stored(outcome, attempt) => Ok(Driven::Stored {
                outcome,
                source: Source::Replayed,
                attempt,
            }),
            Begun::Owned(leading, held, checkpoint) => {
                let attempt = Attempt::held(&held, checkpoint);
                leading.run(&held, attempt, operation, settle).await
            }
            Begun::WithoutRecord(leading) => Ok(leading.run_without_record(operation, settle).await),
        }
    }

    /// Tells why a call is refused, and refuses it.
    pub(super) fn refuse(&self, id: KeyId, why: Why) -> Rejected {
        let event = match why {
            Why::InProgress { .. } => Some(EventKind::InProgress),
            Why::KeyMismatch => Some(EventKind::Mismatch),
            Why::OutcomeUnknown { attempt } => Some(EventKind::OutcomeUnknown { attempt }),
            Why::KeyCancelled => Some(EventKind::Refused),
            // Told when the call of the store failed.
            _ => None,
        };
        if let Some(event) = event {
            self.emit(id, event);
        }
        self.reject(why)
    }

    /// The outcome of whoever has overtaken this call, awaited for the time of a lease.
    pub(super) async fn winner(&self, id: KeyId, fingerprint: Fingerprint) -> Option<(Bytes, u32)> {
        let deadline = Instant::now() + self.lease;
        let mut pauses = Pauses::new(self);
        loop {
            let found = self.one_call("inspect", id, self.store.inspect(id)).await;
            match found.map(|found| found.map(|found| (found.record.is_interrupted(found.now), found.record))) {
                Ok(Some((_, Record::Completed { owner, outcome, .. }))) => {
                    return (owner.fingerprint == fingerprint).then_some((outcome, owner.attempt));
                }
                Ok(Some((false, Record::InProgress { .. }))) => {}
                Err(error) if error.is_retryable() => {}
                _ => return None,
            }
            let pause = pauses.next();
            if Instant::now() + pause >= deadline {
                return None;
            }
            sleep(pause).await;
        }
    }
}

pub(super) fn in_progress(retry_after: Duration) -> Why {
    Why::InProgress { retry_after }
}
