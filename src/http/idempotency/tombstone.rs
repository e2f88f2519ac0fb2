//! What is left of a response that cannot be replayed.

use std::fmt;

use http::{HeaderMap, StatusCode};

use super::stored::Stored;
use crate::idempotency::Unreadable;

/// A request that was carried out, and whose response cannot be given again: it was too long, it was streamed, or what is
/// stored cannot be read.
#[derive(Clone)]
pub struct Tombstone {
    record: Unreadable,
    head: Option<(StatusCode, HeaderMap)>,
}

impl Tombstone {
    pub(super) fn new(record: Unreadable, stored: Option<Stored>) -> Self {
        let head = stored.map(|stored| (stored.status, stored.headers));
        Self { record, head }
    }

    /// The attempt that carried it out.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.record.attempt()
    }

    /// The key that it sent along, or stored its result under, as
    /// [`Attempt::derived_key`](crate::idempotency::Attempt::derived_key) made it.
    #[must_use]
    pub fn derived_key(&self, label: &str) -> String {
        self.record.derived_key(label)
    }

    /// The status of the response; `None` where what is stored cannot be read.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.head.as_ref().map(|(status, _)| *status)
    }

    /// The headers of the response, but for those that no replay has; `None` where what is stored cannot be read. There
    /// are none where they were too long to be stored.
    #[must_use]
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.head.as_ref().map(|(_, headers)| headers)
    }
}

impl fmt::Debug for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tombstone")
            .field("record", &self.record)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
