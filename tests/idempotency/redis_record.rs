//! The string that is a record in Redis: what it costs the server, and what else may lie under a key.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use steadfast::KeyId;
use steadfast::idempotency::RedisStore;
use steadfast::idempotency::store::{
    Claim, Claimed, Completed, Forgotten, Mode, Owner, Record, Renewed, Resolution, Store,
};
use steadfast::storage::{StorageError, StorageErrorKind};

use crate::redis::{Server, claim, fresh_id};
use crate::support::redis_url;

const HOUR: Duration = Duration::from_secs(3600);

async fn connection(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn own(store: &RedisStore, id: KeyId, claim: &Claim) -> Owner {
    match store.claim(id, claim).await.unwrap() {
        Claimed::Owned { owner, .. } => owner,
        other => panic!("expected Owned, got {other:?}"),
    }
}

/// A server of one test, and what the scripts call on it.
struct Counted {
    _server: Server,
    store: RedisStore,
    connection: MultiplexedConnection,
}

impl Counted {
    async fn start() -> Self {
        let server = Server::start(&[]).await;
        let store = RedisStore::connect(server.url()).await.unwrap();
        let connection = connection(&server.url()).await;
        Self {
            _server: server,
            store,
            connection,
        }
    }

    /// What was called since the last time, one round trip each but for what scripts call.
    async fn calls(&mut self) -> BTreeMap<String, u64> {
        let mut info = redis::cmd("INFO");
        let info = info.arg("commandstats").query_async(&mut self.connection).await;
        let info: String = info.unwrap();
        let mut reset = redis::cmd("CONFIG");
        reset.arg("RESETSTAT").exec_async(&mut self.connection).await.unwrap();
        let calls = info.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let count = figures.split_once(',')?.0.parse().unwrap();
            (name != "config|resetstat" && name != "config" && name != "info").then(|| (name.to_owned(), count))
        });
        calls.collect()
    }

    async fn expect(&mut self, what: &str, calls: &[(&str, u64)]) {
        let expected = calls.iter().map(|(name, count)| ((*name).to_owned(), *count));
        assert_eq!(self.calls().await, expected.collect(), "{what}");
    }
}

#[tokio::test]
async fn a_fresh_claim_is_the_clock_and_one_write_and_a_completion_one_read_more() {
    if redis_url().is_none() {
        return;
    }
    let mut counted = Counted::start().await;
    let store = counted.store.clone();
    // The server has seen the scripts.
    let owner = own(&store, fresh_id(), &claim()).await;
    store.complete(fresh_id(), &owner, &Bytes::new(), HOUR).await.unwrap();
    store.inspect(fresh_id()).await.unwrap();
    counted.calls().await;

    let id = fresh_id();
    let owner = own(&store, id, &claim()).await;
    let claimed = [("evalsha", 1), ("set", 1), ("time", 1)];
    counted.expect("a claim", &claimed).await;
    let once = Claim {
        mode: Mode::AtMostOnce,
        ..claim()
    };
    own(&store, fresh_id(), &once).await;
    counted.expect("a claim of at most once", &claimed).await;

    let large = Bytes::from(vec![7; 100 * 1024]);
    let completed = store.complete(id, &owner, &large, HOUR).await.unwrap();
    assert_eq!(completed, Completed::Applied);
    let header = [("evalsha", 1), ("getrange", 1), ("set", 1), ("time", 1)];
    counted.expect("a completion", &header).await;

    // The header is one read, and the outcome another.
    let other = Claim {
        fingerprint: steadfast::idempotency::Fingerprint::of_parts(&[b"another request"]),
        ..claim()
    };
    assert_eq!(store.claim(id, &other).await.unwrap(), Claimed::Mismatch);
    counted.expect("a mismatch", &header).await;
    assert!(matches!(
        store.claim(id, &claim()).await.unwrap(),
        Claimed::Completed { .. }
    ));
    let both = [("evalsha", 1), ("getrange", 2), ("set", 1), ("time", 1)];
    counted.expect("a replay", &both).await;
    assert_eq!(store.count_interrupted().await.unwrap(), 0);
    let listed = counted.calls().await;
    assert_eq!(listed.get("getrange"), listed.get("evalsha"), "a listing: {listed:?}");
}

/// What every verb but `purge` says of a key.
async fn every_verb(store: &RedisStore, id: KeyId) -> Vec<(&'static str, Result<(), StorageError>)> {
    let owner = Owner {
        claim_id: claim().claim_id,
        fence: 1,
        attempt: 1,
        fingerprint: claim().fingerprint,
    };
    let once = Claim {
        mode: Mode::AtMostOnce,
        ..claim()
    };
    let outcome = Bytes::from_static(b"mine");
    let completed = Resolution::Completed {
        outcome: outcome.clone(),
        retention: HOUR,
    };
    vec![
        ("claim", store.claim(id, &claim()).await.map(drop)),
        ("claim at most once", store.claim(id, &once).await.map(drop)),
        ("complete", store.complete(id, &owner, &outcome, HOUR).await.map(drop)),
        ("renew", store.renew(id, &owner, HOUR, Some(&outcome)).await.map(drop)),
        ("release", store.release(id, &owner).await.map(drop)),
        ("interrupt", store.interrupt(id, &owner).await.map(drop)),
        ("cancel", store.cancel(id).await.map(drop)),
        ("resolve", store.resolve(id, &completed).await.map(drop)),
        ("forget", store.forget(id).await.map(drop)),
        ("inspect", store.inspect(id).await.map(drop)),
        ("list", store.list_interrupted(None, 10).await.map(drop)),
        ("count", store.count_interrupted().await.map(drop)),
    ]
}

#[tokio::test]
async fn what_somebody_else_keeps_under_a_key_is_corruption_to_every_verb_and_stays() {
    let Some(url) = redis_url() else { return };
    let mut connection = connection(&url).await;
    let mut unknown_state = b"sfi1".to_vec();
    unknown_state.resize(200, b'?');
    let long = vec![b'x'; 200];
    let foreign: [(&str, &[&[u8]]); 6] = [
        ("an empty string", &[b"SET", b"KEY", b""]),
        ("a short string", &[b"SET", b"KEY", b"their receipt"]),
        ("a long string", &[b"SET", b"KEY", &long]),
        ("a record in an unknown state", &[b"SET", b"KEY", &unknown_state]),
        ("a hash", &[b"HSET", b"KEY", b"s", b"their receipt"]),
        ("a list", &[b"RPUSH", b"KEY", b"their receipt"]),
    ];
    for (n, (what, words)) in foreign.into_iter().enumerate() {
        let prefix = format!("foreign-{}-{n}:", std::process::id());
        let store = RedisStore::connect(&url).await.unwrap().prefix(prefix.clone());
        let id = fresh_id();
        let key = format!("{prefix}{id}");
        let mut put = redis::cmd(std::str::from_utf8(words[0]).unwrap());
        put.arg(&key).arg(&words[2..]);
        put.exec_async(&mut connection).await.unwrap();
        let mut dump = redis::cmd("DUMP");
        dump.arg(&key);
        let before: Vec<u8> = dump.query_async(&mut connection).await.unwrap();
        for (verb, answer) in every_verb(&store, id).await {
            let Err(error) = answer else {
                panic!("{what}, {verb}: it is no record");
            };
            assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{what}, {verb}: {error}");
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("receipt") && !shown.contains(&id.to_string()),
                "{what}, {verb}: {shown}"
            );
        }
        let after: Vec<u8> = dump.query_async(&mut connection).await.unwrap();
        assert_eq!(after, before, "{what}");
        redis::cmd("DEL").arg(&key).exec_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_fence_that_the_store_cannot_have_given_out_moves_none() {
    let Some(url) = redis_url() else { return };
    let store = RedisStore::connect(&url).await.unwrap().prefix("fences:");
    let id = fresh_id();
    let owner = own(&store, id, &claim()).await;
    store.release(id, &owner).await.unwrap();
    let ahead = Owner {
        fence: owner.fence + 1_000_000_000,
        ..owner
    };
    let beyond = Owner {
        fence: u64::MAX,
        ..owner
    };
    for (late, at_least) in [(beyond, owner.fence), (ahead, ahead.fence), (beyond, ahead.fence)] {
        let completed = store.complete(id, &late, &Bytes::new(), HOUR).await.unwrap();
        assert_eq!(completed, Completed::Applied);
        let Some(found) = store.inspect(id).await.unwrap() else {
            panic!("it was completed");
        };
        assert!(matches!(found.record, Record::Completed { owner, .. } if owner == late));
        assert_eq!(store.forget(id).await.unwrap(), Forgotten::Forgotten);
        let next = own(&store, id, &claim()).await;
        assert!(next.fence > at_least, "{} after {at_least}", next.fence);
        assert!(next.fence < at_least + 100_000_000, "{} after {at_least}", next.fence);
        store.release(id, &next).await.unwrap();
    }
}

#[tokio::test]
async fn attempts_are_counted_up_to_the_largest_number_and_stay_there() {
    let Some(url) = redis_url() else { return };
    let store = RedisStore::connect(&url).await.unwrap().prefix("attempts:");
    let id = fresh_id();
    let lapsed = || Claim {
        lease: Duration::ZERO,
        ..claim()
    };
    let owner = own(&store, id, &lapsed()).await;
    let note = Bytes::from_static(b"note");
    let renewed = store.renew(id, &owner, Duration::ZERO, Some(&note)).await.unwrap();
    assert_eq!(renewed, Renewed::Renewed);
    // One before the last.
    let mut set = redis::cmd("SETRANGE");
    set.arg(format!("attempts:{id}"))
        .arg(86)
        .arg(&(u32::MAX - 1).to_le_bytes());
    set.exec_async(&mut connection(&url).await).await.unwrap();
    for _ in 0..2 {
        let Claimed::Owned { owner, checkpoint } = store.claim(id, &lapsed()).await.unwrap() else {
            panic!("the lease was over");
        };
        assert_eq!((owner.attempt, checkpoint.as_ref()), (u32::MAX, Some(&note)));
    }
    store.forget(id).await.unwrap();
}
