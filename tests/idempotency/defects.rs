//! The conformance suite finds what is wrong with a store: each of these has one defect, and is otherwise as plain as a
//! store can be.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use steadfast::KeyId;
use steadfast::idempotency::store::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Durability, Ended, Forgotten, Inspected, Origin, Owner, Record,
    Renewed, Resolution, Resolved, Step, Store, Write,
};
use steadfast::storage::StorageError;
use steadfast::testing::idempotency::conformance;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    LeaseEndsEarly,
    LeaseEndsLate,
    ExpiryIsForgotten,
    FencesStartAgain,
    RepeatedClaimIsAnother,
    ClaimReadsThenWrites,
    MismatchAfterInProgress,
    TakesOverAtMostOnce,
    CheckpointIsLost,
    CompletionIsNotFenced,
    LateCompletionIsRefused,
    CompletionOfNothingIsRefused,
    RenewalKeepsTheEnd,
    ReleaseForgetsEarlierAttempts,
    InterruptionFreesTheKey,
    CancelledKeyExpires,
    ResolvedIsOverwritten,
    CorrectsWhatARunHasStored,
    OriginIsForgotten,
    EmptyIsNone,
    TextOnly,
    LongTimesFail,
    PurgeIgnoresItsLimit,
    PurgeTakesTheInterrupted,
    ListIsNotInOrder,
    ListStartsWithAfter,
    CountsWhatIsRunning,
}

const DEFECTS: [Defect; 27] = [
    Defect::LeaseEndsEarly,
    Defect::LeaseEndsLate,
    Defect::ExpiryIsForgotten,
    Defect::FencesStartAgain,
    Defect::RepeatedClaimIsAnother,
    Defect::ClaimReadsThenWrites,
    Defect::MismatchAfterInProgress,
    Defect::TakesOverAtMostOnce,
    Defect::CheckpointIsLost,
    Defect::CompletionIsNotFenced,
    Defect::LateCompletionIsRefused,
    Defect::CompletionOfNothingIsRefused,
    Defect::RenewalKeepsTheEnd,
    Defect::ReleaseForgetsEarlierAttempts,
    Defect::InterruptionFreesTheKey,
    Defect::CancelledKeyExpires,
    Defect::ResolvedIsOverwritten,
    Defect::CorrectsWhatARunHasStored,
    Defect::OriginIsForgotten,
    Defect::EmptyIsNone,
    Defect::TextOnly,
    Defect::LongTimesFail,
    Defect::PurgeIgnoresItsLimit,
    Defect::PurgeTakesTheInterrupted,
    Defect::ListIsNotInOrder,
    Defect::ListStartsWithAfter,
    Defect::CountsWhatIsRunning,
];

#[derive(Clone)]
struct Plain {
    defect: Defect,
    records: Arc<Mutex<HashMap<KeyId, Record>>>,
    fences: Arc<AtomicU64>,
    origin: Instant,
}

const TICK: Duration = Duration::from_millis(20);

impl Plain {
    fn new(defect: Defect) -> Self {
        Self {
            defect,
            records: Arc::default(),
            fences: Arc::default(),
            origin: Instant::now(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn record(&self, id: KeyId) -> Option<Record> {
        self.records.lock().unwrap().get(&id).cloned()
    }

    fn write(&self, id: KeyId, mut write: Write) {
        if let Write::Put(Record::InProgress { origin, .. }) = &mut write
            && self.has(Defect::OriginIsForgotten)
        {
            *origin = Origin::from_text("");
        }
        let mut records = self.records.lock().unwrap();
        match write {
            Write::Keep => {}
            Write::Delete => drop(records.remove(&id)),
            Write::Put(record) => drop(records.insert(id, record)),
        }
    }

    fn step<A>(&self, id: KeyId, step: impl FnOnce(Option<&Record>) -> Step<A>) -> A {
        let Step { answer, write } = step(self.record(id).as_ref());
        self.write(id, write);
        answer
    }

    fn interrupted(&self) -> Vec<(KeyId, Inspected)> {
        let now = self.now();
        let records = self.records.lock().unwrap();
        let running = self.has(Defect::CountsWhatIsRunning);
        let found = records.iter().filter(|(_, record)| {
            let in_progress = matches!(record, Record::InProgress { .. });
            Record::live(Some(record), now).is_some_and(|record| record.is_interrupted(now) || running && in_progress)
        });
        let found = found.map(|(id, record)| {
            (
                *id,
                Inspected {
                    record: record.clone(),
                    now,
                },
            )
        });
        found.collect()
    }
}

impl Store for Plain {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let fence = self.fences.fetch_add(1, Ordering::Relaxed) + 1;
        let mut record = self.record(id);
        let mut now = self.now();
        let mut fence = fence;
        match self.defect {
            Defect::LeaseEndsEarly => now += TICK,
            Defect::LeaseEndsLate => {
                if let Some(Record::InProgress { lease_until, .. }) = &mut record {
                    *lease_until = lease_until.saturating_add(TICK);
                }
            }
            Defect::ExpiryIsForgotten => {
                if let Some(Record::Completed { expires_at, .. }) = &mut record {
                    *expires_at = Duration::MAX;
                }
            }
            Defect::FencesStartAgain => {
                fence = 1;
                record = record.filter(|record| Record::live(Some(record), now).is_some());
            }
            Defect::RepeatedClaimIsAnother => {
                if let Some(Record::InProgress { owner, .. }) = &mut record {
                    owner.claim_id = ClaimId::NOBODY;
                }
            }
            Defect::ClaimReadsThenWrites => tokio::task::yield_now().await,
            Defect::MismatchAfterInProgress => {
                if let Some(Record::InProgress { owner, lease_until, .. }) = &mut record
                    && *lease_until > now
                {
                    owner.fingerprint = claim.fingerprint;
                }
            }
            Defect::TakesOverAtMostOnce => {
                if let Some(Record::InProgress { expires_at, .. }) = &mut record {
                    *expires_at = expires_at.or(Some(Duration::MAX));
                }
            }
            Defect::CheckpointIsLost => {
                if let Some(Record::InProgress { checkpoint, .. }) = &mut record {
                    *checkpoint = None;
                }
            }
            _ => {}
        }
        let step = Record::claim(record.as_ref(), claim, now, fence);
        self.write(id, step.write);
        Ok(step.answer)
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let now = self.now();
        let mut outcome = outcome.clone();
        if self.has(Defect::TextOnly) {
            outcome = String::from_utf8_lossy(&outcome).into_owned().into();
        }
        if self.has(Defect::LongTimesFail) && retention > Duration::from_secs(1 << 31) {
            let what = "too long";
            return Err(StorageError::new(steadfast::storage::StorageErrorKind::Refused, what));
        }
        Ok(self.step(id, |record| {
            let held = match record {
                Some(Record::InProgress { owner, .. } | Record::Completed { owner, .. }) => Some(*owner),
                _ => None,
            };
            let live = Record::live(record, now);
            let refused = match self.defect {
                Defect::LateCompletionIsRefused => live.is_some_and(|record| record.is_interrupted(now)),
                Defect::CompletionOfNothingIsRefused => live.is_none(),
                _ => false,
            };
            if refused {
                return Step {
                    answer: Completed::Lost,
                    write: Write::Keep,
                };
            }
            let owner = match (self.defect, held) {
                (Defect::CompletionIsNotFenced, Some(held)) => held,
                _ => *owner,
            };
            Record::complete(record, &owner, &outcome, retention, now)
        }))
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let empty = self.has(Defect::EmptyIsNone);
        let checkpoint = checkpoint.filter(|checkpoint| !(empty && checkpoint.is_empty()));
        Ok(self.step(id, |record| {
            let mut step = Record::renew(record, owner, lease, checkpoint, self.now());
            if let (
                Some(Record::InProgress {
                    lease_until: before, ..
                }),
                Write::Put(Record::InProgress { lease_until, .. }),
            ) = (record, &mut step.write)
                && self.has(Defect::RenewalKeepsTheEnd)
            {
                *lease_until = *before;
            }
            step
        }))
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        Ok(self.step(id, |record| {
            let mut record = record.cloned();
            if let (Some(Record::InProgress { owner, .. }), Defect::ReleaseForgetsEarlierAttempts) =
                (&mut record, self.defect)
            {
                owner.attempt = 1;
            }
            Record::release(record.as_ref(), owner, self.now())
        }))
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        Ok(self.step(id, |record| {
            let mut step = Record::interrupt(record, owner, self.now());
            if self.has(Defect::InterruptionFreesTheKey) && step.answer == Ended::Interrupted {
                step.write = Write::Delete;
            }
            step
        }))
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        Ok(self.step(id, |record| Record::cancel(record, self.now())))
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        Ok(self.step(id, |record| {
            let mut resolved = record.cloned();
            if let Some(Record::Completed { owner, .. }) = &mut resolved
                && self.has(Defect::CorrectsWhatARunHasStored)
            {
                owner.claim_id = ClaimId::NOBODY;
            }
            let mut step = Record::resolve(resolved.as_ref(), resolution, self.now());
            if let (Some(Record::InProgress { owner: held, .. }), Write::Put(Record::Completed { owner, .. })) =
                (record, &mut step.write)
                && self.has(Defect::ResolvedIsOverwritten)
            {
                *owner = *held;
            }
            step
        }))
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        Ok(self.step(id, |record| Record::forget(record, self.now())))
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        let now = self.now();
        let record = self
            .record(id)
            .filter(|record| Record::live(Some(record), now).is_some());
        Ok(record.map(|record| Inspected { record, now }))
    }

    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let with = self.has(Defect::ListStartsWithAfter);
        let mut found = self.interrupted();
        found.retain(|(id, _)| after.is_none_or(|after| *id > after || with && *id == after));
        found.sort_by_key(|(id, _)| *id);
        found.truncate(limit);
        if self.has(Defect::ListIsNotInOrder) {
            found.reverse();
        }
        Ok(found)
    }

    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        Ok(self.interrupted().len() as u64)
    }

    async fn purge(&self, limit: usize) -> Result<u64, StorageError> {
        let now = self.now();
        let limit = if self.has(Defect::PurgeIgnoresItsLimit) {
            usize::MAX
        } else {
            limit
        };
        let mut records = self.records.lock().unwrap();
        let gone = records.iter().filter(|(_, record)| {
            let interrupted = record.is_interrupted(now) && self.has(Defect::PurgeTakesTheInterrupted);
            let closed = matches!(record, Record::Cancelled { .. }) && self.has(Defect::CancelledKeyExpires);
            Record::live(Some(record), now).is_none() || interrupted || closed
        });
        let gone: Vec<KeyId> = gone.map(|(id, _)| *id).take(limit).collect();
        for id in &gone {
            records.remove(id);
        }
        Ok(gone.len() as u64)
    }

    fn durability(&self) -> Durability {
        Durability::Volatile
    }
}

/// What the suite says about a store with this defect.
async fn verdict(defect: Defect) -> Result<usize, String> {
    let store = Plain::new(defect);
    let verdict = AssertUnwindSafe(conformance(|| async { store.clone() }))
        .catch_unwind()
        .await;
    verdict.map_err(|panic| *panic.downcast::<String>().expect("it says what is wrong"))
}

#[tokio::test(start_paused = true)]
async fn a_plain_store_over_the_transitions_of_a_record_conforms() {
    verdict(Defect::None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_seeded_defect_of_a_store_is_found() {
    for defect in DEFECTS {
        let said = verdict(defect).await.expect_err(&format!("{defect:?} was not found"));
        assert!(said.starts_with("the store does not conform:\n  "), "{said}");
        println!("{defect:?}: {} cases", said.lines().count() - 1);
    }
    println!("figure: seeded defects of a store caught: {}", DEFECTS.len());
}
