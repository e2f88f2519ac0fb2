//! The Tower face: a saga as a service, a service as a step, and a layer that makes what it wraps the pivot.

mod call;
mod layer;
mod service;

pub use call::{call_service, call_service_by};
pub use layer::{PivotCall, SagaLayer};
pub use service::{SagaService, ServiceError};
