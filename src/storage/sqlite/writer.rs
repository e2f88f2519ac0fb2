//! The thread that writes.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::clock::Clock;
use super::error::{Failure, is_busy};
use super::job::{Job, Turn};
use super::queue::{Queue, now, pause};
use super::shift::Shift;
use crate::random::{self, Random};
use crate::storage::StorageErrorKind;

/// How many jobs share one commit: enough that its fsync is a small part of each, and few enough that the first does
/// not wait long for the last.
const BATCH: usize = 256;

/// After a commit of several jobs, the next one is put off by at most this part of the time that it took: without that,
/// the first to come back would be alone in the next commit, and the others wait for it.
const GATHER: u32 = 8;

/// Between two looks at a file that somebody else writes, at most: SQLite tells nobody that it is free. Its own handler
/// soon looks every 100 ms only, and finds the file taken again by whoever writes without a pause.
const LOOK: Duration = Duration::from_millis(1);

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Clock,
    pub(super) busy_timeout: Duration,
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self) {
        let _ended = Ended(&self.queue);
        let mut random = Random::stream(random::seed(), 0);
        let mut shift = Shift::new(now());
        while self.queue.wait() {
            pause(shift.rest(now()));
            match self.statement("BEGIN IMMEDIATE") {
                Ok(()) => {
                    shift.begins(now());
                    let (count, took) = self.batch();
                    shift.ends(now());
                    // Those who were answered come back with their next request, a moment after the first of them.
                    if count > 1 {
                        self.queue.gather(count, took / GATHER);
                    }
                }
                Err(error) if is_busy(&error) => {
                    fail(self.queue.take_overdue(self.busy_timeout), &Failure::from(&error));
                    shift.is_refused();
                    // Two that wait do not look at the same time for ever.
                    pause(LOOK.mul_f64(0.5 + random.unit() / 2.0));
                }
                Err(error) => {
                    let mut jobs = Vec::new();
                    self.queue.take(BATCH, &mut jobs);
                    fail(jobs, &Failure::from(&error));
                }
            }
        }
    }

    /// Carries out every job that waits, commits, and sends the answers. How many they were, and how long the commit took.
    fn batch(&self) -> (usize, Duration) {
        let mut jobs = Vec::new();
        self.queue.take(BATCH, &mut jobs);
        jobs.retain(|job| job.is_wanted());
        // After the jobs were taken: a lease that is counted from here ends no earlier than its holder thinks.
        let turn = Turn {
            connection: &self.connection,
            now: self.clock.now(),
        };
        for job in &mut jobs {
            job.run(&turn);
            // After some errors SQLite undoes the whole transaction, the jobs before this one with it.
            if self.connection.is_autocommit() {
                let undone = "SQLite undid a transaction of several requests, as one of them failed";
                fail(jobs, &Failure::new(StorageErrorKind::Unavailable, undone));
                return (0, Duration::ZERO);
            }
        }
        let (count, started) = (jobs.len(), now());
        let committed = self.statement("COMMIT");
        let took = started.elapsed();
        match committed {
            Ok(()) => jobs.into_iter().for_each(Job::acknowledge),
            Err(error) => {
                if !self.connection.is_autocommit() {
                    let _ = self.statement("ROLLBACK");
                }
                fail(jobs, &Failure::from(&error));
            }
        }
        (count, took)
    }

    fn statement(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}

fn fail(jobs: Vec<Box<dyn Job>>, failure: &Failure) {
    for job in jobs {
        job.fail(failure);
    }
}

/// Lets nobody wait for a writer that has ended.
struct Ended<'q>(&'q Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.close();
        let mut jobs = Vec::new();
        self.0.take(usize::MAX, &mut jobs);
        fail(jobs, &Failure::new(StorageErrorKind::Unavailable, super::handle::ENDED));
    }
}
