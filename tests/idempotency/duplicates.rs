//! Many callers of one key at once.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use steadfast::idempotency::{Executed, Idempotency, MemoryStore, Source};
use steadfast::{Rejected, RejectedKind};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::driver::{Counted, Failure, at_least_once, at_most_once, key, kind, request, settle};

const WAIT: Duration = Duration::from_secs(60);

async fn slow(operation: &Counted) -> Result<u32, Failure> {
    sleep(Duration::from_secs(1)).await;
    operation.succeed().await
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_runs_and_the_other_is_told_to_come_back() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    let call = || idempotency.execute(&key(), request(), |_| slow(&operation));
    let (one, other) = tokio::join!(call(), call());
    assert_eq!(one.unwrap().source, Source::Executed);
    let Failure::Rejected(rejected) = other.unwrap_err() else {
        panic!("the operation did not fail");
    };
    assert_eq!(rejected.kind(), RejectedKind::InProgress);
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn duplicates_of_what_is_done_are_never_told_to_come_back() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).build().unwrap();
    idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    let calls = (0..100).map(|_| idempotency.execute(&key(), request(), |_| operation.succeed()));
    for replayed in join_all(calls).await {
        assert_eq!(replayed.unwrap().source, Source::Replayed);
    }
}

#[tokio::test(start_paused = true)]
async fn two_policies_on_one_store_stand_for_two_processes() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let here = at_least_once(&store).build().unwrap();
    let there = at_least_once(&store).build().unwrap();
    let patient = at_least_once(&store).wait(WAIT).build().unwrap();
    let run = here.execute(&key(), request(), |_| slow(&operation));
    let refused = there.execute(&key(), request(), |_| operation.succeed());
    let waited = patient.execute(&key(), request(), |_| operation.succeed());
    let (run, refused, waited) = tokio::join!(run, refused, waited);
    assert_eq!(run.unwrap().source, Source::Executed);
    assert_eq!(kind(refused), RejectedKind::InProgress);
    let waited = waited.unwrap();
    assert_eq!((waited.value, waited.source), (1, Source::Replayed));
    assert_eq!(operation.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_duplicates_wait_for_one_run() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).wait(WAIT).build().unwrap();
    let calls = (0..10_001).map(|_| idempotency.execute(&key(), request(), |_| slow(&operation)));
    let mut executed = 0;
    for call in join_all(calls).await {
        let call = call.unwrap();
        assert_eq!(call.value, 1);
        executed += u32::from(call.source == Source::Executed);
    }
    assert_eq!((executed, operation.runs(), idempotency.in_flight()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_comes_when_the_line_is_full_is_told_to_come_back() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(WAIT).max_waiters(2).build().unwrap();
    let calls = (0..4).map(|_| idempotency.execute(&key(), request(), |_| slow(&operation)));
    let refused = join_all(calls).await.into_iter().filter(Result::is_err).count();
    assert_eq!(refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_waits_as_long_as_it_may_and_no_longer() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(Duration::from_secs(5)).build().unwrap();
    let mut running = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut running).now_or_never().is_none());
    let start = Instant::now();
    let refused = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
    assert_eq!(kind(refused), RejectedKind::InProgress);
    assert_eq!(start.elapsed().as_secs(), 5);
    drop(running);
    settle(&idempotency).await;
}

#[tokio::test(start_paused = true)]
async fn when_the_run_ends_without_an_outcome_the_next_in_line_runs() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(WAIT).build().unwrap();
    let mut running = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut running).now_or_never().is_none());
    let waiting = (0..3).map(|_| idempotency.execute(&key(), request(), |_| operation.succeed()));
    let waiting = join_all(waiting);
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    drop(running);
    let values: Vec<Executed<u32>> = waiting.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        values
            .iter()
            .filter(|executed| executed.source == Source::Executed)
            .count(),
        1
    );
    assert!(
        values
            .iter()
            .all(|executed| (executed.value, executed.attempt) == (2, 2))
    );
}

#[tokio::test(start_paused = true)]
async fn at_most_once_the_whole_line_hears_that_the_outcome_is_unknown() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_most_once(&store).wait(WAIT).build().unwrap();
    let mut running = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
    assert!((&mut running).now_or_never().is_none());
    let waiting = join_all((0..3).map(|_| idempotency.execute(&key(), request(), |_| operation.succeed())));
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    drop(running);
    for refused in waiting.await {
        assert_eq!(kind(refused), RejectedKind::OutcomeUnknown);
    }
    assert_eq!(operation.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_operation_is_run_four_times_at_most_for_one_line() {
    let (store, runs) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(WAIT).build().unwrap();
    let fail = || async {
        sleep(Duration::from_secs(1)).await;
        runs.succeed().await?;
        Err::<u32, _>(Failure::Inner(std::fmt::Error))
    };
    let calls = join_all((0..100).map(|_| idempotency.execute(&key(), request(), |_| fail()))).await;
    let sent_away = calls
        .into_iter()
        .filter(|call| matches!(call, Err(Failure::Rejected(_))))
        .count();
    assert_eq!((runs.runs(), sent_away), (4, 96));
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_asks_for_its_own_key_is_refused_at_once() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(WAIT).build().unwrap();
    let start = Instant::now();
    let outer: Result<Executed<u32>, Failure> = idempotency
        .execute(&key(), request(), |_| async {
            let nested = idempotency.execute(&key(), request(), |_| operation.succeed()).await;
            assert_eq!(kind(nested), RejectedKind::InProgress);
            Ok(7)
        })
        .await;
    assert_eq!(outer.unwrap().value, 7);
    assert_eq!((start.elapsed(), operation.runs()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn waiters_that_leave_at_any_moment_leave_nothing_behind() {
    let (store, operation) = (MemoryStore::new(), Counted::default());
    let idempotency = at_least_once(&store).wait(WAIT).build().unwrap();
    for leavers in 0..6_usize {
        let mut running = Box::pin(idempotency.execute(&key(), request(), |_| operation.hang()));
        assert!((&mut running).now_or_never().is_none());
        let mut line: Vec<_> = (0..6)
            .map(|_| Box::pin(idempotency.execute(&key(), request(), |_| operation.hang())))
            .collect();
        for waiter in &mut line {
            assert!(waiter.now_or_never().is_none());
        }
        line.drain(..leavers);
        drop(running);
        for waiter in &mut line {
            let _ = waiter.now_or_never();
        }
        drop(line);
        settle(&idempotency).await;
    }
    let last = idempotency
        .execute(&key(), request(), |_| operation.succeed())
        .await
        .unwrap();
    assert_eq!(last.source, Source::Executed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_key_has_one_winner_under_real_threads() {
    let store = MemoryStore::new();
    let idempotency = Idempotency::at_least_once(store).wait(WAIT).build().unwrap();
    let clients = Arc::new(Semaphore::new(32));
    let tasks = (0..20_000_u32).map(|call| {
        let (idempotency, clients) = (idempotency.clone(), Arc::clone(&clients));
        tokio::spawn(async move {
            let _client = clients.acquire().await.unwrap();
            let key = steadfast::Key::new("tenant", (call % 1_000).to_string());
            let operation = |_| async move {
                tokio::task::yield_now().await;
                Ok::<_, Rejected>(call)
            };
            (
                call % 1_000,
                idempotency.execute(&key, request(), operation).await.unwrap(),
            )
        })
    });
    let mut winners = vec![0; 1_000];
    let mut values = vec![None; 1_000];
    for task in join_all(tasks).await {
        let (key, executed) = task.unwrap();
        let key = key as usize;
        winners[key] += u32::from(executed.source == Source::Executed);
        assert_eq!(*values[key].get_or_insert(executed.value), executed.value);
    }
    assert!(winners.iter().all(|winners| *winners == 1));
    assert_eq!(idempotency.in_flight(), 0);
}
