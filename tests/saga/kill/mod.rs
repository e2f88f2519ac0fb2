//! Sagas of a process that is killed, on any journal.
//!
//! A journal's test program has a test `child`, which is [`run`] with the journal that it opens, and tests that call
//! those of [`campaign`]. What is killed and started again is one process with one engine. Its participants are a
//! [`World`] in a file of its own: so effects outlive their process, as those of real services do.

pub(crate) mod bookings;
pub(crate) mod campaign;
mod invariants;
mod scenario;
mod stopping;
mod world;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use steadfast::Key;
use steadfast::saga::journal::Journal;
use steadfast::saga::{SagaEngine, SagaError, StartError};

use super::support::kill::Child;
use scenario::{Deps, Order, Scenario};
use stopping::Stopping;
use world::World;

/// Long enough for any disk: nobody waits for the lease of a process that was killed.
const LEASE: Duration = Duration::from_secs(60);

type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + 'a>>;

/// Where the sagas of a campaign are written. A place is a folder; what else a journal needs is noted in it.
#[derive(Clone, Copy)]
pub(crate) struct Backend {
    /// The path of the test that is the child.
    pub(crate) child: &'static str,
    /// Opens the journal of this folder, and makes it, migrated, where there is none.
    pub(crate) open: for<'a> fn(&'a Path) -> Opening<'a>,
}

/// How many sagas of each kind run side by side in the scenario [`MANY`].
const EACH: u32 = 12;
/// Sagas of every kind at a time.
const MANY: &str = "many";
/// One saga whose step kills its process, and healthy ones beside it.
const POISONED: &str = "poisoned";
const HEALTHY: u32 = 50;
const MAX_RECOVERIES: u32 = 4;

/// What the child does: starts its sagas, or finds them started, and says how they end.
pub(crate) async fn run(child: &Arc<Child>, backend: Backend) {
    let place = Path::new(child.place());
    let journal = Stopping::new((backend.open)(place).await, child);
    let deps = Deps {
        world: Arc::new(World::open(place)),
        child: Arc::clone(child),
    };
    let sagas: Vec<_> = Scenario::all()
        .map(|scenario| (scenario, scenario.saga(&deps)))
        .collect();
    let mut builder = SagaEngine::builder(journal)
        .lease(LEASE)
        .poll_interval(Duration::from_millis(20));
    if child.scenario() == POISONED {
        builder = builder.max_recoveries(MAX_RECOVERIES);
    }
    for (_, saga) in &sagas {
        builder = builder.register(saga);
    }
    let engine = builder.build().unwrap();
    let wanted: Vec<(&'static str, u32)> = match child.scenario() {
        MANY => (0..EACH)
            .flat_map(|n| sagas.iter().map(move |(scenario, _)| (scenario.name, n)))
            .filter(|(name, _)| *name != "poison")
            .collect(),
        POISONED => [("poison", 0)]
            .into_iter()
            .chain((0..HEALTHY).map(|n| ("completes", n)))
            .collect(),
        name => vec![(Scenario::named(name).name, 0)],
    };
    child.begun();
    let runs = wanted.into_iter().map(|(name, n)| {
        let (engine, sagas) = (&engine, &sagas);
        async move {
            let (_, saga) = sagas.iter().find(|(scenario, _)| scenario.name == name).unwrap();
            let started = loop {
                match engine.start(saga, &key(n), Order::default()).await {
                    // On a machine that is busy, an answer may take longer than the lease.
                    Err(StartError::Journal(error)) if error.is_retryable() => {}
                    started => break started.unwrap(),
                }
            };
            let id = started.id();
            let end = end(started.await);
            child.say(&format!("{name} {id} {end}"));
        }
    });
    join_all(runs).await;
}

fn key(n: u32) -> Key {
    Key::new("tests", n.to_string())
}

/// The end in a few words: `completed`, or `stuck not_undone b`.
fn end(result: Result<Order, SagaError>) -> String {
    match result {
        Ok(order) => {
            assert!(order.undone.is_empty(), "{order:?}");
            "completed".to_owned()
        }
        Err(error) => {
            let report = error.report().expect("the journal answers");
            let obstacle = report.obstacle.map(|obstacle| obstacle.as_str().to_owned());
            let words = [report.end.as_str().to_owned()].into_iter().chain(obstacle);
            words.chain(report.unresolved.clone()).collect::<Vec<_>>().join(" ")
        }
    }
}
