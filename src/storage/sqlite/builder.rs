//! How a file is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::super::StorageError;
use super::clock::Clock;
use super::handle::SqliteStorage;

/// For how long a request waits while another process writes.
pub const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest such time: SQLite counts it in an `i32` of milliseconds.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Opens a [`SqliteStorage`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteStorageBuilder {
    pub(super) path: PathBuf,
    pub(super) busy_timeout: Duration,
    pub(super) relaxed: bool,
    pub(super) clock: Option<Clock>,
}

impl SqliteStorageBuilder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            relaxed: false,
            clock: None,
        }
    }

    /// For how long a request waits while another process, or another connection, writes; then it fails as
    /// [unavailable](super::super::StorageErrorKind::Unavailable). At most 24 h. Default: 4 s, a little less than a
    /// policy gives a call of its store.
    pub fn busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout.min(MAX_BUSY_TIMEOUT);
        self
    }

    /// Does not wait for the disk on every commit (`synchronous=NORMAL`): what was acknowledged last can be lost with
    /// the power, though not with the process. Default: it waits (`synchronous=FULL`).
    pub fn relaxed_durability(mut self) -> Self {
        self.relaxed = true;
        self
    }

    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be opened and written, is no SQLite database, or is on a file system that SQLite's write-ahead
    /// log does not work on; and when SQLite is older than 3.37.
    pub async fn open(self) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::start(self).await
    }
}
