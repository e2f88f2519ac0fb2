//! What SQLite's errors mean.

use std::borrow::Cow;

use rusqlite::{Error, ErrorCode};

use super::super::{StorageError, StorageErrorKind};

/// What ends a job: an error of SQLite, or one that says already what it means.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(Error),
    Storage(StorageError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Fault {
    /// A stored value that cannot be read; `what` names it.
    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Storage(StorageError::new(
            StorageErrorKind::Corrupt,
            format!("a stored record cannot be read: {what}"),
        ))
    }
}

impl From<Fault> for StorageError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Storage(error) => error,
            Fault::Sqlite(error) => {
                let (kind, what) = meaning(&error);
                // SQLite's messages name tables, columns and files, and no values.
                Self::new(kind, what).with_source(error)
            }
        }
    }
}

/// What an error of a whole transaction means, which goes to every job of it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: StorageErrorKind,
    what: Cow<'static, str>,
}

impl Failure {
    pub(super) fn new(kind: StorageErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    /// One job's share of it.
    pub(super) fn share(&self) -> StorageError {
        StorageError::new(self.kind, self.what.clone())
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (kind, what) = meaning(error);
        Self::new(kind, format!("{what}: {error}"))
    }
}

pub(super) fn is_busy(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn meaning(error: &Error) -> (StorageErrorKind, &'static str) {
    use StorageErrorKind::{Corrupt, Full, NotMigrated, Refused, Unavailable};

    let Some(code) = error.sqlite_error_code() else {
        return match error {
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::QueryReturnedNoRows => (Corrupt, "what SQLite has stored cannot be read"),
            // A statement that cannot be read has a variant of its own in newer versions of SQLite only.
            _ => missing(error),
        };
    };
    match code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (Unavailable, "the SQLite file was busy for too long"),
        ErrorCode::DiskFull => (Full, "there is no room for the SQLite file"),
        ErrorCode::ReadOnly => (Refused, "the SQLite file is read-only"),
        ErrorCode::PermissionDenied | ErrorCode::CannotOpen => (Refused, "the SQLite file cannot be opened"),
        ErrorCode::DatabaseCorrupt => (Corrupt, "the SQLite file is damaged"),
        ErrorCode::NotADatabase => (Corrupt, "the file is no SQLite database"),
        ErrorCode::TooBig => (Refused, "a value is too large for SQLite"),
        ErrorCode::FileLockingProtocolFailed => (
            Unavailable,
            "the SQLite file cannot be locked: it has to be on a local file system",
        ),
        ErrorCode::Unknown => match missing(error) {
            found @ (NotMigrated, _) => found,
            _ => (Refused, "SQLite refused a request"),
        },
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => (Corrupt, "the tables in SQLite hold other values"),
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationAborted
        | ErrorCode::OperationInterrupted
        | ErrorCode::SchemaChanged => (Unavailable, "SQLite could not carry a request out"),
        _ => (Refused, "SQLite refused a request"),
    }
}

/// SQLite has no code for a table that is not there; its text is part of its tests.
fn missing(error: &Error) -> (StorageErrorKind, &'static str) {
    let text = error.to_string();
    if ["no such table", "no such column", "has no column"]
        .iter()
        .any(|part| text.contains(part))
    {
        (
            StorageErrorKind::NotMigrated,
            "the tables are missing: call migrate() first",
        )
    } else {
        (StorageErrorKind::Refused, "SQLite refused a request")
    }
}
