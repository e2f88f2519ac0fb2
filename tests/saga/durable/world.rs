//! What the tests of durable sagas share: a journal that tells what was written, and a world that sagas act upon.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::saga::journal::{
    Append, Appended, CancelRequest, ClaimQuery, Claimed, ClaimedOne, Counts, Created, DefinitionId, Entry, Head,
    Journal, JournalFuture, ListQuery, Loaded, MemoryJournal, NewSaga, OwnerId, Prune, Renewal,
};
use steadfast::saga::{Cx, Event, Known, Saga, SagaBuilder, SagaEnd, SagaEngine, SagaId, Step, StepError, StepResult};
use steadfast::storage::Durability;
use steadfast::testing::saga::{Call, Fault, Faulty};
use steadfast::{Backoff, Effect, Key, KeyId};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) done: Vec<String>,
}

pub(crate) fn key(n: u32) -> Key {
    Key::new("tests", n.to_string())
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A journal in memory that keeps what each write wrote.
#[derive(Default)]
pub(crate) struct Book {
    journal: MemoryJournal,
    /// By saga, each write in the notation of [`word`]; `>` is a claim.
    writes: Mutex<HashMap<SagaId, Vec<(u64, String)>>>,
    /// A saga whose last event is not read.
    torn: Mutex<Option<SagaId>>,
    /// This call panics, once.
    trip: Mutex<Option<Call>>,
}

impl Book {
    /// All that was written of a saga, and how often it was claimed.
    pub(crate) fn of(&self, id: SagaId) -> String {
        let writes = self.writes.lock().unwrap();
        let of = writes.get(&id).into_iter().flatten();
        of.map(|(_, words)| words.as_str()).collect::<Vec<_>>().join(" | ")
    }

    pub(crate) fn tear(&self, id: Option<SagaId>) {
        *self.torn.lock().unwrap() = id;
    }

    pub(crate) fn trip(&self, call: Call) {
        *self.trip.lock().unwrap() = Some(call);
    }

    fn stumble(&self, call: Call) {
        let trips = self.trip.lock().unwrap().take_if(|trip| *trip == call).is_some();
        assert!(!trips, "told to");
    }

    fn note(&self, id: SagaId, seq: u64, words: String) {
        let mut writes = self.writes.lock().unwrap();
        let of = writes.entry(id).or_default();
        // A write that was carried out before is no other.
        if of.last().is_none_or(|(last, _)| *last < seq) {
            of.push((seq, words));
        }
    }
}

pub(crate) fn words(entries: &[Entry]) -> String {
    let events = entries
        .iter()
        .map(|entry| serde_json::from_slice(&entry.event).unwrap());
    events.map(|event| word(&event)).collect::<Vec<_>>().join(" ")
}

fn word(event: &Event) -> String {
    match event {
        Event::Started { step } => format!("S({step})"),
        Event::Succeeded { step } => format!("+{step}"),
        Event::Failed { step, effect, .. } => {
            let effect = if *effect == Effect::None { '!' } else { '?' };
            format!("-{step}{effect}")
        }
        Event::Reconciled { step, reality } => format!("R({step}:{reality:?})"),
        Event::Unwinding { .. } => "U".to_owned(),
        Event::UndoStarted { step, outcome } => {
            let outcome = if *outcome == Known::Unknown { "?" } else { "" };
            format!("s({step}){outcome}")
        }
        Event::UndoSucceeded { step } => format!("~{step}"),
        Event::UndoFailed { step, last, .. } => format!("{}{step}", if *last { 'x' } else { 'y' }),
        Event::Operator { .. } => "O".to_owned(),
        Event::Finished { end, .. } => format!("F:{}", end.as_str()),
        Event::Replanned { .. } => "P".to_owned(),
        Event::Created { .. } => "C".to_owned(),
    }
}

impl Journal for Book {
    fn create<'a>(&'a self, new: &'a NewSaga) -> JournalFuture<'a, Created> {
        Box::pin(async move {
            self.stumble(Call::Create);
            let created = self.journal.create(new).await?;
            if created == Created::New {
                self.note(new.id, u64::try_from(new.entries.len()).unwrap(), words(&new.entries));
            }
            Ok(created)
        })
    }

    fn append<'a>(&'a self, append: &'a Append) -> JournalFuture<'a, Appended> {
        Box::pin(async move {
            self.stumble(Call::Append);
            let appended = self.journal.append(append).await?;
            if matches!(appended, Appended::Written { .. }) {
                let seq = append.seq + u64::try_from(append.entries.len()).unwrap();
                self.note(append.id, seq, words(&append.entries));
            }
            Ok(appended)
        })
    }

    fn claim<'a>(&'a self, query: &'a ClaimQuery) -> JournalFuture<'a, Vec<Claimed>> {
        Box::pin(async move {
            self.stumble(Call::Claim);
            self.journal.claim(query).await
        })
    }

    fn claim_one(&self, id: SagaId, owner: OwnerId, lease: Duration) -> JournalFuture<'_, ClaimedOne> {
        self.journal.claim_one(id, owner, lease)
    }

    fn renew<'a>(
        &'a self,
        owner: OwnerId,
        lease: Duration,
        sagas: &'a [(SagaId, u64)],
    ) -> JournalFuture<'a, Vec<Renewal>> {
        Box::pin(async move {
            self.stumble(Call::Renew);
            self.journal.renew(owner, lease, sagas).await
        })
    }

    fn release<'a>(&'a self, owner: OwnerId, sagas: &'a [(SagaId, u64)]) -> JournalFuture<'a, ()> {
        self.journal.release(owner, sagas)
    }

    fn request_cancel(&self, id: SagaId) -> JournalFuture<'_, CancelRequest> {
        self.journal.request_cancel(id)
    }

    fn load(&self, id: SagaId) -> JournalFuture<'_, Option<Loaded>> {
        Box::pin(async move {
            let mut loaded = self.journal.load(id).await?;
            if *self.torn.lock().unwrap() == Some(id) {
                loaded.as_mut().unwrap().entries.pop();
            }
            Ok(loaded)
        })
    }

    fn find(&self, key: KeyId) -> JournalFuture<'_, Option<Head>> {
        self.journal.find(key)
    }

    fn list<'a>(&'a self, query: &'a ListQuery) -> JournalFuture<'a, Vec<Head>> {
        self.journal.list(query)
    }

    fn count<'a>(&'a self, definitions: &'a [DefinitionId]) -> JournalFuture<'a, Counts> {
        self.journal.count(definitions)
    }

    fn prune(&self, prune: Prune) -> JournalFuture<'_, u64> {
        self.journal.prune(prune)
    }

    fn durability(&self) -> Durability {
        self.journal.durability()
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Book")
    }
}

/// The way of one process to the shared journal.
pub(crate) type Way = Faulty<Book>;

pub(crate) const CALLS: [Call; 12] = [
    Call::Create,
    Call::Append,
    Call::Claim,
    Call::ClaimOne,
    Call::Renew,
    Call::Release,
    Call::RequestCancel,
    Call::Load,
    Call::Find,
    Call::List,
    Call::Count,
    Call::Prune,
];

/// From now on the process hears nothing of the journal, nor the journal of it.
pub(crate) fn cut(way: &Way) {
    for call in CALLS {
        way.inject(call, way.calls(call) + 1.., Fault::RequestHangs);
    }
}

/// The head of a saga, as it is in the journal.
pub(crate) async fn head(book: &Book, id: SagaId) -> Head {
    book.load(id).await.unwrap().unwrap().head
}

/// The participants: what each key has done there, and what was asked of them in which order.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// What lives, by the key of the action.
    live: Vec<String>,
    closed: Vec<String>,
    calls: Vec<String>,
}

impl World {
    /// What happens when a request arrives: it has an effect once, and none once it was taken back.
    pub(crate) fn act(&self, cx: &Cx<Order>) {
        let mut world = self.0.lock().unwrap();
        let key = cx.action_key();
        world.calls.push(cx.step().to_owned());
        if !world.closed.contains(&key) && !world.live.contains(&key) {
            world.live.push(key);
        }
    }

    pub(crate) fn undo(&self, cx: &Cx<Order>) {
        let mut world = self.0.lock().unwrap();
        let unknown = if cx.outcome() == Known::Unknown { "?" } else { "" };
        world.calls.push(format!("undo {}{unknown}", cx.step()));
        let key = cx.action_key();
        world.live.retain(|live| *live != key);
        world.closed.push(key);
    }

    /// What has happened at the participants already.
    pub(crate) fn place(&self, key: String) {
        let mut world = self.0.lock().unwrap();
        if !world.live.contains(&key) {
            world.live.push(key);
        }
    }

    pub(crate) fn close(&self, key: &str) {
        let mut world = self.0.lock().unwrap();
        world.live.retain(|live| live != key);
        world.closed.push(key.to_owned());
    }

    /// The steps whose effects live.
    pub(crate) fn lives(&self) -> Vec<String> {
        let world = self.0.lock().unwrap();
        let step = |key: &String| key.split(':').nth(2).unwrap().to_owned();
        world.live.iter().map(step).collect()
    }

    /// Whether no step of a saga has had its effect under two keys.
    pub(crate) fn once(&self) -> bool {
        let world = self.0.lock().unwrap();
        let step = |key: &String| {
            let parts: Vec<_> = key.split(':').collect();
            format!("{}:{}", parts[0], parts[2])
        };
        let mut steps: Vec<_> = world.live.iter().map(step).collect();
        steps.sort();
        steps.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// A request that was under way for long arrives.
    pub(crate) fn arrive(&self, key: String) {
        let mut world = self.0.lock().unwrap();
        world.calls.push("late".to_owned());
        if !world.closed.contains(&key) && !world.live.contains(&key) {
            world.live.push(key);
        }
    }

    pub(crate) fn note(&self, call: impl Into<String>) {
        self.0.lock().unwrap().calls.push(call.into());
    }

    pub(crate) fn calls(&self) -> String {
        self.0.lock().unwrap().calls.join(", ")
    }

    pub(crate) fn live(&self) -> usize {
        self.0.lock().unwrap().live.len()
    }

    /// A step that acts and is undone; `fate` says how each run ends, by its number.
    pub(crate) fn step(
        &self,
        name: &'static str,
        fate: impl Fn(u32) -> Fate + Clone + Send + Sync + 'static,
    ) -> Step<Order> {
        self.step_with(name, fate, |_| Fate::Acts)
    }

    /// The same, with the fate of each undo.
    pub(crate) fn step_with(
        &self,
        name: &'static str,
        fate: impl Fn(u32) -> Fate + Clone + Send + Sync + 'static,
        undo: impl Fn(u32) -> Fate + Clone + Send + Sync + 'static,
    ) -> Step<Order> {
        let (act, back) = (self.action(fate), self.clone());
        let undos = Arc::new(AtomicU32::new(0));
        Step::compensatable(name, act, async move |cx: &mut Cx<Order>| {
            let fate = undo(undos.fetch_add(1, Ordering::Relaxed) + 1);
            if !matches!(fate, Fate::Refuses | Fate::IsNotReached) {
                back.undo(cx);
                let step = cx.step().to_owned();
                cx.done.retain(|done| *done != step);
            }
            fate.result().await
        })
    }

    pub(crate) fn action(
        &self,
        fate: impl Fn(u32) -> Fate + Clone + Send + Sync + 'static,
    ) -> impl steadfast::saga::Action<Order, ()> {
        let (world, runs) = (self.clone(), Arc::new(AtomicU32::new(0)));
        async move |cx: &mut Cx<Order>| {
            let fate = fate(runs.fetch_add(1, Ordering::Relaxed) + 1);
            if matches!(fate, Fate::Refuses | Fate::IsNotReached) {
                world.note(cx.step());
            } else {
                world.act(cx);
                let step = cx.step().to_owned();
                cx.done.push(step);
            }
            fate.result().await
        }
    }
}

/// How a run ends, after its effect has happened; unless it is refused, or not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acts,
    /// For good, without an effect.
    Refuses,
    /// It may be tried again, without an effect.
    IsNotReached,
    Unknown,
    /// Nobody knows, and nobody asks again.
    IsLost,
    Panics,
    Hangs,
    Takes(Duration),
}

impl Fate {
    async fn result(self) -> StepResult {
        match self {
            Self::Acts => Ok(()),
            Self::Refuses => Err(StepError::failed("no")),
            Self::IsNotReached => Err(StepError::not_sent("not now")),
            Self::Unknown => Err(StepError::unknown("no answer")),
            Self::IsLost => Err(StepError::fatal_unknown("no answer")),
            Self::Panics => panic!("told to"),
            Self::Hangs => std::future::pending().await,
            Self::Takes(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
        }
    }
}

pub(crate) fn acts(_: u32) -> Fate {
    Fate::Acts
}

pub(crate) fn saga(steps: impl IntoIterator<Item = Step<Order>>) -> SagaBuilder<Order> {
    steps.into_iter().fold(Saga::builder("trip"), SagaBuilder::with)
}

/// Attempts without a wait between them.
pub(crate) fn at_once(step: Step<Order>) -> Step<Order> {
    let soon = || Backoff::constant(Duration::from_millis(1));
    step.backoff(soon()).undo_backoff(soon())
}

/// A journal, and what is needed to drive sagas over it.
pub(crate) struct Bench {
    pub(crate) book: Arc<Book>,
    pub(crate) world: World,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            book: Arc::default(),
            world: World::default(),
        }
    }

    /// A process: its way to the journal, and its engine.
    pub(crate) fn process(&self, saga: &Saga<Order>) -> Process {
        self.process_with(saga, |engine| engine)
    }

    pub(crate) fn process_with(
        &self,
        saga: &Saga<Order>,
        set: impl FnOnce(steadfast::saga::SagaEngineBuilder) -> steadfast::saga::SagaEngineBuilder,
    ) -> Process {
        let way = Faulty::over(Arc::clone(&self.book));
        let engine = set(SagaEngine::builder(way.clone()).register(saga)).build().unwrap();
        Process { way, engine }
    }

    /// A saga in the journal that nobody drives.
    pub(crate) async fn wait(&self, saga: &Saga<Order>, n: u32) -> SagaId {
        let starts = self.process_with(saga, |engine| engine.max_concurrent(0));
        let started = starts.engine.start(saga, &key(n), Order::default()).await.unwrap();
        started.id()
    }

    pub(crate) async fn head(&self, id: SagaId) -> Head {
        head(&self.book, id).await
    }

    /// Waits for the end of a saga, so long at most.
    pub(crate) async fn rests(&self, id: SagaId, within: Duration) -> SagaEnd {
        let until = tokio::time::Instant::now() + within;
        loop {
            let status = self.head(id).await.status;
            let ends = [
                SagaEnd::Completed,
                SagaEnd::Compensated,
                SagaEnd::Stuck,
                SagaEnd::Abandoned,
            ];
            if let Some(end) = ends.into_iter().find(|end| end.as_str() == status.as_str()) {
                return end;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "{status} after {within:?}: {}",
                self.book.of(id)
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) struct Process {
    pub(crate) way: Way,
    pub(crate) engine: SagaEngine,
}

impl Process {
    /// It dies: nothing of what it does reaches anybody any more.
    pub(crate) fn die(&self) {
        cut(&self.way);
    }
}

impl Deref for Process {
    type Target = SagaEngine;

    fn deref(&self) -> &SagaEngine {
        &self.engine
    }
}
