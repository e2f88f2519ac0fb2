//! Sagas in PostgreSQL, on a real server.

mod histories;
mod proxy;
mod transactions;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use steadfast::KeyId;
use steadfast::saga::SagaId;
use steadfast::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, ClaimedOne, Created, DefinitionId, Entry, Hold, Journal, NewSaga,
    OwnerId, PostgresJournal, Prune, SUSPECT_AFTER, SagaStatus,
};
use steadfast::storage::tokio_postgres::Client;
use steadfast::storage::{PostgresStorage, StorageErrorKind};
use steadfast::testing::saga::conformance;
use tokio::time::Instant;

use crate::support::postgres::Database;

const HOUR: Duration = Duration::from_secs(3600);

async fn journal(database: &Database, connections: usize) -> PostgresJournal {
    let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(connections)));
    journal.migrate().await.unwrap();
    journal
}

fn owner(number: u8) -> OwnerId {
    OwnerId([number; 16])
}

fn definition(number: u8) -> DefinitionId {
    DefinitionId {
        name: format!("order {number}\0é"),
        version: u32::from(number / 2),
        // Two definitions of one fingerprint.
        fingerprint: [number / 3; 32],
    }
}

fn entry(number: u8) -> Entry {
    Entry {
        event: Bytes::from(vec![number, 0, 255]),
        context: (number % 2 == 0).then(|| Bytes::from(vec![number; usize::from(number)])),
    }
}

fn new_saga(number: u32) -> NewSaga {
    let [a, b, c, d] = number.to_be_bytes();
    let mut id = [0; 16];
    id[..4].copy_from_slice(&[a, b, c, d]);
    let mut key = [1; 32];
    key[..4].copy_from_slice(&[a, b, c, d]);
    NewSaga {
        id: SagaId::from_bytes(id),
        key: KeyId::from_bytes(key),
        input: [0; 32],
        definition: definition(0),
        deadline: None,
        lease: Some((owner(1), HOUR)),
        entries: vec![entry(0)],
        can_turn: true,
    }
}

fn append(id: SagaId, epoch: u64, seq: u64) -> Append {
    Append {
        id,
        epoch,
        seq,
        entries: vec![entry(1), entry(2)],
        status: SagaStatus::Running,
        can_turn: true,
        progress: true,
        hold: Hold::Keep(HOUR),
        error: None,
    }
}

fn claims(number: u8, limit: usize) -> ClaimQuery {
    ClaimQuery {
        owner: owner(number),
        lease: HOUR,
        definitions: vec![definition(0)],
        limit,
        suspects: 1,
    }
}

async fn created(journal: &PostgresJournal, new: &NewSaga) {
    assert_eq!(journal.create(new).await.unwrap(), Created::New);
}

/// A saga that is due: its owner's lease is over, or it has none.
fn due(number: u32) -> NewSaga {
    NewSaga {
        lease: (number % 2 == 0).then_some((owner(1), Duration::ZERO)),
        ..new_saga(number)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_meet_get_different_sagas_and_together_all_of_them() {
    let Some(database) = Database::new("saga_claims").await else {
        return;
    };
    let journal = journal(&database, 8).await;
    for number in 0..400 {
        created(&journal, &due(number)).await;
    }
    let claimers = (1..=8).map(|number| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut claimed = Vec::new();
            // As many as there are, by eight at a time and seven rounds each, with some to spare.
            for _ in 0..12 {
                let batch = journal.claim(&claims(number, 8)).await.unwrap();
                assert!(batch.len() <= 8);
                for claimed in &batch {
                    assert_eq!(claimed.head.owner, Some(owner(number)));
                    assert_eq!(claimed.head.epoch, if claimed.parked { 1 } else { 2 });
                }
                claimed.extend(batch.into_iter().map(|claimed| claimed.head.id));
            }
            claimed
        })
    });
    let mut all = Vec::new();
    for claimed in join_all(claimers).await {
        all.extend(claimed.unwrap());
    }
    let different: HashSet<_> = all.iter().copied().collect();
    assert_eq!((all.len(), different.len()), (400, 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_claim_one_saga_one_gets_it() {
    let Some(database) = Database::new("saga_claim_one").await else {
        return;
    };
    let journal = journal(&database, 8).await;
    for number in 0..40 {
        let new = due(number);
        created(&journal, &new).await;
        let claims = (1..=8).map(|number| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.claim_one(new.id, owner(number), HOUR).await.unwrap() })
        });
        let mut owners = 0;
        for claimed in join_all(claims).await {
            match claimed.unwrap() {
                ClaimedOne::Claimed(_) => owners += 1,
                other => assert_eq!(other, ClaimedOne::Busy),
            }
        }
        assert_eq!(owners, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_and_a_claim_exclude_each_other() {
    let Some(database) = Database::new("saga_fence").await else {
        return;
    };
    let journal = journal(&database, 4).await;
    let mut fenced = 0;
    for number in 0..100 {
        let new = NewSaga {
            lease: Some((owner(1), Duration::ZERO)),
            ..new_saga(number)
        };
        created(&journal, &new).await;
        let append = append(new.id, 1, 1);
        let (appended, claimed) = tokio::join!(journal.append(&append), journal.claim_one(new.id, owner(2), HOUR));
        let loaded = journal.load(new.id).await.unwrap().unwrap();
        match (appended.unwrap(), claimed.unwrap()) {
            (Appended::Written { .. }, ClaimedOne::Busy) => {
                assert_eq!(
                    (loaded.head.owner, loaded.head.epoch, loaded.entries.len()),
                    (Some(owner(1)), 1, 3)
                );
            }
            (Appended::Fenced, ClaimedOne::Claimed(_)) => {
                assert_eq!(
                    (loaded.head.owner, loaded.head.epoch, loaded.entries.len()),
                    (Some(owner(2)), 2, 1)
                );
                fenced += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("fenced {fenced} of 100");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creations_of_one_key_that_meet_make_one_saga() {
    let Some(database) = Database::new("saga_create").await else {
        return;
    };
    let journal = journal(&database, 8).await;
    for number in 0..30 {
        let creations = (0..8).map(|other| {
            let journal = journal.clone();
            // Two that are sent twice, and six others of the same key; the last with another input.
            let id = new_saga(number * 100 + u32::saturating_sub(other, 1)).id;
            let new = NewSaga {
                id,
                input: [u8::from(other == 7); 32],
                ..new_saga(number)
            };
            tokio::spawn(async move { (id, journal.create(&new).await.unwrap()) })
        });
        let created = join_all(creations).await;
        let created: Vec<_> = created.into_iter().map(Result::unwrap).collect();
        let winner = journal.find(new_saga(number).key).await.unwrap().unwrap();
        for (id, created) in created {
            let same = winner.input == [u8::from(id == new_saga(number * 100 + 6).id); 32];
            match created {
                Created::New => assert_eq!(id, winner.id),
                Created::Existing(head) => assert!(head.id == winner.id && same),
                Created::Conflict => assert!(!same),
            }
        }
        let loaded = journal.load(winner.id).await.unwrap().unwrap();
        assert_eq!(loaded.entries.len(), 1);
    }
}

/// Holds the row of a saga until it is dropped, as an operator's transaction may.
async fn hold(database: &Database, id: SagaId) -> Client {
    let client = database.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    let hold = "SELECT FROM steadfast.saga WHERE id = $1 FOR UPDATE";
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

/// Ends the connections of those whose statement this database is at when they commit.
///
/// A deferred trigger runs at the commit, when all is written; it waits there, and the connection is cut while the
/// commit goes on: the server does not look for a client before it answers.
#[tokio::test]
async fn an_append_whose_commit_was_not_heard_of_is_recognised() {
    let Some(database) = Database::new("saga_lost_reply").await else {
        return;
    };
    let journal = journal(&database, 2).await;
    let new = new_saga(1);
    created(&journal, &new).await;
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON steadfast.saga DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let gate = database.client().await;
    gate.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let append = append(new.id, 1, 1);
    {
        let appending = journal.append(&append);
        tokio::pin!(appending);
        tokio::select! {
            appended = &mut appending => panic!("{appended:?}"),
            _ = waiting_for_a_lock(&database) => {}
        }
        // Dropped, its connection is closed: nobody hears the answer.
    }
    gate.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while journal.load(new.id).await.unwrap().unwrap().head.seq == 1 {
        assert!(Instant::now() < deadline, "it is not carried out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    journal.request_cancel(new.id).await.unwrap();
    let before = journal.load(new.id).await.unwrap().unwrap();
    assert_eq!(
        journal.append(&append).await.unwrap(),
        Appended::Written { cancel: true }
    );
    let mut after = journal.load(new.id).await.unwrap().unwrap();
    after.now = before.now;
    assert_eq!(after, before);
    // And once another has claimed the saga: its events are there all the same.
    database.execute("UPDATE steadfast.saga SET due = now()").await;
    journal.claim_one(new.id, owner(2), HOUR).await.unwrap();
    assert_eq!(
        journal.append(&append).await.unwrap(),
        Appended::Written { cancel: true }
    );
    let other = Append {
        entries: vec![entry(1), entry(3)],
        ..append.clone()
    };
    assert_eq!(journal.append(&other).await.unwrap(), Appended::Fenced);
}

#[tokio::test]
async fn an_append_whose_connection_was_cut_is_sent_again() {
    let Some(database) = Database::new("saga_cut").await else {
        return;
    };
    let journal = journal(&database, 2).await;
    let new = new_saga(1);
    created(&journal, &new).await;
    let holder = hold(&database, new.id).await;
    let cut = async {
        let pid = waiting_for_a_lock(&database).await;
        let cut = "SELECT pg_terminate_backend($1)";
        database.client().await.execute(cut, &[&pid]).await.unwrap();
    };
    let append = append(new.id, 1, 1);
    let (appended, ()) = tokio::join!(journal.append(&append), cut);
    assert!(appended.unwrap_err().is_retryable());
    drop(holder);
    assert_eq!(
        journal.append(&append).await.unwrap(),
        Appended::Written { cancel: false }
    );
    assert_eq!(
        journal.append(&append).await.unwrap(),
        Appended::Written { cancel: false }
    );
    assert_eq!(journal.load(new.id).await.unwrap().unwrap().entries.len(), 3);
}

#[tokio::test]
async fn a_claim_passes_a_saga_that_is_locked_and_a_renewal_does_not_wait_for_long() {
    let Some(database) = Database::new("saga_locked").await else {
        return;
    };
    let journal = journal(&database, 2).await;
    for number in 0..3 {
        created(&journal, &due(number)).await;
    }
    let holder = hold(&database, new_saga(1).id).await;
    let claimed = journal.claim(&claims(2, 8)).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|claimed| claimed.head.id).collect();
    assert_eq!(ids, [new_saga(0).id, new_saga(2).id]);
    let _other = hold(&database, new_saga(0).id).await;
    let renewed = journal.renew(owner(2), HOUR, &[(new_saga(0).id, 2)]).await;
    let error = renewed.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    drop(holder);
}

/// The blocks that were read, in memory or not, by connections that have ended.
async fn blocks(database: &Database) -> i64 {
    let client = database.client().await;
    let blocks = "SELECT sum(coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0) + coalesce(idx_blks_read, 0)
        + coalesce(idx_blks_hit, 0))::bigint FROM pg_statio_user_tables WHERE schemaname = 'steadfast'";
    client.query_one(blocks, &[]).await.unwrap().get(0)
}

/// The same, once those are counted that ended a moment ago.
async fn settled_blocks(database: &Database) -> i64 {
    let mut last = blocks(database).await;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = blocks(database).await;
        if now == last {
            return now;
        }
        last = now;
    }
}

/// How many blocks a poll reads on average that finds nothing, and one that finds a suspect.
async fn blocks_of_a_poll(database: &Database) -> [i64; 2] {
    let mut read = [0; 2];
    for (suspects, read) in read.iter_mut().enumerate() {
        let before = settled_blocks(database).await;
        {
            let polling = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
            let query = ClaimQuery {
                suspects,
                ..claims(2, 16)
            };
            for _ in 0..50 {
                assert_eq!(polling.claim(&query).await.unwrap().len(), suspects);
            }
        }
        // What a connection has read is counted when it ends.
        let deadline = Instant::now() + Duration::from_secs(20);
        while blocks(database).await < before + 50 {
            assert!(Instant::now() < deadline, "nothing was counted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        *read = (settled_blocks(database).await - before) / 50;
    }
    read
}

#[tokio::test]
async fn a_poll_among_50_000_leased_sagas_reads_a_handful_of_pages() {
    let Some(database) = Database::new("saga_poll").await else {
        return;
    };
    let journal = journal(&database, 1).await;
    created(&journal, &new_saga(1)).await;
    let many = |from: u32, number: u32, fingerprint: &str, due: &str, recoveries: u32| {
        format!(
            "INSERT INTO steadfast.saga (id, key, input, name, version, fingerprint, status, seq, epoch, owner, due,
                recoveries, can_turn, created_at, changed_at)
             SELECT decode(md5(n::text), 'hex'), sha256(n::text::bytea), input, name, version, {fingerprint}, 1, 1, 1, owner,
                now() + {due}, {recoveries}, true, now(), now()
             FROM steadfast.saga, generate_series({from}, {from} + {number} - 1) n WHERE id = {id};",
            id = "'\\x00000001000000000000000000000000'",
        )
    };
    // Leased; suspects, of which one is claimed at a time; and those that nobody here can drive, which have long been due.
    let leased = many(10, 50_000, "fingerprint", "interval '30 seconds'", 0);
    let suspects = many(60_010, 5_000, "fingerprint", "interval '-1 hour'", SUSPECT_AFTER);
    let incompatible = many(70_010, 5_000, "sha256('other')", "interval '-1 day'", 0);
    database.execute(&(leased + &suspects + &incompatible)).await;
    database
        .execute("ALTER TABLE steadfast.saga SET (autovacuum_enabled = false)")
        .await;
    let mut measured = Vec::new();
    for before in [
        "",
        "VACUUM ANALYZE steadfast.saga",
        "ALTER DATABASE steadfast_saga_poll SET plan_cache_mode = force_generic_plan",
    ] {
        database.execute(before).await;
        let read = blocks_of_a_poll(&database).await;
        // Three of them are read by the statement, the others by who plans it. A suspect that is found is locked, written,
        // and noted in three indexes.
        assert!(read[0] <= 60 && read[1] <= 120, "{before}: {read:?}");
        measured.push(read[0]);
    }
    println!("figure: pages read by a poll among 50,000 leased sagas: {measured:?}");
}

#[tokio::test]
async fn tables_that_are_missing_are_an_error_that_names_migrate() {
    let Some(database) = Database::new("saga_unmigrated").await else {
        return;
    };
    let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
    let error = journal.create(&new_saga(1)).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::NotMigrated);
    assert!(error.to_string().contains("migrate()"), "{error}");
}

#[test]
fn the_steps_of_the_schema_are_those_that_were_released() {
    let steps = PostgresJournal::migrations().iter();
    let steps: Vec<_> = steps
        .map(|step| (step.component(), step.version(), step.checksum()))
        .collect();
    let first = "c437e62706511807430bee66d9bc60dae2f46e908d931e0dab3c42795aa28bd9";
    assert_eq!(steps, [("saga", 1, first.to_owned())]);
}

#[tokio::test]
async fn sagas_and_idempotency_share_a_database_and_the_printed_script_makes_the_same_tables() {
    let Some(database) = Database::new("saga_script").await else {
        return;
    };
    drop(database.store(1).await);
    database.execute(&PostgresJournal::migration_script()).await;
    // Who only uses the tables needs no right to make any.
    drop(journal(&database, 1).await);
    database
        .execute(
            "DROP ROLE IF EXISTS steadfast_saga_user; CREATE ROLE steadfast_saga_user LOGIN;
             GRANT USAGE ON SCHEMA steadfast TO steadfast_saga_user;
             GRANT SELECT, INSERT, UPDATE, DELETE ON steadfast.migrations, steadfast.saga, steadfast.saga_event
                TO steadfast_saga_user",
        )
        .await;
    let mut config = database.config.clone();
    config.user("steadfast_saga_user");
    let user = Database {
        direct: config.clone(),
        config,
    };
    let journal = journal(&user, 1).await;
    let new = new_saga(1);
    created(&journal, &new).await;
    journal.append(&append(new.id, 1, 1)).await.unwrap();
    assert_eq!(journal.claim(&claims(1, 1)).await.unwrap(), []);
    journal
        .prune(Prune {
            events_after: HOUR,
            keys_after: HOUR,
            limit: 10,
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_views_show_any_bytes_as_text() {
    let Some(database) = Database::new("saga_views").await else {
        return;
    };
    let journal = journal(&database, 1).await;
    let event = |event: &'static [u8]| Entry {
        event: Bytes::from_static(event),
        context: None,
    };
    let context = Entry {
        context: Some(Bytes::from_static("{\"to\":\"é\"}".as_bytes())),
        ..event(b"{}")
    };
    let new = NewSaga {
        entries: vec![event(b"{\"event\":\"created\"}"), event(b"\0\xff"), context],
        definition: DefinitionId {
            name: "order".to_owned(),
            ..definition(0)
        },
        ..new_saga(1)
    };
    created(&journal, &new).await;
    let error = Some("no\0t \u{e9}".to_owned());
    journal
        .append(&Append {
            error,
            status: SagaStatus::Stuck,
            hold: Hold::Rest,
            ..append(new.id, 1, 3)
        })
        .await
        .unwrap();
    let client = database.client().await;
    let head = "SELECT id, name, status, owner, error FROM steadfast.sagas";
    let head = client.query_one(head, &[]).await.unwrap();
    assert_eq!(head.get::<_, String>(0), new.id.to_string());
    assert_eq!(
        (head.get(1), head.get(2), head.get(3)),
        ("order", "stuck", None::<&str>)
    );
    assert_eq!(head.get::<_, &str>(4), "no\\000t \\303\\251");
    let events = "SELECT event, context FROM steadfast.saga_events WHERE saga = $1 AND seq < 3 ORDER BY seq";
    let events = client.query(events, &[&new.id.to_string()]).await.unwrap();
    let events: Vec<(&str, Option<&str>)> = events.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [
        ("{\"event\":\"created\"}", None),
        ("\\000\\377", None),
        ("{}", Some("{\"to\":\"é\"}")),
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn what_is_written_is_durable_whatever_the_default_is() {
    let Some(database) = Database::new("saga_durable").await else {
        return;
    };
    let journal = journal(&database, 1).await;
    database
        .execute(
            "ALTER DATABASE steadfast_saga_durable SET synchronous_commit = off;
             CREATE TABLE ended (what text, synchronous_commit text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO ended VALUES (TG_OP, current_setting('synchronous_commit')); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE ON steadfast.saga DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    drop(journal);
    let journal = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
    let new = new_saga(1);
    created(&journal, &new).await;
    journal.append(&append(new.id, 1, 1)).await.unwrap();
    journal.renew(owner(1), HOUR, &[(new.id, 1)]).await.unwrap();
    journal.release(owner(1), &[(new.id, 1)]).await.unwrap();
    assert_eq!(journal.claim(&claims(2, 1)).await.unwrap().len(), 1);
    journal.release(owner(2), &[(new.id, 2)]).await.unwrap();
    journal.claim_one(new.id, owner(3), HOUR).await.unwrap();
    assert_eq!(journal.request_cancel(new.id).await.unwrap(), CancelRequest::Requested);
    let ended = "SELECT what, synchronous_commit FROM ended";
    let ended = database.client().await.query(ended, &[]).await.unwrap();
    let ended: Vec<(&str, &str)> = ended.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut expected = vec![("UPDATE", "on"); 8];
    expected[0] = ("INSERT", "on");
    assert_eq!(ended, expected);
}

#[tokio::test]
async fn more_sagas_than_one_statement_clears_away_are_cleared_away_by_several() {
    let Some(database) = Database::new("saga_prune").await else {
        return;
    };
    let journal = journal(&database, 2).await;
    created(&journal, &new_saga(1)).await;
    database
        .execute(
            "INSERT INTO steadfast.saga (id, key, input, name, version, fingerprint, status, seq, epoch, can_turn,
                created_at, changed_at)
             SELECT decode(md5(n::text), 'hex'), sha256(n::text::bytea), input, name, version, fingerprint, 3, 1, 1, true,
                now(), now() - n * interval '1 minute' FROM steadfast.saga, generate_series(1, 2000) n;
             INSERT INTO steadfast.saga_event SELECT id, 0, 1, now(), '', '' FROM steadfast.saga WHERE status = 3",
        )
        .await;
    let prune = Prune {
        events_after: HOUR,
        keys_after: 4 * HOUR,
        limit: 1200,
    };
    assert_eq!(journal.prune(prune).await.unwrap(), 1200);
    // The oldest first: 60 minutes are kept with their events, and 180 more without.
    assert_eq!(journal.prune(prune).await.unwrap(), 2000 - 59 - 1200);
    assert_eq!(journal.prune(prune).await.unwrap(), 0);
    let left =
        "SELECT count(*), count(*) FILTER (WHERE pruned), (SELECT count(*) FROM steadfast.saga_event WHERE event = '')
        FROM steadfast.saga WHERE status = 3";
    let left = database.client().await.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get(0), left.get(1), left.get(2)), (239_i64, 180_i64, 59_i64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_journal_conforms() {
    let Some(database) = Database::new("saga_conformance").await else {
        return;
    };
    drop(journal(&database, 1).await);
    // Each handle has a pool of its own, as another process has.
    let cases = conformance(|| async { PostgresJournal::new(&PostgresStorage::new(database.pool(4))) }).await;
    println!("figure: conformance cases of journals, PostgreSQL: {cases}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_journal_conforms_behind_pgbouncer() {
    let Some(database) = Database::behind_pgbouncer("saga_conformance_pgbouncer").await else {
        return;
    };
    drop(journal(&database, 1).await);
    let cases = conformance(|| async { PostgresJournal::new(&PostgresStorage::new(database.pool(4))) }).await;
    println!("figure: conformance cases of journals, PgBouncer: {cases}");
}
