//! A circuit breaker for each key.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tower_service::Service;

use super::builder::CircuitBreakerBuilder;
use super::future::ResponseFuture;
use super::layer::admit;
use super::policy::CircuitBreaker;
use crate::keyed::{Admit, ByKey, ByRef, DEFAULT_MAX_KEYS, KeyedLayer, Member, Policies, Resident, is_only};
use crate::rejected::Name;
use crate::{ByError, Classify, ConfigError, Erased, Rejected};

/// A [`CircuitBreaker`] for each key: the host, tenant or endpoint that fails is cut off, and no other.
///
/// They are made on demand, all of one configuration, and kept in a bounded set; see
/// [One for each key](super#one-for-each-key). A clone is the same set, and so is every layer made of it.
///
/// # Examples
///
/// ```
/// use std::io;
/// use steadfast::{Error, circuit_breaker::{CircuitBreaker, State}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hosts = CircuitBreaker::builder("images").consecutive_failures(1).keyed::<String>().max_keys(1_000).build()?;
///
/// let down = async { Err::<(), _>(Error::Inner(io::Error::from(io::ErrorKind::ConnectionRefused))) };
/// hosts.get("a.example").call(down).await.unwrap_err();
/// hosts.get("b.example").call(async { Ok::<_, Error<io::Error>>(()) }).await?;
/// assert_eq!(hosts.get("a.example").state(), State::Open);
/// assert_eq!(hosts.get("b.example").state(), State::Closed);
/// # Ok(())
/// # }
/// ```
pub struct CircuitBreakers<K, C = ByError> {
    policies: Arc<Policies<K, CircuitBreaker<C>>>,
}

/// Builds [`CircuitBreakers`]; made by [`CircuitBreakerBuilder::keyed`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct CircuitBreakersBuilder<K, C = ByError> {
    builder: CircuitBreakerBuilder<C>,
    max_keys: usize,
    key: PhantomData<fn() -> K>,
}

impl<K, C> CircuitBreakersBuilder<K, C> {
    pub(crate) fn new(builder: CircuitBreakerBuilder<C>) -> Self {
        Self {
            builder,
            max_keys: DEFAULT_MAX_KEYS,
            key: PhantomData,
        }
    }

    /// How many keys are kept: at least 1. Default: 10,000.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.max_keys = max_keys;
        self
    }

    /// The same under a type that can be written down: for a field of a struct.
    pub fn erased<T, E>(self) -> CircuitBreakersBuilder<K, Erased<T, E>>
    where
        C: Classify<T, E> + Send + Sync + 'static,
    {
        CircuitBreakersBuilder {
            builder: self.builder.erased(),
            max_keys: self.max_keys,
            key: PhantomData,
        }
    }

    /// Checks the settings and makes the set.
    ///
    /// # Errors
    ///
    /// As [`CircuitBreakerBuilder::build`], and for no keys at all.
    pub fn build(self) -> Result<CircuitBreakers<K, C>, ConfigError>
    where
        C: Send + Sync + 'static,
    {
        let plan = self.builder.plan(true)?;
        let name = plan.name.clone();
        let judgement = Arc::new(self.builder.into_judgement());
        let next = AtomicU64::new(0);
        let make = move || {
            let breaker = plan.breaker(next.fetch_add(1, Ordering::Relaxed));
            CircuitBreaker::new(Arc::new(breaker), Arc::clone(&judgement))
        };
        Ok(CircuitBreakers {
            policies: Arc::new(Policies::new(&name, self.max_keys, make)?),
        })
    }
}

impl<C> Resident for CircuitBreaker<C> {
    fn is_unused(&self) -> bool {
        // The view first: who has one can make a guard or another view, which hold the breaker alone.
        is_only(&self.view) && is_only(&self.view.breaker)
    }

    fn must_stay(&self) -> bool {
        let breaker = self.breaker();
        breaker.is_shadow() != breaker.kind.shadow || breaker.cell.must_stay(breaker.opening.longest(), breaker)
    }
}

impl<C> Member for CircuitBreaker<C> {
    #[cfg(feature = "metrics")]
    const OVERFLOWS: &'static str = "steadfast.circuit_breaker.keyed.overflows";
    #[cfg(feature = "metrics")]
    const KEYS: &'static str = "steadfast.circuit_breaker.keyed.keys";

    fn name(&self) -> &Name {
        &self.breaker().name
    }

    fn emit_overflowed(&self, max_keys: usize, lookups: u64) {
        self.breaker().emit_keys_overflowed(max_keys, lookups);
    }
}

impl<K, C> CircuitBreakers<K, C> {
    /// The breaker of `key`, made if it is new.
    ///
    /// Nothing is allocated for a key that is there. Where there is no room for a new one it is the
    /// [`overflow`](Self::overflow).
    #[inline]
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> CircuitBreaker<C>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.policies.get(key)
    }

    /// The breaker of `key`, if there is one. It does not count as used by this.
    #[must_use]
    pub fn peek<Q>(&self, key: &Q) -> Option<CircuitBreaker<C>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.policies.peek(key)
    }

    /// Forgets `key`, in use or not. Who has its breaker goes on with it; the next lookup makes another.
    pub fn remove<Q>(&self, key: &Q) -> Option<CircuitBreaker<C>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.policies.remove(key)
    }

    /// Every key with its breaker, in no order: to watch them, or to force each.
    ///
    /// They are in use while the list is kept, and keys that come meanwhile are not in it. A breaker that was forced, or
    /// whose shadow mode was changed, is never evicted, until it is [reset](CircuitBreaker::reset) or changed back.
    #[must_use]
    pub fn entries(&self) -> Vec<(K, CircuitBreaker<C>)>
    where
        K: Clone,
    {
        self.policies.entries()
    }

    /// The breaker that new keys share when every other is in use.
    #[must_use]
    pub fn overflow(&self) -> CircuitBreaker<C> {
        self.policies.overflow().clone()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are kept.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.policies.max_keys()
    }

    /// The name of the set, and of each of its breakers.
    #[must_use]
    pub fn name(&self) -> &str {
        self.policies.name().as_str()
    }

    /// A Tower layer under which each request belongs to the key that `key` makes of it.
    pub fn layer_by<Req, F>(&self, key: F) -> KeyedLayer<Self, ByKey<F, K>>
    where
        F: Fn(&Req) -> K,
    {
        KeyedLayer::new(self.clone(), ByKey::new(key))
    }

    /// A Tower layer under which each request belongs to the key that `key` finds in it: nothing is allocated for a key
    /// that is there.
    pub fn layer_by_ref<Req, Q, F>(&self, key: F) -> KeyedLayer<Self, ByRef<F, Q>>
    where
        K: Borrow<Q>,
        Q: ?Sized,
        F: Fn(&Req) -> &Q,
    {
        KeyedLayer::new(self.clone(), ByRef::new(key))
    }
}

#[cfg(feature = "http")]
impl<C> CircuitBreakers<String, C> {
    /// A Tower layer for HTTP clients, with a breaker for each [authority](crate::http::authority).
    #[must_use]
    pub fn layer_by_authority(&self) -> KeyedLayer<Self, crate::http::ByAuthority> {
        KeyedLayer::new(self.clone(), crate::http::ByAuthority)
    }
}

impl<K, C, Q, S, Req> Admit<S, Req, Q> for CircuitBreakers<K, C>
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: Service<Req, Error: From<Rejected>> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Policy = CircuitBreaker<C>;
    type Future = ResponseFuture<CircuitBreaker<C>, S::Future>;

    #[inline]
    fn policy(&self, key: &Q) -> CircuitBreaker<C> {
        self.get(key)
    }

    #[inline]
    fn admit(breaker: CircuitBreaker<C>, inner: &mut S, request: Req) -> Self::Future {
        admit(breaker, inner, request)
    }
}

impl<K, C> Clone for CircuitBreakers<K, C> {
    fn clone(&self) -> Self {
        Self {
            policies: Arc::clone(&self.policies),
        }
    }
}

/// Without the keys, which may be secrets.
impl<K, C> fmt::Debug for CircuitBreakers<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakers")
            .field("name", &self.name())
            .field("len", &self.len())
            .field("max_keys", &self.max_keys())
            .finish_non_exhaustive()
    }
}

impl<K, C: Clone> Clone for CircuitBreakersBuilder<K, C> {
    fn clone(&self) -> Self {
        Self {
            builder: self.builder.clone(),
            ..*self
        }
    }
}

impl<K, C: fmt::Debug> fmt::Debug for CircuitBreakersBuilder<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakersBuilder")
            .field("builder", &self.builder)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}
