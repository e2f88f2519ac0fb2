//! Participants of sagas, simulated: they know requests by their keys, requests arrive late or not at all, and what was
//! undone is closed for ever. And sagas over them, drawn at random.

use std::collections::{BTreeSet, HashMap};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use steadfast::saga::{
    Cx, Event, Known, Obstacle, Reality, Saga, SagaBuilder, SagaError, SagaId, Step, StepError, StepKind, StepResult,
    WhenInterrupted, WhenUnknown,
};
use steadfast::{Backoff, Jitter};
use tokio::time::sleep;

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(parts: &[u64]) -> Self {
        let mut dice = Self(0x005a_6a5e_ed00);
        for part in parts {
            dice.0 ^= part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 ^= mixed >> 17;
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `0..limit`.
    pub(crate) fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    /// From 1 to `most`.
    fn times(&mut self, most: u32) -> u32 {
        1 + u32::try_from(self.below(most.into())).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    pub(crate) fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The steps that have succeeded.
    pub(crate) done: Vec<String>,
}

/// What the participants know of one request.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// The effect is there.
    live: bool,
    /// How often it came to be there.
    landings: u32,
    /// It can come to be there no more.
    closed: bool,
    runs: u64,
    undos: u64,
}

#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    accounts: HashMap<String, Account>,
    keys: HashMap<(SagaId, String), BTreeSet<String>>,
    wrong: Vec<String>,
}

impl World {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    pub(crate) fn blame(&self, what: String) {
        self.books().wrong.push(what);
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.books().wrong.clone()
    }

    fn land(&self, key: &str) -> StepResult {
        let mut books = self.books();
        let account = books.accounts.entry(key.to_owned()).or_default();
        if account.closed {
            return Err(StepError::failed("the request was called off"));
        }
        account.landings += u32::from(!account.live);
        account.live = true;
        Ok(())
    }

    fn close(&self, key: &str) {
        let mut books = self.books();
        let account = books.accounts.entry(key.to_owned()).or_default();
        account.live = false;
        account.closed = true;
    }

    fn account(&self, key: &str) -> Account {
        self.books().accounts.get(key).copied().unwrap_or_default()
    }

    fn of_step(&self, id: SagaId, step: &str) -> Account {
        let books = self.books();
        let keys = books.keys.get(&(id, step.to_owned()));
        let key = keys.and_then(BTreeSet::first);
        key.and_then(|key| books.accounts.get(key)).copied().unwrap_or_default()
    }

    /// A run of an action begins; the how-many-eth it is.
    fn begin(&self, cx: &Cx<Order, World>) -> u64 {
        let mut books = self.books();
        let of_step = books.keys.entry((cx.saga_id(), cx.step().to_owned())).or_default();
        of_step.insert(cx.idempotency_key());
        let account = books.accounts.entry(cx.idempotency_key()).or_default();
        account.runs += 1;
        account.runs
    }

    /// A run of an undo begins.
    fn begin_undo(&self, cx: &Cx<Order, World>) -> u64 {
        let mut books = self.books();
        let account = books.accounts.entry(cx.action_key()).or_default();
        account.undos += 1;
        let Account { landings, undos, .. } = *account;
        if cx.outcome() == Known::Completed && landings == 0 {
            let wrong = format!(
                "saga {}: `{}` has not succeeded, its undo heard",
                cx.saga_id(),
                cx.step()
            );
            books.wrong.push(wrong);
        }
        undos
    }
}

/// One step of a saga over the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    seed: u64,
    index: usize,
    kind: StepKind,
    /// It tells the truth about all runs under its key.
    truthful: bool,
    /// Its undo may fail.
    undo_fails: bool,
    /// How many runs in a hundred go wrong.
    trouble: u64,
}

/// What is known of a step beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) name: String,
    pub(crate) kind: StepKind,
    /// Its effect may stay although the saga turned back.
    pub(crate) may_stay: bool,
}

const TIMEOUT: Duration = Duration::from_secs(2);
/// Whatever is late has arrived by then.
pub(crate) const LATEST: Duration = Duration::from_secs(60);

impl Script {
    async fn act(self, cx: &mut Cx<Order, World>) -> StepResult {
        let world = cx.deps().clone();
        let (key, run) = (cx.idempotency_key(), world.begin(cx));
        let seen: Vec<_> = (0..self.index).map(name).collect();
        if cx.done != seen {
            world.blame(format!("saga {}: `{}` saw {:?}", cx.saga_id(), cx.step(), cx.done));
        }
        let mut dice = Dice::of(&[self.seed, self.index as u64, run]);
        let result = self.answer(&world, &key, &mut dice).await;
        cx.done.push(name(self.index));
        result
    }

    async fn answer(self, world: &World, key: &str, dice: &mut Dice) -> StepResult {
        if dice.one_in(3) {
            sleep(dice.millis(900)).await;
        }
        if dice.below(100) >= self.trouble {
            self.land(world, key)?;
            if dice.one_in(4) {
                sleep(dice.millis(900)).await;
            }
            return Ok(());
        }
        let landed = dice.one_in(2);
        match dice.below(9) {
            0 | 1 => return self.refuse(world, key),
            2 => return Err(StepError::not_sent("it could not be reached")),
            3 => {
                let (world, key) = (world.clone(), key.to_owned());
                let delay = if dice.one_in(2) {
                    dice.millis(3_000)
                } else {
                    dice.millis(40_000)
                };
                tokio::spawn(async move {
                    sleep(delay).await;
                    // Nobody hears the answer.
                    let _ = self.land(&world, &key);
                });
                return Err(StepError::unknown("the connection broke, and the request is late"));
            }
            _ if landed => self.land(world, key)?,
            _ => {}
        }
        match dice.below(4) {
            0 => sleep(2 * TIMEOUT).await,
            1 => resume_unwind(Box::new("a step that panics")),
            2 => return Err(StepError::fatal_unknown("nobody knows")),
            _ => {}
        }
        Err(StepError::unknown("the connection broke"))
    }

    fn land(self, world: &World, key: &str) -> StepResult {
        if self.kind == StepKind::ReadOnly {
            return Ok(());
        }
        world.land(key)
    }

    /// A clean no.
    fn refuse(self, world: &World, key: &str) -> StepResult {
        if self.truthful {
            if world.account(key).live {
                return Ok(());
            }
            world.close(key);
        }
        Err(StepError::failed("no"))
    }

    async fn undo(self, cx: &mut Cx<Order, World>) -> StepResult {
        let world = cx.deps().clone();
        let (key, run) = (cx.action_key(), world.begin_undo(cx));
        let mut dice = Dice::of(&[self.seed, self.index as u64, run, 1]);
        if dice.one_in(3) {
            sleep(dice.millis(900)).await;
        }
        let fails = if self.undo_fails { 2 } else { 6 };
        if !dice.one_in(fails) {
            world.close(&key);
            cx.done.retain(|done| *done != name(self.index));
            return Ok(());
        }
        if dice.one_in(2) {
            world.close(&key);
        }
        match dice.below(3) {
            0 => sleep(2 * TIMEOUT).await,
            1 => resume_unwind(Box::new("an undo that panics")),
            _ => {}
        }
        Err(StepError::unknown("the connection broke"))
    }

    fn look(self, cx: &mut Cx<Order, World>, how: u64) -> Result<Reality, StepError> {
        let world = cx.deps().clone();
        let account = world.account(&cx.action_key());
        if account.live {
            cx.done.push(name(self.index));
            return Ok(Reality::Done);
        }
        match how {
            0 => Ok(Reality::Unknown),
            1 => Ok(Reality::NotDone),
            2 => {
                world.close(&cx.action_key());
                Ok(Reality::Never)
            }
            _ => Err(StepError::not_sent("it does not answer")),
        }
    }
}

fn name(index: usize) -> String {
    format!("s{index}")
}

/// A saga, and what is known of it.
pub(crate) struct Drawn {
    pub(crate) saga: Saga<Order, World>,
    pub(crate) facts: Vec<Fact>,
}

/// A saga drawn at random.
pub(crate) fn draw(seed: u64, world: &World) -> Drawn {
    let mut dice = Dice::of(&[seed]);
    let steps = 1 + dice.index(6);
    let pivot = dice.one_in(2).then(|| dice.index(steps));
    let trouble = dice.pick(&[0, 10, 30, 30, 60]);
    let mut saga: SagaBuilder<Order, World> = Saga::builder_with(format!("random-{seed}"), world.clone());
    let mut facts = Vec::new();
    for index in 0..steps {
        let kind = match pivot {
            _ if dice.one_in(6) => StepKind::ReadOnly,
            Some(pivot) if index == pivot => StepKind::Pivot,
            Some(pivot) if index > pivot => StepKind::Retriable,
            _ => StepKind::Compensatable,
        };
        // Without its pivot the rest could not be retriable.
        let kind = if pivot == Some(index) { StepKind::Pivot } else { kind };
        let script = Script {
            seed,
            index,
            kind,
            truthful: dice.one_in(4),
            undo_fails: dice.one_in(8),
            trouble,
        };
        let (step, fact) = step(script, &mut dice);
        facts.push(fact);
        saga = saga.with(step);
    }
    if dice.one_in(4) {
        saga = saga.deadline(dice.millis(8_000));
    }
    if dice.one_in(8) {
        saga = saga.undo_budget(dice.millis(10_000));
    }
    if dice.one_in(3) {
        saga = saga.halt_on_undo_failure();
    }
    Drawn {
        saga: saga.build().unwrap(),
        facts,
    }
}

fn step(script: Script, dice: &mut Dice) -> (Step<Order, World>, Fact) {
    let action = async move |cx: &mut Cx<Order, World>| script.act(cx).await;
    let undo = async move |cx: &mut Cx<Order, World>| script.undo(cx).await;
    let name = name(script.index);
    let mut may_stay = false;
    let mut step = match script.kind {
        StepKind::ReadOnly => Step::read_only(name.clone(), action),
        StepKind::Pivot => Step::pivot(name.clone(), action),
        StepKind::Retriable => Step::retriable(name.clone(), action),
        StepKind::Compensatable if dice.one_in(6) => {
            may_stay = true;
            Step::without_undo(name.clone(), action)
        }
        StepKind::Compensatable => Step::compensatable(name.clone(), action, undo),
    };
    let hook = dice.one_in(3);
    if hook {
        let how = dice.below(4);
        step = step.reconcile(async move |cx: &mut Cx<Order, World>| script.look(cx, how));
    }
    if script.truthful {
        step = step.answers_by_key();
    }
    let back = |dice: &mut Dice| match dice.below(4) {
        0 => Backoff::constant(dice.millis(3_000)),
        1 => Backoff::constant(Duration::ZERO),
        // Not jittered: the same for the same seed.
        _ => Backoff::exponential(Duration::from_millis(100)).jitter(Jitter::None),
    };
    step = step
        .attempts(dice.times(4))
        .undo_attempts(dice.times(4))
        .timeout(TIMEOUT)
        .undo_timeout(TIMEOUT)
        .backoff(back(dice))
        .undo_backoff(back(dice));
    if dice.one_in(8) {
        step = step.key_valid_for(dice.millis(10_000));
    }
    let turns = !matches!(script.kind, StepKind::Pivot | StepKind::Retriable);
    step = match dice.below(8) {
        0 if hook => step.when_interrupted(WhenInterrupted::Reconcile),
        1 if turns => step.when_interrupted(WhenInterrupted::TurnBack),
        2 => step.when_interrupted(WhenInterrupted::Stick),
        _ => step,
    };
    step = match dice.below(8) {
        0 => {
            may_stay = true;
            step.when_unknown(WhenUnknown::Skip)
        }
        1 => step.when_unknown(WhenUnknown::Stick),
        _ => step,
    };
    let fact = Fact {
        name,
        kind: script.kind,
        may_stay,
    };
    (step, fact)
}

/// How a saga ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Completed(Order),
    Compensated,
    Stuck(Option<Obstacle>, Vec<String>),
    Other(String),
}

impl End {
    pub(crate) fn of(result: &Result<Order, SagaError>) -> Self {
        match result {
            Ok(order) => Self::Completed(order.clone()),
            Err(SagaError::Compensated(_)) => Self::Compensated,
            Err(SagaError::Stuck(report)) => Self::Stuck(report.obstacle, report.unresolved.clone()),
            Err(other) => Self::Other(format!("{other:?}")),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Compensated => "compensated",
            Self::Stuck(..) => "stuck",
            Self::Other(_) => "other",
        }
    }
}

/// Whether the books agree with the end of a saga; whatever was late has arrived.
pub(crate) fn balances(world: &World, facts: &[Fact], id: SagaId, end: &End) -> Result<(), String> {
    for fact in facts {
        let keys = world
            .books()
            .keys
            .get(&(id, fact.name.clone()))
            .map_or(0, BTreeSet::len);
        if keys > 1 {
            return Err(format!("`{}` has {keys} keys", fact.name));
        }
        let account = world.of_step(id, &fact.name);
        if account.landings > 1 {
            return Err(format!("`{}` had its effect {} times", fact.name, account.landings));
        }
    }
    let live = |fact: &Fact| world.of_step(id, &fact.name).live;
    let has_effect = |fact: &&Fact| fact.kind != StepKind::ReadOnly;
    let there = |fact: &Fact| format!("{end:?}, and the effect of `{}` is there", fact.name);
    let missing = |fact: &Fact| format!("{end:?}, and the effect of `{}` is missing", fact.name);
    match end {
        End::Completed(order) => {
            let names = facts.iter().map(|fact| &fact.name);
            if !order.done.iter().eq(names) {
                return Err(format!("completed with {:?}", order.done));
            }
            match facts.iter().filter(has_effect).find(|fact| !live(fact)) {
                Some(fact) => Err(missing(fact)),
                None => Ok(()),
            }
        }
        End::Compensated => match facts.iter().find(|fact| live(fact) && !fact.may_stay) {
            Some(fact) => Err(there(fact)),
            None => Ok(()),
        },
        End::Stuck(obstacle, unresolved) => {
            if unresolved.is_empty() {
                return Err("stuck at nothing".to_owned());
            }
            match obstacle {
                None | Some(Obstacle::Corrupt) => Err(format!("stuck: {obstacle:?}")),
                Some(Obstacle::NotUndone) => {
                    let resolved = |fact: &&Fact| !unresolved.contains(&fact.name) && !fact.may_stay;
                    match facts.iter().filter(resolved).find(|fact| live(fact)) {
                        Some(fact) => Err(there(fact)),
                        None => Ok(()),
                    }
                }
                Some(Obstacle::CrashLoop) => Ok(()),
                Some(_) => {
                    let at = facts.iter().position(|fact| fact.name == unresolved[0]);
                    let (before, after) = facts.split_at(at.ok_or("stuck at no step of its own")?);
                    if let Some(fact) = before.iter().filter(has_effect).find(|fact| !live(fact)) {
                        return Err(missing(fact));
                    }
                    match after[1..].iter().find(|fact| live(fact)) {
                        Some(fact) => Err(there(fact)),
                        None => Ok(()),
                    }
                }
            }
        }
        End::Other(other) => Err(other.clone()),
    }
}

/// Whether what was written down can have happened in that order.
pub(crate) fn in_order(events: &[Event]) -> Result<(), String> {
    let mut turned = false;
    let (mut started, mut undone): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::Created { .. } if n > 0 => return Err("it was created twice".to_owned()),
            Event::Finished { .. } if n + 1 < events.len() => return Err("it went on after its end".to_owned()),
            Event::Started { step } if turned => return Err(format!("`{step}` was started on the way back")),
            Event::Started { step } => started.push(step),
            Event::UndoStarted { step, .. } if !started.contains(&&**step) => {
                return Err(format!("`{step}` was undone and never started"));
            }
            Event::Unwinding { .. } if turned => return Err("it turned back twice".to_owned()),
            Event::Unwinding { .. } => turned = true,
            Event::UndoStarted { step, .. } if !turned => return Err(format!("`{step}` was undone on the way")),
            Event::UndoStarted { step, .. } if !undone.contains(&&**step) => {
                // Names of steps are numbered.
                if undone.last().is_some_and(|last| **last < **step) {
                    return Err(format!("`{step}` was undone after {undone:?}"));
                }
                undone.push(step);
            }
            _ => {}
        }
    }
    let ended = matches!(events.last(), Some(Event::Finished { .. }));
    if ended { Ok(()) } else { Err("it has no end".to_owned()) }
}

/// A saga as a text: its steps, and what was written down.
pub(crate) fn story(facts: &[Fact], events: &[Event]) -> String {
    let mut lines: Vec<String> = facts.iter().map(|fact| format!("  {fact:?}")).collect();
    for event in events {
        match event {
            Event::Created { plan } => lines.extend(plan.steps.iter().map(|step| format!("  {step:?}"))),
            event => lines.push(format!("  {event:?}")),
        }
    }
    lines.join("\n")
}
