#![doc = include_str!("../../docs/saga.md")]

mod action;
mod admin;
mod code;
mod cx;
mod definition;
mod drive;
mod emit;
mod engine;
mod error;
mod event;
mod fingerprint;
mod id;
pub mod journal;
mod local;
mod machine;
mod plan;
#[cfg(feature = "postgres")]
mod postgres_tx;
mod record;
mod run;
#[cfg(feature = "sqlite")]
mod sqlite_tx;
mod step;
mod tower;
#[cfg(feature = "testing")]
mod twice;

pub use action::{Action, AsyncOnce, DynStep, Reconcile, StepFuture};
pub use admin::{
    AdminError, DEFAULT_PAGE, Inspection, MAX_WHO, MAX_WHY, Refused, SagaAdmin, SagaFilter, SagaOperator, SagaPage,
    TimelineEntry,
};
pub use cx::Cx;
pub use definition::{DEFAULT_UNDO_BUDGET, Saga, SagaBuilder};
pub use emit::SagaEvent;
pub use engine::{
    DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_CONTEXT, DEFAULT_MAX_PENDING, DEFAULT_MAX_RECOVERIES, DEFAULT_POLL_INTERVAL,
    DurableSaga, SagaData, SagaEngine, SagaEngineBuilder, StartError,
};
pub use error::{Cause, Detached, Report, SagaError, StepError, StepFailure, StepResult};
pub use event::{Event, Known, Obstacle, Reality, Reason, SagaEnd, Verb};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use id::{InvalidSagaId, SagaId};
pub use machine::Refusal;
pub use plan::{Plan, StepKind, StepPlan, WhenInterrupted, WhenUnknown};
#[cfg(feature = "postgres")]
pub use postgres_tx::{AsyncOnce2, PostgresAction};
pub use run::SagaHandle;
pub use step::{DEFAULT_ATTEMPTS, DEFAULT_KEY_VALID_FOR, DEFAULT_STEP_BACKOFF, DEFAULT_STEP_TIMEOUT, Step};
pub use tower::{PivotCall, SagaLayer, SagaService, ServiceError, call_service, call_service_by};
