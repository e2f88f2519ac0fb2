#![doc = include_str!("../../docs/retry.md")]

mod attempt;
mod budget;
mod builder;
mod config;
mod event;
mod failures;
mod future;
mod layer;
mod ledger;
mod policy;
mod replay;
mod report;
mod session;

pub use attempt::{Attempt, Calls, Cause, NumberedCalls, Report, StopReason};
pub use budget::{CREDIT_LIFETIME, DEFAULT_FLOOR, DEFAULT_RATIO, RetryBudget, RetryBudgetBuilder};
pub use builder::RetryBuilder;
pub use config::{DEFAULT_BASE_DELAY, RetryBudgetConfig, RetryConfig};
pub use event::Event;
pub use future::ResponseFuture;
pub use layer::{Requests, RetryService};
pub use policy::Retry;
pub use replay::{ByClone, Prepared, Replay};
pub use report::WithReport;
pub use session::{DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_RETRY_AFTER};
