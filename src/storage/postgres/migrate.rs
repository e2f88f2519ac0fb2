//! Runs the steps of a schema, and notes which were run.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Transaction};

use super::error::storage_error;
use crate::storage::{Migration, StorageError, StorageErrorKind};

/// Where the steps are noted. Made by the first of them, and never changed.
const SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS steadfast";
const TABLE: &str = "\
CREATE TABLE IF NOT EXISTS steadfast.migrations (
    component  text NOT NULL,
    version    integer NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, version)
)";

/// Whoever migrates holds this lock until the end of the transaction. The number is `steadfas` in ASCII.
const LOCK: &str = "SET LOCAL lock_timeout = '1min'; SELECT pg_advisory_xact_lock(8319385880630813043)";

/// What [`migrate`] does on a database in which nothing was run.
pub(crate) fn script(steps: &[Migration]) -> String {
    let mut script = format!("BEGIN;\n\n{SCHEMA};\n{TABLE};\n");
    for step in steps {
        let (component, version, checksum) = (step.component(), step.version(), step.checksum());
        let note = format!("INSERT INTO steadfast.migrations VALUES ('{component}', {version}, '{checksum}');");
        script.extend(["\n", step.sql(), &note, "\n"]);
    }
    script + "\nCOMMIT;\n"
}

/// Runs the steps that were not run yet, all or none of them. Two that do it at once take turns, and the second finds the
/// work done.
pub(super) async fn migrate(client: &mut ClientWrapper, steps: &[Migration]) -> Result<(), StorageError> {
    run(client, steps).await.map_err(|failed| match failed {
        Failed::Database(error) => storage_error(error),
        Failed::Schema(what) => StorageError::new(StorageErrorKind::NotMigrated, what),
    })
}

enum Failed {
    Database(tokio_postgres::Error),
    Schema(String),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

async fn run(client: &mut ClientWrapper, steps: &[Migration]) -> Result<(), Failed> {
    // In a stricter isolation what was read under the lock would be older than the lock.
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted);
    let transaction = transaction.start().await?;
    transaction.batch_execute(LOCK).await?;
    // Asked first: the right to create schemas is needed for `IF NOT EXISTS` also where it exists.
    let noted = "SELECT to_regnamespace('steadfast') IS NOT NULL, to_regclass('steadfast.migrations') IS NOT NULL";
    let noted = transaction.query_typed_one(noted, &[]).await?;
    if !noted.try_get::<_, bool>(0)? {
        transaction.batch_execute(SCHEMA).await?;
    }
    if !noted.try_get::<_, bool>(1)? {
        transaction.batch_execute(TABLE).await?;
    }
    let version = version(&transaction, steps).await?;
    for step in steps.iter().filter(|step| i64::from(step.version()) > version) {
        transaction.batch_execute(step.sql()).await?;
        let note = "INSERT INTO steadfast.migrations (component, version, checksum) VALUES ($1, $2::bigint, $3)";
        let (version, checksum) = (i64::from(step.version()), step.checksum());
        let values: [super::Param<'_>; 3] = [
            (&step.component(), Type::TEXT),
            (&version, Type::INT8),
            (&checksum, Type::TEXT),
        ];
        transaction.query_typed(note, &values).await?;
    }
    Ok(transaction.commit().await?)
}

/// The version of the schema, where it is one that this version of the crate can work with or migrate: one step more than
/// it knows is the next version's, which leaves what this one uses as it is.
async fn version(transaction: &Transaction<'_>, steps: &[Migration]) -> Result<i64, Failed> {
    let component = steps.first().map_or("", Migration::component);
    let noted = "SELECT version::bigint, checksum FROM steadfast.migrations WHERE component = $1 ORDER BY version";
    let noted = transaction.query_typed(noted, &[(&component, Type::TEXT)]).await?;
    let mut version = 0;
    for row in noted {
        let (found, checksum): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        if found != version + 1 {
            let missing = version + 1;
            return Err(Failed::Schema(format!(
                "step {missing} of the tables of {component} is missing, and a later one is not"
            )));
        }
        version = found;
        let step = steps.iter().find(|step| i64::from(step.version()) == found);
        if step.is_some_and(|step| step.checksum() != checksum) {
            return Err(Failed::Schema(format!(
                "step {found} of the tables of {component} was another one: its checksum differs"
            )));
        }
    }
    let next = steps.last().map_or(0, |step| i64::from(step.version())) + 1;
    if version > next {
        return Err(Failed::Schema(format!(
            "the tables of {component} are of version {version}: this version of the crate knows those up to {next}"
        )));
    }
    Ok(version)
}
