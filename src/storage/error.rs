//! What a database could not do.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Why a database could not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// It cannot be reached, is too busy, or did not answer in time. The request may have been carried out; the same
    /// request may be sent again.
    Unavailable,
    /// There is no room: a bounded store is full of live records, or a disk is.
    Full,
    /// The tables are missing or of another version: `migrate()` was not called, or by another version of this crate.
    NotMigrated,
    /// What is stored cannot be read.
    Corrupt,
    /// It refuses: no permission, read-only, or a setting that would lose data.
    Refused,
}

impl StorageErrorKind {
    /// The kind in a few words, for an error that cannot carry more.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Unavailable => "it does not answer",
            Self::Full => "it is full",
            Self::NotMigrated => "its tables are missing or of another version: call migrate()",
            Self::Corrupt => "what it holds cannot be read",
            Self::Refused => "it refuses",
        }
    }
}

/// A database could not do what it was asked for.
///
/// Neither its text nor its sources contain keys, requests or stored values.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    what: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// An error of this kind; `what` says in one sentence what could not be done, and what may help.
    pub fn new(kind: StorageErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// The same, with the error that it comes from. That one must not show stored values either.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Why it could not be done.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Whether sending the same request again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind == StorageErrorKind::Unavailable
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source: &(dyn Error + 'static) = self.source.as_deref()?;
        Some(source)
    }
}
