//! A claim from before it is sent until it has ended: whoever drops it on the way leaves the record as it should be.
//!
//! ```text
//!  asking --> owned --> running --> completing --> (settled)
//!    |          |          |            |
//!    | dropped  | dropped  | dropped    | dropped
//!    v          v          v            v
//!  the answer  release   interrupt   complete
//!  is awaited,                       all the same
//!  then release
//! ```
//!
//! What a drop has to tell the store, a task of its own tells it. Where there is no runtime any more, the end of the
//! lease does.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::Held;
use super::calls::Pauses;
use super::drive::Keyed;
use super::event::EventKind;
use super::flight::Flight;
use super::policy::Policy;
use super::store::shared::StoreCall;
use super::store::{Claim, ClaimId, Claimed, Completed, Ended, Owner, Store};
use crate::KeyId;
use crate::random::unique;
use crate::storage::StorageError;

/// In place of the fence of a claim that the store has not answered. No store gives it out.
const WITHOUT_RECORD: u64 = 0;

/// With so many claims being released that were never answered, a further one is left to its lease.
const MAX_RELEASES: usize = 1_000;

/// A claim, its end guaranteed.
pub(crate) struct Claiming {
    policy: Arc<Policy>,
    id: KeyId,
    claim: Claim,
    state: State,
    runtime: Option<Handle>,
    flight: Option<Flight>,
}

enum State {
    /// Sent, and not answered. The call is kept: dropped and repeated elsewhere it might arrive after what follows it.
    Asking(Option<StoreCall<Claimed>>),
    Owned(Owner),
    Running(Owner),
    Completing {
        owner: Owner,
        outcome: Bytes,
        retention: Duration,
    },
    Settled,
}

impl Claiming {
    pub(crate) fn new(policy: &Arc<Policy>, keyed: Keyed) -> Self {
        let Keyed { id, fingerprint, face } = keyed;
        Self {
            policy: Arc::clone(policy),
            id,
            claim: Claim {
                claim_id: ClaimId::from_bytes(unique()),
                fingerprint,
                mode: policy.mode,
                lease: policy.lease,
                origin: policy.origins.of(face),
            },
            state: State::Settled,
            runtime: Handle::try_current().ok(),
            flight: Some(policy.flights.begin()),
        }
    }

    /// Asks the store for the key; with the answer comes when the request was sent.
    ///
    /// A request that was not answered is sent again, under the same claim, for as long as a call may take.
    pub(crate) async fn ask(&mut self) -> Result<(Claimed, Instant), StorageError> {
        let (policy, id) = (Arc::clone(&self.policy), self.id);
        let deadline = Instant::now() + policy.store_timeout;
        let mut pauses = Pauses::new(&policy);
        let mut maybe_claimed = false;
        loop {
            let sent = Instant::now();
            self.state = State::Asking(Some(policy.store.start_claim(self.id, self.claim.clone())));
            let answered = poll_fn(|cx| self.poll_answer(cx));
            match policy.one_call("claim", id, answered).await {
                Ok(claimed) => {
                    self.state = match claimed {
                        Claimed::Owned { owner, .. } => State::Owned(owner),
                        _ => State::Settled,
                    };
                    return Ok((claimed, sent));
                }
                Err(error) => {
                    maybe_claimed |= error.is_retryable();
                    if !maybe_claimed {
                        self.state = State::Settled;
                    }
                    let pause = pauses.next();
                    if !error.is_retryable() || Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Claimed, StorageError>> {
        // Taken out while it is polled: one that panics is not polled again, and the claim is released.
        let State::Asking(call) = &mut self.state else {
            return Poll::Pending;
        };
        let Some(mut polled) = call.take() else {
            return Poll::Pending;
        };
        let answer = polled.as_mut().poll(cx);
        if answer.is_pending() {
            *call = Some(polled);
        }
        answer
    }

    /// The operation starts: from here on it may have had its effect.
    pub(crate) fn running(&mut self) {
        self.state = State::Running(self.owner());
    }

    /// Stores the outcome, until the lease of `held` ends, and in any case for as long as a call may take.
    pub(crate) async fn complete(
        &mut self,
        held: &Held,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let policy = &self.policy;
        let deadline = held.ends().max(Instant::now() + policy.store_timeout);
        self.state = State::Completing {
            owner: held.owner,
            outcome: outcome.clone(),
            retention,
        };
        let send = || {
            policy
                .store
                .start_complete(self.id, held.owner, outcome.clone(), retention)
        };
        let completed = policy.insist("complete", self.id, deadline, send).await;
        self.state = State::Settled;
        completed
    }

    /// Stores the outcome from now on, without anybody waiting for it.
    pub(crate) fn complete_later(mut self, outcome: Bytes, retention: Duration) {
        let owner = self.owner();
        self.state = State::Completing {
            owner,
            outcome,
            retention,
        };
    }

    /// Tells the store that nothing has happened, without anybody waiting for it.
    pub(crate) fn release_later(mut self) {
        self.state = State::Owned(self.owner());
    }

    /// Nothing has happened.
    pub(crate) async fn release(mut self) {
        let owner = self.owner();
        self.state = State::Owned(owner);
        let request = self.policy.store.release(self.id, &owner);
        if let Ok(ended) = self.policy.one_call("release", self.id, request).await {
            self.state = State::Settled;
            self.policy.emit_ended(self.id, ended, owner.attempt);
        }
    }

    /// Something may have happened.
    pub(crate) async fn interrupt(mut self) {
        let owner = self.owner();
        self.state = State::Running(owner);
        let request = self.policy.store.interrupt(self.id, &owner);
        if let Ok(ended) = self.policy.one_call("interrupt", self.id, request).await {
            self.state = State::Settled;
            self.policy.emit_ended(self.id, ended, owner.attempt);
        }
    }

    /// As whom the store knows the claim. Where its answer is not known, all that counts is: the claim's id.
    fn owner(&self) -> Owner {
        match &self.state {
            State::Owned(owner) | State::Running(owner) | State::Completing { owner, .. } => *owner,
            State::Asking(_) | State::Settled => Owner {
                claim_id: self.claim.claim_id,
                fence: WITHOUT_RECORD,
                attempt: 1,
                fingerprint: self.claim.fingerprint,
            },
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        let owner = self.owner();
        let state = mem::replace(&mut self.state, State::Settled);
        if matches!(state, State::Settled) {
            return;
        }
        let mut release = None;
        if let State::Asking(_) = &state {
            // In an outage of the store each call would leave one. Where the store answers, each is gone at once.
            if self.policy.releases.count() >= MAX_RELEASES {
                return;
            }
            release = Some(self.policy.releases.begin());
        }
        let Some(runtime) = &self.runtime else { return };
        let last_word = LastWord {
            policy: Arc::clone(&self.policy),
            id: self.id,
            owner,
            _flight: self.flight.take(),
            _release: release,
        };
        runtime.spawn(last_word.send(state));
    }
}

/// What is left to be told to the store.
struct LastWord {
    policy: Arc<Policy>,
    id: KeyId,
    owner: Owner,
    _flight: Option<Flight>,
    /// Counts those of claims that were never answered.
    _release: Option<Flight>,
}

impl LastWord {
    async fn send(self, state: State) {
        let (policy, id, owner) = (&self.policy, self.id, self.owner);
        let deadline = Instant::now() + policy.lease;
        let mut attempt = owner.attempt;
        let ended = match state {
            State::Settled => return,
            State::Asking(call) => {
                let answer = match call {
                    Some(call) => timeout_at(deadline, call).await.ok(),
                    None => None,
                };
                match answer {
                    Some(Ok(Claimed::Owned { owner, .. })) => attempt = owner.attempt,
                    Some(Ok(_)) => return,
                    Some(Err(_)) | None => {}
                }
                policy
                    .insist("release", id, deadline, || policy.store.release(id, &owner))
                    .await
            }
            State::Owned(owner) => {
                policy
                    .insist("release", id, deadline, || policy.store.release(id, &owner))
                    .await
            }
            State::Running(owner) => {
                let interrupt = || policy.store.interrupt(id, &owner);
                policy.insist("interrupt", id, deadline, interrupt).await
            }
            State::Completing {
                owner,
                outcome,
                retention,
            } => {
                let complete = || policy.store.start_complete(id, owner, outcome.clone(), retention);
                let completed = policy.insist("complete", id, deadline, complete).await;
                match completed {
                    Ok(Completed::Applied | Completed::AlreadyApplied) => {
                        policy.emit(id, EventKind::Stored { attempt: owner.attempt });
                    }
                    // Told when it ran.
                    Ok(Completed::Lost) | Err(_) if owner.fence == WITHOUT_RECORD => {}
                    Ok(Completed::Lost) | Err(_) => policy.emit(id, EventKind::Unrecorded),
                }
                return;
            }
        };
        if let Ok(ended) = ended {
            policy.emit_ended(id, ended, attempt);
        }
    }
}

impl Policy {
    fn emit_ended(&self, id: KeyId, ended: Ended, attempt: u32) {
        match ended {
            Ended::Released => self.emit(id, EventKind::Released),
            Ended::Interrupted => self.emit(id, EventKind::Interrupted { attempt }),
            // Told when the lease was lost.
            Ended::Lost => {}
        }
    }
}
