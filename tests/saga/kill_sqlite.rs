//! Processes with sagas on SQLite are killed at every durable write, and anywhere else, and started again.

use std::sync::Arc;

use steadfast::saga::journal::{Journal, SqliteJournal};
use tokio::runtime::Builder;

use super::kill::{self, Backend, campaign};
use super::support::kill::child as this_process;

const SQLITE: Backend = Backend {
    child: "kill_sqlite::child",
    open: |place| {
        Box::pin(async move {
            let journal = SqliteJournal::open(place.join("app.db")).await.unwrap();
            journal.migrate().await.unwrap();
            let journal: Arc<dyn Journal> = Arc::new(journal);
            journal
        })
    },
};

#[test]
fn child() {
    let Some(child) = this_process() else { return };
    // One thread: where the child stops, all of it stops.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(kill::run(&child, SQLITE));
    child.finished();
}

#[test]
fn killed_anywhere_on_its_way_a_saga_completes() {
    campaign::killed_at_every_write(SQLITE, "completes");
}

#[test]
fn killed_anywhere_on_its_way_back_a_saga_is_compensated() {
    campaign::killed_at_every_write(SQLITE, "turns_back");
}

#[test]
fn killed_anywhere_an_effect_in_doubt_is_undone() {
    campaign::killed_at_every_write(SQLITE, "unknown");
}

#[test]
fn killed_between_effect_and_record_a_clean_no_of_the_next_run_clears_no_doubt() {
    campaign::killed_at_every_write(SQLITE, "forgets");
}

#[test]
fn killed_anywhere_an_undo_is_tried_again() {
    campaign::killed_at_every_write(SQLITE, "undo_fails_once");
}

#[test]
fn killed_anywhere_a_saga_that_cannot_be_undone_is_stuck_at_that_step_alone() {
    campaign::killed_at_every_write(SQLITE, "undo_fails");
}

#[test]
fn killed_anywhere_a_saga_past_its_pivot_goes_on() {
    campaign::killed_at_every_write(SQLITE, "pivot");
}

#[test]
fn killed_anywhere_a_step_after_the_pivot_is_tried_again() {
    campaign::killed_at_every_write(SQLITE, "flaky_after_pivot");
}

#[test]
fn killed_anywhere_a_step_in_the_journal_s_file_happens_once() {
    campaign::killed_at_every_write(SQLITE, "local");
}

#[test]
fn killed_anywhere_a_step_in_the_journal_s_file_is_undone_once() {
    campaign::killed_at_every_write(SQLITE, "local_turns_back");
}

#[test]
fn killed_anywhere_a_pivot_in_the_journal_s_file_has_happened_or_not() {
    campaign::killed_at_every_write(SQLITE, "local_pivot");
}

#[test]
fn killed_at_any_moment_many_sagas_come_to_their_ends() {
    campaign::killed_at_any_moment(SQLITE);
}

#[test]
fn crashes_use_up_no_attempt() {
    campaign::five_crashes_in_one_step_use_up_no_attempt(SQLITE);
}

#[test]
fn a_saga_that_kills_its_process_takes_no_other_along() {
    campaign::a_saga_that_kills_its_process_is_laid_to_rest(SQLITE);
}
