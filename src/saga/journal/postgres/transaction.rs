//! The transaction of a step: its own statements, and the append of its success.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Transaction};

use super::super::{Append, Appended};
use super::append::Values;
use super::{PostgresJournal, sql};
use crate::Effect;
use crate::saga::code::{bounded, guarded};
use crate::saga::error::StepError;
use crate::saga::local::{LocalRun, Ran};
use crate::saga::postgres_tx::Work;
use crate::storage::StorageError;
use crate::storage::postgres::{Held, Param, describe, is_refusal};

/// The first wait for a database that does not answer, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may take to roll back; then it is closed, which does it too.
const ROLLBACK: Duration = Duration::from_secs(1);

/// The step has ended its transaction, which was not its own to end.
#[derive(Debug, thiserror::Error)]
#[error("it has committed or rolled back the transaction that it was given")]
struct EndedItself;

/// What became of the transaction, and whether its connection can be used again.
type Ended<C> = (Ran<C>, bool);

impl PostgresJournal {
    /// Runs a step in a transaction, until it is known what became of it.
    pub(in crate::saga) async fn in_transaction<C, D>(&self, work: &dyn Work<C, D>, run: LocalRun<C, D>) -> Ran<C>
    where
        C: Send + 'static,
        D: Send + Sync + 'static,
    {
        let (mut run, mut pause) = (run, FIRST_PAUSE);
        loop {
            let problem = match self.storage.connection().await {
                Ok(mut held) => match self.run_on(&mut held, work, run).await {
                    Ok((ran, clean)) => {
                        if clean {
                            held.give_back();
                        }
                        return ran;
                    }
                    Err((problem, not_run)) => {
                        run = not_run;
                        problem
                    }
                },
                Err(problem) => problem,
            };
            if !problem.is_retryable() {
                return Ran::Failed(StepError::not_sent(problem));
            }
            wait(&run.append, &problem, &mut pause).await;
        }
    }

    /// Runs it on this connection, unless that does not answer.
    async fn run_on<C, D>(
        &self,
        held: &mut Held<'_>,
        work: &dyn Work<C, D>,
        run: LocalRun<C, D>,
    ) -> Result<Ended<C>, (StorageError, LocalRun<C, D>)>
    where
        C: Send + 'static,
        D: Send + Sync + 'static,
    {
        let client = match held.client() {
            Ok(client) => client,
            Err(problem) => return Err((problem, run)),
        };
        match begin(&mut *client).await {
            Ok((transaction, number)) => Ok(self.finish(transaction, number, work, run).await),
            Err(error) => Err((describe(&error), run)),
        }
    }

    async fn finish<C, D>(
        &self,
        mut transaction: Transaction<'_>,
        number: i64,
        work: &dyn Work<C, D>,
        run: LocalRun<C, D>,
    ) -> Ended<C>
    where
        C: Send + 'static,
        D: Send + Sync + 'static,
    {
        let LocalRun {
            mut cx,
            limit,
            mut append,
            encode,
            ..
        } = run;
        let worked = bounded(work.call(&mut cx, &mut transaction), limit).await;
        let encoded = worked.and_then(|()| guarded(|| encode(cx.data)).map_err(StepError::failed));
        let context = match encoded {
            Ok((bytes, context)) => {
                if let Some(first) = append.entries.first_mut() {
                    first.context = Some(bytes);
                }
                context
            }
            Err(failed) => return undone(transaction, failed).await,
        };
        match append_in(&transaction, number, &append).await {
            Ok(Wrote::Head { cancel }) => {
                let Err(error) = transaction.commit().await else {
                    return (Ran::Committed { context, cancel }, true);
                };
                if is_refusal(&error) {
                    // A deferred constraint, say: it is rolled back.
                    return (Ran::Failed(nothing(StepError::not_sent(describe(&error)))), true);
                }
                (self.settle(&append, context, describe(&error)).await, false)
            }
            Ok(Wrote::Nothing) => {
                let clean = rolled_back(transaction).await;
                // An earlier run may have been committed whose reply was lost.
                let ran = match self.written(&append).await {
                    Ok(Appended::Written { cancel }) => Ran::Committed { context, cancel },
                    Ok(Appended::Fenced) => Ran::Fenced,
                    Err(error) => Ran::Failed(StepError::not_sent(error)),
                };
                (ran, clean)
            }
            Ok(Wrote::Elsewhere) => (Ran::Failed(StepError::fatal_unknown(EndedItself)), false),
            Err(error) => undone(transaction, StepError::not_sent(describe(&error))).await,
        }
    }

    /// What became of a transaction of whose commit nothing was heard.
    async fn settle<C>(&self, append: &Append, context: C, problem: StorageError) -> Ran<C> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.written(append).await {
                Ok(Appended::Written { cancel }) => return Ran::Committed { context, cancel },
                // Should it be committed even now, then what is written next in its place is not.
                Ok(Appended::Fenced) => return Ran::Failed(StepError::not_sent(problem)),
                Err(error) => wait(append, &error, &mut pause).await,
            }
        }
    }
}

/// Begins a transaction, and says which one it is.
async fn begin(client: &mut Client) -> Result<(Transaction<'_>, i64), Error> {
    let transaction = client.transaction().await?;
    let row = transaction.query_typed("SELECT txid_current()", &[]).await?;
    let number = row.first().map(|row| row.try_get(0)).transpose()?;
    Ok((transaction, number.unwrap_or_default()))
}

/// What an append in a transaction has written.
enum Wrote {
    Head {
        cancel: bool,
    },
    Nothing,
    /// Nothing, and it was not in the transaction that was begun.
    Elsewhere,
}

async fn append_in(transaction: &Transaction<'_>, number: i64, append: &Append) -> Result<Wrote, Error> {
    let values = Values::of(append);
    let number: Param<'_> = (&number, Type::INT8);
    let params: Vec<_> = values.params(append).into_iter().chain([number]).collect();
    let rows = transaction.query_typed(&sql::APPEND_IN_TX, &params).await?;
    let Some(row) = rows.first() else {
        return Ok(Wrote::Nothing);
    };
    Ok(match (row.try_get(0)?, row.try_get(1)?) {
        (false, _) => Wrote::Elsewhere,
        (true, None) => Wrote::Nothing,
        (true, Some(cancel)) => Wrote::Head { cancel },
    })
}

/// What a step says that was rolled back: whatever it thinks, nothing has happened.
fn nothing(failed: StepError) -> StepError {
    StepError {
        effect: Effect::None,
        ..failed
    }
}

async fn undone<C>(transaction: Transaction<'_>, failed: StepError) -> Ended<C> {
    (Ran::Failed(nothing(failed)), rolled_back(transaction).await)
}

async fn rolled_back(transaction: Transaction<'_>) -> bool {
    matches!(timeout(ROLLBACK, transaction.rollback()).await, Ok(Ok(())))
}

async fn wait(append: &Append, problem: &StorageError, pause: &mut Duration) {
    tracing::warn!(target: "steadfast::saga", id = %append.id, %problem, "the journal does not answer");
    sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
