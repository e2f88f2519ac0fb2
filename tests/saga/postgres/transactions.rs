//! Steps in transactions of the journal: their effect and the note of it are there together, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::{Journal, MemoryJournal, PostgresJournal};
use steadfast::saga::{Cx, DurableSaga, Event, Known, Saga, SagaEngine, SagaError, Step, StepError, StepResult};
use steadfast::storage::PostgresStorage;
use steadfast::storage::tokio_postgres::types::Type;
use steadfast::storage::tokio_postgres::{self, Config, Transaction};
use steadfast::{Backoff, Effect, Key};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::proxy::Proxy;
use super::{journal, waiting_for_a_lock};
use crate::support::postgres::Database;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    seats: Vec<String>,
}

/// What steps need beside the transaction.
#[derive(Default)]
struct Deps {
    runs: AtomicU32,
    undone: AtomicU32,
    gate: Notify,
}

type Orders = Cx<Order, Arc<Deps>>;

/// Books a seat in the name of the step.
async fn book(cx: &mut Orders, tx: &mut Transaction<'_>) -> StepResult {
    cx.deps().runs.fetch_add(1, Ordering::SeqCst);
    let (saga, step) = (cx.saga_id().to_string(), cx.step().to_owned());
    let book = "INSERT INTO booking (saga, step) VALUES ($1, $2)";
    tx.query_typed(book, &[(&saga, Type::TEXT), (&step, Type::TEXT)])
        .await?;
    cx.seats.push(step);
    Ok(())
}

async fn nothing(cx: &mut Orders) -> StepResult {
    cx.seats.push("elsewhere".to_owned());
    Ok(())
}

async fn undo(cx: &mut Orders) -> StepResult {
    assert_eq!(cx.outcome(), Known::Completed);
    cx.deps().undone.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

fn quick(step: Step<Order, Arc<Deps>>) -> Step<Order, Arc<Deps>> {
    step.attempts(2).backoff(Backoff::constant(Duration::from_millis(1)))
}

/// What comes of a step after its effect.
type Ending = fn(&mut Orders) -> StepResult;

/// A saga of one step, which is a pivot.
fn one(deps: &Arc<Deps>, step: Step<Order, Arc<Deps>>) -> Saga<Order, Arc<Deps>> {
    let saga = Saga::builder_with("one", Arc::clone(deps)).with(quick(step).as_pivot());
    saga.build().unwrap()
}

fn engine(journal: impl Journal, saga: &Saga<Order, Arc<Deps>>) -> SagaEngine {
    let engine = SagaEngine::builder(journal).register(saga);
    let engine = engine
        .lease(Duration::from_secs(2))
        .poll_interval(Duration::from_millis(20));
    engine.build().unwrap()
}

async fn bookings(database: &Database) -> PostgresJournal {
    let journal = journal(database, 4).await;
    database.execute("CREATE TABLE booking (saga text, step text)").await;
    journal
}

async fn booked(database: &Database) -> Vec<String> {
    let booked = "SELECT step FROM booking ORDER BY step";
    let rows = database.client().await.query(booked, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn start(engine: &SagaEngine, saga: &Saga<Order, Arc<Deps>>) -> DurableSaga<Order> {
    engine
        .start(saga, &Key::new("shop", "order-1"), Order::default())
        .await
        .unwrap()
}

/// In a few words, like `succeeded a`.
async fn events(journal: &PostgresJournal, saga: &DurableSaga<Order>) -> Vec<String> {
    let loaded = journal.load(saga.id()).await.unwrap().unwrap();
    let entries = loaded.entries.iter();
    let events = entries.map(|stored| match serde_json::from_slice(&stored.entry.event).unwrap() {
        Event::Created { .. } => "created".to_owned(),
        Event::Started { step } => format!("started {step}"),
        Event::Succeeded { step } => format!("succeeded {step}"),
        Event::Failed { step, effect, .. } => format!("failed {step} {effect:?}"),
        Event::Unwinding { .. } => "unwinding".to_owned(),
        Event::UndoStarted { step, .. } => format!("undo {step}"),
        Event::UndoSucceeded { step } => format!("undone {step}"),
        Event::Finished { end, .. } => end.as_str().to_owned(),
        other => format!("{other:?}"),
    });
    events.collect()
}

async fn a_saga_of_both(database: &Database) {
    let (journal, deps) = (bookings(database).await, Arc::<Deps>::default());
    let saga = Saga::builder_with("both", Arc::clone(&deps))
        .with(Step::postgres_tx("a", book).with_undo(undo))
        .with(Step::postgres_tx("b", book).as_pivot())
        .retriable("c", nothing)
        .with(Step::postgres_tx("d", book).as_retriable())
        .build()
        .unwrap();
    let engine = engine(journal.clone(), &saga);
    let mut started = start(&engine, &saga).await;
    assert_eq!(started.wait().await.unwrap().seats, ["a", "b", "elsewhere", "d"]);
    assert_eq!(booked(database).await, ["a", "b", "d"]);
    let expected = [
        "created",
        "succeeded a",
        "succeeded b",
        "started c",
        "succeeded c",
        "succeeded d",
        "completed",
    ];
    assert_eq!(events(&journal, &started).await, expected);
    // As many durable writes as there are steps, and one.
    let writes = "SELECT count(DISTINCT xmin::text) FROM steadfast.saga_event";
    let writes: i64 = database.client().await.query_one(writes, &[]).await.unwrap().get(0);
    assert_eq!(writes, 5);
}

#[tokio::test]
async fn steps_in_transactions_are_not_started_and_succeed_with_their_effect() {
    let Some(database) = Database::new("saga_tx").await else {
        return;
    };
    a_saga_of_both(&database).await;
}

#[tokio::test]
async fn steps_run_in_transactions_behind_pgbouncer() {
    let Some(database) = Database::behind_pgbouncer("saga_tx_pgbouncer").await else {
        return;
    };
    a_saga_of_both(&database).await;
}

#[tokio::test]
async fn a_step_that_fails_in_its_transaction_leaves_nothing_and_is_not_undone() {
    let Some(database) = Database::new("saga_tx_fails").await else {
        return;
    };
    let journal = bookings(&database).await;
    let endings: [(&str, Ending, u32); 4] = [
        ("says_no", |_| Err(StepError::failed("no")), 1),
        ("does_not_know", |_| Err(StepError::unknown("reset")), 2),
        ("panics", |_| panic!("it panics"), 1),
        ("is_late", |_| Ok(()), 2),
    ];
    for (n, (name, ending, runs)) in endings.into_iter().enumerate() {
        let deps = Arc::<Deps>::default();
        let failing = Step::postgres_tx(name, async move |cx: &mut Orders, tx: &mut Transaction<'_>| {
            book(cx, tx).await?;
            if cx.step() == "is_late" {
                tx.batch_execute("SELECT pg_sleep(60)").await?;
            }
            ending(cx)
        });
        let saga = Saga::builder_with(name, Arc::clone(&deps))
            .with(Step::postgres_tx("a", book).with_undo(undo))
            .with(
                quick(failing)
                    .timeout(Duration::from_millis(500))
                    .with_undo(async |_: &mut Orders| panic!("undone")),
            )
            .build()
            .unwrap();
        let engine = engine(journal.clone(), &saga);
        let mut started = start(&engine, &saga).await;
        let error = started.wait().await.unwrap_err();
        assert!(matches!(error, SagaError::Compensated(_)), "{name}: {error:?}");
        let failed = vec![format!("failed {name} {:?}", Effect::None); usize::try_from(runs).unwrap()];
        let mut expected = vec!["created".to_owned(), "succeeded a".to_owned()];
        expected.extend(failed);
        expected.extend(["unwinding", "undo a", "undone a", "compensated"].map(str::to_owned));
        assert_eq!(events(&journal, &started).await, expected);
        assert_eq!(deps.runs.load(Ordering::SeqCst), 1 + runs);
        assert_eq!(deps.undone.load(Ordering::SeqCst), 1);
        assert_eq!(booked(&database).await, vec!["a"; n + 1], "{name}");
    }
}

#[tokio::test]
async fn a_constraint_that_speaks_at_the_commit_is_a_failure_without_effect() {
    let Some(database) = Database::new("saga_tx_deferred").await else {
        return;
    };
    let (journal, deps) = (bookings(&database).await, Arc::<Deps>::default());
    database
        .execute(
            "ALTER TABLE booking ADD UNIQUE (step) DEFERRABLE INITIALLY DEFERRED; INSERT INTO booking VALUES ('', 'a')",
        )
        .await;
    let saga = one(&deps, Step::postgres_tx("a", book));
    let mut started = start(&engine(journal.clone(), &saga), &saga).await;
    let error = started.wait().await.unwrap_err();
    assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
    let expected = ["created", "failed a None", "failed a None", "unwinding", "compensated"];
    assert_eq!(events(&journal, &started).await, expected);
    assert_eq!(booked(&database).await, ["a"]);
}

#[tokio::test]
async fn a_step_that_commits_by_itself_is_in_doubt() {
    let Some(database) = Database::new("saga_tx_commits").await else {
        return;
    };
    for (n, statements) in ["COMMIT", "COMMIT; BEGIN"].into_iter().enumerate() {
        let deps = Arc::<Deps>::default();
        let journal = if n == 0 {
            bookings(&database).await
        } else {
            journal(&database, 4).await
        };
        let commits = async move |cx: &mut Orders, tx: &mut Transaction<'_>| {
            book(cx, tx).await?;
            Ok(tx.batch_execute(statements).await?)
        };
        let saga = Saga::builder_with(statements, deps)
            .with(Step::postgres_tx("a", commits).with_undo(async |cx: &mut Orders| {
                assert_eq!(cx.outcome(), Known::Unknown);
                Ok(())
            }))
            .build()
            .unwrap();
        let mut started = start(&engine(journal.clone(), &saga), &saga).await;
        started.wait().await.unwrap_err();
        let expected = [
            "created",
            "failed a Maybe",
            "unwinding",
            "undo a",
            "undone a",
            "compensated",
        ];
        assert_eq!(events(&journal, &started).await, expected);
        assert_eq!(booked(&database).await.len(), n + 1);
    }
}

#[tokio::test]
async fn a_saga_with_such_a_step_needs_its_own_journal() {
    let deps = Arc::<Deps>::default();
    let saga = one(&deps, Step::postgres_tx("a", book));
    let error = SagaEngine::builder(MemoryJournal::new())
        .register(&saga)
        .build()
        .unwrap_err();
    assert!(
        error.to_string().contains("transactions of the engine's own journal"),
        "{error}"
    );
    let error = saga.run(Order::default()).await.unwrap_err();
    assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
    assert_eq!(deps.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_lost_the_saga_while_its_transaction_was_open_commits_nothing() {
    let Some(database) = Database::new("saga_tx_zombie").await else {
        return;
    };
    let (journal, deps) = (bookings(&database).await, Arc::<Deps>::default());
    let slow = async |cx: &mut Orders, tx: &mut Transaction<'_>| {
        book(cx, tx).await?;
        if cx.fence() == 1 {
            cx.deps().gate.notified().await;
        }
        Ok(())
    };
    let saga = one(&deps, Step::postgres_tx("a", slow));
    let zombie = SagaEngine::builder(journal.clone()).register(&saga).build().unwrap();
    let started = start(&zombie, &saga).await;
    while deps.runs.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    database.execute("UPDATE steadfast.saga SET due = now()").await;
    let other = engine(PostgresJournal::new(&PostgresStorage::new(database.pool(4))), &saga);
    let mut again = start(&other, &saga).await;
    again.wait().await.unwrap();
    deps.gate.notify_one();
    while zombie.in_flight() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(started.await.unwrap().seats, ["a"]);
    assert_eq!(events(&journal, &again).await, ["created", "succeeded a", "completed"]);
    assert_eq!(
        (deps.runs.load(Ordering::SeqCst), booked(&database).await),
        (2, vec!["a".to_owned()])
    );
}

/// A database in which the commit of a booking waits for the lock that `gate` has.
async fn slow_commits(name: &str) -> Option<(Database, PostgresJournal, tokio_postgres::Client)> {
    let database = Database::new(name).await?;
    let journal = bookings(&database).await;
    database
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON booking DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let gate = database.client().await;
    gate.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    Some((database, journal, gate))
}

const OPEN: &str = "SELECT pg_advisory_unlock_all()";

#[tokio::test]
async fn a_commit_that_the_server_gave_up_is_done_again() {
    let Some((database, journal, gate)) = slow_commits("saga_tx_killed").await else {
        return;
    };
    let deps = Arc::<Deps>::default();
    let saga = one(&deps, Step::postgres_tx("a", book));
    let engine = engine(journal.clone(), &saga);
    let mut started = start(&engine, &saga).await;
    let pid = waiting_for_a_lock(&database).await;
    gate.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid])
        .await
        .unwrap();
    gate.batch_execute(OPEN).await.unwrap();
    started.wait().await.unwrap();
    assert_eq!(
        events(&journal, &started).await,
        ["created", "failed a None", "succeeded a", "completed"]
    );
    assert_eq!(
        (deps.runs.load(Ordering::SeqCst), booked(&database).await),
        (2, vec!["a".to_owned()])
    );
}

/// The same database through a proxy.
async fn through(database: &Database) -> (Proxy, PostgresJournal) {
    let port = database.config.get_ports()[0];
    let proxy = Proxy::start(port).await;
    let mut config = Config::new();
    config
        .user("postgres")
        .host("127.0.0.1")
        .port(proxy.port)
        .dbname(database.config.get_dbname().unwrap());
    let proxied = Database {
        direct: config.clone(),
        config,
    };
    let journal = PostgresJournal::new(&PostgresStorage::new(proxied.pool(4)));
    (proxy, journal)
}

async fn until_booked(database: &Database) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while booked(database).await.is_empty() {
        assert!(Instant::now() < deadline, "it is not committed");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_is_recognised() {
    let Some((database, journal, gate)) = slow_commits("saga_tx_lost_reply").await else {
        return;
    };
    let deps = Arc::<Deps>::default();
    let saga = one(&deps, Step::postgres_tx("a", book));
    let (proxy, proxied) = through(&database).await;
    let engine = engine(proxied, &saga);
    let mut started = start(&engine, &saga).await;
    waiting_for_a_lock(&database).await;
    proxy.hold();
    gate.batch_execute(OPEN).await.unwrap();
    until_booked(&database).await;
    proxy.cut();
    started.wait().await.unwrap();
    assert_eq!(
        events(&journal, &started).await,
        ["created", "succeeded a", "completed"]
    );
    assert_eq!(
        (deps.runs.load(Ordering::SeqCst), booked(&database).await),
        (1, vec!["a".to_owned()])
    );
}

#[tokio::test]
async fn a_commit_that_lands_after_it_was_given_up_is_the_only_one() {
    let Some((database, journal, gate)) = slow_commits("saga_tx_late").await else {
        return;
    };
    let deps = Arc::<Deps>::default();
    let saga = one(&deps, Step::postgres_tx("a", book));
    let (proxy, proxied) = through(&database).await;
    let engine = engine(proxied, &saga);
    let mut started = start(&engine, &saga).await;
    waiting_for_a_lock(&database).await;
    // Its connection is gone, and what the server is at goes on.
    proxy.cut();
    sleep(Duration::from_millis(300)).await;
    gate.batch_execute(OPEN).await.unwrap();
    started.wait().await.unwrap();
    assert_eq!(
        events(&journal, &started).await,
        ["created", "succeeded a", "completed"]
    );
    assert_eq!(
        (deps.runs.load(Ordering::SeqCst), booked(&database).await),
        (1, vec!["a".to_owned()])
    );
}
