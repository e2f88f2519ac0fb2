//! One attempt: its number, what became of it, and how the next one is started.

use std::error::Error;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::Verdict;

/// Which attempt of a call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub(crate) number: u32,
    pub(crate) max: u32,
}

impl Attempt {
    /// The number of this attempt, counting from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number
    }

    /// Retries so far: the number less one.
    #[must_use]
    pub fn retries(self) -> u32 {
        self.number - 1
    }

    /// Whether the call ends with this attempt, however it goes.
    #[must_use]
    pub fn is_last(self) -> bool {
        self.number == self.max
    }
}

/// Why a call made no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The last attempt succeeded.
    Success,
    /// Its verdict was one that is not retried.
    NotRetryable,
    /// It was the last one allowed.
    MaxAttempts,
    /// The next wait would not have ended before `max_elapsed`.
    MaxElapsed,
    /// The schedule of waits had ended.
    BackoffEnded,
    /// The server asked for a longer wait than `max_retry_after`.
    HintTooLong,
    /// The retry budget was empty.
    BudgetEmpty,
    /// The request could not be copied, or must not be sent again.
    NotReplayable,
    /// The inner service failed to become ready for it.
    NotReady,
    /// The caller dropped the call, or an attempt panicked.
    Cancelled,
}

impl StopReason {
    #[cfg(feature = "metrics")]
    pub(crate) const COUNT: usize = 10;

    /// The reason as a label, in snake case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NotRetryable => "not_retryable",
            Self::MaxAttempts => "max_attempts",
            Self::MaxElapsed => "max_elapsed",
            Self::BackoffEnded => "backoff_ended",
            Self::HintTooLong => "hint_too_long",
            Self::BudgetEmpty => "budget_empty",
            Self::NotReplayable => "not_replayable",
            Self::NotReady => "not_ready",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Attempts that were started.
    pub attempts: u32,
    /// Time from the call's first poll with a `max_elapsed`, and from its first `Pending` without.
    pub elapsed: Duration,
    /// How much of it was backoff.
    pub waited: Duration,
    /// Why there was no further attempt.
    pub stop: StopReason,
}

/// Why a retry is being considered.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Cause<'a> {
    /// What the attempt before was judged to be.
    pub verdict: Verdict,
    /// Its error, where it is a standard one; `None` too for a response that was judged a failure.
    pub error: Option<&'a (dyn Error + 'static)>,
    /// Whether that attempt may have reached the server. False is certain.
    pub may_have_been_sent: bool,
}

/// How the attempts of one call are started: by a closure, or with a request and a service. `R` is the policy's way to
/// keep requests.
pub trait Attempts<R> {
    type Response;
    type Error;
    type Future: Future<Output = Result<Self::Response, Self::Error>>;

    /// Waits until another attempt can be started.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    fn start(&mut self, replay: &R, attempt: Attempt) -> Self::Future;

    /// Whether there may be another attempt after the one that ended by `cause`.
    fn may_repeat(&self, replay: &R, cause: &Cause<'_>) -> bool;
}

/// Attempts made by calling a closure.
#[derive(Debug)]
pub struct Calls<F>(pub(crate) F);

/// Attempts made by calling a closure with their number.
#[derive(Debug)]
pub struct NumberedCalls<F>(pub(crate) F);

impl<R, F, Fut, T, E> Attempts<R> for Calls<F>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn start(&mut self, _: &R, _: Attempt) -> Fut {
        (self.0)()
    }

    fn may_repeat(&self, _: &R, _: &Cause<'_>) -> bool {
        true
    }
}

impl<R, F, Fut, T, E> Attempts<R> for NumberedCalls<F>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn start(&mut self, _: &R, attempt: Attempt) -> Fut {
        (self.0)(attempt)
    }

    fn may_repeat(&self, _: &R, _: &Cause<'_>) -> bool {
        true
    }
}
