//! The store against the pure transitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::super::{ClaimId, Origin, Status};
use super::*;
use crate::idempotency::Fingerprint;
use crate::storage::StorageErrorKind;
use crate::storage::sqlite::Clock;
use crate::storage::sqlite::tests::Folder;

const HOUR: Duration = Duration::from_secs(3_600);

fn id(n: u8) -> KeyId {
    KeyId::from_bytes([n; 32])
}

fn owner(n: u8) -> Owner {
    Owner {
        claim_id: ClaimId::from_bytes([n; 16]),
        fence: u64::from(n),
        attempt: u32::from(n),
        fingerprint: Fingerprint::of_parts(&[&[n % 2]]),
    }
}

fn first_claim(mode: Mode, lease: Duration) -> Claim {
    Claim {
        claim_id: ClaimId::from_bytes([1; 16]),
        fingerprint: Fingerprint::of_parts(&[&[1]]),
        mode,
        lease,
        origin: Origin::from_text("call:tests"),
    }
}

/// A store whose clock is the number.
async fn store(folder: &Folder, clock: &Arc<AtomicU64>) -> SqliteStore {
    let read = Arc::clone(clock);
    let clock = Clock::new(move || read.load(Ordering::Relaxed));
    let storage = SqliteStorage::builder(folder.file()).clock(clock).relaxed_durability();
    let store = SqliteStore::new(&storage.open().await.unwrap());
    store.migrate().await.unwrap();
    store
}

#[derive(Clone, Debug)]
enum Action {
    Claim(u8, Claim),
    Complete(u8, u8, Duration),
    Renew(u8, u8, Duration, Option<Bytes>),
    Release(u8, u8),
    Interrupt(u8, u8),
    Cancel(u8),
    Resolve(u8, Resolution),
    Forget(u8),
    Purge(usize),
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

fn actions() -> impl Strategy<Value = Action> {
    let key = 0..3_u8;
    let who = 1..4_u8;
    let mode = prop_oneof![
        durations().prop_map(|retention| Mode::AtLeastOnce { retention }),
        Just(Mode::AtMostOnce)
    ];
    let claim = (who.clone(), any::<bool>(), mode, durations()).prop_map(|(who, other, mode, lease)| Claim {
        claim_id: ClaimId::from_bytes([who; 16]),
        fingerprint: Fingerprint::of_parts(&[&[u8::from(other && who == 3)]]),
        mode,
        lease,
        origin: Origin::from_text(if other { "call:tests" } else { "http:tests" }),
    });
    let bytes = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0bytes\xff"))];
    let resolution = prop_oneof![
        (bytes.clone(), durations()).prop_map(|(outcome, retention)| Resolution::Completed { outcome, retention }),
        (bytes.clone(), durations()).prop_map(|(outcome, retention)| Resolution::Corrected { outcome, retention }),
        Just(Resolution::NotExecuted)
    ];
    prop_oneof![
        6 => (key.clone(), claim).prop_map(|(key, claim)| Action::Claim(key, claim)),
        2 => (key.clone(), who.clone(), durations()).prop_map(|(key, who, kept)| Action::Complete(key, who, kept)),
        2 => (key.clone(), who.clone(), durations(), proptest::option::of(bytes))
            .prop_map(|(key, who, lease, noted)| Action::Renew(key, who, lease, noted)),
        1 => (key.clone(), who.clone()).prop_map(|(key, who)| Action::Release(key, who)),
        1 => (key.clone(), who).prop_map(|(key, who)| Action::Interrupt(key, who)),
        1 => key.clone().prop_map(Action::Cancel),
        1 => (key.clone(), resolution).prop_map(|(key, resolution)| Action::Resolve(key, resolution)),
        1 => key.prop_map(Action::Forget),
        1 => prop_oneof![Just(0), Just(usize::MAX)].prop_map(Action::Purge),
        3 => prop_oneof![Just(1), Just(500), Just(3_600_000)].prop_map(Action::Wait),
    ]
}

/// The store as it must be: a map, and the pure transitions.
#[derive(Default)]
struct Model {
    records: BTreeMap<KeyId, Record>,
    fence: u64,
}

impl Model {
    fn step<A>(&mut self, key: u8, step: impl FnOnce(Option<&Record>) -> Step<A>) -> A {
        let Step { answer, write } = step(self.records.get(&id(key)));
        match write {
            super::super::Write::Keep => {}
            super::super::Write::Delete => drop(self.records.remove(&id(key))),
            super::super::Write::Put(record) => drop(self.records.insert(id(key), record)),
        }
        answer
    }

    fn claim(&mut self, key: u8, claim: &Claim, now: Duration) -> Claimed {
        let next = self.fence + 1;
        let claimed = self.step(key, |record| Record::claim(record, claim, now, next));
        if let Claimed::Owned { owner, .. } = &claimed {
            self.fence = self.fence.max(owner.fence);
        }
        claimed
    }

    fn purge(&mut self, limit: usize, now: Duration) -> u64 {
        let expired = self
            .records
            .iter()
            .filter(|(_, record)| Record::live(Some(record), now).is_none());
        let mut expired: Vec<_> = expired.collect();
        expired.sort_by_key(|(_, record)| record.expires_at());
        let gone: Vec<_> = expired.into_iter().take(limit).map(|(id, _)| *id).collect();
        for id in &gone {
            self.records.remove(id);
        }
        u64::try_from(gone.len()).unwrap()
    }

    fn interrupted(&self, now: Duration) -> Vec<(KeyId, Inspected)> {
        let live = self
            .records
            .iter()
            .filter(|(_, record)| Record::live(Some(record), now).is_some());
        let found = live.filter(|(_, record)| record.is_interrupted(now));
        found
            .map(|(id, record)| {
                (
                    *id,
                    Inspected {
                        record: record.clone(),
                        now,
                    },
                )
            })
            .collect()
    }
}

async fn holds(actions: Vec<Action>) {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let store = store(&folder, &clock).await;
    let mut model = Model::default();
    for action in actions {
        let now = Duration::from_millis(clock.load(Ordering::Relaxed));
        match &action {
            Action::Claim(key, claim) => {
                let expected = model.claim(*key, &clamped(claim), now);
                assert_eq!(store.claim(id(*key), claim).await.unwrap(), expected, "{action:?}");
            }
            Action::Complete(key, who, kept) => {
                let outcome = Bytes::copy_from_slice(&[*who]);
                let complete =
                    |record: Option<&Record>| Record::complete(record, &owner(*who), &outcome, stored(*kept), now);
                let expected = model.step(*key, complete);
                let completed = store.complete(id(*key), &owner(*who), &outcome, *kept).await;
                assert_eq!(completed.unwrap(), expected, "{action:?}");
            }
            Action::Renew(key, who, lease, noted) => {
                let renew =
                    |record: Option<&Record>| Record::renew(record, &owner(*who), stored(*lease), noted.as_ref(), now);
                let expected = model.step(*key, renew);
                let renewed = store.renew(id(*key), &owner(*who), *lease, noted.as_ref()).await;
                assert_eq!(renewed.unwrap(), expected, "{action:?}");
            }
            Action::Release(key, who) => {
                let expected = model.step(*key, |record| Record::release(record, &owner(*who), now));
                assert_eq!(
                    store.release(id(*key), &owner(*who)).await.unwrap(),
                    expected,
                    "{action:?}"
                );
            }
            Action::Interrupt(key, who) => {
                let expected = model.step(*key, |record| Record::interrupt(record, &owner(*who), now));
                assert_eq!(
                    store.interrupt(id(*key), &owner(*who)).await.unwrap(),
                    expected,
                    "{action:?}"
                );
            }
            Action::Cancel(key) => {
                let expected = model.step(*key, |record| Record::cancel(record, now));
                assert_eq!(store.cancel(id(*key)).await.unwrap(), expected, "{action:?}");
            }
            Action::Resolve(key, resolution) => {
                let resolved = store.resolve(id(*key), resolution).await.unwrap();
                let resolution = match resolution.clone() {
                    Resolution::Completed { outcome, retention } => Resolution::Completed {
                        outcome,
                        retention: stored(retention),
                    },
                    Resolution::NotExecuted => Resolution::NotExecuted,
                    Resolution::Corrected { outcome, retention } => Resolution::Corrected {
                        outcome,
                        retention: stored(retention),
                    },
                };
                let expected = model.step(*key, |record| Record::resolve(record, &resolution, now));
                assert_eq!(resolved, expected, "{action:?}");
            }
            Action::Forget(key) => {
                let expected = model.step(*key, |record| Record::forget(record, now));
                assert_eq!(store.forget(id(*key)).await.unwrap(), expected, "{action:?}");
            }
            Action::Purge(limit) => {
                assert_eq!(
                    store.purge(*limit).await.unwrap(),
                    model.purge(*limit, now),
                    "{action:?}"
                );
            }
            Action::Wait(ms) => drop(clock.fetch_add(*ms, Ordering::Relaxed)),
        }
        let now = Duration::from_millis(clock.load(Ordering::Relaxed));
        for key in 0..3 {
            let record = Record::live(model.records.get(&id(key)), now).cloned();
            let expected = record.map(|record| Inspected { record, now });
            assert_eq!(store.inspect(id(key)).await.unwrap(), expected, "{action:?}");
        }
    }
    let now = Duration::from_millis(clock.load(Ordering::Relaxed));
    let expected = model.interrupted(now);
    assert_eq!(store.list_interrupted(None, 10).await.unwrap(), expected);
    let later: Vec<_> = expected
        .iter()
        .filter(|(found, _)| *found > id(0))
        .take(1)
        .cloned()
        .collect();
    assert_eq!(store.list_interrupted(Some(id(0)), 1).await.unwrap(), later);
    assert_eq!(
        store.count_interrupted().await.unwrap(),
        u64::try_from(expected.len()).unwrap()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_pure_transitions_say(history in proptest::collection::vec(actions(), 1..60)) {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(holds(history));
    }
}

const KEPT: Mode = Mode::AtLeastOnce { retention: HOUR };

#[tokio::test]
async fn a_clock_that_jumps_takes_over_late_or_early_and_the_loser_is_fenced() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(10_000_000));
    let store = store(&folder, &clock).await;
    let claim = first_claim(KEPT, Duration::from_secs(30));
    let second = Claim {
        claim_id: ClaimId::from_bytes([2; 16]),
        ..claim.clone()
    };
    let Claimed::Owned { owner: first, .. } = store.claim(id(1), &claim).await.unwrap() else {
        panic!("the key was free");
    };

    // An hour back: time stands still, and the lease lasts until the clock has caught up.
    clock.store(10_000_000 - 3_600_000, Ordering::Relaxed);
    let lease_left = Duration::from_secs(30);
    assert_eq!(
        store.claim(id(1), &second).await.unwrap(),
        Claimed::InProgress { lease_left }
    );
    clock.store(10_030_000 - 1, Ordering::Relaxed);
    let lease_left = Duration::from_millis(1);
    assert_eq!(
        store.claim(id(1), &second).await.unwrap(),
        Claimed::InProgress { lease_left }
    );

    // An hour ahead: the lease ends early. Who was overtaken cannot write.
    clock.store(10_000_000 + 3_600_000, Ordering::Relaxed);
    let Claimed::Owned { owner: next, .. } = store.claim(id(1), &second).await.unwrap() else {
        panic!("the lease is over");
    };
    assert_eq!((next.attempt, next.fence > first.fence), (2, true));
    let outcome = Bytes::from_static(b"late");
    assert_eq!(
        store.complete(id(1), &first, &outcome, HOUR).await.unwrap(),
        Completed::Lost
    );
    assert_eq!(store.renew(id(1), &first, HOUR, None).await.unwrap(), Renewed::Lost);
    assert_eq!(
        store.complete(id(1), &next, &outcome, HOUR).await.unwrap(),
        Completed::Applied
    );
}

#[tokio::test]
async fn a_lease_ends_to_the_millisecond() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let store = store(&folder, &clock).await;
    let claim = first_claim(Mode::AtMostOnce, Duration::from_millis(250));
    store.claim(id(1), &claim).await.unwrap();
    let mut statuses = Vec::new();
    for at in [1_249, 1_250] {
        clock.store(at, Ordering::Relaxed);
        statuses.push(store.inspect(id(1)).await.unwrap().map(|found| found.status()));
    }
    assert_eq!(statuses, [Some(Status::InProgress), Some(Status::Interrupted)]);
}

#[tokio::test]
async fn fences_grow_over_expiry_purge_and_forgetting() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let store = store(&folder, &clock).await;
    let claim = first_claim(
        Mode::AtLeastOnce {
            retention: Duration::ZERO,
        },
        Duration::ZERO,
    );
    let mut last = 0;
    for round in 0..6 {
        let Claimed::Owned { owner, .. } = store.claim(id(1), &claim).await.unwrap() else {
            panic!("it had expired");
        };
        assert!(owner.fence > last, "round {round}: {} after {last}", owner.fence);
        last = owner.fence;
        match round % 3 {
            0 => assert_eq!(store.purge(10).await.unwrap(), 1),
            1 => {
                store.complete(id(1), &owner, &Bytes::new(), HOUR).await.unwrap();
                store.forget(id(1)).await.unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_a_claim_and_grants_nothing() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let store = store(&folder, &clock).await;
    let limit = |pages: &'static str| {
        let set = move |turn: &Turn<'_>| Ok(turn.connection.execute_batch(pages)?);
        store.storage.call(Terms::default(), set)
    };
    limit("PRAGMA max_page_count = 16").await.unwrap();
    let mut owners = Vec::new();
    let mut full = 0_u32;
    for n in 0..=255 {
        let claim = first_claim(KEPT, HOUR);
        match store.claim(id(n), &claim).await {
            Ok(Claimed::Owned { owner, .. }) => owners.push((n, owner)),
            Ok(other) => panic!("the key was free: {other:?}"),
            Err(error) => {
                assert_eq!(error.kind(), StorageErrorKind::Full);
                full += 1;
                assert_eq!(store.inspect(id(n)).await.unwrap(), None);
            }
        }
    }
    assert!(full > 0 && !owners.is_empty());
    let (n, owner) = owners[0];
    let outcome = Bytes::from(vec![7; 100_000]);
    let error = store.complete(id(n), &owner, &outcome, HOUR).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Full);
    limit("PRAGMA max_page_count = 10000").await.unwrap();
    assert_eq!(
        store.complete(id(n), &owner, &outcome, HOUR).await.unwrap(),
        Completed::Applied
    );
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_an_error_and_never_a_free_key() {
    let folder = Folder::new();
    let clock = Arc::new(AtomicU64::new(1_000));
    let store = store(&folder, &clock).await;
    let claim = first_claim(KEPT, HOUR);
    store.claim(id(1), &claim).await.unwrap();
    let damage = |turn: &Turn<'_>| {
        Ok(turn
            .connection
            .execute("UPDATE steadfast_idempotency SET claim_id = x'00'", [])?)
    };
    store.storage.call(Terms::default(), damage).await.unwrap();
    let error = store.claim(id(1), &claim).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt);
}
