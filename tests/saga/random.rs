//! Ten thousand sagas drawn at random, driven by processes that die over journals that fail, cancelled now and then: each
//! ends completed, compensated or visibly stuck, and the books of the participants balance.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use steadfast::Key;
use steadfast::saga::journal::{Journal, ListQuery, Loaded, MemoryJournal};
use steadfast::saga::{Event, SagaEngine, SagaId, StartError};
use steadfast::testing::saga::{Call, Fault, Faulty};
use tokio::time::{Instant, sleep, sleep_until};

use super::world::{Dice, Drawn, End, LATEST, Order, World, balances, draw, in_order, story};

const TOGETHER: u64 = 10;
const LEASE: Duration = Duration::from_secs(1);
/// When nothing goes wrong any more.
const CALM: Duration = Duration::from_secs(30);
/// When every saga has to have ended: no backoff and no hook takes that long.
const END: Duration = Duration::from_secs(1_800);

const CALLS: [Call; 12] = [
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

/// How many sagas.
fn sagas() -> u64 {
    let given = std::env::var("RANDOM_SAGAS").ok().and_then(|given| given.parse().ok());
    given.unwrap_or(10_000)
}

struct Process {
    engine: SagaEngine,
    journal: Faulty<MemoryJournal>,
}

impl Process {
    fn begin(shared: &MemoryJournal, sagas: &[Drawn], dice: &mut Dice) -> Self {
        let journal = Faulty::new(shared.clone());
        let probability = dice.pick(&[0.0, 0.02, 0.1, 0.3]);
        let faults = [
            Fault::RequestLost,
            Fault::ReplyLost,
            Fault::RequestDelayed(dice.millis(1_500)),
            Fault::ReplyDelayed(dice.millis(1_500)),
            Fault::RequestLate(dice.millis(3_000)),
        ];
        journal.inject_at_random(dice.below(u64::MAX), probability, faults);
        let mut engine = SagaEngine::builder(journal.clone())
            .lease(LEASE)
            .poll_interval(Duration::from_millis(250))
            .max_concurrent(dice.pick(&[1, 3, 64]));
        for drawn in sagas {
            engine = engine.register(&drawn.saga);
        }
        Self {
            engine: engine.build().unwrap(),
            journal,
        }
    }

    /// At once: nothing of it is written any more, and its steps are dropped in the middle.
    async fn die(&self) {
        for call in CALLS {
            self.journal.inject(call, .., Fault::RequestLost);
        }
        self.engine.shutdown(Duration::ZERO).await;
    }
}

/// Starts a saga until it is started.
async fn start(process: &Process, drawn: &Drawn, key: &Key) -> Option<SagaId> {
    match process.engine.start(&drawn.saga, key, Order::default()).await {
        Ok(started) => Some(started.id()),
        Err(StartError::Journal(_) | StartError::ShuttingDown | StartError::Full { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What there was.
#[derive(Debug, Default)]
struct Seen {
    ends: BTreeMap<&'static str, u64>,
    /// Sagas that more than one process, or one more than once, has driven.
    taken_over: u64,
    cancelled: u64,
}

/// What happens meanwhile, at a time.
#[derive(Clone, Copy)]
enum Incident {
    Start(usize),
    Cancel(usize),
    Die(usize),
}

async fn live_through(seed: u64, sight: &mut Seen) {
    let mut dice = Dice::of(&[seed, 0x11fe]);
    let (world, shared) = (World::default(), MemoryJournal::new());
    let sagas: Vec<_> = (0..TOGETHER).map(|n| draw(seed * TOGETHER + n, &world)).collect();
    let keys: Vec<_> = (0..sagas.len()).map(|n| Key::new("random", n.to_string())).collect();
    let begin = Instant::now();
    let mut processes = [(); 2].map(|()| Process::begin(&shared, &sagas, &mut dice));
    let mut incidents = Vec::new();
    for n in 0..sagas.len() {
        let start = dice.millis(3_000);
        incidents.push((start, Incident::Start(n)));
        if dice.one_in(4) {
            incidents.push((start + dice.millis(2_500), Incident::Cancel(n)));
        }
    }
    for _ in 0..dice.below(8) {
        incidents.push((dice.millis(9_000), Incident::Die(dice.index(2))));
    }
    incidents.sort_by_key(|(at, _)| *at);
    let mut ids = vec![None; sagas.len()];
    for (at, incident) in incidents {
        sleep_until(begin + at).await;
        match incident {
            Incident::Start(n) => ids[n] = start(&processes[dice.index(2)], &sagas[n], &keys[n]).await,
            Incident::Cancel(n) => {
                if let Some(id) = ids[n] {
                    // Whether it is noted or not.
                    drop(processes[dice.index(2)].engine.cancel(id).await);
                }
            }
            Incident::Die(process) => {
                processes[process].die().await;
                processes[process] = Process::begin(&shared, &sagas, &mut dice);
            }
        }
    }
    sleep_until(begin + CALM).await;
    for process in &processes {
        process.journal.heal();
    }
    for n in 0..sagas.len() {
        // Started again by who does not know whether it was.
        while ids[n].is_none() {
            ids[n] = start(&processes[0], &sagas[n], &keys[n]).await;
            sleep(Duration::from_millis(50)).await;
        }
    }
    until_all_rest(seed, &shared, begin + END).await;
    let mut ended = Vec::new();
    for ((drawn, key), id) in sagas.iter().zip(&keys).zip(ids) {
        let again = processes[1].engine.start(&drawn.saga, key, Order::default()).await;
        let again = again.unwrap();
        assert_eq!(Some(again.id()), id, "seed {seed}: a second saga of one key");
        ended.push((again.id(), End::of(&again.await)));
    }
    for process in processes {
        assert!(process.engine.shutdown(Duration::from_secs(60)).await, "seed {seed}");
    }
    sleep(LATEST).await;
    for (drawn, (id, end)) in sagas.iter().zip(ended) {
        let loaded = shared.load(id).await.unwrap().unwrap();
        sight.ends.entry(end.name()).or_default().add_assign(1);
        sight.taken_over += u64::from(loaded.entries.iter().any(|stored| stored.epoch > 1));
        sight.cancelled += u64::from(loaded.head.cancel);
        let events = events(&loaded);
        let right = in_order(&events)
            .and_then(|()| balances(&world, &drawn.facts, id, &end))
            .and_then(|()| epochs_grow(&loaded));
        assert!(
            right.is_ok(),
            "seed {seed}, {}: {}\n{}",
            drawn.saga.name(),
            right.unwrap_err(),
            story(&drawn.facts, &events)
        );
    }
    let wrong = world.wrong();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}

fn events(loaded: &Loaded) -> Vec<Event> {
    let entries = loaded.entries.iter();
    entries
        .map(|stored| serde_json::from_slice(&stored.entry.event).unwrap())
        .collect()
}

/// Nobody writes who was overtaken.
fn epochs_grow(loaded: &Loaded) -> Result<(), String> {
    let epochs: Vec<_> = loaded.entries.iter().map(|stored| stored.epoch).collect();
    if epochs.is_sorted() {
        Ok(())
    } else {
        Err(format!("{epochs:?}"))
    }
}

async fn until_all_rest(seed: u64, journal: &MemoryJournal, latest: Instant) {
    let all = ListQuery {
        limit: usize::MAX,
        ..ListQuery::default()
    };
    loop {
        let heads = journal.list(&all).await.unwrap();
        let active = heads.iter().find(|head| head.status.is_active());
        let Some(active) = active else { return };
        assert!(Instant::now() < latest, "seed {seed}: {active:?} has no end");
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_sagas_end_and_the_books_balance() {
    let mut seen = Seen::default();
    for seed in 0..sagas().div_ceil(TOGETHER) {
        live_through(seed, &mut seen).await;
    }
    let all: u64 = seen.ends.values().sum();
    println!("figure: random sagas whose books balance: {all}");
    println!("{seen:?}");
    // Otherwise little was tried.
    let rarest = seen.ends.values().chain([&seen.taken_over, &seen.cancelled]).min();
    assert!(seen.ends.len() == 3 && rarest > Some(&(all / 40)), "{seen:?}");
}
