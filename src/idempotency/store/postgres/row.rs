//! Rows as answers.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::super::super::fingerprint::Fingerprint;
use super::super::super::record::{Cancellation, Claim, ClaimId, Claimed, Interrupted, Origin, Outcome, Owner, Record};
use super::super::Inspected;
use crate::KeyId;
use crate::storage::{StorageError, StorageErrorKind};

const IN_PROGRESS: i16 = 1;
const COMPLETED: i16 = 2;
const CANCELLED: i16 = 3;

pub(super) fn owned(
    claim: &Claim,
    fence: i64,
    attempt: u32,
    checkpoint: Option<Bytes>,
) -> Result<Claimed, StorageError> {
    let owner = Owner {
        claim_id: claim.claim_id,
        fence: unsigned(fence)?,
        attempt,
        fingerprint: claim.fingerprint,
    };
    Ok(Claimed::Owned { owner, checkpoint })
}

/// `None` for a row of NULLs: no answer, to be asked again.
pub(in crate::idempotency) fn claimed(row: &Row, claim: &Claim) -> Result<Option<Claimed>, StorageError> {
    let attempt = || attempt(get(row, 3)?);
    let checkpoint = || bytes(row, 5);
    if let Some(fence) = get(row, 0)? {
        return owned(claim, fence, attempt()?, checkpoint()?).map(Some);
    }
    let Some(state) = get::<Option<i16>>(row, 1)? else {
        return Ok(None);
    };
    if state != CANCELLED && !get::<bool>(row, 2)? {
        return Ok(Some(Claimed::Mismatch));
    }
    Ok(Some(match state {
        IN_PROGRESS => match lease_left(row, 4)? {
            Duration::ZERO => Claimed::Unknown(Interrupted {
                attempt: attempt()?,
                checkpoint: checkpoint()?,
            }),
            lease_left => Claimed::InProgress { lease_left },
        },
        COMPLETED => Claimed::Completed {
            attempt: attempt()?,
            outcome: outcome(row, 6)?,
        },
        CANCELLED => Claimed::Cancelled,
        _ => return Err(corrupt()),
    }))
}

/// The transaction in which a key was claimed.
pub(in crate::idempotency) fn transaction_id(row: &Row) -> Result<i64, StorageError> {
    get(row, 7)
}

pub(super) fn cancellation(row: &Row) -> Result<Cancellation, StorageError> {
    Ok(match get::<i16>(row, 0)? {
        IN_PROGRESS => Cancellation::InProgress {
            lease_left: lease_left(row, 2)?,
        },
        COMPLETED => Cancellation::AlreadyDone(outcome(row, 4)?),
        CANCELLED => match interrupted(get(row, 1)?, bytes(row, 3)?)? {
            None => Cancellation::Cancelled,
            Some(interrupted) => Cancellation::CancelledUnknown(interrupted),
        },
        _ => return Err(corrupt()),
    })
}

pub(super) fn inspected(row: &Row) -> Result<(KeyId, Inspected), StorageError> {
    let id = KeyId::from_bytes(array(get(row, 0)?)?);
    let owner = || {
        Ok::<_, StorageError>(Owner {
            claim_id: ClaimId::from_bytes(array(get(row, 2)?)?),
            fence: unsigned(get(row, 3)?)?,
            attempt: attempt(get(row, 4)?)?,
            fingerprint: Fingerprint::from_bytes(array(get(row, 5)?)?),
        })
    };
    let record = match get::<i16>(row, 1)? {
        IN_PROGRESS => Record::InProgress {
            owner: owner()?,
            lease_until: time(get(row, 6)?)?,
            expires_at: get::<Option<i64>>(row, 7)?.map(time).transpose()?,
            checkpoint: bytes(row, 8)?,
            origin: Origin::from_text(get::<Option<&str>>(row, 11)?.unwrap_or_default()),
        },
        COMPLETED => Record::Completed {
            owner: owner()?,
            expires_at: time(get(row, 7)?)?,
            outcome: outcome(row, 9)?.0,
        },
        CANCELLED => Record::Cancelled {
            fence: unsigned(get(row, 3)?)?,
            interrupted: interrupted(get(row, 4)?, bytes(row, 8)?)?,
        },
        _ => return Err(corrupt()),
    };
    let now = time(get(row, 10)?)?;
    Ok((id, Inspected { record, now }))
}

pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, StorageError> {
    row.try_get(column).map_err(|_| corrupt())
}

fn bytes(row: &Row, column: usize) -> Result<Option<Bytes>, StorageError> {
    let bytes: Option<&[u8]> = get(row, column)?;
    Ok(bytes.map(Bytes::copy_from_slice))
}

fn outcome(row: &Row, column: usize) -> Result<Outcome, StorageError> {
    Ok(Outcome(bytes(row, column)?.ok_or_else(corrupt)?))
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StorageError> {
    bytes.try_into().map_err(|_| corrupt())
}

fn interrupted(last: Option<i64>, checkpoint: Option<Bytes>) -> Result<Option<Interrupted>, StorageError> {
    let Some(last) = last else { return Ok(None) };
    let attempt = attempt(last)?;
    Ok(Some(Interrupted { attempt, checkpoint }))
}

/// The column is wider than the number, which stays at its largest.
fn attempt(attempt: i64) -> Result<u32, StorageError> {
    Ok(u32::try_from(unsigned(attempt)?).unwrap_or(u32::MAX))
}

fn lease_left(row: &Row, column: usize) -> Result<Duration, StorageError> {
    let microseconds: i64 = get(row, column)?;
    Ok(Duration::from_micros(u64::try_from(microseconds).unwrap_or(0)))
}

fn time(microseconds: i64) -> Result<Duration, StorageError> {
    unsigned(microseconds).map(Duration::from_micros)
}

fn unsigned(number: i64) -> Result<u64, StorageError> {
    u64::try_from(number).map_err(|_| corrupt())
}

pub(super) fn corrupt() -> StorageError {
    let what = "a row of steadfast.idempotency is not as this version of the crate writes it";
    StorageError::new(StorageErrorKind::Corrupt, what)
}
