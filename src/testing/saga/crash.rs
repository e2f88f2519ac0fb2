//! A saga whose process dies at every write, and that another takes over.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::dying::Dying;
use crate::Key;
use crate::random::unique;
use crate::saga::journal::{Journal, ListQuery, MemoryJournal, StoredEntry};
use crate::saga::{Event, Saga, SagaData, SagaEngine, SagaError, SagaId};

/// At how many writes of a process that has taken a saga over it dies as well.
const SECOND_CRASHES: u64 = 2;

/// Where a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Which of its writes to the journal it was; the first is 1. Starting a saga is one, and each step is one.
    pub write: u64,
    /// When, around that write.
    pub moment: Moment,
}

/// When a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the write: what it had done since the last one, nobody knows of.
    Before,
    /// After it, and before it did anything else.
    After,
    /// After it, and when what comes next had begun: a step was dropped at its first `.await` that had to wait.
    Within,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::Within];
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
            Moment::Within => "in what followed",
        };
        write!(f, "{when} write {}", self.write)
    }
}

/// A run of a saga, over the deaths of its processes.
#[derive(Debug)]
pub struct Run<C> {
    /// The saga's id, that its keys begin with.
    pub id: SagaId,
    /// Where its processes died, in order: each took over from the one before.
    pub crashes: Vec<Crash>,
    /// What was written down.
    pub events: Vec<Event>,
    /// How it ended.
    pub result: Result<C, SagaError>,
}

impl<C> fmt::Display for Run<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "saga {}", self.id)?;
        let mut process = "its process died";
        for crash in &self.crashes {
            write!(f, ", {process} {crash}")?;
            process = "the next one";
        }
        let how = match &self.result {
            Ok(_) => "completed",
            Err(SagaError::Compensated(_)) => "compensated",
            Err(SagaError::Stuck(_)) => "stuck",
            Err(SagaError::Abandoned(_)) => "abandoned",
            Err(SagaError::Detached { .. }) => "unknown",
        };
        write!(f, ", and it ended: {how}")
    }
}

/// Has the process of a saga die at each of its writes in turn, has another one take it over, and lets you check how each
/// run ended.
///
/// The saga is started anew for each run, under a key of its own, by an engine over a journal in memory. Its process dies
/// before a write, after it, and in the step that follows; the next process goes on from what is written. In some of the
/// runs that one dies as well, at one of its first writes. The first run is without a death.
///
/// `check` is called after each run, and is to hold whatever happened: the saga has ended, and the services agree with its
/// end. Where it panics, the run is printed.
///
/// It answers how many deaths there were. Pause the time, so that backoffs take none.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use steadfast::saga::{Cx, Saga};
/// use steadfast::testing::saga::crash_everywhere;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A service that knows its requests by their keys.
/// let charged: Arc<Mutex<Vec<String>>> = Arc::default();
/// let service = Arc::clone(&charged);
/// let order = Saga::<u32>::builder("order")
///     .pivot("charge", async move |cx: &mut Cx<u32>| {
///         let key = cx.idempotency_key();
///         let mut charged = service.lock().unwrap();
///         if !charged.contains(&key) {
///             charged.push(key);
///         }
///         Ok(())
///     })
///     .build()?;
///
/// let deaths = crash_everywhere(&order, 17, |run| {
///     assert!(run.result.is_ok());
///     assert_eq!(charged.lock().unwrap().drain(..).count(), 1);
/// });
/// assert!(deaths.await > 10);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When `check` does; or the saga cannot be started, as its context cannot be written.
pub async fn crash_everywhere<C, D>(saga: &Saga<C, D>, context: C, mut check: impl FnMut(&Run<C>)) -> usize
where
    C: SagaData,
    D: Send + Sync + 'static,
{
    let mut deaths = 0;
    let mut checked = |run: &Run<C>| {
        deaths += run.crashes.len();
        let name = NameIt(run);
        check(run);
        drop(name);
        run.crashes.len()
    };
    checked(&run(saga, &context, &[]).await);
    for write in 1.. {
        let mut died = 0;
        for moment in Moment::ALL {
            let first = Crash { write, moment };
            died += checked(&run(saga, &context, &[first]).await);
            for write in 1..=SECOND_CRASHES {
                for moment in Moment::ALL {
                    checked(&run(saga, &context, &[first, Crash { write, moment }]).await);
                }
            }
        }
        if died == 0 {
            break;
        }
    }
    deaths
}

/// Says which run it was, if the check of it panics.
struct NameIt<'r, C>(&'r Run<C>);

impl<C> Drop for NameIt<'_, C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("checked: {}", self.0);
        }
    }
}

/// Runs a saga over the deaths of its processes.
pub(super) async fn run<C, D>(saga: &Saga<C, D>, context: &C, crashes: &[Crash]) -> Run<C>
where
    C: SagaData,
    D: Send + Sync + 'static,
{
    let journal = MemoryJournal::new();
    let key = Key::new("testing", unique());
    for (died, crash) in crashes.iter().map(Some).chain([None]).enumerate() {
        let process = Dying::new(journal.clone(), crash.copied());
        let built = SagaEngine::builder(process.clone()).register(saga).build();
        let engine = built.unwrap_or_else(|error| refused(&error));
        let life = async {
            let started = engine.start(saga, &key, context.clone()).await;
            let mut started = started.unwrap_or_else(|error| refused(&error));
            (started.id(), started.wait().await)
        };
        let ended = first(process.died(), life).await;
        if let Some((id, result)) = ended {
            let crashes = crashes[..died].to_vec();
            let events = events(&journal, id).await;
            return Run {
                id,
                crashes,
                events,
                result,
            };
        }
        // Nothing of it goes on, and nobody waits for its lease to end.
        engine.shutdown(Duration::ZERO).await;
        end_leases(&journal).await;
    }
    refused(&"its last process died")
}

#[allow(clippy::panic, reason = "it is for tests")]
fn refused<T>(why: &dyn fmt::Display) -> T {
    panic!("the saga was not run: {why}")
}

/// What `other` gives, unless `end` comes first.
async fn first<T>(end: impl Future<Output = ()>, other: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut other) = (pin!(end), pin!(other));
    poll_fn(|context| {
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        other.as_mut().poll(context).map(Some)
    })
    .await
}

async fn events(journal: &MemoryJournal, id: SagaId) -> Vec<Event> {
    let loaded = journal.load(id).await.ok().flatten();
    let entries = loaded.map(|loaded| loaded.entries).unwrap_or_default();
    let read = |stored: &StoredEntry| serde_json::from_slice(&stored.entry.event).ok();
    entries.iter().filter_map(read).collect()
}

async fn end_leases(journal: &MemoryJournal) {
    let all = ListQuery {
        limit: usize::MAX,
        ..ListQuery::default()
    };
    // A journal in memory does not fail to list, nor to renew.
    for head in journal.list(&all).await.unwrap_or_default() {
        if let Some(owner) = head.owner {
            let _ = journal.renew(owner, Duration::ZERO, &[(head.id, head.epoch)]).await;
        }
    }
}
