//! The events of a saga as rows, and back.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, Row};

use super::super::{Append, Entry, Head, StoredEntry};
use super::row::{signed, unsigned};
use crate::saga::id::SagaId;
use crate::storage::sqlite::Fault;
use crate::storage::sqlite::value::{blob, ms, time};

/// Writes events, the first of which has the number `seq`.
pub(super) fn insert(
    connection: &Connection,
    id: SagaId,
    epoch: u64,
    seq: u64,
    entries: &[Entry],
    at: Duration,
) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO steadfast_saga_event (saga, seq, epoch, at, event, context) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (seq, entry) in (seq..).zip(entries) {
        let context = entry.context.as_deref();
        statement.execute((
            id.as_bytes(),
            signed(seq),
            signed(epoch),
            ms(at),
            &*entry.event,
            context,
        ))?;
    }
    Ok(())
}

/// The events of a saga. An error unless every one is there that its head counts: what is left of a log is another saga.
pub(super) fn load(connection: &Connection, head: &Head) -> Result<Vec<StoredEntry>, Fault> {
    let entries = from(connection, head.id, 0, i64::MAX)?;
    let dense = (0..).zip(&entries).all(|(seq, entry)| entry.seq == seq);
    let expected = if head.pruned { 0 } else { head.seq };
    if dense && u64::try_from(entries.len()) == Ok(expected) {
        Ok(entries)
    } else {
        Err(Fault::corrupt("events of a saga are missing"))
    }
}

/// Whether each of these events is stored, in its place and of this epoch.
pub(super) fn are_written(connection: &Connection, append: &Append) -> Result<bool, Fault> {
    let stored = in_place(connection, append)?;
    let same = stored
        .iter()
        .zip(&append.entries)
        .all(|(stored, entry)| stored.entry == *entry);
    Ok(same && !stored.is_empty())
}

/// The same, where the first event has a context that the append does not know; that context.
pub(super) fn written_before(connection: &Connection, append: &Append) -> Result<Option<Bytes>, Fault> {
    let mut stored = in_place(connection, append)?;
    let context = stored.first_mut().and_then(|first| first.entry.context.take());
    let same = stored
        .iter()
        .zip(&append.entries)
        .all(|(stored, entry)| stored.entry == *entry);
    Ok(context.filter(|_| same))
}

/// What is stored of this epoch in the place of these events; nothing, unless it is as many.
fn in_place(connection: &Connection, append: &Append) -> Result<Vec<StoredEntry>, Fault> {
    let count = i64::try_from(append.entries.len()).unwrap_or(i64::MAX);
    let mut stored = from(connection, append.id, append.seq, count)?;
    let place = |(seq, stored): (u64, &StoredEntry)| stored.seq == seq && stored.epoch == append.epoch;
    if stored.len() != append.entries.len() || !(append.seq..).zip(&stored).all(place) {
        stored.clear();
    }
    Ok(stored)
}

pub(super) fn delete(connection: &Connection, id: SagaId) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("DELETE FROM steadfast_saga_event WHERE saga = ?1")?;
    statement.execute([id.as_bytes()])?;
    Ok(())
}

fn from(connection: &Connection, id: SagaId, seq: u64, limit: i64) -> Result<Vec<StoredEntry>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, epoch, at, event, context FROM steadfast_saga_event
        WHERE saga = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query((id.as_bytes(), signed(seq), limit))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok(entries)
}

fn read(row: &Row<'_>) -> Result<StoredEntry, Fault> {
    let event: Option<Bytes> = blob(row, 3)?;
    Ok(StoredEntry {
        seq: unsigned(row.get(0)?)?,
        epoch: unsigned(row.get(1)?)?,
        at: time(row.get(2)?)?,
        entry: Entry {
            event: event.ok_or_else(|| Fault::corrupt("there is no event"))?,
            context: blob(row, 4)?,
        },
    })
}
