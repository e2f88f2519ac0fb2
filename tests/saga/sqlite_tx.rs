//! Steps whose effect is in the journal's own SQLite file: with their record, or not at all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::{CancelRequest, Journal, MemoryJournal, SqliteJournal};
use steadfast::saga::{
    Cx, Event, Known, Reason, Report, Saga, SagaBuilder, SagaEngine, SagaError, SagaId, Step, StepError, StepResult,
};
use steadfast::storage::rusqlite::{self, Connection};
use steadfast::{Backoff, Effect, Key};

use super::support::folder::Folder;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Trip {
    steps: Vec<String>,
    price: f64,
}

type Ended = Result<Trip, SagaError>;

/// A file with a table of bookings, and a journal in it.
struct File {
    folder: Folder,
    journal: SqliteJournal,
}

impl File {
    async fn new() -> Self {
        let folder = Folder::new();
        let journal = SqliteJournal::open(folder.file()).await.unwrap();
        journal.migrate().await.unwrap();
        let file = Self { folder, journal };
        let tables = "CREATE TABLE booking (seat TEXT UNIQUE ON CONFLICT ROLLBACK); CREATE TABLE note (text TEXT)";
        file.connection().execute_batch(tables).unwrap();
        file
    }

    fn connection(&self) -> Connection {
        Connection::open(self.folder.file()).unwrap()
    }

    fn booked(&self) -> Vec<String> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT seat FROM booking ORDER BY seat").unwrap();
        let seats = statement.query_map([], |row| row.get(0)).unwrap();
        seats.map(Result::unwrap).collect()
    }

    fn engine(&self, saga: &Saga<Trip>) -> SagaEngine {
        SagaEngine::builder(self.journal.clone())
            .register(saga)
            .poll_interval(Duration::from_millis(10))
            .build()
            .unwrap()
    }

    async fn run(&self, saga: SagaBuilder<Trip>) -> (SagaId, Ended) {
        let saga = saga.build().unwrap();
        let started = self
            .engine(&saga)
            .start(&saga, &Key::new("shop", "1"), Trip::default())
            .await
            .unwrap();
        (started.id(), started.await)
    }

    async fn events(&self, id: SagaId) -> Vec<Event> {
        let loaded = self.journal.load(id).await.unwrap().unwrap();
        let entries = loaded.entries.iter();
        entries
            .map(|stored| serde_json::from_slice(&stored.entry.event).unwrap())
            .collect()
    }
}

fn book(connection: &Connection, seat: &str) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO booking (seat) VALUES (?1)", [seat])
}

/// A booking of 12 A that ends with `ends`.
fn booking(ends: impl Fn(&Connection) -> StepResult + Send + Sync + 'static) -> Step<Trip> {
    let step = Step::sqlite_tx("book", move |cx: &mut Cx<Trip>, connection: &Connection| {
        book(connection, "12 A")?;
        cx.steps.push("book".into());
        ends(connection)
    });
    step.backoff(Backoff::constant(Duration::from_millis(1)))
}

fn report(ended: Ended) -> Report {
    match ended {
        Err(SagaError::Compensated(report)) => *report,
        other => panic!("{other:?}"),
    }
}

fn saga(step: Step<Trip>) -> SagaBuilder<Trip> {
    Saga::builder("trip").with(step)
}

#[tokio::test]
async fn effect_and_record_are_one_transaction() {
    let file = File::new().await;
    let seen = Arc::new(Mutex::new(None));
    let (noted, place) = (Arc::clone(&seen), file.folder.file());
    // Whoever looks from outside while the step runs sees neither its effect nor its record.
    let step = booking(move |_| {
        let outside = Connection::open(&place).unwrap();
        let count = "SELECT (SELECT count(*) FROM booking), (SELECT count(*) FROM steadfast_saga_event)";
        let counts: (u32, u32) = outside.query_row(count, [], |row| row.try_into()).unwrap();
        *noted.lock().unwrap() = Some(counts);
        Ok(())
    });
    let (id, ended) = file.run(saga(step)).await;
    assert_eq!(ended.unwrap().steps, ["book"]);
    assert_eq!(*seen.lock().unwrap(), Some((0, 1)));
    assert_eq!(file.booked(), ["12 A"]);
    let events = file.events(id).await;
    let expected = matches!(
        &events[..],
        [Event::Created { .. }, Event::Succeeded { .. }, Event::Finished { .. }]
    );
    assert!(expected, "{events:?}");
}

#[tokio::test]
async fn what_fails_leaves_nothing_and_is_never_in_doubt() {
    let file = File::new().await;
    let (id, ended) = file
        .run(saga(booking(|_| Err(StepError::fatal_unknown("it broke")))))
        .await;
    let report = report(ended);
    assert!(report.unresolved.is_empty());
    assert!(file.booked().is_empty());
    let events = file.events(id).await;
    let failed = events.iter().find_map(|event| match event {
        Event::Failed { effect, retryable, .. } => Some((*effect, *retryable)),
        _ => None,
    });
    assert_eq!(failed, Some((Effect::None, false)));
    assert!(
        !events.iter().any(|event| matches!(event, Event::UndoStarted { .. })),
        "{events:?}"
    );
}

#[tokio::test]
async fn an_error_of_sqlite_is_tried_again_and_what_it_had_done_is_undone() {
    let file = File::new().await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let step = booking(move |connection| {
        if counted.fetch_add(1, Ordering::Relaxed) < 2 {
            connection.execute("INSERT INTO nowhere VALUES (1)", [])?;
        }
        Ok(())
    });
    let (_, ended) = file.run(saga(step)).await;
    ended.unwrap();
    assert_eq!(
        (file.booked(), runs.load(Ordering::Relaxed)),
        (vec!["12 A".to_owned()], 3)
    );
}

#[tokio::test]
async fn a_panic_leaves_nothing_and_the_writer_goes_on() {
    let file = File::new().await;
    let (_, ended) = file.run(saga(booking(|_| panic!("scripted")))).await;
    let cause = report(ended).cause.unwrap();
    let text = std::error::Error::source(&cause).unwrap();
    let text = text.source().unwrap().to_string();
    assert!(text.contains("scripted"), "{text}");
    assert!(file.booked().is_empty());
}

#[tokio::test]
async fn a_context_that_cannot_be_read_again_fails_the_step_and_leaves_nothing() {
    let file = File::new().await;
    let step = Step::sqlite_tx("book", |cx: &mut Cx<Trip>, connection: &Connection| {
        book(connection, "12 A")?;
        // JSON has no such number.
        cx.price = f64::NAN;
        Ok(())
    });
    report(file.run(saga(step)).await.1);
    assert!(file.booked().is_empty());
}

#[tokio::test]
async fn what_would_end_the_transaction_or_change_the_file_s_settings_fails() {
    for statement in [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "RELEASE steadfast",
        "ROLLBACK TO steadfast",
        "SAVEPOINT steadfast",
        "ATTACH ':memory:' AS other",
        "PRAGMA synchronous = OFF",
    ] {
        let file = File::new().await;
        // In the cache of statements from before, and new.
        let step = booking(move |connection| {
            let cached = connection
                .prepare_cached(statement)
                .and_then(|mut statement| statement.execute([]));
            assert!(cached.is_err(), "{statement}");
            assert!(connection.execute_batch(statement).is_err(), "{statement}");
            Ok(())
        });
        let (_, ended) = file.run(saga(step)).await;
        assert!(ended.is_ok(), "{statement}: {ended:?}");
        assert_eq!(file.booked(), ["12 A"], "{statement}");
    }
}

#[tokio::test]
async fn savepoints_and_reading_of_settings_are_the_step_s_own_business() {
    let file = File::new().await;
    let step = booking(|connection| {
        connection.execute_batch("SAVEPOINT mine; INSERT INTO note VALUES ('x'); ROLLBACK TO mine; RELEASE mine")?;
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        assert_eq!(mode, "wal");
        Ok(())
    });
    file.run(saga(step)).await.1.unwrap();
    let notes = "SELECT count(*) FROM note";
    let notes: u32 = file.connection().query_row(notes, [], |row| row.get(0)).unwrap();
    assert_eq!((file.booked().len(), notes), (1, 0));
}

#[tokio::test]
async fn an_error_that_undoes_the_whole_transaction_is_a_failure_of_the_step_alone() {
    for ignored in [false, true] {
        let file = File::new().await;
        book(&file.connection(), "7 C").unwrap();
        // Its table has a constraint that rolls back.
        let step = booking(move |connection| match book(connection, "7 C") {
            Err(_) if ignored => Ok(()),
            booked => Ok(booked.map(drop).map_err(|error| StepError::failed(error.to_string()))?),
        });
        let (id, ended) = file.run(saga(step)).await;
        report(ended);
        assert_eq!(file.booked(), ["7 C"]);
        let loaded = file.journal.load(id).await.unwrap().unwrap();
        assert_eq!(loaded.head.epoch, 1, "its lease was lost");
    }
}

#[tokio::test]
async fn such_a_step_is_undone_by_an_undo_as_any_other() {
    let file = File::new().await;
    let place = file.folder.file();
    let undo = async move |cx: &mut Cx<Trip>| {
        assert_eq!(cx.outcome(), Known::Completed);
        let gone = Connection::open(&place)?.execute("DELETE FROM booking", [])?;
        assert_eq!(gone, 1);
        Ok(())
    };
    let fails = |_: &mut Cx<Trip>, _: &Connection| Err(StepError::failed("no"));
    let pay = Step::sqlite_tx("pay", fails).as_pivot();
    let (_, ended) = file.run(saga(booking(|_| Ok(())).with_undo(undo)).with(pay)).await;
    report(ended);
    assert!(file.booked().is_empty());
}

#[tokio::test]
async fn pivot_and_what_comes_after_it_are_in_the_file() {
    let file = File::new().await;
    let sent = Step::sqlite_tx("send", |cx: &mut Cx<Trip>, connection: &Connection| {
        connection.execute("INSERT INTO note VALUES (?1)", [cx.steps.join(" ")])?;
        cx.steps.push("send".into());
        Ok(())
    })
    .as_retriable();
    let paid = Step::sqlite_tx("pay", |cx: &mut Cx<Trip>, connection: &Connection| {
        book(connection, "12 A")?;
        cx.steps.push("pay".into());
        Ok(())
    })
    .as_pivot();
    let (id, ended) = file.run(saga(paid).with(sent)).await;
    assert_eq!(ended.unwrap().steps, ["pay", "send"]);
    let note: String = file
        .connection()
        .query_row("SELECT text FROM note", [], |row| row.get(0))
        .unwrap();
    assert_eq!(note, "pay");
    assert_eq!(file.events(id).await.len(), 4);
}

#[tokio::test]
async fn a_request_to_turn_back_that_is_noted_comes_before_the_pivot() {
    let file = File::new().await;
    let journal = file.journal.clone();
    let requested = async move |cx: &mut Cx<Trip>| {
        // By another process: this one hears of it from the journal alone.
        assert_eq!(journal.request_cancel(cx.saga_id()).await?, CancelRequest::Requested);
        Ok(())
    };
    let paid = |_: &mut Cx<Trip>, _: &Connection| panic!("it was to turn back");
    let builder = Saga::builder("trip").read_only("wait", requested);
    let (id, ended) = file.run(builder.with(Step::sqlite_tx("pay", paid).as_pivot())).await;
    report(ended);
    let turned = file.events(id).await;
    assert!(
        turned.iter().any(|event| matches!(
            event,
            Event::Unwinding {
                reason: Reason::Cancelled
            }
        )),
        "{turned:?}"
    );
}

/// A step of its process before it takes the file away, so that the one in the file has to wait for longer than one try.
#[tokio::test]
async fn a_file_that_is_busy_for_longer_than_a_try_has_the_effect_once() {
    let file = File::new().await;
    let (place, runs) = (file.folder.file(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&runs);
    let saga = Saga::<Trip>::builder("trip")
        .read_only("wait", async move |_: &mut Cx<Trip>| {
            let other = Connection::open(&place).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(900)).await;
                other.execute_batch("ROLLBACK").unwrap();
            });
            Ok(())
        })
        .with(booking(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))
        .build()
        .unwrap();
    // A try is a third of it.
    let lease = Duration::from_millis(1_500);
    let engine = SagaEngine::builder(file.journal.clone()).register(&saga).lease(lease);
    let engine = engine.build().unwrap();
    let started = engine
        .start(&saga, &Key::new("shop", "1"), Trip::default())
        .await
        .unwrap();
    let id = started.id();
    started.await.unwrap();
    assert_eq!((file.booked().len(), runs.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(file.events(id).await.len(), 5);
}

#[tokio::test]
async fn without_a_file_such_a_saga_is_refused_and_nothing_of_it_begins() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let builder = Saga::<Trip>::builder("trip")
        .pivot("pay", async move |_: &mut Cx<Trip>| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .with(Step::sqlite_tx("send", |_: &mut Cx<Trip>, _: &Connection| Ok(())).as_retriable());
    let saga = builder.build().unwrap();
    let refused = SagaEngine::builder(MemoryJournal::new())
        .register(&saga)
        .build()
        .unwrap_err();
    assert!(refused.to_string().contains("send"), "{refused}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}
