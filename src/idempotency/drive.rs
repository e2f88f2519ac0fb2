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

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::{Attempt, Held};
use super::calls::{Pauses, unavailable};
use super::claim::Claiming;
use super::coalesce::{Lead, Seat, Word};
use super::event::EventKind;
use super::fingerprint::Fingerprint;
use super::policy::Policy;
use super::store::{Claimed, Completed, Face, Record, Store};
use crate::clock::after;
use crate::rejected::Idempotency as Why;
use crate::storage::StorageErrorKind;
use crate::storage::lease::may_start_for;
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

tokio::task_local! {
    /// The operations that this code runs inside of.
    static INSIDE: Arc<Inside>;
}

struct Inside {
    policy: Arc<Policy>,
    id: KeyId,
    outer: Option<Arc<Inside>>,
}

impl Inside {
    fn new(policy: &Arc<Policy>, id: KeyId) -> Arc<Self> {
        Arc::new(Self {
            policy: Arc::clone(policy),
            id,
            outer: INSIDE.try_with(Arc::clone).ok(),
        })
    }

    /// Whether this is called from within the operation `id`, which cannot end before the call does.
    fn contains(policy: &Arc<Policy>, id: KeyId) -> bool {
        let within = |innermost: &Arc<Self>| {
            let mut next = Some(innermost);
            while let Some(inside) = next {
                if inside.id == id && Arc::ptr_eq(&inside.policy, policy) {
                    return true;
                }
                next = inside.outer.as_ref();
            }
            false
        };
        INSIDE.try_with(within).unwrap_or(false)
    }
}

/// `future` counts as called from here, wherever it is polled.
#[cfg(feature = "http")]
pub(crate) fn called_from_here<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let inside = INSIDE.try_with(Arc::clone).ok();
    async move {
        match inside {
            Some(inside) => INSIDE.scope(inside, future).await,
            None => future.await,
        }
    }
}

/// Renews a lease until it is dropped.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        let leading = Leading {
            policy: self,
            id,
            line: Line { lead, held: None },
            claiming: Claiming::new(self, keyed),
        };
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
    fn refuse(&self, id: KeyId, why: Why) -> Rejected {
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
    async fn winner(&self, id: KeyId, fingerprint: Fingerprint) -> Option<(Bytes, u32)> {
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

fn in_progress(retry_after: Duration) -> Why {
    Why::InProgress { retry_after }
}

/// The one call of this process that deals with the key.
struct Leading<'a> {
    policy: &'a Arc<Policy>,
    id: KeyId,
    // Before the lead, so that it is dropped before: the next one to lead must find the claim given up, or left to a task.
    claiming: Claiming,
    line: Line,
}

/// Those in this process who wait for the same: handed to the next of them when it is dropped.
struct Line {
    /// `None` for another request under a key that is being dealt with, and once the lead was given up.
    lead: Option<Lead>,
    /// Who keeps the lead while the operation runs.
    held: Option<Arc<Held>>,
}

impl Line {
    /// The operation runs: from here on the lead ends with the lease.
    fn running(&mut self, held: &Arc<Held>) {
        if let Some(lead) = &mut self.lead {
            lead.running();
        }
        held.keep_lead(self.lead.take());
        self.held = Some(Arc::clone(held));
    }

    fn take(&mut self) -> Option<Lead> {
        self.lead.take().or_else(|| self.held.as_ref()?.take_lead())
    }

    fn tell(&mut self, outcome: &Bytes, recorded: bool, attempt: u32) {
        if let Some(lead) = self.take() {
            lead.outcome(outcome, recorded, attempt);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// What the claim has led to.
enum Begun<'a> {
    Stored(Bytes, u32),
    Owned(Leading<'a>, Arc<Held>, Option<Bytes>),
    WithoutRecord(Leading<'a>),
}

impl<'a> Leading<'a> {
    /// Claims the key, waiting for another process until `patience`.
    async fn claim(mut self, patience: Option<Instant>) -> Result<Begun<'a>, Rejected> {
        let mut pauses = Pauses::new(self.policy);
        let mut seen = false;
        let why = loop {
            let lease_left = match self.claiming.ask().await {
                // Somebody was at it a moment ago, and may still be.
                Err(_) if seen => RETRY_AFTER,
                // A record that cannot be read is a record: what it stands for may have run.
                Err(error) if self.policy.fail_open && error.kind() != StorageErrorKind::Corrupt => {
                    return Ok(Begun::WithoutRecord(self));
                }
                Err(error) => break unavailable(&error),
                Ok((Claimed::Owned { owner, checkpoint }, sent)) => {
                    let held = Arc::new(Held::new(self.policy, self.id, owner, sent));
                    if held.may_start() {
                        return Ok(Begun::Owned(self, held, checkpoint));
                    }
                    let late = EventKind::StoreTimedOut {
                        call: "claim",
                        limit: may_start_for(self.policy.lease),
                    };
                    self.policy.emit(self.id, late);
                    let reason = "it answered too late";
                    break Why::StoreUnavailable { reason };
                }
                Ok((Claimed::Completed { outcome, attempt }, _)) => {
                    self.policy.emit(self.id, EventKind::Replayed);
                    self.line.tell(&outcome.0, true, attempt);
                    return Ok(Begun::Stored(outcome.0, attempt));
                }
                Ok((Claimed::InProgress { lease_left }, _)) => lease_left,
                Ok((Claimed::Mismatch, _)) => break Why::KeyMismatch,
                Ok((Claimed::Unknown(interrupted), _)) => {
                    break Why::OutcomeUnknown {
                        attempt: interrupted.attempt,
                    };
                }
                Ok((Claimed::Cancelled, _)) => break Why::KeyCancelled,
            };
            seen = true;
            let why = in_progress(RETRY_AFTER.min(lease_left));
            let Some(deadline) = patience else { break why };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The others wait on, with one of them in the lead.
                return Err(self.policy.refuse(self.id, why));
            }
            // At the end of the lease it may be taken over, so not later than that.
            let pause = pauses.next().min(lease_left.max(Duration::from_millis(1)));
            sleep(pause.min(left)).await;
        };
        if let Some(lead) = self.line.take() {
            lead.rejected(why);
        }
        Err(self.policy.refuse(self.id, why))
    }

    /// Runs the operation under the lease, and settles its record.
    async fn run<R, F, Fut, S>(
        mut self,
        held: &Arc<Held>,
        attempt: Attempt,
        operation: F,
        settle: S,
    ) -> Result<Driven<R>, Rejected>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = R>,
        S: FnOnce(&R) -> Settlement,
    {
        let policy = self.policy;
        let number = held.owner.attempt;
        policy.emit(self.id, EventKind::Claimed { attempt: number });
        self.line.running(held);
        self.claiming.running();
        let inside = Inside::new(policy, self.id);
        let run = INSIDE.scope(inside, async move { operation(attempt).await });
        let Some(value) = keep_alive(held, run).await else {
            return Err(policy.reject(Why::OutcomeUnknown { attempt: number }));
        };
        let ran = |value, source| Driven::Ran {
            value,
            source,
            attempt: number,
        };
        match settle(&value) {
            Settlement::Release if !held.has_noted() => {
                let Self { claiming, line, .. } = self;
                claiming.release().await;
                drop(line);
                Ok(ran(value, Source::Executed))
            }
            Settlement::Release | Settlement::Interrupt => {
                let Self { claiming, line, .. } = self;
                claiming.interrupt().await;
                drop(line);
                Ok(ran(value, Source::Executed))
            }
            Settlement::Store { outcome, retention } => {
                let source = match self.claiming.complete(held, &outcome, retention).await {
                    Ok(Completed::Applied | Completed::AlreadyApplied) => {
                        policy.emit(self.id, EventKind::Stored { attempt: number });
                        Source::Executed
                    }
                    Ok(Completed::Lost) => {
                        if let Some((winner, attempt)) = policy.winner(self.id, held.owner.fingerprint).await {
                            policy.emit(self.id, EventKind::Superseded);
                            self.line.tell(&winner, true, attempt);
                            return Ok(Driven::Stored {
                                outcome: winner,
                                source: Source::Superseded,
                                attempt,
                            });
                        }
                        Source::Unrecorded
                    }
                    Err(_) => Source::Unrecorded,
                };
                if source == Source::Unrecorded {
                    policy.emit(self.id, EventKind::Unrecorded);
                }
                self.line.tell(&outcome, source == Source::Executed, number);
                Ok(ran(value, source))
            }
        }
    }

    /// Runs the operation although the store could not be asked, and tells the store of it when it can be.
    async fn run_without_record<R, F, Fut, S>(mut self, operation: F, settle: S) -> Driven<R>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = R>,
        S: FnOnce(&R) -> Settlement,
    {
        if let Some(lead) = &mut self.line.lead {
            lead.running();
        }
        self.claiming.running();
        let attempt = Attempt::without_record(self.id);
        let inside = Inside::new(self.policy, self.id);
        let value = INSIDE.scope(inside, async move { operation(attempt).await }).await;
        self.policy.emit(self.id, EventKind::Unrecorded);
        match settle(&value) {
            Settlement::Store { outcome, retention } => {
                self.line.tell(&outcome, false, 1);
                self.claiming.complete_later(outcome, retention);
            }
            Settlement::Release => self.claiming.release_later(),
            // What the drop of the claim does by itself.
            Settlement::Interrupt => {}
        }
        Driven::Ran {
            value,
            source: Source::Unrecorded,
            attempt: 1,
        }
    }
}

/// Polls `run` to its end, and renews the lease once it has been pending. `None` if the lease was lost first, and the
/// policy cancels then.
async fn keep_alive<R>(held: &Arc<Held>, run: impl Future<Output = R>) -> Option<R> {
    let mut run = pin!(run);
    let mut lost = pin!(held.policy.cancel_on_lease_lost.then(|| held.until_lost()));
    let mut keeper = None;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(value) = run.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        keeper.get_or_insert_with(|| Keeper(tokio::spawn(Arc::clone(held).keep())));
        match lost.as_mut().as_pin_mut() {
            Some(lost) => lost.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    });
    let ended = ended.await;
    // The keeper may not have come to it.
    held.tell_if_lost();
    ended
}
