//! One part of a keyed set: a hash table whose entries stand in line to be evicted. No lock and no hasher.
//!
//! Chained hashing over a slab. An entry keeps its place and its hash while it lives, so that everything but the
//! comparison of keys goes by numbers: a program's `Hash` and `Eq` that panic or contradict each other can make an entry
//! impossible to find, but cannot damage the table.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::mem;

use super::set::{Resident, is_evictable, low};

/// The end of a chain.
const END: usize = usize::MAX;
const FIRST_CHAINS: usize = 8;

pub(super) struct Shard<K, P> {
    places: Vec<Option<Entry<K, P>>>,
    free: Vec<usize>,
    /// The first place of each chain. A power of two of them, no fewer than there are entries.
    chains: Vec<usize>,
    /// Every place that is taken, once; the front is looked at next.
    line: VecDeque<usize>,
}

/// Whoever is given one drops it after the lock is released: a key and a policy are the program's.
pub(super) struct Entry<K, P> {
    hash: u64,
    /// The place after this one in its chain.
    next: usize,
    /// Asked for again, since it was made or last looked at.
    used: bool,
    key: K,
    pub(super) policy: P,
}

/// What came of a search for an entry that can go.
pub(super) enum Search<K, P> {
    Evicted(Entry<K, P>),
    /// There is one that can go, but it was used lately.
    Spared,
    Nothing,
}

impl<K, P> Shard<K, P> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            chains: Vec::new(),
            line: VecDeque::new(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &P)> {
        self.places.iter().flatten().map(|entry| (&entry.key, &entry.policy))
    }

    /// The policy of a key, which now counts as used.
    #[inline]
    pub(super) fn get<Q>(&mut self, hash: u64, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
        P: Clone,
    {
        let place = self.place_of(hash, key)?;
        let entry = self.entry_mut(place)?;
        entry.used = true;
        Some(entry.policy.clone())
    }

    pub(super) fn peek<Q>(&self, hash: u64, key: &Q) -> Option<P>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
        P: Clone,
    {
        let place = self.place_of(hash, key)?;
        self.entry(place).map(|entry| entry.policy.clone())
    }

    /// Adds a key that is not there. It goes to the end of the line, unused: one that is used again outlives it.
    pub(super) fn insert(&mut self, hash: u64, key: K, policy: P) {
        if self.line.len() >= self.chains.len() {
            self.double_chains();
        }
        let entry = Entry {
            hash,
            next: END,
            used: false,
            key,
            policy,
        };
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(Some(entry));
        } else {
            self.places[place] = Some(entry);
        }
        self.link(place);
        self.line.push_back(place);
    }

    /// Takes a key out, whether it is in use or not. Steps over the whole line: for operators.
    pub(super) fn remove<Q>(&mut self, hash: u64, key: &Q) -> Option<Entry<K, P>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let place = self.place_of(hash, key)?;
        self.line.retain(|other| *other != place);
        self.take(place)
    }

    #[inline]
    fn entry(&self, place: usize) -> Option<&Entry<K, P>> {
        self.places.get(place).and_then(Option::as_ref)
    }

    #[inline]
    fn entry_mut(&mut self, place: usize) -> Option<&mut Entry<K, P>> {
        self.places.get_mut(place).and_then(Option::as_mut)
    }

    /// Nothing is changed before or while the program's `Eq` runs.
    #[inline]
    fn place_of<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut place = *self.chains.get(self.chain_of(hash))?;
        while let Some(entry) = self.entry(place) {
            if entry.hash == hash && entry.key.borrow() == key {
                return Some(place);
            }
            place = entry.next;
        }
        None
    }

    #[inline]
    fn chain_of(&self, hash: u64) -> usize {
        low(hash) & self.chains.len().wrapping_sub(1)
    }

    fn link(&mut self, place: usize) {
        let Some(hash) = self.entry(place).map(|entry| entry.hash) else {
            return;
        };
        let chain = self.chain_of(hash);
        let next = mem::replace(&mut self.chains[chain], place);
        if let Some(entry) = self.entry_mut(place) {
            entry.next = next;
        }
    }

    fn double_chains(&mut self) {
        let doubled = (self.chains.len() * 2).max(FIRST_CHAINS);
        self.chains = vec![END; doubled];
        for place in 0..self.places.len() {
            self.link(place);
        }
    }

    /// Empties a place that is no longer in the line.
    fn take(&mut self, place: usize) -> Option<Entry<K, P>> {
        let entry = self.places.get_mut(place)?.take()?;
        let chain = self.chain_of(entry.hash);
        let mut at = self.chains[chain];
        if at == place {
            self.chains[chain] = entry.next;
        } else {
            while let Some(before) = self.entry_mut(at) {
                if before.next == place {
                    before.next = entry.next;
                    break;
                }
                at = before.next;
            }
        }
        self.free.push(place);
        Some(entry)
    }
}

impl<K, P: Resident> Shard<K, P> {
    /// Looks at each entry once at most, and at no more than `looks`, which it counts down; takes the first out that can
    /// go. With `spare_used`, one that was used lately is passed by, and is not used lately any more.
    ///
    /// What was looked at goes to the end of the line, so that the next search looks at others. Only the first that was
    /// spared is at the front again when there was none to take: it is the one to take if nobody has a better.
    pub(super) fn evict(&mut self, looks: &mut usize, spare_used: bool) -> Search<K, P> {
        let mut since_spared = 0;
        for _ in 0..self.line.len().min(*looks) {
            *looks -= 1;
            let Some(place) = self.line.front().copied() else { break };
            let Some(entry) = self.entry_mut(place) else { break };
            let evictable = is_evictable(&entry.policy);
            if evictable {
                let used = mem::take(&mut entry.used);
                if !(used && spare_used) {
                    self.line.pop_front();
                    return self.take(place).map_or(Search::Nothing, Search::Evicted);
                }
            }
            if evictable || since_spared > 0 {
                since_spared += 1;
            }
            self.line.rotate_left(1);
        }
        if since_spared == 0 {
            return Search::Nothing;
        }
        // No more than `looks` from the end.
        if let Some(place) = self.line.remove(self.line.len() - since_spared) {
            self.line.push_front(place);
        }
        Search::Spared
    }
}

#[cfg(test)]
impl<K, P> Shard<K, P> {
    /// The keys in line, the next to be looked at first.
    pub(super) fn line(&self) -> Vec<&K> {
        let places = self.line.iter();
        places.map(|place| &self.entry(*place).unwrap().key).collect()
    }

    /// What has to be true between any two calls.
    pub(super) fn check(&self) {
        let taken = self.places.iter().flatten().count();
        assert_eq!(taken, self.line.len());
        assert_eq!(self.places.len(), taken + self.free.len());
        assert!(self.chains.len() >= taken);
        let mut linked = 0;
        for (chain, first) in self.chains.iter().enumerate() {
            let mut place = *first;
            while place != END {
                let entry = self.entry(place).expect("a chain leads to an empty place");
                assert_eq!(self.chain_of(entry.hash), chain);
                assert!(self.line.contains(&place));
                linked += 1;
                assert!(linked <= taken, "a chain that ends nowhere");
                place = entry.next;
            }
        }
        assert_eq!(linked, taken);
    }

    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}
