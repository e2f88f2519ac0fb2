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

/// Each defect, with the models that catch it; the others pass.
const CAUGHT_BY: [(&str, &[&str]); 4] = [
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

#[test]
fn every_seeded_defect_is_caught() {
    if env::var_os(DEFECT).is_some() {
        return;
    }
    assert_eq!(
        CAUGHT_BY.map(|(defect, _)| defect),
        *steadfast_loom::retry_budget::DEFECTS
    );
    for (defect, models) in CAUGHT_BY {
        let mut run = Command::new(env::current_exe().unwrap());
        let output = run.arg("retry_budget::").env(DEFECT, defect).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut failed: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_suffix(" ... FAILED"))
            .collect();
        failed.sort_unstable();
        let expected: Vec<_> = models
            .iter()
            .map(|model| format!("test retry_budget::{model}"))
            .collect();
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
