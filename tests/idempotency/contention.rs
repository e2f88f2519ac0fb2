//! Many clients on many keys, on every store: one runs, and all have its value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::idempotency::store::Store;
use steadfast::idempotency::{Idempotency, MemoryStore, RedisStore, SqliteStore};
use steadfast::{Key, Rejected};
use tokio::task::JoinSet;

use crate::support::postgres::Database;
use crate::support::redis_url;

const HANDLES: usize = 8;
const CLIENTS: usize = 32;
const KEYS: usize = 1_000;
const DUPLICATES: usize = 20;

/// Each handle has a policy of its own, as another process has; the clients of one share it.
async fn one_winner_for_each_key<S: Store>(store: &str, open: impl AsyncFn() -> S) {
    let namespace = format!("contention-{}-{store}", std::process::id());
    let mut policies = Vec::new();
    for _ in 0..HANDLES {
        let builder = Idempotency::at_least_once(open().await).namespace(namespace.clone());
        policies.push(builder.wait(Duration::from_secs(60)).build().unwrap());
    }
    let runs: Arc<Vec<AtomicU32>> = Arc::new((0..KEYS).map(|_| AtomicU32::new(0)).collect());
    let calls = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (policy, runs, calls) = (
            policies[client % HANDLES].clone(),
            Arc::clone(&runs),
            Arc::clone(&calls),
        );
        clients.spawn(async move {
            // Every client its part of all calls, neighbours the same keys at the same time.
            for call in (client..KEYS * DUPLICATES).step_by(CLIENTS) {
                let key = call / DUPLICATES;
                let value = policy
                    .run(&Key::new("tenant", key.to_string()), &key, || async {
                        let before = runs[key].fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Rejected>((key, before))
                    })
                    .await
                    .unwrap();
                assert_eq!(value, (key, 0));
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
    println!(
        "figure: duplicates with one winner, {store}: {}",
        calls.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_memory_store() {
    let store = MemoryStore::new();
    one_winner_for_each_key("memory", async || store.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_sqlite_store() {
    let folder = std::env::temp_dir().join(format!("steadfast-contention-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("store.db");
    SqliteStore::open(&path).await.unwrap().migrate().await.unwrap();
    one_winner_for_each_key("SQLite", async || SqliteStore::open(&path).await.unwrap()).await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_postgres_store() {
    let Some(database) = Database::new("contention").await else {
        return;
    };
    one_winner_for_each_key("PostgreSQL", async || database.store(4).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_redis_store() {
    let Some(url) = redis_url() else { return };
    one_winner_for_each_key("Redis", async || RedisStore::connect(&url).await.unwrap()).await;
}
