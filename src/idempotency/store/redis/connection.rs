//! One server or a cluster.

use redis::aio::ConnectionManager;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::error::storage_error;
use super::reply::unreadable;
use super::script::Transition;
use crate::storage::{StorageError, StorageErrorKind};

/// Keys of one round of a scan.
const SCAN: usize = 1_000;

#[derive(Clone)]
pub(super) enum Connection {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

/// A node that keeps keys of its own.
enum Node {
    Only,
    Master(SingleNodeRoutingInfo),
}

impl Connection {
    async fn query(&self, cmd: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => cmd.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => cmd.query_async(&mut connection.clone()).await,
        }
    }

    pub(super) async fn run(&self, script: &Transition, key: &str, args: &[&[u8]]) -> Result<Value, StorageError> {
        let answer = match self.query(&script.by_hash(key, args)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&script.in_full(key, args)).await
            }
            answer => answer,
        };
        answer.map_err(|error| storage_error(&error))
    }

    async fn query_on(&self, node: &Node, cmd: Cmd) -> Result<Value, RedisError> {
        match (self, node) {
            (Self::Cluster(connection), Node::Master(node)) => {
                let routing = RoutingInfo::SingleNode(node.clone());
                connection.clone().route_command(cmd, routing).await
            }
            _ => self.query(&cmd).await,
        }
    }

    async fn nodes(&self) -> Result<Vec<Node>, StorageError> {
        let Self::Cluster(connection) = self else {
            return Ok(vec![Node::Only]);
        };
        // Without a policy to merge them, the answers come by the address of each node.
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answer = connection.clone().route_command(redis::cmd("PING"), everywhere).await;
        let Value::Map(answers) = answer.map_err(|error| storage_error(&error))? else {
            return Err(unreadable());
        };
        let mut nodes = Vec::new();
        for (address, _) in answers {
            let address: String = redis::from_redis_value(address).map_err(|_| unreadable())?;
            let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
            nodes.push(Node::Master(SingleNodeRoutingInfo::ByAddress {
                host: host.to_owned(),
                port: port.parse().map_err(|_| unreadable())?,
            }));
        }
        Ok(nodes)
    }

    /// Every key that begins with `prefix`, some of them perhaps twice.
    pub(super) async fn keys(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let pattern = pattern(prefix);
        let mut keys = Vec::new();
        for node in self.nodes().await? {
            let mut cursor = "0".to_owned();
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN);
                let answer = self.query_on(&node, scan).await;
                let answer = answer.map_err(|error| storage_error(&error))?;
                let (next, page): (String, Vec<String>) = redis::from_redis_value(answer).map_err(|_| unreadable())?;
                keys.extend(page);
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(keys)
    }

    /// Refuses servers that forget records to make room, and warns where a restart forgets some.
    pub(super) async fn check(&self) -> Result<(), StorageError> {
        for node in self.nodes().await? {
            let (Some(memory), Some(persistence)) = (
                self.info(&node, "memory").await?,
                self.info(&node, "persistence").await?,
            ) else {
                tracing::warn!(
                    target: "steadfast::idempotency",
                    "Redis does not say how it evicts and persists: make sure of maxmemory-policy noeviction"
                );
                continue;
            };
            let policy = field(&memory, "maxmemory_policy").unwrap_or("unknown");
            if policy != "noeviction" {
                let what = format!("Redis evicts records: its maxmemory-policy is {policy} and has to be noeviction");
                return Err(StorageError::new(StorageErrorKind::Refused, what));
            }
            if field(&persistence, "aof_enabled") != Some("1") {
                tracing::warn!(
                    target: "steadfast::idempotency",
                    "Redis has no append-only file: a restart forgets what was claimed since its last snapshot"
                );
            }
        }
        Ok(())
    }

    /// `None` where the server forbids to ask.
    async fn info(&self, node: &Node, section: &str) -> Result<Option<String>, StorageError> {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        match self.query_on(node, info).await {
            Ok(answer) => redis::from_redis_value(answer).map(Some).map_err(|_| unreadable()),
            Err(error) => match error.kind() {
                // No permission, or no such command.
                ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => Ok(None),
                _ => Err(storage_error(&error)),
            },
        }
    }
}

/// Of keys that begin with exactly this.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_itself_alone() {
        assert_eq!(pattern("a*b[c]:"), r"a\*b\[c\]:*");
    }

    #[test]
    fn a_field_is_read_up_to_its_line_and_not_from_a_longer_name() {
        let info = "# Memory\r\nmaxmemory_policy_x:no\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(field(info, "maxmemory_policy"), Some("noeviction"));
        assert_eq!(field(info, "aof_enabled"), None);
    }
}
