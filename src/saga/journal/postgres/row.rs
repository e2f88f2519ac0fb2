//! Rows as answers.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::{Claimed, Counts, DefinitionId, Entry, Head, OwnerId, Renewal, SagaStatus, StoredEntry};
use super::sql::HEAD_COLUMNS;
use crate::KeyId;
use crate::saga::id::SagaId;
use crate::storage::{StorageError, StorageErrorKind};

pub(super) fn status_number(status: SagaStatus) -> i16 {
    match status {
        SagaStatus::Running => 1,
        SagaStatus::Compensating => 2,
        SagaStatus::Completed => 3,
        SagaStatus::Compensated => 4,
        SagaStatus::Stuck => 5,
        SagaStatus::Abandoned => 6,
    }
}

fn status(number: i16) -> Result<SagaStatus, StorageError> {
    let mut all = SagaStatus::ALL.into_iter();
    all.find(|status| status_number(*status) == number).ok_or_else(corrupt)
}

pub(super) fn head(row: &Row) -> Result<Head, StorageError> {
    Ok(Head {
        id: SagaId::from_bytes(array(row, 0)?),
        key: KeyId::from_bytes(array(row, 1)?),
        input: array(row, 2)?,
        definition: DefinitionId {
            name: text(get(row, 3)?)?,
            version: narrow(get(row, 4)?)?,
            fingerprint: array(row, 5)?,
        },
        status: status(get(row, 6)?)?,
        seq: unsigned(get(row, 7)?)?,
        epoch: unsigned(get(row, 8)?)?,
        owner: optional(row, 9)?.map(sized).transpose()?.map(OwnerId),
        due: optional(row, 10)?.map(time).transpose()?,
        recoveries: narrow(get(row, 11)?)?,
        can_turn: get(row, 12)?,
        cancel: get(row, 13)?,
        deadline: optional(row, 14)?.map(time).transpose()?,
        error: optional(row, 15)?.map(text).transpose()?,
        created: time(get(row, 16)?)?,
        changed: time(get(row, 17)?)?,
        pruned: get(row, 18)?,
    })
}

/// When the row was read.
pub(super) fn now(row: &Row) -> Result<Duration, StorageError> {
    time(get(row, HEAD_COLUMNS - 1)?)
}

pub(super) fn claimed(row: &Row) -> Result<Claimed, StorageError> {
    let (head, now) = (head(row)?, now(row)?);
    Ok(Claimed {
        deadline_in: head.deadline.map(|deadline| deadline.saturating_sub(now)),
        parked: get(row, HEAD_COLUMNS)?,
        head,
    })
}

/// The event beside a head; `None` where there is none.
pub(super) fn stored(row: &Row) -> Result<Option<StoredEntry>, StorageError> {
    let Some(seq) = optional(row, HEAD_COLUMNS)? else {
        return Ok(None);
    };
    Ok(Some(StoredEntry {
        seq: unsigned(seq)?,
        epoch: unsigned(get(row, HEAD_COLUMNS + 1)?)?,
        at: time(get(row, HEAD_COLUMNS + 2)?)?,
        entry: entry(row, HEAD_COLUMNS + 3)?,
    }))
}

/// Whether a saga is asked to turn back, and the epoch of an event of it with what it says.
pub(super) fn written(row: &Row) -> Result<(bool, u64, Entry), StorageError> {
    Ok((get(row, 0)?, unsigned(get(row, 1)?)?, entry(row, 2)?))
}

pub(super) fn renewal(row: &Row) -> Result<(u64, Renewal), StorageError> {
    let renewal = Renewal {
        id: SagaId::from_bytes(array(row, 0)?),
        held: get(row, 2)?,
        cancel: get(row, 3)?,
    };
    Ok((unsigned(get(row, 1)?)?, renewal))
}

pub(super) fn counts(row: &Row) -> Result<Counts, StorageError> {
    Ok(Counts {
        active: unsigned(get(row, 0)?)?,
        stuck: unsigned(get(row, 1)?)?,
        incompatible: unsigned(get(row, 2)?)?,
        overdue: optional(row, 3)?.map(time).transpose()?,
    })
}

pub(super) fn flag(row: &Row) -> Result<bool, StorageError> {
    get(row, 0)
}

pub(super) fn number(row: &Row) -> Result<u64, StorageError> {
    unsigned(get(row, 0)?)
}

fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, StorageError> {
    row.try_get(column).map_err(|_| corrupt())
}

fn optional<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<Option<T>, StorageError> {
    get(row, column)
}

fn entry(row: &Row, column: usize) -> Result<Entry, StorageError> {
    Ok(Entry {
        event: Bytes::copy_from_slice(get(row, column)?),
        context: optional(row, column + 1)?.map(Bytes::copy_from_slice),
    })
}

fn array<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], StorageError> {
    sized(get(row, column)?)
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StorageError> {
    bytes.try_into().map_err(|_| corrupt())
}

fn text(bytes: &[u8]) -> Result<String, StorageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt())?;
    Ok(text.to_owned())
}

/// A column that is wider than its number, which stays at its largest.
fn narrow(number: i64) -> Result<u32, StorageError> {
    Ok(u32::try_from(unsigned(number)?).unwrap_or(u32::MAX))
}

fn time(microseconds: i64) -> Result<Duration, StorageError> {
    unsigned(microseconds).map(Duration::from_micros)
}

fn unsigned(number: i64) -> Result<u64, StorageError> {
    u64::try_from(number).map_err(|_| corrupt())
}

fn corrupt() -> StorageError {
    let what = "a row of steadfast.saga or steadfast.saga_event is not as this version of the crate writes it";
    StorageError::new(StorageErrorKind::Corrupt, what)
}
