//! Sagas in PostgreSQL.

mod append;
mod calls;
mod row;
mod sql;
mod transaction;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Append, Appended, DefinitionId, Entry, Head};
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::postgres::{Param, script};
use crate::storage::{Migration, PostgresStorage, StorageError};

const MIGRATIONS: &[Migration] = &[Migration::new("saga", 1, include_str!("schema_1.sql"))];

/// Keeps sagas in PostgreSQL, in the tables `steadfast.saga` and `steadfast.saga_event`.
///
/// A clone is the same journal. Every call is one statement, or a few that are transactions of their own, which works
/// behind PgBouncer in transaction mode; what it writes is durable whatever `synchronous_commit` is by default. Time is the
/// server's. The views `steadfast.sagas` and `steadfast.saga_events` show all of it as text.
///
/// Call [`migrate`](Self::migrate) first.
///
/// # Examples
///
/// ```no_run
/// use steadfast::saga::journal::PostgresJournal;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let journal = PostgresJournal::connect("postgres://app@localhost/app").await?;
/// journal.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresJournal {
    storage: PostgresStorage,
}

impl PostgresJournal {
    /// The sagas in this database.
    #[must_use]
    pub fn new(storage: &PostgresStorage) -> Self {
        Self {
            storage: storage.clone(),
        }
    }

    /// The sagas in the database at `url`, over a pool of its own: see [`PostgresStorage::connect`].
    ///
    /// # Errors
    ///
    /// When the URL is none, or a first connection cannot be made.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        let storage = PostgresStorage::connect(url).await?;
        Ok(Self { storage })
    }

    /// Makes the tables, or brings those of an earlier version up to date. Where that was done it changes nothing; two
    /// that do it at once take turns.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or refuses, and when its tables are of a version that this one does not know.
    ///
    /// # Cancel safety
    ///
    /// The steps are run in one transaction: all of them or none.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        self.storage.migrate(MIGRATIONS).await
    }

    /// The steps that [`migrate`](Self::migrate) runs, for who wants to read them.
    #[must_use]
    pub fn migrations() -> &'static [Migration] {
        MIGRATIONS
    }

    /// The same as one script, with what notes that they were run: for a database in which the program may not make
    /// tables. `migrate` then finds the work done.
    #[must_use]
    pub fn migration_script() -> String {
        script(MIGRATIONS)
    }

    /// The database that it keeps its sagas in.
    #[must_use]
    pub fn storage(&self) -> &PostgresStorage {
        &self.storage
    }

    /// Runs a statement that answers with one row, or none.
    async fn ask<A: Send>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        read: impl Fn(&Row) -> Result<A, StorageError> + Send,
    ) -> Result<Option<A>, StorageError> {
        let rows = self.storage.query(sql, params).await?;
        rows.first().map(read).transpose()
    }

    async fn head_of(&self, id: SagaId) -> Result<Option<Head>, StorageError> {
        self.ask(&sql::HEAD_OF, &[(&id.as_bytes().as_slice(), Type::BYTEA)], row::head)
            .await
    }

    async fn head_of_key(&self, key: KeyId) -> Result<Option<Head>, StorageError> {
        self.ask(&sql::FIND, &[(&key.as_bytes().as_slice(), Type::BYTEA)], row::head)
            .await
    }

    /// What became of an append that wrote nothing: it was carried out before if each of its events is there.
    pub(super) async fn written(&self, append: &Append) -> Result<Appended, StorageError> {
        let params: [Param<'_>; 3] = [
            (&append.id.as_bytes().as_slice(), Type::BYTEA),
            (&signed(append.seq), Type::INT8),
            (&count(append.entries.len()), Type::INT8),
        ];
        let rows = self.storage.query(sql::WRITTEN, &params).await?;
        let written: Vec<_> = rows.iter().map(row::written).collect::<Result<_, _>>()?;
        let mut pairs = written.iter().zip(&append.entries);
        let same = written.len() == append.entries.len()
            && pairs.all(|((_, epoch, stored), entry)| *epoch == append.epoch && stored == entry);
        Ok(match written.last() {
            Some(&(cancel, ..)) if same => Appended::Written { cancel },
            _ => Appended::Fenced,
        })
    }
}

/// Entries as the statements take them.
fn columns(entries: &[Entry]) -> (Vec<&[u8]>, Vec<Option<&[u8]>>) {
    let columns = entries.iter().map(|entry| (&*entry.event, entry.context.as_deref()));
    columns.unzip()
}

struct Definitions<'a> {
    names: Vec<&'a [u8]>,
    versions: Vec<i64>,
    fingerprints: Vec<&'a [u8]>,
}

impl<'a> Definitions<'a> {
    fn of(definitions: &'a [DefinitionId]) -> Self {
        Self {
            names: definitions.iter().map(|of| of.name.as_bytes()).collect(),
            versions: definitions.iter().map(|of| of.version.into()).collect(),
            fingerprints: definitions.iter().map(|of| of.fingerprint.as_slice()).collect(),
        }
    }

    fn params(&self) -> [Param<'_>; 3] {
        [
            (&self.names, Type::BYTEA_ARRAY),
            (&self.versions, Type::INT8_ARRAY),
            (&self.fingerprints, Type::BYTEA_ARRAY),
        ]
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
