//! The conformance suite: what a store has to do, whatever it is made of.

mod bench;
mod ends;
mod handover;
mod histories;
mod keeping;
mod races;
mod time;
mod values;

use crate::idempotency::store::Store;
use bench::Bench;

/// Proves that a store does what the transitions of [`Record`](crate::idempotency::store::Record) say.
///
/// `open` opens one more handle on the same store each time: another connection, another pool, or a clone where the
/// store has no more than that. The suite opens eight, and uses keys that nobody else has; it wants nobody else to
/// purge the store meanwhile. It takes some seconds, as it waits for short leases to end. Time may be paused for a store
/// whose clock is tokio's.
///
/// It answers how many cases it has run.
///
/// # Examples
///
/// One test for each store:
///
/// ```
/// use steadfast::idempotency::MemoryStore;
/// use steadfast::testing::idempotency::conformance;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let store = MemoryStore::new();
/// conformance(|| async { store.clone() }).await;
/// # }
/// ```
///
/// # Panics
///
/// When a case fails: after all have run, with the name of each that failed, what it expected and what it got.
pub async fn conformance<S, F, Fut>(open: F) -> usize
where
    S: Store,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
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
        histories::random_histories_answer_as_the_record_does,
        handover::a_claim_that_is_sent_twice_is_one_claim,
        handover::a_completion_that_is_sent_twice_is_one_completion,
        handover::what_is_sent_twice_changes_nothing_more,
        handover::a_late_completion_that_nobody_overtook_is_stored,
        handover::a_completion_of_a_record_that_is_gone_is_stored,
        handover::who_was_overtaken_can_write_nothing,
        handover::a_late_renewal_revives_a_lease_that_nobody_took,
        handover::another_request_is_a_mismatch_before_anything_else,
        handover::at_most_once_is_never_taken_over,
        ends::what_an_operator_resolved_is_not_overwritten,
        ends::what_an_operator_resolved_can_be_corrected_and_nothing_else,
        ends::a_release_forgets_no_earlier_attempt,
        ends::a_cancelled_key_is_closed_for_ever,
        handover::a_checkpoint_is_handed_on,
        ends::fences_grow_over_every_end_of_a_record,
        time::a_lease_ends_exactly_when_the_store_says,
        time::an_outcome_expires_exactly_when_the_store_says,
        time::a_renewal_begins_the_lease_anew,
        time::the_rest_of_a_lease_is_not_longer_than_the_lease,
        time::a_century_is_kept_and_longer_is_no_error,
        races::many_duplicates_have_one_winner_for_each_key,
        races::of_two_takeovers_one_succeeds,
        races::an_expired_outcome_is_taken_over_by_one_and_replayed_to_nobody,
        races::a_key_is_either_claimed_or_cancelled,
        races::a_late_completion_and_a_takeover_exclude_each_other,
        races::a_call_that_is_dropped_leaves_the_key_usable,
        values::a_mebibyte_is_kept,
        values::any_bytes_are_kept_and_none_is_not_empty,
        values::whose_a_record_is_can_be_read_while_it_is_in_progress,
        values::ids_are_any_bytes,
        keeping::purging_keeps_its_limit_and_what_is_live,
        keeping::purging_changes_no_answer,
        keeping::two_purge_while_others_claim,
        keeping::the_interrupted_are_listed_by_id_in_pages,
        keeping::the_interrupted_are_counted,
        keeping::every_handle_is_on_the_same_store,
    }
    assert!(failed.is_empty(), "the store does not conform:{failed}");
    cases
}
