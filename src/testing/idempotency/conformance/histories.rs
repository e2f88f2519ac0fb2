//! Random histories beside the transitions of `Record`: every answer, and what stands there after it, has to agree.
//!
//! Leases are over at once or in an hour, and so is what is kept: the clocks need not agree.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bench::{Bench, Broken, Check, HOUR, claim, ensure, fresh_id, request, same};
use crate::KeyId;
use crate::idempotency::store::{
    Cancellation, Claim, Claimed, Mode, Origin, Owner, Record, Resolution, SharedStore, Step, Store, Write,
};
use crate::random::Random;

const CLIENTS: usize = 3;
const STEPS: usize = 60;
const HISTORIES: u64 = 3;
const SEED: u64 = 0x5eed;

pub(super) async fn random_histories_answer_as_the_record_does(bench: &Bench) -> Check {
    let mut tasks = JoinSet::new();
    for (n, store) in (0..).zip(&bench.handles) {
        let stores = [store.clone(), bench.store.clone()];
        tasks.spawn(async move {
            for history in 0..HISTORIES {
                let stream = n * HISTORIES + history;
                let mut history = History::new(stores.clone(), Random::stream(SEED, stream));
                for step in 0..STEPS {
                    let done = history.step().await;
                    done.map_err(|broken| Broken::from(format!("history {stream}, step {step}: {broken}")))?;
                }
            }
            Ok::<(), Broken>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// One key, and who is at it.
struct History {
    stores: [SharedStore; 2],
    random: Random,
    id: KeyId,
    model: Option<Record>,
    now: Duration,
    last_fence: u64,
    clients: Vec<(Claim, Option<Owner>)>,
}

/// Whoever claims says who it is, in whatever language.
const ORIGINS: [&str; 2] = ["http:payments", "call:Zahlungen für '\"\\"];

/// In hours, as the clocks differ by less than that.
fn rounded(left: Duration) -> Duration {
    Duration::from_secs(left.as_secs().saturating_add(1800) / 3600 * 3600)
}

/// What the record says, without the time at which it says so.
fn timeless(record: &Record, now: Duration) -> Record {
    let left = |at: Duration| rounded(at.saturating_sub(now));
    let mut record = record.clone();
    match &mut record {
        Record::InProgress {
            lease_until,
            expires_at,
            ..
        } => {
            *lease_until = left(*lease_until);
            *expires_at = expires_at.map(left);
        }
        Record::Completed { expires_at, .. } => *expires_at = left(*expires_at),
        // 0 where the record that had it was purged.
        Record::Cancelled { fence, .. } => *fence = 0,
    }
    record
}

fn timeless_claimed(answer: Claimed) -> Claimed {
    match answer {
        Claimed::InProgress { lease_left } => Claimed::InProgress {
            lease_left: rounded(lease_left),
        },
        answer => answer,
    }
}

fn timeless_cancellation(answer: Cancellation) -> Cancellation {
    match answer {
        Cancellation::InProgress { lease_left } => Cancellation::InProgress {
            lease_left: rounded(lease_left),
        },
        answer => answer,
    }
}

impl History {
    fn new(stores: [SharedStore; 2], random: Random) -> Self {
        Self {
            stores,
            random,
            id: fresh_id(),
            model: None,
            now: HOUR,
            last_fence: 0,
            clients: vec![(claim(), None); CLIENTS],
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    /// At once, or in an hour, as what is kept is the more interesting.
    fn kept(&mut self) -> Duration {
        if self.one_in(4) { Duration::ZERO } else { HOUR }
    }

    /// At once or in an hour.
    fn time(&mut self) -> Duration {
        if self.one_in(2) { Duration::ZERO } else { HOUR }
    }

    fn value(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.random.below(u64::MAX).to_be_bytes())
    }

    fn write<A>(&mut self, step: Step<A>) -> A {
        match step.write {
            Write::Keep => {}
            Write::Put(record) => self.model = Some(record),
            Write::Delete => self.model = None,
        }
        step.answer
    }

    async fn step(&mut self) -> Check {
        self.now += Duration::from_millis(1);
        let store = self.stores[usize::from(self.one_in(2))].clone();
        let client = (0..CLIENTS).find(|_| self.one_in(2)).unwrap_or(0);
        let owner = self.owner(client);
        // Closed keys are opened again soon, as they answer everything alike.
        let closed = matches!(self.model, Some(Record::Cancelled { .. })) && self.one_in(3);
        let drawn = if closed { 30 } else { self.random.below(33) };
        match drawn {
            0..=12 => self.claim(&store, client).await?,
            13..=16 => {
                let (outcome, retention) = (self.value(), self.time());
                let got = store.complete(self.id, &owner, &outcome, retention).await?;
                let step = Record::complete(self.model.as_ref(), &owner, &outcome, retention, self.now);
                agree("complete", &got, &self.write(step))?;
            }
            17..=19 => {
                let lease = self.time();
                let note = if self.one_in(2) { Some(self.value()) } else { None };
                let got = store.renew(self.id, &owner, lease, note.as_ref()).await?;
                let step = Record::renew(self.model.as_ref(), &owner, lease, note.as_ref(), self.now);
                agree("renew", &got, &self.write(step))?;
            }
            20..=23 => {
                let got = store.release(self.id, &owner).await?;
                let step = Record::release(self.model.as_ref(), &owner, self.now);
                agree("release", &got, &self.write(step))?;
            }
            24..=26 => {
                let got = store.interrupt(self.id, &owner).await?;
                let step = Record::interrupt(self.model.as_ref(), &owner, self.now);
                agree("interrupt", &got, &self.write(step))?;
            }
            27 => {
                let got = store.cancel(self.id).await?;
                let step = Record::cancel(self.model.as_ref(), self.now);
                let expected = timeless_cancellation(self.write(step));
                agree("cancel", &timeless_cancellation(got), &expected)?;
            }
            28..=29 => {
                let (outcome, retention) = (self.value(), self.time());
                let resolution = match self.random.below(3) {
                    0 => Resolution::NotExecuted,
                    1 => Resolution::Completed { outcome, retention },
                    _ => Resolution::Corrected { outcome, retention },
                };
                let got = store.resolve(self.id, &resolution).await?;
                let step = Record::resolve(self.model.as_ref(), &resolution, self.now);
                agree("resolve", &got, &self.write(step))?;
            }
            30..=31 => {
                let got = store.forget(self.id).await?;
                let step = Record::forget(self.model.as_ref(), self.now);
                agree("forget", &got, &self.write(step))?;
            }
            _ => drop(store.purge(3).await?),
        }
        self.compare().await
    }

    /// As whom the client writes: what it was told, or all that it knows.
    fn owner(&self, client: usize) -> Owner {
        let (claim, told) = &self.clients[client];
        told.unwrap_or(Owner {
            claim_id: claim.claim_id,
            fence: 0,
            attempt: 1,
            fingerprint: claim.fingerprint,
        })
    }

    async fn claim(&mut self, store: &SharedStore, client: usize) -> Check {
        if self.one_in(2) {
            let mode = match self.random.below(5) {
                0 => Mode::AtMostOnce,
                _ => Mode::AtLeastOnce { retention: self.kept() },
            };
            let another = Claim {
                fingerprint: request(if self.one_in(6) { 2 } else { 1 }),
                mode,
                lease: self.time(),
                origin: Origin::from_text(ORIGINS[usize::from(self.one_in(2))]),
                ..claim()
            };
            self.clients[client] = (another, None);
        }
        let claim = self.clients[client].0.clone();
        let got = store.claim(self.id, &claim).await?;
        let held = match Record::live(self.model.as_ref(), self.now) {
            Some(Record::InProgress { owner, .. }) => Some(owner.claim_id),
            _ => None,
        };
        let mut fence = self.last_fence + 1;
        if let Claimed::Owned { owner, .. } = &got {
            self.clients[client].1 = Some(*owner);
            if held != Some(claim.claim_id) {
                fence = owner.fence;
                let last = self.last_fence;
                ensure(fence > last, || {
                    format!("claim: expected a fence beyond {last}, got {fence}")
                })?;
            }
            self.last_fence = self.last_fence.max(owner.fence);
        }
        let step = Record::claim(self.model.as_ref(), &claim, self.now, fence);
        let expected = timeless_claimed(self.write(step));
        agree("claim", &timeless_claimed(got), &expected)
    }

    async fn compare(&self) -> Check {
        let got = self.stores[1].inspect(self.id).await?;
        let got = got.map(|inspected| timeless(&inspected.record, inspected.now));
        let expected = Record::live(self.model.as_ref(), self.now).map(|record| timeless(record, self.now));
        same("what stands there then", &got, &expected)
    }
}

fn agree<A: PartialEq + Debug>(call: &str, got: &A, expected: &A) -> Check {
    same(call, got, expected)
}
