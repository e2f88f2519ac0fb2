//! What steps in transactions of the journal have booked, in the journal's own database.
//!
//! The table has no key, and would keep what comes twice.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::thread;

use steadfast::saga::{Cx, Step, StepError, StepResult};
use steadfast::storage::rusqlite::Connection;
use steadfast::storage::tokio_postgres::types::Type;
use steadfast::storage::tokio_postgres::{Client, Config, NoTls, Transaction};
use tokio::runtime::Builder;

use super::super::support::kill::Child;
use super::super::support::postgres_url;
use super::scenario::{Deps, Does, Order, call};
use super::world::Call;

#[derive(Clone)]
pub(crate) enum Bookings {
    File(PathBuf),
    Server(Box<Config>),
}

/// Where the folder of a journal on a server notes the name of its database.
pub(crate) fn note(place: &Path) -> PathBuf {
    place.join("database")
}

impl Bookings {
    /// Those beside the journal of this folder.
    pub(crate) fn of(place: &Path) -> Self {
        let Ok(name) = std::fs::read_to_string(note(place)) else {
            return Self::File(place.join("app.db"));
        };
        let mut config: Config = postgres_url().expect("it has a database").parse().unwrap();
        config.dbname(&name);
        Self::Server(Box::new(config))
    }

    /// How often the effect of the step is there.
    pub(crate) fn count(&self, saga: &str) -> usize {
        let count = match self {
            Self::File(path) => {
                let connection = Connection::open(path).unwrap();
                let there = connection.table_exists(None, "booking").unwrap();
                let count = "SELECT count(*) FROM booking WHERE saga = ?1";
                let count = there.then(|| connection.query_row(count, [saga], |row| row.get(0)).unwrap());
                count.unwrap_or(0_i64)
            }
            Self::Server(config) => asked(config, async |client: Client| {
                let count = "SELECT count(*) FROM booking WHERE saga = $1";
                client.query_one(count, &[&saga]).await.unwrap().get(0)
            }),
        };
        usize::try_from(count).unwrap()
    }

    /// Takes it back.
    pub(crate) fn remove(&self, saga: &str) {
        match self {
            Self::File(path) => {
                let connection = Connection::open(path).unwrap();
                let remove = "DELETE FROM booking WHERE saga = ?1";
                connection.execute(remove, [saga]).unwrap();
            }
            Self::Server(config) => asked(config, async |client: Client| {
                let remove = "DELETE FROM booking WHERE saga = $1";
                client.execute(remove, &[&saga]).await.unwrap();
            }),
        }
    }

    /// A step that books in a transaction of the journal.
    pub(super) fn step(&self, does: Does) -> Step<Order, Deps> {
        match self {
            Self::File(_) => Step::sqlite_tx("b", move |cx: &mut Cx<Order, Deps>, connection: &Connection| {
                let (child, call, times) = begun(cx);
                connection.execute("CREATE TABLE IF NOT EXISTS booking (saga TEXT)", [])?;
                connection.execute("INSERT INTO booking (saga) VALUES (?1)", [&call.saga])?;
                booked(cx, &child, does, times)
            }),
            Self::Server(_) => {
                let work = async move |cx: &mut Cx<Order, Deps>, transaction: &mut Transaction<'_>| {
                    let (child, call, times) = begun(cx);
                    let book = "INSERT INTO booking (saga) VALUES ($1)";
                    transaction.query_typed(book, &[(&call.saga, Type::TEXT)]).await?;
                    booked(cx, &child, does, times)
                };
                Step::postgres_tx("b", work)
            }
        }
    }
}

fn begun(cx: &Cx<Order, Deps>) -> (std::sync::Arc<Child>, Call, u32) {
    let Deps { world, child } = cx.deps().clone();
    let call = call(cx, "do");
    child.reach("before do b");
    let times = world.note(&call);
    (child, call, times)
}

fn booked(cx: &mut Cx<Order, Deps>, child: &Child, does: Does, times: u32) -> StepResult {
    child.reach("after do b");
    if matches!(does, Does::FailOnce) && times == 1 {
        return Err(StepError::unknown("it broke, and leaves nothing"));
    }
    cx.done.push("b".to_owned());
    Ok(())
}

/// Asks the server from code that is no future, in a runtime or not.
fn asked<T: Send, F: Future<Output = T>>(config: &Config, ask: impl FnOnce(Client) -> F + Send) -> T {
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (client, connection) = config.connect(NoTls).await.unwrap();
                tokio::spawn(connection);
                ask(client).await
            })
        });
        asking.join().unwrap()
    })
}
