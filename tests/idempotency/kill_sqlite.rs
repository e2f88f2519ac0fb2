//! A process is killed at every durable write of an operation on SQLite, and anywhere else, and started again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use steadfast::idempotency::{Attempt, Idempotency, SqliteStore};
use steadfast::storage::rusqlite::{self, Connection, TransactionBehavior};
use steadfast::{Error, Key};
use tokio::runtime::Builder;

use super::support::folder::Folder;
use super::support::kill::{self, Child, Effects, Stop, kills};
use super::support::many::{self, MANY, insist};
use super::support::stopping::Stopping;

const CHILD: &str = "kill_sqlite::child";

/// Long enough for a slow disk, and no longer: whoever starts again waits for its end.
const LEASE: Duration = Duration::from_secs(1);

#[test]
fn child() {
    let Some(child) = kill::child() else { return };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    match child.scenario() {
        "at_most_once" => runtime.block_on(one_operation(&child, true)),
        "at_least_once" => runtime.block_on(one_operation(&child, false)),
        "many" => runtime.block_on(many_operations(&child)),
        "tx" => runtime.block_on(one_booking(&child)),
        "many_tx" => runtime.block_on(many_bookings(&child)),
        other => panic!("no scenario {other}"),
    }
    child.finished();
}

async fn store(child: &Child) -> SqliteStore {
    let store = SqliteStore::open(format!("{}/app.db", child.place())).await.unwrap();
    store.migrate().await.unwrap();
    store
}

fn effects(place: &str) -> Effects {
    Effects::new(format!("{place}/effects"))
}

fn builder(store: Stopping<SqliteStore>, at_most_once: bool) -> Idempotency {
    let builder = if at_most_once {
        Idempotency::at_most_once(store)
    } else {
        Idempotency::at_least_once(store)
    };
    builder.lease(LEASE).build().unwrap()
}

/// One operation: it notes a checkpoint, then has its effect.
async fn one_operation(child: &Arc<Child>, at_most_once: bool) {
    let effects = effects(child.place());
    let idempotency = builder(Stopping::new(store(child).await, child), at_most_once);
    let operation = async |attempt: Attempt| {
        if let Some(noted) = attempt.checkpoint() {
            child.say(&format!("checkpoint {}", String::from_utf8_lossy(noted)));
        }
        let number = attempt.number();
        attempt.save_checkpoint(format!("of attempt {number}")).await?;
        child.reach("before the effect");
        effects.append(&format!("{number} {}", attempt.derived_key("charge")));
        child.reach("after the effect");
        Ok(number.to_string())
    };
    let outcome = insist(&idempotency, &Key::new("tenant-7", "order-1234"), operation).await;
    child.say(&outcome);
}

/// What is left after a kill at `point`, and after the restart.
struct Left {
    point: String,
    /// What the restarted process said.
    said: Vec<String>,
    /// The attempts that had an effect, and their keys.
    effects: Vec<(String, String)>,
}

/// Kills the scenario at each of its points, in a folder of its own, and starts it again there.
fn killed_everywhere(scenario: &'static str) -> Vec<Left> {
    let points = {
        let folder = Folder::new();
        kill::run(CHILD, scenario, folder.path().to_str().unwrap(), Stop::Never).points
    };
    let kills = kills(points);
    let kill_at = |point: usize| {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap();
        let killed = kill::run(CHILD, scenario, place, Stop::At(point));
        let restarted = kill::run(CHILD, scenario, place, Stop::Never);
        let effects = effects(place).lines().into_iter();
        let split = |line: String| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        Left {
            point: killed.at.expect("it stops at every point"),
            said: restarted.said,
            effects: effects.map(split).collect(),
        }
    };
    let mut left = Vec::new();
    // A few at a time: each spends most of its time waiting for the lease of who was killed.
    for batch in (0..kills).collect::<Vec<_>>().chunks(8) {
        thread::scope(|scope| {
            let runs: Vec<_> = batch
                .iter()
                .map(|n| scope.spawn(move || kill_at(n % points + 1)))
                .collect();
            left.extend(runs.into_iter().map(|run| run.join().unwrap()));
        });
    }
    println!("figure: processes killed: {kills}");
    println!("{scenario}: killed {kills} times, at {points} points");
    left
}

#[test]
fn killed_anywhere_an_operation_has_its_effect_at_most_once() {
    for Left { point, said, effects } in killed_everywhere("at_most_once") {
        let attempts: Vec<_> = effects.iter().map(|(attempt, _)| attempt.as_str()).collect();
        let (outcome, expected): (&str, &[&str]) = match point.as_str() {
            "before claim" => ("Executed 1", &["1"]),
            "after claim" | "before renew" | "after renew" | "before the effect" => ("OutcomeUnknown", &[]),
            "after the effect" | "before complete" => ("OutcomeUnknown", &["1"]),
            "after complete" => ("Replayed 1", &["1"]),
            other => panic!("no point {other}"),
        };
        assert_eq!(
            (said, attempts.as_slice()),
            (vec![outcome.to_owned()], expected),
            "{point}"
        );
    }
}

#[test]
fn killed_anywhere_an_operation_is_run_again_only_where_it_was_interrupted() {
    for Left { point, said, effects } in killed_everywhere("at_least_once") {
        let attempts: Vec<_> = effects.iter().map(|(attempt, _)| attempt.as_str()).collect();
        let (outcome, expected): (&[&str], &[&str]) = match point.as_str() {
            "before claim" => (&["Executed 1"], &["1"]),
            "after claim" | "before renew" => (&["Executed 2"], &["2"]),
            "after renew" | "before the effect" => (&["checkpoint of attempt 1", "Executed 2"], &["2"]),
            "after the effect" | "before complete" => (&["checkpoint of attempt 1", "Executed 2"], &["1", "2"]),
            "after complete" => (&["Replayed 1"], &["1"]),
            other => panic!("no point {other}"),
        };
        assert_eq!(said, outcome, "{point}");
        assert_eq!(attempts, expected, "{point}");
        let keys: BTreeSet<_> = effects.iter().map(|(_, key)| key).collect();
        assert!(keys.len() <= 1, "{point}: {keys:?}");
    }
}

async fn many_operations(child: &Arc<Child>) {
    let idempotency = builder(Stopping::new(store(child).await, child), true);
    many::operations(child, &idempotency, &effects(child.place()), 8).await;
}

#[test]
fn killed_at_any_moment_no_acknowledged_outcome_is_lost_and_none_happens_twice() {
    let kills = kills(3);
    let mut acknowledged = 0;
    for n in 0..kills {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap();
        let moment = many::moment(n);
        let killed = kill::run(CHILD, "many", place, Stop::After(moment));
        acknowledged += killed.said.len();
        let restarted = kill::run(CHILD, "many", place, Stop::Never);
        many::agree(&killed.said, &restarted.said, effects(place).lines(), moment);
        sound(&folder);
    }
    println!("figure: processes killed: {kills}");
    println!("many: killed {kills} times, {acknowledged} outcomes were acknowledged before");
}

fn sound(folder: &Folder) {
    let connection = Connection::open(folder.file()).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

type Booking = Result<u32, Error<rusqlite::Error>>;

fn book(child: &Child, connection: &mut Connection, bookings: &Idempotency, seat: u32) -> Booking {
    child.reach("before begin");
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(Error::Inner)?;
    let key = Key::new("tenant-7", seat.to_string());
    let booked = bookings.once_in_sqlite_tx(&tx, &key, &seat, |tx| {
        child.reach("before the effect");
        let booked = tx.execute("INSERT INTO booking (seat) VALUES (?1)", [seat]);
        child.reach("after the effect");
        booked.map(|_| seat).map_err(Error::Inner)
    })?;
    child.reach("before commit");
    tx.commit().map_err(Error::Inner)?;
    child.reach("after commit");
    Ok(booked)
}

async fn bookings(child: &Child) -> (Connection, Idempotency) {
    let store = store(child).await;
    let connection = Connection::open(store.storage().path()).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS booking (seat INTEGER)")
        .unwrap();
    (connection, Idempotency::at_most_once(store).build().unwrap())
}

async fn one_booking(child: &Child) {
    let (mut connection, bookings) = bookings(child).await;
    let seat = book(child, &mut connection, &bookings, 12).unwrap();
    child.say(&seat.to_string());
}

async fn many_bookings(child: &Child) {
    let (mut connection, bookings) = bookings(child).await;
    child.begun();
    for seat in 0..MANY {
        let booked = book(child, &mut connection, &bookings, seat).unwrap();
        child.say(&booked.to_string());
    }
}

/// How many effects there are, and how many records; all of them completed.
fn effects_and_records(folder: &Folder) -> (u32, u32) {
    let connection = Connection::open(folder.file()).unwrap();
    let count = |sql| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM steadfast_idempotency WHERE status <> 1"), 0);
    let effects = count("SELECT count(*) FROM booking");
    assert_eq!(
        effects,
        count("SELECT count(DISTINCT seat) FROM booking"),
        "one is there twice"
    );
    (effects, count("SELECT count(*) FROM steadfast_idempotency"))
}

#[test]
fn killed_anywhere_in_a_transaction_effect_and_record_agree() {
    let folder = Folder::new();
    let points = kill::run(CHILD, "tx", folder.path().to_str().unwrap(), Stop::Never).points;
    assert_eq!(points, 5);
    let kills = kills(points);
    for n in 0..kills {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap();
        let point = kill::run(CHILD, "tx", place, Stop::At(n % points + 1)).at.unwrap();
        let (effects, records) = effects_and_records(&folder);
        let committed = u32::from(point == "after commit");
        assert_eq!((effects, records), (committed, committed), "{point}");
        let restarted = kill::run(CHILD, "tx", place, Stop::Never);
        assert_eq!(restarted.said, ["12"], "{point}");
        assert_eq!(effects_and_records(&folder), (1, 1), "{point}");
    }
    println!("figure: processes killed: {kills}");
    println!("tx: killed {kills} times, at {points} points");
}

#[test]
fn killed_at_any_moment_effects_and_records_agree() {
    let kills = kills(3);
    for n in 0..kills {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap();
        let moment = many::moment(n);
        let killed = kill::run(CHILD, "many_tx", place, Stop::After(moment));
        let (effects, records) = effects_and_records(&folder);
        assert_eq!(effects, records, "killed after {moment:?}");
        let acknowledged = u32::try_from(killed.said.len()).unwrap();
        assert!(
            effects >= acknowledged,
            "{acknowledged} were acknowledged, {effects} are there"
        );
        kill::run(CHILD, "many_tx", place, Stop::Never);
        assert_eq!(effects_and_records(&folder), (MANY, MANY));
        sound(&folder);
    }
    println!("figure: processes killed: {kills}");
    println!("many_tx: killed {kills} times");
}
