//! What goes wrong, and when.

use std::collections::HashMap;
use std::future::pending;
use std::hash::Hash;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use tokio::time::sleep;

use crate::random::Random;
use crate::storage::{StorageError, StorageErrorKind};

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

/// How many calls there were so far, and what becomes of the next; `C` is which call it is.
pub(super) struct Plan<C> {
    calls: HashMap<C, u64>,
    /// The last one that fits counts.
    injected: Vec<Injected<C>>,
    random: Option<Chance>,
}

struct Injected<C> {
    call: C,
    from: Bound<u64>,
    to: Bound<u64>,
    fault: Fault,
}

struct Chance {
    random: Random,
    probability: f64,
    faults: Vec<Fault>,
}

impl<C: Copy + Eq + Hash> Plan<C> {
    pub(super) fn inject(&mut self, call: C, numbers: &impl RangeBounds<u64>, fault: Fault) {
        self.injected.push(Injected {
            call,
            from: numbers.start_bound().cloned(),
            to: numbers.end_bound().cloned(),
            fault,
        });
    }

    pub(super) fn inject_at_random(&mut self, seed: u64, probability: f64, faults: Vec<Fault>) {
        self.random = Some(Chance {
            random: Random::stream(seed, 0),
            probability,
            faults,
        });
    }

    pub(super) fn heal(&mut self) {
        self.injected.clear();
        self.random = None;
    }

    pub(super) fn calls(&self, call: C) -> u64 {
        self.calls.get(&call).copied().unwrap_or(0)
    }

    pub(super) fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    pub(super) fn next(&mut self, call: C) -> Option<Fault> {
        let number = self.calls.entry(call).or_insert(0);
        *number += 1;
        let fits = |injected: &&Injected<C>| injected.call == call && (injected.from, injected.to).contains(number);
        let planned = self.injected.iter().rev().find(fits).map(|injected| injected.fault);
        planned.or_else(|| self.random.as_mut()?.next())
    }
}

impl<C> Default for Plan<C> {
    fn default() -> Self {
        Self {
            calls: HashMap::new(),
            injected: Vec::new(),
            random: None,
        }
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

/// Carries a call out, with what goes wrong.
pub(super) async fn befall<A: Send + 'static>(
    fault: Option<Fault>,
    carry_out: impl Future<Output = Result<A, StorageError>> + Send + 'static,
) -> Result<A, StorageError> {
    match fault {
        None => carry_out.await,
        Some(Fault::RequestLost) => Err(lost("the request was lost")),
        Some(Fault::ReplyLost) => {
            carry_out.await?;
            Err(lost("the reply was lost"))
        }
        Some(Fault::Refused(kind)) => Err(StorageError::new(kind, "it was told to refuse")),
        Some(Fault::RequestDelayed(delay)) => {
            sleep(delay).await;
            carry_out.await
        }
        Some(Fault::RequestLate(delay)) => {
            tokio::spawn(async move {
                sleep(delay).await;
                carry_out.await
            });
            Err(lost("the request is late"))
        }
        Some(Fault::ReplyDelayed(delay)) => {
            let answer = carry_out.await;
            sleep(delay).await;
            answer
        }
        Some(Fault::RequestHangs) => pending().await,
        Some(Fault::ReplyHangs) => {
            carry_out.await?;
            pending().await
        }
    }
}

fn lost(what: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, what)
}
