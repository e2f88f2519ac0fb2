//! A part of a transaction that is undone alone.

use rusqlite::Connection;

/// Undoes what came after it, unless it is released: on an error, and on a panic.
///
/// SQLite's savepoints of one name are a stack, so one may be inside of another.
#[derive(Debug)]
pub(crate) struct Savepoint<'c> {
    connection: &'c Connection,
    open: bool,
}

impl<'c> Savepoint<'c> {
    pub(crate) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        run(connection, "SAVEPOINT steadfast")?;
        Ok(Self { connection, open: true })
    }

    /// Keeps what came after it, as part of the transaction.
    pub(crate) fn release(mut self) -> rusqlite::Result<()> {
        run(self.connection, "RELEASE steadfast")?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        // Without a transaction there is nothing left to undo: SQLite has undone all of it, or the user has ended it.
        if !self.open || self.connection.is_autocommit() {
            return;
        }
        let undone =
            run(self.connection, "ROLLBACK TO steadfast").and_then(|()| run(self.connection, "RELEASE steadfast"));
        if undone.is_err() {
            // What cannot be undone alone is undone together with the rest.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
