//! One run of an operation, and the lease it runs under.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::calls::unavailable;
use super::coalesce::Lead;
use super::event::EventKind;
use super::policy::Policy;
use super::store::{Owner, Renewed, Store};
use crate::rejected::Idempotency as Why;
use crate::storage::lease::Lease;
use crate::storage::{hash_parts, write_hex};
use crate::{KeyId, Rejected};

/// What an operation knows of its own run. A clone speaks of the same run.
#[derive(Clone)]
pub struct Attempt {
    id: KeyId,
    number: u32,
    fence: u64,
    checkpoint: Option<Bytes>,
    /// `None` for one without a record: the store could not be asked, and the policy fails open.
    held: Option<Arc<Held>>,
}

impl Attempt {
    pub(crate) fn held(held: &Arc<Held>, checkpoint: Option<Bytes>) -> Self {
        Self {
            id: held.id,
            number: held.owner.attempt,
            fence: held.owner.fence,
            checkpoint,
            held: Some(Arc::clone(held)),
        }
    }

    pub(crate) fn without_record(id: KeyId) -> Self {
        Self {
            id,
            number: 1,
            fence: 0,
            checkpoint: None,
            held: None,
        }
    }

    /// 1 for the first run, one more for each after an interruption: those before may have had their effect.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A number that grows with every run under the key: a resource that remembers the largest it has seen can refuse
    /// a run that was overtaken. 0 for a run without a record.
    ///
    /// Kleppmann, *Designing Data-Intensive Applications*, chapter 8, calls it a fencing token.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// The hash of the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A key for a call that the operation makes, the same in every attempt: 64 hexadecimal digits, that tell nothing of
    /// the caller's key. `label` names the call within the operation.
    #[must_use]
    pub fn derived_key(&self, label: &str) -> String {
        derived_key(self.id, label)
    }

    /// What an earlier attempt noted last.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    /// Notes how far the operation has come, for the attempt after an interruption. It renews the lease as well, and
    /// takes the place of an earlier note.
    ///
    /// What has noted something has come somewhere: it is interrupted where it would be released. A note is stored as it
    /// is, also where outcomes are [sealed](super::Sealer). A run without a record has nowhere to note it, and goes on.
    ///
    /// # Errors
    ///
    /// A [`Rejected`] of the kind [`StoreUnavailable`](crate::RejectedKind::StoreUnavailable) when it could not be
    /// stored, and of the kind [`OutcomeUnknown`](crate::RejectedKind::OutcomeUnknown) when the operation was overtaken.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may have been noted or not.
    pub async fn save_checkpoint(&self, checkpoint: impl Into<Bytes>) -> Result<(), Rejected> {
        match &self.held {
            None => Ok(()),
            Some(held) => held.renew(Some(checkpoint.into())).await,
        }
    }

    /// Whether somebody else may be running the operation by now: its lease is over, or was taken.
    #[must_use]
    pub fn lease_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_lost())
    }

    /// Waits until [`lease_lost`](Self::lease_lost).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until_lease_lost(&self) {
        match &self.held {
            None => std::future::pending().await,
            Some(held) => held.until_lost().await,
        }
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("number", &self.number)
            .field("fence", &self.fence)
            .field("lease_lost", &self.lease_lost())
            .finish_non_exhaustive()
    }
}

pub(crate) fn derived_key(id: KeyId, label: &str) -> String {
    let hash = hash_parts(&[b"steadfast derived key", id.as_bytes(), label.as_bytes()]);
    let mut key = String::with_capacity(2 * hash.len());
    let _ = write_hex(&hash, &mut key);
    key
}

/// A claimed key.
pub(crate) struct Held {
    pub(crate) policy: Arc<Policy>,
    pub(crate) id: KeyId,
    pub(crate) owner: Owner,
    /// Of the lease's times.
    origin: Instant,
    lease: Mutex<Lease>,
    changed: Notify,
    /// A checkpoint was sent.
    noted: AtomicBool,
    /// Whether this loss of the lease has been told.
    told: AtomicBool,
    /// Over the others in this process, until the operation ends or its lease: whoever hangs keeps nobody waiting.
    lead: Mutex<Option<Lead>>,
}

impl Held {
    /// A key whose claim was sent at `sent`.
    pub(crate) fn new(policy: &Arc<Policy>, id: KeyId, owner: Owner, sent: Instant) -> Self {
        Self {
            policy: Arc::clone(policy),
            id,
            owner,
            origin: sent,
            lease: Mutex::new(Lease::claimed(Duration::ZERO, policy.lease, policy.max_renewal)),
            changed: Notify::new(),
            noted: AtomicBool::new(false),
            told: AtomicBool::new(false),
            lead: Mutex::new(None),
        }
    }

    pub(crate) fn keep_lead(&self, lead: Option<Lead>) {
        *self.lead.lock().unwrap_or_else(PoisonError::into_inner) = lead;
    }

    pub(crate) fn take_lead(&self) -> Option<Lead> {
        self.lead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn may_start(&self) -> bool {
        self.lease().may_start(self.origin.elapsed())
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lease().is_lost(self.origin.elapsed())
    }

    pub(crate) fn ends(&self) -> Instant {
        self.origin + self.lease().ends()
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the lease is over, by the clock or because it was taken.
    pub(crate) async fn until_lost(&self) {
        loop {
            // Listens first: what changes from here on is not missed.
            let changed = self.changed.notified();
            if self.is_lost() {
                return;
            }
            let _ = tokio::time::timeout_at(self.ends(), changed).await;
        }
    }

    async fn renew(&self, checkpoint: Option<Bytes>) -> Result<(), Rejected> {
        if checkpoint.is_some() {
            self.noted.store(true, Ordering::Relaxed);
        }
        let sent = self.origin.elapsed();
        let Policy { store, lease, .. } = &*self.policy;
        let renewal = store.renew(self.id, &self.owner, *lease, checkpoint.as_ref());
        let renewed = self.policy.one_call("renew", self.id, renewal).await;
        match renewed {
            Ok(Renewed::Renewed) => self.lease().renewed(sent),
            Ok(Renewed::Lost) => self.lease().taken(),
            Err(error) => return Err(self.reject(unavailable(&error))),
        }
        self.changed.notify_waiters();
        match renewed {
            Ok(Renewed::Lost) => Err(self.reject(Why::OutcomeUnknown {
                attempt: self.owner.attempt,
            })),
            _ => Ok(()),
        }
    }

    /// Refuses the operation itself something: that it is returned by the operation does not mean that nothing was sent.
    fn reject(&self, why: Why) -> Rejected {
        Rejected::idempotency_within(self.policy.name.clone(), why)
    }

    /// Whether the operation has said that it has come somewhere.
    pub(crate) fn has_noted(&self) -> bool {
        self.noted.load(Ordering::Relaxed)
    }

    /// Tells of a loss, unless that was done; says whether it is a loss that nobody knew of.
    pub(crate) fn tell_if_lost(&self) -> bool {
        let is_new = self.is_lost() && !self.told.swap(true, Ordering::Relaxed);
        if is_new {
            self.policy.emit(self.id, EventKind::LeaseLost);
        }
        is_new
    }

    /// Renews the lease for as long as it may be, tells when it is lost, and hands the lead on then.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut earliest = Duration::ZERO;
        loop {
            let Some(at) = self.lease().renew_at(earliest) else {
                self.until_lost().await;
                self.lost();
                return;
            };
            let at = self.origin + at;
            if self.told.load(Ordering::Relaxed) {
                tokio::time::sleep_until(at).await;
            } else {
                // The lease may end, or be found taken, before it is time to renew it.
                let _ = tokio::time::timeout_at(at, self.until_lost()).await;
                if self.lost() {
                    continue;
                }
            }
            let now = self.origin.elapsed();
            if self.lease().renew_at(now).is_none() {
                // This task was held up.
                earliest = now;
                continue;
            }
            earliest = match self.renew(None).await {
                Ok(()) => Duration::ZERO,
                // After a failure a tenth of the lease later: two thirds of it are left for the store to come back.
                Err(_) => self.origin.elapsed().saturating_add(self.policy.lease / 10),
            };
            if !self.is_lost() {
                self.told.store(false, Ordering::Relaxed);
            }
        }
    }

    fn lost(&self) -> bool {
        let is_new = self.tell_if_lost();
        if self.is_lost() {
            drop(self.take_lead());
        }
        is_new
    }
}
