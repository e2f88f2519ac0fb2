//! The engine, on a journal in memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::{CancelRequest, Journal, MemoryJournal, SagaStatus};
use steadfast::saga::{Cx, DurableSaga, Event, Saga, SagaBuilder, SagaEngine, SagaError, StartError, StepError};
use steadfast::{Backoff, Key};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    done: Vec<String>,
}

type Calls = Arc<Mutex<Vec<String>>>;

fn note(calls: &Calls, call: impl Into<String>) {
    calls.lock().unwrap().push(call.into());
}

fn three(calls: &Calls) -> SagaBuilder<Order> {
    ["a", "b", "c"].into_iter().fold(Saga::builder("three"), |saga, name| {
        let (act, undo) = (Arc::clone(calls), Arc::clone(calls));
        saga.step(
            name,
            async move |cx: &mut Cx<Order>| {
                note(&act, name);
                cx.done.push(name.to_owned());
                Ok(())
            },
            async move |cx: &mut Cx<Order>| {
                note(&undo, format!("undo {name} {:?}", cx.outcome()));
                cx.done.retain(|done| done != name);
                Ok(())
            },
        )
    })
}

fn engine(journal: &MemoryJournal, saga: &Saga<Order>) -> SagaEngine {
    SagaEngine::builder(journal.clone()).register(saga).build().unwrap()
}

async fn events(journal: &MemoryJournal, started: &DurableSaga<Order>) -> Vec<Event> {
    let loaded = journal.load(started.id()).await.unwrap().unwrap();
    let entries = loaded.entries.iter();
    entries
        .map(|stored| serde_json::from_slice(&stored.entry.event).unwrap())
        .collect()
}

fn key(n: u32) -> Key {
    Key::new("tests", n.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_saga_is_written_as_it_goes_and_gives_its_context() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls).build().unwrap();
    let engine = engine(&journal, &saga);
    let mut started = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    let order = started.wait().await.unwrap();
    assert_eq!(order.done, ["a", "b", "c"]);
    assert_eq!(*calls.lock().unwrap(), ["a", "b", "c"]);
    let written = events(&journal, &started).await;
    assert_eq!(written.len(), 8);
    assert_eq!(started.status().await.unwrap(), Some(SagaStatus::Completed));
    assert_eq!(engine.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_one_saga_with_one_context() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls).build().unwrap();
    let engine = engine(&journal, &saga);
    let first = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    let id = first.id();
    assert_eq!(first.await.unwrap().done.len(), 3);
    let again = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    assert!(again.existed() && again.id() == id);
    assert_eq!(again.await.unwrap().done.len(), 3);
    assert_eq!(calls.lock().unwrap().len(), 3);
    let other = Order {
        done: vec!["x".to_owned()],
    };
    let conflict = engine.start(&saga, &key(1), other).await.unwrap_err();
    assert!(matches!(conflict, StartError::KeyConflict { .. }), "{conflict}");
}

#[tokio::test(start_paused = true)]
async fn without_a_place_a_saga_waits_for_one() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls).build().unwrap();
    let engine = SagaEngine::builder(journal)
        .register(&saga)
        .max_concurrent(1)
        .max_pending(2)
        .build()
        .unwrap();
    let other = Saga::<Order>::builder("other")
        .read_only("nothing", async |_: &mut Cx<Order>| Ok(()))
        .build()
        .unwrap();
    let not_registered = engine.start(&other, &key(0), Order::default()).await.unwrap_err();
    assert!(matches!(not_registered, StartError::NotRegistered { .. }));
    let mut all = Vec::new();
    for n in 1..=3 {
        all.push(engine.start(&saga, &key(n), Order::default()).await);
    }
    for started in all {
        assert_eq!(started.unwrap().await.unwrap().done.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_backoff_is_left_to_the_journal() {
    let (journal, runs) = (MemoryJournal::new(), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&runs);
    let flaky = steadfast::saga::Step::read_only("flaky", async move |_: &mut Cx<Order>| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(StepError::not_sent("not now"));
        }
        Ok(())
    })
    .backoff(Backoff::constant(Duration::from_secs(3600)));
    let saga = Saga::<Order>::builder("patient").with(flaky).build().unwrap();
    let first = engine(&journal, &saga);
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((runs.load(Ordering::Relaxed), first.in_flight()), (1, 0));
    drop((started, first));
    let second = engine(&journal, &saga);
    tokio::time::sleep(Duration::from_secs(2_900)).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    let again = second.start(&saga, &key(1), Order::default()).await.unwrap();
    again.await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_turn_back_is_durable() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls)
        .read_only("wait", async |_: &mut Cx<Order>| {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        })
        .read_only("never", async |_: &mut Cx<Order>| panic!("it turned back before"))
        .build()
        .unwrap();
    let engine = engine(&journal, &saga);
    let started = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(started.cancel().await.unwrap(), CancelRequest::Requested);
    let error = started.await.unwrap_err();
    assert!(matches!(error, SagaError::Compensated(_)), "{error:?}");
    assert_eq!(calls.lock().unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_stopped_in_the_middle_goes_on_with_another_engine() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let hang = Arc::new(AtomicU32::new(0));
    let (hangs, noted) = (Arc::clone(&hang), Arc::clone(&calls));
    let saga = three(&calls)
        .read_only("hang", async move |_: &mut Cx<Order>| {
            note(&noted, "hang");
            if hangs.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
        .build()
        .unwrap();
    let first = engine(&journal, &saga);
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!first.shutdown(Duration::from_secs(1)).await);
    let second = engine(&journal, &saga);
    let before = tokio::time::Instant::now();
    let again = second.start(&saga, &key(1), Order::default()).await.unwrap();
    assert_eq!(again.await.unwrap().done, ["a", "b", "c"]);
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(*calls.lock().unwrap(), ["a", "b", "c", "hang", "hang"]);
    // Who waited with the first engine hears of it as well.
    assert!(started.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_context_that_grows_too_large_stops_the_saga_before_its_next_step() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls)
        .read_only("swell", async |cx: &mut Cx<Order>| {
            cx.done.push("x".repeat(200));
            Ok(())
        })
        .read_only("never", async |_: &mut Cx<Order>| panic!("its context is too large"))
        .build()
        .unwrap();
    let engine = SagaEngine::builder(journal)
        .register(&saga)
        .max_context(100)
        .build()
        .unwrap();
    let large = Order {
        done: vec!["x".repeat(101)],
    };
    let refused = engine.start(&saga, &key(1), large).await.unwrap_err();
    assert!(matches!(refused, StartError::Context { .. }), "{refused:?}");
    let error = engine
        .start(&saga, &key(2), Order::default())
        .await
        .unwrap()
        .await
        .unwrap_err();
    let report = error.report().unwrap();
    let cause = std::error::Error::source(report.cause.as_ref().unwrap()).unwrap();
    let text = cause.source().unwrap().to_string();
    assert!(text.contains("may have 100"), "{text}");
    assert_eq!(calls.lock().unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_cleared_away_in_two_steps() {
    let (journal, calls) = (MemoryJournal::new(), Calls::default());
    let saga = three(&calls).build().unwrap();
    let engine = engine(&journal, &saga);
    let started = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    let id = started.id();
    started.await.unwrap();
    let prune = steadfast::saga::journal::Prune {
        events_after: Duration::from_secs(60),
        keys_after: Duration::from_secs(120),
        limit: 10,
    };
    assert_eq!(engine.prune(prune).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(engine.prune(prune).await.unwrap(), 1);
    let again = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    assert!(again.existed());
    assert!(matches!(again.await.unwrap_err(), SagaError::Detached { .. }));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(engine.prune(prune).await.unwrap(), 1);
    let fresh = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    assert!(!fresh.existed() && fresh.id() != id);
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_too_large_settles_no_doubt_about_earlier_runs() {
    let journal = MemoryJournal::new();
    let charge = steadfast::saga::Step::pivot("charge", async |_: &mut Cx<Order>| Err(StepError::unknown("no answer")))
        .answers_by_key()
        .backoff(Backoff::constant(Duration::from_secs(3600)));
    let saga = Saga::<Order>::builder("order").with(charge).build().unwrap();
    let first = engine(&journal, &saga);
    let started = first.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    first.shutdown(Duration::ZERO).await;
    let second = SagaEngine::builder(journal)
        .register(&saga)
        .max_context(1)
        .build()
        .unwrap();
    let error = started.await.unwrap_err();
    assert!(matches!(error, SagaError::Stuck(_)), "{error:?}");
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_takes_no_place_among_those_that_wait() {
    let saga = Saga::<Order>::builder("busy")
        .read_only("hang", async |_: &mut Cx<Order>| std::future::pending().await)
        .build()
        .unwrap();
    let engine = SagaEngine::builder(MemoryJournal::new())
        .register(&saga)
        .max_context(100);
    let engine = engine.max_concurrent(1).max_pending(1).build().unwrap();
    let _hangs = engine.start(&saga, &key(1), Order::default()).await.unwrap();
    let large = Order {
        done: vec!["x".repeat(101)],
    };
    let refused = engine.start(&saga, &key(2), large).await.unwrap_err();
    assert!(matches!(refused, StartError::Context { .. }), "{refused:?}");
    assert!(engine.start(&saga, &key(3), Order::default()).await.is_ok());
    let full = engine.start(&saga, &key(4), Order::default()).await.unwrap_err();
    assert!(matches!(full, StartError::Full { max_pending: 1 }), "{full:?}");
}
