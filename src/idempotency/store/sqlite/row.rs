//! A record as a row, and back.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::super::fingerprint::Fingerprint;
use super::super::{ClaimId, Interrupted, Origin, Owner, Record, Write};
use crate::KeyId;
use crate::storage::sqlite::Fault;
use crate::storage::sqlite::value::{blob, ms, signed, time, unsigned};

const IN_PROGRESS: i64 = 0;
const COMPLETED: i64 = 1;
const CANCELLED: i64 = 2;

/// The columns of a row, in the order in which [`read`] and [`write`] expect them.
macro_rules! columns {
    () => {
        "status, fence, attempt, claim_id, fingerprint, lease_until, expires_at, checkpoint, outcome, origin"
    };
}

/// The record of `id`, whether it has expired or not.
pub(crate) fn load(connection: &Connection, id: KeyId) -> Result<Option<Record>, Fault> {
    const LOAD: &str = concat!("SELECT ", columns!(), " FROM steadfast_idempotency WHERE id = ?1");
    let mut statement = connection.prepare_cached(LOAD)?;
    let record = statement.query_row([id.as_bytes()], |row| Ok(read(row))).optional()?;
    record.transpose()
}

/// Writes what a transition of `record` has come to.
pub(crate) fn apply(connection: &Connection, id: KeyId, record: Option<&Record>, write: &Write) -> Result<(), Fault> {
    match write {
        Write::Keep => Ok(()),
        Write::Delete => delete(connection, id),
        Write::Put(put) if record.is_some() => update(connection, id, put),
        Write::Put(put) => insert(connection, id, put),
    }
}

/// The plus keeps SQLite from walking through all ids in their order: the index of leases has the few that count.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    ", id FROM steadfast_idempotency
    WHERE status = 0 AND lease_until <= ?1 AND (expires_at IS NULL OR expires_at > ?1) AND +id > ?2
    ORDER BY +id LIMIT ?3"
);

const COUNT: &str = "SELECT count(*) FROM steadfast_idempotency
    WHERE status = 0 AND lease_until <= ?1 AND (expires_at IS NULL OR expires_at > ?1)";

const PURGE: &str = "DELETE FROM steadfast_idempotency WHERE rowid IN (
    SELECT rowid FROM steadfast_idempotency WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// The interrupted and live records after `after`, by id.
pub(super) fn interrupted(
    connection: &Connection,
    now: Duration,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Vec<(KeyId, Record)>, Fault> {
    let after = after.as_ref().map_or(&[][..], |after| after.as_bytes());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LIST)?;
    let mut rows = statement.query((ms(now), after, limit))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((KeyId::from_bytes(row.get(10)?), read(row)?));
    }
    Ok(found)
}

pub(super) fn count_interrupted(connection: &Connection, now: Duration) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(COUNT)?;
    let count: i64 = statement.query_row([ms(now)], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Removes at most `limit` expired records, those that expired first.
pub(super) fn purge(connection: &Connection, now: Duration, limit: usize) -> Result<usize, Fault> {
    let mut statement = connection.prepare_cached(PURGE)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(statement.execute((ms(now), limit))?)
}

/// The last fence that was given out.
pub(crate) fn last_fence(connection: &Connection) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached("SELECT fence FROM steadfast_idempotency_fence WHERE one = 1")?;
    Ok(unsigned(statement.query_row([], |row| row.get(0))?))
}

/// Notes that `fence` was given out.
pub(crate) fn note_fence(connection: &Connection, fence: u64) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("UPDATE steadfast_idempotency_fence SET fence = ?1 WHERE one = 1")?;
    statement.execute([signed(fence)])?;
    Ok(())
}

fn delete(connection: &Connection, id: KeyId) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached("DELETE FROM steadfast_idempotency WHERE id = ?1")?;
    statement.execute([id.as_bytes()])?;
    Ok(())
}

fn insert(connection: &Connection, id: KeyId, record: &Record) -> Result<(), Fault> {
    const INSERT: &str = concat!(
        "INSERT INTO steadfast_idempotency (id, ",
        columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    );
    write(connection, INSERT, id, record)
}

fn update(connection: &Connection, id: KeyId, record: &Record) -> Result<(), Fault> {
    const UPDATE: &str = "UPDATE steadfast_idempotency SET status = ?2, fence = ?3, attempt = ?4, claim_id = ?5,
        fingerprint = ?6, lease_until = ?7, expires_at = ?8, checkpoint = ?9, outcome = ?10, origin = ?11 WHERE id = ?1";
    write(connection, UPDATE, id, record)
}

fn write(connection: &Connection, sql: &str, id: KeyId, record: &Record) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let (status, owner) = match record {
        Record::InProgress { owner, .. } => (IN_PROGRESS, Some(owner)),
        Record::Completed { owner, .. } => (COMPLETED, Some(owner)),
        Record::Cancelled { .. } => (CANCELLED, None),
    };
    let (attempt, lease_until, checkpoint, outcome) = match record {
        Record::InProgress {
            owner,
            lease_until,
            checkpoint,
            ..
        } => (Some(owner.attempt), Some(*lease_until), checkpoint.as_deref(), None),
        Record::Completed { owner, outcome, .. } => (Some(owner.attempt), None, None, Some(&**outcome)),
        Record::Cancelled { interrupted, .. } => {
            let interrupted = interrupted.as_ref();
            let checkpoint = interrupted.and_then(|interrupted| interrupted.checkpoint.as_deref());
            (
                interrupted.map(|interrupted| interrupted.attempt),
                None,
                checkpoint,
                None,
            )
        }
    };
    let origin = match record {
        Record::InProgress { origin, .. } => Some(origin.as_str()),
        Record::Completed { .. } | Record::Cancelled { .. } => None,
    };
    statement.execute((
        id.as_bytes(),
        status,
        signed(record.fence()),
        attempt,
        owner.map(|owner| owner.claim_id.as_bytes()),
        owner.map(|owner| owner.fingerprint.as_bytes()),
        lease_until.map(ms),
        record.expires_at().map(ms),
        checkpoint,
        outcome,
        origin,
    ))?;
    Ok(())
}

/// The record of a row of `columns!()`.
fn read(row: &Row<'_>) -> Result<Record, Fault> {
    let fence = unsigned(row.get(1)?);
    let owner = || -> Result<Owner, Fault> {
        Ok(Owner {
            claim_id: ClaimId::from_bytes(row.get(3)?),
            fence,
            attempt: row.get(2)?,
            fingerprint: Fingerprint::from_bytes(row.get(4)?),
        })
    };
    match row.get(0)? {
        IN_PROGRESS => Ok(Record::InProgress {
            owner: owner()?,
            lease_until: time(row.get(5)?)?,
            expires_at: row.get::<_, Option<i64>>(6)?.map(time).transpose()?,
            checkpoint: blob(row, 7)?,
            origin: Origin::from_text(row.get::<_, Option<Box<str>>>(9)?.as_deref().unwrap_or_default()),
        }),
        COMPLETED => Ok(Record::Completed {
            owner: owner()?,
            expires_at: time(row.get(6)?)?,
            outcome: blob(row, 8)?.ok_or_else(|| Fault::corrupt("there is no outcome"))?,
        }),
        CANCELLED => {
            let attempt: Option<u32> = row.get(2)?;
            let checkpoint = blob(row, 7)?;
            Ok(Record::Cancelled {
                fence,
                interrupted: attempt.map(|attempt| Interrupted { attempt, checkpoint }),
            })
        }
        _ => Err(Fault::corrupt("its status is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_for_many_records_walks_through_all_of_them() {
        let connection = Connection::open_in_memory().unwrap();
        for step in super::super::MIGRATIONS {
            connection.execute_batch(step.sql()).unwrap();
        }
        for (sql, index) in [
            (LIST, "steadfast_idempotency_in_progress"),
            (COUNT, "steadfast_idempotency_in_progress"),
            (PURGE, "steadfast_idempotency_expiring"),
        ] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            // What is not bound is NULL.
            let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
            let plan: Vec<_> = steps.map(Result::unwrap).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN steadfast")), "{plan:?}");
        }
    }
}
