//! A policy for each key: one host, one tenant, one endpoint. Bounded in number, made on demand, forgotten when idle.
//!
//! ```text
//!   hash(key), no lock
//!        │
//!        ▼            found
//!   a shard's lock ──────────────────────────────────▶ the key's policy
//!        │ not found
//!        ▼            `LOOKS` entries, none can go
//!   room for one ────────────────────────────────────▶ the overflow policy, which all such keys share
//!        │ there is, or an idle entry was evicted
//!        ▼
//!   make, no lock ──▶ the lock again: insert, unless another thread was first
//! ```
//!
//! **What can go.** An entry can be evicted when nobody else holds its policy and the policy says that a new one would
//! do as well ([`Resident::must_stay`]). A handle that a caller keeps, a permit and a call in flight all hold on to
//! the policy's allocation, so its reference count says whether it is in use; only the set itself makes a second
//! handle out of the last one, under the lock that the eviction holds. So a key never has two policies while somebody
//! uses one of them, except where an operator says so ([`remove`](KeyedSet::remove)).
//!
//! **The bound** is one number for the whole set, not a share per shard: keys fall into shards unevenly, and with shares
//! a set of 100 could fail its 97th key. One counter, changed only under the lock of the shard that gains or loses an
//! entry, is never below the number of entries. So no more than `max_keys` are ever kept; and a program that has no more
//! than `max_keys` keys never meets the overflow policy, whatever its threads do.
//!
//! **Who goes.** Second chance (Corbató's clock): entries stand in line, and a lookup sets a bit in its entry, which costs
//! no more than the lookup itself. A search passes by whoever has the bit, clears it, and takes the first without. A new
//! entry has no bit until it is asked for again, so a flood of keys that come once evicts itself and leaves those that
//! are used. The search begins in the key's own shard and goes on through the others, one lock at a time, until it has
//! looked at [`LOOKS`] entries: no more, however many of them cannot go. If all that could go were used lately, the first
//! of them does, which a second search takes from the front of its line. What was looked at goes to the end of the line,
//! so later searches look at others, and every entry has its turn.
//!
//! **What overflow means.** A set of at most [`LOOKS`] keys is looked at whole: every key is in use. In a larger one, 64
//! neighbours in line are; while a tenth of the entries is idle, that happens to about one new key in a thousand.
//!
//! There is no idle time after which an entry goes: the bound already limits what idle ones can cost, and to know when an
//! entry was last used, each lookup would have to read the clock, which takes nearly as long as the lookup itself.
//!
//! **Under the lock** are the walk of one chain with the keys' `Eq`, the clone of a handle, the questions of a search, and
//! the clones of keys for an operator's list. Hashing, making, copying a new key and dropping what was evicted are
//! outside. Wherever the program's code panics, the set is as it was, less perhaps one idle entry that had made room. An
//! `Eq` that uses the set waits for itself.
//!
//! **Shards**: 32, each under a mutex: what is done under it is too short for a lock with readers, which costs one thread
//! more and was no faster for two. Threads that look up different keys are in each other's way only if both are in the
//! same shard within the same few nanoseconds; more shards would make the search of a small set longer, which visits
//! them all. Threads that look up the same key meet at its reference count anyway.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::fence;
use std::sync::{Arc, PoisonError};

use super::shard::{Search, Shard};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// Entries that one search looks at: microseconds, whatever the size of the set.
pub(super) const LOOKS: usize = 64;
pub(super) const SHARDS: usize = 32;
/// How often a place that was made may be lost to another thread's key. Once is rare.
const TRIES: usize = 16;

/// What the set has to know about a policy.
pub(crate) trait Resident: Clone {
    /// Whether this is the only handle there is: no clone, view, permit, guard or call in flight. Nobody has a `Weak` that
    /// makes one. By [`is_only`], for everything that they hold on to.
    fn is_unused(&self) -> bool;

    /// Whether a new policy would not do as well, although nobody uses this one: a breaker that is not closed.
    ///
    /// It must not stay true for ever of a key that nobody asks for again: such keys would fill the set.
    ///
    /// Asked under a lock: reads a few words, and runs no code of the program.
    fn must_stay(&self) -> bool;
}

/// Whether nobody else has a handle. If so, whatever others did before they let go of theirs is seen from here on.
pub(crate) fn is_only<T: ?Sized>(handle: &Arc<T>) -> bool {
    if Arc::strong_count(handle) > 1 {
        return false;
    }
    // The count is read relaxed. Who lets go counts down with release.
    fence(Ordering::Acquire);
    true
}

pub(super) fn is_evictable<P: Resident>(policy: &P) -> bool {
    policy.is_unused() && !policy.must_stay()
}

/// The policy to use for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup<P> {
    Found(P),
    /// The key was not in the set, and now is.
    Created(P),
    /// The key is not in the set, and nothing in it could be evicted: the policy that all such keys share.
    Overflow(P),
}

#[cfg(test)]
impl<P> Lookup<P> {
    pub(super) fn into_policy(self) -> P {
        match self {
            Self::Found(policy) | Self::Created(policy) | Self::Overflow(policy) => policy,
        }
    }
}

type Make<P> = Box<dyn Fn() -> P + Send + Sync>;

/// At most `max_keys` policies, each under its key.
pub(crate) struct KeyedSet<K, P> {
    hasher: RandomState,
    pub(super) shards: Box<[Padded<K, P>]>,
    /// Entries. Relaxed: each change is made under the lock of the shard that changes with it.
    keys: AtomicU64,
    pub(super) max_keys: u64,
    make: Make<P>,
    overflow: P,
}

/// Two cache lines of its own, as processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Padded<K, P>(pub(super) Mutex<Shard<K, P>>);

impl<K, P: Resident> KeyedSet<K, P> {
    /// `make` is called for each key that is new, and once here, for the overflow policy.
    pub(crate) fn new(max_keys: usize, make: impl Fn() -> P + Send + Sync + 'static) -> Self {
        Self::with_shards(SHARDS, max_keys, make)
    }

    /// `shards` is a power of two.
    pub(super) fn with_shards(shards: usize, max_keys: usize, make: impl Fn() -> P + Send + Sync + 'static) -> Self {
        let new_shard = |_| Padded(Mutex::new(Shard::new()));
        Self {
            hasher: RandomState::new(),
            shards: (0..shards).map(new_shard).collect(),
            keys: AtomicU64::new(0),
            max_keys: u64::try_from(max_keys).unwrap_or(u64::MAX),
            overflow: make(),
            make: Box::new(make),
        }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.keys.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// The policy that keys share which the set has no room for.
    pub(crate) fn overflow(&self) -> &P {
        &self.overflow
    }

    /// Every key with its policy, one shard after another. They count as in use as long as the list is kept.
    pub(crate) fn entries(&self) -> Vec<(K, P)>
    where
        K: Clone,
    {
        self.list(|key, policy| (key.clone(), policy.clone()))
    }

    /// The same without the keys.
    pub(crate) fn policies(&self) -> Vec<P> {
        self.list(|_, policy| policy.clone())
    }

    fn list<T>(&self, take: impl Fn(&K, &P) -> T) -> Vec<T> {
        let mut list = Vec::new();
        for shard in 0..self.shards.len() {
            let shard = self.lock(shard);
            list.extend(shard.iter().map(|(key, policy)| take(key, policy)));
        }
        list
    }

    fn has_room(&self) -> bool {
        self.keys.load(Ordering::Relaxed) < self.max_keys
    }

    /// Counts one entry more, if it may be; for whoever holds the lock and inserts it.
    fn count_one(&self) -> bool {
        let more = |keys| (keys < self.max_keys).then_some(keys + 1);
        self.keys
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Counts one entry less; for whoever holds the lock and has taken it out.
    fn uncount_one(&self) {
        self.keys.fetch_sub(1, Ordering::Relaxed);
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        // The lower half chooses the chain.
        low(hash >> 32) & (self.shards.len() - 1)
    }

    #[inline]
    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard<K, P>> {
        // A panic under the lock is one of the program's `Eq` or `Clone`, before anything is changed.
        let Padded(shard) = &self.shards[shard];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one entry out that can go. One lock at a time is held.
    fn evict(&self, home: usize) -> bool {
        for spare_used in [true, false] {
            let (mut looks, mut spared) = (LOOKS, false);
            for n in 0..self.shards.len() {
                if looks == 0 {
                    break;
                }
                match self.evict_in((home + n) % self.shards.len(), &mut looks, spare_used) {
                    Search::Evicted(_) => return true,
                    Search::Spared => spared = true,
                    Search::Nothing => {}
                }
            }
            if !spared {
                return false;
            }
        }
        false
    }

    fn evict_in(&self, shard: usize, looks: &mut usize, spare_used: bool) -> Search<K, P> {
        let mut shard = self.lock(shard);
        let search = shard.evict(looks, spare_used);
        if matches!(search, Search::Evicted(_)) {
            self.uncount_one();
        }
        search
    }

    /// The policy of a key, made if it is new.
    #[inline]
    pub(crate) fn get<Q>(&self, key: &Q) -> Lookup<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let found = self.lock(self.home(hash)).get(hash, key);
        found.map_or_else(|| self.create(hash, key), Lookup::Found)
    }

    #[cold]
    #[inline(never)]
    fn create<Q>(&self, hash: u64, key: &Q) -> Lookup<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let home = self.home(hash);
        let mut made = None;
        for _ in 0..TRIES {
            let room = self.has_room() || self.evict(home);
            if room && made.is_none() {
                made = Some((key.to_owned(), (self.make)()));
            }
            // Dropped before `made`.
            let mut shard = self.lock(home);
            if let Some(policy) = shard.get(hash, key) {
                return Lookup::Found(policy);
            }
            if !room {
                // Only now that the key is known to be missing: others have filled the set, and not this key.
                if !self.has_room() {
                    break;
                }
            } else if self.count_one() {
                if let Some((key, policy)) = made.take() {
                    shard.insert(hash, key, policy.clone());
                    return Lookup::Created(policy);
                }
            }
        }
        Lookup::Overflow(self.overflow.clone())
    }

    /// The policy of a key, if it is in the set; it does not count as used.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        self.lock(self.home(hash)).peek(hash, key)
    }

    /// Forgets a key, whatever its state. Whoever holds its policy goes on with it; the next to ask gets a new one.
    pub(crate) fn remove<Q>(&self, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.lock(self.home(hash));
        let removed = shard.remove(hash, key)?;
        self.uncount_one();
        drop(shard);
        Some(removed.policy)
    }
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "the lower bits are what is asked for"
)]
pub(super) fn low(hash: u64) -> usize {
    hash as usize
}
