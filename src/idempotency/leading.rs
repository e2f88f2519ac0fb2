//! The one call of this process that deals with a key: it claims it, runs the operation, and tells the others.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::attempt::{Attempt, Held};
use super::calls::{Pauses, unavailable};
use super::claim::Claiming;
use super::coalesce::Lead;
use super::drive::{Driven, Keyed, RETRY_AFTER, Settlement, Source, in_progress};
use super::event::EventKind;
use super::inside::Inside;
use super::policy::Policy;
use super::store::{Claimed, Completed};
use crate::rejected::Idempotency as Why;
use crate::storage::StorageErrorKind;
use crate::storage::lease::may_start_for;
use crate::{KeyId, Rejected};

/// The one call of this process that deals with the key.
pub(super) struct Leading<'a> {
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
pub(super) enum Begun<'a> {
    Stored(Bytes, u32),
    Owned(Leading<'a>, Arc<Held>, Option<Bytes>),
    WithoutRecord(Leading<'a>),
}

impl<'a> Leading<'a> {
    pub(super) fn new(policy: &'a Arc<Policy>, keyed: Keyed, lead: Option<Lead>) -> Self {
        Self {
            policy,
            id: keyed.id,
            claiming: Claiming::new(policy, keyed),
            line: Line { lead, held: None },
        }
    }

    /// Claims the key, waiting for another process until `patience`.
    pub(super) async fn claim(mut self, patience: Option<Instant>) -> Result<Begun<'a>, Rejected> {
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
    pub(super) async fn run<R, F, Fut, S>(
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
        let run = Inside::new(policy, self.id).scope(async move { operation(attempt).await });
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
    pub(super) async fn run_without_record<R, F, Fut, S>(mut self, operation: F, settle: S) -> Driven<R>
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
        let run = Inside::new(self.policy, self.id).scope(async move { operation(attempt).await });
        let value = run.await;
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

/// Renews a lease until it is dropped.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
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
