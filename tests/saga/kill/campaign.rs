//! Kills processes, starts them again, and looks at what is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use steadfast::saga::SagaId;
use steadfast::saga::journal::{Head, Journal, ListQuery, Loaded, SagaStatus};
use tokio::runtime::Builder;

use super::super::support::folder::Folder;
use super::super::support::kill::{self, Run, Stop, kills};
use super::invariants::{Traces, goes_on};
use super::scenario::Scenario;
use super::{Backend, HEALTHY, MANY, MAX_RECOVERIES, POISONED};

/// So many processes at a time: each waits for the disk now and then.
const AT_ONCE: usize = 4;

/// A process with its journal and its world, in a folder of its own.
struct Process {
    backend: Backend,
    scenario: &'static str,
    folder: Folder,
}

impl Process {
    fn new(backend: Backend, scenario: &'static str) -> Self {
        let folder = Folder::new();
        Self {
            backend,
            scenario,
            folder,
        }
    }

    fn place(&self) -> &Path {
        self.folder.path()
    }

    /// Runs it, and where it was killed lets nobody wait for the leases that it had.
    fn run(&self, stop: Stop) -> Run {
        let run = kill::run(self.backend.child, self.scenario, self.place().to_str().unwrap(), stop);
        if !matches!(stop, Stop::Never) {
            self.with_journal(async |journal| {
                for head in heads(&*journal).await {
                    if let Some(owner) = head.owner {
                        let leases = [(head.id, head.epoch)];
                        journal.renew(owner, Duration::ZERO, &leases).await.unwrap();
                    }
                }
            });
        }
        run
    }

    fn with_journal<T>(&self, work: impl AsyncFnOnce(Arc<dyn Journal>) -> T) -> T {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work((self.backend.open)(self.place()).await).await })
    }

    /// Every saga that its journal has.
    fn sagas(&self) -> BTreeMap<SagaId, Loaded> {
        self.with_journal(async |journal| {
            let mut sagas = BTreeMap::new();
            for head in heads(&*journal).await {
                sagas.insert(head.id, journal.load(head.id).await.unwrap().unwrap());
            }
            sagas
        })
    }

    /// Runs it to its end, after what was there before, and looks at each saga.
    fn finish(&self, before: &BTreeMap<SagaId, Loaded>) -> Vec<(Scenario, Loaded)> {
        let finished = self.run(Stop::Never);
        let after = self.sagas();
        let said = finished.said.iter().map(|line| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap();
            let (scenario, id, end) = (Scenario::named(word()), word().parse().unwrap(), word());
            let loaded = &after[&id];
            if let Some(before) = before.get(&id) {
                goes_on(before, loaded);
            }
            Traces::new(scenario, loaded, self.place()).hold(end);
            (scenario, loaded.clone())
        });
        let ended: Vec<_> = said.collect();
        assert_eq!(ended.len(), after.len(), "a saga was started twice");
        ended
    }
}

async fn heads(journal: &dyn Journal) -> Vec<Head> {
    let query = ListQuery {
        limit: usize::MAX,
        ..ListQuery::default()
    };
    journal.list(&query).await.unwrap()
}

fn figure(what: &str, kills: usize) {
    println!("figure: processes killed: {kills}");
    println!("{what}: killed {kills} times");
}

/// Kills the process of one saga at each of its points; and then, twice of three times, again while it recovers.
pub(crate) fn killed_at_every_write(backend: Backend, scenario: &'static str) {
    let scenario = Scenario::named(scenario);
    let undisturbed = Process::new(backend, scenario.name);
    let points = undisturbed.run(Stop::Never);
    let said = points.said.concat();
    assert!(said.ends_with(scenario.ends[0]), "{said}");
    undisturbed.finish(&undisturbed.sagas());
    let count = |what: &str| points.reached.iter().filter(|point| *point == what).count();
    // A step in a transaction of the journal writes past the kill points, together with its effect.
    let local = usize::from(scenario.local);
    assert_eq!(count("after create") + count("after append") + local, scenario.writes);

    let points = points.points;
    let wanted = kills(3 * points);
    let kill = |n: usize| {
        let process = Process::new(backend, scenario.name);
        let first = process.run(Stop::At(n % points + 1));
        let point = first.at.expect("it stops at every point");
        let before = process.sagas();
        let again = match n / points % 3 {
            0 => None,
            1 => Some(Stop::Named("after claim")),
            _ if n % 2 == 0 => Some(Stop::Named("after append")),
            // A look for the saga that it had is two points, and the claim of it one.
            _ => Some(Stop::At(4 + n % 5)),
        };
        let again = again.and_then(|stop| process.run(stop).at);
        println!(
            "{}: killed {point}, {}",
            scenario.name,
            again.as_deref().unwrap_or("and no more")
        );
        process.finish(&before);
        1 + usize::from(again.is_some())
    };
    let mut killed = 0;
    for batch in (0..wanted).collect::<Vec<_>>().chunks(AT_ONCE) {
        thread::scope(|scope| {
            let runs: Vec<_> = batch.iter().map(|n| scope.spawn(|| kill(*n))).collect();
            killed += runs.into_iter().map(|run| run.join().unwrap()).sum::<usize>();
        });
    }
    figure(scenario.name, killed);
}

/// Kills a process of many sagas of all kinds at any moment, three times in a row.
pub(crate) fn killed_at_any_moment(backend: Backend) {
    let kills = kills(3);
    for n in 0..kills {
        let process = Process::new(backend, MANY);
        let mut before = BTreeMap::new();
        for round in 0..3 {
            // Moments all over the run, and different ones in each.
            let moment = Duration::from_micros(u64::try_from((3 * n + round) * 79_190 % 600_000).unwrap());
            process.run(Stop::After(moment));
            let after = process.sagas();
            for (id, loaded) in &before {
                goes_on(loaded, &after[id]);
            }
            before = after;
        }
        process.finish(&before);
    }
    figure(MANY, 3 * kills);
}

/// Crashes take nothing from a step's attempts: of which there are two.
pub(crate) fn five_crashes_in_one_step_use_up_no_attempt(backend: Backend) {
    let process = Process::new(backend, "completes");
    for _ in 0..5 {
        let killed = process.run(Stop::Named("before do b"));
        assert!(killed.at.is_some());
    }
    let ended = process.finish(&process.sagas());
    let (_, loaded) = &ended[0];
    assert_eq!(loaded.head.status, SagaStatus::Completed);
    assert!(loaded.head.epoch >= 6, "{:?}", loaded.head);
    figure("five crashes", 5);
}

/// A saga that kills its process is laid to rest, and takes no other along.
pub(crate) fn a_saga_that_kills_its_process_is_laid_to_rest(backend: Backend) {
    let process = Process::new(backend, POISONED);
    let mut killed = 0;
    while process.run(Stop::Named("poison")).at.is_some() {
        killed += 1;
        assert!(killed < 10, "it is never laid to rest");
    }
    // The first run, and as many recoveries as are allowed.
    assert_eq!(killed, 1 + usize::try_from(MAX_RECOVERIES).unwrap());
    let ended = process.finish(&process.sagas());
    let with = |status| ended.iter().filter(|(_, loaded)| loaded.head.status == status).count();
    assert_eq!(
        (with(SagaStatus::Completed), with(SagaStatus::Stuck)),
        (usize::try_from(HEALTHY).unwrap(), 1)
    );
    figure(POISONED, killed);
}
