//! The store on real Redis servers: one that `scripts/servers` started, its cluster, and some of our own to be killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use steadfast::KeyId;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Completed, Durability, Mode, Origin, Store};
use steadfast::idempotency::{Fingerprint, RedisStore};
use steadfast::storage::StorageErrorKind;
use steadfast::testing::idempotency::conformance;
use tokio::time::{Instant, sleep};

use crate::support::{redis_cluster_urls, redis_url};

const HOUR: Duration = Duration::from_secs(3600);

fn fresh() -> [u8; 16] {
    let hash = |n: u8| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(n).to_le_bytes()
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash(0));
    bytes[8..].copy_from_slice(&hash(1));
    bytes
}

pub(crate) fn fresh_id() -> KeyId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&fresh());
    KeyId::from_bytes(bytes)
}

pub(crate) fn claim() -> Claim {
    Claim {
        claim_id: ClaimId::from_bytes(fresh()),
        fingerprint: Fingerprint::of_parts(&[b"request"]),
        mode: Mode::AtLeastOnce { retention: HOUR },
        lease: HOUR,
        origin: Origin::from_text("call:tests"),
    }
}

/// A server of this test alone, in a folder of its own. Killed when it is dropped.
pub(crate) struct Server {
    folder: std::path::PathBuf,
    port: u16,
    process: Child,
}

impl Server {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = std::env::temp_dir().join(format!("steadfast-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Self::spawn(&folder, port, options).await;
        Self { folder, port, process }
    }

    async fn spawn(folder: &std::path::Path, port: u16, options: &[&str]) -> Child {
        let process = Command::new("redis-server")
            .current_dir(folder)
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there where STEADFAST_REDIS is");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "redis-server does not listen"
            );
            sleep(Duration::from_millis(10)).await;
        }
        process
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self, options: &[&str]) {
        self.process = Self::spawn(&self.folder, self.port, options).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn command(url: &str, words: &[&str]) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_one_server() {
    let Some(url) = redis_url() else { return };
    let prefix = format!("conformance-{}:", std::process::id());
    let open = || async { RedisStore::connect(&url).await.unwrap().prefix(prefix.clone()) };
    println!("figure: conformance cases, Redis: {}", conformance(open).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_a_cluster() {
    let Some(urls) = redis_cluster_urls() else { return };
    let prefix = format!("conformance-{}:", std::process::id());
    let open = || async { RedisStore::connect_cluster(&urls).await.unwrap().prefix(prefix.clone()) };
    println!("figure: conformance cases, Redis cluster: {}", conformance(open).await);
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let Some(url) = redis_url() else { return };
    let store = RedisStore::connect(&url).await.unwrap();
    for _ in 0..3 {
        let (id, claim) = (fresh_id(), claim());
        command(&url, &["SCRIPT", "FLUSH"]).await;
        let Claimed::Owned { owner, .. } = store.claim(id, &claim).await.unwrap() else {
            panic!("the key was free");
        };
        command(&url, &["SCRIPT", "FLUSH"]).await;
        let completed = store
            .complete(id, &owner, &Bytes::from_static(b"done"), HOUR)
            .await
            .unwrap();
        assert_eq!(completed, Completed::Applied);
        command(&url, &["SCRIPT", "FLUSH"]).await;
        assert!(store.inspect(id).await.unwrap().is_some());
        store.forget(id).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    if redis_url().is_none() {
        return;
    }
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let refused = RedisStore::connect(server.url()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Refused);
    assert!(
        refused.to_string().contains("maxmemory-policy is allkeys-lru"),
        "{refused}"
    );
    command(&server.url(), &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    assert_eq!(store.durability(), Durability::Relaxed);
}

#[tokio::test]
async fn a_server_that_does_not_say_whether_it_evicts_is_trusted() {
    if redis_url().is_none() {
        return;
    }
    let server = Server::start(&["--user", "app", "on", "nopass", "~*", "+@all", "-info", "-config"]).await;
    let url = format!("redis://app:any@127.0.0.1:{}", server.port);
    let store = RedisStore::connect(url).await.unwrap();
    assert!(matches!(
        store.claim(fresh_id(), &claim()).await.unwrap(),
        Claimed::Owned { .. }
    ));
}

#[tokio::test]
async fn a_server_that_wants_a_password_is_an_error_at_once() {
    if redis_url().is_none() {
        return;
    }
    let server = Server::start(&["--requirepass", "secret"]).await;
    let refused = RedisStore::connect(server.url()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Refused, "{refused}");
    let wrong = RedisStore::connect(format!("redis://:guess@127.0.0.1:{}", server.port))
        .await
        .unwrap_err();
    assert_eq!(wrong.kind(), StorageErrorKind::Refused, "{wrong}");
    assert!(!format!("{wrong:?}").contains("guess"), "{wrong:?}");
    RedisStore::connect(format!("redis://:secret@127.0.0.1:{}", server.port))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_server_says_so_and_keeps_what_it_has() {
    if redis_url().is_none() {
        return;
    }
    let server = Server::start(&["--maxmemory", "12mb"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let megabyte = Bytes::from(vec![7; 1 << 20]);
    let mut kept = Vec::new();
    let full = loop {
        let id = fresh_id();
        let Claimed::Owned { owner, .. } = (match store.claim(id, &claim()).await {
            Ok(claimed) => claimed,
            Err(full) => break full,
        }) else {
            panic!("the key was free");
        };
        match store.complete(id, &owner, &megabyte, HOUR).await {
            Ok(_) => kept.push(id),
            Err(full) => break full,
        }
        assert!(kept.len() < 20, "12 MB hold less");
    };
    assert_eq!(full.kind(), StorageErrorKind::Full, "{full}");
    assert!(!kept.is_empty());
    for id in kept {
        assert!(store.inspect(id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again_has_what_is_in_its_file() {
    if redis_url().is_none() {
        return;
    }
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = Server::start(&options).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let (done, running) = (fresh_id(), fresh_id());
    let Claimed::Owned { owner, .. } = store.claim(done, &claim()).await.unwrap() else {
        panic!("the key was free");
    };
    store
        .complete(done, &owner, &Bytes::from_static(b"receipt"), HOUR)
        .await
        .unwrap();
    let mine = claim();
    let first = store.claim(running, &mine).await.unwrap();
    server.kill();
    let gone = store.inspect(done).await.unwrap_err();
    assert_eq!(gone.kind(), StorageErrorKind::Unavailable, "{gone}");
    server.start_again(&options).await;
    // The connection comes back by itself, within the pauses between its attempts.
    let begun = Instant::now();
    let again = loop {
        match store.claim(running, &mine).await {
            Ok(claimed) => break claimed,
            Err(error) => assert_eq!(error.kind(), StorageErrorKind::Unavailable, "{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not come back");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(again, first);
    let replayed = store.claim(done, &claim()).await.unwrap();
    assert!(matches!(replayed, Claimed::Completed { .. }), "{replayed:?}");
}

#[tokio::test]
async fn expired_records_are_removed_by_the_server_and_the_others_are_not() {
    let Some(url) = redis_url() else { return };
    let prefix = format!("expiry-{}:", std::process::id());
    let store = RedisStore::connect(&url).await.unwrap().prefix(prefix.clone());
    let client = redis::Client::open(&*url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut ttl = async |id: KeyId| -> i64 {
        let mut cmd = redis::cmd("PTTL");
        cmd.arg(format!("{prefix}{id}"))
            .query_async(&mut connection)
            .await
            .unwrap()
    };
    let day = 86_400_000;
    let id = fresh_id();
    let claimed = store.claim(id, &claim()).await.unwrap();
    let Claimed::Owned { owner, .. } = claimed else {
        panic!("the key was free");
    };
    let left = ttl(id).await;
    assert!(
        (day + 7_000_000..=day + 7_200_000).contains(&left),
        "lease and retention and a day: {left}"
    );
    store.complete(id, &owner, &Bytes::new(), HOUR).await.unwrap();
    let left = ttl(id).await;
    assert!(
        (day + 3_400_000..=day + 3_600_000).contains(&left),
        "retention and a day: {left}"
    );
    store.forget(id).await.unwrap();
    let left = ttl(id).await;
    assert!((day - 200_000..=day).contains(&left), "the fence, for a day: {left}");
    store.cancel(id).await.unwrap();
    assert_eq!(ttl(id).await, -1, "a cancelled key is kept for ever");
    let once = fresh_id();
    let at_most_once = Claim {
        mode: Mode::AtMostOnce,
        lease: Duration::ZERO,
        ..claim()
    };
    store.claim(once, &at_most_once).await.unwrap();
    assert_eq!(ttl(once).await, -1, "what may not run again is kept for ever");
    for id in [id, once] {
        store.forget(id).await.unwrap();
    }
}

#[tokio::test]
async fn more_records_than_are_looked_at_together_are_listed_and_counted() {
    let Some(url) = redis_url() else { return };
    let prefix = format!("many[{}]*:", std::process::id());
    let store = RedisStore::connect(&url).await.unwrap().prefix(prefix);
    let mut ids: Vec<KeyId> = (0..600).map(|_| fresh_id()).collect();
    for id in &ids {
        let lapsed = Claim {
            lease: Duration::ZERO,
            ..claim()
        };
        store.claim(*id, &lapsed).await.unwrap();
        store.claim(fresh_id(), &claim()).await.unwrap();
    }
    ids.sort_unstable();
    assert_eq!(store.count_interrupted().await.unwrap(), 600);
    let listed = store.list_interrupted(None, 500).await.unwrap();
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[..500]);
    let rest = store.list_interrupted(Some(ids[499]), 500).await.unwrap();
    assert_eq!(rest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids[500..]);
    for id in ids {
        store.forget(id).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_url_or_no_server_is_an_error() {
    let wrong = RedisStore::connect("not a url").await.unwrap_err();
    assert_eq!(wrong.kind(), StorageErrorKind::Refused, "{wrong}");
}
