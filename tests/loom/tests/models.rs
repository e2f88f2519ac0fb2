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

models! {
    circuit_breaker:
    two_failures_open_a_count_window_once
    two_failures_open_a_time_window_once
    two_failures_open_a_streak_once
    two_failures_in_different_buckets_open_a_time_window
    a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window
    a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window
    a_success_beside_failures_does_not_raise_their_rate
    old_news_open_nothing
    a_report_has_no_more_failures_than_calls
    the_sums_are_those_of_the_ring
    a_late_result_is_not_found_in_the_next_generation
    a_late_bit_does_no_harm_to_the_next_generation
    a_clock_that_is_ahead_puts_nothing_into_the_next_generation
    who_enters_a_generation_is_counted_in_it
    who_is_refused_is_told_the_end_of_this_opening
    the_last_place_of_a_round_is_taken_once
    a_probe_that_returns_is_counted_or_given_up
    changes_at_once_come_one_after_the_other
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

const CIRCUIT_BREAKER: &CaughtBy<'_> = &[
    (
        "a_generation_is_published_relaxed",
        &[
            "who_enters_a_generation_is_counted_in_it",
            "who_is_refused_is_told_the_end_of_this_opening",
        ],
    ),
    (
        "a_generation_is_read_relaxed",
        &[
            "who_enters_a_generation_is_counted_in_it",
            "who_is_refused_is_told_the_end_of_this_opening",
        ],
    ),
    (
        "a_generation_is_published_before_its_window_begins",
        &["who_enters_a_generation_is_counted_in_it"],
    ),
    (
        "an_opening_is_published_before_its_end",
        &["who_is_refused_is_told_the_end_of_this_opening"],
    ),
    (
        "a_generation_is_published_after_the_lock",
        &["changes_at_once_come_one_after_the_other"],
    ),
    (
        "an_opening_checks_its_generation_before_the_lock",
        &[
            "a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window",
            "two_failures_open_a_time_window_once",
        ],
    ),
    ("an_opening_is_not_looked_at_again", &["old_news_open_nothing"]),
    (
        "a_round_is_written_back_as_it_was_before_the_lock",
        &["the_last_place_of_a_round_is_taken_once"],
    ),
    (
        "a_streak_is_counted_by_load_and_store",
        &[
            "a_late_result_is_not_found_in_the_next_generation",
            "two_failures_open_a_streak_once",
        ],
    ),
    (
        "a_streak_takes_results_of_every_generation",
        &[
            "a_late_result_is_not_found_in_the_next_generation",
            "who_enters_a_generation_is_counted_in_it",
        ],
    ),
    (
        "the_touch_is_left_out",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "the_touch_releases_nothing",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "the_touch_comes_before_the_sums",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "a_claim_acquires_nothing",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "a_shortcut_acquires_nothing",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "a_shortcut_looks_before_it_claims",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window"],
    ),
    (
        "a_place_is_claimed_by_load_and_store",
        &[
            "a_late_bit_does_no_harm_to_the_next_generation",
            "a_late_result_is_not_found_in_the_next_generation",
            "a_success_beside_failures_does_not_raise_their_rate",
            "a_success_that_reaches_the_minimum_beside_a_failure_opens_a_count_window",
            "two_failures_open_a_count_window_once",
        ],
    ),
    (
        "sums_are_added_to_by_load_and_store",
        &[
            "a_late_bit_does_no_harm_to_the_next_generation",
            "a_late_result_is_not_found_in_the_next_generation",
            "the_sums_are_those_of_the_ring",
        ],
    ),
    ("sums_release_nothing", &["a_report_has_no_more_failures_than_calls"]),
    ("sums_are_read_relaxed", &["a_report_has_no_more_failures_than_calls"]),
    (
        "head_is_read_before_the_sums",
        &["a_report_has_no_more_failures_than_calls"],
    ),
    (
        "sums_take_results_of_every_generation",
        &[
            "a_late_bit_does_no_harm_to_the_next_generation",
            "a_late_result_is_not_found_in_the_next_generation",
            "who_enters_a_generation_is_counted_in_it",
        ],
    ),
    (
        "a_bit_is_put_by_load_and_store",
        &[
            "a_late_bit_does_no_harm_to_the_next_generation",
            "the_sums_are_those_of_the_ring",
        ],
    ),
    ("a_late_bit_is_put", &["a_late_bit_does_no_harm_to_the_next_generation"]),
    (
        "the_count_of_calls_is_not_touched",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window"],
    ),
    (
        "a_counter_releases_nothing",
        &[
            "a_report_has_no_more_failures_than_calls",
            "a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window",
        ],
    ),
    (
        "a_counter_acquires_nothing",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window"],
    ),
    (
        "a_shortcut_in_time_acquires_nothing",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window"],
    ),
    (
        "a_counter_is_added_to_by_load_and_store",
        &[
            "a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window",
            "two_failures_open_a_time_window_once",
        ],
    ),
    (
        "a_counter_is_read_relaxed",
        &["a_report_has_no_more_failures_than_calls"],
    ),
    (
        "calls_are_read_before_failures",
        &["a_report_has_no_more_failures_than_calls"],
    ),
    (
        "failures_of_a_turn_that_is_over_are_counted",
        &["a_report_has_no_more_failures_than_calls"],
    ),
    (
        "an_unhealthy_bucket_is_noted_after_the_touch",
        &["a_success_that_reaches_the_minimum_beside_a_failure_opens_a_time_window"],
    ),
    (
        "unhealthy_buckets_acquire_nothing",
        &["two_failures_in_different_buckets_open_a_time_window"],
    ),
    (
        "unhealthy_buckets_release_nothing",
        &["two_failures_in_different_buckets_open_a_time_window"],
    ),
    (
        "a_failure_looks_no_further_than_its_bucket",
        &["two_failures_in_different_buckets_open_a_time_window"],
    ),
    (
        "a_generation_skips_no_turn",
        &[
            "a_late_result_is_not_found_in_the_next_generation",
            "who_enters_a_generation_is_counted_in_it",
        ],
    ),
    (
        "a_generation_skips_one_turn",
        &["a_clock_that_is_ahead_puts_nothing_into_the_next_generation"],
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

#[test]
fn every_seeded_defect_of_the_circuit_breaker_is_caught() {
    are_caught(
        "circuit_breaker",
        steadfast_loom::circuit_breaker::DEFECTS,
        CIRCUIT_BREAKER,
    );
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
