//! What an error of Redis means. Its text is left out but for its code: the server quotes arguments in it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::reply::foreign;
use crate::storage::{StorageError, StorageErrorKind};

pub(super) fn storage_error(error: &RedisError) -> StorageError {
    let code = error.code().unwrap_or_default();
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => {
            let unreachable = StorageError::new(StorageErrorKind::Unavailable, "Redis cannot be reached");
            // The operating system's or the client's own words: no command is in them.
            match std::error::Error::source(error) {
                Some(source) => unreachable.with_source(source.to_string()),
                None => unreachable,
            }
        }
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => StorageError::new(
            StorageErrorKind::Refused,
            "Redis refuses this user: it needs EVAL, EVALSHA, SCAN, INFO and the commands of the scripts",
        ),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            StorageError::new(StorageErrorKind::Corrupt, "Redis answered what cannot be read")
        }
        ErrorKind::InvalidClientConfig => {
            StorageError::new(StorageErrorKind::Refused, "the URL of Redis cannot be understood")
        }
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            // What was the master before a failover says so, until the connection goes to the new one.
            | ServerErrorKind::ReadOnly,
        ) => with_code(StorageErrorKind::Unavailable, "Redis is not ready", code),
        ErrorKind::Extension if code == "OOM" => {
            StorageError::new(StorageErrorKind::Full, "Redis has reached its maxmemory")
        }
        ErrorKind::Extension if matches!(code, "BUSY" | "MISCONF" | "NOREPLICAS") => {
            with_code(StorageErrorKind::Unavailable, "Redis takes no writes now", code)
        }
        ErrorKind::Extension if code == "NOAUTH" => {
            StorageError::new(StorageErrorKind::Refused, "Redis wants a password")
        }
        ErrorKind::Extension if code == "WRONGTYPE" => foreign(),
        _ => with_code(StorageErrorKind::Refused, "Redis refused the request", code),
    }
}

fn with_code(kind: StorageErrorKind, what: &str, code: &str) -> StorageError {
    if code.is_empty() {
        StorageError::new(kind, what.to_owned())
    } else {
        StorageError::new(kind, format!("{what}: {code}"))
    }
}
