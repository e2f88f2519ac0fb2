//! The conformance suite finds what is wrong with a journal: each of these has one defect, and is otherwise as plain as
//! a journal can be.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use steadfast::KeyId;
use steadfast::saga::SagaId;
use steadfast::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Entry, Head, Hold,
    Journal, JournalFuture, ListQuery, Loaded, NewSaga, OwnerId, Prune, Renewal, SagaStatus, StoredEntry,
};
use steadfast::storage::{Durability, StorageError, StorageErrorKind};
use steadfast::testing::saga::conformance;
use tokio::task::yield_now;
use tokio::time::Instant;

macro_rules! defects {
    ($($defect:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Defect {
            None,
            $($defect,)*
        }

        const DEFECTS: &[Defect] = &[$(Defect::$defect,)*];
    };
}

defects! {
    CreateReadsThenWrites,
    RepeatedCreationIsAnother,
    RepeatedCreationStartsAgain,
    OtherInputIsTheSame,
    OtherNameIsTheSame,
    NewerVersionIsAnother,
    IdIsGivenTwice,
    DeadlineIsLost,
    CreationIsInNoEpoch,
    AppendReadsThenWrites,
    AppendIsNotFenced,
    AppendIgnoresTheSequence,
    AppendNeedsALiveLease,
    AppendToWhatNobodyOwns,
    RepeatedAppendIsFenced,
    RepeatedAppendIsFencedOnceLetGo,
    RepeatedAppendIsWrittenAgain,
    RepeatedAppendIsNotCompared,
    RepeatedAppendComparesOneEvent,
    RepeatedAppendIgnoresContexts,
    RepeatedAppendIgnoresEpochs,
    AppendOfNothingMovesTheHead,
    AppendForgetsTheRequest,
    AppendForgetsTheError,
    ProgressIsIgnored,
    EveryAppendIsProgress,
    ParkIgnoresTheDeadline,
    ParkIgnoresTheRequest,
    ParkAlwaysTurns,
    RestKeepsItsOwner,
    LeaseEndsEarly,
    LeaseEndsLate,
    TimesAreRoundedDown,
    LongTimesFail,
    ClaimReadsThenWrites,
    ClaimIgnoresOrder,
    ClaimIgnoresItsLimit,
    ClaimIgnoresVersions,
    ClaimIgnoresFingerprints,
    ClaimIgnoresNames,
    ClaimTakesEverySuspect,
    SuspectsTakeThePlaceOfOthers,
    ClaimWakesWhatRests,
    EpochStays,
    ParkedCountsAsRecovery,
    LostIsNoRecovery,
    ClaimIsAlwaysParked,
    ClaimOneOfTheHeld,
    ClaimOneOfTheActiveOnly,
    RenewalOfAnothers,
    RenewalOfAnEarlierEpoch,
    RenewalNeedsALiveLease,
    RenewalForgetsTheRequest,
    RenewalLeavesOutTheMissing,
    RenewalsFailTogether,
    ReleaseOfAnothers,
    ReleaseWakesWhatRests,
    ReleaseKeepsTheTime,
    RequestIsAlwaysNoted,
    RequestLeavesTheTime,
    RequestTakesTheLease,
    RequestIsNotIdempotent,
    LoadIsAtTwoTimes,
    LoadIsCutOff,
    FindForgetsTheSettled,
    ListIsNotInOrder,
    ListStartsWithAfter,
    ListIgnoresTheStatus,
    ListIgnoresTheName,
    CountsTheResting,
    CountsAbandonedAsStuck,
    CountsEveryVersion,
    OverdueAreOnlyParked,
    OverdueAreOnlyOurs,
    PruneTakesTheStuck,
    PruneTakesTheHeld,
    PruneIgnoresItsLimit,
    PruneTakesKeysAtOnce,
    PruneCountsFromTheBeginning,
    PruneLeavesKeys,
    PruneAnswersAgain,
    EmptyIsNone,
    TextOnly,
    ZeroInAnErrorFails,
}

#[derive(Clone)]
struct Plain {
    defect: Defect,
    sagas: Arc<Mutex<BTreeMap<SagaId, Saga>>>,
    origin: Instant,
}

#[derive(Clone)]
struct Saga {
    head: Head,
    entries: Vec<StoredEntry>,
}

const TICK: Duration = Duration::from_millis(10);
const CENTURY: Duration = Duration::from_secs(99 * 365 * 24 * 3600);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain")
            .field("defect", &self.defect)
            .finish_non_exhaustive()
    }
}

/// An answer at once: what is awaited meanwhile is a part of a defect.
fn answer<'a, T: Send + 'a>(work: impl Future<Output = T> + Send + 'a) -> JournalFuture<'a, T> {
    Box::pin(async move { Ok(work.await) })
}

fn refused<T>(what: &'static str) -> Result<T, StorageError> {
    Err(StorageError::new(StorageErrorKind::Refused, what))
}

impl Plain {
    fn new(defect: Defect) -> Self {
        Self {
            defect,
            sagas: Arc::default(),
            origin: Instant::now(),
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn now(&self) -> Duration {
        Duration::from_secs(1_000_000) + self.origin.elapsed()
    }

    fn sagas(&self) -> MutexGuard<'_, BTreeMap<SagaId, Saga>> {
        self.sagas.lock().unwrap()
    }

    fn heads(&self) -> Vec<Head> {
        self.sagas().values().map(|saga| saga.head.clone()).collect()
    }

    fn head(&self, id: SagaId) -> Option<Head> {
        self.sagas().get(&id).map(|saga| saga.head.clone())
    }

    fn saga(&self, id: SagaId) -> Option<Saga> {
        self.sagas().get(&id).cloned()
    }

    fn put(&self, head: Head) {
        if let Some(saga) = self.sagas().get_mut(&head.id) {
            saga.head = head;
        }
    }

    /// A time as this journal keeps it.
    fn kept(&self, time: Duration) -> Duration {
        match self.defect {
            Defect::TimesAreRoundedDown => Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            _ => time,
        }
    }

    /// The time by which this journal judges what is due.
    fn judged(&self) -> Duration {
        match self.defect {
            Defect::LeaseEndsEarly => self.now() + TICK,
            Defect::LeaseEndsLate => self.now().saturating_sub(TICK),
            _ => self.now(),
        }
    }

    fn bytes(&self, entries: &[Entry]) -> Vec<Entry> {
        let text = |bytes: &Bytes| match self.defect {
            Defect::TextOnly => String::from_utf8_lossy(bytes).into_owned().into(),
            _ => bytes.clone(),
        };
        let entries = entries.iter().map(|entry| Entry {
            event: text(&entry.event),
            context: entry
                .context
                .as_ref()
                .map(text)
                .filter(|context| !(self.has(Defect::EmptyIsNone) && context.is_empty())),
        });
        entries.collect()
    }

    fn write(&self, saga: &mut Saga, entries: &[Entry], epoch: u64, at: Duration) {
        for entry in self.bytes(entries) {
            saga.entries.push(StoredEntry {
                seq: saga.entries.len() as u64,
                epoch,
                at,
                entry,
            });
        }
    }

    fn meets(&self, existing: &Saga, new: &NewSaga) -> Option<Created> {
        let mut new = new.clone();
        match self.defect {
            Defect::RepeatedCreationIsAnother if new.id == existing.head.id => {
                return Some(Created::Existing(Box::new(existing.head.clone())));
            }
            Defect::RepeatedCreationStartsAgain if new.id == existing.head.id => return None,
            Defect::OtherInputIsTheSame => new.input = existing.head.input,
            Defect::OtherNameIsTheSame => new.definition.name.clone_from(&existing.head.definition.name),
            Defect::NewerVersionIsAnother if new.definition != existing.head.definition => {
                return Some(Created::Conflict);
            }
            _ => {}
        }
        Some(existing.head.meets(&new))
    }

    fn was_written(&self, saga: &Saga, append: &Append) -> bool {
        let from = usize::try_from(append.seq).unwrap();
        let stored = saga.entries.get(from..from + append.entries.len()).unwrap_or_default();
        if stored.is_empty() || append.entries.is_empty() {
            return false;
        }
        let many = match self.defect {
            Defect::RepeatedAppendIsFenced => return false,
            Defect::RepeatedAppendIsFencedOnceLetGo if saga.head.owner.is_none() => return false,
            Defect::RepeatedAppendIsNotCompared => return true,
            Defect::RepeatedAppendComparesOneEvent => 1,
            _ => stored.len(),
        };
        let mut pairs = stored.iter().zip(self.bytes(&append.entries)).take(many);
        pairs.all(|(stored, entry)| {
            let same_epoch = stored.epoch == append.epoch || self.has(Defect::RepeatedAppendIgnoresEpochs);
            let same_context = stored.entry.context == entry.context || self.has(Defect::RepeatedAppendIgnoresContexts);
            same_epoch && same_context && stored.entry.event == entry.event
        })
    }

    /// The head after an append, as this journal has it.
    fn appended(&self, head: &Head, append: &Append, now: Duration) -> Option<Head> {
        let mut before = head.clone();
        match self.defect {
            Defect::AppendIsNotFenced => before.epoch = append.epoch,
            Defect::AppendIgnoresTheSequence => before.seq = append.seq,
            Defect::AppendToWhatNobodyOwns => before.owner = before.owner.or(Some(OwnerId([0; 16]))),
            Defect::AppendNeedsALiveLease if !head.is_held(now) => return None,
            Defect::ParkIgnoresTheDeadline => before.deadline = None,
            Defect::ParkIgnoresTheRequest => before.cancel = false,
            _ => {}
        }
        let mut append = append.clone();
        if let Hold::Keep(time) | Hold::Park(time) = &mut append.hold {
            *time = self.kept(*time);
        }
        let can_turn = append.can_turn;
        append.can_turn |= self.has(Defect::ParkAlwaysTurns) && matches!(append.hold, Hold::Park(_));
        append.progress |= self.has(Defect::EveryAppendIsProgress);
        append.progress &= !self.has(Defect::ProgressIsIgnored);
        let mut after = before.append(&append, now)?;
        after.can_turn = can_turn;
        after.epoch = head.epoch;
        after.seq = head.seq + append.entries.len() as u64;
        after.deadline = head.deadline;
        after.cancel = head.cancel;
        if self.has(Defect::AppendForgetsTheError) {
            after.error.clone_from(&append.error);
        }
        if self.has(Defect::RestKeepsItsOwner) && append.hold == Hold::Rest {
            after.owner = head.owner;
        }
        Some(after)
    }

    fn claimed(&self, head: &Head, owner: OwnerId, lease: Duration) -> Claimed {
        let mut claimed = head.claim(owner, self.kept(lease), self.now());
        match self.defect {
            Defect::EpochStays => claimed.head.epoch = head.epoch.max(1),
            Defect::ParkedCountsAsRecovery => claimed.head.recoveries = head.recoveries + 1,
            Defect::LostIsNoRecovery => claimed.head.recoveries = head.recoveries,
            Defect::ClaimIsAlwaysParked => claimed.parked = true,
            _ => {}
        }
        claimed
    }

    fn fits(&self, head: &Head, query: &ClaimQuery) -> bool {
        let fits = |definition: &DefinitionId| {
            let mut definition = definition.clone();
            match self.defect {
                Defect::ClaimIgnoresVersions => definition.version = head.definition.version,
                Defect::ClaimIgnoresFingerprints => definition.fingerprint = head.definition.fingerprint,
                Defect::ClaimIgnoresNames if definition.name.eq_ignore_ascii_case(&head.definition.name) => {
                    definition.name.clone_from(&head.definition.name);
                }
                _ => {}
            }
            definition == head.definition
        };
        query.definitions.iter().any(fits)
    }

    fn to_claim(&self, query: &ClaimQuery) -> Vec<Head> {
        let now = self.judged();
        let sagas = self.sagas();
        let due = sagas.values().map(|saga| &saga.head).filter(|head| {
            let wakes = self.has(Defect::ClaimWakesWhatRests) && head.due.is_some_and(|due| due <= now);
            (head.is_due(now) || wakes) && self.fits(head, query)
        });
        let mut due: Vec<_> = due.cloned().collect();
        due.sort_by_key(|head| (head.due, head.id));
        if self.has(Defect::ClaimIgnoresOrder) {
            due.reverse();
        }
        if self.has(Defect::SuspectsTakeThePlaceOfOthers) {
            due.truncate(query.limit);
        }
        let mut suspects = query.suspects;
        due.retain(|head| {
            let allowed = !head.is_suspect() || suspects > 0 || self.has(Defect::ClaimTakesEverySuspect);
            suspects = suspects.saturating_sub(usize::from(head.is_suspect()));
            allowed
        });
        if !self.has(Defect::ClaimIgnoresItsLimit) {
            due.truncate(query.limit);
        }
        due
    }
}

impl Journal for Plain {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        Box::pin(async move {
            let existing = self.sagas().values().find(|saga| saga.head.key == new.key).cloned();
            if self.has(Defect::CreateReadsThenWrites) {
                yield_now().await;
            }
            if let Some(met) = existing.and_then(|existing| self.meets(&existing, new)) {
                return Ok(met);
            }
            let again = self.has(Defect::IdIsGivenTwice) || self.has(Defect::RepeatedCreationStartsAgain);
            if self.saga(new.id).is_some() && !again {
                return refused("the id is taken");
            }
            let now = self.now();
            let mut kept = new.clone();
            kept.lease = new.lease.map(|(owner, lease)| (owner, self.kept(lease)));
            let mut head = Head::of(&kept, now);
            if self.has(Defect::DeadlineIsLost) {
                head.deadline = None;
            }
            let epoch = match self.defect {
                Defect::CreationIsInNoEpoch => 0,
                _ => head.epoch,
            };
            let mut saga = Saga {
                head,
                entries: Vec::new(),
            };
            self.write(&mut saga, &new.entries, epoch, now);
            self.sagas().insert(new.id, saga);
            Ok(Created::New)
        })
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        Box::pin(async move {
            let long = matches!(append.hold, Hold::Keep(time) | Hold::Park(time) if time > CENTURY);
            if long && self.has(Defect::LongTimesFail) {
                return refused("too long");
            }
            let zero = append.error.as_ref().is_some_and(|error| error.contains('\0'));
            if zero && self.has(Defect::ZeroInAnErrorFails) {
                return refused("a zero in a text");
            }
            let Some(mut saga) = self.saga(append.id) else {
                return Ok(Appended::Fenced);
            };
            if self.has(Defect::AppendReadsThenWrites) {
                yield_now().await;
            }
            let cancel = saga.head.cancel && !self.has(Defect::AppendForgetsTheRequest);
            let repeated = self.was_written(&saga, append);
            let now = self.now();
            if repeated && !self.has(Defect::RepeatedAppendIsWrittenAgain) {
                return Ok(Appended::Written { cancel });
            }
            let mut append = append.clone();
            if repeated {
                append.seq = saga.head.seq;
            }
            if append.entries.is_empty() && self.has(Defect::AppendOfNothingMovesTheHead) {
                saga.head.status = append.status;
                self.put(saga.head);
                return Ok(Appended::Written { cancel });
            }
            let Some(head) = self.appended(&saga.head, &append, now) else {
                return Ok(Appended::Fenced);
            };
            self.write(&mut saga, &append.entries, append.epoch, now);
            saga.head = head;
            self.sagas().insert(append.id, saga);
            Ok(Appended::Written { cancel })
        })
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        answer(async move {
            let due = self.to_claim(query);
            if self.has(Defect::ClaimReadsThenWrites) {
                yield_now().await;
            }
            let claimed: Vec<_> = due
                .iter()
                .map(|head| self.claimed(head, query.owner, query.lease))
                .collect();
            for claimed in &claimed {
                self.put(claimed.head.clone());
            }
            claimed
        })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        answer(async move {
            let Some(head) = self.head(id) else {
                return ClaimedOne::Missing;
            };
            let busy = match self.defect {
                Defect::ClaimOneOfTheHeld => false,
                Defect::ClaimOneOfTheActiveOnly => head.is_held(self.now()) || !head.status.is_active(),
                _ => head.is_held(self.judged()),
            };
            if busy {
                return ClaimedOne::Busy;
            }
            let claimed = self.claimed(&head, owner, lease);
            self.put(claimed.head.clone());
            ClaimedOne::Claimed(Box::new(claimed))
        })
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        answer(async move {
            let now = self.now();
            let lost = |id| Renewal {
                id,
                held: false,
                cancel: false,
            };
            let holds = |head: &Head, epoch| match self.defect {
                Defect::RenewalOfAnothers => head.owner.is_some() && head.epoch == epoch,
                Defect::RenewalOfAnEarlierEpoch => head.owner == Some(owner),
                Defect::RenewalNeedsALiveLease => head.is_held(now) && head.renewal(owner, epoch).held,
                _ => head.renewal(owner, epoch).held,
            };
            let heads: Vec<_> = sagas.iter().map(|(id, _)| self.head(*id)).collect();
            let all = heads.iter().zip(sagas);
            let all = all
                .clone()
                .all(|(head, (_, epoch))| head.as_ref().is_some_and(|head| holds(head, *epoch)));
            let mut renewals = Vec::new();
            for (head, (id, epoch)) in heads.into_iter().zip(sagas) {
                let Some(mut head) = head else {
                    if !self.has(Defect::RenewalLeavesOutTheMissing) {
                        renewals.push(lost(*id));
                    }
                    continue;
                };
                let own = holds(&head, *epoch) && (all || !self.has(Defect::RenewalsFailTogether));
                let cancel = head.cancel && !self.has(Defect::RenewalForgetsTheRequest);
                renewals.push(Renewal {
                    held: own,
                    cancel,
                    id: *id,
                });
                if own {
                    head.due = Some(now.saturating_add(self.kept(lease)));
                    self.put(head);
                }
            }
            renewals
        })
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        answer(async move {
            for (id, epoch) in sagas {
                let Some(head) = self.head(*id) else {
                    continue;
                };
                let owner = match self.defect {
                    Defect::ReleaseOfAnothers => head.owner.unwrap_or(owner),
                    _ => owner,
                };
                let Some(mut released) = head.release(owner, *epoch, self.now()) else {
                    continue;
                };
                match self.defect {
                    Defect::ReleaseWakesWhatRests => released.due = Some(self.now()),
                    Defect::ReleaseKeepsTheTime => released.due = head.due,
                    _ => {}
                }
                self.put(released);
            }
        })
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        answer(async move {
            let Some(mut head) = self.head(id) else {
                return CancelRequest::Missing;
            };
            let before = head.clone();
            if self.has(Defect::RequestIsAlwaysNoted) && head.status == SagaStatus::Running {
                head.can_turn = true;
            }
            let (noted, answer) = head.request_cancel(self.now());
            if let Some(noted) = noted {
                let due = match self.defect {
                    Defect::RequestLeavesTheTime => before.due,
                    Defect::RequestTakesTheLease => noted.due.map(|due| due.min(self.now())),
                    _ => noted.due,
                };
                let can_turn = before.can_turn;
                self.put(Head { due, can_turn, ..noted });
            }
            if self.has(Defect::RequestIsNotIdempotent) && before.cancel {
                return CancelRequest::TooLate;
            }
            answer
        })
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        answer(async move {
            let head = self.head(id)?;
            if self.has(Defect::LoadIsAtTwoTimes) {
                yield_now().await;
            }
            let mut entries = self.saga(id)?.entries;
            if self.has(Defect::LoadIsCutOff) {
                entries.truncate(1_000);
            }
            let now = self.now();
            Some(Loaded { head, entries, now })
        })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        answer(async move {
            let forgets = self.has(Defect::FindForgetsTheSettled);
            let sagas = self.sagas();
            let mut heads = sagas.values().map(|saga| &saga.head);
            let found = heads.find(|head| head.key == key && !(forgets && head.status.is_settled()));
            found.cloned()
        })
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        answer(async move {
            let mut heads = self.heads();
            let with = self.has(Defect::ListStartsWithAfter);
            heads.retain(|head| {
                let status = query.status.is_none_or(|status| head.status == status);
                let name = query.name.as_ref().is_none_or(|name| head.definition.name == *name);
                let after = query
                    .after
                    .is_none_or(|after| head.id > after || with && head.id == after);
                (status || self.has(Defect::ListIgnoresTheStatus))
                    && (name || self.has(Defect::ListIgnoresTheName))
                    && after
            });
            heads.truncate(query.limit);
            if self.has(Defect::ListIsNotInOrder) {
                heads.reverse();
            }
            heads
        })
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        answer(async move {
            let now = self.now();
            let mut counts = Counts::default();
            for head in self.heads() {
                let active = head.status.is_active() || self.has(Defect::CountsTheResting);
                let fits = definitions.iter().any(|definition| {
                    let name = definition.name == head.definition.name;
                    *definition == head.definition || name && self.has(Defect::CountsEveryVersion)
                });
                let stuck = head.status == SagaStatus::Stuck
                    || head.status == SagaStatus::Abandoned && self.has(Defect::CountsAbandonedAsStuck);
                counts.active += u64::from(active);
                counts.stuck += u64::from(stuck);
                counts.incompatible += u64::from(active && !fits);
                let counted = match self.defect {
                    Defect::OverdueAreOnlyParked => head.owner.is_none(),
                    Defect::OverdueAreOnlyOurs => fits,
                    _ => true,
                };
                if head.is_due(now) && counted {
                    counts.overdue = counts.overdue.max(head.due.map(|due| now.saturating_sub(due)));
                }
            }
            counts
        })
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        answer(async move {
            let now = self.now();
            let mut pruned = 0;
            for head in self.heads() {
                if pruned >= prune.limit && !self.has(Defect::PruneIgnoresItsLimit) {
                    break;
                }
                let mut judged = head.clone();
                let mut rule = prune;
                match self.defect {
                    Defect::PruneTakesTheStuck if head.status == SagaStatus::Stuck => {
                        judged.status = SagaStatus::Abandoned;
                    }
                    Defect::PruneTakesTheHeld => judged.owner = None,
                    Defect::PruneTakesKeysAtOnce => rule.keys_after = prune.events_after,
                    Defect::PruneCountsFromTheBeginning => {
                        judged.changed = judged.created.saturating_sub(Duration::from_secs(3600));
                    }
                    Defect::PruneLeavesKeys => rule.keys_after = Duration::MAX,
                    Defect::PruneAnswersAgain => judged.pruned = false,
                    _ => {}
                }
                if judged.is_over(&rule, now) {
                    self.sagas().remove(&head.id);
                } else if judged.events_are_over(&rule, now) {
                    let mut sagas = self.sagas();
                    let saga = sagas.get_mut(&head.id).unwrap();
                    saga.head.pruned = true;
                    saga.entries.clear();
                } else {
                    continue;
                }
                pruned += 1;
            }
            pruned as u64
        })
    }

    fn durability(&self) -> Durability {
        Durability::Volatile
    }
}

/// What the suite says about a journal with this defect.
async fn verdict(defect: Defect) -> Result<usize, String> {
    let journal = Plain::new(defect);
    let verdict = AssertUnwindSafe(conformance(|| async { journal.clone() }))
        .catch_unwind()
        .await;
    verdict.map_err(|panic| *panic.downcast::<String>().expect("it says what is wrong"))
}

#[tokio::test(start_paused = true)]
async fn a_plain_journal_over_the_transitions_of_a_head_conforms() {
    verdict(Defect::None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_seeded_defect_of_a_journal_is_found() {
    let mut missed = Vec::new();
    for defect in DEFECTS {
        match verdict(*defect).await {
            Ok(_) => missed.push(*defect),
            Err(said) => {
                assert!(said.starts_with("the journal does not conform:\n  "), "{said}");
                println!("{defect:?}: {} cases", said.lines().count() - 1);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    println!("figure: seeded defects of a journal caught: {}", DEFECTS.len());
}
