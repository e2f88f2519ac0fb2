//! Sagas in memory: what runs, what is undone, and what the caller hears.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use steadfast::saga::{
    Cause, Cx, Known, Reality, Saga, SagaBuilder, SagaEnd, SagaError, Step, StepError, StepResult, WhenUnknown,
};
use steadfast::{Backoff, Rejected};
use tokio::time::{Instant, sleep};

/// What the participants have seen, and what each run of a step does next.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    calls: Vec<String>,
    /// What the runs of an action (`a`) or an undo (`~a`) do, in turn; afterwards they succeed.
    script: BTreeMap<&'static str, Vec<Does>>,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Fail,
    Reject,
    Break,
    BreakForGood,
    Panic,
    PanicAtOnce,
    Hang,
}

impl World {
    fn script(&self, call: &'static str, does: impl IntoIterator<Item = Does>) -> &Self {
        let mut does: Vec<_> = does.into_iter().collect();
        does.reverse();
        self.0.lock().unwrap().script.insert(call, does);
        self
    }

    fn calls(&self) -> String {
        self.0.lock().unwrap().calls.join(" ")
    }

    fn note(&self, call: String, scripted: &str) -> Option<Does> {
        let mut seen = self.0.lock().unwrap();
        seen.calls.push(call);
        seen.script.get_mut(scripted)?.pop()
    }

    async fn act(&self, call: String, scripted: &str) -> StepResult {
        match self.note(call, scripted) {
            None => Ok(()),
            Some(Does::Fail) => Err(StepError::failed("no")),
            Some(Does::Reject) => Err(Rejected::bulkhead_full("lanes").into()),
            Some(Does::Break) => Err(std::io::Error::other("connection reset").into()),
            Some(Does::BreakForGood) => Err(StepError::fatal_unknown("gone")),
            Some(Does::Panic | Does::PanicAtOnce) => panic!("scripted"),
            Some(Does::Hang) => std::future::pending().await,
        }
    }

    fn action(&self, name: &'static str) -> impl steadfast::saga::Action<Log, ()> {
        let world = self.clone();
        async move |cx: &mut Cx<Log>| {
            cx.push(name.to_owned());
            world.act(name.to_owned(), name).await
        }
    }

    fn undo(&self, name: &'static str) -> impl steadfast::saga::Action<Log, ()> {
        let world = self.clone();
        async move |cx: &mut Cx<Log>| {
            let known = if cx.outcome() == Known::Unknown { "?" } else { "" };
            cx.retain(|done| done != name);
            world.act(format!("~{name}{known}"), &format!("~{name}")).await
        }
    }

    fn step(&self, name: &'static str) -> Step<Log> {
        let quick = Backoff::constant(Duration::from_millis(10));
        Step::compensatable(name, self.action(name), self.undo(name))
            .backoff(quick.clone())
            .undo_backoff(quick)
    }

    fn abc(&self) -> SagaBuilder<Log> {
        Saga::builder("abc")
            .with(self.step("a"))
            .with(self.step("b"))
            .with(self.step("c"))
    }
}

type Log = Vec<String>;

async fn run(saga: SagaBuilder<Log>) -> Result<Log, SagaError> {
    saga.build().unwrap().run(Log::new()).await
}

fn compensated(result: Result<Log, SagaError>) -> steadfast::saga::Report {
    match result {
        Err(SagaError::Compensated(report)) => *report,
        other => panic!("{other:?}"),
    }
}

fn stuck(result: Result<Log, SagaError>) -> steadfast::saga::Report {
    match result {
        Err(SagaError::Stuck(report)) => *report,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_runs_once_in_order_and_hands_its_context_on() {
    let world = World::default();
    assert_eq!(run(world.abc()).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(world.calls(), "a b c");
}

#[tokio::test(start_paused = true)]
async fn a_clean_failure_undoes_what_was_done_before_and_not_itself() {
    let world = World::default();
    world.script("c", [Does::Fail]);
    let report = compensated(run(world.abc()).await);
    assert_eq!(world.calls(), "a b c ~b ~a");
    assert_eq!((report.end, report.unresolved.len()), (SagaEnd::Compensated, 0));
    let Some(Cause::Failed(failure)) = report.cause else {
        panic!("{:?}", report.cause);
    };
    assert_eq!((failure.step.as_str(), failure.error.to_string().as_str()), ("c", "no"));
}

#[tokio::test(start_paused = true)]
async fn when_the_first_step_fails_cleanly_nothing_is_undone() {
    let world = World::default();
    world.script("a", [Does::Fail]);
    compensated(run(world.abc()).await);
    assert_eq!(world.calls(), "a");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_happened_is_undone_and_told_so() {
    for does in [
        Does::Break,
        Does::BreakForGood,
        Does::Panic,
        Does::PanicAtOnce,
        Does::Hang,
    ] {
        let world = World::default();
        world.script("b", [does; 3]);
        compensated(run(world.abc()).await);
        let runs = if matches!(does, Does::Break | Does::Hang) {
            "b b b"
        } else {
            "b"
        };
        assert_eq!(world.calls(), format!("a {runs} ~b? ~a"), "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_failure_after_a_doubtful_one_does_not_take_the_doubt_back() {
    let world = World::default();
    world.script("b", [Does::Break, Does::Fail]);
    compensated(run(world.abc()).await);
    assert_eq!(world.calls(), "a b b ~b? ~a");

    let world = World::default();
    world.script("b", [Does::Break, Does::Fail]);
    let answering = Saga::builder("abc")
        .with(world.step("a"))
        .with(world.step("b").answers_by_key());
    compensated(run(answering).await);
    assert_eq!(world.calls(), "a b b ~a", "unless the participant answers for all runs");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_tried_again_and_not_undone() {
    let world = World::default();
    world.script("b", [Does::Reject; 3]);
    compensated(run(world.abc()).await);
    assert_eq!(world.calls(), "a b b b ~a");
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_for_their_backoff() {
    let world = World::default();
    world.script("b", [Does::Break, Does::Break]);
    let start = Instant::now();
    assert_eq!(run(world.abc()).await.unwrap(), ["a", "b", "c"]);
    assert_eq!((world.calls().as_str(), start.elapsed().as_millis()), ("a b b b c", 20));
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_tried_again_and_the_others_go_on_without_it() {
    let world = World::default();
    world.script("c", [Does::Fail]).script("~b", [Does::Break]);
    compensated(run(world.abc()).await);
    assert_eq!(world.calls(), "a b c ~b ~b ~a");

    let world = World::default();
    world
        .script("c", [Does::Fail])
        .script("~b", [Does::Break, Does::Panic, Does::Hang]);
    let report = stuck(run(world.abc()).await);
    assert_eq!(world.calls(), "a b c ~b ~b ~b ~a");
    assert_eq!((report.unresolved, report.undo_errors.len()), (vec!["b".to_owned()], 1));
    assert!(report.cause.is_some());

    let world = World::default();
    world.script("c", [Does::Fail]).script("~b", [Does::Break; 3]);
    let report = stuck(run(world.abc().halt_on_undo_failure()).await);
    assert_eq!(
        (world.calls().as_str(), report.unresolved),
        ("a b c ~b ~b ~b", vec!["b".to_owned(), "a".to_owned()])
    );
}

fn with_pivot(world: &World) -> SagaBuilder<Log> {
    let quick = Backoff::constant(Duration::from_millis(10));
    Saga::builder("order")
        .with(world.step("a"))
        .with(Step::pivot("p", world.action("p")).backoff(quick.clone()))
        .with(Step::retriable("r", world.action("r")).backoff(quick))
}

#[tokio::test(start_paused = true)]
async fn a_pivot_that_fails_cleanly_turns_back_and_one_in_doubt_goes_neither_way() {
    let world = World::default();
    world.script("p", [Does::Fail]);
    compensated(run(with_pivot(&world)).await);
    assert_eq!(world.calls(), "a p ~a");

    let world = World::default();
    world.script("p", [Does::Break; 3]);
    let report = stuck(run(with_pivot(&world)).await);
    assert_eq!(
        (world.calls().as_str(), report.unresolved),
        ("a p p p", vec!["p".to_owned()])
    );
    assert!(matches!(report.cause, Some(Cause::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn after_the_pivot_nothing_is_undone() {
    let world = World::default();
    world.script("r", [Does::Fail]);
    let report = stuck(run(with_pivot(&world)).await);
    assert_eq!(
        (world.calls().as_str(), report.unresolved),
        ("a p r", vec!["r".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_settles_what_nobody_knows() {
    for (reality, pivot, calls) in [
        (Reality::Done, true, "a p a? p! r"),
        (Reality::Never, true, "a p a? ~a"),
        (Reality::NotDone, true, "a p a? p r"),
        (Reality::Unknown, true, "a p a? stuck"),
        (Reality::Done, false, "a p a? ~p ~a"),
        (Reality::Never, false, "a p a? ~a"),
        (Reality::NotDone, false, "a p a? ~p? ~a"),
        (Reality::Unknown, false, "a p a? ~p? ~a"),
    ] {
        let world = World::default();
        world.script("p", [Does::BreakForGood]);
        let hook = {
            let world = world.clone();
            async move |_: &mut Cx<Log>| {
                world.note("a?".to_owned(), "a?");
                Ok::<_, StepError>(reality)
            }
        };
        let doubtful = if pivot {
            Step::pivot("p", world.action("p"))
        } else {
            world.step("p")
        };
        let mut saga = Saga::builder("order")
            .with(world.step("a"))
            .with(doubtful.reconcile(hook));
        if pivot {
            saga = saga.retriable("r", world.action("r"));
        }
        let ended = run(saga).await;
        let mut expected = calls.replace(" p!", "");
        if let Some(without) = expected.strip_suffix(" stuck") {
            stuck(ended);
            expected = without.to_owned();
        } else if pivot && reality != Reality::Never {
            ended.unwrap();
        } else {
            compensated(ended);
        }
        assert_eq!(world.calls(), expected, "{reality:?}, pivot: {pivot}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_in_doubt_is_skipped_or_sticks_where_it_says_so() {
    for (when, calls) in [(WhenUnknown::Skip, "a b ~a"), (WhenUnknown::Stick, "a b ~a")] {
        let world = World::default();
        world.script("b", [Does::BreakForGood]);
        let saga = Saga::builder("ab")
            .with(world.step("a"))
            .with(world.step("b").when_unknown(when));
        let ended = run(saga).await;
        assert_eq!(world.calls(), calls);
        match when {
            WhenUnknown::Skip => drop(compensated(ended)),
            _ => assert_eq!(stuck(ended).unresolved, ["b"]),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_effect_or_needs_no_undo_is_not_undone() {
    let world = World::default();
    world.script("c", [Does::Fail]);
    let saga = Saga::builder("s")
        .read_only("a", world.action("a"))
        .with(Step::without_undo("b", world.action("b")))
        .with(world.step("c"));
    compensated(run(saga).await);
    assert_eq!(world.calls(), "a b c");
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_leaves_no_trace_in_the_context() {
    let world = World::default();
    world.script("b", [Does::Break]);
    assert_eq!(run(world.abc()).await.unwrap(), ["a", "b", "c"], "and not b twice");
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_step_are_the_same_in_every_attempt_and_the_undo_knows_them() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let note = |fails: bool| {
        let keys = Arc::clone(&keys);
        async move |cx: &mut Cx<()>| {
            keys.lock()
                .unwrap()
                .push((cx.idempotency_key(), cx.action_key(), cx.attempt()));
            assert!(cx.subkey("x").starts_with(&cx.idempotency_key()));
            if fails { Err(StepError::unknown("lost")) } else { Ok(()) }
        }
    };
    let step = Step::compensatable("charge", note(true), note(false)).attempts(2);
    let ended = Saga::builder("s").with(step).build().unwrap().run(()).await;
    let id = ended.unwrap_err().report().unwrap().id;
    let (action, undo) = (format!("{id}:1:charge:do"), format!("{id}:1:charge:undo"));
    let expected = [
        (action.clone(), action.clone(), 1),
        (action.clone(), action.clone(), 2),
        (undo, action, 1),
    ];
    assert_eq!(*keys.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_stop_the_saga() {
    let world = World::default();
    let slow = {
        let world = world.clone();
        async move |_: &mut Cx<Log>| {
            sleep(Duration::from_secs(1)).await;
            world.act("slow".to_owned(), "slow").await
        }
    };
    let saga = Saga::builder("s")
        .with(world.step("a"))
        .with(Step::without_undo("slow", slow))
        .with(world.step("c"));
    let saga = saga.build().unwrap();
    let mut call = Box::pin(saga.run(Log::new()));
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.calls(), "a slow c");
    drop(saga.run(Log::new()));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.calls(), "a slow c", "dropped before its first poll it never ran");
}

#[tokio::test(start_paused = true)]
async fn an_error_tells_which_step_failed_and_why() {
    let world = World::default();
    world.script("b", [Does::Fail]);
    let error = run(world.abc()).await.unwrap_err();
    let chain = format!("{:#}", anyhow::Error::from(error.clone()));
    assert_eq!(chain, "saga `abc` was rolled back: step `b` failed: step `b`: no");
    assert!(error.source().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_is_cancelled_finishes_its_step_and_turns_back() {
    let world = World::default();
    let slow = {
        let world = world.clone();
        async move |_: &mut Cx<Log>| {
            sleep(Duration::from_secs(1)).await;
            world.act("slow".to_owned(), "slow").await
        }
    };
    let saga = Saga::builder("s")
        .with(Step::compensatable("slow", slow, world.undo("slow")))
        .with(world.step("c"));
    let handle = saga.build().unwrap().start(Log::new());
    sleep(Duration::from_millis(1)).await;
    handle.cancel();
    let report = compensated(handle.await);
    assert_eq!(world.calls(), "slow ~slow");
    assert!(matches!(report.cause, Some(Cause::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_waits_for_another_attempt_is_cancelled_at_once() {
    let world = World::default();
    world.script("b", [Does::Break; 3]);
    let hour = Backoff::constant(Duration::from_secs(3_600));
    let saga = Saga::builder("s")
        .with(world.step("a"))
        .with(world.step("b").backoff(hour));
    let start = Instant::now();
    let handle = saga.build().unwrap().start(Log::new());
    sleep(Duration::from_secs(1)).await;
    handle.cancel();
    compensated(handle.await);
    assert_eq!((world.calls().as_str(), start.elapsed().as_secs()), ("a b ~b? ~a", 1));
}

#[tokio::test(start_paused = true)]
async fn after_the_pivot_neither_a_cancel_nor_the_deadline_counts() {
    let world = World::default();
    world.script("r", [Does::Hang, Does::Hang]);
    let saga = with_pivot(&world).deadline(Duration::from_secs(1)).build().unwrap();
    let handle = saga.start(Log::new());
    sleep(Duration::from_millis(1)).await;
    handle.cancel();
    assert_eq!(handle.await.unwrap(), ["a", "p", "r"]);
    assert_eq!(world.calls(), "a p r r r");
}

#[tokio::test(start_paused = true)]
async fn after_the_pivot_a_deadline_that_has_passed_takes_no_backoff_away() {
    let world = World::default();
    world.script("r", [Does::Hang, Does::Break]);
    let hour = Backoff::constant(Duration::from_secs(3_600));
    let saga = Saga::builder("order")
        .pivot("p", world.action("p"))
        .with(Step::retriable("r", world.action("r")).backoff(hour))
        .deadline(Duration::from_secs(1));
    let start = Instant::now();
    assert_eq!(run(saga).await.unwrap(), ["p", "r"]);
    assert_eq!(start.elapsed().as_secs(), 60 + 2 * 3_600);
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_saga_turns_back_and_its_undo_takes_its_time() {
    let world = World::default();
    world.script("b", [Does::Hang]).script("~a", [Does::Hang, Does::Hang]);
    let saga = world.abc().deadline(Duration::from_secs(30));
    let start = Instant::now();
    let report = compensated(run(saga).await);
    assert_eq!(world.calls(), "a b ~b? ~a ~a ~a");
    assert!(matches!(report.cause, Some(Cause::Deadline)));
    assert!(start.elapsed() > Duration::from_secs(180));
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_every_event_in_order_and_may_panic() {
    let (world, heard) = (World::default(), Arc::new(Mutex::new(Vec::new())));
    world.script("b", [Does::Fail]);
    let saga = world.abc().on_event({
        let heard = Arc::clone(&heard);
        move |told| {
            assert_eq!(told.saga, "abc");
            let event = format!("{:?}", told.event);
            heard.lock().unwrap().push(event.split(' ').next().unwrap().to_owned());
            panic!("a listener only watches");
        }
    });
    compensated(run(saga).await);
    let events = "Created Started Succeeded Started Failed Unwinding UndoStarted UndoSucceeded Finished";
    assert_eq!(heard.lock().unwrap().join(" "), events);
}
