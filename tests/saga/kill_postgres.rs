//! Processes with sagas on PostgreSQL are killed at every durable write, and anywhere else, and started again.

use std::path::Path;
use std::sync::Arc;

use steadfast::saga::journal::{Journal, PostgresJournal};
use steadfast::storage::tokio_postgres::{Client, Config, NoTls};
use tokio::runtime::Builder;

use super::kill::bookings::note;
use super::kill::{self, Backend, campaign};
use super::support::kill::child as this_process;
use super::support::postgres_url;

const POSTGRES: Backend = Backend {
    child: "kill_postgres::child",
    open: |place| Box::pin(open(place)),
};

/// The database that a folder has is noted in it.
async fn open(place: &Path) -> Arc<dyn Journal> {
    let server = postgres_url().expect("the tests are skipped without");
    let note = note(place);
    let noted = std::fs::read_to_string(&note);
    let name = match &noted {
        Ok(name) => name.clone(),
        Err(_) => take(&server, place).await,
    };
    let (server, _) = server.rsplit_once('/').unwrap();
    let journal = PostgresJournal::connect(&format!("{server}/{name}")).await.unwrap();
    if noted.is_err() {
        journal.migrate().await.unwrap();
        let mut config: Config = postgres_url().unwrap().parse().unwrap();
        let client = connect(config.dbname(&name)).await;
        client
            .batch_execute(
                "DELETE FROM steadfast.saga; DELETE FROM steadfast.saga_event;
                 CREATE TABLE IF NOT EXISTS booking (saga text); DELETE FROM booking",
            )
            .await
            .unwrap();
        std::fs::write(note, name).unwrap();
    }
    Arc::new(journal)
}

/// A database for a folder that has none: one whose folder is gone, if there is any, as making one takes a while.
async fn take(server: &str, place: &Path) -> String {
    const PREFIX: &str = "killed_";
    let own = place.file_name().unwrap().to_str().unwrap();
    let name = format!("{PREFIX}{}", own.replace('-', "_"));
    let admin = connect(&server.parse().unwrap()).await;
    let all = "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)";
    let all = admin.query(all, &[&PREFIX]).await.unwrap();
    let all: Vec<String> = all.iter().map(|row| row.get(0)).collect();
    if all.contains(&name) {
        return name;
    }
    for other in all {
        let folder = other.trim_start_matches(PREFIX).replace('_', "-");
        if !place.with_file_name(folder).exists() {
            // Somebody else may have taken it, or not have left it yet.
            let rename = format!("ALTER DATABASE {other} RENAME TO {name}");
            if admin.batch_execute(&rename).await.is_ok() {
                return name;
            }
        }
    }
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    name
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[test]
fn child() {
    let Some(child) = this_process() else { return };
    // One thread: where the child stops, all of it stops.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(kill::run(&child, POSTGRES));
    child.finished();
}

fn killed_at_every_write(scenario: &'static str) {
    if postgres_url().is_some() {
        campaign::killed_at_every_write(POSTGRES, scenario);
    }
}

#[test]
fn killed_anywhere_on_its_way_a_saga_completes() {
    killed_at_every_write("completes");
}

#[test]
fn killed_anywhere_on_its_way_back_a_saga_is_compensated() {
    killed_at_every_write("turns_back");
}

#[test]
fn killed_anywhere_an_effect_in_doubt_is_undone() {
    killed_at_every_write("unknown");
}

#[test]
fn killed_between_effect_and_record_a_clean_no_of_the_next_run_clears_no_doubt() {
    killed_at_every_write("forgets");
}

#[test]
fn killed_anywhere_an_undo_is_tried_again() {
    killed_at_every_write("undo_fails_once");
}

#[test]
fn killed_anywhere_a_saga_that_cannot_be_undone_is_stuck_at_that_step_alone() {
    killed_at_every_write("undo_fails");
}

#[test]
fn killed_anywhere_a_saga_past_its_pivot_goes_on() {
    killed_at_every_write("pivot");
}

#[test]
fn killed_anywhere_a_step_after_the_pivot_is_tried_again() {
    killed_at_every_write("flaky_after_pivot");
}

#[test]
fn killed_anywhere_a_step_in_a_transaction_happens_once() {
    killed_at_every_write("local");
}

#[test]
fn killed_anywhere_a_step_in_a_transaction_is_undone() {
    killed_at_every_write("local_turns_back");
}

#[test]
fn killed_anywhere_a_pivot_in_a_transaction_has_happened_or_not() {
    killed_at_every_write("local_pivot");
}

#[test]
fn killed_at_any_moment_many_sagas_come_to_their_ends() {
    if postgres_url().is_some() {
        campaign::killed_at_any_moment(POSTGRES);
    }
}

#[test]
fn crashes_use_up_no_attempt() {
    if postgres_url().is_some() {
        campaign::five_crashes_in_one_step_use_up_no_attempt(POSTGRES);
    }
}

#[test]
fn a_saga_that_kills_its_process_takes_no_other_along() {
    if postgres_url().is_some() {
        campaign::a_saga_that_kills_its_process_is_laid_to_rest(POSTGRES);
    }
}
