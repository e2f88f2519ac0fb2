//! Anything, at random, over every store: calls that come, last, leave and fail, while every third call of the store goes
//! wrong.
//!
//! What must hold: at most once means one run in all. At least once, no run begins after a caller was told that the
//! outcome is recorded; and whoever gets a recorded value gets the same.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use steadfast::Key;
use steadfast::idempotency::store::Store;
use steadfast::idempotency::{Idempotency, IdempotencyBuilder, MemoryStore, RedisStore, Source, SqliteStore};
use steadfast::testing::idempotency::{Fault, Faulty};
use tokio::time::{sleep, timeout};

use super::driver::{Counted, Failure, request};
use crate::support::folder::Folder;
use crate::support::postgres::Database;
use crate::support::redis_url;

const SECOND: Duration = Duration::from_secs(1);
/// For the second of a history, where a database cannot be hurried along.
const SHORT: Duration = Duration::from_millis(10);

/// A history over a store of its own, or a key of its own.
struct History<S> {
    store: Faulty<S>,
    key: Key,
    seed: u64,
    once: bool,
    second: Duration,
}

impl<S: Store + Clone> History<S> {
    fn policy(&self) -> IdempotencyBuilder {
        let store = self.store.clone();
        let builder = if self.once {
            Idempotency::at_most_once(store).accept_relaxed_durability()
        } else {
            Idempotency::at_least_once(store)
        };
        builder.lease(self.second * 30).store_timeout(self.second * 5)
    }

    /// Ten calls of two processes, some of them dropped, operations that fail or not. Says how often the store was called.
    async fn run(self) -> u64 {
        let second = self.second;
        let faults = [
            Fault::RequestLate(second * 3),
            Fault::RequestLate(second * 40),
            Fault::RequestLost,
            Fault::ReplyLost,
            Fault::RequestHangs,
            Fault::ReplyHangs,
            Fault::RequestDelayed(second * 2),
            Fault::ReplyDelayed(second * 7),
            Fault::ReplyDelayed(second * 2),
        ];
        self.store.inject_at_random(self.seed, 0.3, faults);
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(self.seed));
        let processes = [
            self.policy().build().unwrap(),
            self.policy().wait(second * 60).build().unwrap(),
        ];
        let begun = Counted::default();
        let recorded: Mutex<Option<u32>> = Mutex::default();
        let mut calls = Vec::new();
        for n in 0..10 {
            let idempotency = processes[random.random_range(0..2)].clone();
            let starts = second * random.random_range(0..90);
            let lasts = second * random.random_range(0..50);
            let patience = second
                * if random.random_bool(0.3) {
                    random.random_range(0..40)
                } else {
                    100_000
                };
            let fails = random.random_bool(0.3);
            let (begun, recorded, key) = (&begun, &recorded, &self.key);
            calls.push(async move {
                sleep(starts).await;
                let call = idempotency.execute(key, request(), |_| async move {
                    assert_eq!(*recorded.lock().unwrap(), None, "call {n} runs what is recorded");
                    let value = begun.succeed().await?;
                    sleep(lasts).await;
                    if fails {
                        Err(Failure::Inner(std::fmt::Error))
                    } else {
                        Ok(value)
                    }
                });
                let Ok(Ok(executed)) = timeout(patience, call).await else {
                    return;
                };
                if executed.source != Source::Unrecorded {
                    let mut recorded = recorded.lock().unwrap();
                    assert_eq!(*recorded.get_or_insert(executed.value), executed.value, "call {n}");
                }
            });
        }
        join_all(calls).await;
        if self.once {
            assert!(begun.runs() <= 1, "seed {}: {} runs", self.seed, begun.runs());
        }
        for idempotency in &processes {
            assert_eq!(idempotency.drain(second * 300).await, 0, "seed {}", self.seed);
        }
        self.store.all_calls()
    }
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// How many: `FAULTY_HISTORIES` says otherwise.
fn histories(default: u64) -> u64 {
    let asked = std::env::var("FAULTY_HISTORIES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(default)
}

fn report(histories: u64, calls: u64) {
    println!("figure: histories over a faulty store: {histories}");
    println!("figure: calls of a faulty store: {calls}");
}

async fn in_memory(once: bool) {
    let (histories, mut calls) = (histories(300), 0);
    for seed in 0..histories {
        let history = History {
            store: Faulty::new(MemoryStore::new()),
            key: Key::new("tenant", "key"),
            seed,
            once,
            second: SECOND,
        };
        calls += history.run().await;
    }
    report(histories, calls);
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_most_once_is_at_most_once() {
    in_memory(true).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_what_is_recorded_is_not_run_again() {
    in_memory(false).await;
}

/// Forty at a time, each with a key of its own.
async fn on_a_database<S: Store + Clone>(store: &S) {
    let namespace = format!("histories-{}", std::process::id());
    let (histories, mut calls) = (histories(80), 0);
    for batch in 0..histories.div_ceil(40) {
        let seeds = batch * 40..histories.min((batch + 1) * 40);
        let batch = seeds.map(|seed| {
            let history = History {
                store: Faulty::new(store.clone()),
                key: Key::new(&namespace, seed.to_string()),
                seed,
                once: seed % 2 == 0,
                second: SHORT,
            };
            history.run()
        });
        calls += join_all(batch).await.into_iter().sum::<u64>();
    }
    report(histories, calls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_on_sqlite() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).await.unwrap();
    store.migrate().await.unwrap();
    on_a_database(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_on_postgres() {
    let Some(database) = Database::new("histories").await else {
        return;
    };
    on_a_database(&database.store(16).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_on_redis() {
    let Some(url) = redis_url() else { return };
    on_a_database(&RedisStore::connect(&url).await.unwrap()).await;
}
