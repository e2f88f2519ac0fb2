//! The plain face.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::Attempt;
use super::disposition::{Decide, Disposition};
use super::drive::{Driven, Keyed, Settlement, Source};
use super::encoding::{Codec, Json};
use super::fingerprint::Fingerprint;
use super::hook::Hook;
use super::policy::{Idempotency, Policy};
use super::rebuild::Unreadable;
use super::recover::{Interruption, Recovery};
use crate::rejected::Idempotency as Why;
use crate::{Key, Rejected};

/// A value, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed<T> {
    /// The value.
    pub value: T,
    /// Whether the operation ran for this call.
    pub source: Source,
    /// The attempt that had the value; 1 for the first.
    pub attempt: u32,
}

impl<D> Idempotency<D> {
    /// Runs `operation` once for `key`, and gives its value to whoever repeats the request.
    ///
    /// The same key with another request is refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::{Key, Rejected};
    /// use steadfast::idempotency::{Idempotency, MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payments = Idempotency::at_least_once(MemoryStore::new()).namespace("payments").build()?;
    /// let key = Key::new("tenant-7", "order-1234");
    ///
    /// let first = payments.run(&key, &100, || async { Ok::<_, Rejected>("receipt 1".to_owned()) }).await?;
    /// let again = payments.run(&key, &100, || async { Ok::<_, Rejected>("receipt 2".to_owned()) }).await?;
    /// assert_eq!((first.as_str(), again.as_str()), ("receipt 1", "receipt 1"));
    ///
    /// let another = payments.run(&key, &999, || async { Ok::<String, Rejected>("receipt 3".to_owned()) }).await;
    /// assert_eq!(another.unwrap_err().kind(), steadfast::RejectedKind::KeyMismatch);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `operation`, and a [`Rejected`] of the kinds [`InProgress`](crate::RejectedKind::InProgress),
    /// [`KeyMismatch`](crate::RejectedKind::KeyMismatch), [`OutcomeUnknown`](crate::RejectedKind::OutcomeUnknown),
    /// [`KeyCancelled`](crate::RejectedKind::KeyCancelled), [`StoreUnavailable`](crate::RejectedKind::StoreUnavailable),
    /// [`NotReplayable`](crate::RejectedKind::NotReplayable), [`NotStorable`](crate::RejectedKind::NotStorable) and
    /// [`NoFingerprint`](crate::RejectedKind::NoFingerprint).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled. A panic of `operation` passes through; the operation is interrupted.
    ///
    /// # Cancel safety
    ///
    /// Dropped before `operation` was polled, nothing has happened and the key is free. Dropped later the operation is
    /// interrupted, and the mode of the policy says what comes of it. A task tells the store.
    pub fn run<'a, R, T, E, F, Fut>(
        &'a self,
        key: &Key,
        request: &R,
        operation: F,
    ) -> impl Future<Output = Result<T, E>> + use<'a, D, R, T, E, F, Fut>
    where
        R: Serialize + ?Sized,
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        D: Decide<T, E>,
    {
        let id = self.id(key);
        let fingerprint = Fingerprint::of(request);
        async move {
            let fingerprint = fingerprint.map_err(|_| self.policy.reject(Why::NoFingerprint))?;
            let executed = self
                .execute_by_id(Keyed::by_call(id, fingerprint), &Json, |_| operation())
                .await?;
            Ok(executed.value)
        }
    }

    /// The same for an operation that wants to know its [`Attempt`], and a caller that wants to know the [`Source`].
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::{Key, Rejected};
    /// use steadfast::idempotency::{Fingerprint, Idempotency, MemoryStore, Source};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payments = Idempotency::at_least_once(MemoryStore::new()).build()?;
    /// let (key, request) = (Key::new("tenant-7", "order-1234"), Fingerprint::of("100 EUR")?);
    ///
    /// let charge = async |attempt: steadfast::idempotency::Attempt| {
    ///     // the same key in every attempt: the service behind it charges once
    ///     let key = attempt.derived_key("charge");
    ///     Ok::<_, Rejected>(format!("charged under {key}"))
    /// };
    /// let first = payments.execute(&key, request, charge).await?;
    /// let again = payments.execute(&key, request, charge).await?;
    /// assert_eq!((first.source, again.source), (Source::Executed, Source::Replayed));
    /// assert_eq!(first.value, again.value);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors, panics, cancel safety
    ///
    /// As for [`run`](Self::run).
    pub fn execute<'a, T, E, F, Fut>(
        &'a self,
        key: &Key,
        fingerprint: Fingerprint,
        operation: F,
    ) -> impl Future<Output = Result<Executed<T>, E>> + use<'a, D, T, E, F, Fut>
    where
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        D: Decide<T, E>,
    {
        self.execute_by_id(Keyed::by_call(self.id(key), fingerprint), &Json, operation)
    }

    /// What both faces do.
    pub(crate) async fn execute_by_id<T, E, F, Fut>(
        &self,
        keyed: Keyed,
        codec: &impl Codec<T>,
        operation: F,
    ) -> Result<Executed<T>, E>
    where
        E: From<Rejected>,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        D: Decide<T, E>,
    {
        let executed = self.try_execute(keyed, codec, operation).await;
        executed.map_err(|failed| self.policy.error(failed))
    }

    /// The same, with hooks that are asked before a caller is refused for want of an outcome.
    pub(crate) async fn execute_with_hooks<T, E, F, Fut, R, B>(
        &self,
        keyed: Keyed,
        codec: &impl Codec<T>,
        operation: F,
        recover: R,
        rebuild: B,
    ) -> Result<Executed<T>, E>
    where
        E: From<Rejected>,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        R: Hook<Interruption, Recovery<T>, E>,
        B: Hook<Unreadable, T, E>,
        D: Decide<T, E>,
    {
        let executed = self.try_execute_or_recover(keyed, codec, operation, recover);
        match executed.await {
            Err(Failed::Unreadable(found)) if B::ASKS => {
                let attempt = found.attempt;
                let value = rebuild.ask(found).await?;
                let source = Source::Rebuilt;
                Ok(Executed { value, source, attempt })
            }
            executed => executed.map_err(|failed| self.policy.error(failed)),
        }
    }

    /// The same, with the policy's refusals apart from the operation's errors.
    pub(crate) async fn try_execute<T, E, F, Fut>(
        &self,
        keyed: Keyed,
        codec: &impl Codec<T>,
        operation: F,
    ) -> Result<Executed<T>, Failed<E>>
    where
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        D: Decide<T, E>,
    {
        let (policy, id) = (&self.policy, keyed.id);
        let mut not_storable = None;
        let settle = |result: &Result<T, E>| {
            let retention = match self.decide.decide(result.as_ref()) {
                Disposition::Store => policy.retention,
                Disposition::StoreFor(retention) => retention,
                Disposition::Release => return Settlement::Release,
                Disposition::Interrupt => return Settlement::Interrupt,
            };
            // An error has no encoding.
            let Ok(value) = result else {
                return Settlement::Interrupt;
            };
            match policy.codec.encode_by(id, |frame| codec.encode(value, frame)) {
                Ok(outcome) => Settlement::Store { outcome, retention },
                Err(why) => {
                    not_storable = Some(why);
                    Settlement::Interrupt
                }
            }
        };
        let driven = policy.drive(keyed, operation, settle).await;
        if let Some(why) = not_storable {
            return Err(Failed::Refused(policy.reject(why)));
        }
        match driven.map_err(Failed::Refused)? {
            Driven::Ran { value, source, attempt } => Ok(Executed {
                value: value.map_err(Failed::Operation)?,
                source,
                attempt,
            }),
            Driven::Stored {
                outcome,
                source,
                attempt,
            } => {
                let outcome = policy.codec.read(id, &outcome).ok();
                let value = outcome.as_deref().and_then(|outcome| codec.decode(outcome).ok());
                let Some(value) = value else {
                    return Err(Failed::Unreadable(Unreadable { id, attempt, outcome }));
                };
                Ok(Executed { value, source, attempt })
            }
        }
    }
}

/// Why there is no value.
pub(crate) enum Failed<E> {
    Refused(Rejected),
    Operation(E),
    /// There is an outcome, but it cannot be read.
    Unreadable(Unreadable),
}

impl Policy {
    /// What a caller hears who has no hook for it.
    pub(crate) fn error<E: From<Rejected>>(&self, failed: Failed<E>) -> E {
        match failed {
            Failed::Refused(rejected) => rejected.into(),
            Failed::Operation(error) => error,
            Failed::Unreadable(_) => self.reject(Why::NotReplayable).into(),
        }
    }
}
