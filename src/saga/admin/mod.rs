//! What operators see of sagas, and what they do with them.

mod error;
mod operator;
mod standing;
mod text;
mod timeline;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::id::SagaId;
use super::journal::{Head, Journal, ListQuery, Loaded, SagaStatus};
use crate::Key;
use crate::storage::StorageError;

pub use error::{AdminError, Refused};
pub use operator::{MAX_WHO, MAX_WHY, SagaOperator};
pub use view::{Inspection, TimelineEntry};

/// How many sagas a page has by default.
pub const DEFAULT_PAGE: usize = 100;

/// Shows and mends sagas, given their journal alone: it needs neither the definitions nor an engine.
///
/// What an operator decides is written to the saga's journal, with who and why; an engine that has the saga's definition
/// then goes on with it, at its next look at the journal. See [For operators](super#for-operators).
///
/// # Examples
///
/// ```
/// use steadfast::saga::journal::{MemoryJournal, SagaStatus};
/// use steadfast::saga::{SagaAdmin, SagaFilter};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let journal = MemoryJournal::new();
/// let admin = SagaAdmin::new(journal);
/// let stuck = SagaFilter { status: Some(SagaStatus::Stuck), ..SagaFilter::default() };
/// for saga in admin.list(&stuck).await?.sagas {
///     println!("{}", admin.inspect(saga.id).await?);
///     admin.by("ada", "the stock service is back")?.retry(saga.id).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SagaAdmin {
    journal: Arc<dyn Journal>,
}

/// Which sagas to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaFilter {
    /// Those that stand here; all, with `None`.
    pub status: Option<SagaStatus>,
    /// Those of definitions of this name; all, with `None`.
    pub name: Option<String>,
    /// Those that were created so long ago, or longer; all, with `None`.
    pub older_than: Option<Duration>,
    /// Those after this one, as [`SagaPage::next`] says; from the oldest on, with `None`.
    pub after: Option<SagaId>,
    /// How many at most. Default: [`DEFAULT_PAGE`].
    pub limit: usize,
}

impl Default for SagaFilter {
    fn default() -> Self {
        Self {
            status: None,
            name: None,
            older_than: None,
            after: None,
            limit: DEFAULT_PAGE,
        }
    }
}

/// Some sagas, the oldest first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SagaPage {
    /// The sagas.
    pub sagas: Vec<Head>,
    /// What the next page comes [after](SagaFilter::after); `None` where this is the last.
    pub next: Option<SagaId>,
    /// The journal's clock, since 1970: what the times of the sagas compare with.
    pub now: Duration,
}

impl SagaAdmin {
    /// An administration of the sagas in this journal.
    pub fn new(journal: impl Journal) -> Self {
        Self {
            journal: Arc::new(journal),
        }
    }

    /// Sagas by status, name and age, the oldest first, page by page.
    ///
    /// # Errors
    ///
    /// Those of the journal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn list(&self, filter: &SagaFilter) -> Result<SagaPage, StorageError> {
        let mut page = SagaPage {
            sagas: Vec::new(),
            next: None,
            now: Duration::ZERO,
        };
        let mut query = ListQuery {
            status: filter.status,
            name: filter.name.clone(),
            after: filter.after,
            limit: filter.limit.clamp(1, DEFAULT_PAGE),
        };
        while page.sagas.len() < filter.limit {
            let heads = self.journal.list(&query).await?;
            if page.now.is_zero() {
                page.now = self.now(&heads).await?;
            }
            let whole = heads.len() >= query.limit;
            query.after = heads.last().map(|head| head.id);
            let age = |head: &Head| page.now.saturating_sub(head.created);
            let room = filter.limit - page.sagas.len();
            let fitting = heads
                .into_iter()
                .filter(|head| filter.older_than.is_none_or(|old| age(head) >= old));
            let mut fitting: Vec<_> = fitting.collect();
            if fitting.len() > room {
                fitting.truncate(room);
                query.after = fitting.last().map(|head| head.id);
            }
            page.sagas.append(&mut fitting);
            if !whole {
                return Ok(page);
            }
        }
        page.next = query.after;
        Ok(page)
    }

    /// The journal's clock, as it is told with a saga; the time of the last event where none is left.
    async fn now(&self, heads: &[Head]) -> Result<Duration, StorageError> {
        for head in heads.iter().take(1) {
            if let Some(loaded) = self.journal.load(head.id).await? {
                return Ok(loaded.now);
            }
        }
        Ok(heads.iter().map(|head| head.changed).max().unwrap_or_default())
    }

    /// The saga of that definition that was started under this key of your business.
    ///
    /// # Errors
    ///
    /// Those of the journal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn find(&self, name: &str, key: &Key) -> Result<Option<Head>, StorageError> {
        self.journal.find(key.id(name, None)).await
    }

    /// All about one saga: what happened when, where it stands, and what an operator may do now. It prints as a text for
    /// people; [`Inspection::context`] has its context, which is not printed.
    ///
    /// # Errors
    ///
    /// [`AdminError::NotFound`], [`AdminError::Incomplete`], and those of the journal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub async fn inspect(&self, id: SagaId) -> Result<Inspection, AdminError> {
        Ok(Inspection::of(&self.load(id).await?))
    }

    /// What an operator decides, who they are and why they do it. Both are written with each decision.
    ///
    /// # Errors
    ///
    /// [`AdminError::Unsigned`] where one of them is empty, longer than [`MAX_WHO`] or [`MAX_WHY`] bytes, or has control
    /// characters.
    pub fn by(&self, who: &str, why: &str) -> Result<SagaOperator<'_>, AdminError> {
        SagaOperator::new(self, who, why)
    }

    async fn load(&self, id: SagaId) -> Result<Loaded, AdminError> {
        let loaded = self.journal.load(id).await?.ok_or(AdminError::NotFound { id })?;
        let count = u64::try_from(loaded.entries.len()).unwrap_or(u64::MAX);
        let dense = (0..).zip(&loaded.entries).all(|(seq, stored)| stored.seq == seq);
        if !loaded.head.pruned && (count != loaded.head.seq || !dense) {
            return Err(AdminError::Incomplete { id });
        }
        Ok(loaded)
    }
}

impl fmt::Debug for SagaAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaAdmin")
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}
