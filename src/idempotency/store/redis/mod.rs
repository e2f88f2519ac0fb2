//! Records in Redis.

mod connection;
mod error;
mod reply;
mod script;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use tokio::task::JoinSet;

use super::super::record::{
    Cancellation, Claim, ClaimId, Claimed, Completed, Ended, Forgotten, Mode, Outcome, Owner, Renewed, Resolution,
    Resolved,
};
use super::{Durability, Inspected, Store};
use crate::KeyId;
use crate::storage::{StorageError, StorageErrorKind};
use connection::Connection;
use error::storage_error;
use reply::{Reply, unreadable};
use script::Transition;

/// What the keys of a [`RedisStore`] begin with by default.
pub const DEFAULT_REDIS_PREFIX: &str = "steadfast:idempotency:";

/// How long a request may take before its connection is taken for dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Records that are looked at together when all are.
const AT_ONCE: usize = 256;
/// A century: a longer time saturates, and below 2^53 milliseconds every sum of a few of them is exact.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Keeps records in Redis 5 or later, one server or a cluster.
///
/// Each record is one hash, and each call one script on it. The clock is that of the server.
///
/// # What it can lose
///
/// Redis acknowledges a write before it is on another machine, and by default before it is on disk. A failover or a
/// crash forgets the last of them: a claim, so that another caller runs the operation as well; or an outcome, so that it
/// runs again. Records that an operator or [`Mode::AtMostOnce`] relies on belong in a database that is
/// [durable](Durability::Durable). A fence could shrink only if a failover both loses the record and moves to a clock that is
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

    async fn run(&self, script: &Transition, id: KeyId, args: &[&[u8]]) -> Result<(Bytes, Reply), StorageError> {
        let key = format!("{}{id}", self.prefix);
        let answer = self.connection.run(script, &key, args).await?;
        Reply::read(answer)
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

/// In whole milliseconds, not shorter.
fn millis(time: Duration) -> Vec<u8> {
    let millis = time.min(LONGEST).as_nanos().div_ceil(1_000_000);
    millis.to_string().into_bytes()
}

impl Store for RedisStore {
    async fn claim(&self, id: KeyId, claim: &Claim) -> Result<Claimed, StorageError> {
        let retention = match claim.mode {
            Mode::AtLeastOnce { retention } => millis(retention),
            Mode::AtMostOnce => Vec::new(),
        };
        let lease = millis(claim.lease);
        let args: [&[u8]; 4] = [
            claim.claim_id.as_bytes(),
            claim.fingerprint.as_bytes(),
            &lease,
            &retention,
        ];
        let (answer, mut reply) = self.run(&script::CLAIM, id, &args).await?;
        Ok(match &*answer {
            b"owned" => Claimed::Owned {
                owner: Owner {
                    claim_id: claim.claim_id,
                    fence: reply.number()?,
                    attempt: reply.attempt()?,
                    fingerprint: claim.fingerprint,
                },
                checkpoint: reply.optional()?,
            },
            b"completed" => Claimed::Completed {
                attempt: reply.attempt()?,
                outcome: Outcome(reply.bytes()?),
            },
            b"in progress" => Claimed::InProgress {
                lease_left: reply.time()?,
            },
            b"mismatch" => Claimed::Mismatch,
            b"unknown" => Claimed::Unknown(reply.interrupted()?),
            b"cancelled" => Claimed::Cancelled,
            _ => return Err(unreadable()),
        })
    }

    async fn complete(
        &self,
        id: KeyId,
        owner: &Owner,
        outcome: &Bytes,
        retention: Duration,
    ) -> Result<Completed, StorageError> {
        let (fence, attempt) = (owner.fence.to_string(), owner.attempt.to_string());
        let retention = millis(retention);
        let args: [&[u8]; 6] = [
            owner.claim_id.as_bytes(),
            fence.as_bytes(),
            attempt.as_bytes(),
            owner.fingerprint.as_bytes(),
            &retention,
            outcome,
        ];
        let (answer, _) = self.run(&script::COMPLETE, id, &args).await?;
        match &*answer {
            b"applied" => Ok(Completed::Applied),
            b"already applied" => Ok(Completed::AlreadyApplied),
            b"lost" => Ok(Completed::Lost),
            _ => Err(unreadable()),
        }
    }

    async fn renew(
        &self,
        id: KeyId,
        owner: &Owner,
        lease: Duration,
        checkpoint: Option<&Bytes>,
    ) -> Result<Renewed, StorageError> {
        let lease = millis(lease);
        let mut args: Vec<&[u8]> = vec![owner.claim_id.as_bytes(), &lease];
        args.extend(checkpoint.map(|checkpoint| &**checkpoint));
        let (answer, _) = self.run(&script::RENEW, id, &args).await?;
        match &*answer {
            b"renewed" => Ok(Renewed::Renewed),
            b"lost" => Ok(Renewed::Lost),
            _ => Err(unreadable()),
        }
    }

    async fn release(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(id, owner, b"release").await
    }

    async fn interrupt(&self, id: KeyId, owner: &Owner) -> Result<Ended, StorageError> {
        self.end(id, owner, b"interrupt").await
    }

    async fn cancel(&self, id: KeyId) -> Result<Cancellation, StorageError> {
        let (answer, mut reply) = self.run(&script::CANCEL, id, &[]).await?;
        Ok(match &*answer {
            b"cancelled" => Cancellation::Cancelled,
            b"cancelled unknown" => Cancellation::CancelledUnknown(reply.interrupted()?),
            b"done" => Cancellation::AlreadyDone(Outcome(reply.bytes()?)),
            b"in progress" => Cancellation::InProgress {
                lease_left: reply.time()?,
            },
            _ => return Err(unreadable()),
        })
    }

    async fn resolve(&self, id: KeyId, resolution: &Resolution) -> Result<Resolved, StorageError> {
        let (answer, _) = match resolution {
            Resolution::NotExecuted => self.run(&script::RESOLVE, id, &[]).await?,
            Resolution::Completed { outcome, retention } => {
                let retention = millis(*retention);
                let args: [&[u8]; 3] = [ClaimId::NOBODY.as_bytes(), outcome, &retention];
                self.run(&script::RESOLVE, id, &args).await?
            }
        };
        match &*answer {
            b"resolved" => Ok(Resolved::Resolved),
            b"not interrupted" => Ok(Resolved::NotInterrupted),
            _ => Err(unreadable()),
        }
    }

    async fn forget(&self, id: KeyId) -> Result<Forgotten, StorageError> {
        let (answer, _) = self.run(&script::FORGET, id, &[]).await?;
        match &*answer {
            b"forgotten" => Ok(Forgotten::Forgotten),
            b"absent" => Ok(Forgotten::Absent),
            b"in progress" => Ok(Forgotten::InProgress),
            _ => Err(unreadable()),
        }
    }

    async fn inspect(&self, id: KeyId) -> Result<Option<Inspected>, StorageError> {
        let (state, reply) = self.run(&script::INSPECT, id, &[]).await?;
        reply.found(&state)
    }

    /// Slow: it scans every key of the server, and looks at those of this store. Records that come or go meanwhile are
    /// listed or not.
    async fn list_interrupted(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(KeyId, Inspected)>, StorageError> {
        let mut found = Vec::new();
        for ids in self.ids(after).await?.chunks(AT_ONCE) {
            if found.len() >= limit {
                break;
            }
            found.extend(self.interrupted(ids).await?);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Slow, as [`list_interrupted`](Store::list_interrupted) is here.
    async fn count_interrupted(&self) -> Result<u64, StorageError> {
        let mut count = 0;
        for ids in self.ids(None).await?.chunks(AT_ONCE) {
            count += self.interrupted(ids).await?.len();
        }
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Nothing, and says 0: Redis removes expired records by itself, a day after they have expired.
    async fn purge(&self, _: usize) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn durability(&self) -> Durability {
        Durability::Relaxed
    }
}

impl RedisStore {
    async fn end(&self, id: KeyId, owner: &Owner, how: &[u8]) -> Result<Ended, StorageError> {
        let (answer, _) = self
            .run(&script::INTERRUPT, id, &[owner.claim_id.as_bytes(), how])
            .await?;
        match &*answer {
            b"released" => Ok(Ended::Released),
            b"interrupted" => Ok(Ended::Interrupted),
            b"lost" => Ok(Ended::Lost),
            _ => Err(unreadable()),
        }
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
