//! The head of a saga as a row, and back.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Statement, ToSql};

use super::super::{DefinitionId, Head, OwnerId, SagaStatus};
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::sqlite::Fault;
use crate::storage::sqlite::value::{ms, time};

/// Heads with their definitions, as [`read`] expects them.
macro_rules! heads {
    ($($rest:literal)?) => {
        concat!(
            "SELECT s.id, s.key, s.input, d.name, d.version, d.fingerprint, s.status, s.seq, s.epoch, s.owner, s.due,
                s.recoveries, s.can_turn, s.cancel, s.deadline, s.error, s.created, s.changed, s.pruned
            FROM steadfast_saga AS s JOIN steadfast_saga_definition AS d ON d.id = s.definition ",
            $($rest)?
        )
    };
}

const DUE: &str = heads!(
    "WHERE s.definition = ?1 AND s.suspect = ?2 AND s.status IN (0, 1) AND s.due <= ?3 ORDER BY s.due, s.id LIMIT ?4"
);
const FIRST_DUE: &str =
    "SELECT min(due) FROM steadfast_saga WHERE definition = ?1 AND suspect = ?2 AND status IN (0, 1) AND due <= ?3";
const AFTER: &str = heads!("WHERE s.id > ?1 ORDER BY s.id LIMIT ?2");
const AT: &str = heads!("WHERE s.definition = ?1 AND s.status = ?2 AND s.id > ?3 ORDER BY s.id LIMIT ?4");
const COUNT: &str = "SELECT count(*) FROM steadfast_saga WHERE definition = ?1 AND status = ?2";
const SETTLED: &str = heads!(
    "WHERE s.status IN (2, 3, 5) AND s.owner IS NULL AND s.pruned = ?1 AND s.changed <= ?2
    ORDER BY s.changed LIMIT ?3"
);

/// Each statement that is asked of many sagas, and what it walks through.
#[cfg(test)]
pub(super) const INDEXED: [(&str, &str); 6] = [
    (DUE, "steadfast_saga_due"),
    (FIRST_DUE, "steadfast_saga_due"),
    (AFTER, "PRIMARY KEY"),
    (AT, "steadfast_saga_status"),
    (COUNT, "steadfast_saga_status"),
    (SETTLED, "steadfast_saga_settled"),
];

/// A definition that sagas were started from, and its number in the file.
pub(super) struct Definition {
    number: i64,
    pub(super) id: DefinitionId,
}

pub(super) fn load(connection: &Connection, id: SagaId) -> Result<Option<Head>, Fault> {
    let mut statement = connection.prepare_cached(heads!("WHERE s.id = ?1"))?;
    let head = statement.query_row([id.as_bytes()], |row| Ok(read(row))).optional()?;
    head.transpose()
}

pub(super) fn find(connection: &Connection, key: KeyId) -> Result<Option<Head>, Fault> {
    let mut statement = connection.prepare_cached(heads!("WHERE s.key = ?1"))?;
    let head = statement.query_row([key.as_bytes()], |row| Ok(read(row))).optional()?;
    head.transpose()
}

/// The sagas of a definition that are due, suspects or the others, the longest due first.
pub(super) fn due(
    connection: &Connection,
    definition: &Definition,
    suspect: bool,
    now: Duration,
    limit: usize,
) -> Result<Vec<Head>, Fault> {
    let mut statement = connection.prepare_cached(DUE)?;
    all(&mut statement, (definition.number, suspect, ms(now), rows(limit)))
}

/// Since when the saga of a definition is due that waits longest.
pub(super) fn first_due(
    connection: &Connection,
    definition: &Definition,
    now: Duration,
) -> Result<Option<Duration>, Fault> {
    let mut statement = connection.prepare_cached(FIRST_DUE)?;
    let mut first = None;
    for suspect in [false, true] {
        let due: Option<i64> = statement.query_row((definition.number, suspect, ms(now)), |row| row.get(0))?;
        first = first.into_iter().chain(due).min();
    }
    first.map(time).transpose()
}

/// Sagas by id.
pub(super) fn after(connection: &Connection, after: Option<SagaId>, limit: usize) -> Result<Vec<Head>, Fault> {
    let mut statement = connection.prepare_cached(AFTER)?;
    all(&mut statement, (bytes(after.as_ref()), rows(limit)))
}

/// Sagas of a definition that stand at `status`, by id.
pub(super) fn at(
    connection: &Connection,
    definition: &Definition,
    status: SagaStatus,
    after: Option<SagaId>,
    limit: usize,
) -> Result<Vec<Head>, Fault> {
    let mut statement = connection.prepare_cached(AT)?;
    let status = number_of(status);
    all(
        &mut statement,
        (definition.number, status, bytes(after.as_ref()), rows(limit)),
    )
}

/// How many sagas of a definition stand at `status`.
pub(super) fn count(connection: &Connection, definition: &Definition, status: SagaStatus) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(COUNT)?;
    let count = statement.query_row((definition.number, number_of(status)), |row| row.get(0))?;
    unsigned(count)
}

/// Sagas that nobody holds and that have been settled since `until`, with their events or without.
pub(super) fn settled(
    connection: &Connection,
    pruned: bool,
    until: Duration,
    limit: usize,
) -> Result<Vec<Head>, Fault> {
    let mut statement = connection.prepare_cached(SETTLED)?;
    all(&mut statement, (pruned, ms(until), rows(limit)))
}

fn all(statement: &mut Statement<'_>, parameters: impl rusqlite::Params) -> Result<Vec<Head>, Fault> {
    let mut rows = statement.query(parameters)?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        heads.push(read(row)?);
    }
    Ok(heads)
}

pub(super) fn definitions(connection: &Connection) -> Result<Vec<Definition>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id, name, version, fingerprint FROM steadfast_saga_definition")?;
    let found = statement.query_map([], |row| {
        Ok(Definition {
            number: row.get(0)?,
            id: DefinitionId {
                name: row.get(1)?,
                version: row.get(2)?,
                fingerprint: row.get(3)?,
            },
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// The number of a definition, where sagas were started from it.
pub(super) fn definition(connection: &Connection, id: &DefinitionId) -> Result<Option<Definition>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM steadfast_saga_definition WHERE name = ?1 AND version = ?2 AND fingerprint = ?3",
    )?;
    let number = statement
        .query_row((&id.name, id.version, id.fingerprint), |row| row.get(0))
        .optional()?;
    Ok(number.map(|number| Definition { number, id: id.clone() }))
}

pub(super) fn insert(connection: &Connection, head: &Head) -> Result<(), Fault> {
    const DEFINE: &str = "INSERT INTO steadfast_saga_definition (name, version, fingerprint) VALUES (?1, ?2, ?3)";
    const INSERT: &str = "INSERT INTO steadfast_saga (id, key, input, definition, status, seq, epoch, owner, due,
        recoveries, can_turn, cancel, deadline, error, created, changed, pruned)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    let id = &head.definition;
    let definition = if let Some(definition) = definition(connection, id)? {
        definition.number
    } else {
        let mut statement = connection.prepare_cached(DEFINE)?;
        statement.insert((&id.name, id.version, id.fingerprint))?
    };
    let (owner, due) = (head.owner.map(|owner| owner.0), head.due.map(ms));
    let values: [&dyn ToSql; 17] = [
        head.id.as_bytes(),
        head.key.as_bytes(),
        &head.input,
        &definition,
        &number_of(head.status),
        &signed(head.seq),
        &signed(head.epoch),
        &owner,
        &due,
        &head.recoveries,
        &head.can_turn,
        &head.cancel,
        &head.deadline.map(ms),
        &head.error,
        &ms(head.created),
        &ms(head.changed),
        &head.pruned,
    ];
    connection.prepare_cached(INSERT)?.execute(values)?;
    Ok(())
}

/// Writes what has become of a head. SQLite writes every index of a column that a statement names, changed or not: so
/// the columns that seldom change have statements of their own.
pub(super) fn update(connection: &Connection, before: &Head, after: &Head) -> Result<(), Fault> {
    const DUE: &str = "UPDATE steadfast_saga SET due = ?2 WHERE id = ?1";
    const STATUS: &str = "UPDATE steadfast_saga SET status = ?2, pruned = ?3 WHERE id = ?1";
    const REST: &str = "UPDATE steadfast_saga SET seq = ?2, epoch = ?3, owner = ?4, due = ?5, recoveries = ?6,
        can_turn = ?7, cancel = ?8, error = ?9, changed = ?10 WHERE id = ?1";
    let id = after.id.as_bytes();
    let renewed = Head {
        due: after.due,
        ..before.clone()
    };
    if renewed == *after {
        connection.prepare_cached(DUE)?.execute((id, after.due.map(ms)))?;
        return Ok(());
    }
    connection.prepare_cached(REST)?.execute((
        id,
        signed(after.seq),
        signed(after.epoch),
        after.owner.map(|owner| owner.0),
        after.due.map(ms),
        after.recoveries,
        after.can_turn,
        after.cancel,
        &after.error,
        ms(after.changed),
    ))?;
    if (before.status, before.pruned) != (after.status, after.pruned) {
        let mut statement = connection.prepare_cached(STATUS)?;
        statement.execute((id, number_of(after.status), after.pruned))?;
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: SagaId) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("DELETE FROM steadfast_saga WHERE id = ?1")?;
    statement.execute([id.as_bytes()])?;
    Ok(())
}

/// The head of a row of `heads!()`.
fn read(row: &Row<'_>) -> Result<Head, Fault> {
    let status: u8 = row.get(6)?;
    Ok(Head {
        id: SagaId::from_bytes(row.get(0)?),
        key: KeyId::from_bytes(row.get(1)?),
        input: row.get(2)?,
        definition: DefinitionId {
            name: row.get(3)?,
            version: row.get(4)?,
            fingerprint: row.get(5)?,
        },
        status: *SagaStatus::ALL
            .get(usize::from(status))
            .ok_or_else(|| Fault::corrupt("its status is not known"))?,
        seq: unsigned(row.get(7)?)?,
        epoch: unsigned(row.get(8)?)?,
        owner: row.get::<_, Option<[u8; 16]>>(9)?.map(OwnerId),
        due: optional_time(row, 10)?,
        recoveries: row.get(11)?,
        can_turn: row.get(12)?,
        cancel: row.get(13)?,
        deadline: optional_time(row, 14)?,
        error: row.get(15)?,
        created: time(row.get(16)?)?,
        changed: time(row.get(17)?)?,
        pruned: row.get(18)?,
    })
}

fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Duration>, Fault> {
    row.get::<_, Option<i64>>(column)?.map(time).transpose()
}

/// A status by its place in [`SagaStatus::ALL`].
fn number_of(status: SagaStatus) -> u8 {
    match status {
        SagaStatus::Running => 0,
        SagaStatus::Compensating => 1,
        SagaStatus::Completed => 2,
        SagaStatus::Compensated => 3,
        SagaStatus::Stuck => 4,
        SagaStatus::Abandoned => 5,
    }
}

fn bytes(id: Option<&SagaId>) -> &[u8] {
    id.map_or(&[], |id| id.as_bytes())
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A number that only grows by one: that it never gets past SQLite's largest keeps the order.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> Result<u64, Fault> {
    u64::try_from(number).map_err(|_| Fault::corrupt("a number is negative"))
}
