//! A step and the append of its success, in one transaction of the file's writer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use tokio::time::sleep;

use super::super::Append;
use super::{SqliteJournal, clamped, entries, row};
use crate::Effect;
use crate::saga::cx::Cx;
use crate::saga::error::StepError;
use crate::saga::local::{Decode, LocalRun, Ran};
use crate::saga::sqlite_tx::Work;
use crate::storage::sqlite::{Fault, Savepoint, Terms, Turn};

/// The first wait for a file that is busy, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What became of the work and its append.
enum Done<C> {
    /// Both are written. Somebody may have asked that the saga turn back.
    Written { context: C, cancel: bool },
    /// Neither is.
    Failed,
    /// Neither is: somebody else drives the saga, or has.
    Fenced,
}

/// The failure of the work. It is told where the transaction fails too: nothing was written either way.
type Failure = Arc<Mutex<Option<StepError>>>;

#[derive(Debug, thiserror::Error)]
#[error("it was not run: the saga turns back")]
struct TurnsBack;

#[derive(Debug, thiserror::Error)]
#[error("its transaction was undone")]
struct Undone;

impl SqliteJournal {
    /// Runs a step in a transaction of the writer, until it is known what became of it.
    pub(in crate::saga) async fn in_transaction<C, D>(&self, work: &Arc<Work<C, D>>, run: LocalRun<C, D>) -> Ran<C>
    where
        C: Clone + Send + 'static,
        D: Send + Sync + 'static,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = Failure::default();
            let job = job(work, &run, &failure);
            let answer = self.call(Terms::default(), job).await;
            let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(failed) = failed {
                return Ran::Failed(StepError {
                    effect: Effect::None,
                    ..failed
                });
            }
            match answer {
                Ok(Done::Written { context, cancel }) => return Ran::Committed { context, cancel },
                Ok(Done::Fenced) => return Ran::Fenced,
                // The failure says what.
                Ok(Done::Failed) => {}
                Err(problem) if problem.is_retryable() => {
                    tracing::warn!(target: "steadfast::saga", id = %run.append.id, %problem, "the journal does not answer");
                }
                Err(problem) => return Ran::Failed(StepError::not_sent(problem)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// One try, for the writer.
fn job<C, D>(
    work: &Arc<Work<C, D>>,
    run: &LocalRun<C, D>,
    failure: &Failure,
) -> impl FnOnce(&Turn<'_>) -> Result<Done<C>, Fault> + Send + use<C, D>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
{
    let append = Append {
        hold: clamped(run.append.hold),
        ..run.append.clone()
    };
    let Cx { data, deps, run: of } = &run.cx;
    let mut cx = Cx {
        data: data.clone(),
        deps: Arc::clone(deps),
        run: of.clone(),
    };
    let (work, failure) = (Arc::clone(work), Arc::clone(failure));
    let (encode, decode) = (run.encode, run.decode);
    let work = move |connection: &Connection| {
        work(&mut cx, connection)?;
        encode(cx.data).map_err(StepError::failed)
    };
    move |turn: &Turn<'_>| write(turn, append, work, decode, &failure)
}

fn write<C>(
    turn: &Turn<'_>,
    mut append: Append,
    work: impl FnOnce(&Connection) -> Result<(Bytes, C), StepError>,
    decode: Decode<C>,
    failure: &Failure,
) -> Result<Done<C>, Fault> {
    let connection = turn.connection;
    let fails = |failed: StepError| {
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
        Ok(Done::Failed)
    };
    let Some(head) = row::load(connection, append.id)? else {
        return Ok(Done::Fenced);
    };
    let cancel = head.cancel;
    let Some(after) = head.append(&append, turn.now) else {
        // An earlier try may have been carried out whose answer was lost.
        let Some(context) = entries::written_before(connection, &append)? else {
            return Ok(Done::Fenced);
        };
        let context = decode(&context).map_err(|_| Fault::corrupt("a context"))?;
        return Ok(Done::Written { context, cancel });
    };
    if cancel && head.can_turn {
        return fails(StepError::not_sent(TurnsBack));
    }
    let context = match run(connection, work)? {
        Ok((bytes, context)) => {
            if let Some(first) = append.entries.first_mut() {
                first.context = Some(bytes);
            }
            context
        }
        Err(failed) => return fails(failed),
    };
    entries::insert(
        connection,
        append.id,
        append.epoch,
        append.seq,
        &append.entries,
        turn.now,
    )?;
    row::update(connection, &head, &after)?;
    Ok(Done::Written { context, cancel })
}

/// Runs the work; what fails, or panics, leaves nothing behind.
fn run<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StepError>,
) -> Result<Result<T, StepError>, Fault> {
    let savepoint = Savepoint::new(connection)?;
    let result = {
        let _guest = Guest::new(connection)?;
        catch_unwind(AssertUnwindSafe(|| work(connection)))
    };
    match result {
        // Some errors undo the whole transaction, whatever the work makes of them.
        Ok(Ok(_)) if connection.is_autocommit() => Ok(Err(StepError::failed(Undone))),
        Ok(Ok(value)) => {
            savepoint.release()?;
            Ok(Ok(value))
        }
        Ok(Err(failed)) => Ok(Err(failed)),
        Err(panic) => Ok(Err(StepError::failed(format!("it panicked: {}", text(&*panic))))),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with a value that is no text")
}

/// While it lives, statements that would touch the writer's transaction or its settings fail when they are prepared.
struct Guest<'c>(&'c Connection);

impl<'c> Guest<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        // SQLite prepares anew what was prepared before, so that what is cached is asked for as well.
        connection.authorizer(Some(permit))?;
        Ok(Self(connection))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let none: Option<fn(AuthContext<'_>) -> Authorization> = None;
        let _ = self.0.authorizer(none);
    }
}

fn permit(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Transaction { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma {
            pragma_value: Some(_), ..
        }
        | AuthAction::Savepoint {
            savepoint_name: "steadfast",
            ..
        } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}
