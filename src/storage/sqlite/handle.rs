//! The handle that callers hold.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use super::super::{Durability, Migration, StorageError, StorageErrorKind};
use super::builder::SqliteStorageBuilder;
use super::clock::Clock;
use super::error::Fault;
use super::job::{Call, Terms, Turn};
use super::queue::{Closed, Queue};
use super::writer::Writer;
use super::{migrate, open};

pub(super) const ENDED: &str = "SQLite's writer has ended";

/// A SQLite file, and the thread that writes it. A clone is the same file and thread.
///
/// One per file and process is best: two of them take turns, and share no commit. Other processes on the same machine
/// may use the file too: a writer that waits for it looks each millisecond, and one that has work without a pause leaves
/// it for a moment twenty times a second, or more often where others wait. The file has to be on a local file system.
/// When the last clone is dropped, the thread carries out what it was asked for and ends.
///
/// # Examples
///
/// ```
/// use steadfast::storage::SqliteStorage;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::storage::StorageError> {
/// # let folder = std::env::temp_dir().join(format!("steadfast-doc-storage-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// # let path = folder.join("app.db");
/// let storage = SqliteStorage::open(path).await?;
/// # drop(storage); std::fs::remove_dir_all(folder).unwrap();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStorage(Arc<Shared>);

struct Shared {
    queue: Arc<Queue>,
    path: PathBuf,
    relaxed: bool,
}

impl SqliteStorage {
    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// Those of [`SqliteStorageBuilder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::builder(path).open().await
    }

    /// Opens it by other settings than the defaults.
    pub fn builder(path: impl AsRef<Path>) -> SqliteStorageBuilder {
        SqliteStorageBuilder::new(path.as_ref().to_owned())
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether what was acknowledged last can be lost with the power.
    #[must_use]
    pub fn is_relaxed(&self) -> bool {
        self.0.relaxed
    }

    /// The same as a store or a journal in the file says it.
    pub(crate) fn durability(&self) -> Durability {
        if self.is_relaxed() {
            Durability::Relaxed
        } else {
            Durability::Durable
        }
    }

    pub(super) async fn start(settings: SqliteStorageBuilder) -> Result<Self, StorageError> {
        let queue = Arc::new(Queue::new());
        // From here on, whatever becomes of this future: without a handle the queue is closed, and the thread ends.
        let storage = Self(Arc::new(Shared {
            queue: Arc::clone(&queue),
            path: settings.path.clone(),
            relaxed: settings.relaxed,
        }));
        let (opened, answer) = oneshot::channel();
        let writer = move || match open::open(&settings.path, settings.busy_timeout, settings.relaxed) {
            Err(error) => drop(opened.send(Err(error))),
            Ok(connection) => {
                let _ = opened.send(Ok(()));
                let writer = Writer {
                    connection,
                    queue,
                    clock: settings.clock.unwrap_or_else(Clock::system),
                    busy_timeout: settings.busy_timeout,
                };
                writer.run();
            }
        };
        thread::Builder::new()
            .name("steadfast-sqlite".into())
            .spawn(writer)
            .map_err(|error| ended("no thread for SQLite's writer").with_source(error))?;
        answer.await.map_err(|_| ended(ENDED))??;
        Ok(storage)
    }

    /// Has the writer do `work`, and answers once that is committed.
    ///
    /// # Cancel safety
    ///
    /// Once the work has its place in the queue it is carried out, unless the terms say that it needs its caller.
    pub(crate) async fn call<T, F>(&self, terms: Terms, work: F) -> Result<T, StorageError>
    where
        F: FnOnce(&Turn<'_>) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let (call, answer) = Call::new(terms, work);
        let pushed = self.0.queue.push(Box::new(call), terms.urgent).await;
        pushed.map_err(|Closed| ended(ENDED))?;
        answer.await.map_err(|_| ended(ENDED))?
    }

    /// Brings the schema of a component to its last step.
    pub(crate) async fn migrate(&self, steps: &'static [Migration]) -> Result<(), StorageError> {
        self.call(Terms::default(), |turn| migrate::migrate(turn.connection, steps))
            .await
    }
}

fn ended(what: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, what)
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage")
            .field("path", &self.0.path)
            .field("relaxed", &self.0.relaxed)
            .finish_non_exhaustive()
    }
}
