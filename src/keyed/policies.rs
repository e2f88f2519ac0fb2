//! A keyed set that says when it has no room.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::set::{KeyedSet, Lookup, Resident};
use crate::ConfigError;
use crate::clock::nanos;
use crate::rejected::Name;
use crate::sync::{AtomicU64, Ordering};

/// How many keys a set keeps by default: 10,000, more hosts or tenants than most programs talk to. As circuit breakers of
/// the default window they take about ten megabytes.
pub const DEFAULT_MAX_KEYS: usize = 10_000;

/// How often at most an overflow is told of, however many lookups it meets.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A policy of a keyed set. All of them have the set's name, its listener and its meters.
pub(crate) trait Member: Resident {
    /// The metric that counts lookups without room.
    #[cfg(feature = "metrics")]
    const OVERFLOWS: &'static str;
    /// The metric that says how many keys there are.
    #[cfg(feature = "metrics")]
    const KEYS: &'static str;

    fn name(&self) -> &Name;

    /// It is in the set now. What was changed for all members before that is to hold for it too.
    fn joined(&self) {}

    /// So many lookups have found no room since this was last told.
    fn emit_overflowed(&self, max_keys: usize, lookups: u64);
}

pub(crate) struct Policies<K, P> {
    set: KeyedSet<K, P>,
    max_keys: usize,
    made: Instant,
    overflow: Overflow,
}

/// What was told of lookups that found no room. Relaxed: it says nothing of other memory.
#[derive(Default)]
struct Overflow {
    /// Lookups that were not told of yet.
    lookups: AtomicU64,
    /// When they may be told of next, in nanoseconds.
    next: AtomicU64,
}

pub(crate) fn check_max_keys(name: &Name, max_keys: usize) -> Result<(), ConfigError> {
    if max_keys == 0 {
        return Err(ConfigError::new(name, "max_keys", 0, "at least 1"));
    }
    Ok(())
}

impl<K, P: Member> Policies<K, P> {
    pub(crate) fn new(
        name: &Name,
        max_keys: usize,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        check_max_keys(name, max_keys)?;
        Ok(Self {
            set: KeyedSet::new(max_keys, make),
            max_keys,
            made: Instant::now(),
            overflow: Overflow::default(),
        })
    }

    pub(crate) fn name(&self) -> &Name {
        self.set.overflow().name()
    }

    pub(crate) fn max_keys(&self) -> usize {
        self.max_keys
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) fn overflow(&self) -> &P {
        self.set.overflow()
    }

    pub(crate) fn entries(&self) -> Vec<(K, P)>
    where
        K: Clone,
    {
        self.set.entries()
    }

    /// Every policy with a key. They count as in use as long as the list is kept.
    pub(crate) fn members(&self) -> Vec<P> {
        self.set.policies()
    }

    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> P
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.set.get(key) {
            Lookup::Found(policy) => policy,
            Lookup::Created(policy) => {
                policy.joined();
                #[cfg(feature = "metrics")]
                self.count_keys();
                policy
            }
            Lookup::Overflow(policy) => {
                self.overflowed();
                policy
            }
        }
    }

    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.set.peek(key)
    }

    pub(crate) fn remove<Q>(&self, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = self.set.remove(key);
        #[cfg(feature = "metrics")]
        self.count_keys();
        removed
    }

    #[cold]
    #[inline(never)]
    fn overflowed(&self) {
        let policy = self.set.overflow();
        #[cfg(feature = "metrics")]
        metrics::counter!(P::OVERFLOWS, "policy" => crate::event::label(policy.name())).increment(1);
        self.overflow.lookups.fetch_add(1, Ordering::Relaxed);
        let now = nanos(self.made.elapsed());
        let due = |next| (now >= next).then(|| now.saturating_add(nanos(TELL_EVERY)));
        let told = self
            .overflow
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due);
        if told.is_ok() {
            let lookups = self.overflow.lookups.swap(0, Ordering::Relaxed);
            policy.emit_overflowed(self.max_keys, lookups);
        }
    }

    /// Tells the gauge how many keys there are.
    #[cfg(feature = "metrics")]
    #[cold]
    fn count_keys(&self) {
        let gauge = metrics::gauge!(P::KEYS, "policy" => crate::event::label(self.name()));
        // Looked at again: of two threads that come here at once, the last to set the gauge sees both changes.
        loop {
            let keys = self.len();
            #[allow(
                clippy::cast_precision_loss,
                clippy::as_conversions,
                reason = "a gauge is no exact number"
            )]
            gauge.set(keys as f64);
            if self.len() == keys {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone)]
    struct Policy(Arc<AtomicU64>);

    impl Resident for Policy {
        fn is_unused(&self) -> bool {
            true
        }

        fn must_stay(&self) -> bool {
            false
        }
    }

    impl Member for Policy {
        #[cfg(feature = "metrics")]
        const OVERFLOWS: &'static str = "overflows";
        #[cfg(feature = "metrics")]
        const KEYS: &'static str = "keys";

        fn name(&self) -> &Name {
            const { &Name::new("test") }
        }

        fn joined(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn emit_overflowed(&self, _: usize, _: u64) {}
    }

    #[tokio::test]
    async fn every_policy_is_told_once_that_it_is_in_the_set() {
        let made = || Policy(Arc::default());
        let set = Policies::<u32, _>::new(&Name::new("test"), 3, made).unwrap();
        for key in [1, 2, 1, 1, 2] {
            assert_eq!(set.get(&key).0.load(Ordering::Relaxed), 1);
        }
        assert_eq!(set.overflow().0.load(Ordering::Relaxed), 0);
    }
}
