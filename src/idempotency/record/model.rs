//! Every interleaving of three clients on one key, to seven steps, against what must hold after each of them; and the
//! same with a defect in one transition, which has to be found.

mod defects;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::super::fingerprint::Fingerprint;
use super::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Mode, Origin, Outcome, Owner, Record, Renewed, Resolution,
    Resolved, Step, Write,
};

const STEPS: usize = 7;
const CLIENTS: usize = 3;
const TICK: Duration = Duration::from_secs(1);
/// Of outcomes and of interrupted records, so that a record is interrupted for a while before it expires.
const RETENTION: Duration = Duration::from_secs(2);

/// The transitions under test: the real ones, or all but one of them.
#[derive(Clone, Copy)]
struct Machine {
    claim: fn(Option<&Record>, &Claim, Duration, u64) -> Step<Claimed>,
    complete: fn(Option<&Record>, &Owner, &Bytes, Duration, Duration) -> Step<Completed>,
    renew: fn(Option<&Record>, &Owner, Duration) -> Step<Renewed>,
    release: fn(Option<&Record>, &Owner, Duration) -> Step<Ended>,
    interrupt: fn(Option<&Record>, &Owner, Duration) -> Step<Ended>,
    cancel: fn(Option<&Record>, Duration) -> Step<Cancellation>,
    resolve: fn(Option<&Record>, &Resolution, Duration) -> Step<Resolved>,
    may_purge: fn(&Record, Duration) -> bool,
}

const REAL: Machine = Machine {
    claim: Record::claim,
    complete: Record::complete,
    renew: |record, owner, now| Record::renew(record, owner, TICK, None, now),
    release: Record::release,
    interrupt: Record::interrupt,
    cancel: Record::cancel,
    resolve: Record::resolve,
    may_purge: |record, now| Record::live(Some(record), now).is_none(),
};

#[derive(Clone, Copy)]
struct Scenario {
    machine: Machine,
    mode: Mode,
    /// The last client asks for something else under the same key.
    mismatch: bool,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// A new call, or the same request once more while there is no end to it.
    Claim(usize),
    /// The same, and the client does not hear the answer.
    ClaimUnheard(usize),
    /// A second copy of the request arrives when the client has finished.
    ClaimAgain(usize),
    Renew(usize),
    Complete(usize),
    Release(usize),
    Interrupt(usize),
    /// The process dies; the next call is another one.
    Crash(usize),
    Tick,
    Purge,
    Cancel,
    Resolve,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Phase {
    #[default]
    Idle,
    Running,
    Released,
    Ended,
}

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Client {
    call: u8,
    phase: Phase,
    owner: Option<Owner>,
    /// Until when it holds the lease, as far as it knows.
    holds_until: Duration,
}

/// The record, the clients, and what has been promised to them.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct World {
    now: Duration,
    record: Option<Record>,
    clients: [Client; CLIENTS],
    last_fence: u64,
    /// The outcome that was acknowledged, and until when it has to be there.
    promised: Option<(Bytes, Duration)>,
    /// Of every fence, the outcome that its owner stored.
    by_fence: Vec<(u64, Bytes)>,
    /// The claim whose operation may have had its effect, without an outcome that has expired since.
    unsettled: Option<ClaimId>,
    cancelled: bool,
}

fn claim_id(client: usize, call: u8) -> ClaimId {
    let mut bytes = [0; 16];
    bytes[0] = u8::try_from(client).expect("there are three") + 1;
    bytes[1] = call;
    ClaimId::from_bytes(bytes)
}

fn outcome_of(owner: &Owner) -> Bytes {
    Bytes::copy_from_slice(owner.claim_id.as_bytes())
}

fn ensure(holds: bool, broken: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(broken) }
}

impl World {
    fn write(&mut self, write: Write) {
        match write {
            Write::Keep => {}
            Write::Put(record) => self.record = Some(record),
            Write::Delete => self.record = None,
        }
    }

    fn live(&self) -> Option<&Record> {
        Record::live(self.record.as_ref(), self.now)
    }

    fn request(&self, scenario: &Scenario, client: usize) -> Claim {
        let other = scenario.mismatch && client == CLIENTS - 1;
        Claim {
            claim_id: claim_id(client, self.clients[client].call),
            fingerprint: Fingerprint::from_bytes([u8::from(other); Fingerprint::LEN]),
            mode: scenario.mode,
            lease: TICK,
            origin: Origin::from_text(""),
        }
    }

    /// `None` for what the client would not do; an error for what must never be.
    fn step(&self, scenario: &Scenario, action: Action) -> Option<Result<Self, &'static str>> {
        let mut next = self.clone();
        Some(next.apply(scenario, action)?.and_then(|()| {
            next.check(scenario)?;
            Ok(next)
        }))
    }

    fn apply(&mut self, scenario: &Scenario, action: Action) -> Option<Result<(), &'static str>> {
        let machine = scenario.machine;
        match action {
            Action::Claim(at) | Action::ClaimUnheard(at) => {
                let client = &mut self.clients[at];
                if matches!(client.phase, Phase::Released | Phase::Ended) {
                    client.call += 1;
                    client.phase = Phase::Idle;
                    client.owner = None;
                }
                Some(self.claim(scenario, at, matches!(action, Action::Claim(_))))
            }
            Action::ClaimAgain(at) => {
                let finished = matches!(self.clients[at].phase, Phase::Released | Phase::Ended);
                finished.then(|| self.claim(scenario, at, false))
            }
            Action::Renew(at) => {
                let owner = self.clients[at].owner?;
                let Step { answer, write } = (machine.renew)(self.record.as_ref(), &owner, self.now);
                self.write(write);
                let running = self.clients[at].phase == Phase::Running;
                self.clients[at].holds_until = match answer {
                    Renewed::Renewed if running => self.now + TICK,
                    _ => Duration::ZERO,
                };
                Some(Ok(()))
            }
            Action::Complete(at) => (self.clients[at].phase != Phase::Released)
                .then_some(self.clients[at].owner)?
                .map(|owner| self.complete(scenario, at, &owner)),
            Action::Release(at) => (self.clients[at].phase == Phase::Running)
                .then_some(self.clients[at].owner)?
                .map(|owner| self.release(scenario, at, &owner)),
            Action::Interrupt(at) => {
                let owner = self.clients[at].owner?;
                let Step { write, .. } = (machine.interrupt)(self.record.as_ref(), &owner, self.now);
                self.write(write);
                self.end(at, Phase::Ended);
                Some(Ok(()))
            }
            Action::Crash(at) => {
                let call = self.clients[at].call + 1;
                let fresh = Client {
                    call,
                    ..Client::default()
                };
                self.clients[at] = fresh;
                Some(Ok(()))
            }
            Action::Tick => {
                self.now += TICK;
                if self.promised.as_ref().is_some_and(|(_, until)| self.now >= *until) {
                    self.promised = None;
                    self.unsettled = None;
                }
                Some(Ok(()))
            }
            Action::Purge => {
                let now = self.now;
                let purged = self.record.take_if(|record| (machine.may_purge)(record, now));
                purged.map(|_| Ok(()))
            }
            Action::Cancel => Some(self.cancel(scenario)),
            Action::Resolve => Some(self.resolve(scenario)),
        }
    }

    fn claim(&mut self, scenario: &Scenario, at: usize, heard: bool) -> Result<(), &'static str> {
        let claim = self.request(scenario, at);
        let fence = self.last_fence + 1;
        let before = self.live().cloned();
        let Step { answer, write } = (scenario.machine.claim)(self.record.as_ref(), &claim, self.now, fence);
        self.write(write);
        match answer {
            Claimed::Owned { owner, .. } => {
                ensure(!self.cancelled, "a cancelled key was claimed")?;
                ensure(owner.claim_id == claim.claim_id, "a claim is of somebody else")?;
                let repeated = match &before {
                    Some(Record::InProgress { owner, .. }) => owner.claim_id == claim.claim_id,
                    _ => false,
                };
                if repeated {
                    ensure(
                        owner.fence <= self.last_fence,
                        "a claim that was repeated got another fence",
                    )?;
                } else {
                    ensure(owner.fence > self.last_fence, "a fence did not grow")?;
                    let again = self.unsettled.is_some_and(|claimed| claimed != claim.claim_id);
                    let once = scenario.mode == Mode::AtMostOnce;
                    ensure(!(once && again), "an operation was run twice")?;
                }
                self.last_fence = self.last_fence.max(owner.fence);
                if heard {
                    self.unsettled = Some(claim.claim_id);
                    let holds_until = self.now + TICK;
                    let client = &mut self.clients[at];
                    client.phase = Phase::Running;
                    client.owner = Some(owner);
                    client.holds_until = holds_until;
                }
            }
            Claimed::Completed {
                outcome: Outcome(outcome),
                ..
            } => {
                let promised = self.promised.as_ref().is_some_and(|(promised, _)| *promised == outcome);
                ensure(promised, "another outcome than the stored one was replayed")?;
            }
            Claimed::InProgress { lease_left } => {
                ensure(!lease_left.is_zero() && lease_left <= TICK, "a lease has a wrong rest")?;
            }
            Claimed::Mismatch => ensure(scenario.mismatch, "the same request was a mismatch")?,
            Claimed::Unknown(_) => ensure(scenario.mode == Mode::AtMostOnce, "what may run again was refused")?,
            Claimed::Cancelled => ensure(self.cancelled, "a key that nobody cancelled was refused")?,
        }
        Ok(())
    }

    fn complete(&mut self, scenario: &Scenario, at: usize, owner: &Owner) -> Result<(), &'static str> {
        let outcome = outcome_of(owner);
        let overtaken = match self.live() {
            None => false,
            Some(Record::InProgress { owner: held, .. }) => held.claim_id != owner.claim_id,
            Some(_) => true,
        };
        let record = self.record.as_ref();
        let Step { answer, write } = (scenario.machine.complete)(record, owner, &outcome, RETENTION, self.now);
        self.write(write);
        self.end(at, Phase::Ended);
        match answer {
            Completed::Applied => {
                ensure(!self.cancelled, "a cancelled key was completed")?;
                ensure(self.promised.is_none(), "a stored outcome was overwritten")?;
                let held = self.clients.iter().any(|client| client.holds_until > self.now);
                ensure(!held, "a key was completed that somebody else holds")?;
                let other = |(fence, stored): &(u64, Bytes)| *fence == owner.fence && *stored != outcome;
                ensure(
                    !self.by_fence.iter().any(other),
                    "two outcomes were stored under one fence",
                )?;
                if !self.by_fence.contains(&(owner.fence, outcome.clone())) {
                    self.by_fence.push((owner.fence, outcome.clone()));
                }
                self.promised = Some((outcome, self.now + RETENTION));
            }
            Completed::AlreadyApplied => {
                let own = self.promised.as_ref().is_some_and(|(promised, _)| *promised == outcome);
                ensure(own, "another outcome was taken for one's own")?;
            }
            Completed::Lost => ensure(overtaken, "an outcome was lost that nobody had overtaken")?,
        }
        Ok(())
    }

    fn release(&mut self, scenario: &Scenario, at: usize, owner: &Owner) -> Result<(), &'static str> {
        let attempt = match self.live() {
            Some(Record::InProgress { owner: held, .. }) if held.claim_id == owner.claim_id => held.attempt,
            _ => 0,
        };
        let Step { answer, write } = (scenario.machine.release)(self.record.as_ref(), owner, self.now);
        self.write(write);
        self.end(at, Phase::Released);
        if attempt > 1 {
            ensure(answer == Ended::Interrupted, "a release forgot an earlier attempt")?;
            ensure(self.record.is_some(), "a release removed an earlier attempt")?;
        } else if self.unsettled == Some(owner.claim_id) {
            self.unsettled = None;
        }
        Ok(())
    }

    fn cancel(&mut self, scenario: &Scenario) -> Result<(), &'static str> {
        let Step { answer, write } = (scenario.machine.cancel)(self.record.as_ref(), self.now);
        self.write(write);
        match answer {
            Cancellation::Cancelled | Cancellation::CancelledUnknown(_) => {
                ensure(self.promised.is_none(), "a completed operation was cancelled")?;
                let held = self.clients.iter().any(|client| client.holds_until > self.now);
                ensure(!held, "an operation that somebody is at was cancelled")?;
                let unknown = matches!(answer, Cancellation::CancelledUnknown(_));
                let once = scenario.mode == Mode::AtMostOnce;
                ensure(
                    !once || unknown || self.cancelled || self.unsettled.is_none(),
                    "what may have been done was said to be undone",
                )?;
                self.cancelled = true;
            }
            Cancellation::AlreadyDone(Outcome(outcome)) => {
                let promised = self.promised.as_ref().is_some_and(|(promised, _)| *promised == outcome);
                ensure(promised, "what was not done was said to be")?;
            }
            Cancellation::InProgress { .. } => {}
        }
        Ok(())
    }

    fn resolve(&mut self, scenario: &Scenario) -> Result<(), &'static str> {
        let outcome = Bytes::from_static(b"found");
        let resolution = Resolution::Completed {
            outcome: outcome.clone(),
            retention: RETENTION,
        };
        let Step { answer, write } = (scenario.machine.resolve)(self.record.as_ref(), &resolution, self.now);
        self.write(write);
        if answer == Resolved::Resolved {
            let held = self.clients.iter().any(|client| client.holds_until > self.now);
            ensure(!held, "an operation that somebody is at was resolved")?;
            ensure(self.promised.is_none(), "a stored outcome was resolved")?;
            self.promised = Some((outcome, self.now + RETENTION));
        }
        Ok(())
    }

    /// The client does not count on its lease any more.
    fn end(&mut self, at: usize, phase: Phase) {
        self.clients[at].phase = phase;
        self.clients[at].holds_until = Duration::ZERO;
    }

    fn check(&self, scenario: &Scenario) -> Result<(), &'static str> {
        let holders = self.clients.iter().filter(|client| client.holds_until > self.now);
        ensure(holders.count() <= 1, "two clients hold the key")?;
        if let Some((promised, _)) = &self.promised {
            let kept = matches!(self.live(), Some(Record::Completed { outcome, .. }) if outcome == promised);
            ensure(kept, "a stored outcome was lost")?;
        }
        if self.cancelled {
            let closed = matches!(self.record, Some(Record::Cancelled { .. }));
            ensure(closed, "a cancelled key is open")?;
        }
        if self.record.is_some() && self.live().is_none() {
            self.answers_as_purged(scenario)?;
        }
        Ok(())
    }

    /// An expired record answers as none.
    fn answers_as_purged(&self, scenario: &Scenario) -> Result<(), &'static str> {
        let machine = scenario.machine;
        let [record, none] = [self.record.as_ref(), None];
        let claim = self.request(scenario, 0);
        let owner = Owner {
            claim_id: claim.claim_id,
            fence: self.last_fence,
            attempt: 1,
            fingerprint: claim.fingerprint,
        };
        let outcome = outcome_of(&owner);
        let now = self.now;
        let claimed = |record| (machine.claim)(record, &claim, now, self.last_fence + 1);
        let completed = |record| (machine.complete)(record, &owner, &outcome, RETENTION, now);
        let renewed = |record| (machine.renew)(record, &owner, now);
        let same = claimed(record) == claimed(none)
            && completed(record) == completed(none)
            && renewed(record) == renewed(none)
            && (machine.release)(record, &owner, now) == (machine.release)(none, &owner, now)
            && (machine.interrupt)(record, &owner, now) == (machine.interrupt)(none, &owner, now)
            && (machine.cancel)(record, now).answer == (machine.cancel)(none, now).answer;
        ensure(same, "an expired record answers other than none")
    }
}

fn actions() -> Vec<Action> {
    let mut all = vec![Action::Tick, Action::Purge, Action::Cancel, Action::Resolve];
    for at in 0..CLIENTS {
        all.extend([
            Action::Claim(at),
            Action::ClaimUnheard(at),
            Action::ClaimAgain(at),
            Action::Renew(at),
            Action::Complete(at),
            Action::Release(at),
            Action::Interrupt(at),
            Action::Crash(at),
        ]);
    }
    all
}

/// How many steps were taken, or how it came to what must never be.
fn explore(scenario: &Scenario, steps: usize) -> Result<usize, String> {
    let actions = actions();
    let mut seen = HashSet::from([World::default()]);
    let mut front = vec![(World::default(), Vec::new())];
    let mut taken = 0;
    for _ in 0..steps {
        let mut reached = Vec::new();
        for (world, path) in &front {
            for action in &actions {
                let Some(next) = world.step(scenario, *action) else {
                    continue;
                };
                taken += 1;
                let mut path = path.clone();
                path.push(*action);
                let next = next.map_err(|broken| format!("{broken}, after {path:?}"))?;
                if seen.insert(next.clone()) {
                    reached.push((next, path));
                }
            }
        }
        front = reached;
    }
    println!("figure: states of idempotency records visited: {}", seen.len());
    println!("figure: idempotency record, steps: {taken}");
    Ok(taken)
}

const AT_LEAST_ONCE: Mode = Mode::AtLeastOnce { retention: RETENTION };

const fn real(mode: Mode, mismatch: bool) -> Scenario {
    Scenario {
        machine: REAL,
        mode,
        mismatch,
    }
}

fn holds(scenario: &Scenario) {
    let taken = explore(scenario, STEPS).expect("no step breaks a promise");
    assert!(taken > 100_000, "{taken} steps are too few to have been all");
}

#[test]
fn nothing_is_broken_at_least_once() {
    holds(&real(AT_LEAST_ONCE, false));
}

#[test]
fn nothing_is_broken_at_most_once() {
    holds(&real(Mode::AtMostOnce, false));
}

#[test]
fn nothing_is_broken_while_another_request_comes_under_the_same_key() {
    holds(&real(AT_LEAST_ONCE, true));
}

#[test]
fn every_seeded_defect_is_found() {
    let least = defects::defects().into_iter().map(|defect| (AT_LEAST_ONCE, defect));
    let most = defects::defects_at_most_once()
        .into_iter()
        .map(|defect| (Mode::AtMostOnce, defect));
    let mut found = 0;
    for (mode, (defect, machine, shows_as)) in least.chain(most) {
        let scenario = Scenario {
            machine,
            mode,
            mismatch: false,
        };
        let path = explore(&scenario, STEPS).expect_err(defect);
        assert!(path.starts_with(shows_as), "{defect}: {path}");
        found += 1;
    }
    println!("figure: idempotency record, seeded defects caught: {found}");
}
