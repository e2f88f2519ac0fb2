//! Finds out what became of an operation that was interrupted.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use super::attempt::{Attempt, derived_key};
use super::calls::unavailable;
use super::coalesce::{Lead, Seat, Word};
use super::disposition::Decide;
use super::drive::{Keyed, Source};
use super::encoding::{Codec, Json};
use super::event::EventKind;
use super::execute::{Executed, Failed};
use super::fingerprint::Fingerprint;
use super::hook::{Hook, NoHook};
use super::policy::{Idempotency, Policy};
use super::store::{Inspected, Record, Resolution, Resolved, Store};
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

impl Interruption {
    /// Of what the store has found, if that is an interrupted operation.
    fn of(id: KeyId, found: Option<Inspected>) -> Option<Self> {
        let found = found.filter(|found| found.record.is_interrupted(found.now))?;
        match found.record {
            Record::InProgress { owner, checkpoint, .. } => Some(Self {
                id,
                attempt: owner.attempt,
                checkpoint,
            }),
            Record::Completed { .. } | Record::Cancelled { .. } => None,
        }
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
        self.execute_with_hooks(
            Keyed::by_call(self.id(key), fingerprint),
            &Json,
            operation,
            recover,
            NoHook,
        )
    }

    /// Has an interrupted operation looked into, and runs it where it was not carried out.
    pub(crate) async fn try_execute_or_recover<T, E, F, Fut, R>(
        &self,
        keyed: Keyed,
        codec: &impl Codec<T>,
        operation: F,
        recover: R,
    ) -> Result<Executed<T>, Failed<E>>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        R: Hook<Interruption, Recovery<T>, E>,
        D: Decide<T, E>,
    {
        let mut operation = Some(operation);
        let executed = self.try_execute(keyed, codec, |attempt| run(operation.take(), attempt));
        let refused = match executed.await {
            Err(Failed::Refused(rejected)) if R::ASKS => rejected,
            executed => return executed,
        };
        // One that has run here, and was refused its outcome, is not asked about: its lease may not be over.
        let (RejectedKind::OutcomeUnknown, Some(operation)) = (refused.kind(), operation) else {
            return Err(Failed::Refused(refused));
        };
        let (id, framed) = (keyed.id, &self.policy.codec);
        let encode = |value: &T| framed.encode_by(id, |frame| codec.encode(value, frame));
        let found = self.policy.find_out(keyed, recover, encode).await?;
        match found {
            Recovery::Completed((value, attempt)) => Ok(Executed {
                value,
                source: Source::Recovered,
                attempt,
            }),
            Recovery::NotExecuted => self.try_execute(keyed, codec, operation).await,
            Recovery::Unknown => Err(Failed::Refused(refused)),
        }
    }
}

impl Policy {
    /// Asks what an interrupted attempt did, and has the store know it. After [`Recovery::NotExecuted`] the store is to be
    /// asked again: it may as well be that somebody else has found out.
    pub(crate) async fn find_out<V, E>(
        &self,
        keyed: Keyed,
        recover: impl Hook<Interruption, Recovery<V>, E>,
        encode: impl FnOnce(&V) -> Result<Bytes, Why>,
    ) -> Result<Recovery<(V, u32)>, Failed<E>> {
        let id = keyed.id;
        let Some(lead) = self.lead_recovery(id, keyed.fingerprint).await else {
            return Ok(Recovery::NotExecuted);
        };
        let refused = |why| Failed::Refused(self.reject(why));
        let unavailable = |error: StorageError| refused(unavailable(&error));
        let inspected = self.one_call("inspect", id, self.store.inspect(id)).await;
        let Some(interruption) = Interruption::of(id, inspected.map_err(unavailable)?) else {
            // Somebody has resolved it meanwhile: the store says how.
            return Ok(Recovery::NotExecuted);
        };
        let attempt = interruption.attempt;
        let (resolution, value) = match recover.ask(interruption).await.map_err(Failed::Operation)? {
            Recovery::Unknown => {
                lead.rejected(Why::OutcomeUnknown { attempt });
                return Ok(Recovery::Unknown);
            }
            Recovery::NotExecuted => (Resolution::NotExecuted, None),
            Recovery::Completed(value) => {
                let outcome = encode(&value).map_err(refused)?;
                let retention = self.retention;
                (Resolution::Completed { outcome, retention }, Some(value))
            }
        };
        let resolved = self.one_call("resolve", id, self.store.resolve(id, &resolution)).await;
        let resolved = resolved.map_err(unavailable)?;
        lead.rejected(Why::OutcomeUnknown { attempt });
        match (resolved, value) {
            (Resolved::Resolved, Some(value)) => {
                self.emit(id, EventKind::Stored { attempt });
                Ok(Recovery::Completed((value, attempt)))
            }
            (Resolved::Resolved, None) => {
                self.emit(id, EventKind::Released);
                Ok(Recovery::NotExecuted)
            }
            // Somebody else was first: the store says with what.
            (Resolved::NotInterrupted, _) => Ok(Recovery::NotExecuted),
        }
    }

    /// Waits for whoever asks already; `None` when it has asked, and the store knows what came of it.
    async fn lead_recovery(&self, id: KeyId, fingerprint: Fingerprint) -> Option<Lead> {
        let asking = KeyId::from_bytes(hash_parts(&[b"recovery", id.as_bytes()]));
        match self.slots.enter(asking, fingerprint, false, self.wait.max_waiters) {
            Seat::Lead(lead) => Some(lead),
            Seat::Alone | Seat::InProgress => None,
            Seat::Wait(mut waiter) => {
                let patience = self.wait.max.max(self.store_timeout);
                match timeout_at(after(patience), waiter.word()).await {
                    Ok(Word::Lead(lead)) => Some(lead),
                    Ok(Word::Outcome { .. } | Word::Rejected(_) | Word::InProgress) | Err(_) => None,
                }
            }
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
