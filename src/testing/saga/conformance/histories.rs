//! Random histories beside the transitions of `Head`: every answer, and what stands there after it, has to agree.
//!
//! Times are none or hours: the clocks need not agree.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::bench::{Bench, Broken, Check, HOUR, ensure, fresh_definition, fresh_owner, new_saga, same};
use crate::random::{Random, unique};
use crate::saga::SagaId;
use crate::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Created, Entry, Head, Hold, Journal, NewSaga,
    OwnerId, Renewal, SagaStatus,
};
use std::sync::Arc;

const CLIENTS: usize = 3;
const STEPS: usize = 60;
const HISTORIES: u64 = 3;
const SEED: u64 = 0x5a6a;

pub(super) async fn random_histories_answer_as_the_head_does(bench: &Bench) -> Check {
    let mut tasks = JoinSet::new();
    for (n, journal) in (0..).zip(&bench.handles) {
        let journals = [journal.clone(), bench.journal.clone()];
        tasks.spawn(async move {
            for history in 0..HISTORIES {
                let stream = n * HISTORIES + history;
                let mut history = History::begin(journals.clone(), Random::stream(SEED, stream)).await?;
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

/// One saga, and who is at it.
struct History {
    journals: [Arc<dyn Journal>; 2],
    random: Random,
    new: NewSaga,
    head: Head,
    entries: Vec<(u64, Entry)>,
    now: Duration,
    /// The clients, and the epoch that each was last told.
    clients: Vec<(OwnerId, u64)>,
    /// What was appended last, or would have been.
    last: Option<Append>,
}

/// In hours, as the clocks differ by less than that.
fn left(at: Duration, now: Duration) -> Duration {
    Duration::from_secs((at.saturating_sub(now).as_secs() + 1800) / 3600)
}

/// What the head says, without the time at which it says so.
fn timeless(head: &Head, now: Duration) -> Head {
    Head {
        due: head.due.map(|due| left(due, now)),
        deadline: head.deadline.map(|deadline| left(deadline, now)),
        created: Duration::ZERO,
        changed: Duration::ZERO,
        ..head.clone()
    }
}

impl History {
    async fn begin(journals: [Arc<dyn Journal>; 2], mut random: Random) -> Result<Self, Broken> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| (fresh_owner(), 1)).collect();
        let driven = random.below(2) == 0;
        let deadlines = [None, Some(Duration::ZERO), Some(HOUR), Some(3 * HOUR)];
        let new = NewSaga {
            definition: fresh_definition(),
            lease: driven.then(|| (clients[0].0, HOUR)),
            deadline: deadlines[usize::try_from(random.below(4)).unwrap_or(0)],
            can_turn: random.below(4) > 0,
            ..new_saga()
        };
        same("create", &journals[0].create(&new).await?, &Created::New)?;
        let now = 1_000 * HOUR;
        let head = Head::of(&new, now);
        let entries = new.entries.iter().map(|entry| (head.epoch, entry.clone())).collect();
        Ok(Self {
            journals,
            random,
            new,
            head,
            entries,
            now,
            clients,
            last: None,
        })
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    fn time(&mut self) -> Duration {
        let hours = self.random.below(5).saturating_sub(1);
        HOUR * u32::try_from(hours).unwrap_or(0)
    }

    fn client(&mut self) -> usize {
        usize::try_from(self.random.below(3)).unwrap_or(0)
    }

    async fn step(&mut self) -> Check {
        self.now += Duration::from_millis(1);
        let journal = self.journals[usize::from(self.one_in(2))].clone();
        match self.random.below(32) {
            0..=11 => self.append(&*journal).await?,
            12..=17 => self.claim(&*journal).await?,
            18..=22 => self.claim_one(&*journal).await?,
            23..=25 => self.renew(&*journal).await?,
            26..=28 => self.release(&*journal).await?,
            29..=30 => {
                let got = journal.request_cancel(self.new.id).await?;
                let (head, expected): (_, CancelRequest) = self.head.request_cancel(self.now);
                self.head = head.unwrap_or_else(|| self.head.clone());
                same("request_cancel", &got, &expected)?;
            }
            _ => self.create(&*journal).await?,
        }
        self.compare().await
    }

    async fn create(&mut self, journal: &dyn Journal) -> Check {
        let mut new = self.new.clone();
        if self.one_in(2) {
            new.id = SagaId::from_bytes(unique());
        }
        if self.one_in(3) {
            new.input = [7; 32];
        }
        let timeless = |created: Created, now| match created {
            Created::Existing(head) => Created::Existing(Box::new(timeless(&head, now))),
            other => other,
        };
        let got = journal.create(&new).await?;
        let now = journal.load(self.new.id).await?.map(|loaded| loaded.now);
        let expected = timeless(self.head.meets(&new), self.now);
        same("create", &timeless(got, now.unwrap_or_default()), &expected)
    }

    async fn append(&mut self, journal: &dyn Journal) -> Check {
        let again = self.last.clone().filter(|_| self.one_in(4));
        let append = match again {
            Some(mut append) => {
                if self.one_in(4) {
                    append.entries[0].context = Some(Bytes::from_static(b"another"));
                }
                append
            }
            None => self.next(),
        };
        let got = journal.append(&append).await?;
        let cancel = self.head.cancel;
        let expected = if let Some(head) = self.head.append(&append, self.now) {
            self.head = head;
            let written = append.entries.iter().map(|entry| (append.epoch, entry.clone()));
            self.entries.extend(written);
            Appended::Written { cancel }
        } else if self.has(&append) {
            Appended::Written { cancel }
        } else {
            Appended::Fenced
        };
        self.last = Some(append);
        same("append", &got, &expected)
    }

    /// Whether it was carried out before.
    fn has(&self, append: &Append) -> bool {
        let from = usize::try_from(append.seq).unwrap_or(usize::MAX);
        let stored = self.entries.iter().skip(from).take(append.entries.len());
        stored.len() == append.entries.len()
            && stored
                .zip(&append.entries)
                .all(|((epoch, stored), entry)| *epoch == append.epoch && stored == entry)
    }

    fn next(&mut self) -> Append {
        let right = !self.one_in(5);
        let (epoch, seq) = if right {
            (self.head.epoch, self.head.seq)
        } else {
            (
                self.random.below(self.head.epoch + 2),
                self.random.below(self.head.seq + 2),
            )
        };
        let many = 1 + self.random.below(3);
        let entries = (0..many).map(|_| {
            let context = match self.random.below(3) {
                0 => None,
                1 => Some(Bytes::new()),
                _ => Some(Bytes::from_static(b"\0\xff")),
            };
            let event = Bytes::copy_from_slice(&self.random.below(u64::MAX).to_be_bytes());
            Entry { event, context }
        });
        let entries = entries.collect();
        let time = self.time();
        let rests = usize::try_from(self.random.below(6)).unwrap_or(0);
        // Rarely at rest, as little happens there.
        let status = SagaStatus::ALL[if self.one_in(4) { rests } else { rests % 2 }];
        let hold = match self.random.below(4) {
            0 => Hold::Park(time),
            1 if !status.is_active() => Hold::Rest,
            _ => Hold::Keep(time),
        };
        Append {
            id: self.new.id,
            epoch,
            seq,
            entries,
            status,
            can_turn: !self.one_in(3),
            progress: self.one_in(2),
            hold,
            error: self.one_in(3).then(|| format!("error {}", self.now.as_millis())),
        }
    }

    /// What is claimed agrees, and who has it is told its epoch.
    fn is_claim(&mut self, client: usize, lease: Duration, got: &Claimed) -> Check {
        let expected = self.head.claim(self.clients[client].0, lease, self.now);
        self.head = expected.head.clone();
        self.clients[client].1 = self.head.epoch;
        let facts = |claimed: &Claimed| {
            let left = claimed.deadline_in.map(|in_| left(in_, Duration::ZERO));
            (claimed.head.epoch, claimed.head.recoveries, claimed.parked, left)
        };
        same("what is claimed", &facts(got), &facts(&expected))
    }

    async fn claim(&mut self, journal: &dyn Journal) -> Check {
        let client = self.client();
        let mut query = ClaimQuery {
            owner: self.clients[client].0,
            lease: self.time(),
            definitions: vec![self.new.definition.clone()],
            limit: usize::from(!self.one_in(8)),
            suspects: usize::from(!self.one_in(3)),
        };
        if self.one_in(8) {
            query.definitions[0].version += 1;
        }
        let claimed = journal.claim(&query).await?;
        let allowed = query.limit > 0 && (query.suspects > 0 || !self.head.is_suspect());
        let expected = allowed && self.head.is_due(self.now) && self.head.fits(&query);
        same("how many are claimed", &claimed.len(), &usize::from(expected))?;
        claimed
            .iter()
            .try_for_each(|claimed| self.is_claim(client, query.lease, claimed))
    }

    async fn claim_one(&mut self, journal: &dyn Journal) -> Check {
        let (client, lease) = (self.client(), self.time());
        let got = journal.claim_one(self.new.id, self.clients[client].0, lease).await?;
        let held = self.head.is_held(self.now);
        match got {
            ClaimedOne::Claimed(claimed) if !held => self.is_claim(client, lease, &claimed),
            other => ensure(held && other == ClaimedOne::Busy, || {
                let expected = if held { "Busy" } else { "Claimed" };
                format!("claim_one: expected {expected}, got {other:?}")
            }),
        }
    }

    async fn renew(&mut self, journal: &dyn Journal) -> Check {
        let (client, lease) = (self.client(), self.time());
        let (owner, epoch) = self.clients[client];
        let stranger = Renewal {
            id: SagaId::from_bytes(unique()),
            held: false,
            cancel: false,
        };
        let asked = [(self.new.id, epoch), (stranger.id, 1)];
        let mut got = journal.renew(owner, lease, &asked).await?;
        let expected = self.head.renewal(owner, epoch);
        if let Some(head) = self.head.renew(owner, epoch, lease, self.now) {
            self.head = head;
        }
        got.sort_by_key(|renewal| renewal.id != expected.id);
        same("renew", &got, &vec![expected, stranger])
    }

    async fn release(&mut self, journal: &dyn Journal) -> Check {
        let client = self.client();
        let (owner, epoch) = self.clients[client];
        journal.release(owner, &[(self.new.id, epoch)]).await?;
        if let Some(head) = self.head.release(owner, epoch, self.now) {
            self.head = head;
        }
        Ok(())
    }

    async fn compare(&self) -> Check {
        let loaded = self.journals[1].load(self.new.id).await?;
        let loaded = loaded.ok_or_else(|| Broken::from("load: expected a saga, got none".to_owned()))?;
        let expected = timeless(&self.head, self.now);
        same("what stands there then", &timeless(&loaded.head, loaded.now), &expected)?;
        let entries: Vec<_> = loaded
            .entries
            .into_iter()
            .map(|stored| (stored.epoch, stored.entry))
            .collect();
        same("the events then", &entries, &self.entries)
    }
}
