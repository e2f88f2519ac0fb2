//! A process is killed at every durable write of an operation on PostgreSQL, and the server in the midst of many.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures::future::join_all;
use steadfast::idempotency::store::{Status, Store};
use steadfast::idempotency::{Attempt, Fingerprint, Idempotency, PostgresStore, Source};
use steadfast::storage::tokio_postgres::{self, Client, NoTls};
use steadfast::{Error, Key, Rejected};
use tokio::runtime::{Builder, Runtime};

use super::support::folder::Folder;
use super::support::kill::{self, Child, Effects, Stop, kills};
use super::support::many::{self, insist};
use super::support::postgres::Database;
use super::support::postgres_to_crash_url;
use super::support::stopping::Stopping;

const CHILD: &str = "kill_postgres::child";

/// Long enough for a slow disk, and no longer: whoever starts again waits for its end.
const LEASE: Duration = Duration::from_secs(1);

/// Where a child works: a database that is migrated, a key in it, and a file for its effects.
struct Place {
    url: String,
    key: String,
    effects: String,
}

impl Place {
    fn of(text: &str) -> Self {
        let mut parts = text.split(' ').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        Self {
            url: next(),
            key: next(),
            effects: next(),
        }
    }

    async fn store(&self) -> PostgresStore {
        PostgresStore::connect(&self.url).await.unwrap()
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn key(&self) -> Key {
        Key::new("tenant-7", &self.key)
    }
}

#[test]
fn child() {
    let Some(child) = kill::child() else { return };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let place = Place::of(child.place());
    match child.scenario() {
        "operation" => runtime.block_on(operation(&child, &place)),
        "booking" => runtime.block_on(booking(&child, &place)),
        "many" => runtime.block_on(many_operations(&child, &place)),
        other => panic!("no scenario {other}"),
    }
    child.finished();
}

/// One operation: it notes a checkpoint, then has its effect. Run until the lease of a holder that died is over.
async fn operation(child: &Arc<Child>, place: &Place) {
    let effects = &Effects::new(&place.effects);
    let store = Stopping::new(place.store().await, child);
    let idempotency = Idempotency::at_most_once(store).lease(LEASE).build().unwrap();
    let operation = async |attempt: Attempt| {
        attempt.save_checkpoint("noted").await?;
        child.reach("before the effect");
        effects.append(&attempt.number().to_string());
        child.reach("after the effect");
        Ok(attempt.number().to_string())
    };
    child.say(&insist(&idempotency, &place.key(), operation).await);
}

/// More at once than have turns, so that most claims and completions go with others.
async fn many_operations(child: &Arc<Child>, place: &Place) {
    let store = Stopping::new(place.store().await, child);
    let idempotency = Idempotency::at_most_once(store).lease(LEASE).build().unwrap();
    many::operations(child, &idempotency, &Effects::new(&place.effects), 64).await;
}

async fn booking(child: &Arc<Child>, place: &Place) {
    let mut client = place.client().await;
    let bookings = Idempotency::at_most_once(place.store().await).build().unwrap();
    child.reach("before begin");
    let mut tx = client.transaction().await.unwrap();
    let seat = bookings.once_in_postgres_tx(&mut tx, &place.key(), "12 A", async |tx| {
        child.reach("before the effect");
        tx.execute("INSERT INTO booking VALUES ($1)", &[&place.key]).await?;
        child.reach("after the effect");
        Ok::<u32, Error<tokio_postgres::Error>>(12)
    });
    let seat = seat.await.unwrap();
    child.reach("before commit");
    tx.commit().await.unwrap();
    child.reach("after commit");
    child.say(&seat.to_string());
}

/// The server's database, for a child.
fn url_of(database: &str) -> String {
    let url: tokio_postgres::Config = super::support::postgres_url().unwrap().parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &url.get_hosts()[0] else {
        panic!("no host")
    };
    format!("postgres://postgres@{host}:{}/{database}", url.get_ports()[0])
}

/// Kills a scenario at each of its points, under a key of its own, and starts it again: where it was killed, what the
/// second run said, and the key.
fn killed_everywhere(scenario: &'static str, database: &str) -> Vec<(String, Vec<String>, Place)> {
    let folder = Folder::new();
    let url = url_of(database);
    let place = |n: usize| format!("{url} {n} {}/{n}", folder.path().display());
    let points = kill::run(CHILD, scenario, &place(0), Stop::Never).points;
    let kills = kills(points);
    let kill_at = |n: usize| {
        let place = place(n + 1);
        let killed = kill::run(CHILD, scenario, &place, Stop::At(n % points + 1));
        let restarted = kill::run(CHILD, scenario, &place, Stop::Never);
        (
            killed.at.expect("it stops at every point"),
            restarted.said,
            Place::of(&place),
        )
    };
    let mut left = Vec::new();
    // A few at a time: each spends most of its time waiting for the lease of who was killed.
    for batch in (0..kills).collect::<Vec<_>>().chunks(8) {
        thread::scope(|scope| {
            let runs: Vec<_> = batch.iter().map(|n| scope.spawn(move || kill_at(*n))).collect();
            left.extend(runs.into_iter().map(|run| run.join().unwrap()));
        });
    }
    println!("figure: processes killed: {kills}");
    println!("{scenario} on PostgreSQL: killed {kills} times, at {points} points");
    for (_, _, place) in &mut left {
        place.effects = Effects::new(&place.effects).lines().join(" ");
    }
    left
}

#[test]
fn killed_anywhere_an_operation_has_its_effect_at_most_once() {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(Database::new("killed")) else {
        return;
    };
    runtime.block_on(database.store(1));
    for (point, said, place) in killed_everywhere("operation", "steadfast_killed") {
        let (outcome, effects) = match point.as_str() {
            "before claim" => ("Executed 1", "1"),
            "after claim" | "before renew" | "after renew" | "before the effect" => ("OutcomeUnknown", ""),
            "after the effect" | "before complete" => ("OutcomeUnknown", "1"),
            "after complete" => ("Replayed 1", "1"),
            other => panic!("no point {other}"),
        };
        assert_eq!(
            (said, place.effects.as_str()),
            (vec![outcome.to_owned()], effects),
            "{point}"
        );
    }
}

#[test]
fn killed_anywhere_in_a_transaction_effect_and_record_agree() {
    let runtime = Runtime::new().unwrap();
    let Some(database) = runtime.block_on(Database::new("killed_tx")) else {
        return;
    };
    runtime.block_on(database.store(1));
    runtime.block_on(database.execute("CREATE TABLE booking (key text)"));
    for (point, said, place) in killed_everywhere("booking", "steadfast_killed_tx") {
        assert_eq!(said, ["12"], "{point}");
        let booked = runtime.block_on(async {
            let client = database.client().await;
            let booked = "SELECT count(*) FROM booking WHERE key = $1";
            client.query_one(booked, &[&place.key]).await.unwrap().get::<_, i64>(0)
        });
        assert_eq!(booked, 1, "{point}");
    }
}

#[test]
fn killed_at_any_moment_no_acknowledged_outcome_is_lost_and_none_happens_twice() {
    let runtime = Runtime::new().unwrap();
    if super::support::postgres_url().is_none() {
        return;
    }
    let kills = kills(3);
    let mut acknowledged = 0;
    for n in 0..kills {
        let database = runtime.block_on(Database::new("killed_many")).unwrap();
        runtime.block_on(database.store(1));
        let folder = Folder::new();
        let place = format!(
            "{} key {}/effects",
            url_of("steadfast_killed_many"),
            folder.path().display()
        );
        // It makes connections first.
        let moment = Duration::from_millis(40) + many::moment(n) * 3;
        let killed = kill::run(CHILD, "many", &place, Stop::After(moment));
        acknowledged += killed.said.len();
        let restarted = kill::run(CHILD, "many", &place, Stop::Never);
        let effects = Effects::new(&Place::of(&place).effects).lines();
        many::agree(&killed.said, &restarted.said, effects, moment);
    }
    println!("figure: processes killed: {kills}");
    assert!(acknowledged > 0);
    println!("many on PostgreSQL: killed {kills} times, {acknowledged} outcomes were acknowledged before");
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Waits until the server has ended the connection of `witness`, as it does in a crash, and takes new ones again.
async fn recovered(url: &str, witness: Client) {
    while !witness.is_closed() || connect(url).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills one process of the server, which ends all of them and recovers from its log.
async fn crash(url: &str) {
    let client = connect(url).await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

/// One operation after the other until the server crashes: those whose outcome was stored.
async fn operations_until(crashed: &AtomicBool, idempotency: &Idempotency, lane: usize) -> Vec<Key> {
    let mut stored = Vec::new();
    for n in 0.. {
        let key = Key::new("tenant-7", format!("{lane} {n}"));
        let request = Fingerprint::of("100 EUR").unwrap();
        let charge = async |_: Attempt| Ok::<_, Rejected>(n);
        match idempotency.execute(&key, request, charge).await {
            Ok(executed) if executed.source == Source::Executed => stored.push(key),
            Ok(_) | Err(_) => break,
        }
        if crashed.load(Ordering::SeqCst) {
            break;
        }
    }
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_loses_no_acknowledged_outcome() {
    let Some(url) = postgres_to_crash_url() else { return };
    let kills = kills(3);
    let mut kept = 0;
    for round in 0..kills {
        let database = Database::at(&url, "crashed").await;
        let store = database.store(16).await;
        let witness = connect(&url).await.unwrap();
        let idempotency = Idempotency::at_most_once(store.clone()).build().unwrap();
        let crashed = AtomicBool::new(false);
        let lanes = join_all((0..32).map(|lane| operations_until(&crashed, &idempotency, lane)));
        let crash = async {
            let moment = u64::try_from(200 + round * 37 % 150).unwrap();
            tokio::time::sleep(Duration::from_millis(moment)).await;
            crash(&url).await;
            crashed.store(true, Ordering::SeqCst);
        };
        let (stored, ()) = tokio::join!(lanes, crash);
        for key in stored.into_iter().flatten() {
            let found = loop {
                match store.inspect(idempotency.id(&key)).await {
                    Ok(found) => break found,
                    // It recovers.
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(50)).await,
                    Err(error) => panic!("{error:?}"),
                }
            };
            assert_eq!(found.map(|found| found.status()), Some(Status::Completed));
            kept += 1;
        }
        // Where nothing was stored before the crash, nothing else has waited for that.
        recovered(&url, witness).await;
    }
    println!("figure: processes killed: {kills}");
    println!("PostgreSQL: crashed {kills} times, {kept} outcomes that it had acknowledged are there");
    assert!(kept > 0);
}
