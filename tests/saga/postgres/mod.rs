//! Sagas in PostgreSQL, on a real server.

mod histories;

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

async fn blocks_of_a_poll(database: &Database, found: usize) -> i64 {
    let before = blocks(database).await;
    {
        let polling = PostgresJournal::new(&PostgresStorage::new(database.pool(1)));
        assert_eq!(polling.claim(&claims(2, 16)).await.unwrap().len(), found);
    }
    // What a connection has read is counted when it ends.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let after = blocks(database).await;
        if after > before {
            return after - before;
        }
        assert!(Instant::now() < deadline, "nothing was counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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
             SELECT sha256(n::text::bytea), sha256(n::text::bytea), input, name, version, {fingerprint}, 1, 1, 1, owner,
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
    let before_analyze = blocks_of_a_poll(&database, 1).await;
    database.execute("VACUUM ANALYZE steadfast.saga").await;
    let after_analyze = blocks_of_a_poll(&database, 1).await;
    println!("figure: pages read by a poll among 50,000 leased sagas: {before_analyze}, analyzed {after_analyze}");
    // One suspect is found, locked and claimed, and noted in three indexes.
    assert!(
        before_analyze <= 80 && after_analyze <= 80,
        "{before_analyze}, {after_analyze}"
    );
}
