//! Sagas whose owner is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::saga::journal::{Append, ClaimQuery, ClaimedOne, Entry, Hold, Journal, OwnerId, SagaStatus};
use steadfast::saga::{Cx, Known, Saga, SagaEnd, SagaId, Step, StepError};
use steadfast::testing::saga::{Call, Fault};
use steadfast::{Backoff, saga::Obstacle};

use super::world::{Bench, Fate, Order, Process, acts, key, saga, secs};

/// Claims a saga as a process that dies with it would.
async fn crash(bench: &Bench, saga: &Saga<Order>, n: u8) -> Vec<SagaId> {
    let query = ClaimQuery {
        owner: OwnerId([n; 16]),
        lease: secs(30),
        definitions: vec![steadfast::saga::journal::DefinitionId {
            name: saga.name().to_owned(),
            version: saga.version(),
            fingerprint: *saga.fingerprint().as_bytes(),
        }],
        limit: 100,
        suspects: 100,
    };
    let claimed = bench.book.claim(&query).await.unwrap();
    tokio::time::sleep(secs(31)).await;
    claimed.iter().map(|claimed| claimed.head.id).collect()
}

async fn obstacle(bench: &Bench, id: SagaId) -> Option<Obstacle> {
    let loaded = bench.book.load(id).await.unwrap().unwrap();
    let last = &loaded.entries.last().unwrap().entry.event;
    match serde_json::from_slice(last).unwrap() {
        steadfast::saga::Event::Finished { obstacle, .. } => obstacle,
        other => panic!("{other:?}"),
    }
}

// T11
#[tokio::test(start_paused = true)]
async fn an_operator_has_what_could_not_be_undone_tried_again_and_nothing_else() {
    let bench = Bench::new();
    let broken = |undo| if undo <= 3 { Fate::IsNotReached } else { Fate::Acts };
    let soon = Backoff::constant(Duration::from_millis(1));
    let b = bench.world.step_with("b", acts, broken).undo_backoff(soon);
    let saga = saga([bench.world.step("a", acts), b, bench.world.step("c", |_| Fate::Refuses)])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Stuck);
    let before = bench.book.of(id);
    let ClaimedOne::Claimed(claimed) = bench.book.claim_one(id, OwnerId([9; 16]), secs(30)).await.unwrap() else {
        panic!("it rests");
    };
    let operator = steadfast::saga::Event::Operator {
        who: "somebody".to_owned(),
        verb: steadfast::saga::Verb::Compensate,
        note: "it is mended".to_owned(),
    };
    let append = Append {
        id,
        epoch: claimed.head.epoch,
        seq: claimed.head.seq,
        entries: vec![Entry {
            event: serde_json::to_vec(&operator).unwrap().into(),
            context: None,
        }],
        status: SagaStatus::Compensating,
        can_turn: false,
        progress: true,
        hold: Hold::Park(Duration::ZERO),
        error: None,
    };
    bench.book.append(&append).await.unwrap();
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Compensated);
    assert_eq!(bench.book.of(id), format!("{before} | O | s(b) | ~b F:compensated"));
    assert_eq!(bench.world.calls(), "a, b, c, undo a, undo b");
    assert_eq!(bench.world.live(), 0);
}

// T17
#[tokio::test(start_paused = true)]
async fn crashes_cost_no_attempts() {
    let bench = Bench::new();
    let b = bench
        .world
        .step("b", |run| if run <= 5 { Fate::Hangs } else { Fate::Acts });
    let saga = saga([bench.world.step("a", acts), b.attempts(2)]).build().unwrap();
    let mut dead: Vec<Process> = Vec::new();
    let mut id = None;
    for _ in 0..5 {
        let process = bench.process(&saga);
        if id.is_none() {
            id = Some(process.start(&saga, &key(1), Order::default()).await.unwrap().id());
        }
        tokio::time::sleep(secs(32)).await;
        process.die();
        dead.push(process);
        tokio::time::sleep(secs(31)).await;
    }
    let _last = bench.process(&saga);
    let id = id.unwrap();
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Completed);
    assert_eq!(bench.head(id).await.epoch, 6);
    assert_eq!(
        bench.book.of(id),
        "C S(a) | +a S(b) | S(b) | S(b) | S(b) | S(b) | S(b) | +b F:completed"
    );
}

// T18
#[tokio::test(start_paused = true)]
async fn a_saga_that_kills_its_process_is_laid_to_rest_and_the_healthy_ones_complete() {
    let bench = Bench::new();
    let killed = Arc::new(AtomicU32::new(0));
    let kills = Arc::clone(&killed);
    let deadly = Step::read_only("b", async move |cx: &mut Cx<Order>| {
        if cx.done.first().is_some_and(|first| first == "deadly") {
            kills.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(secs(20)).await;
        Ok(())
    });
    let saga = saga([bench.world.step("a", acts), deadly.timeout(secs(3600))])
        .build()
        .unwrap();
    let mut process = bench.process(&saga);
    let order = Order {
        done: vec!["deadly".to_owned()],
    };
    let id = process.start(&saga, &key(0), order).await.unwrap().id();
    let mut healthy = Vec::new();
    for n in 1..=50 {
        healthy.push(process.start(&saga, &key(n), Order::default()).await.unwrap().id());
    }
    let mut dead = Vec::new();
    for _ in 0..400 {
        if bench.head(id).await.status.as_str() == "stuck" {
            break;
        }
        let before = killed.load(Ordering::Relaxed);
        tokio::time::sleep(secs(5)).await;
        if killed.load(Ordering::Relaxed) > before || dead.is_empty() {
            // It takes its process along, and another one starts.
            process.die();
            dead.push(std::mem::replace(&mut process, bench.process(&saga)));
        }
    }
    assert_eq!(bench.rests(id, secs(1)).await, SagaEnd::Stuck);
    assert_eq!(obstacle(&bench, id).await, Some(Obstacle::CrashLoop));
    for healthy in healthy {
        assert_eq!(bench.rests(healthy, secs(3600)).await, SagaEnd::Completed);
    }
}

// T19
#[tokio::test(start_paused = true)]
async fn a_clean_failure_after_a_crash_does_not_take_the_doubt_back() {
    let bench = Bench::new();
    let b = bench
        .world
        .step("b", |run| if run == 1 { Fate::Hangs } else { Fate::Refuses });
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let first = bench.process(&saga);
    let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    first.die();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
    assert_eq!(bench.world.calls(), "a, b, b, undo b?, undo a");
    assert_eq!(bench.world.live(), 0);
}

// T22
#[tokio::test(start_paused = true)]
async fn an_undo_that_was_interrupted_is_run_again_with_the_same_key_and_told_the_same() {
    let bench = Bench::new();
    let told: Arc<std::sync::Mutex<Vec<(String, Known)>>> = Arc::default();
    let tell = Arc::clone(&told);
    let b = Step::compensatable("b", bench.world.action(acts), async move |cx: &mut Cx<Order>| {
        let first = {
            let mut told = tell.lock().unwrap();
            told.push((cx.idempotency_key(), cx.outcome()));
            told.len() == 1
        };
        if first {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let saga = saga([bench.world.step("a", acts), b, bench.world.step("c", |_| Fate::Refuses)])
        .build()
        .unwrap();
    let first = bench.process(&saga);
    let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    first.die();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
    assert!(
        bench
            .book
            .of(id)
            .ends_with("-c! U s(b) | s(b) | ~b s(a) | ~a F:compensated"),
        "{}",
        bench.book.of(id)
    );
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].1, Known::Completed);
}

// T23
#[tokio::test(start_paused = true)]
async fn a_saga_that_had_turned_back_goes_on_backward() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", |_| Fate::Refuses)])
        .build()
        .unwrap();
    let first = bench.process(&saga);
    // It is written that it turns back, and nothing after that.
    first.way.inject(Call::Append, 2..=2, Fault::ReplyHangs);
    let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bench.book.of(id), "C S(a) | +a S(b) | -b! U s(a)");
    first.die();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
    assert_eq!(bench.world.calls(), "a, b, undo a");
}

// T24
#[tokio::test(start_paused = true)]
async fn who_comes_back_after_its_lease_writes_nothing_and_undoes_nothing() {
    let bench = Bench::new();
    let world = bench.world.clone();
    let runs = Arc::new(AtomicU32::new(0));
    let a = Step::compensatable(
        "a",
        {
            let world = world.clone();
            async move |cx: &mut Cx<Order>| {
                if runs.fetch_add(1, Ordering::Relaxed) > 0 {
                    return Err(StepError::failed("no"));
                }
                // Its request is delayed, and sent by a task that outlives the step.
                let (late, request) = (world.clone(), cx.action_key());
                tokio::spawn(async move {
                    tokio::time::sleep(secs(100)).await;
                    late.arrive(request);
                });
                tokio::time::sleep(secs(300)).await;
                Ok(())
            }
        },
        async move |cx: &mut Cx<Order>| {
            world.undo(cx);
            Ok(())
        },
    );
    let saga = saga([a.timeout(secs(3600))]).build().unwrap();
    let zombie = bench.process(&saga);
    let id = zombie.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    zombie.die();
    let _second = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
    let written = bench.book.of(id);
    // It wakes, and can reach the journal again.
    zombie.way.heal();
    tokio::time::sleep(secs(600)).await;
    assert_eq!(bench.book.of(id), written);
    assert_eq!(zombie.in_flight(), 0);
    assert_eq!(bench.world.calls(), "undo a?, late");
    assert_eq!(bench.world.live(), 0);
    let loaded = bench.book.load(id).await.unwrap().unwrap();
    let claimed = loaded.entries.iter().position(|stored| stored.epoch == 2).unwrap();
    assert!(loaded.entries[claimed..].iter().all(|stored| stored.epoch == 2));
}

// T25
#[tokio::test(start_paused = true)]
async fn engines_that_claim_at_once_share_what_there_is() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
    let saga = saga([slow]).build().unwrap();
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(bench.wait(&saga, n).await);
    }
    let both = [bench.process(&saga), bench.process(&saga)];
    for &id in &ids {
        assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Completed);
        assert_eq!(bench.head(id).await.epoch, 1);
    }
    assert_eq!(bench.world.calls().matches('a').count(), 100);
    assert!(both.iter().all(|process| process.way.calls(Call::Append) > 0));
}

// T43
#[tokio::test(start_paused = true)]
async fn a_saga_of_a_version_that_is_not_there_is_left_for_who_has_it() {
    let bench = Bench::new();
    let old = saga([bench.world.step("a", acts)]).build().unwrap();
    let new = saga([bench.world.step("a", acts)]).version(2).build().unwrap();
    let id = bench.wait(&old, 1).await;
    let process = bench.process(&new);
    tokio::time::sleep(secs(300)).await;
    assert_eq!(process.counts().await.unwrap().incompatible, 1);
    assert_eq!((bench.book.of(id).as_str(), bench.head(id).await.epoch), ("C", 0));
    let _old = bench.process(&old);
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Completed);
}

// T44
#[tokio::test(start_paused = true)]
async fn a_saga_whose_steps_have_other_names_now_is_not_run() {
    let bench = Bench::new();
    let old = saga([bench.world.step("a", acts)]).build().unwrap();
    let new = saga([bench.world.step("b", acts)]).build().unwrap();
    let id = bench.wait(&old, 1).await;
    let process = bench.process(&new);
    tokio::time::sleep(secs(300)).await;
    assert_eq!(process.counts().await.unwrap().incompatible, 1);
    assert_eq!(bench.book.of(id), "C");
    assert_eq!(bench.world.calls(), "");
}

// T51
#[tokio::test(start_paused = true)]
async fn what_was_parked_runs_at_its_time_whoever_is_there() {
    let bench = Bench::new();
    let flaky = |run| if run == 1 { Fate::IsNotReached } else { Fate::Acts };
    let b = bench.world.step("b", flaky).backoff(Backoff::constant(secs(3600)));
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let first = bench.process(&saga);
    let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(600)).await;
    first.die();
    assert_eq!(bench.book.of(id), "C S(a) | +a S(b) | -b!");
    let _second = bench.process(&saga);
    tokio::time::sleep(secs(2_995)).await;
    assert_eq!(bench.world.calls(), "a, b");
    tokio::time::sleep(secs(10)).await;
    assert_eq!(bench.rests(id, secs(1)).await, SagaEnd::Completed);
    assert_eq!(bench.head(id).await.recoveries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_parked_saga_turns_back_at_its_deadline() {
    let bench = Bench::new();
    let b = bench
        .world
        .step("b", |_| Fate::IsNotReached)
        .backoff(Backoff::constant(secs(3600)));
    let saga = saga([bench.world.step("a", acts), b])
        .deadline(secs(600))
        .build()
        .unwrap();
    let process = bench.process(&saga);
    let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(599)).await;
    assert_eq!(bench.book.of(id), "C S(a) | +a S(b) | -b!");
    tokio::time::sleep(secs(3)).await;
    assert_eq!(bench.rests(id, secs(1)).await, SagaEnd::Compensated);
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_panics_whoever_reads_it_is_laid_to_rest() {
    let bench = Bench::new();
    let old = saga([bench.world.step("a", acts)]).build().unwrap();
    let new = saga([bench.world.step("a", acts)])
        .version(2)
        .upcast(1, |_| panic!("told to"))
        .build()
        .unwrap();
    let id = bench.wait(&old, 1).await;
    let _process = bench.process_with(&new, |engine| engine.max_recoveries(2));
    assert_eq!(bench.rests(id, secs(300)).await, SagaEnd::Stuck);
    assert_eq!(obstacle(&bench, id).await, Some(Obstacle::CrashLoop));
}

#[tokio::test(start_paused = true)]
async fn a_context_that_cannot_be_read_leaves_the_saga_stuck() {
    let bench = Bench::new();
    let old = saga([bench.world.step("a", acts)]).build().unwrap();
    let new = saga([bench.world.step("a", acts)])
        .version(2)
        .upcast(1, |_| Err("not this one".into()))
        .build()
        .unwrap();
    let id = bench.wait(&old, 1).await;
    let _process = bench.process(&new);
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Stuck);
    assert_eq!(obstacle(&bench, id).await, Some(Obstacle::Corrupt));
    let error = bench.head(id).await.error.unwrap();
    assert!(error.contains("not this one"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_lays_a_saga_to_rest_is_repeated() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let id = bench.wait(&saga, 1).await;
    for n in 0..3 {
        crash(&bench, &saga, n).await;
    }
    let process = bench.process_with(&saga, |engine| engine.max_recoveries(2));
    process.way.inject(Call::Append, 1..=2, Fault::RequestLost);
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Stuck);
    assert_eq!(bench.world.calls(), "");
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_has_shown_a_result_is_none_any_more() {
    let bench = Bench::new();
    let long = bench.world.step("b", |_| Fate::Takes(secs(3600)));
    let saga = saga([bench.world.step("a", acts), long.timeout(secs(7200))])
        .build()
        .unwrap();
    let ids = [bench.wait(&saga, 1).await, bench.wait(&saga, 2).await];
    for n in 0..5 {
        assert_eq!(crash(&bench, &saga, n).await.len(), 2);
    }
    let process = bench.process(&saga);
    tokio::time::sleep(secs(60)).await;
    // Both are in their long step: the second did not wait for the end of the first.
    assert_eq!(process.in_flight(), 2);
    for id in ids {
        assert_eq!(bench.head(id).await.recoveries, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_lost_a_lease_takes_the_saga_over_from_itself() {
    let bench = Bench::new();
    let hangs = |run| if run == 1 { Fate::Hangs } else { Fate::Acts };
    let saga = saga([bench.world.step("a", hangs)]).build().unwrap();
    let process = bench.process(&saga);
    process.way.inject(Call::Renew, 1..=4, Fault::RequestHangs);
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), started)
        .await
        .expect("the end")
        .unwrap();
    assert_eq!(bench.world.calls(), "a, a");
    assert_eq!(process.in_flight(), 0);
}
