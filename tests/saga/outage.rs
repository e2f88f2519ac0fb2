//! The journal fails at each write in turn: for good, for a while, before and after it has written.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::Key;
use steadfast::saga::journal::{Journal, Loaded, MemoryJournal, SagaStatus};
use steadfast::saga::{Cx, Event, Known, Saga, SagaEngine, SagaId, StartError, StepError};
use steadfast::testing::saga::{Call, Fault, Faulty};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    done: Vec<String>,
}

/// What ran, and in which ownership.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u64, String)>>>);

impl Log {
    fn of(&self, fence: u64) -> Vec<String> {
        let log = self.0.lock().unwrap();
        let own = log.iter().filter(|(at, _)| *at == fence);
        own.map(|(_, what)| what.clone()).collect()
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, what)| what.clone()).collect()
    }
}

const LEASE: Duration = Duration::from_secs(6);

/// `a`, `b` and `c`, of which the last may fail.
fn saga(log: &Log, fails: bool) -> Saga<Order> {
    let saga = ["a", "b", "c"].into_iter().fold(Saga::builder("outage"), |saga, name| {
        let (act, undo) = (log.clone(), log.clone());
        saga.step(
            name,
            async move |cx: &mut Cx<Order>| {
                act.0.lock().unwrap().push((cx.fence(), name.to_owned()));
                sleep(Duration::from_millis(200)).await;
                if fails && name == "c" {
                    return Err(StepError::failed("no"));
                }
                cx.done.push(name.to_owned());
                Ok(())
            },
            async move |cx: &mut Cx<Order>| {
                let doubt = if cx.outcome() == Known::Unknown { "?" } else { "" };
                undo.0.lock().unwrap().push((cx.fence(), format!("-{name}{doubt}")));
                Ok(())
            },
        )
    });
    saga.build().unwrap()
}

/// What runs without an outage; one write comes after each of them.
fn course(fails: bool) -> &'static [&'static str] {
    if fails {
        &["a", "b", "c", "-b", "-a"]
    } else {
        &["a", "b", "c"]
    }
}

fn engine(journal: impl Journal, saga: &Saga<Order>) -> SagaEngine {
    let engine = SagaEngine::builder(journal).lease(LEASE).register(saga);
    engine.build().unwrap()
}

fn key() -> Key {
    Key::new("outage", "1")
}

async fn loaded(journal: &MemoryJournal, id: SagaId) -> Loaded {
    journal.load(id).await.unwrap().unwrap()
}

async fn until_it_rests(journal: &MemoryJournal, id: SagaId) -> Loaded {
    for _ in 0..1_000 {
        let loaded = loaded(journal, id).await;
        if !loaded.head.status.is_active() {
            return loaded;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("it has no end");
}

/// The process can write nothing from its `n`-th result on. It runs nothing more, undoes nothing for it, and another
/// process goes on with what is written.
#[tokio::test(start_paused = true)]
async fn a_process_whose_journal_is_down_stops_and_another_goes_on() {
    for fails in [false, true] {
        let course = course(fails);
        for n in 1..=course.len() {
            let (shared, log) = (MemoryJournal::new(), Log::default());
            let saga = saga(&log, fails);
            let journal = Faulty::new(shared.clone());
            for call in [Call::Claim, Call::ClaimOne, Call::Renew, Call::Load, Call::Release] {
                journal.inject(call, .., Fault::RequestLost);
            }
            journal.inject(Call::Append, n as u64.., Fault::RequestLost);
            let first = engine(journal.clone(), &saga);
            let id = first.start(&saga, &key(), Order::default()).await.unwrap().id();
            sleep(2 * LEASE).await;
            assert_eq!(log.all(), course[..n], "{fails} {n}");
            assert_eq!(first.in_flight(), 0);
            assert!(journal.calls(Call::Append) > n as u64 + 2, "it was tried again");

            let second = engine(shared.clone(), &saga);
            let ended = until_it_rests(&shared, id).await;
            // What the first had run last is run again, as nobody knows what became of it: and undone in doubt.
            let doubt = fails && n == 3;
            let again: &[&str] = if doubt {
                &["c", "-c?", "-b", "-a"]
            } else {
                &course[n - 1..]
            };
            assert_eq!(log.of(2), again, "{fails} {n}");
            assert_eq!(log.of(1), course[..n], "{fails} {n}");
            assert_eq!(ended.head.recoveries, 0);
            let end = if fails {
                SagaStatus::Compensated
            } else {
                SagaStatus::Completed
            };
            assert_eq!(ended.head.status, end, "{fails} {n}");
            assert!(second.shutdown(LEASE).await);
        }
    }
}

/// What is written without an outage.
async fn undisturbed(fails: bool) -> Vec<Event> {
    let (journal, log) = (MemoryJournal::new(), Log::default());
    let saga = saga(&log, fails);
    let engine = engine(journal.clone(), &saga);
    let id = engine.start(&saga, &key(), Order::default()).await.unwrap().id();
    events(&until_it_rests(&journal, id).await)
}

fn events(loaded: &Loaded) -> Vec<Event> {
    let entries = loaded.entries.iter();
    entries
        .map(|stored| serde_json::from_slice(&stored.entry.event).unwrap())
        .collect()
}

/// Its results are written when the journal is back, once, by the same process; nothing is run again.
#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lease_changes_nothing() {
    let faults = [
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::RequestHangs,
        Fault::ReplyHangs,
        Fault::RequestLate(Duration::from_millis(30)),
        Fault::RequestLate(Duration::from_secs(3)),
    ];
    for fails in [false, true] {
        let expected = undisturbed(fails).await;
        for fault in faults {
            for n in 1..=course(fails).len() as u64 {
                let (shared, log) = (MemoryJournal::new(), Log::default());
                let saga = saga(&log, fails);
                let journal = Faulty::new(shared.clone());
                journal.inject(Call::Append, n..n + 2, fault);
                let engine = engine(journal, &saga);
                let id = engine.start(&saga, &key(), Order::default()).await.unwrap().id();
                let ended = until_it_rests(&shared, id).await;
                assert_eq!(log.all(), course(fails), "{fault:?} {n}");
                assert_eq!(events(&ended), expected, "{fault:?} {n}");
                assert_eq!((ended.head.epoch, ended.head.recoveries), (1, 0), "{fault:?} {n}");
                // What is late arrives, and finds its place taken.
                sleep(LEASE).await;
                assert_eq!(loaded(&shared, id).await.entries, ended.entries, "{fault:?} {n}");
            }
        }
    }
}

/// How often a start is sent.
const TRIES: u64 = 3;

#[tokio::test(start_paused = true)]
async fn a_start_that_is_heard_in_the_end_is_one_start() {
    for fault in [Fault::RequestLost, Fault::ReplyLost] {
        let (shared, log) = (MemoryJournal::new(), Log::default());
        let saga = saga(&log, false);
        let journal = Faulty::new(shared.clone());
        journal.inject(Call::Create, ..TRIES, fault);
        let started = engine(journal, &saga).start(&saga, &key(), Order::default()).await;
        assert!(!started.as_ref().unwrap().existed());
        assert_eq!(started.unwrap().await.unwrap().done.len(), 3);
        assert_eq!(log.of(1), ["a", "b", "c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_start_was_not_written_does_not_run() {
    let (shared, log) = (MemoryJournal::new(), Log::default());
    let saga = saga(&log, false);
    let journal = Faulty::new(shared.clone());
    journal.inject(Call::Create, 1..=TRIES, Fault::RequestLost);
    let engine = engine(journal, &saga);
    let lost = engine.start(&saga, &key(), Order::default()).await.unwrap_err();
    assert!(matches!(lost, StartError::Journal(_)), "{lost}");
    sleep(2 * LEASE).await;
    assert!(log.all().is_empty());
    let started = engine.start(&saga, &key(), Order::default()).await.unwrap();
    assert!(!started.existed());
    assert_eq!(started.await.unwrap().done.len(), 3);
}

/// Who started it has heard of a failure, and starts it again; or does not, and it runs all the same.
#[tokio::test(start_paused = true)]
async fn a_saga_whose_start_was_written_unheard_runs_once() {
    for again in [false, true] {
        let (shared, log) = (MemoryJournal::new(), Log::default());
        let saga = saga(&log, false);
        let journal = Faulty::new(shared.clone());
        journal.inject(Call::Create, 1..=TRIES, Fault::ReplyLost);
        let engine = engine(journal, &saga);
        let lost = engine.start(&saga, &key(), Order::default()).await.unwrap_err();
        assert!(matches!(lost, StartError::Journal(_)), "{lost}");
        if again {
            let started = engine.start(&saga, &key(), Order::default()).await.unwrap();
            assert!(started.existed());
            assert_eq!(started.await.unwrap().done.len(), 3);
        } else {
            sleep(3 * LEASE).await;
        }
        assert_eq!(log.all(), ["a", "b", "c"]);
    }
}
