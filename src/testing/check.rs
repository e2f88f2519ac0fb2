//! How the cases of a conformance suite say what is wrong.

use std::fmt;

use crate::storage::StorageError;

/// What was expected, and what came instead.
pub(in crate::testing) struct Broken(String);

pub(in crate::testing) type Check = Result<(), Broken>;

impl Broken {
    pub(in crate::testing) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        let mut text = format!("it failed as {:?}: {error}", error.kind());
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Self(text)
    }
}

impl From<tokio::task::JoinError> for Broken {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(format!("it panicked: {error}"))
    }
}

impl From<String> for Broken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

pub(in crate::testing) fn same<T: PartialEq + fmt::Debug>(what: &str, got: &T, expected: &T) -> Check {
    ensure(got == expected, || {
        format!("{what}: expected {expected:?}, got {got:?}")
    })
}

pub(in crate::testing) fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Broken(broken())) }
}
