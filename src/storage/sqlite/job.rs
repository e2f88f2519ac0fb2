//! What callers ask of the writer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::{StorageError, StorageErrorKind};
use super::error::{Failure, Fault};
use super::savepoint::Savepoint;

/// What a job works with: inside of the writer's transaction, at one time for all jobs of it.
pub(crate) struct Turn<'c> {
    pub(crate) connection: &'c Connection,
    /// Read when the transaction had begun, so later than every job of it was sent.
    pub(crate) now: Duration,
}

/// How the writer treats a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// It goes before those that are not.
    pub(super) urgent: bool,
    /// Where it fails half way, what it has written does no harm: it needs no savepoint.
    pub(super) one_write: bool,
    /// It is left out where its caller has gone before it began.
    pub(super) needs_caller: bool,
}

impl Terms {
    /// Of a job that writes once, or several times so that only the last matters.
    pub(crate) fn one_write() -> Self {
        Self {
            one_write: true,
            ..Self::default()
        }
    }

    pub(crate) fn urgent(self) -> Self {
        Self { urgent: true, ..self }
    }

    pub(crate) fn needs_caller(self) -> Self {
        Self {
            needs_caller: true,
            ..self
        }
    }
}

/// A job without its types.
pub(super) trait Job: Send {
    fn is_wanted(&self) -> bool;
    /// Does the work, and keeps the answer.
    fn run(&mut self, turn: &Turn<'_>);
    /// Sends the answer, now that it is committed.
    fn acknowledge(self: Box<Self>);
    /// Sends the error instead: nothing was committed.
    fn fail(self: Box<Self>, failure: &Failure);
}

pub(super) struct Call<T, F> {
    terms: Terms,
    work: Option<F>,
    answer: Option<Result<T, StorageError>>,
    reply: oneshot::Sender<Result<T, StorageError>>,
}

impl<T, F> Call<T, F>
where
    F: FnOnce(&Turn<'_>) -> Result<T, Fault> + Send,
    T: Send,
{
    pub(super) fn new(terms: Terms, work: F) -> (Self, oneshot::Receiver<Result<T, StorageError>>) {
        let (reply, answer) = oneshot::channel();
        let call = Self {
            terms,
            work: Some(work),
            answer: None,
            reply,
        };
        (call, answer)
    }
}

impl<T, F> Job for Call<T, F>
where
    F: FnOnce(&Turn<'_>) -> Result<T, Fault> + Send,
    T: Send,
{
    fn is_wanted(&self) -> bool {
        !(self.terms.needs_caller && self.reply.is_closed())
    }

    fn run(&mut self, turn: &Turn<'_>) {
        let Some(work) = self.work.take() else { return };
        let one_write = self.terms.one_write;
        let run = AssertUnwindSafe(|| {
            if one_write {
                return work(turn);
            }
            let savepoint = Savepoint::new(turn.connection)?;
            let answer = work(turn)?;
            savepoint.release()?;
            Ok(answer)
        });
        self.answer = Some(match catch_unwind(run) {
            Ok(result) => result.map_err(StorageError::from),
            Err(_panic) => Err(StorageError::new(
                StorageErrorKind::Unavailable,
                "a request panicked in SQLite's writer",
            )),
        });
    }

    fn acknowledge(self: Box<Self>) {
        if let Some(answer) = self.answer {
            // Whoever asked may have gone.
            let _ = self.reply.send(answer);
        }
    }

    fn fail(self: Box<Self>, failure: &Failure) {
        let answer = match self.answer {
            // Its own error says more.
            Some(Err(error)) => error,
            _ => failure.share(),
        };
        let _ = self.reply.send(Err(answer));
    }
}
