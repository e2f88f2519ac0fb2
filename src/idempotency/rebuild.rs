//! Has a value made anew whose stored outcome cannot be read.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::{Attempt, derived_key};
use super::disposition::Decide;
use super::drive::Keyed;
use super::encoding::Json;
use super::execute::Executed;
use super::fingerprint::Fingerprint;
use super::hook::NoHook;
use super::policy::Idempotency;
use crate::{Key, KeyId, Rejected};

/// An operation that was carried out, and whose stored outcome cannot be read.
#[derive(Clone)]
pub struct Unreadable {
    pub(crate) id: KeyId,
    pub(crate) attempt: u32,
    pub(crate) outcome: Option<Bytes>,
}

impl Unreadable {
    /// The attempt that carried it out.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The outcome as it was encoded, of another type than the one that was asked for. `None` where even that cannot be
    /// had: it was sealed with a key that is no longer known, or written by a later version of this crate.
    #[must_use]
    pub fn outcome(&self) -> Option<&[u8]> {
        self.outcome.as_deref()
    }

    /// The key that it sent along, as [`Attempt::derived_key`] made it.
    #[must_use]
    pub fn derived_key(&self, label: &str) -> String {
        derived_key(self.id, label)
    }
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unreadable")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<D> Idempotency<D> {
    /// As [`execute`](Self::execute); where the operation was carried out and its outcome cannot be read, `rebuild` makes
    /// the value, before a caller hears that it cannot be replayed.
    ///
    /// The operation is not run again. What `rebuild` makes is not stored: each caller has it made, so it should read
    /// and not act.
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::idempotency::{Fingerprint, Idempotency, MemoryStore, Source, Unreadable};
    /// use steadfast::{Key, Rejected};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Receipt { number: u64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let payments = Idempotency::at_least_once(MemoryStore::new()).build()?;
    /// let (key, request) = (Key::new("tenant-7", "order-1234"), Fingerprint::of("100 EUR")?);
    ///
    /// // the version before stored a bare number
    /// payments.execute(&key, request, async |_| Ok::<u64, Rejected>(7)).await?;
    ///
    /// let charge = async |_| Ok::<_, Rejected>(Receipt { number: 8 });
    /// let read_old = async |found: Unreadable| {
    ///     let number = found.outcome().and_then(|outcome| serde_json::from_slice(outcome).ok());
    ///     Ok(Receipt { number: number.unwrap_or_default() })
    /// };
    /// let receipt = payments.execute_or_rebuild(&key, request, charge, read_old).await?;
    /// assert_eq!((receipt.value.number, receipt.source), (7, Source::Rebuilt));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute) and of `rebuild`.
    ///
    /// # Cancel safety
    ///
    /// As for [`run`](Self::run). Dropped while `rebuild` is at it, nothing has changed.
    pub fn execute_or_rebuild<'a, T, E, F, Fut, G, Made>(
        &'a self,
        key: &Key,
        fingerprint: Fingerprint,
        operation: F,
        rebuild: G,
    ) -> impl Future<Output = Result<Executed<T>, E>> + use<'a, D, T, E, F, Fut, G, Made>
    where
        T: Serialize + DeserializeOwned,
        E: From<Rejected>,
        F: FnOnce(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        G: FnOnce(Unreadable) -> Made,
        Made: Future<Output = Result<T, E>>,
        D: Decide<T, E>,
    {
        self.execute_with_hooks(
            Keyed::by_call(self.id(key), fingerprint),
            &Json,
            operation,
            NoHook,
            rebuild,
        )
    }
}
