//! The conformance suite: what a journal has to do, whatever it is made of.

mod appends;
mod bench;
mod claims;
mod creation;
mod histories;
mod keeping;
mod leases;
mod races;
mod reading;
mod time;
mod turning;
mod values;

use crate::saga::journal::Journal;
use bench::Bench;

/// Proves that a journal does what the transitions of [`Head`](crate::saga::journal::Head) say.
///
/// `open` opens one more handle on the same journal each time: another connection, another pool, or a clone where the
/// journal has no more than that. The suite opens eight. It wants the journal for itself while it runs, as it counts
/// sagas and clears away those that are settled. It takes some seconds, as it waits for short leases to end. Time may be
/// paused for a journal whose clock is tokio's.
///
/// It answers how many cases it has run.
///
/// # Examples
///
/// One test for each journal:
///
/// ```
/// use steadfast::saga::journal::MemoryJournal;
/// use steadfast::testing::saga::conformance;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let journal = MemoryJournal::new();
/// conformance(|| async { journal.clone() }).await;
/// # }
/// ```
///
/// # Panics
///
/// When a case fails: after all have run, with the name of each that failed, what it expected and what it got.
pub async fn conformance<J, F, Fut>(open: F) -> usize
where
    J: Journal,
    F: Fn() -> Fut,
    Fut: Future<Output = J>,
{
    let bench = Bench::open(open).await;
    let mut cases = 0;
    let mut failed = String::new();
    macro_rules! run {
        ($($module:ident::$case:ident,)*) => {
            $(
                cases += 1;
                if let Err(broken) = $module::$case(&bench).await {
                    failed.push_str(concat!("\n  ", stringify!($case), ": "));
                    failed.push_str(broken.text());
                }
            )*
        };
    }
    run! {
        // First, as it says more about a journal that is empty.
        reading::sagas_are_counted,
        histories::random_histories_answer_as_the_head_does,
        creation::a_new_saga_is_written_with_its_events,
        creation::a_creation_that_is_sent_twice_is_one_saga,
        creation::a_creation_that_is_sent_late_changes_nothing,
        creation::a_key_has_one_saga,
        creation::an_id_is_not_given_twice,
        appends::an_append_writes_events_and_the_head_after_them,
        appends::an_append_out_of_order_is_fenced,
        appends::nobody_appends_to_a_saga_without_an_owner,
        appends::who_was_overtaken_appends_nothing,
        appends::a_late_append_that_nobody_overtook_is_written,
        appends::an_append_that_is_sent_twice_is_one_append,
        appends::an_append_of_something_else_is_not_the_same,
        appends::an_append_of_no_events_writes_nothing,
        appends::an_append_tells_of_a_request_to_turn_back,
        appends::the_last_error_is_kept,
        claims::the_longest_due_are_claimed_first,
        claims::only_what_is_due_is_claimed,
        claims::only_what_fits_is_claimed,
        claims::no_more_suspects_are_claimed_than_asked_for,
        claims::a_claim_answers_the_head_that_is_stored,
        claims::one_saga_is_claimed_whatever_it_stands_at,
        claims::epochs_grow_and_lost_leases_are_counted,
        leases::leases_are_renewed_together_and_answered_one_by_one,
        leases::many_leases_are_renewed_and_released_at_once,
        leases::a_shorter_lease_ends_earlier,
        leases::who_lets_go_leaves_it_to_the_next,
        turning::a_request_to_turn_back_is_noted_where_it_can,
        turning::who_is_to_turn_back_is_due_at_once,
        turning::a_deadline_ends_the_wait_of_who_can_turn_back,
        time::a_lease_ends_exactly_when_the_journal_says,
        time::a_wait_ends_exactly_when_the_journal_says,
        time::no_time_is_rounded_down,
        time::a_lease_of_nothing_is_over_at_once,
        time::a_century_is_kept_and_longer_is_no_error,
        reading::every_handle_is_on_the_same_journal,
        reading::a_saga_is_found_by_its_key,
        reading::a_long_saga_is_loaded_whole,
        reading::sagas_are_listed_by_id_in_pages,
        races::a_key_that_many_create_has_one_saga,
        races::claims_at_once_are_disjoint_and_leave_nothing,
        races::of_many_that_claim_one_saga_one_succeeds,
        races::of_many_that_append_in_one_place_one_succeeds,
        races::a_late_append_and_a_claim_exclude_each_other,
        races::a_late_renewal_and_a_claim_exclude_each_other,
        races::a_request_to_turn_back_is_told_or_too_late,
        races::a_saga_is_loaded_at_one_time,
        races::a_call_that_is_dropped_leaves_the_saga_usable,
        values::any_bytes_are_kept_and_none_is_not_empty,
        values::a_mebibyte_is_kept,
        values::ids_are_any_bytes,
        keeping::events_are_cleared_before_keys,
        keeping::what_somebody_holds_is_kept,
        keeping::clearing_keeps_its_limit,
        keeping::what_is_settled_is_kept_for_its_time,
        keeping::two_clear_away_while_others_work,
    }
    assert!(failed.is_empty(), "the journal does not conform:{failed}");
    cases
}
