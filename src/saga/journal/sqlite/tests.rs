//! The journal against the pure functions of a head.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;
use tokio::runtime::Builder;

use super::super::{Entry, SUSPECT_AFTER, SagaStatus, StoredEntry};
use super::*;
use crate::saga::cx::{Cx, RunOf};
use crate::saga::local::{LocalRun, Ran};
use crate::saga::sqlite_tx::Work;
use crate::storage::StorageErrorKind;
use crate::storage::sqlite::Clock;
use crate::storage::sqlite::tests::Folder;

const HOUR: Duration = Duration::from_secs(3_600);

/// A journal whose clock is the number.
async fn journal(folder: &Folder, clock: &Arc<AtomicU64>) -> SqliteJournal {
    let read = Arc::clone(clock);
    let clock = Clock::new(move || read.load(Ordering::Relaxed));
    let storage = SqliteStorage::builder(folder.file()).clock(clock).relaxed_durability();
    let journal = SqliteJournal::new(&storage.open().await.unwrap());
    journal.migrate().await.unwrap();
    journal
}

/// The order of ids is not that of their creation.
fn id(n: u8) -> SagaId {
    SagaId::from_bytes([200 - n; 16])
}

fn owner(n: u8) -> OwnerId {
    OwnerId([n; 16])
}

fn definition(n: u8) -> DefinitionId {
    DefinitionId {
        name: ["order", "refund"][usize::from(n % 2)].into(),
        version: u32::from(n / 2),
        fingerprint: [n; 32],
    }
}

/// Saga `n` of the key `n`, of nobody yet.
fn new(n: u8) -> NewSaga {
    NewSaga {
        id: id(n),
        key: KeyId::from_bytes([n; 32]),
        input: [0; 32],
        definition: definition(0),
        deadline: None,
        lease: None,
        entries: vec![entry(0)],
        can_turn: true,
    }
}

fn entry(n: u8) -> Entry {
    Entry {
        event: Bytes::copy_from_slice(&[b'{', n, 0, 255]),
        context: (n % 2 == 0).then(|| Bytes::copy_from_slice(&[n; 3])),
    }
}

fn query() -> ClaimQuery {
    ClaimQuery {
        owner: owner(1),
        lease: HOUR,
        definitions: (0..4).map(definition).collect(),
        limit: 100,
        suspects: 100,
    }
}

/// The epoch and the number of events that the caller believes in: those of the head, or wrong by a little.
#[derive(Clone, Copy, Debug)]
struct Belief {
    epoch: i8,
    seq: i8,
}

#[derive(Clone, Debug)]
enum Action {
    Create(NewSaga),
    Append(u8, Belief, Append),
    Claim(ClaimQuery),
    ClaimOne(u8, u8, Duration),
    Renew(u8, Belief, u8, Duration),
    Release(u8, Belief, u8),
    Cancel(u8),
    Prune(Prune),
    Wait(u64),
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        3 => Just(Duration::ZERO),
        1 => Just(Duration::from_nanos(1)),
        2 => Just(Duration::from_millis(500)),
        3 => Just(HOUR),
        1 => Just(Duration::MAX),
    ]
}

fn creations() -> impl Strategy<Value = NewSaga> {
    let of = (0..6_u8, any::<bool>(), 0..8_u8, 0..4_u8);
    let deadline = proptest::option::of(durations());
    let lease = proptest::option::of((0..3_u8, durations()));
    let rest = (deadline, lease, any::<bool>(), 0..3_u8);
    (of, rest).prop_map(
        |((n, again, input, of), (deadline, lease, can_turn, entries))| NewSaga {
            id: if again { id(100 + n) } else { id(n) },
            input: [input / 7; 32],
            definition: definition(of),
            deadline,
            lease: lease.map(|(n, lease)| (owner(n), lease)),
            entries: (0..=entries).map(entry).collect(),
            can_turn,
            ..new(n)
        },
    )
}

fn appends() -> impl Strategy<Value = Append> {
    let hold = prop_oneof![
        4 => durations().prop_map(Hold::Keep),
        3 => durations().prop_map(Hold::Park),
        2 => Just(Hold::Rest),
    ];
    let status = (0..6_usize).prop_map(|n| SagaStatus::ALL[n]);
    let status = prop_oneof![2 => Just(SagaStatus::Running), 1 => status];
    let error = prop_oneof![2 => Just(None), 1 => Just(Some("it broke".to_owned()))];
    let flags = (any::<bool>(), any::<bool>());
    (vec(0..6_u8, 0..4), status, flags, hold, error).prop_map(|(entries, status, (can_turn, progress), hold, error)| {
        Append {
            id: id(0),
            epoch: 0,
            seq: 0,
            entries: entries.into_iter().map(entry).collect(),
            status,
            can_turn,
            progress,
            hold,
            error,
        }
    })
}

fn queries() -> impl Strategy<Value = ClaimQuery> {
    let definitions = vec((0..4_u8).prop_map(definition), 0..5);
    let some = prop_oneof![Just(0), Just(1), Just(100)];
    (0..3_u8, durations(), definitions, some.clone(), some).prop_map(|(n, lease, definitions, limit, suspects)| {
        ClaimQuery {
            owner: owner(n),
            lease,
            definitions,
            limit,
            suspects,
        }
    })
}

fn actions() -> impl Strategy<Value = Action> {
    let saga = 0..6_u8;
    let off = |least: i8| prop_oneof![4 => Just(0), 1 => least..2];
    let belief = (off(-1), off(-3)).prop_map(|(epoch, seq)| Belief { epoch, seq });
    let prune = (durations(), durations()).prop_map(|(events_after, keys_after)| Prune {
        events_after,
        keys_after,
        limit: usize::MAX,
    });
    prop_oneof![
        4 => creations().prop_map(Action::Create),
        6 => (saga.clone(), belief.clone(), appends()).prop_map(|(n, belief, append)| Action::Append(n, belief, append)),
        4 => queries().prop_map(Action::Claim),
        3 => (saga.clone(), 0..3_u8, durations()).prop_map(|(n, who, lease)| Action::ClaimOne(n, who, lease)),
        2 => (saga.clone(), belief.clone(), 0..3_u8, durations())
            .prop_map(|(n, belief, who, lease)| Action::Renew(n, belief, who, lease)),
        1 => (saga.clone(), belief, 0..3_u8).prop_map(|(n, belief, who)| Action::Release(n, belief, who)),
        1 => saga.prop_map(Action::Cancel),
        1 => prune.prop_map(Action::Prune),
        3 => prop_oneof![Just(1), Just(500), Just(3_600_000)].prop_map(Action::Wait),
    ]
}

/// The journal as it must be: a map, and the pure functions.
#[derive(Default)]
struct Model(BTreeMap<SagaId, (Head, Vec<StoredEntry>)>);

impl Model {
    fn head(&self, id: SagaId) -> Option<Head> {
        self.0.get(&id).map(|(head, _)| head.clone())
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.0.values().map(|(head, _)| head)
    }

    fn set(&mut self, head: Option<Head>) {
        if let Some(head) = head {
            self.0.entry(head.id).and_modify(|saga| saga.0 = head);
        }
    }

    fn write(&mut self, id: SagaId, epoch: u64, entries: &[Entry], at: Duration) {
        let log = &mut self.0.get_mut(&id).unwrap().1;
        for entry in entries {
            let (seq, entry) = (u64::try_from(log.len()).unwrap(), entry.clone());
            log.push(StoredEntry { seq, epoch, at, entry });
        }
    }

    fn create(&mut self, new: &NewSaga, now: Duration) -> Created {
        if let Some(existing) = self.heads().find(|head| head.key == new.key) {
            return existing.meets(new);
        }
        let head = Head::of(new, now);
        let epoch = head.epoch;
        self.0.insert(new.id, (head, Vec::new()));
        self.write(new.id, epoch, &new.entries, now);
        Created::New
    }

    fn append(&mut self, append: &Append, now: Duration) -> Appended {
        let Some((head, log)) = self.0.get(&append.id) else {
            return Appended::Fenced;
        };
        let cancel = head.cancel;
        if let Some(after) = head.append(append, now) {
            self.set(Some(after));
            self.write(append.id, append.epoch, &append.entries, now);
            return Appended::Written { cancel };
        }
        let there = log.iter().filter(|stored| stored.seq >= append.seq);
        let there: Vec<_> = there.take(append.entries.len()).collect();
        let same = there.iter().zip(&append.entries);
        let same = same.filter(|(stored, entry)| stored.epoch == append.epoch && stored.entry == **entry);
        if !append.entries.is_empty() && same.count() == append.entries.len() {
            Appended::Written { cancel }
        } else {
            Appended::Fenced
        }
    }

    fn claim(&mut self, query: &ClaimQuery, now: Duration) -> Vec<Claimed> {
        let due = self.heads().filter(|head| head.is_due(now) && head.fits(query));
        let mut due: Vec<_> = due.cloned().collect();
        due.sort_by_key(|head| (head.due, head.id));
        let mut suspects = 0;
        due.retain(|head| {
            suspects += usize::from(head.is_suspect());
            !head.is_suspect() || suspects <= query.suspects
        });
        due.truncate(query.limit);
        let claims = due.iter().map(|head| head.claim(query.owner, query.lease, now));
        let claimed: Vec<_> = claims.collect();
        for claim in &claimed {
            self.set(Some(claim.head.clone()));
        }
        claimed
    }

    fn claim_one(&mut self, id: SagaId, owner: OwnerId, lease: Duration, now: Duration) -> ClaimedOne {
        match self.head(id) {
            None => ClaimedOne::Missing,
            Some(head) if head.is_held(now) => ClaimedOne::Busy,
            Some(head) => {
                let claimed = head.claim(owner, lease, now);
                self.set(Some(claimed.head.clone()));
                ClaimedOne::Claimed(Box::new(claimed))
            }
        }
    }

    fn renew(&mut self, id: SagaId, owner: OwnerId, epoch: u64, lease: Duration, now: Duration) -> Renewal {
        let Some(head) = self.head(id) else {
            let (held, cancel) = (false, false);
            return Renewal { id, held, cancel };
        };
        self.set(head.renew(owner, epoch, lease, now));
        head.renewal(owner, epoch)
    }

    fn cancel(&mut self, id: SagaId, now: Duration) -> CancelRequest {
        let Some(head) = self.head(id) else {
            return CancelRequest::Missing;
        };
        let (after, answer) = head.request_cancel(now);
        self.set(after);
        answer
    }

    fn prune(&mut self, prune: &Prune, now: Duration) -> u64 {
        let over = |head: &&Head| head.is_over(prune, now) || head.events_are_over(prune, now);
        let over: Vec<_> = self.heads().filter(over).cloned().collect();
        for head in &over {
            if head.is_over(prune, now) {
                self.0.remove(&head.id);
            } else {
                let pruned = Head {
                    pruned: true,
                    ..head.clone()
                };
                self.0.insert(head.id, (pruned, Vec::new()));
            }
        }
        u64::try_from(over.len()).unwrap()
    }

    fn list(&self, query: &ListQuery) -> Vec<Head> {
        let listed = self.heads().filter(|head| {
            query.status.is_none_or(|status| status == head.status)
                && query.name.as_ref().is_none_or(|name| *name == head.definition.name)
                && query.after.is_none_or(|after| head.id > after)
        });
        listed.take(query.limit).cloned().collect()
    }

    fn count(&self, definitions: &[DefinitionId], now: Duration) -> Counts {
        let count = |of: &dyn Fn(&Head) -> bool| u64::try_from(self.heads().filter(|head| of(head)).count()).unwrap();
        let due = self.heads().filter(|head| head.is_due(now)).filter_map(|head| head.due);
        Counts {
            active: count(&|head| head.status.is_active()),
            stuck: count(&|head| head.status == SagaStatus::Stuck),
            incompatible: count(&|head| head.status.is_active() && !definitions.contains(&head.definition)),
            overdue: due.min().map(|due| now.saturating_sub(due)),
        }
    }
}

/// What a caller believes about saga `n`.
fn believed(model: &Model, n: u8, belief: Belief) -> (u64, u64) {
    let (epoch, seq) = model.head(id(n)).map_or((1, 1), |head| (head.epoch, head.seq));
    (
        epoch.saturating_add_signed(belief.epoch.into()),
        seq.saturating_add_signed(belief.seq.into()),
    )
}

async fn run(journal: &SqliteJournal, model: &mut Model, action: &Action, now: Duration) {
    match action {
        Action::Create(new) => {
            let clamped = NewSaga {
                deadline: new.deadline.map(stored),
                lease: new.lease.map(|(owner, lease)| (owner, stored(lease))),
                ..new.clone()
            };
            assert_eq!(journal.create(new).await.unwrap(), model.create(&clamped, now));
        }
        Action::Append(n, belief, append) => {
            let (epoch, seq) = believed(model, *n, *belief);
            let append = Append {
                id: id(*n),
                epoch,
                seq,
                ..append.clone()
            };
            let stored = Append {
                hold: clamped(append.hold),
                ..append.clone()
            };
            let expected = model.append(&stored, now);
            assert_eq!(journal.append(&append).await.unwrap(), expected);
            // A request whose reply was lost: the same answer, unless somebody has been at it, and nothing more.
            let expected = model.append(&stored, now);
            assert_eq!(journal.append(&append).await.unwrap(), expected);
        }
        Action::Claim(query) => {
            let clamped = ClaimQuery {
                lease: stored(query.lease),
                ..query.clone()
            };
            assert_eq!(journal.claim(query).await.unwrap(), model.claim(&clamped, now));
        }
        Action::ClaimOne(n, who, lease) => {
            let expected = model.claim_one(id(*n), owner(*who), stored(*lease), now);
            let claimed = journal.claim_one(id(*n), owner(*who), *lease).await.unwrap();
            assert_eq!(claimed, expected);
        }
        Action::Renew(n, belief, who, lease) => {
            let (epoch, _) = believed(model, *n, *belief);
            let expected = model.renew(id(*n), owner(*who), epoch, stored(*lease), now);
            let renewed = journal.renew(owner(*who), *lease, &[(id(*n), epoch)]).await.unwrap();
            assert_eq!(renewed, [expected]);
        }
        Action::Release(n, belief, who) => {
            let (epoch, _) = believed(model, *n, *belief);
            journal.release(owner(*who), &[(id(*n), epoch)]).await.unwrap();
            model.set(
                model
                    .head(id(*n))
                    .and_then(|head| head.release(owner(*who), epoch, now)),
            );
        }
        Action::Cancel(n) => {
            let expected = model.cancel(id(*n), now);
            assert_eq!(journal.request_cancel(id(*n)).await.unwrap(), expected);
        }
        Action::Prune(prune) => {
            let expected = model.prune(prune, now);
            assert_eq!(journal.prune(*prune).await.unwrap(), expected);
        }
        Action::Wait(_) => {}
    }
}

async fn holds(actions: Vec<Action>) {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let now = || Duration::from_millis(clock.load(Ordering::Relaxed));
    let journal = journal(&folder, &clock).await;
    let mut model = Model::default();
    for action in actions {
        if let Action::Wait(ms) = action {
            clock.fetch_add(ms, Ordering::Relaxed);
        }
        run(&journal, &mut model, &action, now()).await;
        for n in 0..6 {
            let expected = model.0.get(&id(n)).map(|(head, entries)| Loaded {
                head: head.clone(),
                entries: entries.clone(),
                now: now(),
            });
            assert_eq!(journal.load(id(n)).await.unwrap(), expected, "{action:?}");
        }
    }
    for n in 0..6 {
        let key = new(n).key;
        let expected = model.heads().find(|head| head.key == key).cloned();
        assert_eq!(journal.find(key).await.unwrap(), expected);
    }
    let statuses = SagaStatus::ALL.into_iter().map(Some).chain([None]);
    for status in statuses {
        for name in [None, Some("refund".to_owned()), Some("nobody".to_owned())] {
            for (after, limit) in [(None, 100), (Some(id(3)), 2), (None, 0)] {
                let name = name.clone();
                let query = ListQuery {
                    status,
                    name,
                    after,
                    limit,
                };
                assert_eq!(journal.list(&query).await.unwrap(), model.list(&query), "{query:?}");
            }
        }
    }
    let known = [definition(0), definition(3)];
    assert_eq!(journal.count(&known).await.unwrap(), model.count(&known, now()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_does_what_the_pure_functions_say(history in vec(actions(), 1..60)) {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(holds(history));
    }
}

/// What became of a step in a transaction, in so many words, and how often its work was run.
async fn local(journal: &SqliteJournal, epoch: u64, context: &str) -> (String, u32) {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let work: Arc<Work<String, ()>> = Arc::new(move |_: &mut Cx<String>, connection: &Connection| {
        counted.fetch_add(1, Ordering::Relaxed);
        connection.execute_batch("CREATE TABLE IF NOT EXISTS effect (n); INSERT INTO effect VALUES (1)")?;
        Ok(())
    });
    let run = LocalRun {
        cx: Cx {
            data: context.to_owned(),
            deps: Arc::new(()),
            run: RunOf {
                saga: id(0),
                step: "book".into(),
                attempt: 1,
                fence: epoch,
                undo: None,
            },
        },
        limit: HOUR,
        append: Append {
            id: id(0),
            epoch,
            seq: 3,
            entries: vec![
                Entry {
                    context: None,
                    ..entry(1)
                },
                entry(3),
            ],
            status: SagaStatus::Running,
            can_turn: true,
            progress: true,
            hold: Hold::Keep(HOUR),
            error: None,
        },
        encode: |context| Ok((Bytes::from(context.clone()), context)),
        decode: |bytes| Ok(String::from_utf8(bytes.to_vec())?),
    };
    let ran = match journal.in_transaction(&work, run).await {
        Ran::Committed { context, cancel } => format!("committed {context} {cancel}"),
        Ran::Failed(failed) => format!("failed {:?} {}", failed.effect(), failed.error()),
        Ran::Fenced => "fenced".to_owned(),
    };
    (ran, runs.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_step_in_a_transaction_that_was_carried_out_before_is_not_run_again() {
    let folder = Folder::new();
    let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
    three_events(&journal).await;
    assert_eq!(local(&journal, 1, "first").await, ("committed first false".into(), 1));
    let before = journal.load(id(0)).await.unwrap();
    // The answer of the first was lost: what counts is what is stored.
    assert_eq!(local(&journal, 1, "second").await, ("committed first false".into(), 0));
    assert_eq!(journal.load(id(0)).await.unwrap(), before);
}

#[tokio::test]
async fn a_step_in_a_transaction_is_not_run_for_whoever_was_overtaken() {
    let folder = Folder::new();
    let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
    three_events(&journal).await;
    let before = journal.load(id(0)).await.unwrap();
    assert_eq!(local(&journal, 2, "late").await, ("fenced".into(), 0));
    assert_eq!(journal.load(id(0)).await.unwrap(), before);
}

#[tokio::test]
async fn a_step_in_a_transaction_is_not_run_once_the_saga_is_to_turn_back() {
    let folder = Folder::new();
    let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
    three_events(&journal).await;
    journal.request_cancel(id(0)).await.unwrap();
    let not_run = "failed None it was not run: the saga turns back".to_owned();
    assert_eq!(local(&journal, 1, "late").await, (not_run, 0));
    assert_eq!(journal.load(id(0)).await.unwrap().unwrap().entries.len(), 3);
}

/// Has the writer do something to the tables.
async fn execute(journal: &SqliteJournal, sql: &'static str) {
    let work = move |turn: &Turn<'_>| Ok(turn.connection.execute_batch(sql)?);
    journal.storage.call(Terms::default(), work).await.unwrap();
}

/// A saga of `owner(1)` with three events.
async fn three_events(journal: &SqliteJournal) {
    let started = NewSaga {
        lease: Some((owner(1), HOUR)),
        entries: vec![entry(0), entry(1), entry(2)],
        ..new(0)
    };
    assert_eq!(journal.create(&started).await.unwrap(), Created::New);
}

#[tokio::test]
async fn a_log_that_is_not_whole_is_an_error_and_never_a_shorter_saga() {
    for damage in [
        "DELETE FROM steadfast_saga_event WHERE seq = 2",
        "DELETE FROM steadfast_saga_event WHERE seq = 1",
        "DELETE FROM steadfast_saga_event",
        "UPDATE steadfast_saga_event SET seq = 3 WHERE seq = 2",
        "INSERT INTO steadfast_saga_event SELECT saga, 3, epoch, at, event, context FROM steadfast_saga_event WHERE seq = 2",
    ] {
        let folder = Folder::new();
        let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
        three_events(&journal).await;
        assert_eq!(journal.load(id(0)).await.unwrap().unwrap().entries.len(), 3);
        execute(&journal, damage).await;
        let error = journal.load(id(0)).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{damage}");
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_an_error_and_never_a_free_key() {
    let folder = Folder::new();
    let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
    three_events(&journal).await;
    execute(&journal, "UPDATE steadfast_saga SET owner = x'00'").await;
    let error = journal.create(&new(0)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt);
}

#[tokio::test]
async fn a_lease_ends_to_the_millisecond() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let journal = journal(&folder, &clock).await;
    let lease = Duration::from_micros(249_001);
    let started = NewSaga {
        lease: Some((owner(1), lease)),
        ..new(0)
    };
    journal.create(&started).await.unwrap();
    let mut claimed = Vec::new();
    for at in [1_249, 1_250] {
        clock.store(at, Ordering::Relaxed);
        claimed.push(journal.claim(&query()).await.unwrap().len());
    }
    assert_eq!(claimed, [0, 1]);
}

#[tokio::test]
async fn many_suspects_hide_nobody_and_a_saga_that_nobody_can_drive_takes_no_place() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let journal = journal(&folder, &clock).await;
    let lost = NewSaga {
        lease: Some((owner(1), Duration::ZERO)),
        ..new(0)
    };
    for n in 0..20 {
        let lost = NewSaga {
            id: id(n),
            key: new(n).key,
            definition: definition(u8::from(n >= 10)),
            ..lost.clone()
        };
        journal.create(&lost).await.unwrap();
    }
    let crashing = ClaimQuery {
        lease: Duration::ZERO,
        ..query()
    };
    for _ in 0..SUSPECT_AFTER {
        assert_eq!(journal.claim(&crashing).await.unwrap().len(), 20);
    }
    clock.fetch_add(1, Ordering::Relaxed);
    journal.create(&new(50)).await.unwrap();
    let query = ClaimQuery {
        definitions: vec![definition(0)],
        limit: 3,
        suspects: 1,
        ..query()
    };
    let claimed = journal.claim(&query).await.unwrap();
    let recoveries: Vec<_> = claimed.iter().map(|claimed| claimed.head.recoveries).collect();
    assert_eq!(recoveries, [SUSPECT_AFTER + 1, 0]);
}

#[tokio::test]
async fn pruning_stops_at_its_limit_and_begins_with_what_was_settled_first() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let journal = journal(&folder, &clock).await;
    for n in 0..100 {
        let (id, lease) = (id(n), Some((owner(1), HOUR)));
        journal.create(&NewSaga { lease, ..new(n) }).await.unwrap();
        clock.fetch_add(1, Ordering::Relaxed);
        let append = Append {
            id,
            epoch: 1,
            seq: 1,
            entries: vec![entry(1)],
            status: if n == 0 {
                SagaStatus::Stuck
            } else {
                SagaStatus::Completed
            },
            can_turn: false,
            progress: true,
            hold: Hold::Rest,
            error: None,
        };
        journal.append(&append).await.unwrap();
    }
    let prune = Prune {
        events_after: Duration::ZERO,
        keys_after: HOUR,
        limit: 70,
    };
    assert_eq!(journal.prune(prune).await.unwrap(), 70);
    let pruned = |n: u8| {
        let journal = &journal;
        async move { journal.find(new(n).key).await.unwrap().map(|head| head.pruned) }
    };
    for (n, expected) in [(0, false), (1, true), (70, true), (71, false)] {
        assert_eq!(pruned(n).await, Some(expected), "{n}");
    }
    assert_eq!(journal.prune(prune).await.unwrap(), 29);
    assert_eq!(journal.prune(prune).await.unwrap(), 0);
    clock.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(journal.prune(prune).await.unwrap(), 70);
    assert_eq!(journal.prune(prune).await.unwrap(), 29);
    assert_eq!((pruned(0).await, pruned(99).await), (Some(false), None));
}

#[tokio::test]
async fn a_full_disk_refuses_a_saga_and_events_whole() {
    let folder = Folder::new();
    let journal = journal(&folder, &Arc::new(AtomicU64::new(1_000))).await;
    three_events(&journal).await;
    let before = journal.load(id(0)).await.unwrap();
    execute(&journal, "PRAGMA max_page_count = 24").await;
    let large = Entry {
        event: Bytes::from_static(b"{}"),
        context: Some(Bytes::from(vec![7; 200_000])),
    };
    let append = Append {
        id: id(0),
        epoch: 1,
        seq: 3,
        entries: vec![entry(1), large.clone()],
        status: SagaStatus::Running,
        can_turn: true,
        progress: true,
        hold: Hold::Keep(HOUR),
        error: None,
    };
    let error = journal.append(&append).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Full);
    assert_eq!(journal.load(id(0)).await.unwrap(), before);
    let saga = NewSaga {
        entries: vec![entry(0), large],
        ..new(1)
    };
    let error = journal.create(&saga).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Full);
    assert_eq!(journal.find(saga.key).await.unwrap(), None);
    execute(&journal, "PRAGMA max_page_count = 10000").await;
    let written = Appended::Written { cancel: false };
    assert_eq!(journal.append(&append).await.unwrap(), written);
    assert_eq!(journal.create(&saga).await.unwrap(), Created::New);
}

#[test]
fn what_is_asked_of_many_sagas_walks_through_an_index() {
    let connection = Connection::open_in_memory().unwrap();
    for step in MIGRATIONS {
        connection.execute_batch(step.sql()).unwrap();
    }
    for (sql, index) in row::INDEXED {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        // What is not bound is NULL.
        let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
        let plan: Vec<_> = steps.map(Result::unwrap).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
        let slow = |step: &String| step.starts_with("SCAN") || step.contains("TEMP B-TREE");
        assert!(!plan.iter().any(slow), "{sql}: {plan:?}");
    }
}

#[test]
fn the_schema_and_the_crate_agree_on_who_is_a_suspect() {
    let sql = MIGRATIONS[0].sql();
    assert!(sql.contains(&format!("(recoveries >= {SUSPECT_AFTER})")));
}
