//! Records in Redis.

mod connection;
mod error;
mod layout;
mod reply;
mod script;
mod store;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use redis::Value;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use tokio::task::JoinSet;

use super::Inspected;
use crate::KeyId;
use crate::storage::{StorageError, StorageErrorKind};
use connection::Connection;
use error::storage_error;
use reply::Reply;
use script::Transition;

/// What the keys of a [`RedisStore`] begin with by default.
pub const DEFAULT_REDIS_PREFIX: &str = "steadfast:idempotency:";

/// How long a request may take before its connection is taken for dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Records that are looked at together when all are.
const AT_ONCE: usize = 256;

/// Keeps records in Redis 5 or later, one server or a cluster.
///
/// Each record is one string, and each call one script on it. The clock is that of the server. A claim of a key of which
/// there is nothing costs the server little more than the `SET .. NX` that it is.
///
/// # What it can lose
///
/// Redis acknowledges a write before it is on another machine, and by default before it is on disk. A failover or a
/// crash forgets the last of them: a claim, so that another caller runs the operation as well; or an outcome, so that it
/// runs again. Records that an operator or [at most once](super::super::Idempotency::at_most_once) relies on belong in a database that is
/// [durable](super::Durability::Durable). A fence could shrink only if a failover both loses the record and moves to a clock that is
/// behind it.
///
/// # What it wants
///
/// `maxmemory-policy noeviction`, or the store refuses to connect: Redis would forget records to make room. Where the
/// server does not say, or has no append-only file, there is a warning in the log.
///
/// # Examples
///
/// ```no_run
/// use steadfast::idempotency::{Idempotency, RedisStore};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// let idempotency = Idempotency::at_least_once(store).build()?;
/// # drop(idempotency); Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    connection: Connection,
    prefix: Cow<'static, str>,
}

impl RedisStore {
    /// Connects to one server, over a connection that comes back by itself.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses, or evicts records.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, StorageError> {
        let client = redis::Client::open(url.as_ref()).map_err(|error| storage_error(&error))?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT));
        let manager = ConnectionManager::new_with_config(client, config).await;
        Self::from_manager(manager.map_err(|error| storage_error(&error))?).await
    }

    /// Connects to a cluster, of which some nodes are named.
    ///
    /// # Errors
    ///
    /// When no node can be reached, or one refuses or evicts records.
    pub async fn connect_cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, StorageError> {
        let urls = urls.into_iter().map(|url| url.as_ref().to_owned());
        let client = ClusterClient::builder(urls)
            .response_timeout(RESPONSE_TIMEOUT)
            .connection_timeout(CONNECTION_TIMEOUT)
            .build();
        let client = client.map_err(|error| storage_error(&error))?;
        let connection = client.get_async_connection().await;
        Self::from_cluster(connection.map_err(|error| storage_error(&error))?).await
    }

    /// The store over a connection of your own.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses, or evicts records.
    pub async fn from_manager(manager: ConnectionManager) -> Result<Self, StorageError> {
        Self::over(Connection::Single(manager)).await
    }

    /// The store over a connection of your own to a cluster.
    ///
    /// # Errors
    ///
    /// When a node cannot be reached, refuses, or evicts records.
    pub async fn from_cluster(connection: ClusterConnection) -> Result<Self, StorageError> {
        Self::over(Connection::Cluster(connection)).await
    }

    async fn over(connection: Connection) -> Result<Self, StorageError> {
        connection.check().await?;
        Ok(Self {
            connection,
            prefix: Cow::Borrowed(DEFAULT_REDIS_PREFIX),
        })
    }

    /// Has keys begin with something else. Default: [`DEFAULT_REDIS_PREFIX`].
    ///
    /// Records under another prefix are not found. In a cluster, a prefix with a hash tag (`{orders}:`) keeps all records
    /// on one node.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Cow<'static, str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    async fn ask(&self, script: &Transition, id: KeyId, args: &[&[u8]]) -> Result<Value, StorageError> {
        let key = format!("{}{id}", self.prefix);
        self.connection.run(script, &key, args).await
    }

    async fn run(&self, script: &Transition, id: KeyId, args: &[&[u8]]) -> Result<(Vec<u8>, Reply), StorageError> {
        Reply::read(self.ask(script, id, args).await?)
    }

    /// The ids of all records after `after` in order, those among them that have expired.
    async fn ids(&self, after: Option<KeyId>) -> Result<Vec<KeyId>, StorageError> {
        let keys = self.connection.keys(&self.prefix).await?;
        // Another store's prefix may begin with this one's.
        let ids = keys
            .iter()
            .filter_map(|key| key.strip_prefix(&*self.prefix)?.parse().ok());
        let mut ids: Vec<KeyId> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Those of `ids` that are interrupted, in order. They are asked for at once, as each alone would wait for the one
    /// before.
    async fn interrupted(&self, ids: &[KeyId]) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let mut asked = JoinSet::new();
        for id in ids.iter().copied() {
            let store = self.clone();
            asked.spawn(async move {
                let (state, reply) = store.run(&script::INSPECT, id, &[b"interrupted"]).await?;
                Ok::<_, StorageError>(reply.found(&state)?.map(|inspected| (id, inspected)))
            });
        }
        let mut found = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let stopped = |_| StorageError::new(StorageErrorKind::Unavailable, "the runtime is shutting down");
            found.extend(answer.map_err(stopped)??);
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        Ok(found)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .field("cluster", &matches!(self.connection, Connection::Cluster(_)))
            .finish_non_exhaustive()
    }
}
