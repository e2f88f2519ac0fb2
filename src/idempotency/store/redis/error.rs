//! What an error of Redis means. Its text is left out but for its code: the server quotes arguments in it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::reply::foreign;
use crate::storage::{StorageError, StorageErrorKind};

pub(super) fn storage_error(error: &RedisError) -> StorageError {
    let code = code(error);
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
        _ if code == "OOM" => {
            StorageError::new(StorageErrorKind::Full, "Redis has reached its maxmemory")
        }
        _ if matches!(code, "BUSY" | "MISCONF" | "NOREPLICAS" | "READONLY") => {
            with_code(StorageErrorKind::Unavailable, "Redis takes no writes now", code)
        }
        _ if code == "NOAUTH" => StorageError::new(StorageErrorKind::Refused, "Redis wants a password"),
        _ if code == "WRONGTYPE" => foreign(),
        _ => with_code(StorageErrorKind::Refused, "Redis refused the request", code),
    }
}

/// Up to Redis 6 an error within a script has the code `ERR`, and its own stands in the text, as `-OOM`.
fn code(error: &RedisError) -> &str {
    let code = error.code().unwrap_or_default();
    let within = || {
        let mut words = error.detail()?.split(' ');
        words.find_map(|word| word.strip_prefix('-').filter(|code| is_code(code)))
    };
    if code == "ERR" { within().unwrap_or(code) } else { code }
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn with_code(kind: StorageErrorKind, what: &str, code: &str) -> StorageError {
    if code.is_empty() {
        StorageError::new(kind, what.to_owned())
    } else {
        StorageError::new(kind, format!("{what}: {code}"))
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn answered(line: &str) -> StorageError {
        let line = format!("-{line}\r\n");
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        let Value::ServerError(error) = value else {
            panic!("it is an error");
        };
        storage_error(&RedisError::from(error))
    }

    #[test]
    fn the_code_of_an_error_in_a_script_is_found_wherever_the_version_puts_it() {
        let raised = "ERR Error running script (call to f_9b): @user_script:12: @user_script: 12: ";
        for (line, kind) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 9b, on @user_script:12.",
                StorageErrorKind::Full,
            ),
            (
                &format!("{raised}-OOM command not allowed when used memory > 'maxmemory'."),
                StorageErrorKind::Full,
            ),
            (
                "READONLY You can't write against a read only replica.",
                StorageErrorKind::Unavailable,
            ),
            (
                &format!("{raised}-READONLY You can't write against a read only replica."),
                StorageErrorKind::Unavailable,
            ),
            (
                &format!("{raised}-NOREPLICAS Not enough good replicas to write."),
                StorageErrorKind::Unavailable,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                StorageErrorKind::Corrupt,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand",
                StorageErrorKind::Refused,
            ),
            ("ERR value - or -what is it", StorageErrorKind::Refused),
        ] {
            assert_eq!(answered(line).kind(), kind, "{line}");
        }
    }
}
