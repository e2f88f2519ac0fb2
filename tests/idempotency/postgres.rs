//! Records in PostgreSQL, on a real server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use proptest::prelude::*;
use steadfast::KeyId;
use steadfast::idempotency::store::{
    Claim, ClaimId, Claimed, Completed, Ended, Face, Mode, Origin, Outcome, Owner, Record, Renewed, Resolution, Status,
    Step, Store, Write,
};
use steadfast::idempotency::{Fingerprint, PostgresStore};
use steadfast::storage::deadpool_postgres::Pool;
use steadfast::storage::{PostgresStorage, StorageErrorKind};
use steadfast::testing::idempotency::conformance;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::support::postgres::Database;

const HOUR: Duration = Duration::from_secs(3600);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A key that no test has had.
fn fresh() -> KeyId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    KeyId::from_bytes(bytes)
}

fn claim_id(number: u8) -> ClaimId {
    ClaimId::from_bytes([number; 16])
}

fn claim_by(number: u8, lease: Duration) -> Claim {
    Claim {
        claim_id: claim_id(number),
        fingerprint: Fingerprint::of_parts(&[b"request"]),
        mode: Mode::AtLeastOnce { retention: 24 * HOUR },
        lease,
        origin: Origin::new(Face::Call, &number.to_string()),
    }
}

fn owned(claimed: Claimed) -> Owner {
    match claimed {
        Claimed::Owned { owner, .. } => owner,
        other => panic!("{other:?}"),
    }
}

async fn in_progress(store: &PostgresStore, id: KeyId, number: u8) -> Owner {
    owned(store.claim(id, &claim_by(number, HOUR)).await.unwrap())
}

#[derive(Clone, Debug)]
enum Operation {
    Claim {
        claim: u8,
        request: u8,
        lease: Duration,
        retention: Option<Duration>,
    },
    Complete(u8, Duration),
    Renew(u8, Duration, Option<u8>),
    Release(u8),
    Interrupt(u8),
    Cancel,
    Resolve(Resolution),
    Forget,
    Purge,
}

fn operation() -> impl Strategy<Value = (usize, Operation)> {
    let time = || prop_oneof![Just(Duration::ZERO), Just(HOUR)];
    let claim = || 1..4_u8;
    let operation = prop_oneof![
        6 => (claim(), 0..2_u8, time(), proptest::option::weighted(0.7, time())).prop_map(
            |(claim, request, lease, retention)| Operation::Claim { claim, request, lease, retention }
        ),
        3 => (claim(), time()).prop_map(|(claim, retention)| Operation::Complete(claim, retention)),
        3 => (claim(), time(), proptest::option::of(any::<u8>()))
            .prop_map(|(claim, lease, checkpoint)| Operation::Renew(claim, lease, checkpoint)),
        2 => claim().prop_map(Operation::Release),
        2 => claim().prop_map(Operation::Interrupt),
        1 => Just(Operation::Cancel),
        1 => Just(Operation::Resolve(Resolution::NotExecuted)),
        1 => time().prop_map(|retention| {
            let outcome = Bytes::from_static(b"found");
            Operation::Resolve(Resolution::Completed { outcome, retention })
        }),
        1 => time().prop_map(|retention| {
            let outcome = Bytes::from_static(b"corrected");
            Operation::Resolve(Resolution::Corrected { outcome, retention })
        }),
        1 => Just(Operation::Forget),
        1 => Just(Operation::Purge),
    ];
    (0..2_usize, operation)
}

/// The model's time, which never passes: all of its leases and retentions are nothing or an hour.
const NOW: Duration = Duration::from_secs(1_000_000);

/// What the store has to do: the pure transitions on a map.
#[derive(Default)]
struct Model {
    records: HashMap<KeyId, Record>,
    owners: HashMap<(KeyId, u8), Owner>,
    /// The largest fence each key has had.
    fences: HashMap<KeyId, u64>,
}

impl Model {
    fn step<A>(&mut self, id: KeyId, step: impl FnOnce(Option<&Record>) -> Step<A>) -> A {
        let step = step(self.records.get(&id));
        match step.write {
            Write::Keep => {}
            Write::Put(record) => drop(self.records.insert(id, record)),
            Write::Delete => drop(self.records.remove(&id)),
        }
        step.answer
    }

    /// As who the caller `number` writes: as it was told, or, where it never had the key, as nobody.
    fn owner(&self, id: KeyId, number: u8) -> Owner {
        let stranger = Owner {
            claim_id: claim_id(number),
            fence: 1,
            attempt: 1,
            fingerprint: Fingerprint::of_parts(&[b"request", &[0]]),
        };
        *self.owners.get(&(id, number)).unwrap_or(&stranger)
    }
}

/// Times in hours from now: the database's minutes pass, the model's do not.
fn hours(time: Duration, now: Duration) -> u64 {
    (time.saturating_sub(now).as_secs() + 1800) / 3600
}

fn in_hours(record: &Record, now: Duration) -> Record {
    let hours = |time| Duration::from_secs(hours(time, now));
    let mut record = record.clone();
    match &mut record {
        Record::InProgress {
            lease_until,
            expires_at,
            ..
        } => {
            *lease_until = hours(*lease_until);
            *expires_at = expires_at.map(hours);
        }
        Record::Completed { expires_at, .. } => *expires_at = hours(*expires_at),
        Record::Cancelled { .. } => {}
    }
    record
}

async fn agree(store: &PostgresStore, model: &mut Model, id: KeyId, operation: &Operation) {
    let outcome = Bytes::from_static(b"outcome");
    match operation {
        Operation::Claim {
            claim,
            request,
            lease,
            retention,
        } => {
            let number = *claim;
            let claim = Claim {
                claim_id: claim_id(number),
                fingerprint: Fingerprint::of_parts(&[b"request", &[*request]]),
                mode: retention.map_or(Mode::AtMostOnce, |retention| Mode::AtLeastOnce { retention }),
                lease: *lease,
                origin: Origin::new(Face::Http, &number.to_string()),
            };
            let mut answer = store.claim(id, &claim).await.unwrap();
            // The store chooses the fence; the model checks that it may be this one.
            let last = model.fences.get(&id).copied().unwrap_or(0);
            let fence = match &answer {
                Claimed::Owned { owner, .. } => owner.fence,
                _ => u64::MAX - 1,
            };
            let expected = model.step(id, |record| Record::claim(record, &claim, NOW, fence));
            if let Claimed::InProgress { lease_left } = &mut answer {
                *lease_left = Duration::from_secs(hours(*lease_left, Duration::ZERO) * 3600);
            }
            assert_eq!(answer, expected);
            if let Claimed::Owned { owner, .. } = answer {
                let known = model.owners.insert((id, number), owner);
                let resent = known.is_some_and(|known| known.fence == owner.fence);
                assert!(
                    owner.fence > last || (resent && owner.fence == last),
                    "fence {} after {last}",
                    owner.fence
                );
                model.fences.insert(id, owner.fence);
            }
        }
        Operation::Complete(number, retention) => {
            let owner = model.owner(id, *number);
            let answer = store.complete(id, &owner, &outcome, *retention).await.unwrap();
            let expected = model.step(id, |record| Record::complete(record, &owner, &outcome, *retention, NOW));
            assert_eq!(answer, expected);
        }
        Operation::Renew(number, lease, checkpoint) => {
            let owner = model.owner(id, *number);
            let checkpoint = checkpoint.map(|byte| Bytes::from(vec![byte]));
            let answer = store.renew(id, &owner, *lease, checkpoint.as_ref()).await.unwrap();
            let expected = model.step(id, |record| {
                Record::renew(record, &owner, *lease, checkpoint.as_ref(), NOW)
            });
            assert_eq!(answer, expected);
        }
        Operation::Release(number) => {
            let owner = model.owner(id, *number);
            let answer = store.release(id, &owner).await.unwrap();
            assert_eq!(answer, model.step(id, |record| Record::release(record, &owner, NOW)));
        }
        Operation::Interrupt(number) => {
            let owner = model.owner(id, *number);
            let answer = store.interrupt(id, &owner).await.unwrap();
            assert_eq!(answer, model.step(id, |record| Record::interrupt(record, &owner, NOW)));
        }
        Operation::Cancel => {
            let mut answer = store.cancel(id).await.unwrap();
            if let steadfast::idempotency::store::Cancellation::InProgress { lease_left } = &mut answer {
                *lease_left = Duration::from_secs(hours(*lease_left, Duration::ZERO) * 3600);
            }
            assert_eq!(answer, model.step(id, |record| Record::cancel(record, NOW)));
        }
        Operation::Resolve(resolution) => {
            let answer = store.resolve(id, resolution).await.unwrap();
            assert_eq!(
                answer,
                model.step(id, |record| Record::resolve(record, resolution, NOW))
            );
        }
        Operation::Forget => {
            let answer = store.forget(id).await.unwrap();
            assert_eq!(answer, model.step(id, |record| Record::forget(record, NOW)));
        }
        Operation::Purge => {
            store.purge(100).await.unwrap();
            model
                .records
                .retain(|_, record| Record::live(Some(record), NOW).is_some());
        }
    }
    let found = store.inspect(id).await.unwrap();
    let found = found.map(|inspected| in_hours(&inspected.record, inspected.now));
    let expected = Record::live(model.records.get(&id), NOW).map(|record| in_hours(record, NOW));
    assert_eq!(found, expected, "after {operation:?}");
}

#[test]
fn every_history_is_the_one_of_the_pure_transitions() {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(Database::new("histories")) else {
        return;
    };
    let store = runtime.block_on(database.store(4));
    let cases = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(history in proptest::collection::vec(operation(), 1..40))| {
        let ids = [fresh(), fresh()];
        let mut model = Model::default();
        runtime.block_on(async {
            for (key, operation) in &history {
                agree(&store, &mut model, ids[*key], operation).await;
            }
        });
    });
}

#[tokio::test]
async fn what_never_ends_is_a_hundred_years_away() {
    let Some(database) = Database::new("for_ever").await else {
        return;
    };
    let store = database.store(1).await;
    let id = fresh();
    let claim = Claim {
        mode: Mode::AtLeastOnce {
            retention: Duration::MAX,
        },
        ..claim_by(1, Duration::MAX)
    };
    let owner = owned(store.claim(id, &claim).await.unwrap());
    assert_eq!(
        store.renew(id, &owner, Duration::MAX, None).await.unwrap(),
        Renewed::Renewed
    );
    let found = store.inspect(id).await.unwrap().unwrap();
    assert_eq!(found.status(), Status::InProgress);
    assert!(found.expires_in().unwrap() > 199 * 365 * 24 * HOUR);
    let outcome = Bytes::from_static(b"outcome");
    assert_eq!(
        store.complete(id, &owner, &outcome, Duration::MAX).await.unwrap(),
        Completed::Applied
    );
    assert!(store.inspect(id).await.unwrap().unwrap().expires_in().unwrap() > 99 * 365 * 24 * HOUR);
}

#[tokio::test]
async fn interrupted_operations_are_listed_by_key_and_counted() {
    let Some(database) = Database::new("interrupted").await else {
        return;
    };
    let store = database.store(2).await;
    let mut interrupted = Vec::new();
    for number in 0..10 {
        let id = fresh();
        let lease = if number % 2 == 0 { Duration::ZERO } else { HOUR };
        owned(store.claim(id, &claim_by(1, lease)).await.unwrap());
        if lease.is_zero() {
            interrupted.push(id);
        }
    }
    // Interrupted and expired: not there.
    let expired = Claim {
        mode: Mode::AtLeastOnce {
            retention: Duration::ZERO,
        },
        ..claim_by(1, Duration::ZERO)
    };
    owned(store.claim(fresh(), &expired).await.unwrap());
    assert_eq!(store.count_interrupted().await.unwrap(), 5);
    let mut listed = Vec::new();
    loop {
        let page = store.list_interrupted(listed.last().copied(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        for (id, inspected) in page {
            assert_eq!(inspected.status(), Status::Interrupted);
            listed.push(id);
        }
    }
    assert_eq!(listed, interrupted);
}

/// Each handle has a pool of its own, as another process has.
async fn conforms(database: &Database) -> usize {
    drop(database.store(1).await);
    let open = || async { PostgresStore::new(&PostgresStorage::new(database.pool(8))) };
    conformance(open).await
}

async fn conforms_prepared(database: &Database) -> usize {
    drop(database.store(1).await);
    let open = || async { PostgresStore::new(&PostgresStorage::new(database.pool(8)).prepared()) };
    conformance(open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_prepared_statements_conforms() {
    let Some(database) = Database::new("conformance_prepared").await else {
        return;
    };
    conforms_prepared(&database).await;
}

/// The handles share a server's connections, on which none of them finds what it has prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_prepared_statements_conforms_also_where_connections_are_no_sessions() {
    let Some(database) = Database::behind_pgbouncer("conformance_unprepared").await else {
        return;
    };
    conforms_prepared(&database).await;
}

/// How many of the store's statements the connection that `pool` gives has prepared.
async fn prepared(pool: &Pool) -> i64 {
    let sql = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT steadfast.idempotency%'";
    let rows = pool.get().await.unwrap().query_typed(sql, &[]).await.unwrap();
    rows[0].get(0)
}

#[tokio::test]
async fn what_happens_most_is_prepared_where_that_was_asked_for_until_a_statement_is_lost() {
    let Some(database) = Database::new("prepared").await else {
        return;
    };
    drop(database.store(1).await);
    let pool = database.pool(1);
    let once = async |store: &PostgresStore| {
        let id = fresh();
        let owner = in_progress(store, id, 1).await;
        let completed = store.complete(id, &owner, &Bytes::from_static(b"done"), HOUR).await;
        assert_eq!(completed.unwrap(), Completed::Applied);
    };
    let unprepared = PostgresStore::new(&PostgresStorage::new(pool.clone()));
    // The first connection is kept in reserve.
    once(&unprepared).await;
    once(&unprepared).await;
    assert_eq!(prepared(&pool).await, 0);
    let store = PostgresStore::new(&unprepared.storage().clone().prepared());
    once(&store).await;
    once(&store).await;
    assert_eq!(prepared(&pool).await, 2);
    pool.get().await.unwrap().batch_execute("DEALLOCATE ALL").await.unwrap();
    once(&store).await;
    once(&store).await;
    assert_eq!(prepared(&pool).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_conforms() {
    let Some(database) = Database::new("conformance").await else {
        return;
    };
    println!("figure: conformance cases, PostgreSQL: {}", conforms(&database).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_conforms_behind_pgbouncer() {
    let Some(database) = Database::behind_pgbouncer("conformance_pgbouncer").await else {
        return;
    };
    println!("figure: conformance cases, PgBouncer: {}", conforms(&database).await);
}

/// `clients` claim the same key at the same time; how many own it, and what the others are told.
async fn race(store: &PostgresStore, id: KeyId, clients: u8, lease: Duration) -> (Vec<Owner>, Vec<Claimed>) {
    let start = Arc::new(tokio::sync::Barrier::new(usize::from(clients)));
    let claims = (1..=clients).map(|number| {
        let (store, start) = (store.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            store.claim(id, &claim_by(number, lease)).await.unwrap()
        })
    });
    let (mut owners, mut others) = (Vec::new(), Vec::new());
    for claimed in join_all(claims).await {
        match claimed.unwrap() {
            Claimed::Owned { owner, .. } => owners.push(owner),
            other => others.push(other),
        }
    }
    (owners, others)
}

async fn a_fresh_key_has_one_owner(database: &Database, clients: u8, keys: usize) {
    let store = database.store(usize::from(clients)).await;
    for _ in 0..keys {
        let (owners, others) = race(&store, fresh(), clients, HOUR).await;
        assert_eq!(owners.len(), 1);
        for other in others {
            assert!(matches!(other, Claimed::InProgress { .. }), "{other:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_key_has_one_owner_among_32_connections() {
    let Some(database) = Database::new("fresh").await else {
        return;
    };
    a_fresh_key_has_one_owner(&database, 32, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_key_has_one_owner_behind_pgbouncer() {
    let Some(database) = Database::behind_pgbouncer("pgbouncer").await else {
        return;
    };
    a_fresh_key_has_one_owner(&database, 32, 20).await;
    // Nothing of it is left on the connections that the clients have shared.
    let pool = database.pool(16);
    let settings = (0..64).map(|_| async {
        let sql = "SELECT current_setting('lock_timeout') || ' ' || current_setting('synchronous_commit')";
        let rows = pool.get().await.unwrap().query_typed(sql, &[]).await.unwrap();
        rows[0].get::<_, String>(0)
    });
    for settings in join_all(settings).await {
        assert_eq!(settings, "0 on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serialization_failures_are_run_again() {
    let Some(database) = Database::new("serializable").await else {
        return;
    };
    database
        .execute("ALTER DATABASE steadfast_serializable SET default_transaction_isolation = 'serializable'")
        .await;
    a_fresh_key_has_one_owner(&database, 16, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_has_expired_is_given_to_nobody() {
    let Some(database) = Database::new("expired").await else {
        return;
    };
    let store = database.store(16).await;
    let (yesterday, today) = (Bytes::from_static(b"yesterday"), Bytes::from_static(b"today"));
    for _ in 0..200 {
        let id = fresh();
        let owner = in_progress(&store, id, 200).await;
        store.complete(id, &owner, &yesterday, Duration::ZERO).await.unwrap();
        let clients = (1..=16).map(|number| {
            let (store, today) = (store.clone(), today.clone());
            tokio::spawn(async move {
                let claimed = store.claim(id, &claim_by(number, HOUR)).await.unwrap();
                if let Claimed::Owned { owner, .. } = &claimed {
                    let completed = store.complete(id, owner, &today, HOUR).await.unwrap();
                    assert_eq!(completed, Completed::Applied);
                }
                claimed
            })
        });
        let mut owners = 0;
        for claimed in join_all(clients).await {
            match claimed.unwrap() {
                Claimed::Owned { owner, .. } => {
                    assert_eq!(owner.attempt, 1);
                    owners += 1;
                }
                Claimed::Completed { outcome, .. } => assert_eq!(outcome, Outcome(today.clone())),
                Claimed::InProgress { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(owners, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_take_over_one_does() {
    let Some(database) = Database::new("takeover").await else {
        return;
    };
    let store = database.store(8).await;
    for _ in 0..50 {
        let id = fresh();
        let crashed = owned(store.claim(id, &claim_by(200, Duration::ZERO)).await.unwrap());
        let (owners, _) = race(&store, id, 8, HOUR).await;
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[0].attempt, 2);
        assert!(owners[0].fence > crashed.fence);
        let late = store.complete(id, &crashed, &Bytes::new(), HOUR).await.unwrap();
        assert_eq!(late, Completed::Lost);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_is_sent_twice_at_once_is_applied_once() {
    let Some(database) = Database::new("twice").await else {
        return;
    };
    let store = database.store(2).await;
    for _ in 0..50 {
        let id = fresh();
        let owner = in_progress(&store, id, 1).await;
        let outcome = Bytes::from_static(b"outcome");
        let (one, other) = tokio::join!(
            store.complete(id, &owner, &outcome, HOUR),
            store.complete(id, &owner, &outcome, HOUR)
        );
        let mut both = [one.unwrap(), other.unwrap()];
        both.sort_by_key(|completed| *completed != Completed::Applied);
        assert_eq!(both, [Completed::Applied, Completed::AlreadyApplied]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_that_meet_delete_what_has_expired_and_nothing_else() {
    let Some(database) = Database::new("purge").await else {
        return;
    };
    let store = database.store(8).await;
    let expired: Vec<KeyId> = (0..300).map(|_| fresh()).collect();
    for id in &expired {
        let owner = in_progress(&store, *id, 1).await;
        store
            .complete(*id, &owner, &Bytes::new(), Duration::ZERO)
            .await
            .unwrap();
    }
    let kept = fresh();
    let at_most_once = Claim {
        mode: Mode::AtMostOnce,
        ..claim_by(1, Duration::ZERO)
    };
    owned(store.claim(kept, &at_most_once).await.unwrap());

    let purge = |store: PostgresStore| async move {
        let mut purged = 0;
        for _ in 0..60 {
            let batch = store.purge(10).await.unwrap();
            assert!(batch <= 10);
            purged += batch;
        }
        purged
    };
    // Meanwhile every third key is claimed again.
    let claims = async {
        for id in expired.iter().step_by(3) {
            in_progress(&store, *id, 2).await;
        }
    };
    let (one, other, ()) = tokio::join!(
        tokio::spawn(purge(store.clone())),
        tokio::spawn(purge(store.clone())),
        claims
    );
    let purged = one.unwrap() + other.unwrap();
    assert!((200..=300).contains(&purged), "{purged}");
    for (at, id) in expired.iter().enumerate() {
        let found = store.inspect(*id).await.unwrap();
        assert_eq!(found.is_some(), at % 3 == 0, "{at}");
    }
    assert_eq!(
        store.inspect(kept).await.unwrap().unwrap().status(),
        Status::Interrupted
    );
    let rows: i64 = database
        .client()
        .await
        .query_one("SELECT count(*) FROM steadfast.idempotency", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 101);
}

#[tokio::test]
async fn a_purge_with_nothing_to_do_reads_an_index_and_no_row() {
    let Some(database) = Database::new("idle_purge").await else {
        return;
    };
    drop(database.store(1).await);
    database
        .execute(
            "INSERT INTO steadfast.idempotency (id, state, claim_id, fence, attempt, fingerprint, expires_at, outcome)
             SELECT sha256(n::text::bytea), 2, '', n, 1, '', now() + interval '1 day', '' FROM generate_series(1, 20000) n;
             ANALYZE steadfast.idempotency",
        )
        .await;
    let client = database.client().await;
    let scans = "SELECT coalesce(sum(seq_scan + seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint, \
                 (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'idempotency_completed') \
                 FROM pg_stat_user_tables WHERE relname = 'idempotency'";
    let before = client.query_one(scans, &[]).await.unwrap();
    {
        let store = database.store(1).await;
        assert_eq!(store.purge(100).await.unwrap(), 0);
    }
    // What a connection has read is counted when it ends.
    let deadline = Instant::now() + Duration::from_secs(20);
    let after = loop {
        let after = client.query_one(scans, &[]).await.unwrap();
        if after.get::<_, i64>(2) > before.get::<_, i64>(2) {
            break after;
        }
        assert!(Instant::now() < deadline, "the index was not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(after.get::<_, i64>(0), before.get::<_, i64>(0), "the table was read");
    assert_eq!(after.get::<_, i64>(1), before.get::<_, i64>(1), "rows were fetched");
}

#[tokio::test]
async fn tables_that_are_missing_are_an_error_that_names_migrate() {
    let Some(database) = Database::new("unmigrated").await else {
        return;
    };
    let store = PostgresStore::new(&PostgresStorage::new(database.pool(1)));
    let error = store.claim(fresh(), &claim_by(1, HOUR)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    assert!(error.to_string().contains("migrate()"), "{error}");
}

#[tokio::test]
async fn migrations_that_meet_run_each_step_once() {
    let Some(database) = Database::new("migrations").await else {
        return;
    };
    let storage = PostgresStorage::new(database.pool(8));
    let stores: Vec<_> = (0..8).map(|_| PostgresStore::new(&storage)).collect();
    for migrated in join_all(stores.iter().map(PostgresStore::migrate)).await {
        migrated.unwrap();
    }
    in_progress(&stores[0], fresh(), 1).await;
    let noted = database
        .client()
        .await
        .query("SELECT component, version, checksum FROM steadfast.migrations", &[])
        .await;
    let noted = noted.unwrap();
    assert_eq!(noted.len(), PostgresStore::migrations().len());
    assert_eq!(noted[0].get::<_, String>(2), PostgresStore::migrations()[0].checksum());
}

#[tokio::test]
async fn the_printed_script_does_what_migrate_does() {
    let Some(database) = Database::new("script").await else {
        return;
    };
    database.execute(&PostgresStore::migration_script()).await;
    // Who only uses the tables needs no right to make any.
    let store = PostgresStore::new(&PostgresStorage::new(database.pool(1)));
    database
        .execute(
            "DROP ROLE IF EXISTS steadfast_user; CREATE ROLE steadfast_user LOGIN;
             GRANT USAGE ON SCHEMA steadfast TO steadfast_user;
             GRANT SELECT, INSERT, UPDATE, DELETE ON steadfast.migrations, steadfast.idempotency TO steadfast_user;
             GRANT USAGE ON SEQUENCE steadfast.idempotency_fence TO steadfast_user",
        )
        .await;
    store.migrate().await.unwrap();
    let mut config = database.config.clone();
    config.user("steadfast_user");
    let user = Database {
        direct: config.clone(),
        config,
    };
    let store = user.store(1).await;
    in_progress(&store, fresh(), 1).await;
}

#[tokio::test]
async fn a_schema_of_the_next_version_will_do_and_others_are_refused() {
    let Some(database) = Database::new("versions").await else {
        return;
    };
    let store = database.store(1).await;
    let last = PostgresStore::migrations().len();
    let note = |version| format!("INSERT INTO steadfast.migrations VALUES ('idempotency', {version}, '')");
    database.execute(&note(last + 1)).await;
    store.migrate().await.unwrap();
    database.execute(&note(last + 2)).await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated, "{error}");
    database
        .execute("DELETE FROM steadfast.migrations WHERE version > 1")
        .await;
    database
        .execute("UPDATE steadfast.migrations SET checksum = 'other'")
        .await;
    let error = store.migrate().await.unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[tokio::test]
async fn a_database_that_may_only_be_read_refuses() {
    let Some(database) = Database::new("read_only").await else {
        return;
    };
    drop(database.store(1).await);
    database
        .execute("ALTER DATABASE steadfast_read_only SET default_transaction_read_only = on")
        .await;
    let store = PostgresStore::new(&PostgresStorage::new(database.pool(1)));
    let error = store.claim(fresh(), &claim_by(1, HOUR)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused, "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("postgres://nobody:secret@{closed}/nothing");
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    let error = PostgresStore::connect("host=x password=my secret").await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Refused);
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

/// A transaction that holds the row of a fresh key, as somebody's `once_in_postgres_tx` does.
async fn hold(database: &Database, id: KeyId) -> steadfast::storage::tokio_postgres::Client {
    let client = database.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    let hold = "INSERT INTO steadfast.idempotency (id, state, claim_id, fence, attempt, fingerprint, lease_until) \
                VALUES ($1, 1, '', 1, 1, '', now())";
    client.execute(hold, &[&&id.as_bytes()[..]]).await.unwrap();
    client
}

async fn waiting_for_a_lock(database: &Database) -> i32 {
    let client = database.client().await;
    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(row) = client.query_opt(waiting, &[]).await.unwrap() {
            return row.get(0);
        }
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_claim_whose_connection_was_cut_can_be_sent_again() {
    let Some(database) = Database::new("cut").await else {
        return;
    };
    let store = database.store(2).await;
    let id = fresh();
    let holder = hold(&database, id).await;
    let cut = async {
        let pid = waiting_for_a_lock(&database).await;
        let client = database.client().await;
        client
            .execute("SELECT pg_terminate_backend($1)", &[&pid])
            .await
            .unwrap();
    };
    let claim = claim_by(1, HOUR);
    let (claimed, ()) = tokio::join!(store.claim(id, &claim), cut);
    let error = claimed.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    let owner = owned(store.claim(id, &claim).await.unwrap());
    // Its reply lost: sent again it finds itself.
    assert_eq!(owned(store.claim(id, &claim).await.unwrap()), owner);
}

#[tokio::test]
async fn a_claim_of_a_key_in_an_open_transaction_is_in_progress() {
    let Some(database) = Database::new("open").await else {
        return;
    };
    let store = database.store(1).await;
    let id = fresh();
    let holder = hold(&database, id).await;
    let started = Instant::now();
    let claim = claim_by(1, HOUR);
    let claimed = tokio::time::timeout(Duration::from_secs(20), store.claim(id, &claim)).await;
    let claimed = claimed.expect("it does not wait for ever").unwrap();
    assert!(matches!(claimed, Claimed::InProgress { .. }), "{claimed:?}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    holder.batch_execute("ROLLBACK").await.unwrap();
    in_progress(&store, id, 1).await;
}

#[tokio::test]
async fn a_call_that_was_given_up_leaves_no_connection_in_use() {
    let Some(database) = Database::new("given_up").await else {
        return;
    };
    let store = database.store(1).await;
    let id = fresh();
    let _holder = hold(&database, id).await;
    let claim = claim_by(1, HOUR);
    let given_up = async {
        tokio::select! {
            claimed = store.claim(id, &claim) => panic!("{claimed:?}"),
            _ = waiting_for_a_lock(&database) => {}
        }
    };
    given_up.await;
    let started = Instant::now();
    in_progress(&store, fresh(), 1).await;
    assert!(
        started.elapsed() < Duration::from_millis(1500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_renewal_needs_no_connection_of_the_pool() {
    let Some(database) = Database::new("renewals").await else {
        return;
    };
    let pool = database.pool(2);
    let store = PostgresStore::new(&PostgresStorage::new(pool.clone()));
    store.migrate().await.unwrap();
    let id = fresh();
    let owner = in_progress(&store, id, 1).await;
    let all = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(store.renew(id, &owner, HOUR, None).await.unwrap(), Renewed::Renewed);
    drop(all);
    // Its connection is cut: the next renewal or the one after it has another.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.client().await.query(kill, &[]).await.unwrap();
    let mut renewed = store.renew(id, &owner, HOUR, None).await;
    for _ in 0..3 {
        if renewed.is_ok() {
            break;
        }
        renewed = store.renew(id, &owner, HOUR, None).await;
    }
    assert_eq!(renewed.unwrap(), Renewed::Renewed);
}

#[tokio::test]
async fn every_write_is_durable_whatever_the_default_is() {
    let Some(database) = Database::new("durable").await else {
        return;
    };
    drop(database.store(1).await);
    // What was set when the transaction ended.
    database
        .execute(
            "ALTER DATABASE steadfast_durable SET synchronous_commit = off;
             CREATE TABLE ended (operation text, durable text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO ended VALUES (TG_OP, current_setting('synchronous_commit')); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON steadfast.idempotency
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    let store = database.store(1).await;
    let outcome = Bytes::from_static(b"outcome");
    let (completed, released, interrupted, cancelled) = (fresh(), fresh(), fresh(), fresh());
    let owner = in_progress(&store, completed, 1).await;
    store.renew(completed, &owner, HOUR, None).await.unwrap();
    store.complete(completed, &owner, &outcome, HOUR).await.unwrap();
    store.forget(completed).await.unwrap();
    let owner = in_progress(&store, released, 1).await;
    assert_eq!(store.release(released, &owner).await.unwrap(), Ended::Released);
    for not_executed in [true, false] {
        let owner = in_progress(&store, interrupted, 1).await;
        assert_eq!(store.interrupt(interrupted, &owner).await.unwrap(), Ended::Interrupted);
        let resolution = if not_executed {
            Resolution::NotExecuted
        } else {
            let outcome = outcome.clone();
            Resolution::Completed {
                outcome,
                retention: HOUR,
            }
        };
        store.resolve(interrupted, &resolution).await.unwrap();
    }
    store.cancel(cancelled).await.unwrap();
    let ended = database
        .client()
        .await
        .query("SELECT operation, durable FROM ended", &[])
        .await
        .unwrap();
    assert_eq!(ended.len(), 13);
    for row in ended {
        assert_eq!(row.get::<_, String>(1), "on", "{}", row.get::<_, String>(0));
    }
}

/// In how many transactions the rows of the table were written last.
async fn transactions(database: &Database) -> i64 {
    let count = "SELECT count(DISTINCT xmin::text) FROM steadfast.idempotency";
    database.client().await.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_goes_together_has_the_answers_that_each_has_alone() {
    let Some(database) = Database::new("together").await else {
        return;
    };
    let store = database.store(1).await;
    let ids: Vec<KeyId> = (0..40).map(|_| fresh()).collect();
    let claim_of = |n: usize| Claim {
        mode: if n % 2 == 0 {
            Mode::AtMostOnce
        } else {
            claim_by(1, HOUR).mode
        },
        ..claim_by(1, HOUR)
    };
    // Each key twice, by the same claim and by another.
    let (store, ids) = (&store, &ids);
    let claims = (0..80).map(|n| async move {
        let claim = Claim {
            claim_id: if n % 3 == 0 {
                claim_id(1)
            } else {
                claim_id(u8::from(n >= 40) + 1)
            },
            ..claim_of(n % 40)
        };
        store.claim(ids[n % 40], &claim).await.unwrap()
    });
    let claimed = join_all(claims).await;
    let mut owners = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let owner = match (&claimed[n], &claimed[n + 40]) {
            (Claimed::Owned { owner, .. }, Claimed::Owned { owner: again, .. }) => {
                assert_eq!(owner, again, "{n}");
                *owner
            }
            (Claimed::Owned { owner, .. }, Claimed::InProgress { .. })
            | (Claimed::InProgress { .. }, Claimed::Owned { owner, .. }) => *owner,
            other => panic!("{n}: {other:?}"),
        };
        let found = store.inspect(*id).await.unwrap().unwrap();
        let Record::InProgress {
            owner: stored,
            expires_at,
            ..
        } = found.record
        else {
            panic!("{n}");
        };
        assert_eq!((stored, expires_at.is_none()), (owner, n % 2 == 0), "{n}");
        owners.push(owner);
    }
    assert!(transactions(&database).await < 30, "few went together");
    // Overtaken, closed, purged.
    let sql = format!(
        "UPDATE steadfast.idempotency SET claim_id = '\\x{}' WHERE id = ",
        "07".repeat(16)
    );
    database.execute(&format!("{sql}'\\x{}'", ids[0])).await;
    let sql = "UPDATE steadfast.idempotency SET state = 3, claim_id = NULL, expires_at = NULL WHERE id = ";
    database.execute(&format!("{sql}'\\x{}'", ids[1])).await;
    database
        .execute(&format!("DELETE FROM steadfast.idempotency WHERE id = '\\x{}'", ids[2]))
        .await;
    let sql = "UPDATE steadfast.idempotency SET expires_at = now(), claim_id = '' WHERE id = ";
    database.execute(&format!("{sql}'\\x{}'", ids[3])).await;
    let owners = &owners;
    // Each twice.
    let completions = (0..80).map(|n| async move {
        let outcome = Bytes::from(vec![7; n % 40 % 3]);
        store
            .complete(ids[n % 40], &owners[n % 40], &outcome, HOUR)
            .await
            .unwrap()
    });
    let completed = join_all(completions).await;
    for (n, id) in ids.iter().enumerate() {
        let answers = [completed[n], completed[n + 40]];
        if n < 2 {
            assert_eq!(answers, [Completed::Lost; 2], "{n}");
            continue;
        }
        assert!(answers.contains(&Completed::Applied), "{n}: {answers:?}");
        assert!(answers.contains(&Completed::AlreadyApplied), "{n}: {answers:?}");
        let found = store.inspect(*id).await.unwrap().unwrap();
        let Record::Completed { owner, outcome, .. } = found.record else {
            panic!("{n}");
        };
        assert_eq!((owner, outcome.len()), (owners[n], n % 3), "{n}");
    }
    assert!(transactions(&database).await < 30, "few went together");
}

#[tokio::test]
async fn a_row_that_is_locked_holds_up_whom_it_is_about() {
    let Some(database) = Database::new("locked").await else {
        return;
    };
    let store = database.store(4).await;
    let first: Vec<KeyId> = (0..30).map(|_| fresh()).collect();
    let locked = fresh();
    let holder = hold(&database, locked).await;
    let started = Instant::now();
    let claim = claim_by(1, HOUR);
    let others = async {
        for claimed in join_all(first.iter().map(|id| store.claim(*id, &claim))).await {
            owned(claimed.unwrap());
        }
        started.elapsed()
    };
    let (others, about) = tokio::join!(others, store.claim(locked, &claim));
    assert!(others < Duration::from_secs(1), "{others:?}");
    assert!(matches!(about.unwrap(), Claimed::InProgress { .. }));
    holder.batch_execute("ROLLBACK").await.unwrap();
}
