//! The Tower face of every keyed set.

use std::fmt;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::key::KeyOf;
use crate::Rejected;

/// A keyed set in front of a service: finds a request's policy and makes the call under it.
pub trait Admit<S, Req, Q: ?Sized>
where
    S: Service<Req>,
{
    type Policy;
    type Future: Future<Output = Result<S::Response, S::Error>>;

    fn policy(&self, key: &Q) -> Self::Policy;

    /// `inner` is ready. A call that is not made now leaves a fresh clone there, which holds nothing.
    fn admit(policy: Self::Policy, inner: &mut S, request: Req) -> Self::Future;
}

/// A keyed set with a way to find a request's key; made by its methods `layer_by` and `layer_by_ref`.
#[derive(Clone)]
pub struct KeyedLayer<Set, F> {
    set: Set,
    key: F,
}

impl<Set, F> KeyedLayer<Set, F> {
    pub(crate) fn new(set: Set, key: F) -> Self {
        Self { set, key }
    }
}

impl<S, Set: Clone, F: Clone> Layer<S> for KeyedLayer<Set, F> {
    type Service = KeyedService<S, Set, F>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedService {
            inner,
            set: self.set.clone(),
            key: self.key.clone(),
        }
    }
}

/// A service under a policy for each key.
///
/// Before there is a request no key is known: it is as ready as the inner service, and an error of that readiness counts for
/// no key. `call` decides. When it rejects, or the call waits in a queue, a fresh clone takes the place of the inner service
/// that was ready, so that nothing is held for a call that is not made.
///
/// So where the inner service is saturated, it is waited for before a key that is open is rejected. Put what may saturate
/// into the key's own policy, as a [bulkhead for each key](KeyedService#a-limit-for-each-key), or `LoadShed` around it.
///
/// # A limit for each key
///
/// A limit that all keys share (a `ConcurrencyLimit` or a `Buffer` inside) lets one slow key make the others wait for
/// readiness. A keyed set of bulkheads does not: it limits each key by itself, and is ready whenever the service inside is.
#[derive(Clone)]
pub struct KeyedService<S, Set, F> {
    inner: S,
    set: Set,
    key: F,
}

impl<S, Set, F, Req> Service<Req> for KeyedService<S, Set, F>
where
    S: Service<Req, Error: From<Rejected>> + Clone,
    F: KeyOf<Req>,
    Set: Admit<S, Req, F::Key>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Set::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let policy = self.key.with_key(&request, |key| self.set.policy(key));
        Set::admit(policy, &mut self.inner, request)
    }
}

impl<Set: fmt::Debug, F> fmt::Debug for KeyedLayer<Set, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLayer")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, Set: fmt::Debug, F> fmt::Debug for KeyedService<S, Set, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedService")
            .field("inner", &self.inner)
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}
