//! The jobs that wait for the writer: two lanes, both bounded.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::job::Job;

/// How many jobs may wait in a lane; whoever comes then waits for room.
const LANE: usize = 1_024;

pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    arrived: Condvar,
    /// A permit is a free place.
    room: Semaphore,
    urgent_room: Semaphore,
}

#[derive(Default)]
struct Lanes {
    urgent: VecDeque<Waiting>,
    normal: VecDeque<Waiting>,
    /// The writer is to be woken when so many wait; 0 while it works.
    awaited: usize,
    closed: bool,
}

struct Waiting {
    job: Box<dyn Job>,
    since: Instant,
}

/// The writer has ended.
pub(super) struct Closed;

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            lanes: Mutex::default(),
            arrived: Condvar::new(),
            room: Semaphore::new(LANE),
            urgent_room: Semaphore::new(LANE),
        }
    }

    /// Waits for room, and adds `job`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the job is not added.
    pub(super) async fn push(&self, job: Box<dyn Job>, urgent: bool) -> Result<(), Closed> {
        let room = if urgent { &self.urgent_room } else { &self.room };
        let permit = room.acquire().await.map_err(|_| Closed)?;
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        permit.forget();
        let waiting = Waiting { job, since: now() };
        if urgent {
            lanes.urgent.push_back(waiting);
        } else {
            lanes.normal.push_back(waiting);
        }
        let awaited = lanes.len() == lanes.awaited;
        drop(lanes);
        if awaited {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Blocks until a job waits. `false` when the queue is closed and empty.
    pub(super) fn wait(&self) -> bool {
        let mut lanes = self.lock();
        loop {
            if lanes.len() > 0 {
                return true;
            }
            if lanes.closed {
                return false;
            }
            lanes.awaited = 1;
            lanes = self.arrived.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until `count` jobs wait, and for no longer than `patience`.
    pub(super) fn gather(&self, count: usize, patience: Duration) {
        let deadline = now() + patience;
        let mut lanes = self.lock();
        while lanes.len() < count && !lanes.closed {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            lanes.awaited = count;
            let (woken, _) = self
                .arrived
                .wait_timeout(lanes, left)
                .unwrap_or_else(PoisonError::into_inner);
            lanes = woken;
        }
        lanes.awaited = 0;
    }

    /// Takes at most `limit` jobs, urgent ones first.
    pub(super) fn take(&self, limit: usize, into: &mut Vec<Box<dyn Job>>) {
        let mut lanes = self.lock();
        let urgent = lanes.urgent.len().min(limit);
        into.extend(lanes.urgent.drain(..urgent).map(|waiting| waiting.job));
        let normal = lanes.normal.len().min(limit - urgent);
        into.extend(lanes.normal.drain(..normal).map(|waiting| waiting.job));
        drop(lanes);
        self.make_room(urgent, normal);
    }

    /// Takes the jobs that have waited for `limit`.
    pub(super) fn take_overdue(&self, limit: Duration) -> Vec<Box<dyn Job>> {
        let now = now();
        let overdue = |lane: &mut VecDeque<Waiting>| {
            let count = lane.partition_point(|waiting| now.duration_since(waiting.since) >= limit);
            lane.drain(..count).map(|waiting| waiting.job).collect::<Vec<_>>()
        };
        let mut lanes = self.lock();
        let mut jobs = overdue(&mut lanes.urgent);
        let urgent = jobs.len();
        jobs.append(&mut overdue(&mut lanes.normal));
        drop(lanes);
        self.make_room(urgent, jobs.len() - urgent);
        jobs
    }

    /// Takes no more jobs; those that wait are still carried out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.urgent_room.close();
        self.arrived.notify_one();
    }

    fn make_room(&self, urgent: usize, normal: usize) {
        self.urgent_room.add_permits(urgent);
        self.room.add_permits(normal);
    }

    /// No job is run or dropped under the lock, so nothing panics half way.
    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn len(&self) -> usize {
        self.urgent.len() + self.normal.len()
    }
}

/// The time outside: a file is busy by that, also where a test has paused tokio's.
#[allow(clippy::disallowed_methods, reason = "it measures a wait of a real file")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The thread is the writer's own, and nobody else's work waits for it.
#[allow(clippy::disallowed_methods, reason = "it blocks no worker of a runtime")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
