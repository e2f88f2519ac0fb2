//! Finds out what became of an operation that was interrupted.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use super::attempt::{Attempt, derived_key};
use super::calls::unavailable;
use super::coalesce::{Lead, Seat, Word};
use super::disposition::Decide;
use super::drive::Source;
use super::encoding::Json;
use super::event::EventKind;
use super::execute::{Executed, Failed};
use super::fingerprint::Fingerprint;
use super::policy::Idempotency;
use super::store::{Record, Resolution, Resolved, Store};
use crate::clock::after;
use crate::rejected::Idempotency as Why;
use crate::storage::{StorageError, hash_parts};
use crate::{Key, KeyId, Rejected, RejectedKind};

/// An operation that was interrupted, and may have had its effect.
#[derive(Clone)]
pub struct Interruption {
    id: KeyId,
    attempt: u32,
    checkpoint: Option<Bytes>,
}

impl Interruption {
    /// The attempt that was interrupted.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What it noted last.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    /// The key that it sent along, as [`Attempt::derived_key`] made it.
    #[must_use]
    pub fn derived_key(&self, label: &str) -> String {
        derived_key(self.id, label)
    }
}

impl std::fmt::Debug for Interruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interruption")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What was found out about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery<T> {
    /// It was carried out, with this value: it is stored, and replayed from now on.
    Completed(T),
    /// It was not carried out, and cannot be any more: it is run.
    NotExecuted,
    /// It cannot be said: the outcome stays unknown.
    Unknown,
}

impl<D> Idempotency<D> {
    /// As [`execute`](Self::execute), for at most once: where an attempt was interrupted, `recover` is asked what it did,
    /// before a caller hears that nobody knows.
    ///
    /// `recover` asks the service that has the effect, by the key that the operation sent along. Of several callers in this
    /// process one asks, and the others hear what came of it. At least once it is never asked: there the operation runs
    /// again, and finds out by its [`Attempt`].
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::idempotency::{Attempt, Fingerprint, Idempotency, Interruption, MemoryStore, Recovery, Source};
    /// use steadfast::{Error, Key};
    ///
    /// type BankError = Error<std::io::Error>;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payments = Idempotency::at_most_once(MemoryStore::new()).accept_relaxed_durability().build()?;
    /// let (key, request) = (Key::new("tenant-7", "order-1234"), Fingerprint::of("100 EUR")?);
    ///
    /// // the answer of the bank is lost
    /// let charge = async |_: Attempt| Err::<String, _>(BankError::Inner(std::io::ErrorKind::ConnectionReset.into()));
    /// assert!(payments.execute(&key, request, charge).await.is_err());
    ///
    /// // the next caller asks the bank
    /// let ask = async |interrupted: Interruption| {
    ///     let _sent_along = interrupted.derived_key("charge");
    ///     Ok::<_, BankError>(Recovery::Completed("receipt 7".to_owned()))
    /// };
    /// let found = payments.execute_or_recover(&key, request, charge, ask).await?;
    /// assert_eq!((found.value.as_str(), found.source), ("receipt 7", Source::Recovered));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute) and of `recover`.
    ///
    /// # Cancel safety
    ///
    /// As for [`run`](Self::run). Dropped while `recover` is asked, nothing has changed.
    pub fn execute_or_recover<'a, T, E, F, Fut, G, Ask>(
        &'a self,
        key: &Key,
        fingerprint: Fingerprint,
        operation: F,
        recover: G,
    ) -> impl Future<Output = Result<Executed<T>, E>> + use<'a, D, T, E, F, Fut, G, Ask>
    where
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        G: FnOnce(Interruption) -> Ask,
        Ask: Future<Output = Result<Recovery<T>, E>>,
        D: Decide<T, E>,
    {
        let id = self.id(key);
        async move {
            let mut operation = Some(operation);
            let refused = match self
                .try_execute(id, fingerprint, &Json, |attempt| run(operation.take(), attempt))
                .await
            {
                Ok(executed) => return Ok(executed),
                Err(Failed::Operation(error)) => return Err(error),
                Err(Failed::Refused(rejected)) => rejected,
            };
            // One that has run here, and was refused its outcome, is not asked about: its lease may not be over.
            let (RejectedKind::OutcomeUnknown, Some(operation)) = (refused.kind(), operation) else {
                return Err(refused.into());
            };
            if let Some(lead) = self.lead_recovery(id, fingerprint).await {
                match self.recover(id, lead, recover).await? {
                    Recovery::Completed(executed) => return Ok(executed),
                    Recovery::NotExecuted => {}
                    Recovery::Unknown => return Err(refused.into()),
                }
            }
            self.execute_by_id(id, fingerprint, &Json, operation).await
        }
    }

    /// Waits for whoever asks already; `None` when it has asked, and the store knows what came of it.
    async fn lead_recovery(&self, id: KeyId, fingerprint: Fingerprint) -> Option<Lead> {
        let asking = KeyId::from_bytes(hash_parts(&[b"recovery", id.as_bytes()]));
        let slots = &self.policy.slots;
        match slots.enter(asking, fingerprint, false, self.policy.wait.max_waiters) {
            Seat::Lead(lead) => Some(lead),
            Seat::Alone | Seat::InProgress => None,
            Seat::Wait(mut waiter) => {
                let patience = self.policy.wait.max.max(self.policy.store_timeout);
                match timeout_at(after(patience), waiter.word()).await {
                    Ok(Word::Lead(lead)) => Some(lead),
                    Ok(Word::Outcome { .. } | Word::Rejected(_) | Word::InProgress) | Err(_) => None,
                }
            }
        }
    }

    async fn recover<T, E, G, Ask>(&self, id: KeyId, lead: Lead, recover: G) -> Result<Recovery<Executed<T>>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        G: FnOnce(Interruption) -> Ask,
        Ask: Future<Output = Result<Recovery<T>, E>>,
    {
        let policy = &self.policy;
        let unavailable = |error: StorageError| policy.reject(unavailable(&error));
        let inspected = policy.one_call("inspect", id, policy.store.inspect(id)).await;
        let interruption = match inspected.map_err(unavailable)? {
            Some(found) if found.record.is_interrupted(found.now) => match found.record {
                Record::InProgress { owner, checkpoint, .. } => Some(Interruption {
                    id,
                    attempt: owner.attempt,
                    checkpoint,
                }),
                Record::Completed { .. } | Record::Cancelled { .. } => None,
            },
            _ => None,
        };
        let Some(interruption) = interruption else {
            // Somebody has resolved it meanwhile: the store says how.
            return Ok(Recovery::NotExecuted);
        };
        let attempt = interruption.attempt;
        let (resolution, value) = match recover(interruption).await? {
            Recovery::Unknown => {
                lead.rejected(Why::OutcomeUnknown { attempt });
                return Ok(Recovery::Unknown);
            }
            Recovery::NotExecuted => (Resolution::NotExecuted, None),
            Recovery::Completed(value) => {
                let outcome = policy.codec.encode(id, &value).map_err(|why| policy.reject(why))?;
                let retention = policy.retention;
                (Resolution::Completed { outcome, retention }, Some(value))
            }
        };
        let resolved = policy
            .one_call("resolve", id, policy.store.resolve(id, &resolution))
            .await;
        let resolved = resolved.map_err(unavailable)?;
        lead.rejected(Why::OutcomeUnknown { attempt });
        match (resolved, value) {
            (Resolved::Resolved, Some(value)) => {
                policy.emit(id, EventKind::Stored { attempt });
                let source = Source::Recovered;
                Ok(Recovery::Completed(Executed { value, source, attempt }))
            }
            (Resolved::Resolved, None) => {
                policy.emit(id, EventKind::Released);
                Ok(Recovery::NotExecuted)
            }
            // Somebody else was first: the store says with what.
            (Resolved::NotInterrupted, _) => Ok(Recovery::NotExecuted),
        }
    }
}

/// Runs the operation, which is there: it is asked for once at most.
async fn run<T, E, F, Fut>(operation: Option<F>, attempt: Attempt) -> Result<T, E>
where
    F: FnOnce(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    match operation {
        Some(operation) => operation(attempt).await,
        None => std::future::pending().await,
    }
}
