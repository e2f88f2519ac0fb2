//! The conformance suite over every store; those that need a server are in files of their own.

use steadfast::idempotency::{MemoryStore, SqliteStore};
use steadfast::testing::idempotency::{Faulty, conformance};

fn passed(store: &str, cases: usize) {
    println!("figure: conformance cases, {store}: {cases}");
}

#[tokio::test(start_paused = true)]
async fn the_memory_store_conforms() {
    let store = MemoryStore::new();
    passed("memory", conformance(|| async { store.clone() }).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_conforms_on_several_threads() {
    let store = MemoryStore::new();
    passed("memory, threads", conformance(|| async { store.clone() }).await);
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_store_conforms() {
    let store = Faulty::new(MemoryStore::new());
    passed("wrapped", conformance(|| async { store.clone() }).await);
}

/// Each handle has a writer and connections of its own, as another process has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_store_conforms() {
    let folder = std::env::temp_dir().join(format!("steadfast-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("store.db");
    SqliteStore::open(&path).await.unwrap().migrate().await.unwrap();
    let cases = conformance(|| async { SqliteStore::open(&path).await.unwrap() }).await;
    passed("SQLite", cases);
    std::fs::remove_dir_all(folder).unwrap();
}
