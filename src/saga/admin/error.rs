//! Why an operator's request is not carried out.

use std::fmt;
use std::time::Duration;

use super::super::event::{Obstacle, Verb};
use super::super::id::SagaId;
use super::super::journal::SagaStatus;
use super::super::machine::Refusal;
use super::text;
use crate::storage::StorageError;

/// An operator's request was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no saga of that id.
    #[error("there is no saga {id}")]
    NotFound {
        /// The id.
        id: SagaId,
    },
    /// Somebody drives the saga at the moment, or another operator has it. Nothing was changed.
    #[error("saga {id} is driven at the moment{}: try again later", for_another(*.lease))]
    Busy {
        /// The saga.
        id: SagaId,
        /// In how long the lease ends, unless it is renewed; `None` where it was taken only now.
        lease: Option<Duration>,
    },
    /// The verb makes no sense where the saga stands. Nothing was changed.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// It is not said who decides, or why, as it has to be.
    #[error("{what} has to be said in 1 to {max} bytes, without control characters")]
    Unsigned {
        /// Who, or why.
        what: &'static str,
        /// How many bytes it may have.
        max: usize,
    },
    /// Not all of the saga's events were read. Nothing was changed; try again.
    #[error("not all of the events of saga {id} were read")]
    Incomplete {
        /// The saga.
        id: SagaId,
    },
    /// The journal failed. What was to be written may be there or not: look, and do it again if need be.
    #[error("the journal failed")]
    Journal(#[from] StorageError),
}

/// A verb that makes no sense where the saga stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The saga.
    pub id: SagaId,
    /// What was to be done.
    pub verb: Verb,
    /// Where the saga stands.
    pub status: SagaStatus,
    /// Why it is stuck, if it is.
    pub obstacle: Option<Obstacle>,
    /// Why the verb makes no sense there.
    pub refusal: Refusal,
}

impl Refused {
    /// Where the verb is possible, in words.
    #[must_use]
    pub fn possible_where(&self) -> &'static str {
        match self.verb {
            Verb::Retry { .. } => "a saga is stuck",
            Verb::Compensate => "a saga is stuck, on its way back or before its pivot",
            Verb::ResolveDone { .. } | Verb::ResolveNever { .. } => "a saga is stuck, for a step that it is stuck at",
            Verb::Skip { .. } => "a saga is stuck on its way back, for a step that it is stuck at",
            Verb::Cancel => "a saga is running, and its pivot has not been tried",
            Verb::Abandon => "a saga has not ended",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "saga {} is {}", self.id, self.status)?;
        if let Some(obstacle) = self.obstacle {
            write!(f, " ({})", obstacle.as_str())?;
        }
        write!(
            f,
            ", and `{}` is refused: {}; it is possible where {}",
            self.verb,
            self.refusal,
            self.possible_where()
        )
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for AdminError {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

fn for_another(lease: Option<Duration>) -> String {
    lease.map_or_else(String::new, |lease| {
        format!(", by a lease that ends in {}", text::span(lease))
    })
}
