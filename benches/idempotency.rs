//! What a claim costs on a database, beside the least that the same database can do: in one run, so that the disk is
//! the same.
//!
//! `cargo bench --bench idempotency [sqlite] [postgres] [redis]`; for the latter two `scripts/servers cargo bench ..`, or
//! servers in `STEADFAST_POSTGRES` and `STEADFAST_REDIS`. Each row is the median of five rounds, which the contenders
//! take in turns.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up has to stop")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{env, fs, process};

use ::redis::aio::ConnectionManager;
use bytes::Bytes;
use futures::future::join_all;
use steadfast::KeyId;
use steadfast::idempotency::store::{Claim, ClaimId, Claimed, Face, Mode, Origin, Store};
use steadfast::idempotency::{Fingerprint, PostgresStore, RedisStore, SqliteStore};
use steadfast::storage::PostgresStorage;
use steadfast::storage::deadpool_postgres::{Manager, Pool};
use steadfast::storage::rusqlite::Connection;
use steadfast::storage::tokio_postgres::types::{ToSql, Type};
use steadfast::storage::tokio_postgres::{Config, NoTls};
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// How many rounds, and how long each. Run as a test it only has to work.
static PACE: LazyLock<(usize, Duration)> = LazyLock::new(|| {
    if env::args().any(|arg| arg == "--bench") {
        (5, Duration::from_millis(1_500))
    } else {
        (1, Duration::from_millis(20))
    }
});
const HOUR: Duration = Duration::from_secs(3_600);

fn main() {
    // Cargo adds `--bench`; what has no dash is the name of a back end.
    let wanted: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let runtime = Runtime::new().expect("a runtime can be built");
    println!("| back end | clients | what | a second | of the bare one |");
    println!("|---|---|---|---|---|");
    if runs("sqlite") {
        for clients in [32, 256] {
            let table = sqlite(&runtime, clients);
            table.print(&format!("SQLite | {clients}"));
        }
    }
    if runs("postgres") {
        match env::var("STEADFAST_POSTGRES") {
            Ok(url) => {
                for clients in [1, 8, 32] {
                    for (prepared, head) in [(true, "PostgreSQL, prepared"), (false, "PostgreSQL")] {
                        postgres(&runtime, &url, clients, prepared).print(&format!("{head} | {clients}"));
                    }
                }
            }
            Err(_) => eprintln!("skipped: STEADFAST_POSTGRES is not set"),
        }
    }
    if runs("redis") {
        match env::var("STEADFAST_REDIS") {
            Ok(url) => {
                for clients in [1, 8, 32] {
                    redis(&runtime, &url, clients).print(&format!("Redis | {clients}"));
                }
            }
            Err(_) => eprintln!("skipped: STEADFAST_REDIS is not set"),
        }
    }
}

/// Contenders, the bare one first, and how many operations a second each had per round.
struct Table<'a>(Vec<(&'a str, Vec<f64>)>);

impl<'a> Table<'a> {
    /// Runs the contenders in turns.
    fn measure(contenders: &mut [(&'a str, &mut dyn FnMut() -> f64)]) -> Self {
        let mut table: Vec<_> = contenders.iter().map(|(name, _)| (*name, Vec::new())).collect();
        for _ in 0..PACE.0 {
            for ((_, run), (_, rates)) in contenders.iter_mut().zip(&mut table) {
                rates.push(run());
            }
        }
        Self(table)
    }

    fn print(&self, head: &str) {
        let median = |rates: &[f64]| {
            let mut sorted = rates.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        let bare = median(&self.0[0].1);
        for (name, rates) in &self.0 {
            let rate = median(rates);
            println!("| {head} | {name} | {rate:.0} | {:.0} % |", 100.0 * rate / bare);
        }
    }
}

/// Runs `operation` on so many clients at once, each time with another number, and counts how many end in a second.
fn rate<F, Fut>(runtime: &Runtime, clients: usize, operation: F) -> f64
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks = (0..clients).map(|_| {
        let (done, operation) = (Arc::clone(&done), operation.clone());
        runtime.spawn(async move {
            while started.elapsed() < PACE.1 {
                operation(next()).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for ended in runtime.block_on(join_all(tasks)) {
        ended.expect("no client panics");
    }
    per_second(done.load(Ordering::Relaxed), started)
}

#[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "far from 2^53")]
fn per_second(done: u64, started: Instant) -> f64 {
    done as f64 / started.elapsed().as_secs_f64()
}

/// A number that this process has not had.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// 32 bytes that are as far from those of other numbers as hashes are.
fn hashed(n: u64) -> [u8; 32] {
    let parts = Fingerprint::of_parts(&[&n.to_le_bytes()]);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&parts.as_bytes()[1..]);
    bytes
}

fn request(n: u64) -> (KeyId, Claim) {
    let bytes = hashed(n);
    let mut claim_id = [0; 16];
    claim_id.copy_from_slice(&bytes[16..]);
    let claim = Claim {
        claim_id: ClaimId::from_bytes(claim_id),
        fingerprint: Fingerprint::of_parts(&[b"request"]),
        mode: Mode::AtLeastOnce { retention: HOUR },
        lease: HOUR,
        origin: Origin::new(Face::Call, "bench"),
    };
    (KeyId::from_bytes(bytes), claim)
}

async fn claim(store: &impl Store, n: u64) {
    let (id, claim) = request(n);
    let claimed = store.claim(id, &claim).await.expect("the store answers");
    assert!(matches!(claimed, Claimed::Owned { .. }), "the key is new");
}

async fn claim_and_complete(store: &impl Store, n: u64) {
    let (id, claim) = request(n);
    let claimed = store.claim(id, &claim).await.expect("the store answers");
    let Claimed::Owned { owner, .. } = claimed else {
        unreachable!("the key is new");
    };
    let outcome = Bytes::from_static(b"\x01\x00{\"receipt\":\"1234\"}");
    let completed = store.complete(id, &owner, &outcome, HOUR).await;
    completed.expect("the store answers");
}

fn sqlite(runtime: &Runtime, clients: usize) -> Table<'static> {
    let folder = Folder::new();
    let store = runtime.block_on(async {
        let store = SqliteStore::open(folder.file("store.db")).await?;
        store.migrate().await?;
        Ok::<_, steadfast::storage::StorageError>(store)
    });
    let store = store.expect("the file can be made");
    let bare = bare(&folder.file("bare.db"));
    let claims = store.clone();
    let mut claims = || {
        let store = claims.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim(&store, n).await }
        })
    };
    let mut both = || {
        let store = store.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim_and_complete(&store, n).await }
        })
    };
    Table::measure(&mut [
        ("bare: a loop of inserts, a commit per 32 or 256", &mut || {
            inserts(&bare, clients)
        }),
        ("claim", &mut claims),
        ("claim and complete", &mut both),
    ])
}

/// A table with as much in a row as a claim has, and the index that a claim has.
fn bare(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("the file can be made");
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal;
            PRAGMA synchronous = FULL;
            PRAGMA cache_size = -16384;
            CREATE TABLE bare (id BLOB PRIMARY KEY, claim_id BLOB, fingerprint BLOB, lease INTEGER) STRICT;",
        )
        .expect("SQLite makes a table");
    connection
}

/// Inserts in one thread, as many to a commit as there are clients.
fn inserts(connection: &Connection, batch: usize) -> f64 {
    let mut insert = connection
        .prepare("INSERT INTO bare VALUES (?1, ?2, ?3, ?4)")
        .expect("the table is there");
    let mut done = 0;
    let started = Instant::now();
    while started.elapsed() < PACE.1 {
        connection.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
        for _ in 0..batch {
            let (id, claim) = request(next());
            let (claim_id, fingerprint) = (claim.claim_id.as_bytes(), claim.fingerprint.as_bytes());
            insert
                .execute((id.as_bytes(), claim_id, fingerprint, 1_800_000_000_000_i64))
                .expect("a new row");
            done += 1;
        }
        connection.execute_batch("COMMIT").expect("there is room");
    }
    per_second(done, started)
}

/// As many bytes as the record of a claim has in Redis.
const RECORD: [u8; 105] = [7; 105];

/// Each contender has a connection of its own to the same server, of the same kind.
fn redis(runtime: &Runtime, url: &str, clients: usize) -> Table<'static> {
    let client = ::redis::Client::open(url).expect("STEADFAST_REDIS is a URL");
    let bare = runtime.block_on(ConnectionManager::new(client)).expect("Redis answers");
    let store = runtime.block_on(RedisStore::connect(url)).expect("Redis answers");
    let prefix = format!("bench-{}:", process::id());
    let store = store.prefix(prefix.clone());
    let scripted = bare.clone();
    let script_prefix = prefix.clone();
    let mut set = || {
        let (connection, prefix) = (bare.clone(), prefix.clone());
        rate(runtime, clients, move |n| {
            let mut connection = connection.clone();
            let key = format!("{prefix}set:{}", request(n).0);
            async move {
                let mut set = ::redis::cmd("SET");
                set.arg(key).arg(&RECORD[..]).arg("NX").arg("PX").arg(7_200_000);
                set.exec_async(&mut connection).await.expect("Redis answers");
            }
        })
    };
    let script = ::redis::Script::new("return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', 7200000)");
    let mut eval = || {
        let (connection, prefix, script) = (scripted.clone(), script_prefix.clone(), script.clone());
        rate(runtime, clients, move |n| {
            let (mut connection, script) = (connection.clone(), script.clone());
            let key = format!("{prefix}eval:{}", request(n).0);
            async move {
                let mut call = script.prepare_invoke();
                call.key(key).arg(&RECORD[..]);
                call.invoke_async::<()>(&mut connection).await.expect("Redis answers");
            }
        })
    };
    let claims = store.clone();
    let mut claims = || {
        let store = claims.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim(&store, n).await }
        })
    };
    let mut both = || {
        let store = store.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim_and_complete(&store, n).await }
        })
    };
    Table::measure(&mut [
        ("bare: SET", &mut set),
        ("bare: a script with one SET", &mut eval),
        ("claim", &mut claims),
        ("claim and complete", &mut both),
    ])
}

/// Each client has a connection of its own. The bare one is one insert for each round trip, of the row that a claim writes,
/// into a table with the primary key alone; it comes from the same pool, is committed by itself, and is prepared where the
/// claims are.
fn postgres(runtime: &Runtime, url: &str, clients: usize, prepared: bool) -> Table<'static> {
    let pool = runtime.block_on(pool(url, clients));
    let storage = PostgresStorage::new(pool.clone());
    let store = PostgresStore::new(&if prepared { storage.prepared() } else { storage });
    runtime.block_on(store.migrate()).expect("the tables can be made");
    let mut bare = || {
        let pool = pool.clone();
        rate(runtime, clients, move |n| {
            let pool = pool.clone();
            async move { insert(&pool, n, prepared).await }
        })
    };
    let claims = store.clone();
    let mut claims = || {
        let store = claims.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim(&store, n).await }
        })
    };
    runtime.block_on(claim_and_complete(&store, 0));
    let mut replays = || {
        let store = store.clone();
        rate(runtime, clients, move |_| {
            let store = store.clone();
            async move {
                let (id, claim) = request(0);
                store.claim(id, &claim).await.expect("the store answers");
            }
        })
    };
    let mut both = || {
        let store = store.clone();
        rate(runtime, clients, move |n| {
            let store = store.clone();
            async move { claim_and_complete(&store, n).await }
        })
    };
    Table::measure(&mut [
        ("bare: an insert for each round trip", &mut bare),
        ("claim", &mut claims),
        ("replay", &mut replays),
        ("claim and complete", &mut both),
    ])
}

/// A pool of so many connections to a database of its own.
async fn pool(url: &str, connections: usize) -> Pool {
    let mut config: Config = url.parse().expect("it is a URL");
    let pool = |config: &Config| {
        let builder = Pool::builder(Manager::new(config.clone(), NoTls));
        builder.max_size(connections).build().expect("it has no timeouts")
    };
    let admin = pool(&config).get().await.expect("the server is there");
    for statement in [
        "DROP DATABASE IF EXISTS steadfast_bench WITH (FORCE)",
        "CREATE DATABASE steadfast_bench",
    ] {
        admin.batch_execute(statement).await.expect("a database can be made");
    }
    config.dbname("steadfast_bench");
    let pool = pool(&config);
    let table =
        "CREATE TABLE bare (id bytea PRIMARY KEY, state smallint NOT NULL, claim_id bytea, fence bigint NOT NULL,
        attempt bigint, fingerprint bytea, lease_until timestamptz, expires_at timestamptz, origin text)";
    let client = pool.get().await.expect("the server is there");
    client.batch_execute(table).await.expect("a table can be made");
    pool
}

async fn insert(pool: &Pool, n: u64, prepared: bool) {
    let (id, claim) = request(n);
    let client = pool.get().await.expect("the server is there");
    let values: [(&(dyn ToSql + Sync), Type); 4] = [
        (&&id.as_bytes()[..], Type::BYTEA),
        (&&claim.claim_id.as_bytes()[..], Type::BYTEA),
        (&&claim.fingerprint.as_bytes()[..], Type::BYTEA),
        (&claim.origin.as_str(), Type::TEXT),
    ];
    let insert = "INSERT INTO bare (id, state, claim_id, fence, attempt, fingerprint, lease_until, expires_at, origin)
        VALUES ($1, 1, $2, 1, 1, $3, statement_timestamp(), statement_timestamp(), $4) RETURNING fence";
    if prepared {
        let types = [Type::BYTEA, Type::BYTEA, Type::BYTEA, Type::TEXT];
        let statement = client.prepare_typed_cached(insert, &types).await;
        let statement = statement.expect("the statement is right");
        let values = values.map(|(value, _)| value);
        client.query(&statement, &values).await.expect("a new row");
    } else {
        client.query_typed(insert, &values).await.expect("a new row");
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("steadfast-bench-{}-{}", process::id(), next()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
