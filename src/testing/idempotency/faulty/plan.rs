//! What goes wrong, and when.

use std::collections::HashMap;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use crate::random::Random;
use crate::storage::StorageErrorKind;

/// A call of a [`Store`](crate::idempotency::store::Store), by the name of its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named after its method")]
pub enum Call {
    Claim,
    Complete,
    Renew,
    Release,
    Interrupt,
    Cancel,
    Resolve,
    Forget,
    Inspect,
    ListInterrupted,
    CountInterrupted,
    Purge,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails as [`Unavailable`](StorageErrorKind::Unavailable), and was not carried out: the request was lost.
    RequestLost,
    /// It fails as [`Unavailable`](StorageErrorKind::Unavailable), and was carried out: the reply was lost.
    ReplyLost,
    /// It fails as this kind, and was not carried out.
    Refused(StorageErrorKind),
    /// It is carried out this much later, unless the caller has gone by then.
    RequestDelayed(Duration),
    /// It fails as [`Unavailable`](StorageErrorKind::Unavailable) at once, and is carried out this much later: after what
    /// was sent in the meantime.
    RequestLate(Duration),
    /// It is carried out, and answers this much later.
    ReplyDelayed(Duration),
    /// It never answers, and is not carried out.
    RequestHangs,
    /// It is carried out, and never answers.
    ReplyHangs,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) calls: HashMap<Call, u64>,
    /// The last one that fits counts.
    pub(super) plan: Vec<Injected>,
    pub(super) random: Option<Chance>,
}

pub(super) struct Injected {
    pub(super) call: Call,
    pub(super) from: Bound<u64>,
    pub(super) to: Bound<u64>,
    pub(super) fault: Fault,
}

pub(super) struct Chance {
    pub(super) random: Random,
    pub(super) probability: f64,
    pub(super) faults: Vec<Fault>,
}

impl State {
    pub(super) fn next(&mut self, call: Call) -> Option<Fault> {
        let number = self.calls.entry(call).or_insert(0);
        *number += 1;
        let fits = |injected: &&Injected| injected.call == call && (injected.from, injected.to).contains(number);
        let planned = self.plan.iter().rev().find(fits).map(|injected| injected.fault);
        planned.or_else(|| self.random.as_mut()?.next())
    }
}

impl Chance {
    fn next(&mut self) -> Option<Fault> {
        if self.random.unit() >= self.probability {
            return None;
        }
        let among = u64::try_from(self.faults.len()).ok().filter(|among| *among > 0)?;
        let drawn = usize::try_from(self.random.below(among)).ok()?;
        self.faults.get(drawn).copied()
    }
}
