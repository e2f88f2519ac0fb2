//! A journal in memory.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry as Place};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Head, Journal,
    JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal, SagaStatus, StoredEntry,
};
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::{Durability, StorageError, StorageErrorKind};

/// How many sagas a [`MemoryJournal`] keeps by default.
pub const DEFAULT_MAX_SAGAS: usize = 100_000;

/// Keeps sagas in memory: for tests, and for engines whose work may end with the process.
///
/// A clone is the same journal. Its clock is tokio's, which tests can pause. It is bounded: where it is full, a new saga
/// is refused rather than an old one forgotten.
#[derive(Clone)]
pub struct MemoryJournal(Arc<Shared>);

struct Shared {
    sagas: Mutex<Sagas>,
    origin: Instant,
    /// The time of `origin`, since 1970.
    began: Duration,
    max_sagas: usize,
}

#[derive(Default)]
struct Sagas {
    by_id: BTreeMap<SagaId, Saga>,
    by_key: HashMap<KeyId, SagaId>,
}

struct Saga {
    head: Head,
    entries: Vec<StoredEntry>,
}

impl MemoryJournal {
    /// A journal of at most [`DEFAULT_MAX_SAGAS`] sagas.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_sagas(DEFAULT_MAX_SAGAS)
    }

    /// A journal of at most `max_sagas` sagas.
    #[must_use]
    pub fn with_max_sagas(max_sagas: usize) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(Arc::new(Shared {
            sagas: Mutex::default(),
            origin: Instant::now(),
            began: began.unwrap_or_default(),
            max_sagas,
        }))
    }

    fn now(&self) -> Duration {
        self.0.began.saturating_add(self.0.origin.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Sagas> {
        self.0.sagas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` under the lock, at one time.
    fn at_once<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Sagas, Duration) -> Result<T, StorageError> + Send + 'a,
    ) -> JournalFuture<'a, T> {
        Box::pin(async move {
            let mut sagas = self.lock();
            // Read under the lock, so that the times of one saga never go back.
            let now = self.now();
            work(&mut sagas, now)
        })
    }
}

impl Saga {
    fn append(&mut self, append: &Append, now: Duration) -> Appended {
        if let Some(head) = self.head.append(append, now) {
            self.write(&append.entries, append.epoch, now);
            let cancel = self.head.cancel;
            self.head = head;
            return Appended::Written { cancel };
        }
        let from = usize::try_from(append.seq).unwrap_or(usize::MAX);
        let written = self.entries.get(from..from.saturating_add(append.entries.len()));
        let same = written.is_some_and(|written| {
            let mut pairs = written.iter().zip(&append.entries);
            pairs.all(|(stored, entry)| stored.epoch == append.epoch && stored.entry == *entry)
        });
        if same && !append.entries.is_empty() {
            Appended::Written {
                cancel: self.head.cancel,
            }
        } else {
            Appended::Fenced
        }
    }

    fn write(&mut self, entries: &[super::Entry], epoch: u64, at: Duration) {
        for (seq, entry) in (self.head.seq..).zip(entries) {
            self.entries.push(StoredEntry {
                seq,
                epoch,
                at,
                entry: entry.clone(),
            });
        }
    }
}

impl Journal for MemoryJournal {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        let max_sagas = self.0.max_sagas;
        self.at_once(move |sagas, now| {
            if let Some(existing) = sagas.by_key.get(&new.key).and_then(|id| sagas.by_id.get(id)) {
                return Ok(existing.head.meets(new));
            }
            if sagas.by_id.contains_key(&new.id) {
                let taken = "there is a saga of this id, with another key";
                return Err(StorageError::new(StorageErrorKind::Refused, taken));
            }
            if sagas.by_id.len() >= max_sagas {
                let full = format!("the journal is full: it has {max_sagas} sagas; prune it, or give it more room");
                return Err(StorageError::new(StorageErrorKind::Full, full));
            }
            let mut head = Head::of(new, now);
            let mut saga = Saga {
                head: Head { seq: 0, ..head.clone() },
                entries: Vec::new(),
            };
            saga.write(&new.entries, head.epoch, now);
            std::mem::swap(&mut saga.head, &mut head);
            sagas.by_key.insert(new.key, new.id);
            sagas.by_id.insert(new.id, saga);
            Ok(Created::New)
        })
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        self.at_once(move |sagas, now| {
            let saga = sagas.by_id.get_mut(&append.id);
            Ok(saga.map_or(Appended::Fenced, |saga| saga.append(append, now)))
        })
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        self.at_once(move |sagas, now| {
            let heads = sagas.by_id.values().map(|saga| &saga.head);
            let mut due: Vec<_> = heads.filter(|head| head.is_due(now) && head.fits(query)).collect();
            due.sort_by_key(|head| (head.due, head.id));
            let mut suspects = query.suspects;
            due.retain(|head| {
                let allowed = !head.is_suspect() || suspects > 0;
                suspects = suspects.saturating_sub(usize::from(head.is_suspect()));
                allowed
            });
            let claimed = due.into_iter().take(query.limit);
            let claimed: Vec<_> = claimed.map(|head| head.claim(query.owner, query.lease, now)).collect();
            for claimed in &claimed {
                if let Some(saga) = sagas.by_id.get_mut(&claimed.head.id) {
                    saga.head = claimed.head.clone();
                }
            }
            Ok(claimed)
        })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        self.at_once(move |sagas, now| {
            let Some(saga) = sagas.by_id.get_mut(&id) else {
                return Ok(ClaimedOne::Missing);
            };
            if saga.head.is_held(now) {
                return Ok(ClaimedOne::Busy);
            }
            let claimed = saga.head.claim(owner, lease, now);
            saga.head = claimed.head.clone();
            Ok(ClaimedOne::Claimed(Box::new(claimed)))
        })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        leases: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        self.at_once(move |sagas, now| {
            let renewals = leases.iter().map(|&(id, epoch)| {
                let Some(saga) = sagas.by_id.get_mut(&id) else {
                    return Renewal {
                        id,
                        held: false,
                        cancel: false,
                    };
                };
                if let Some(head) = saga.head.renew(owner, epoch, lease, now) {
                    saga.head = head;
                }
                saga.head.renewal(owner, epoch)
            });
            Ok(renewals.collect())
        })
    }

    fn release<'a>(&'a self, owner: OwnerId, leases: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        self.at_once(move |sagas, now| {
            for (id, epoch) in leases {
                if let Some(saga) = sagas.by_id.get_mut(id) {
                    if let Some(head) = saga.head.release(owner, *epoch, now) {
                        saga.head = head;
                    }
                }
            }
            Ok(())
        })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        self.at_once(move |sagas, now| {
            let Some(saga) = sagas.by_id.get_mut(&id) else {
                return Ok(CancelRequest::Missing);
            };
            let (head, answer) = saga.head.request_cancel(now);
            if let Some(head) = head {
                saga.head = head;
            }
            Ok(answer)
        })
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        self.at_once(move |sagas, now| {
            Ok(sagas.by_id.get(&id).map(|saga| Loaded {
                head: saga.head.clone(),
                entries: saga.entries.clone(),
                now,
            }))
        })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        self.at_once(move |sagas, _| {
            let id = sagas.by_key.get(&key);
            Ok(id.and_then(|id| sagas.by_id.get(id)).map(|saga| saga.head.clone()))
        })
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        self.at_once(move |sagas, _| {
            let heads = sagas.by_id.values().map(|saga| &saga.head);
            let listed = heads.filter(|head| {
                query.status.is_none_or(|status| head.status == status)
                    && query.name.as_ref().is_none_or(|name| head.definition.name == *name)
                    && query.after.is_none_or(|after| head.id > after)
            });
            Ok(listed.take(query.limit).cloned().collect())
        })
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        self.at_once(move |sagas, now| {
            let mut counts = Counts::default();
            for head in sagas.by_id.values().map(|saga| &saga.head) {
                let active = head.status.is_active();
                let fits = definitions.contains(&head.definition);
                counts.active += u64::from(active);
                counts.stuck += u64::from(head.status == SagaStatus::Stuck);
                counts.incompatible += u64::from(active && !fits);
                if head.is_due(now) {
                    let waited = head.due.map(|due| now.saturating_sub(due));
                    counts.overdue = counts.overdue.max(waited);
                }
            }
            Ok(counts)
        })
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        self.at_once(move |sagas, now| {
            let over = |head: &Head| head.is_over(&prune, now) || head.events_are_over(&prune, now);
            let heads = sagas.by_id.values().map(|saga| &saga.head);
            let ids: Vec<SagaId> = heads
                .filter(|head| over(head))
                .take(prune.limit)
                .map(|head| head.id)
                .collect();
            let mut pruned = 0;
            for id in ids {
                let Place::Occupied(mut place) = sagas.by_id.entry(id) else {
                    continue;
                };
                pruned += 1;
                if place.get().head.is_over(&prune, now) {
                    sagas.by_key.remove(&place.remove().head.key);
                } else {
                    let saga = place.get_mut();
                    saga.head.pruned = true;
                    saga.entries = Vec::new();
                }
            }
            Ok(pruned)
        })
    }

    fn durability(&self) -> Durability {
        Durability::Volatile
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryJournal")
            .field("sagas", &self.lock().by_id.len())
            .finish_non_exhaustive()
    }
}
