//! What the server's errors mean.

use std::fmt;

use deadpool_postgres::PoolError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::storage::{StorageError, StorageErrorKind as Kind};

/// What the server said: its message and code. Not its detail, which quotes rows.
struct ServerError {
    code: SqlState,
    message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code.code())
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerError({self})")
    }
}

impl std::error::Error for ServerError {}

/// So that `?` works in a transaction whose error is the crate's own wrapper.
impl From<tokio_postgres::Error> for crate::Error<tokio_postgres::Error> {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Inner(error)
    }
}

/// What the error means, without what it says about rows.
pub(crate) fn describe(error: &tokio_postgres::Error) -> StorageError {
    let Some(server) = error.as_db_error() else {
        return StorageError::new(Kind::Unavailable, "PostgreSQL cannot be reached");
    };
    let (kind, what) = judge(server.code());
    StorageError::new(kind, what).with_source(ServerError {
        code: server.code().clone(),
        message: server.message().to_owned(),
    })
}

pub(super) fn storage_error(error: tokio_postgres::Error) -> StorageError {
    let described = describe(&error);
    if error.as_db_error().is_some() {
        return described;
    }
    described.with_source(error)
}

pub(super) fn pool_error(error: PoolError) -> StorageError {
    match error {
        PoolError::Backend(error) => storage_error(error),
        PoolError::Timeout(_) => StorageError::new(Kind::Unavailable, "no connection to PostgreSQL was free in time"),
        PoolError::Closed => StorageError::new(Kind::Unavailable, "the pool of connections to PostgreSQL is closed"),
        PoolError::NoRuntimeSpecified => {
            let what = "the pool of connections to PostgreSQL has timeouts and no runtime for them";
            StorageError::new(Kind::Refused, what)
        }
        PoolError::PostCreateHook(_) => {
            let what = "a hook of the pool refused the connection to PostgreSQL";
            StorageError::new(Kind::Unavailable, what)
        }
    }
}

fn judge(code: &SqlState) -> (Kind, &'static str) {
    const MISSING: [SqlState; 5] = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_OBJECT,
    ];
    const CORRUPT: [SqlState; 2] = [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED];
    if MISSING.contains(code) {
        let what = "the tables in PostgreSQL are missing or of another version: call migrate() first";
        return (Kind::NotMigrated, what);
    }
    if *code == SqlState::DISK_FULL {
        return (Kind::Full, "the disk of PostgreSQL is full");
    }
    if CORRUPT.contains(code) {
        return (Kind::Corrupt, "PostgreSQL cannot read what it has stored");
    }
    match code.code().get(..2) {
        // Connections; transactions that the server rolled back; resources; locks; an operator's doing; its system.
        Some("08" | "40" | "53" | "55" | "57" | "58") => (Kind::Unavailable, "PostgreSQL is not available"),
        // A transaction that was left idle for too long.
        Some("25") if *code != SqlState::READ_ONLY_SQL_TRANSACTION => {
            (Kind::Unavailable, "PostgreSQL ended the transaction")
        }
        _ => (Kind::Refused, "PostgreSQL refuses"),
    }
}

/// Whether the connection is gone, or its state unknown.
pub(super) fn is_lost(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().map(DbError::parsed_severity);
    severity != Some(Some(Severity::Error))
}

/// Whether the server says no, and the connection goes on: what was to be done is not.
#[cfg(feature = "saga")]
pub(crate) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some() && !is_lost(error)
}

/// The server knows a prepared statement no more, or another one by its name, or would plan it otherwise by now. It says so
/// before it runs anything.
pub(super) fn is_unprepared(error: &tokio_postgres::Error) -> bool {
    const OTHERWISE: [SqlState; 3] = [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
        // "cached plan must not change result type"
        SqlState::FEATURE_NOT_SUPPORTED,
    ];
    error.code().is_some_and(|code| OTHERWISE.contains(code))
}

/// How often a statement is run that met another one. The other one got through each time, so few are ever needed.
const MAX_CONFLICTS: usize = 16;
/// How often one is run whose connection was found closed: it may have been so for as long as it lay in the pool, and the
/// one after it too.
const MAX_CLOSED: usize = 2;

/// How often a statement was run in vain.
#[derive(Default)]
pub(super) struct Again {
    conflicts: usize,
    closed: usize,
}

impl Again {
    /// Whether the statement is to be run again at once.
    pub(super) fn may_help(&mut self, error: &tokio_postgres::Error) -> bool {
        let code = error.code();
        // Two transactions met, and this one was rolled back.
        if code == Some(&SqlState::T_R_SERIALIZATION_FAILURE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED) {
            self.conflicts += 1;
            return self.conflicts <= MAX_CONFLICTS;
        }
        if error.is_closed() {
            self.closed += 1;
            return self.closed <= MAX_CLOSED;
        }
        false
    }
}

/// Somebody else's transaction holds the row, and did not end in time.
pub(crate) fn is_lock_timeout(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// The same, of an error that was described.
pub(crate) fn was_lock_timeout(error: &StorageError) -> bool {
    let source = std::error::Error::source(error);
    let server = source.and_then(|source| source.downcast_ref::<ServerError>());
    server.is_some_and(|server| server.code == SqlState::LOCK_NOT_AVAILABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_server_have_the_kind_that_helps_most() {
        for (code, kind) in [
            ("08006", Kind::Unavailable),
            ("08P01", Kind::Unavailable),
            ("40001", Kind::Unavailable),
            ("40P01", Kind::Unavailable),
            ("53300", Kind::Unavailable),
            ("55P03", Kind::Unavailable),
            ("57014", Kind::Unavailable),
            ("57P01", Kind::Unavailable),
            ("58030", Kind::Unavailable),
            ("25P03", Kind::Unavailable),
            ("25006", Kind::Refused),
            ("28P01", Kind::Refused),
            ("3D000", Kind::Refused),
            ("42501", Kind::Refused),
            ("22P02", Kind::Refused),
            ("42P01", Kind::NotMigrated),
            ("42703", Kind::NotMigrated),
            ("42883", Kind::NotMigrated),
            ("3F000", Kind::NotMigrated),
            ("53100", Kind::Full),
            ("XX001", Kind::Corrupt),
        ] {
            assert_eq!(judge(&SqlState::from_code(code)).0, kind, "{code}");
        }
    }
}
