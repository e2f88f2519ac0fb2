//! What the scripts answer: arrays of strings, the first of which says what it is.

use std::time::Duration;
use std::vec::IntoIter;

use bytes::Bytes;
use redis::Value;

use super::super::super::fingerprint::Fingerprint;
use super::super::super::record::{ClaimId, Interrupted, Origin, Owner, Record};
use super::super::Inspected;
use crate::storage::{StorageError, StorageErrorKind};

pub(super) struct Reply(IntoIter<Value>);

pub(super) fn unreadable() -> StorageError {
    StorageError::new(StorageErrorKind::Corrupt, "a record in Redis cannot be read")
}

impl Reply {
    /// What it is, and the rest of it.
    pub(super) fn read(value: Value) -> Result<(Bytes, Self), StorageError> {
        let Value::Array(values) = value else {
            return Err(unreadable());
        };
        let mut reply = Self(values.into_iter());
        let answer = reply.bytes()?;
        Ok((answer, reply))
    }

    /// The next value, if it is not nil.
    pub(super) fn optional(&mut self) -> Result<Option<Bytes>, StorageError> {
        match self.0.next() {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Some(Value::Int(number)) => Ok(Some(number.to_string().into())),
            Some(_) => Err(unreadable()),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, StorageError> {
        self.optional()?.ok_or_else(unreadable)
    }

    pub(super) fn number(&mut self) -> Result<u64, StorageError> {
        parsed(&self.bytes()?)
    }

    pub(super) fn attempt(&mut self) -> Result<u32, StorageError> {
        u32::try_from(self.number()?).map_err(|_| unreadable())
    }

    pub(super) fn time(&mut self) -> Result<Duration, StorageError> {
        self.number().map(Duration::from_millis)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        self.bytes()?.as_ref().try_into().map_err(|_| unreadable())
    }

    pub(super) fn interrupted(&mut self) -> Result<Interrupted, StorageError> {
        Ok(Interrupted {
            attempt: self.attempt()?,
            checkpoint: self.optional()?,
        })
    }

    /// The rest of an inspection, whose first value was `state`.
    pub(super) fn found(self, state: &[u8]) -> Result<Option<Inspected>, StorageError> {
        if state == b"absent" {
            return Ok(None);
        }
        self.inspected(state).map(Some)
    }

    fn inspected(mut self, state: &[u8]) -> Result<Inspected, StorageError> {
        let now = self.time()?;
        let record = if state == b"x" {
            self.cancelled()?
        } else {
            let owner = Owner {
                claim_id: ClaimId::from_bytes(self.array()?),
                fence: self.number()?,
                attempt: self.attempt()?,
                fingerprint: Fingerprint::from_bytes(self.array()?),
            };
            let lease_until = self.optional()?;
            let expires_at = self.optional()?.map(|at| parsed(&at)).transpose()?;
            let expires_at = expires_at.map(Duration::from_millis);
            let (outcome, checkpoint, origin) = (self.optional()?, self.optional()?, self.optional()?);
            match state {
                b"p" => Record::InProgress {
                    owner,
                    lease_until: Duration::from_millis(parsed(&lease_until.ok_or_else(unreadable)?)?),
                    expires_at,
                    checkpoint,
                    origin: Origin::from_text(&String::from_utf8_lossy(&origin.unwrap_or_default())),
                },
                b"c" => Record::Completed {
                    owner,
                    expires_at: expires_at.ok_or_else(unreadable)?,
                    outcome: outcome.ok_or_else(unreadable)?,
                },
                _ => return Err(unreadable()),
            }
        };
        Ok(Inspected { record, now })
    }

    fn cancelled(&mut self) -> Result<Record, StorageError> {
        self.optional()?;
        let fence = self.number()?;
        let attempt = self.optional()?;
        // Fingerprint, lease, expiry and outcome, of which it has none.
        for _ in 0..4 {
            self.optional()?;
        }
        let checkpoint = self.optional()?;
        let interrupted = match attempt {
            None => None,
            Some(attempt) => Some(Interrupted {
                attempt: u32::try_from(parsed(&attempt)?).map_err(|_| unreadable())?,
                checkpoint,
            }),
        };
        Ok(Record::Cancelled { fence, interrupted })
    }
}

fn parsed(digits: &[u8]) -> Result<u64, StorageError> {
    let text = std::str::from_utf8(digits).map_err(|_| unreadable())?;
    text.parse().map_err(|_| unreadable())
}
