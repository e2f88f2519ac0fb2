//! An append as the statements take it.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::super::{Append, Hold};
use super::{columns, count, row, signed};
use crate::storage::postgres::{Param, microseconds};

pub(super) struct Values<'a> {
    id: &'a [u8],
    epoch: i64,
    seq: i64,
    count: i64,
    status: i16,
    hold: i16,
    time: i64,
    error: Option<&'a [u8]>,
    events: Vec<&'a [u8]>,
    contexts: Vec<Option<&'a [u8]>>,
}

impl<'a> Values<'a> {
    pub(super) fn of(append: &'a Append) -> Self {
        let (events, contexts) = columns(&append.entries);
        let (hold, time) = match append.hold {
            Hold::Keep(lease) => (1, lease),
            Hold::Park(delay) => (2, delay),
            Hold::Rest => (3, Duration::ZERO),
        };
        Self {
            id: append.id.as_bytes(),
            epoch: signed(append.epoch),
            seq: signed(append.seq),
            count: count(append.entries.len()),
            status: row::status_number(append.status),
            hold,
            time: microseconds(time),
            error: append.error.as_deref().map(str::as_bytes),
            events,
            contexts,
        }
    }

    pub(super) fn params(&'a self, append: &'a Append) -> [Param<'a>; 12] {
        [
            (&self.id, Type::BYTEA),
            (&self.epoch, Type::INT8),
            (&self.seq, Type::INT8),
            (&self.count, Type::INT8),
            (&self.status, Type::INT2),
            (&append.can_turn, Type::BOOL),
            (&append.progress, Type::BOOL),
            (&self.hold, Type::INT2),
            (&self.time, Type::INT8),
            (&self.error, Type::BYTEA),
            (&self.events, Type::BYTEA_ARRAY),
            (&self.contexts, Type::BYTEA_ARRAY),
        ]
    }
}
