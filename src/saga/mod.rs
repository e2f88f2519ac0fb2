#![doc = include_str!("../../docs/saga.md")]

mod action;
mod cx;
mod definition;
mod drive;
mod emit;
mod error;
mod event;
mod id;
pub mod journal;
mod machine;
mod plan;
mod run;
mod step;

pub use action::{Action, AsyncOnce, Reconcile};
pub use cx::Cx;
pub use definition::{Saga, SagaBuilder};
pub use emit::SagaEvent;
pub use error::{Cause, Report, SagaError, StepError, StepFailure, StepResult};
pub use event::{Event, Known, Reality, Reason, SagaEnd};
pub use id::{InvalidSagaId, SagaId};
pub use plan::{StepKind, WhenUnknown};
pub use run::SagaHandle;
pub use step::{DEFAULT_ATTEMPTS, DEFAULT_STEP_BACKOFF, DEFAULT_STEP_TIMEOUT, Step};
