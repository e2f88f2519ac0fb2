//! From every prefix of what was written of many sagas, the saga is resumed.
//!
//! A prefix that ends in a start says that the process died there: the effect may have happened or not. Both are played;
//! and that it has, and the next run is refused without an effect of its own.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use steadfast::saga::journal::{Entry, Head, Journal, Loaded, NewSaga, StoredEntry};
use steadfast::saga::{Event, Saga, SagaEnd, SagaId, Step};

use super::world::{Bench, Fate, Order, World, at_once, key, saga, secs};

/// How many resumptions a plain test run does at least; `RESUMPTIONS` asks for more.
const RESUMPTIONS: u32 = 2_000;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Compensatable,
    ReadOnly,
    Pivot,
    Retriable,
}

/// What became of what was started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Never,
    Happened,
    /// It has happened, and the step is refused from now on.
    HappenedAndRefuses,
}

/// A saga that was drawn: the kind of each step, how its runs end, and how its undos do.
#[derive(Clone, Debug)]
struct Drawn(Vec<(Kind, Fate, Fate)>);

/// xorshift: the same sagas for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn saga(&mut self) -> Drawn {
        let steps = usize::try_from(2 + self.below(4)).unwrap();
        let pivot = self.below(8);
        let steps = (0..steps).map(|step| {
            let at = u64::try_from(step).unwrap();
            let kind = match at.cmp(&pivot) {
                std::cmp::Ordering::Equal => Kind::Pivot,
                std::cmp::Ordering::Greater => Kind::Retriable,
                std::cmp::Ordering::Less if self.below(6) == 0 => Kind::ReadOnly,
                std::cmp::Ordering::Less => Kind::Compensatable,
            };
            let act = match self.below(16) {
                0 | 1 => Fate::Refuses,
                2 => Fate::IsNotReached,
                3 | 4 => Fate::Unknown,
                5 => Fate::IsLost,
                _ => Fate::Acts,
            };
            let undo = if self.below(8) == 0 {
                Fate::IsNotReached
            } else {
                Fate::Acts
            };
            (kind, act, undo)
        });
        Drawn(steps.collect())
    }
}

impl Drawn {
    fn build(&self, world: &World) -> Saga<Order> {
        let steps = NAMES.into_iter().zip(&self.0).map(|(name, &(kind, act, undo))| {
            let step = match kind {
                Kind::Compensatable => world.step_with(name, move |_| act, move |_| undo),
                Kind::ReadOnly => Step::read_only(name, world.action(move |_| act)),
                Kind::Pivot => Step::pivot(name, world.action(move |_| act)),
                Kind::Retriable => Step::retriable(name, world.action(move |_| act)),
            };
            at_once(step).attempts(2).undo_attempts(2)
        });
        saga(steps).build().unwrap()
    }

    fn refuses(&mut self, step: &str) {
        let at = NAMES.iter().position(|name| *name == step).unwrap();
        self.0[at].1 = Fate::Refuses;
    }

    /// What lives if every step has happened, or every step before the pivot has not.
    fn acts(&self, step: &str) -> bool {
        let at = NAMES.iter().position(|name| *name == step).unwrap();
        !matches!(self.0[at].1, Fate::Refuses | Fate::IsNotReached)
    }

    /// The books at the end.
    fn check(&self, end: SagaEnd, world: &World, told: &str) {
        let live: Vec<_> = world.lives();
        let kinds = NAMES.into_iter().zip(&self.0);
        match end {
            SagaEnd::Completed => assert_eq!(live.len(), self.0.len(), "{told}"),
            SagaEnd::Compensated => {
                // What only reads lives, and does no harm.
                for (name, (kind, ..)) in kinds {
                    assert!(
                        *kind == Kind::ReadOnly || !live.contains(&name.to_owned()),
                        "{name} lives: {told}"
                    );
                }
            }
            SagaEnd::Stuck => {}
            SagaEnd::Abandoned => panic!("{told}"),
        }
        assert!(world.once(), "{told}");
    }
}

fn event(stored: &StoredEntry) -> Event {
    serde_json::from_slice(&stored.entry.event).unwrap()
}

/// The participants as a prefix leaves them.
fn replay(drawn: &Drawn, id: SagaId, prefix: &[StoredEntry], last: Last) -> World {
    let world = World::default();
    for (at, stored) in prefix.iter().enumerate() {
        let is_last = at + 1 == prefix.len();
        match event(stored) {
            Event::Started { step } if drawn.acts(&step) && (!is_last || last != Last::Never) => {
                world.place(format!("{id}:1:{step}:do"));
            }
            Event::UndoSucceeded { step } => world.close(&format!("{id}:1:{step}:do")),
            Event::UndoStarted { step, .. } if is_last && last != Last::Never => {
                world.close(&format!("{id}:1:{step}:do"));
            }
            _ => {}
        }
    }
    world
}

async fn resume(drawn: &Drawn, head: &Head, prefix: &[StoredEntry], last: Last) -> SagaEnd {
    let id = head.id;
    let bench = Bench {
        book: Arc::default(),
        world: replay(drawn, id, prefix, last),
    };
    let mut drawn = drawn.clone();
    if let (Last::HappenedAndRefuses, Event::Started { step }) = (last, event(&prefix[prefix.len() - 1])) {
        drawn.refuses(&step);
    }
    let saga = drawn.build(&bench.world);
    let new = NewSaga {
        id,
        key: head.key,
        input: head.input,
        definition: head.definition.clone(),
        deadline: None,
        lease: None,
        entries: prefix.iter().map(|stored| stored.entry.clone()).collect::<Vec<Entry>>(),
        can_turn: true,
    };
    bench.book.create(&new).await.unwrap();
    let process = bench.process(&saga);
    let end = bench.rests(id, secs(600)).await;
    let told = format!(
        "{drawn:?} {last:?} from {} events: {} ({})",
        prefix.len(),
        bench.book.of(id),
        bench.world.calls()
    );
    drawn.check(end, &bench.world, &told);
    process.shutdown(secs(1)).await;
    end
}

#[tokio::test(start_paused = true)]
async fn from_every_prefix_of_what_was_written_a_saga_comes_to_a_good_end() {
    let wanted = std::env::var("RESUMPTIONS").map_or(RESUMPTIONS, |wanted| wanted.parse().unwrap());
    let ends: [AtomicU32; 3] = Default::default();
    let (mut dice, mut resumed, mut sagas) = (Dice(0x5eed_5a6a), 0, 0);
    while resumed < wanted {
        let drawn = dice.saga();
        let bench = Bench::new();
        let built = drawn.build(&bench.world);
        let process = bench.process(&built);
        let mut started = process.start(&built, &key(1), Order::default()).await.unwrap();
        let _ = started.wait().await;
        let id = started.id();
        let Loaded { head, entries: log, .. } = bench.book.load(id).await.unwrap().unwrap();
        let whole = bench.rests(id, secs(1)).await;
        drawn.check(whole, &bench.world, &format!("{drawn:?}: {}", bench.book.of(id)));
        process.shutdown(secs(1)).await;
        sagas += 1;
        // The last event is the end: nothing is resumed after it.
        for prefix in (1..log.len()).map(|length| &log[..length]) {
            for last in [Last::Never, Last::Happened, Last::HappenedAndRefuses] {
                let end = resume(&drawn, &head, prefix, last).await;
                let at = match end {
                    SagaEnd::Completed => 0,
                    SagaEnd::Compensated => 1,
                    SagaEnd::Stuck | SagaEnd::Abandoned => 2,
                };
                ends[at].fetch_add(1, Relaxed);
                resumed += 1;
            }
        }
    }
    let [completed, compensated, stuck] = ends.map(AtomicU32::into_inner);
    println!("{resumed} resumptions of {sagas} sagas: {completed} completed, {compensated} compensated, {stuck} stuck");
    assert!(completed > 0 && compensated > 0 && stuck > 0);
}
