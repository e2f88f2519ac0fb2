//! What is written, write by write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use steadfast::saga::journal::{CancelRequest, SagaStatus};
use steadfast::saga::{Cx, Event, Reality, Saga, SagaEnd, SagaError, StartError, Step};
use steadfast::testing::saga::Call;

use super::world::{Bench, Fate, Order, acts, at_once, key, saga, secs};

/// Runs a saga alone, and gives what was written and how it ended.
async fn run(bench: &Bench, saga: &Saga<Order>) -> (String, Result<Order, SagaError>) {
    let process = bench.process(saga);
    let mut started = process.start(saga, &key(1), Order::default()).await.unwrap();
    let end = started.wait().await;
    (bench.book.of(started.id()), end)
}

fn refuses(_: u32) -> Fate {
    Fate::Refuses
}

/// Three steps, of which the last is refused.
fn refused(bench: &Bench, b: Step<Order>) -> Saga<Order> {
    let world = &bench.world;
    let (a, c) = (world.step("a", acts), world.step("c", refuses));
    saga([a, b, c]).build().unwrap()
}

// T01
#[tokio::test(start_paused = true)]
async fn steps_that_succeed_are_written_with_the_start_of_the_next() {
    let bench = Bench::new();
    let saga = saga(["a", "b", "c"].map(|name| bench.world.step(name, acts)))
        .build()
        .unwrap();
    let (written, end) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | +a S(b) | +b S(c) | +c F:completed");
    assert_eq!(end.unwrap().done, ["a", "b", "c"]);
    assert_eq!(bench.world.live(), 3);
}

// T02
#[tokio::test(start_paused = true)]
async fn a_clean_failure_is_written_with_the_turning_back_and_the_first_undo() {
    let bench = Bench::new();
    let (written, end) = run(&bench, &refused(&bench, bench.world.step("b", acts))).await;
    assert_eq!(
        written,
        "C S(a) | +a S(b) | +b S(c) | -c! U s(b) | ~b s(a) | ~a F:compensated"
    );
    assert!(matches!(end, Err(SagaError::Compensated(_))), "{end:?}");
    assert_eq!(bench.world.calls(), "a, b, c, undo b, undo a");
    assert_eq!(bench.world.live(), 0);
}

// T03
#[tokio::test(start_paused = true)]
async fn where_nothing_was_done_nothing_is_undone() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", refuses), bench.world.step("b", acts)])
        .build()
        .unwrap();
    let (written, _) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | -a! U F:compensated");
}

// T04
#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_tried_again_and_then_undone_as_unknown() {
    let bench = Bench::new();
    let b = at_once(bench.world.step("b", |_| Fate::Unknown)).attempts(2);
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let (written, _) = run(&bench, &saga).await;
    assert_eq!(
        written,
        "C S(a) | +a S(b) | -b? | S(b) | -b? U s(b)? | ~b s(a) | ~a F:compensated"
    );
    assert_eq!(bench.world.live(), 0);
}

// T05
#[tokio::test(start_paused = true)]
async fn a_panic_may_have_had_its_effect_and_is_not_tried_again() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", |_| Fate::Panics)])
        .build()
        .unwrap();
    let (written, _) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | +a S(b) | -b? U s(b)? | ~b s(a) | ~a F:compensated");
    assert_eq!(bench.world.live(), 0);
}

// T06
#[tokio::test(start_paused = true)]
async fn a_step_that_took_too_long_is_undone_as_unknown() {
    let bench = Bench::new();
    let b = bench.world.step("b", |_| Fate::Hangs).attempts(1);
    let b = b.timeout(std::time::Duration::from_millis(50));
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let (written, _) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | +a S(b) | -b? U s(b)? | ~b s(a) | ~a F:compensated");
    assert_eq!(bench.world.calls(), "a, b, undo b?, undo a");
    assert_eq!(bench.world.live(), 0);
}

// T07
#[tokio::test(start_paused = true)]
async fn what_only_reads_is_not_undone_even_if_nobody_knows() {
    let bench = Bench::new();
    let b = Step::read_only("b", bench.world.action(|_| Fate::Unknown)).attempts(1);
    let saga = saga([bench.world.step("a", acts), b]).build().unwrap();
    let (written, _) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | +a S(b) | -b? U s(a) | ~a F:compensated");
}

fn fails_until(good: u32) -> impl Fn(u32) -> Fate + Clone + Send + Sync + 'static {
    move |undo| if undo < good { Fate::IsNotReached } else { Fate::Acts }
}

// T08
#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_tried_again() {
    let bench = Bench::new();
    let b = at_once(bench.world.step_with("b", acts, fails_until(2)));
    let (written, _) = run(&bench, &refused(&bench, b)).await;
    assert_eq!(
        written,
        "C S(a) | +a S(b) | +b S(c) | -c! U s(b) | yb | s(b) | ~b s(a) | ~a F:compensated"
    );
}

// T09
#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_for_good_leaves_the_saga_stuck_and_the_others_undone() {
    let bench = Bench::new();
    let b = at_once(bench.world.step_with("b", acts, fails_until(4)));
    let (written, end) = run(&bench, &refused(&bench, b)).await;
    assert_eq!(
        written,
        "C S(a) | +a S(b) | +b S(c) | -c! U s(b) | yb | s(b) | yb | s(b) | xb s(a) | ~a F:stuck"
    );
    let Err(SagaError::Stuck(report)) = end else {
        panic!("{end:?}");
    };
    assert_eq!(report.unresolved, ["b"]);
    assert!(report.cause.is_some());
    assert_eq!(report.undo_errors.len(), 1);
}

// T10
#[tokio::test(start_paused = true)]
async fn where_it_is_to_halt_nothing_is_undone_after_an_undo_that_failed() {
    let bench = Bench::new();
    let b = at_once(bench.world.step_with("b", acts, fails_until(4)));
    let steps = [bench.world.step("a", acts), b, bench.world.step("c", refuses)];
    let saga = saga(steps).halt_on_undo_failure().build().unwrap();
    let (written, end) = run(&bench, &saga).await;
    assert!(written.ends_with("s(b) | xb F:stuck"), "{written}");
    assert_eq!(end.unwrap_err().report().unwrap().unresolved, ["b", "a"]);
}

// T16, without the kill
#[tokio::test(start_paused = true)]
async fn after_the_pivot_a_saga_goes_on_to_its_end() {
    let bench = Bench::new();
    let world = &bench.world;
    let flaky = |run| if run < 3 { Fate::IsNotReached } else { Fate::Acts };
    let saga = saga([
        world.step("a", acts),
        Step::pivot("b", world.action(acts)),
        at_once(Step::retriable("c", world.action(flaky))),
    ]);
    let (written, end) = run(&bench, &saga.build().unwrap()).await;
    assert_eq!(
        written,
        "C S(a) | +a S(b) | +b S(c) | -c! | S(c) | -c! | S(c) | +c F:completed"
    );
    assert!(end.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_saga_of_n_steps_costs_one_write_more_than_it_has_steps_and_no_other_call() {
    for steps in 1..=6_u64 {
        let bench = Bench::new();
        let names = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .take(usize::try_from(steps).unwrap());
        let saga = saga(names.map(|name| bench.world.step(name, acts))).build().unwrap();
        let process = bench.process(&saga);
        tokio::time::sleep(secs(5)).await;
        let before = process.way.all_calls() - process.way.calls(Call::Claim);
        process
            .start(&saga, &key(1), Order::default())
            .await
            .unwrap()
            .await
            .unwrap();
        let after = process.way.all_calls() - process.way.calls(Call::Claim);
        assert_eq!(after - before, steps + 1);
        assert_eq!(process.way.calls(Call::Create), 1);
        assert_eq!(process.way.calls(Call::Append), steps);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_place_a_saga_costs_one_write_more() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
    let saga = saga([slow, bench.world.step("b", acts)]).build().unwrap();
    let process = bench.process_with(&saga, |engine| engine.max_concurrent(1));
    tokio::time::sleep(secs(1)).await;
    let first = process.start(&saga, &key(1), Order::default()).await.unwrap();
    let second = process.start(&saga, &key(2), Order::default()).await.unwrap();
    let ids = [first.id(), second.id()];
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(bench.book.of(ids[0]), "C S(a) | +a S(b) | +b F:completed");
    assert_eq!(bench.book.of(ids[1]), "C | S(a) | +a S(b) | +b F:completed");
}

// T31
#[tokio::test(start_paused = true)]
async fn a_context_that_cannot_be_written_leaves_its_step_in_doubt() {
    #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    struct Fragile {
        #[serde(serialize_with = "refuse_seven")]
        number: u32,
    }
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn refuse_seven<S: serde::Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        if *number == 7 {
            return Err(S::Error::custom("not seven"));
        }
        assert_ne!(*number, 8, "not eight either");
        serializer.serialize_u32(*number)
    }
    for bad in [7, 8] {
        let bench = Bench::new();
        let undone = Arc::new(Mutex::new(Vec::new()));
        let undo = Arc::clone(&undone);
        let saga = Saga::<Fragile>::builder("fragile")
            .step(
                "b",
                async move |cx: &mut Cx<Fragile>| {
                    cx.number = bad;
                    Ok(())
                },
                async move |cx: &mut Cx<Fragile>| {
                    undo.lock().unwrap().push((cx.number, cx.outcome()));
                    Ok(())
                },
            )
            .build()
            .unwrap();
        let way = steadfast::testing::saga::Faulty::over(Arc::clone(&bench.book));
        let engine = steadfast::saga::SagaEngine::builder(way)
            .register(&saga)
            .build()
            .unwrap();
        let mut started = engine.start(&saga, &key(1), Fragile::default()).await.unwrap();
        let end = started.wait().await;
        assert!(matches!(end, Err(SagaError::Compensated(_))));
        assert_eq!(bench.book.of(started.id()), "C S(b) | -b? U s(b)? | ~b F:compensated");
        assert_eq!(*undone.lock().unwrap(), [(0, steadfast::saga::Known::Unknown)]);
    }
}

// T32
#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_leaves_its_saga_alone() {
    let bench = Bench::new();
    let slow = bench.world.step("b", |_| Fate::Takes(secs(5)));
    let saga = saga([bench.world.step("a", acts), slow]).build().unwrap();
    let process = bench.process(&saga);
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    let id = started.id();
    tokio::time::sleep(secs(1)).await;
    drop(started);
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Completed);
}

// T33
#[tokio::test(start_paused = true)]
async fn a_handle_that_cancels_when_it_is_dropped_lets_the_step_finish() {
    let bench = Bench::new();
    let slow = bench.world.step("b", |_| Fate::Takes(secs(5)));
    let saga = saga([bench.world.step("a", acts), slow, bench.world.step("c", acts)])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    let started = process
        .start(&saga, &key(1), Order::default())
        .await
        .unwrap()
        .cancel_on_drop();
    let id = started.id();
    tokio::time::sleep(secs(1)).await;
    drop(started);
    assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Compensated);
    assert_eq!(
        bench.book.of(id),
        "C S(a) | +a S(b) | +b U s(b) | ~b s(a) | ~a F:compensated"
    );
}

// T35
#[tokio::test(start_paused = true)]
async fn after_the_pivot_it_is_too_late_to_cancel() {
    let bench = Bench::new();
    let world = &bench.world;
    let pivot = Step::pivot("b", world.action(|_| Fate::Takes(secs(5))));
    let saga = saga([world.step("a", acts), pivot, Step::retriable("c", world.action(acts))])
        .build()
        .unwrap();
    let process = bench.process(&saga);
    let started = process.start(&saga, &key(1), Order::default()).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(started.cancel().await.unwrap(), CancelRequest::TooLate);
    let id = started.id();
    started.await.unwrap();
    let ended = process.cancel(id).await.unwrap();
    assert_eq!(ended, CancelRequest::Ended(SagaStatus::Completed));
    assert_eq!(bench.book.of(id), "C S(a) | +a S(b) | +b S(c) | +c F:completed");
}

// T37
#[tokio::test(start_paused = true)]
async fn a_deadline_turns_a_saga_back_and_does_not_limit_its_undos() {
    let bench = Bench::new();
    let world = &bench.world;
    let a = world.step_with("a", |_| Fate::Takes(secs(5)), |_| Fate::Takes(secs(50)));
    let saga = saga([a, world.step("b", acts)]).deadline(secs(3)).build().unwrap();
    let (written, end) = run(&bench, &saga).await;
    assert_eq!(written, "C S(a) | +a U s(a) | ~a F:compensated");
    let cause = &end.as_ref().unwrap_err().report().unwrap().cause;
    assert!(matches!(cause, Some(steadfast::saga::Cause::Deadline)), "{end:?}");
}

// T41
#[tokio::test(start_paused = true)]
async fn two_starts_of_one_key_at_once_are_one_saga() {
    let bench = Bench::new();
    let slow = bench.world.step("a", |_| Fate::Takes(secs(5)));
    let saga = saga([slow]).build().unwrap();
    let (here, there) = (bench.process(&saga), bench.process(&saga));
    let (key, order) = (key(1), Order::default);
    let (one, two, three) = tokio::join!(
        here.start(&saga, &key, order()),
        there.start(&saga, &key, order()),
        here.start(&saga, &key, order())
    );
    let all = [one.unwrap(), two.unwrap(), three.unwrap()];
    assert!(all.iter().all(|started| started.id() == all[0].id()));
    assert_eq!(all.iter().filter(|started| started.existed()).count(), 2);
    for started in all {
        assert_eq!(started.await.unwrap().done, ["a"]);
    }
    assert_eq!(bench.world.calls(), "a");
}

// T42
#[tokio::test(start_paused = true)]
async fn another_context_under_the_same_key_is_refused_and_writes_nothing() {
    let bench = Bench::new();
    let saga = saga([bench.world.step("a", acts)]).build().unwrap();
    let process = bench.process(&saga);
    let mut first = process.start(&saga, &key(1), Order::default()).await.unwrap();
    first.wait().await.unwrap();
    let before = bench.book.of(first.id());
    let other = Order {
        done: vec!["x".to_owned()],
    };
    let refused = process.start(&saga, &key(1), other).await;
    assert!(matches!(refused, Err(StartError::KeyConflict { .. })));
    assert_eq!(bench.book.of(first.id()), before);
    assert_eq!(bench.world.calls(), "a");
    assert_eq!(process.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_event_is_told_once_and_not_again_by_who_goes_on_with_the_saga() {
    let bench = Bench::new();
    let told: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let listener = Arc::clone(&told);
    let hangs = |run| if run == 1 { Fate::Hangs } else { Fate::Acts };
    let saga = saga([bench.world.step("a", acts), bench.world.step("b", hangs)])
        .on_event(move |told| {
            let event = match told.event {
                Event::Started { step } => format!("started {step}"),
                Event::Succeeded { step } => format!("succeeded {step}"),
                Event::Finished { .. } => "finished".to_owned(),
                _ => "created".to_owned(),
            };
            *listener.lock().unwrap().entry(event).or_default() += 1;
        })
        .build()
        .unwrap();
    let first = bench.process(&saga);
    let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
    tokio::time::sleep(secs(1)).await;
    first.die();
    let second = bench.process(&saga);
    assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Completed);
    let told = told.lock().unwrap();
    assert_eq!(told["created"], 1);
    assert_eq!(told["started a"], 1);
    assert_eq!(told["succeeded a"], 1);
    // It was started twice.
    assert_eq!(told["started b"], 2);
    assert_eq!(told["succeeded b"], 1);
    assert_eq!(told["finished"], 1);
    drop(second);
}

// T20
#[tokio::test(start_paused = true)]
async fn a_hook_settles_a_step_that_was_interrupted() {
    for reality in [Reality::Done, Reality::NotDone, Reality::Never, Reality::Unknown] {
        let bench = Bench::new();
        let world = &bench.world;
        let hangs = |run| if run == 1 { Fate::Hangs } else { Fate::Refuses };
        let b = world
            .step("b", hangs)
            .reconcile(async move |_: &mut Cx<Order>| Ok(reality));
        let b = b.when_interrupted(steadfast::saga::WhenInterrupted::Reconcile);
        let saga = saga([world.step("a", acts), b, world.step("c", refuses)])
            .build()
            .unwrap();
        let first = bench.process(&saga);
        let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
        tokio::time::sleep(secs(1)).await;
        first.die();
        let _second = bench.process(&saga);
        assert_eq!(bench.rests(id, secs(60)).await, SagaEnd::Compensated);
        let expected = match reality {
            // It counts as done, and the next step is refused.
            Reality::Done => "a, b, c, undo b, undo a",
            // It was run again, and what an earlier run may have done is undone.
            Reality::NotDone => "a, b, b, undo b?, undo a",
            // The participant has closed the key: there is nothing to undo.
            Reality::Never => "a, b, undo a",
            Reality::Unknown => "a, b, undo b?, undo a",
        };
        assert_eq!(world.calls(), expected, "{reality:?}: {}", bench.book.of(id));
    }
}
