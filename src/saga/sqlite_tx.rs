//! Steps in the writer's transactions of the SQLite journal.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use rusqlite::Connection;

use super::StepError;
use super::cx::Cx;
use super::error::StepResult;
use super::journal::{Journal, SqliteJournal};
use super::local::{LocalCode, LocalRun, NoTransaction, Ran};
use super::step::Step;

/// The action of a step in a transaction of the file's writer.
pub(crate) type Work<C, D> = dyn Fn(&mut Cx<C, D>, &Connection) -> StepResult + Send + Sync;

struct OnWriter<C, D>(Arc<Work<C, D>>);

impl<C, D> LocalCode<C, D> for OnWriter<C, D>
where
    C: Clone + Send + 'static,
    D: Send + Sync + 'static,
{
    fn fits(&self, journal: &dyn Journal) -> bool {
        sqlite(journal).is_some()
    }

    fn run<'a>(
        &'a self,
        journal: &'a dyn Journal,
        run: LocalRun<C, D>,
    ) -> Pin<Box<dyn Future<Output = Ran<C>> + Send + 'a>> {
        Box::pin(async move {
            match sqlite(journal) {
                Some(journal) => journal.in_transaction(&self.0, run).await,
                None => Ran::Failed(StepError::failed(NoTransaction)),
            }
        })
    }
}

fn sqlite(journal: &dyn Journal) -> Option<&SqliteJournal> {
    journal.local()?.downcast_ref()
}

impl<C: Clone + Send + 'static, D: Send + Sync + 'static> Step<C, D> {
    /// A step whose whole effect is in the file of a [`SqliteJournal`], and happens exactly once.
    ///
    /// Its work is plain code, run on the thread that writes the file, in the transaction that notes that the step has
    /// succeeded: a crash leaves both or neither, and an error and a panic leave nothing. So nothing about it is ever in
    /// doubt, and a failure of it needs no undo. It is to be quick: all that writes to the file waits for it, and no timeout
    /// reaches it. It cannot end the transaction, attach files or set pragmas: such statements fail.
    ///
    /// It has no undo until it is given one, with [`with_undo`](Self::with_undo); [`as_pivot`](Self::as_pivot) and
    /// [`as_retriable`](Self::as_retriable) make it another kind of step. It needs an engine over a `SqliteJournal`;
    /// others refuse the saga, and [`Saga::run`](super::Saga::run) has the step fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use steadfast::Key;
    /// use steadfast::saga::journal::SqliteJournal;
    /// use steadfast::saga::{Cx, Saga, SagaEngine, Step};
    /// use steadfast::storage::rusqlite::Connection;
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Trip {
    ///     seat: String,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("steadfast-doc-local-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let path = folder.join("app.db");
    /// # Connection::open(&path)?.execute_batch("CREATE TABLE booking (seat TEXT PRIMARY KEY)")?;
    /// let book = Step::sqlite_tx("book", |cx: &mut Cx<Trip>, connection: &Connection| {
    ///     connection.execute("INSERT INTO booking (seat) VALUES (?1)", [&cx.seat])?;
    ///     Ok(())
    /// });
    /// let trips = Saga::<Trip>::builder("trip").with(book.as_pivot()).build()?;
    ///
    /// let journal = SqliteJournal::open(&path).await?;
    /// journal.migrate().await?;
    /// let engine = SagaEngine::builder(journal).register(&trips).build()?;
    /// let trip = Trip { seat: "12 A".into() };
    /// engine.start(&trips, &Key::new("shop", "trip-1"), trip).await?.await?;
    ///
    /// let booked = "SELECT count(*) FROM booking WHERE seat = '12 A'";
    /// let booked: u32 = Connection::open(&path)?.query_row(booked, [], |row| row.get(0))?;
    /// assert_eq!(booked, 1);
    /// # drop(engine); std::fs::remove_dir_all(folder)?;
    /// # Ok(()) }
    /// ```
    pub fn sqlite_tx(
        name: impl Into<Cow<'static, str>>,
        work: impl Fn(&mut Cx<C, D>, &Connection) -> StepResult + Send + Sync + 'static,
    ) -> Self {
        Self::local(name.into(), Arc::new(OnWriter(Arc::new(work))))
    }
}
