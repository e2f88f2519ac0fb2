//! The decision table: what is to be done next, for every state of the step that it is about.
//!
//! The step `b` comes after `a`, which has succeeded. It may fail twice, and so may its undo.

use std::borrow::Cow;

use super::super::event::{Known, Reality, Reason, SagaEnd};
use super::super::plan::{Plan, StepKind, StepPlan, WhenInterrupted, WhenUnknown};
use super::model::step;
use super::state::{Phase, StepState};
use super::{Circumstances, Direction, Next, State, Stop, decide, unresolved};
use crate::Effect;

fn plain() -> StepPlan {
    step("b", StepKind::Compensatable)
}

fn pivot() -> StepPlan {
    step("b", StepKind::Pivot)
}

fn at(phase: Phase) -> StepState {
    StepState {
        phase,
        maybe: false,
        failures: 0,
        undo_failures: 0,
        reconciled: false,
    }
}

fn failed(effect: Effect, retryable: bool, failures: u32) -> StepState {
    StepState {
        maybe: effect == Effect::Maybe,
        failures,
        ..at(Phase::Failed { effect, retryable })
    }
}

fn asked(reality: Reality, failures: u32) -> StepState {
    StepState {
        maybe: reality != Reality::Never,
        reconciled: true,
        failures,
        ..at(Phase::Reconciled(reality))
    }
}

/// Every state of a step, by name.
fn states() -> Vec<(&'static str, StepState)> {
    let again = failed(Effect::None, true, 1);
    let last = failed(Effect::None, false, 1);
    let undo_failed = |outcome, last| StepState {
        undo_failures: 1,
        ..at(Phase::UndoFailed { outcome, last })
    };
    vec![
        ("untouched", at(Phase::Untouched)),
        ("started", at(Phase::Started)),
        ("succeeded", at(Phase::Succeeded)),
        ("no effect, once", again),
        ("no effect, twice", failed(Effect::None, true, 2)),
        ("no effect, for good", last),
        ("no effect, but before", StepState { maybe: true, ..last }),
        ("maybe, once", failed(Effect::Maybe, true, 1)),
        ("maybe, twice", failed(Effect::Maybe, true, 2)),
        ("maybe, for good", failed(Effect::Maybe, false, 1)),
        ("asked: not done", asked(Reality::NotDone, 1)),
        ("asked: not done, twice", asked(Reality::NotDone, 2)),
        ("asked: never", asked(Reality::Never, 1)),
        ("asked: unknown", asked(Reality::Unknown, 1)),
        ("being undone", at(Phase::Undoing(Known::Completed))),
        ("undo failed", undo_failed(Known::Unknown, false)),
        ("undo failed for good", undo_failed(Known::Completed, true)),
        ("undone", at(Phase::Undone)),
    ]
}

fn plan(step: StepPlan) -> Plan {
    let before = StepPlan {
        name: Cow::Borrowed("a"),
        ..plain()
    };
    Plan {
        steps: [before, step].into(),
        halt_on_undo_failure: false,
    }
}

fn state(step: StepState, direction: Direction) -> State {
    State {
        steps: vec![at(Phase::Succeeded), step],
        direction,
        created: true,
        end: None,
        obstacle: None,
        forced: false,
        abandoned: false,
        corrupt: false,
    }
}

/// Nothing that matters has happened.
const CALM: Circumstances = Circumstances {
    stop: None,
    key_expired: false,
};

fn told(stop: Option<Stop>) -> Circumstances {
    Circumstances { stop, ..CALM }
}

fn back() -> Direction {
    Direction::Backward(Reason::Cancelled)
}

fn text(next: &Next) -> String {
    match next {
        Next::Start { step: 1, failures } => format!("start after {failures}"),
        Next::Reconcile { step: 1 } => "ask".to_owned(),
        Next::Unwind { reason } => match reason {
            Reason::Failed { step } => format!("turn, as {step} failed"),
            Reason::Cancelled => "turn, cancelled".to_owned(),
            Reason::Deadline => "turn, too late".to_owned(),
            other => format!("{other:?}"),
        },
        Next::Undo {
            step: 1,
            outcome,
            failures,
        } => format!("undo {outcome:?} after {failures}"),
        Next::Undo { step: 0, .. } => "the one before".to_owned(),
        Next::Finish {
            end: SagaEnd::Stuck,
            obstacle: Some(obstacle),
        } => format!("stuck, {obstacle:?}"),
        Next::Finish { end, obstacle: None } => format!("{end:?}"),
        Next::Corrupt => "-".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Compares what is to be done in every state with the rows of `expected`.
fn check(plan: &Plan, direction: &Direction, now: Circumstances, expected: &str) {
    let rows = states().into_iter().map(|(name, step)| {
        let next = decide(plan, &state(step, direction.clone()), now);
        format!("{name} | {}", text(&next))
    });
    let rows: Vec<String> = rows.collect();
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(rows, expected, "\n{}", rows.join("\n"));
}

#[test]
fn forward_a_step_that_can_be_undone() {
    let expected = "
        untouched | start after 0
        started | start after 0
        succeeded | Completed
        no effect, once | start after 1
        no effect, twice | turn, as b failed
        no effect, for good | turn, as b failed
        no effect, but before | turn, as b failed
        maybe, once | start after 1
        maybe, twice | turn, as b failed
        maybe, for good | turn, as b failed
        asked: not done | start after 1
        asked: not done, twice | turn, as b failed
        asked: never | turn, as b failed
        asked: unknown | turn, as b failed
        being undone | -
        undo failed | -
        undo failed for good | -
        undone | -
    ";
    check(&plan(plain()), &Direction::Forward, CALM, expected);
    // Its hook is for the way back.
    let hook = StepPlan {
        can_reconcile: true,
        ..plain()
    };
    check(&plan(hook), &Direction::Forward, CALM, expected);
}

#[test]
fn forward_the_pivot() {
    let expected = "
        untouched | start after 0
        started | start after 0
        succeeded | Completed
        no effect, once | start after 1
        no effect, twice | turn, as b failed
        no effect, for good | turn, as b failed
        no effect, but before | ASK
        maybe, once | start after 1
        maybe, twice | ASK
        maybe, for good | ASK
        asked: not done | start after 1
        asked: not done, twice | stuck, PivotUnknown
        asked: never | turn, as b failed
        asked: unknown | stuck, PivotUnknown
        being undone | -
        undo failed | -
        undo failed for good | -
        undone | -
    ";
    check(
        &plan(pivot()),
        &Direction::Forward,
        CALM,
        &expected.replace("ASK", "stuck, PivotUnknown"),
    );
    let hook = StepPlan {
        can_reconcile: true,
        ..pivot()
    };
    check(&plan(hook), &Direction::Forward, CALM, &expected.replace("ASK", "ask"));
}

#[test]
fn forward_after_the_pivot_there_is_no_turning_back() {
    let after = StepPlan {
        kind: StepKind::Retriable,
        has_undo: false,
        ..plain()
    };
    let mut plan = plan(after);
    let before = pivot();
    plan.steps = [
        StepPlan {
            name: Cow::Borrowed("a"),
            ..before
        },
        plan.steps[1].clone(),
    ]
    .into();
    for halt in [None, Some(Stop::Cancelled), Some(Stop::Deadline)] {
        check(
            &plan,
            &Direction::Forward,
            told(halt),
            "
            untouched | start after 0
            started | start after 0
            succeeded | Completed
            no effect, once | start after 1
            no effect, twice | stuck, NotFinished
            no effect, for good | stuck, NotFinished
            no effect, but before | stuck, NotFinished
            maybe, once | start after 1
            maybe, twice | stuck, NotFinished
            maybe, for good | stuck, NotFinished
            asked: not done | start after 1
            asked: not done, twice | stuck, NotFinished
            asked: never | stuck, NotFinished
            asked: unknown | stuck, NotFinished
            being undone | -
            undo failed | -
            undo failed for good | -
            undone | -
            ",
        );
    }
}

#[test]
fn forward_what_is_told_to_stop_turns_back_instead_of_starting() {
    for (halt, turn) in [(Stop::Cancelled, "turn, cancelled"), (Stop::Deadline, "turn, too late")] {
        let expected = "
            untouched | TURN
            started | TURN
            succeeded | Completed
            no effect, once | TURN
            no effect, twice | turn, as b failed
            no effect, for good | turn, as b failed
            no effect, but before | turn, as b failed
            maybe, once | TURN
            maybe, twice | turn, as b failed
            maybe, for good | turn, as b failed
            asked: not done | TURN
            asked: not done, twice | turn, as b failed
            asked: never | turn, as b failed
            asked: unknown | turn, as b failed
            being undone | -
            undo failed | -
            undo failed for good | -
            undone | -
        ";
        check(
            &plan(plain()),
            &Direction::Forward,
            told(Some(halt)),
            &expected.replace("TURN", turn),
        );
    }
}

#[test]
fn forward_an_interrupted_step_is_run_again_asked_about_turned_back_or_left_as_its_plan_says() {
    for (when_interrupted, can_reconcile, expected) in [
        (WhenInterrupted::Rerun, true, "start after 0"),
        (WhenInterrupted::Reconcile, true, "ask"),
        (WhenInterrupted::TurnBack, true, "Interrupted { step: \"b\" }"),
        (WhenInterrupted::Stick, true, "stuck, Interrupted"),
        (WhenInterrupted::Stick, false, "stuck, Interrupted"),
    ] {
        let step = StepPlan {
            can_reconcile,
            when_interrupted,
            ..plain()
        };
        let next = decide(&plan(step), &state(at(Phase::Started), Direction::Forward), CALM);
        assert_eq!(text(&next), expected);
    }
}

#[test]
fn forward_with_a_key_that_is_too_old_what_is_in_doubt_is_not_run_again() {
    let old = Circumstances {
        key_expired: true,
        ..CALM
    };
    let expected = "
        untouched | start after 0
        started | ASK
        succeeded | Completed
        no effect, once | start after 1
        no effect, twice | turn, as b failed
        no effect, for good | turn, as b failed
        no effect, but before | turn, as b failed
        maybe, once | ASK
        maybe, twice | turn, as b failed
        maybe, for good | turn, as b failed
        asked: not done | stuck, KeyExpired
        asked: not done, twice | turn, as b failed
        asked: never | turn, as b failed
        asked: unknown | turn, as b failed
        being undone | -
        undo failed | -
        undo failed for good | -
        undone | -
    ";
    check(
        &plan(plain()),
        &Direction::Forward,
        old,
        &expected.replace("ASK", "stuck, KeyExpired"),
    );
    let hook = StepPlan {
        can_reconcile: true,
        ..plain()
    };
    check(&plan(hook), &Direction::Forward, old, &expected.replace("ASK", "ask"));
    // An operator knows better.
    let forced = State {
        forced: true,
        ..state(at(Phase::Started), Direction::Forward)
    };
    assert_eq!(text(&decide(&plan(plain()), &forced, old)), "start after 0");
}

#[test]
fn a_step_that_may_never_fail_is_run_again_once_it_was_told_not_to_have_happened() {
    let never = StepPlan { attempts: 0, ..plain() };
    let next = |step| text(&decide(&plan(never.clone()), &state(step, Direction::Forward), CALM));
    assert_eq!(next(asked(Reality::NotDone, 0)), "start after 0");
    assert_eq!(next(asked(Reality::NotDone, 1)), "turn, as b failed");
    assert_eq!(next(failed(Effect::None, true, 0)), "turn, as b failed");
}

const BACK: &str = "
    untouched | the one before
    started | UNKNOWN
    succeeded | undo Completed after 0
    no effect, once | the one before
    no effect, twice | the one before
    no effect, for good | the one before
    no effect, but before | UNKNOWN
    maybe, once | UNKNOWN
    maybe, twice | UNKNOWN
    maybe, for good | UNKNOWN
    asked: not done | ANSWERED
    asked: not done, twice | ANSWERED
    asked: never | the one before
    asked: unknown | ANSWERED
    being undone | undo Completed after 0
    undo failed | undo Unknown after 1
    undo failed for good | the one before
    undone | the one before
";

#[test]
fn back_what_is_unknown_is_undone_skipped_or_left_as_its_plan_says_and_asked_about_before() {
    for (when_unknown, answered) in [
        (WhenUnknown::Undo, "undo Unknown after 0"),
        (WhenUnknown::Skip, "the one before"),
        (WhenUnknown::Stick, "the one before"),
    ] {
        for (can_reconcile, unknown) in [(false, answered), (true, "ask")] {
            let step = StepPlan {
                can_reconcile,
                when_unknown,
                ..plain()
            };
            let expected = BACK.replace("UNKNOWN", unknown).replace("ANSWERED", answered);
            check(&plan(step), &back(), CALM, &expected);
        }
    }
}

#[test]
fn back_what_cannot_be_undone_is_passed() {
    let step = StepPlan {
        has_undo: false,
        ..plain()
    };
    let expected = BACK
        .replace("UNKNOWN", "the one before")
        .replace("ANSWERED", "the one before");
    let expected = expected.replace("succeeded | undo Completed after 0", "succeeded | the one before");
    check(&plan(step), &back(), CALM, &expected);
}

/// Where `b` stands when the rest is done, and who has to look at it.
fn rest(step: StepPlan, at_b: StepState) -> (String, Vec<String>) {
    let plan = plan(step);
    let mut state = state(at_b, back());
    state.steps[0].phase = Phase::Undone;
    (text(&decide(&plan, &state, CALM)), unresolved(&plan, &state))
}

#[test]
fn back_what_is_left_unresolved_makes_the_saga_stuck_in_the_end_and_at_once_where_it_halts() {
    let failed_undo = StepState {
        undo_failures: 2,
        ..at(Phase::UndoFailed {
            outcome: Known::Completed,
            last: true,
        })
    };
    let sticks = StepPlan {
        when_unknown: WhenUnknown::Stick,
        ..plain()
    };
    let stuck = ("stuck, NotUndone".to_owned(), vec!["b".to_owned()]);
    assert_eq!(rest(plain(), failed_undo), stuck);
    assert_eq!(rest(sticks.clone(), at(Phase::Started)), stuck);
    assert_eq!(rest(plain(), at(Phase::Undone)), ("Compensated".to_owned(), Vec::new()));
    for (step, at_b) in [(plain(), failed_undo), (sticks, at(Phase::Started))] {
        let mut plan = plan(step);
        plan.halt_on_undo_failure = true;
        let halted = state(at_b, back());
        assert_eq!(text(&decide(&plan, &halted, CALM)), "stuck, NotUndone");
        // Both, the latest first.
        assert_eq!(unresolved(&plan, &halted), ["b", "a"]);
    }
}

#[test]
fn going_forward_the_one_to_look_at_is_the_first_that_is_open() {
    let mut plan = plan(plain());
    let third = StepPlan {
        name: Cow::Borrowed("c"),
        ..plain()
    };
    plan.steps = plan.steps.iter().cloned().chain([third]).collect();
    let mut stopped = state(failed(Effect::Maybe, false, 1), Direction::Forward);
    stopped.steps.push(at(Phase::Untouched));
    assert_eq!(unresolved(&plan, &stopped), ["b"]);
    stopped.steps[1] = at(Phase::Succeeded);
    assert_eq!(unresolved(&plan, &stopped), ["c"]);
    stopped.steps[2] = at(Phase::Succeeded);
    assert!(unresolved(&plan, &stopped).is_empty());
}

#[test]
fn what_rests_or_cannot_have_happened_has_nothing_to_do() {
    let plan = plan(plain());
    let begun = state(at(Phase::Untouched), Direction::Forward);
    let ended = State {
        end: Some(SagaEnd::Stuck),
        ..begun.clone()
    };
    assert_eq!(decide(&plan, &ended, CALM), Next::Rest);
    let corrupt = State {
        corrupt: true,
        ..begun.clone()
    };
    assert_eq!(decide(&plan, &corrupt, CALM), Next::Corrupt);
    let given_up = State {
        abandoned: true,
        ..corrupt
    };
    assert_eq!(text(&decide(&plan, &given_up, CALM)), "Abandoned");
    let not_created = State {
        created: false,
        ..begun
    };
    assert_eq!(decide(&plan, &not_created, CALM), Next::Corrupt);
}
