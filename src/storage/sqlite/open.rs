//! Opens a file, and refuses one that could lose what it has acknowledged.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::{StorageError, StorageErrorKind};
use super::error::Fault;
use super::network;

/// 3.37.0: the first with `STRICT` tables.
const MIN_VERSION: i32 = 3_037_000;

/// How many statements are kept prepared: more than this crate has.
const STATEMENTS: usize = 64;

/// How much of the file is kept in memory: keys are hashes, so every write is somewhere else.
const CACHE_KIB: i64 = 16 * 1_024;

pub(super) fn open(path: &Path, busy_timeout: Duration, relaxed: bool) -> Result<Connection, StorageError> {
    let version = rusqlite::version_number();
    if version < MIN_VERSION {
        let what = format!("SQLite {} is too old: 3.37.0 or later is needed", rusqlite::version());
        return Err(StorageError::new(StorageErrorKind::Refused, what));
    }
    if let Some(kind) = network::file_system(path) {
        let what = format!("the SQLite file is on a network ({kind}): it has to be on a local file system");
        return Err(StorageError::new(StorageErrorKind::Refused, what));
    }
    settle(path, busy_timeout, relaxed).map_err(StorageError::from)
}

fn settle(path: &Path, busy_timeout: Duration, relaxed: bool) -> Result<Connection, Fault> {
    // One thread uses the connection, so SQLite needs no lock of its own. No URIs: the path is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if connection.is_readonly("main")? {
        return Err(refused("the SQLite file is read-only").into());
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let what = "SQLite's write-ahead log does not work here: the file has to be on a local file system";
        return Err(refused(what).into());
    }
    connection.pragma_update(None, "synchronous", if relaxed { "NORMAL" } else { "FULL" })?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // A schema that somebody else has written to is not to run functions.
    connection.pragma_update(None, "trusted_schema", false)?;
    // From here on the writer waits by itself.
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

fn refused(what: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Refused, what)
}
