//! The pool, and how a statement gets through it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Manager, Object, Pool, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, NoTls, Row};

use super::error::{Again, is_lost, is_unprepared, pool_error, storage_error};
use crate::storage::{Migration, StorageError, StorageErrorKind};

/// How long [`PostgresStorage::connect`] waits for a connection, be it a new one or one that comes back to the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A parameter of a statement, with its type: so the server need not be asked for it, nor remember the statement.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A PostgreSQL database that keeps durable state: a pool of connections to it.
///
/// A clone is the same pool. It works behind PgBouncer in transaction mode. One more connection than the pool has is kept
/// for renewals of leases, so that they never wait for those whose leases they are.
///
/// Where connections lead to the server itself, [`prepared`](Self::prepared) makes what happens most a little cheaper.
///
/// # Examples
///
/// ```no_run
/// use steadfast::storage::PostgresStorage;
///
/// # async fn example(pool: deadpool_postgres::Pool) -> Result<(), steadfast::storage::StorageError> {
/// let own_pool = PostgresStorage::connect("postgres://app@localhost/app").await?;
/// let your_pool = PostgresStorage::new(pool);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStorage {
    shared: Arc<Shared>,
    /// Whether the most frequent statements are prepared. It guards nothing: relaxed.
    prepared: Arc<AtomicBool>,
}

struct Shared {
    pool: Pool,
    /// Taken out of the pool for good.
    reserve: Mutex<Option<Arc<ClientWrapper>>>,
}

impl PostgresStorage {
    /// The database of this pool. Its TLS, its limits and its timeouts are yours.
    ///
    /// Give it a timeout for waiting: a call of a store that is given up is otherwise all that ends the wait for a
    /// connection.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                reserve: Mutex::new(None),
            }),
            prepared: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Prepares the statements that claim and complete, once for each connection. Default: the server plans them each time,
    /// as calls of functions whose own plans it keeps. With one client beside the server that is a fifth of the time of a
    /// claim (`benches/README.md` has the figures); with many, or over a network, hardly any of it.
    ///
    /// Only where a connection of the pool is a session of the server: a direct one, PgBouncer in session mode, or
    /// PgBouncer 1.21 and later with `max_prepared_statements` above zero. An older one in transaction mode hands a
    /// connection on from client to client with what was prepared on it, under names that the clients have chosen each for
    /// itself: where two processes chose the same, the one runs the other's statement. No client can see that from
    /// outside, so it is for you to say, and not guessed.
    ///
    /// Where the server does not know a statement any more, nothing was run: it is run unprepared, as are all from then
    /// on, with a warning.
    #[must_use]
    pub fn prepared(self) -> Self {
        Self {
            prepared: Arc::new(AtomicBool::new(true)),
            ..self
        }
    }

    /// Makes a pool for the database at `url`, without TLS: `postgres://user:password@host:port/database`.
    ///
    /// # Errors
    ///
    /// When the URL is none, or a first connection cannot be made.
    ///
    /// # Cancel safety
    ///
    /// A connection that is being made is closed.
    pub async fn connect(url: &str) -> Result<Self, StorageError> {
        // The error of the parser may quote a part of what might be a password.
        let mut config: Config = url
            .parse()
            .map_err(|_| StorageError::new(StorageErrorKind::Refused, "this is no URL of a PostgreSQL database"))?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("steadfast");
        }
        let pool = Pool::builder(Manager::new(config, NoTls))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|_| StorageError::new(StorageErrorKind::Refused, "no pool can be made for PostgreSQL"))?;
        let storage = Self::new(pool);
        drop(storage.shared.pool.get().await.map_err(pool_error)?);
        Ok(storage)
    }

    /// Runs the steps of a schema that have not been run.
    pub(crate) async fn migrate(&self, steps: &[Migration]) -> Result<(), StorageError> {
        let mut held = self.connection().await?;
        let migrated = super::migrate::migrate(held.client()?, steps).await;
        if migrated.is_ok() {
            held.give_back();
        }
        migrated
    }

    /// Runs one statement, which is a transaction of its own and may be sent twice.
    pub(crate) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StorageError> {
        self.run(sql, params, |_| false).await
    }

    /// The same for a statement that has only one plan, whatever the tables hold: prepared, it keeps the plan that it got
    /// when they were empty.
    pub(crate) async fn query_prepared(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StorageError> {
        self.run(sql, params, |prepared| prepared.load(Ordering::Relaxed)).await
    }

    async fn run(
        &self,
        sql: &str,
        params: &[Param<'_>],
        is_prepared: impl Fn(&AtomicBool) -> bool,
    ) -> Result<Vec<Row>, StorageError> {
        let mut again = Again::default();
        loop {
            let mut held = self.connection().await?;
            let client = held.client()?;
            let prepared = is_prepared(&self.prepared);
            let answer = if prepared {
                query_prepared(client, sql, params).await
            } else {
                client.query_typed(sql, params).await
            };
            if !answer.as_ref().is_err_and(is_lost) {
                held.give_back();
            }
            match answer {
                Err(error) if prepared && is_unprepared(&error) => self.unprepare(),
                Err(error) if again.may_help(&error) => {}
                answer => return answer.map_err(storage_error),
            }
        }
    }

    fn unprepare(&self) {
        if self.prepared.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                target: "steadfast::storage",
                "PostgreSQL has lost a prepared statement, as behind PgBouncer in transaction mode: nothing is prepared any more"
            );
        }
    }

    /// The same on the connection that is kept for renewals, where statements of many callers follow one another without
    /// waiting for the answers. None of them may wait for a lock for long.
    pub(crate) async fn query_in_reserve(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StorageError> {
        let mut again = Again::default();
        loop {
            let mut asked = Asked {
                shared: &self.shared,
                client: self.reserve().await?,
                answered: false,
            };
            let answer = asked.client.query_typed(sql, params).await;
            asked.answered = !answer.as_ref().is_err_and(is_lost);
            match answer {
                Err(error) if again.may_help(&error) => {}
                answer => return answer.map_err(storage_error),
            }
        }
    }

    /// A connection of one's own.
    pub(crate) async fn connection(&self) -> Result<Held<'_>, StorageError> {
        let object = self.shared.pool.get().await.map_err(pool_error)?;
        Ok(Held {
            shared: &self.shared,
            object: Some(object),
        })
    }

    async fn reserve(&self) -> Result<Arc<ClientWrapper>, StorageError> {
        if let Some(client) = self.shared.reserve() {
            return Ok(client);
        }
        let object = self.shared.pool.get().await.map_err(pool_error)?;
        Ok(self.shared.keep(object))
    }
}

async fn query_prepared(
    client: &ClientWrapper,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let types: Vec<Type> = params.iter().map(|(_, kind)| kind.clone()).collect();
    let statement = client.prepare_typed_cached(sql, &types).await?;
    let values: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| *value).collect();
    client.query(&statement, &values).await
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<ClientWrapper>>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self) -> Option<Arc<ClientWrapper>> {
        self.lock()
            .as_ref()
            .filter(|client| !client.is_closed())
            .map(Arc::clone)
    }

    /// Takes the connection out of the pool, which makes itself another one, unless there is one in reserve by now.
    fn keep(&self, object: Object) -> Arc<ClientWrapper> {
        let mut reserve = self.lock();
        match reserve.as_ref() {
            Some(client) if !client.is_closed() => Arc::clone(client),
            _ => {
                let client = Arc::new(Object::take(object));
                *reserve = Some(Arc::clone(&client));
                client
            }
        }
    }
}

/// A connection from the pool. Dropped before it is given back it is closed: a statement may still be running on it, for
/// which whoever got it next would wait.
pub(crate) struct Held<'a> {
    shared: &'a Shared,
    object: Option<Object>,
}

impl Held<'_> {
    pub(crate) fn client(&mut self) -> Result<&mut ClientWrapper, StorageError> {
        let object = self.object.as_mut();
        let gone = || StorageError::new(StorageErrorKind::Unavailable, "the connection was given back");
        Ok(&mut **object.ok_or_else(gone)?)
    }

    /// To the pool, or to the reserve where that is empty: so a renewal finds a connection there, also when the pool has
    /// none left to give.
    pub(crate) fn give_back(&mut self) {
        let Some(object) = self.object.take() else { return };
        if self.shared.reserve().is_none() && !object.is_closed() {
            self.shared.keep(object);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// A statement on the connection in reserve. Without an answer from it, be it that it was given up, its connection may
/// hang: the next one makes another.
struct Asked<'a> {
    shared: &'a Shared,
    client: Arc<ClientWrapper>,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut reserve = self.shared.lock();
        if !self.answered && reserve.as_ref().is_some_and(|client| Arc::ptr_eq(client, &self.client)) {
            *reserve = None;
        }
    }
}

impl fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStorage")
            .field("pool", &self.shared.pool.status())
            .finish_non_exhaustive()
    }
}
