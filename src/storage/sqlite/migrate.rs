//! Runs the steps of a schema, and tells whether they were run.

use rusqlite::{Connection, OptionalExtension};

use super::super::{Migration, StorageError, StorageErrorKind};
use super::error::Fault;

/// Where it is noted which steps were run. Made by the first of them, and never changed.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS steadfast_migrations (
    component TEXT NOT NULL,
    version INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (component, version)
) STRICT, WITHOUT ROWID";

/// Runs the steps that were not run yet. To be called in a transaction that may write: so two processes take turns, and
/// the second finds the work done.
pub(super) fn migrate(connection: &Connection, steps: &[Migration]) -> Result<(), Fault> {
    connection.execute_batch(TABLE)?;
    let version = version(connection, steps)?;
    for step in steps.iter().filter(|step| step.version() > version) {
        connection.execute_batch(step.sql())?;
        connection.execute(
            "INSERT INTO steadfast_migrations (component, version, checksum) VALUES (?1, ?2, ?3)",
            (step.component(), step.version(), step.checksum()),
        )?;
    }
    Ok(())
}

/// An error unless every step was run, as it is here. One step more is the next version's, which this one can work with.
pub(crate) fn check(connection: &Connection, steps: &[Migration]) -> Result<(), Fault> {
    let noted: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'steadfast_migrations'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let version = if noted.is_some() {
        version(connection, steps)?
    } else {
        0
    };
    let last = last(steps);
    if version >= last {
        return Ok(());
    }
    let component = component(steps);
    Err(refused(format!(
        "the tables of {component} are of version {version} and not {last}: call migrate() first"
    )))
}

/// The version of the schema, where it is one that this version of the crate can work with or migrate.
fn version(connection: &Connection, steps: &[Migration]) -> Result<u32, Fault> {
    let component = component(steps);
    let mut rows = connection
        .prepare_cached("SELECT version, checksum FROM steadfast_migrations WHERE component = ?1 ORDER BY version")?;
    let mut rows = rows.query([component])?;
    let mut version = 0;
    while let Some(row) = rows.next()? {
        let (found, checksum): (u32, String) = (row.get(0)?, row.get(1)?);
        if found != version + 1 {
            return Err(refused(format!(
                "step {} of the tables of {component} is missing, and a later one is not",
                version + 1
            )));
        }
        version = found;
        let step = steps.iter().find(|step| step.version() == found);
        if step.is_some_and(|step| step.checksum() != checksum) {
            return Err(refused(format!(
                "step {found} of the tables of {component} was another one: its checksum differs"
            )));
        }
    }
    let next = last(steps).saturating_add(1);
    if version > next {
        return Err(refused(format!(
            "the tables of {component} are of version {version}: this version of the crate knows those up to {next}"
        )));
    }
    Ok(version)
}

fn component(steps: &[Migration]) -> &'static str {
    steps.first().map_or("", Migration::component)
}

fn last(steps: &[Migration]) -> u32 {
    steps.last().map_or(0, Migration::version)
}

fn refused(what: String) -> Fault {
    StorageError::new(StorageErrorKind::NotMigrated, what).into()
}
