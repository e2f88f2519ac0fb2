//! Statements of one kind that come faster than the database answers go together: one statement, one round trip and one
//! commit for many.
//!
//! Whoever finds a turn free goes alone, at once. The others wait, and go together when a turn is over: the longer the
//! statements take that are under way, the more go with the next. Of a caller that
//!
//! - has a turn: it holds a [`Turn`], and passes it on when that is dropped, be it that the caller was;
//! - waits: its [`Place`] is in the queue, and is out of it once the caller is dropped, or has waited for [`PATIENCE`]. Then
//!   it goes in a turn more than there are, together with those behind: alone, many of them would be more statements than
//!   the connections can take, and whoever comes after them would wait for too long as well;
//! - was taken along: a task runs the statement, in the runtime of the first of its group, which drives it as it waits
//!   there. Dropped, the caller leaves its answer behind; when the last of its group is dropped, the statement is given up.
//!
//! What cannot be done together, each does alone: there it has its own error, and waits for its own row alone.

mod turns;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::KeyId;
use turns::Turns;

/// How long a caller waits for a turn, if all are held up: by a connection that is dead, or a row that is locked.
const PATIENCE: Duration = Duration::from_millis(100);

/// What can be done for many at once.
pub(crate) trait Together: Send + Sync + Sized + 'static {
    type Job: Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Which record the job is about. Jobs are done in the order of these, so that two groups never wait for each other
    /// in a circle.
    fn id(job: &Self::Job) -> KeyId;

    /// An answer for each of the jobs, in their order; `None` where it cannot be done together.
    fn run(&self, jobs: &[Self::Job]) -> impl Future<Output = Option<Vec<Self::Answer>>> + Send;
}

/// How a job is done.
pub(crate) enum Way<R: Together> {
    /// By the caller, who keeps the turn until it is done; without one where it could not go with others.
    Alone(Option<Turn<R>>),
    /// With others: this is the answer.
    Done(R::Answer),
}

/// The jobs of one kind on one database.
pub(crate) struct Group<R: Together> {
    runner: R,
    turns: Mutex<Turns<Waiting<R>>>,
}

struct Waiting<R: Together> {
    job: R::Job,
    way: oneshot::Sender<Way<R>>,
    runtime: Handle,
}

impl<R: Together> Group<R> {
    pub(crate) fn new(runner: R) -> Arc<Self> {
        Arc::new(Self {
            runner,
            turns: Mutex::new(Turns::new()),
        })
    }

    /// Waits for a turn, or for those who had one to do this as well.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the job is not done. Dropped later, it may be.
    pub(crate) async fn join(self: &Arc<Self>, job: impl FnOnce() -> R::Job) -> Way<R> {
        let (place, mut way) = {
            let mut turns = self.lock();
            if turns.take() {
                return Way::Alone(Some(Turn::of(self)));
            }
            let Ok(runtime) = Handle::try_current() else {
                return Way::Alone(None);
            };
            let (sender, way) = oneshot::channel();
            let waiting = Waiting {
                job: job(),
                way: sender,
                runtime,
            };
            let ticket = turns.wait(waiting);
            (Place { group: self, ticket }, way)
        };
        if let Ok(way) = timeout(PATIENCE, &mut way).await {
            return way.unwrap_or(Way::Alone(None));
        }
        let waiting = self.lock().hurry(place.ticket);
        if !waiting.is_empty() {
            Turn::of(self).go(waiting);
        }
        way.await.unwrap_or(Way::Alone(None))
    }

    fn lock(&self) -> MutexGuard<'_, Turns<Waiting<R>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller in the queue.
struct Place<'a, R: Together> {
    group: &'a Group<R>,
    ticket: u64,
}

impl<R: Together> Drop for Place<'_, R> {
    fn drop(&mut self) {
        let left = self.group.lock().leave(self.ticket);
        drop(left);
    }
}

/// The right to have a statement under way.
pub(crate) struct Turn<R: Together> {
    group: Arc<Group<R>>,
    /// Of a group, whether its task has begun. Those that are dropped before, in a runtime that has ended, are not passed
    /// on: with as many groups as wait there, each would be dropped within the one before it.
    begun: bool,
}

impl<R: Together> Drop for Turn<R> {
    fn drop(&mut self) {
        if self.begun {
            let waiting = self.group.lock().pass_on();
            if !waiting.is_empty() {
                Self::of(&self.group).go(waiting);
            }
        } else {
            let waiting = self.group.lock().give_up();
            drop(waiting);
        }
    }
}

impl<R: Together> Turn<R> {
    fn of(group: &Arc<Group<R>>) -> Self {
        Self {
            group: Arc::clone(group),
            begun: true,
        }
    }

    /// Has those go whose turn it is.
    fn go(mut self, mut waiting: Vec<Waiting<R>>) {
        if let [first, _, ..] = &*waiting {
            let runtime = first.runtime.clone();
            self.begun = false;
            drop(runtime.spawn(self.run(waiting)));
        } else if let Some(Waiting { way, .. }) = waiting.pop() {
            // Dropped by a caller that is gone, the turn is passed on again.
            drop(way.send(Way::Alone(Some(self))));
        }
    }

    async fn run(mut self, mut waiting: Vec<Waiting<R>>) {
        self.begun = true;
        waiting.sort_unstable_by_key(|waiting| R::id(&waiting.job));
        let (jobs, mut ways): (Vec<_>, Vec<_>) = waiting.into_iter().map(|Waiting { job, way, .. }| (job, way)).unzip();
        let answers = {
            let mut done = pin!(self.group.runner.run(&jobs));
            poll_fn(|cx| match done.as_mut().poll(cx) {
                Poll::Pending if is_wanted(&mut ways, cx) => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
                ready @ Poll::Ready(_) => ready,
            })
            .await
        };
        for (way, answer) in ways.into_iter().zip(answers.into_iter().flatten()) {
            // Who is gone needs none.
            drop(way.send(Way::Done(answer)));
        }
    }
}

/// Whether anybody waits for an answer. Each is asked, so that each that goes wakes the task.
fn is_wanted<W>(ways: &mut [oneshot::Sender<W>], cx: &mut Context<'_>) -> bool {
    let gone = ways.iter_mut().filter_map(|way| match way.poll_closed(cx) {
        Poll::Ready(()) => Some(()),
        Poll::Pending => None,
    });
    gone.count() < ways.len()
}

impl<R: Together> fmt::Debug for Group<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
