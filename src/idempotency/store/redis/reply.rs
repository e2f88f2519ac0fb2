//! What the scripts answer: a word, or an array that begins with one.

use std::time::Duration;
use std::vec::IntoIter;

use bytes::Bytes;
use redis::Value;

use super::super::super::record::Interrupted;
use super::super::Inspected;
use super::layout;
use crate::storage::{StorageError, StorageErrorKind};

pub(super) struct Reply(IntoIter<Value>);

pub(super) fn unreadable() -> StorageError {
    StorageError::new(StorageErrorKind::Corrupt, "a record in Redis cannot be read")
}

pub(super) fn foreign() -> StorageError {
    StorageError::new(
        StorageErrorKind::Corrupt,
        "a key of this store is no record: somebody else writes under its prefix",
    )
}

impl Reply {
    /// What it is, and the rest of it.
    pub(super) fn read(value: Value) -> Result<(Vec<u8>, Self), StorageError> {
        let (answer, rest) = match value {
            Value::BulkString(answer) => (answer, Vec::new().into_iter()),
            Value::Array(values) => {
                let mut values = values.into_iter();
                let Some(Value::BulkString(answer)) = values.next() else {
                    return Err(unreadable());
                };
                (answer, values)
            }
            _ => return Err(unreadable()),
        };
        if answer == b"foreign" {
            return Err(foreign());
        }
        Ok((answer, Self(rest)))
    }

    /// The next value, if it is not nil.
    pub(super) fn optional(&mut self) -> Result<Option<Bytes>, StorageError> {
        match self.0.next() {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Some(_) => Err(unreadable()),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, StorageError> {
        self.optional()?.ok_or_else(unreadable)
    }

    pub(super) fn number(&mut self) -> Result<u64, StorageError> {
        match self.0.next() {
            Some(Value::Int(number)) => u64::try_from(number).map_err(|_| unreadable()),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn attempt(&mut self) -> Result<u32, StorageError> {
        u32::try_from(self.number()?).map_err(|_| unreadable())
    }

    pub(super) fn time(&mut self) -> Result<Duration, StorageError> {
        self.number().map(Duration::from_millis)
    }

    pub(super) fn interrupted(&mut self) -> Result<Interrupted, StorageError> {
        Ok(Interrupted {
            attempt: self.attempt()?,
            checkpoint: self.optional()?,
        })
    }

    /// The rest of an inspection that answered so.
    pub(super) fn found(mut self, answer: &[u8]) -> Result<Option<Inspected>, StorageError> {
        match answer {
            b"absent" => Ok(None),
            b"found" => {
                let (now, header, behind) = (self.time()?, self.bytes()?, self.bytes()?);
                let record = layout::record(&header, behind).ok_or_else(unreadable)?;
                Ok(Some(Inspected { record, now }))
            }
            _ => Err(unreadable()),
        }
    }
}
