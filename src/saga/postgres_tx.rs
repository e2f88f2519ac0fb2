//! Steps in a transaction of the PostgreSQL journal.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::Transaction;

use super::StepError;
use super::cx::Cx;
use super::error::StepResult;
use super::journal::{Journal, PostgresJournal};
use super::local::{LocalCode, LocalRun, NoTransaction, Ran};
use super::step::Step;

/// An async closure of two arguments whose future has a name, so that it can be asked to be `Send`.
#[doc(hidden)]
pub trait AsyncOnce2<A, B, R>: AsyncFnOnce(A, B) -> R + FnOnce(A, B) -> <Self as AsyncOnce2<A, B, R>>::Fut {
    /// The future.
    type Fut: Future<Output = R>;
}

impl<F, Fut, A, B, R> AsyncOnce2<A, B, R> for F
where
    F: AsyncFnOnce(A, B) -> R + FnOnce(A, B) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

/// The action of a step in a transaction: `async |cx: &mut Cx<Order>, tx: &mut Transaction<'_>| { .. Ok(()) }`, or an
/// `async fn` of that form.
///
/// It is cloned for each run, so what it captures has to be `Clone`; and its future has to be `Send`.
#[diagnostic::on_unimplemented(
    message = "this is no action in a transaction for a saga over `{C}` with `{D}`",
    label = "expected an async closure or function from `&mut Cx<{C}, {D}>` and `&mut Transaction<'_>` to `StepResult`",
    note = "what it captures has to be `Clone + Send + Sync + 'static`, and what it holds over an `.await` has to be `Send`"
)]
pub trait PostgresAction<C, D>:
    for<'a, 't> AsyncOnce2<&'a mut Cx<C, D>, &'a mut Transaction<'t>, StepResult, Fut: Send> + Clone + Send + Sync + 'static
{
}

impl<C, D, F> PostgresAction<C, D> for F where
    F: for<'a, 't> AsyncOnce2<&'a mut Cx<C, D>, &'a mut Transaction<'t>, StepResult, Fut: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Such an action without its type.
pub(super) trait Work<C, D>: Send + Sync {
    fn call<'a>(&self, cx: &'a mut Cx<C, D>, transaction: &'a mut Transaction<'_>) -> BoxFuture<'a, StepResult>;
}

struct InTransaction<F>(F);

impl<C, D, F> Work<C, D> for InTransaction<F>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
    F: PostgresAction<C, D>,
{
    fn call<'a>(&self, cx: &'a mut Cx<C, D>, transaction: &'a mut Transaction<'_>) -> BoxFuture<'a, StepResult> {
        Box::pin((self.0.clone())(cx, transaction))
    }
}

impl<C, D, F> LocalCode<C, D> for InTransaction<F>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
    F: PostgresAction<C, D>,
{
    fn fits(&self, journal: &dyn Journal) -> bool {
        postgres(journal).is_some()
    }

    fn run<'a>(&'a self, journal: &'a dyn Journal, run: LocalRun<C, D>) -> BoxFuture<'a, Ran<C>> {
        Box::pin(async move {
            match postgres(journal) {
                Some(journal) => journal.in_transaction(self, run).await,
                None => Ran::Failed(StepError::failed(NoTransaction)),
            }
        })
    }
}

fn postgres(journal: &dyn Journal) -> Option<&PostgresJournal> {
    journal.local()?.downcast_ref()
}

impl<C: Send + 'static, D: Send + Sync + 'static> Step<C, D> {
    /// A step whose whole effect is in the database of a [`PostgresJournal`], and happens exactly once.
    ///
    /// It runs in a transaction that is committed together with the note that it has succeeded: a crash leaves both or
    /// neither, and an error, a panic and a timeout leave nothing. So nothing about it is ever in doubt, and a failure of
    /// it needs no undo. Never call a remote service inside, and leave the commit to the engine.
    ///
    /// It has no undo until it is given one, with [`with_undo`](Self::with_undo); [`as_pivot`](Self::as_pivot) and
    /// [`as_retriable`](Self::as_retriable) make it another kind of step. It needs an engine over a `PostgresJournal`;
    /// others refuse the saga, and [`Saga::run`](super::Saga::run) has the step fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use steadfast::saga::{Cx, Saga, Step};
    /// use steadfast::storage::tokio_postgres::Transaction;
    ///
    /// # #[derive(Clone)]
    /// struct Order {
    ///     id: i64,
    /// }
    ///
    /// let book = Step::postgres_tx("book", async |cx: &mut Cx<Order>, tx: &mut Transaction<'_>| {
    ///     tx.execute("INSERT INTO booking (order_id) VALUES ($1)", &[&cx.id]).await?;
    ///     Ok(())
    /// });
    /// let orders = Saga::<Order>::builder("order").with(book.as_pivot()).build()?;
    /// # Ok::<_, steadfast::ConfigError>(())
    /// ```
    pub fn postgres_tx(name: impl Into<Cow<'static, str>>, work: impl PostgresAction<C, D>) -> Self {
        Self::local(name.into(), Arc::new(InTransaction(work)))
    }
}
