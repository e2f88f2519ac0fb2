//! What proves a user's saga finds what is wrong with one.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use steadfast::saga::{Cx, Event, Saga, SagaError, StepError};
use steadfast::testing::saga::{Moment, crash_everywhere, rerun_every_step};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    fails: bool,
}

/// What is reserved, by its key; and the keys of what was called off.
#[derive(Clone, Default)]
struct Stock(Arc<Mutex<(BTreeSet<String>, BTreeSet<String>)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    None,
    /// Each attempt has a key of its own.
    KeyPerAttempt,
    /// Each process has a key of its own.
    KeyPerProcess,
    /// A repeated undo fails.
    UndoOnce,
}

impl Stock {
    fn reserve(&self, key: String) {
        let mut stock = self.0.lock().unwrap();
        if !stock.1.contains(&key) {
            stock.0.insert(key);
        }
    }

    /// What is reserved, taken away.
    fn take(&self) -> usize {
        let mut stock = self.0.lock().unwrap();
        let taken = stock.0.len();
        *stock = Default::default();
        taken
    }
}

fn order(stock: &Stock, defect: Defect) -> Saga<Order> {
    let (reserve, release) = (stock.clone(), stock.clone());
    let key = move |cx: &Cx<Order>| match defect {
        Defect::KeyPerProcess => format!("{} {}", cx.action_key(), cx.fence()),
        _ => cx.action_key(),
    };
    let runs = Arc::new(Mutex::new(0));
    Saga::builder("order")
        .step(
            "reserve",
            async move |cx: &mut Cx<Order>| {
                let mut key = key(cx);
                if defect == Defect::KeyPerAttempt {
                    let mut runs = runs.lock().unwrap();
                    *runs += 1;
                    key = format!("{key} {runs}");
                }
                reserve.reserve(key);
                sleep(Duration::from_millis(5)).await;
                Ok(())
            },
            async move |cx: &mut Cx<Order>| {
                let mut stock = release.0.lock().unwrap();
                let there = stock.0.remove(&key(cx));
                let again = !stock.1.insert(key(cx));
                if defect == Defect::UndoOnce && (again || !there) {
                    return Err(StepError::failed("there is nothing to release"));
                }
                Ok(())
            },
        )
        .read_only("check", async |cx: &mut Cx<Order>| {
            if cx.fails {
                return Err(StepError::failed("no"));
            }
            Ok(())
        })
        .build()
        .unwrap()
}

/// Whether every run ends as it should, wherever its process dies.
async fn survives(defect: Defect, fails: bool) -> bool {
    let stock = Stock::default();
    let saga = order(&stock, defect);
    let mut right = true;
    crash_everywhere(&saga, Order { fails }, |run| {
        right &= match &run.result {
            Ok(_) => !fails && stock.take() == 1,
            Err(SagaError::Compensated(_)) => fails && stock.take() == 0,
            Err(_) => false,
        };
    })
    .await;
    right
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_right_survives_the_death_of_its_process_everywhere() {
    for fails in [false, true] {
        assert!(survives(Defect::None, fails).await, "{fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn deaths_find_a_step_whose_key_changes_and_an_undo_that_does_not_expect_one() {
    assert!(!survives(Defect::KeyPerAttempt, false).await);
    assert!(!survives(Defect::KeyPerProcess, false).await);
    assert!(!survives(Defect::UndoOnce, true).await);
}

#[tokio::test(start_paused = true)]
async fn a_process_dies_around_each_of_its_writes_and_the_run_says_where() {
    let stock = Stock::default();
    let saga = order(&stock, Defect::None);
    let mut runs = Vec::new();
    let deaths = crash_everywhere(&saga, Order::default(), |run| {
        assert!(matches!(run.events.last(), Some(Event::Finished { .. })), "{run}");
        runs.push((run.crashes.clone(), run.to_string()));
    });
    // Two steps are three writes.
    let deaths = deaths.await;
    assert_eq!(deaths, runs.iter().map(|(crashes, _)| crashes.len()).sum::<usize>());
    for write in 1..=3 {
        for moment in Moment::ALL {
            let here = |(crashes, _): &&(Vec<steadfast::testing::saga::Crash>, String)| {
                crashes
                    .first()
                    .is_some_and(|crash| crash.write == write && crash.moment == moment)
            };
            assert!(runs.iter().any(|run| here(&run)), "{write} {moment:?}");
        }
    }
    assert!(runs[0].0.is_empty(), "{}", runs[0].1);
    let last = runs.iter().rev().find(|(crashes, _)| crashes.len() == 2);
    assert!(last.unwrap().1.contains(", the next one "), "{}", last.unwrap().1);
}

async fn reruns(defect: Defect, fails: bool) -> Result<usize, String> {
    let stock = Stock::default();
    let saga = order(&stock, defect);
    let observe = |ended: &Result<Order, SagaError>| {
        (
            ended.is_ok(),
            ended.as_ref().err().map(ToString::to_string),
            stock.take(),
        )
    };
    let ran = AssertUnwindSafe(rerun_every_step(&saga, Order { fails }, observe));
    ran.catch_unwind()
        .await
        .map_err(|panic| *panic.downcast::<String>().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_saga_whose_steps_may_run_twice_passes_and_one_that_may_not_is_named() {
    for fails in [false, true] {
        assert_eq!(reruns(Defect::None, fails).await, Ok(4));
    }
    let twice = reruns(Defect::KeyPerAttempt, false).await.unwrap_err();
    assert!(twice.starts_with("step `reserve` of saga `order` ran twice"), "{twice}");
    let undone_twice = reruns(Defect::UndoOnce, true).await.unwrap_err();
    assert!(
        undone_twice.starts_with("step `reserve` of saga `order` ran twice"),
        "{undone_twice}"
    );
}
