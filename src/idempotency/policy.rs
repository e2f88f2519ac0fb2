//! The policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::builder::{IdempotencyBuilder, Wait};
use super::coalesce::Slots;
use super::codec::Codec;
use super::disposition::{Decide, ErasedDecision};
use super::event::Listener;
use super::flight::Flights;
use super::store::{Face, Mode, Origin, SharedStore, Store};
use crate::curve::Curve;
use crate::rejected::{Idempotency as Why, Name};
use crate::storage::Secret;
use crate::{ByError, Key, KeyId, Rejected};

/// One effect per key: runs an operation once, and gives its outcome to whoever repeats it.
///
/// See the [module](super) for when to use it. A clone is the same policy.
pub struct Idempotency<D = ByError> {
    pub(crate) policy: Arc<Policy>,
    pub(crate) decide: Arc<D>,
}

/// What all views of a policy share.
pub(crate) struct Policy {
    pub(crate) store: SharedStore,
    pub(crate) mode: Mode,
    pub(crate) name: Name,
    pub(crate) namespace: Cow<'static, str>,
    pub(crate) origins: Origins,
    pub(crate) secret: Option<Secret>,
    pub(crate) lease: Duration,
    pub(crate) max_renewal: Duration,
    pub(crate) retention: Duration,
    pub(crate) store_timeout: Duration,
    pub(crate) codec: Codec,
    pub(crate) wait: Wait,
    pub(crate) fail_open: bool,
    pub(crate) cancel_on_lease_lost: bool,
    pub(crate) listener: Option<Listener>,
    /// Between two sendings of one request.
    pub(crate) pauses: Curve,
    pub(crate) slots: Arc<Slots>,
    pub(crate) flights: Flights,
    /// Of claims that were never answered.
    pub(crate) releases: Flights,
}

/// What its claims say of themselves, by face.
pub(crate) struct Origins {
    call: Origin,
    layer: Origin,
    http: Origin,
}

impl Origins {
    pub(crate) fn new(namespace: &str) -> Self {
        let of = |face| Origin::new(face, namespace);
        Self {
            call: of(Face::Call),
            layer: of(Face::Layer),
            http: of(Face::Http),
        }
    }

    pub(crate) fn of(&self, face: Face) -> Origin {
        let origin = match face {
            Face::Call => &self.call,
            Face::Layer => &self.layer,
            Face::Http => &self.http,
        };
        origin.clone()
    }
}

impl Idempotency {
    /// An operation that was interrupted is run again by the next caller, who is told by
    /// [`Attempt`](super::Attempt) that it is not the first.
    ///
    /// For operations that can find out what an earlier attempt did, or that hand
    /// [`derived_key`](super::Attempt::derived_key) to a service that is idempotent itself.
    pub fn at_least_once(store: impl Store) -> IdempotencyBuilder {
        IdempotencyBuilder::new(store.shared(), false)
    }

    /// An operation that was interrupted is never run again: its outcome is unknown until an operator has resolved it.
    ///
    /// Wants a store that is [durable](super::store::Durability::Durable).
    pub fn at_most_once(store: impl Store) -> IdempotencyBuilder {
        IdempotencyBuilder::new(store.shared(), true)
    }
}

impl<D> Idempotency<D> {
    pub(crate) fn new(policy: Policy, decide: D) -> Self {
        Self {
            policy: Arc::new(policy),
            decide: Arc::new(decide),
        }
    }

    /// The same policy for a field of a struct: its type names the result and no closure.
    #[must_use]
    pub fn erased<T, E>(&self) -> Idempotency<ErasedDecision<T, E>>
    where
        D: Decide<T, E> + Send + Sync + 'static,
    {
        Idempotency {
            policy: Arc::clone(&self.policy),
            decide: Arc::new(ErasedDecision::new(Arc::clone(&self.decide))),
        }
    }

    /// The hash under which the operation `key` is stored: what logs show, and what the calls for operators take.
    #[must_use]
    pub fn id(&self, key: &Key) -> KeyId {
        self.policy.id(key)
    }
}

impl Policy {
    pub(crate) fn id(&self, key: &Key) -> KeyId {
        key.id(&self.namespace, self.secret.as_ref())
    }

    pub(crate) fn reject(&self, why: Why) -> Rejected {
        Rejected::idempotency_by(self.name.clone(), why)
    }
}

impl<D> Clone for Idempotency<D> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
            decide: Arc::clone(&self.decide),
        }
    }
}

impl<D> fmt::Debug for Idempotency<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("name", &self.policy.name)
            .field("namespace", &self.policy.namespace)
            .field("mode", &self.policy.mode)
            .field("store", &self.policy.store)
            .finish_non_exhaustive()
    }
}
