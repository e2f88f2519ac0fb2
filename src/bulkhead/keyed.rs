//! A bulkhead for each key.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;

use tower_service::Service;

use super::builder::BulkheadBuilder;
use super::future::{ResponseFuture, ServiceCall};
use super::layer::{Readiness, admit};
use super::policy::Bulkhead;
use crate::keyed::{Admit, ByKey, ByRef, DEFAULT_MAX_KEYS, KeyedLayer, Member, Policies, Resident, is_only};
use crate::rejected::Name;
use crate::{ConfigError, Rejected};

/// A [`Bulkhead`] for each key: each host, tenant or endpoint has limits of its own.
///
/// They are made on demand, all of one configuration, and kept in a bounded set; see
/// [One for each key](super#one-for-each-key). A clone is the same set, and so is every layer made of it.
///
/// # Examples
///
/// ```
/// use steadfast::{Rejected, bulkhead::Bulkhead};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenants = Bulkhead::builder("reports").max_concurrent(1).keyed::<String>().max_keys(1_000).build()?;
///
/// let running = tenants.get("tenant-7").try_acquire()?;
/// assert!(tenants.get("tenant-7").try_acquire().is_err());
/// let report = tenants.get("tenant-8").call(async { Ok::<_, Rejected>(42) }).await?;
/// assert_eq!((report, tenants.len()), (42, 2));
/// # drop(running);
/// # Ok(())
/// # }
/// ```
pub struct Bulkheads<K> {
    policies: Arc<Policies<K, Bulkhead>>,
}

/// Builds [`Bulkheads`]; made by [`BulkheadBuilder::keyed`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct BulkheadsBuilder<K> {
    builder: BulkheadBuilder,
    max_keys: usize,
    key: PhantomData<fn() -> K>,
}

impl<K> BulkheadsBuilder<K> {
    pub(crate) fn new(builder: BulkheadBuilder) -> Self {
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

    /// Checks the settings and makes the set.
    ///
    /// # Errors
    ///
    /// As [`BulkheadBuilder::build`], and for no keys at all.
    pub fn build(self) -> Result<Bulkheads<K>, ConfigError> {
        let plan = self.builder.plan()?;
        let name = plan.name.clone();
        let policies = Policies::new(&name, self.max_keys, move || Bulkhead::new(&plan))?;
        Ok(Bulkheads {
            policies: Arc::new(policies),
        })
    }
}

impl Resident for Bulkhead {
    fn is_unused(&self) -> bool {
        is_only(&self.shared)
    }

    fn must_stay(&self) -> bool {
        self.is_changed()
    }
}

impl Member for Bulkhead {
    #[cfg(feature = "metrics")]
    const OVERFLOWS: &'static str = "steadfast.bulkhead.keyed.overflows";
    #[cfg(feature = "metrics")]
    const KEYS: &'static str = "steadfast.bulkhead.keyed.keys";

    fn name(&self) -> &Name {
        &self.shared.name
    }

    fn joined(&self) {
        // Changed for all between the making of this one and its coming into the set, where it was not found.
        if self.shared.usual.limits().max_concurrent != self.shared.first_max_concurrent {
            self.take_usual_limit();
        }
    }

    fn emit_overflowed(&self, max_keys: usize, lookups: u64) {
        self.emit_keys_overflowed(max_keys, lookups);
    }
}

impl<K> Bulkheads<K> {
    /// The bulkhead of `key`, made if it is new.
    ///
    /// Nothing is allocated for a key that is there. Where there is no room for a new one it is the
    /// [`overflow`](Self::overflow).
    #[inline]
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Bulkhead
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.policies.get(key)
    }

    /// The bulkhead of `key`, if there is one. It does not count as used by this.
    #[must_use]
    pub fn peek<Q>(&self, key: &Q) -> Option<Bulkhead>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.policies.peek(key)
    }

    /// Forgets `key`, in use or not. Who has its bulkhead goes on with it; the next lookup makes another.
    pub fn remove<Q>(&self, key: &Q) -> Option<Bulkhead>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.policies.remove(key)
    }

    /// Changes how many calls may run at once under each key, those that come later included; 0 pauses.
    ///
    /// As [`Bulkhead::set_max_concurrent`], of each and of the [`overflow`](Self::overflow). It replaces what was changed of
    /// single ones, and is told once.
    pub fn set_max_concurrent(&self, max_concurrent: u32) {
        let overflow = self.policies.overflow();
        // First: a bulkhead that is made from here on has it.
        overflow.shared.usual.set_max_concurrent(max_concurrent);
        overflow.take_usual_limit();
        for bulkhead in self.policies.members() {
            bulkhead.take_usual_limit();
        }
        overflow.emit_limit_changed(max_concurrent);
    }

    /// Every key with its bulkhead, in no order: to watch them, or to change a limit of single ones.
    ///
    /// They are in use while the list is kept, and keys that come meanwhile are not in it. A bulkhead whose limits were
    /// changed is not evicted, until they are those of the set again: to change all, use
    /// [`set_max_concurrent`](Self::set_max_concurrent).
    #[must_use]
    pub fn entries(&self) -> Vec<(K, Bulkhead)>
    where
        K: Clone,
    {
        self.policies.entries()
    }

    /// The bulkhead that new keys share when every other is in use.
    #[must_use]
    pub fn overflow(&self) -> Bulkhead {
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

    /// The name of the set, and of each of its bulkheads.
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
impl Bulkheads<String> {
    /// A Tower layer for HTTP clients, with a bulkhead for each [authority](crate::http::authority).
    #[must_use]
    pub fn layer_by_authority(&self) -> KeyedLayer<Self, crate::http::ByAuthority> {
        KeyedLayer::new(self.clone(), crate::http::ByAuthority)
    }
}

impl<K, Q, S, Req> Admit<S, Req, Q> for Bulkheads<K>
where
    K: Borrow<Q>,
    Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    S: Service<Req, Error: From<Rejected>> + Clone,
{
    type Policy = Bulkhead;
    type Future = ResponseFuture<Bulkhead, ServiceCall<S, Req>>;

    #[inline]
    fn policy(&self, key: &Q) -> Bulkhead {
        self.get(key)
    }

    #[inline]
    fn admit(bulkhead: Bulkhead, inner: &mut S, request: Req) -> Self::Future {
        admit(&bulkhead, inner, NonZeroU32::MIN, Readiness::Ready, request)
    }
}

impl<K> Clone for Bulkheads<K> {
    fn clone(&self) -> Self {
        Self {
            policies: Arc::clone(&self.policies),
        }
    }
}

/// Without the keys, which may be secrets.
impl<K> fmt::Debug for Bulkheads<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkheads")
            .field("name", &self.name())
            .field("len", &self.len())
            .field("max_keys", &self.max_keys())
            .finish_non_exhaustive()
    }
}

impl<K> Clone for BulkheadsBuilder<K> {
    fn clone(&self) -> Self {
        Self {
            builder: self.builder.clone(),
            ..*self
        }
    }
}

impl<K> fmt::Debug for BulkheadsBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadsBuilder")
            .field("builder", &self.builder)
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_made_before_a_change_for_all_takes_it_when_it_joins() {
        let plan = Bulkhead::builder("lanes").plan().unwrap();
        let (early, own) = (Bulkhead::new(&plan), Bulkhead::new(&plan));
        own.set_max_concurrent(7);
        own.joined();
        assert_eq!(
            (own.max_concurrent(), own.must_stay()),
            (7, true),
            "nothing was changed for all"
        );
        plan.usual.set_max_concurrent(3);
        assert!(early.must_stay());
        early.joined();
        assert_eq!((early.max_concurrent(), early.must_stay()), (3, false));
        assert_eq!(Bulkhead::new(&plan).max_concurrent(), 3);
    }
}
