//! Runs each model on the real source, and shows that each seeded defect is caught.

use std::env;
use std::process::Command;

const DEFECT: &str = "STEADFAST_DEFECT";

macro_rules! models {
    ($pattern:ident: $($model:ident)*) => {
        mod $pattern {
            $(
                #[test]
                fn $model() {
                    let defect = std::env::var(super::DEFECT).ok();
                    steadfast_loom::$pattern::$model(defect.as_deref());
                }
            )*
        }
    };
}

models! {
    retry_budget:
    concurrent_deposits_are_all_counted
    deposits_that_begin_a_second_forget_only_what_is_old
    one_credit_pays_for_one_retry
    the_last_of_the_floor_pays_for_one_retry
    a_withdrawal_beside_a_refund_is_not_forgotten
    what_is_paid_beside_a_deposit_was_earned
}

models! {
    bulkhead:
    a_release_beside_a_newcomer_reaches_it
    a_permit_that_comes_to_a_waiter_that_leaves_goes_to_the_next
    a_raised_limit_beside_a_release_admits_both_who_wait
    the_end_of_a_pause_beside_a_newcomer_admits_it
    a_lowered_limit_beside_a_release_keeps_the_count
    the_last_permit_is_taken_once
    nobody_passes_a_waiter
    a_refusal_beside_a_release_costs_no_waiter_its_turn
    what_was_done_under_one_permit_is_seen_under_the_next
}

/// Each defect, with the models that catch it; the others pass.
type CaughtBy<'a> = [(&'a str, &'a [&'a str])];

const RETRY_BUDGET: &CaughtBy<'_> = &[
    (
        "deposit_by_load_and_store",
        &[
            "concurrent_deposits_are_all_counted",
            "deposits_that_begin_a_second_forget_only_what_is_old",
        ],
    ),
    ("withdraw_checks_before_it_locks", &["one_credit_pays_for_one_retry"]),
    (
        "floor_is_drawn_after_the_lock",
        &["the_last_of_the_floor_pays_for_one_retry"],
    ),
    (
        "refund_writes_back_what_it_read_before_the_lock",
        &["a_withdrawal_beside_a_refund_is_not_forgotten"],
    ),
];

const BULKHEAD: &CaughtBy<'_> = &[
    (
        "who_joins_looks_before_it_is_seen",
        &["a_release_beside_a_newcomer_reaches_it"],
    ),
    (
        "who_gives_back_looks_before_it_adds",
        &["a_release_beside_a_newcomer_reaches_it"],
    ),
    (
        "a_permit_is_given_back_relaxed",
        &["what_was_done_under_one_permit_is_seen_under_the_next"],
    ),
    (
        "a_newcomer_passes_who_waits",
        &[
            "a_refusal_beside_a_release_costs_no_waiter_its_turn",
            "nobody_passes_a_waiter",
        ],
    ),
    (
        "who_leaves_forgets_the_permit_that_came",
        &[
            "a_permit_that_comes_to_a_waiter_that_leaves_goes_to_the_next",
            "what_was_done_under_one_permit_is_seen_under_the_next",
        ],
    ),
    (
        "who_moves_up_writes_back_what_it_read",
        &[
            "a_lowered_limit_beside_a_release_keeps_the_count",
            "a_permit_that_comes_to_a_waiter_that_leaves_goes_to_the_next",
            "a_raised_limit_beside_a_release_admits_both_who_wait",
            "the_end_of_a_pause_beside_a_newcomer_admits_it",
            "what_was_done_under_one_permit_is_seen_under_the_next",
        ],
    ),
    (
        "a_raised_limit_admits_nobody",
        &[
            "a_raised_limit_beside_a_release_admits_both_who_wait",
            "the_end_of_a_pause_beside_a_newcomer_admits_it",
        ],
    ),
    (
        "a_refusal_hides_who_waits",
        &["a_refusal_beside_a_release_costs_no_waiter_its_turn"],
    ),
    (
        "a_permit_is_taken_by_load_and_store",
        &[
            "the_end_of_a_pause_beside_a_newcomer_admits_it",
            "the_last_permit_is_taken_once",
            "what_was_done_under_one_permit_is_seen_under_the_next",
        ],
    ),
];

#[test]
fn every_seeded_defect_of_the_retry_budget_is_caught() {
    are_caught("retry_budget", steadfast_loom::retry_budget::DEFECTS, RETRY_BUDGET);
}

#[test]
fn every_seeded_defect_of_the_bulkhead_is_caught() {
    are_caught("bulkhead", steadfast_loom::bulkhead::DEFECTS, BULKHEAD);
}

fn are_caught(pattern: &str, defects: &[&str], caught_by: &CaughtBy<'_>) {
    if env::var_os(DEFECT).is_some() {
        return;
    }
    let listed: Vec<_> = caught_by.iter().map(|(defect, _)| *defect).collect();
    assert_eq!(listed, defects);
    for (defect, models) in caught_by {
        let mut run = Command::new(env::current_exe().unwrap());
        let output = run.arg(format!("{pattern}::")).env(DEFECT, defect).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut failed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_suffix(" ... FAILED"))
            .collect();
        failed.sort_unstable();
        let expected: Vec<_> = models.iter().map(|model| format!("test {pattern}::{model}")).collect();
        assert_eq!(
            failed,
            expected,
            "{defect}:\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!output.status.success());
        println!("{defect}: caught by {}", models.join(", "));
        println!("figure: seeded defects caught: 1");
    }
}
