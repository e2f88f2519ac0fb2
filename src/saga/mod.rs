//! Steps that are done one after the other, or undone.

mod action;
mod cx;
mod definition;
mod drive;
mod error;
mod event;
mod machine;
mod plan;
mod run;
mod step;

pub use action::{Action, AsyncOnce, Reconcile};
pub use cx::Cx;
pub use definition::{Saga, SagaBuilder};
pub use error::{Cause, Report, SagaError, StepError, StepFailure, StepResult};
pub use event::{Event, Known, Reality, Reason, SagaEnd};
pub use plan::{StepKind, WhenInterrupted, WhenUnknown};
pub use step::{DEFAULT_ATTEMPTS, DEFAULT_KEY_VALID_FOR, DEFAULT_STEP_BACKOFF, DEFAULT_STEP_TIMEOUT, Step};
