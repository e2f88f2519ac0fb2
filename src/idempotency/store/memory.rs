//! Records in memory.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::record::{
    Cancellation, Claim, Claimed, Completed, Ended, Forgotten, Owner, Record, Renewed, Resolution, Resolved, Step,
    Write,
};
use super::{Durability, Inspected, Store};
use crate::KeyId;
use crate::storage::{StorageError, StorageErrorKind};

/// How many records a [`MemoryStore`] keeps by default: about 30 MB with small outcomes.
pub const DEFAULT_MAX_RECORDS: usize = 100_000;

const SHARDS: usize = 16;
/// How many expired records a new key may clear away: enough that they never pile up, and little for one call.
const SWEEP: usize = 8;

/// Keeps records in memory, for tests and for what may run again after a restart.
///
/// A clone is the same store. Its clock is tokio's, which tests can pause. It is bounded: where it is full of records
/// that have not expired, a new key is refused rather than an old one forgotten.
///
/// # Examples
///
/// ```
/// use steadfast::idempotency::{Idempotency, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let idempotency = Idempotency::at_least_once(MemoryStore::new()).build().unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    shards: [Mutex<Shard>; SHARDS],
    origin: Instant,
    fences: AtomicU64,
    records: AtomicUsize,
    max_records: usize,
}

#[derive(Default)]
struct Shard {
    records: HashMap<KeyId, Record>,
    /// What expires, by when.
    expiring: BTreeSet<(Duration, KeyId)>,
}

impl MemoryStore {
    /// A store of at most [`DEFAULT_MAX_RECORDS`] records.
    ///
    /// # Panics
    ///
    /// Never; but the store's clock starts here, so a runtime whose time is paused has to exist already.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_records(DEFAULT_MAX_RECORDS)
    }

    /// A store of at most `max_records` records; of 0, one that refuses every key.
    #[must_use]
    pub fn with_max_records(max_records: usize) -> Self {
        Self(Arc::new(Shared {
            shards: Default::default(),
            origin: Instant::now(),
            fences: AtomicU64::new(0),
            records: AtomicUsize::new(0),
            max_records,
        }))
    }

    /// How many records there are, the expired among them that have not been cleared away.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.records.load(Ordering::Relaxed)
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    fn shard(&self, id: KeyId) -> MutexGuard<'_, Shard> {
        // The ids are hashes: any byte of one spreads them evenly.
        let shard = usize::from(id.as_bytes()[0]) % SHARDS;
        lock(&self.0.shards[shard])
    }

    /// Runs one transition of the record of `id`.
    fn step<A>(&self, id: KeyId, step: impl FnOnce(Option<&Record>, Duration) -> Step<A>) -> Result<A, StorageError> {
        let mut shard = self.shard(id);
        // Read under the lock, so that the times of one record never go back.
        let now = self.now();
        let Step { answer, write } = step(shard.records.get(&id), now);
        match write {
            Write::Keep => {}
            Write::Delete => self.remove(&mut shard, id),
            Write::Put(record) => {
                if !shard.records.contains_key(&id) {
                    self.make_room(&mut shard, now)?;
                }
                shard.put(id, record);
            }
        }
        Ok(answer)
    }

    /// Counts one more record, if there is room.
    fn make_room(&self, shard: &mut Shard, now: Duration) -> Result<(), StorageError> {
        self.sweep(shard, now, SWEEP);
        let limit = self.0.max_records;
        let room = |records| (records < limit).then_some(records + 1);
        let counted = self.0.records.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        counted.map(|_| ()).map_err(|_| {
            let what = format!("the memory store is full: {limit} records that have not expired");
            StorageError::new(StorageErrorKind::Full, what)
        })
    }

    fn remove(&self, shard: &mut Shard, id: KeyId) {
        if shard.remove(id) {
            self.0.records.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn sweep(&self, shard: &mut Shard, now: Duration, limit: usize) -> usize {
        let mut removed = 0;
        while removed < limit {
            match shard.expiring.first() {
                Some((expires_at, id)) if *expires_at <= now => {
                    let id = *id;
                    self.remove(shard, id);
                    removed += 1;
                }
                _ => break,
            }
        }
        removed
    }

    /// Every interrupted record after `after`, in no order.
    fn interrupted(&self, after: Option<KeyId>) -> Vec<(KeyId, Inspected)> {
        let mut found = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            let now = self.now();
            let live = shard.records.iter().filter(|(id, record)| {
                after.is_none_or(|after| **id > after)
                    && Record::live(Some(record), now).is_some_and(|record| record.is_interrupted(now))
            });
            found.extend(live.map(|(id, record)| {
                let record = record.clone();
                (*id, Inspected { record, now })
            }));
        }
        found
    }
}

impl Shard {
    fn put(&mut self, id: KeyId, record: Record) {
        let expires_at = record.expires_at();
        let before = self.records.insert(id, record).and_then(|before| before.expires_at());
        if before != expires_at {
            if let Some(before) = before {
                self.expiring.remove(&(before, id));
            }
            if let Some(expires_at) = expires_at {
                self.expiring.insert((expires_at, id));
            }
        }
    }

    fn remove(&mut self, id: KeyId) -> bool {
        let Some(record) = self.records.remove(&id) else {
            return false;
        };
        if let Some(expires_at) = record.expires_at() {
            self.expiring.remove(&(expires_at, id));
        }
        true
    }
}

/// No lock is held across code of a user, and no step of ours panics half way.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let fence = self.0.fences.fetch_add(1, Ordering::Relaxed) + 1;
        self.step(id, |record, now| Record::claim(record, claim, now, fence))
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        self.step(id, |record, now| {
            Record::complete(record, owner, outcome, retention, now)
        })
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        self.step(id, |record, now| Record::renew(record, owner, lease, checkpoint, now))
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.step(id, |record, now| Record::release(record, owner, now))
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.step(id, |record, now| Record::interrupt(record, owner, now))
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        self.step(id, Record::cancel)
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        self.step(id, |record, now| Record::resolve(record, resolution, now))
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        self.step(id, Record::forget)
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        let shard = self.shard(id);
        let now = self.now();
        let record = Record::live(shard.records.get(&id), now).cloned();
        Ok(record.map(|record| Inspected { record, now }))
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let mut found = self.interrupted(after);
        found.sort_unstable_by_key(|(id, _)| *id);
        found.truncate(limit);
        Ok(found)
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        Ok(u64::try_from(self.interrupted(None).len()).unwrap_or(u64::MAX))
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let mut removed = 0;
        for shard in &self.0.shards {
            let mut shard = lock(shard);
            removed += self.sweep(&mut shard, self.now(), limit - removed);
        }
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }

    fn durability(&self) -> Durability {
        Durability::Volatile
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("records", &self.len())
            .field("max_records", &self.0.max_records)
            .finish()
    }
}
