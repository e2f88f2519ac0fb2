//! Steps whose whole effect is in the journal's own database: it is committed together with what is written of it.
//!
//! ```text
//!  begin ── the step's own statements ── append: it succeeded, and what follows ── commit
//! ```
//!
//! No `Started` is written before: where the commit does not happen, nothing has, and the step is simply run again.
//! So a failure of such a step is always without effect, also where it took too long or panicked.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::cx::Cx;
use super::error::StepError;
use super::journal::{Append, Journal};
use super::record::BoxError;

/// What became of a step in a transaction.
pub(crate) enum Ran<C> {
    /// It is committed, and the append with it.
    Committed {
        context: C,
        /// Somebody has asked that the saga turn back.
        cancel: bool,
    },
    /// Nothing of it is left.
    Failed(StepError),
    /// Nothing of it is left: somebody else drives the saga, or has.
    Fenced,
}

/// How a context is written, and read again.
pub(crate) type Encode<C> = fn(C) -> Result<(Bytes, C), BoxError>;
/// How it is read.
#[cfg(feature = "sqlite")]
pub(crate) type Decode<C> = fn(&[u8]) -> Result<C, BoxError>;

/// One run of such a step.
pub(crate) struct LocalRun<C, D> {
    pub(crate) cx: Cx<C, D>,
    pub(crate) limit: Duration,
    /// What is written in its transaction. The context after the step goes with the first entry.
    pub(crate) append: Append,
    pub(crate) encode: Encode<C>,
    /// For a run whose answer was lost: the context is then the one that is stored.
    #[cfg(feature = "sqlite")]
    pub(crate) decode: Decode<C>,
}

/// The code of such a step.
pub(crate) trait LocalCode<C, D>: Send + Sync {
    /// Whether it can run in a transaction of this journal.
    fn fits(&self, journal: &dyn Journal) -> bool;

    /// Runs it, until it is known what became of it. Dropped, it is not committed, or it may be.
    fn run<'a>(
        &'a self,
        journal: &'a dyn Journal,
        run: LocalRun<C, D>,
    ) -> Pin<Box<dyn Future<Output = Ran<C>> + Send + 'a>>;
}

/// There is no transaction for a step that needs one.
#[derive(Debug, thiserror::Error)]
#[error("it runs in a transaction of the journal, and this one has none of that kind")]
pub(crate) struct NoTransaction;
