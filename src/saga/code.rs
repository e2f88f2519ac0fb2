//! How the code of a step is run.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{Instrument as _, Span};

use super::action::Code;
use super::cx::{Cx, RunOf};
use super::error::StepError;
use super::record::BoxError;
use crate::rejected::Name;

/// A run of a step ended without a result of its own.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it had no result within {0:?}")]
    TimedOut(Duration),
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// Runs code within `limit`, in a span of its own. What it does not say itself (it took too long, it panicked) may have had
/// its effect.
pub(crate) async fn run<C, D, T>(
    saga: &Name,
    code: &dyn Code<C, D, Result<T, StepError>>,
    cx: &mut Cx<C, D>,
    limit: Duration,
) -> Result<T, StepError> {
    let span = span(saga, &cx.run);
    bounded(async move { code.call(cx).await }, limit)
        .instrument(span)
        .await
}

/// What is logged in a step is logged with these.
pub(crate) fn span(saga: &Name, run: &RunOf) -> Span {
    tracing::info_span!(
        target: "steadfast::saga",
        "saga.step",
        saga = saga.as_str(),
        id = %run.saga,
        step = &*run.step,
        phase = if run.undo.is_some() { "undo" } else { "do" },
        attempt = run.attempt,
        fence = run.fence
    )
}

/// The same for any future.
pub(crate) async fn bounded<T>(
    future: impl Future<Output = Result<T, StepError>>,
    limit: Duration,
) -> Result<T, StepError> {
    match timeout(limit, caught(future)).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(StepError::fatal_unknown(Ended::Panicked(text(&*panic)))),
        Err(_) => Err(StepError::unknown(Ended::TimedOut(limit))),
    }
}

/// The panic of code as a value. Code that panics before it has made its future does so in the first poll as well.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// What `work` gives, its panic as an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    let result = catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| Err(Ended::Panicked(text(&*panic)).into()))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with a value that is no text").to_owned()
}

/// What `future` gives, unless `or` ends first; it is looked at first, so that nothing is done once it has ended.
pub(crate) async fn race<T, E>(future: impl Future<Output = T>, or: impl Future<Output = E>) -> Result<T, E> {
    let mut or = pin!(or);
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(ended) = or.as_mut().poll(context) {
            return Poll::Ready(Err(ended));
        }
        future.as_mut().poll(context).map(Ok)
    })
    .await
}
