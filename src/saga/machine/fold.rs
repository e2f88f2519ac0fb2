//! What each event makes of the state, and which cannot have happened.
//!
//! A row is a journal, event by event, and where it leaves the step that its last event is about; `corrupt` where that
//! cannot have happened. The saga is `a`, `k`, the pivot `p` and `c`; the participant of `k` answers for every run.

use super::super::event::{Event, Known, Reality, Reason, SagaEnd};
use super::super::plan::{Plan, StepKind, StepPlan};
use super::State;
use super::model::step;
use super::state::Phase;
use crate::Effect;

fn plan() -> Plan {
    let step = |name, kind| StepPlan {
        can_reconcile: true,
        answers_by_key: name == "k",
        ..step(name, kind)
    };
    super::model::plan(vec![
        step("a", StepKind::Compensatable),
        step("k", StepKind::Compensatable),
        step("p", StepKind::Pivot),
        step("c", StepKind::Retriable),
    ])
}

fn event(text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    let step = words.get(1).map_or_else(String::new, |step| (*step).to_owned());
    let how = words.get(2).copied();
    let outcome = if how == Some("completed") {
        Known::Completed
    } else {
        Known::Unknown
    };
    match words[0] {
        "created" => Event::Created { plan: Plan::default() },
        "start" => Event::Started { step },
        "ok" => Event::Succeeded { step },
        "clean" | "doubt" => Event::Failed {
            effect: if words[0] == "clean" {
                Effect::None
            } else {
                Effect::Maybe
            },
            retryable: how == Some("again"),
            settles: words[0] == "clean" && how != Some("again") && step == "k",
            step,
            error: String::new(),
        },
        "asked" => Event::Reconciled {
            step,
            reality: match how {
                Some("done") => Reality::Done,
                Some("not") => Reality::NotDone,
                Some("never") => Reality::Never,
                _ => Reality::Unknown,
            },
        },
        "turn" => Event::Unwinding {
            reason: Reason::Cancelled,
        },
        "undo" => Event::UndoStarted { step, outcome },
        "undone" => Event::UndoSucceeded { step },
        "kept" => Event::UndoFailed {
            step,
            error: String::new(),
            last: how == Some("last"),
        },
        "end" => Event::Finished {
            end: SagaEnd::Completed,
            obstacle: None,
        },
        other => unreachable!("{other}"),
    }
}

/// Where a journal leaves the step of its last event: its phase, and what else is known of it.
fn left(journal: &str) -> String {
    let plan = plan();
    let mut state = State::new(&plan);
    let mut last = None;
    for text in journal.split(", ") {
        let event = event(text);
        assert!(!state.corrupt, "before `{text}` in `{journal}`");
        state.apply(&plan, &event);
        last = text.split(' ').nth(1).and_then(|name| plan.index(name));
    }
    if state.corrupt {
        return "corrupt".to_owned();
    }
    let Some(step) = last.map(|step| &state.steps[step]) else {
        return format!("{:?}", state.end);
    };
    let phase = match step.phase {
        Phase::Failed { effect, retryable } => format!("failed {effect:?} {retryable}"),
        Phase::Reconciled(reality) => format!("asked {reality:?}"),
        phase => format!("{phase:?}"),
    };
    let doubt = if step.is_unknown() { ", unknown" } else { "" };
    let maybe = if step.maybe { ", maybe" } else { "" };
    let asked = if step.reconciled { ", was asked" } else { "" };
    format!("{phase}, {}/{}{doubt}{maybe}{asked}", step.failures, step.undo_failures)
}

fn check(rows: &[(&str, &str)]) {
    for (journal, expected) in rows {
        assert_eq!(left(journal), *expected, "{journal}");
    }
}

#[test]
fn a_saga_begins_and_ends_once() {
    check(&[
        ("created", "None"),
        ("created, created", "corrupt"),
        ("start a", "corrupt"),
        ("end", "corrupt"),
        ("created, end", "Some(Completed)"),
        ("created, end, end", "corrupt"),
        ("created, end, start a", "corrupt"),
        ("created, start nobody", "corrupt"),
    ]);
}

#[test]
fn a_step_is_started_in_its_turn_and_again_where_it_may_be() {
    check(&[
        ("created, start a", "Started, 0/0, unknown"),
        ("created, start k", "corrupt"),
        ("created, start a, start k", "corrupt"),
        ("created, start a, start a", "Started, 0/0, unknown, maybe"),
        ("created, start a, ok a", "Succeeded, 0/0"),
        ("created, start a, ok a, start a", "corrupt"),
        ("created, ok a", "corrupt"),
        ("created, start a, ok a, ok a", "corrupt"),
        ("created, clean a again", "corrupt"),
        ("created, start a, asked a not, start a", "Started, 0/0, unknown, maybe"),
        (
            "created, start a, asked a unknown, start a",
            "Started, 0/0, unknown, maybe",
        ),
        ("created, start a, asked a never, start a", "corrupt"),
        ("created, start a, asked a not, ok a", "corrupt"),
    ]);
}

#[test]
fn a_failure_is_counted_and_takes_no_doubt_back_unless_the_participant_answers_for_every_run() {
    check(&[
        ("created, start a, clean a again", "failed None true, 1/0"),
        (
            "created, start a, doubt a again",
            "failed Maybe true, 1/0, unknown, maybe",
        ),
        (
            "created, start a, clean a again, start a, clean a last",
            "failed None false, 2/0",
        ),
        (
            "created, start a, doubt a again, start a, clean a last",
            "failed None false, 2/0, unknown, maybe",
        ),
        (
            "created, start a, ok a, start k, doubt k again, start k, clean k again",
            "failed None true, 2/0, unknown, maybe",
        ),
        (
            "created, start a, ok a, start k, doubt k again, start k, clean k last",
            "failed None false, 2/0",
        ),
        (
            "created, start a, ok a, start k, doubt k again, start k, doubt k last",
            "failed Maybe false, 2/0, unknown, maybe",
        ),
        (
            "created, start a, start a, clean a again",
            "failed None true, 1/0, unknown, maybe",
        ),
    ]);
}

#[test]
fn a_hook_is_asked_once_about_what_is_unknown() {
    check(&[
        ("created, asked a done", "corrupt"),
        ("created, start a, asked a done", "Succeeded, 0/0, maybe, was asked"),
        (
            "created, start a, asked a not",
            "asked NotDone, 0/0, unknown, maybe, was asked",
        ),
        (
            "created, start a, asked a unknown",
            "asked Unknown, 0/0, unknown, maybe, was asked",
        ),
        ("created, start a, asked a never", "asked Never, 0/0, was asked"),
        (
            "created, start a, start a, asked a never",
            "asked Never, 0/0, was asked",
        ),
        ("created, start a, asked a unknown, asked a done", "corrupt"),
        ("created, start a, ok a, asked a done", "corrupt"),
        ("created, start a, clean a last, asked a done", "corrupt"),
        (
            "created, start a, asked a not, start a, asked a done",
            "Succeeded, 0/0, maybe, was asked",
        ),
        (
            "created, start a, doubt a last, turn, asked a never",
            "asked Never, 1/0, was asked",
        ),
    ]);
}

#[test]
fn it_turns_back_once_and_not_where_the_pivot_may_have_happened() {
    const UP_TO_PIVOT: &str = "created, start a, ok a, start k, ok k, start p";
    check(&[
        ("created, turn", "None"),
        ("created, turn, turn", "corrupt"),
        ("created, turn, start a", "corrupt"),
        ("created, start a, turn, ok a", "corrupt"),
        ("created, start a, turn, clean a last", "corrupt"),
    ]);
    for (then, expected) in [
        ("turn", "corrupt"),
        ("ok p, turn", "corrupt"),
        ("doubt p last, turn", "corrupt"),
        ("asked p unknown, turn", "corrupt"),
        ("clean p last, turn", "None"),
        ("asked p never, turn", "None"),
    ] {
        assert_eq!(left(&format!("{UP_TO_PIVOT}, {then}")), expected, "{then}");
    }
}

#[test]
fn an_undo_is_told_what_is_known_and_the_same_each_time() {
    check(&[
        ("created, start a, ok a, undo a completed", "corrupt"),
        (
            "created, start a, ok a, turn, undo a completed",
            "Undoing(Completed), 0/0",
        ),
        ("created, start a, ok a, turn, undo a unknown", "corrupt"),
        ("created, start a, turn, undo a unknown", "Undoing(Unknown), 0/0"),
        ("created, start a, turn, undo a completed", "corrupt"),
        ("created, turn, undo a unknown", "corrupt"),
        ("created, start a, clean a last, turn, undo a unknown", "corrupt"),
        (
            "created, start a, turn, undo a unknown, undo a unknown",
            "Undoing(Unknown), 0/0",
        ),
        ("created, start a, turn, undo a unknown, undo a completed", "corrupt"),
        ("created, start a, turn, undo a unknown, undone a", "Undone, 0/0"),
        ("created, start a, turn, undone a", "corrupt"),
        ("created, start a, turn, undo a unknown, undone a, undone a", "corrupt"),
        (
            "created, start a, turn, undo a unknown, undone a, undo a unknown",
            "corrupt",
        ),
        ("created, start a, turn, kept a again", "corrupt"),
        (
            "created, start a, turn, undo a unknown, kept a again",
            "UndoFailed { outcome: Unknown, last: false }, 0/1",
        ),
        (
            "created, start a, turn, undo a unknown, kept a again, undo a unknown",
            "Undoing(Unknown), 0/1",
        ),
        (
            "created, start a, turn, undo a unknown, kept a again, undo a completed",
            "corrupt",
        ),
        (
            "created, start a, ok a, turn, undo a completed, kept a again, undo a completed, kept a last",
            "UndoFailed { outcome: Completed, last: true }, 0/2",
        ),
        (
            "created, start a, turn, undo a unknown, kept a last, undo a unknown",
            "corrupt",
        ),
    ]);
}
