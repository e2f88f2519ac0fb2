//! The driver: everything that is polled.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};
use tracing::level_filters::LevelFilter;

use super::policy::Timeout;
use crate::Rejected;
use crate::clock::FOREVER;
use crate::event::heard;
use crate::poll::polled_after_completion;

/// How a call holds its policy: borrowed in the plain face, owned in Tower's.
pub trait Held {
    fn timeout(&self) -> &Timeout;
}

impl Held for Timeout {
    #[inline]
    fn timeout(&self) -> &Timeout {
        self
    }
}

impl Held for &Timeout {
    #[inline]
    fn timeout(&self) -> &Timeout {
        self
    }
}

/// A call under a [`Timeout`].
// Two options instead of a state with variants: what a call never had is dropped by a comparison, not by a call.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    policy: P,
    /// How much of the limit was spent before the call.
    waited: Duration,
    /// Whether there is an end to tell of: from the first poll, or from the call of the inner service, to the end.
    running: bool,
    /// `None` when the call has ended, or was never made.
    #[pin]
    operation: Option<F>,
    /// Made when the operation is first pending.
    #[pin]
    timer: Option<Sleep>,
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(policy: P, operation: F) -> Self {
        Self::with(policy, Duration::ZERO, false, Some(operation))
    }

    /// The inner service was called, after `waited` of the limit had gone by.
    #[inline]
    pub(crate) fn started(policy: P, operation: F, waited: Duration) -> Self {
        Self::with(policy, waited, true, Some(operation))
    }

    /// The inner service was not ready in time.
    pub(crate) fn unready(policy: P) -> Self {
        Self::with(policy, Duration::ZERO, true, None)
    }

    #[inline]
    fn with(policy: P, waited: Duration, running: bool, operation: Option<F>) -> Self {
        Self {
            policy,
            waited,
            running,
            operation,
            timer: None,
        }
    }

    /// How long the call may take from its first `Pending` on.
    fn given(&self) -> Duration {
        self.policy.timeout().limit.saturating_sub(self.waited).min(FOREVER)
    }

    /// How long the call has been pending.
    fn elapsed(&self) -> Duration {
        let left = |timer: &Sleep| timer.deadline().saturating_duration_since(Instant::now());
        let timer = self.timer.as_ref();
        timer.map_or(Duration::ZERO, |timer| self.given().saturating_sub(left(timer)))
    }
}

impl<P, F, T, E> Future for ResponseFuture<P, F>
where
    P: Held,
    F: Future<Output = Result<T, E>>,
    E: From<Rejected>,
{
    type Output = Result<T, E>;

    // The compiler finds it too long, because of what it seldom does.
    #[allow(clippy::inline_always, reason = "it was measured")]
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.as_mut().project();
        let Some(operation) = this.operation.as_mut().as_pin_mut() else {
            return self.poll_without_operation();
        };
        *this.running = true;
        // Handed on in one piece, and not kept while something is called: either is to copy it.
        let polled = operation.poll(cx);
        if polled.is_pending() {
            return self.poll_pending(cx);
        }
        if this.timer.is_some() || heard(this.policy.timeout().custom.is_some(), LevelFilter::TRACE) {
            return self.complete(polled);
        }
        *this.running = false;
        this.operation.set(None);
        polled
    }
}

impl<P: Held, F> ResponseFuture<P, F> {
    fn end(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.running = false;
        this.operation.set(None);
        this.timer.set(None);
    }

    /// The end of a call that was pending, or that somebody may hear of.
    #[inline(never)]
    fn complete<T>(self: Pin<&mut Self>, polled: Poll<T>) -> Poll<T> {
        let policy = self.policy.timeout();
        if heard(policy.custom.is_some(), LevelFilter::TRACE) {
            policy.emit_completed(self.elapsed());
        }
        self.end();
        polled
    }

    /// Not inlined, like all that a call which is ready at once has no use for.
    #[inline(never)]
    fn poll_pending<T, E: From<Rejected>>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        ready!(self.as_mut().poll_timer(cx));
        self.as_mut().end();
        Poll::Ready(Err(reject(self.policy.timeout(), true)))
    }

    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let given = self.given();
        if given.is_zero() {
            return Poll::Ready(());
        }
        let mut this = self.project();
        if this.timer.is_none() {
            this.timer.set(Some(sleep(given)));
        }
        // An operation that has used up the task's budget must not keep the timer from being looked at.
        match this.timer.as_pin_mut() {
            Some(timer) => pin!(unconstrained(timer)).poll(cx),
            None => Poll::Pending,
        }
    }

    #[cold]
    #[inline(never)]
    fn cancel(self: Pin<&mut Self>) {
        self.policy.timeout().emit_cancelled(self.elapsed());
    }

    #[cold]
    #[inline(never)]
    fn poll_without_operation<T, E: From<Rejected>>(self: Pin<&mut Self>) -> Poll<Result<T, E>> {
        let this = self.project();
        if !*this.running {
            return polled_after_completion("timeout");
        }
        // The inner service was not ready in time.
        *this.running = false;
        Poll::Ready(Err(reject(this.policy.timeout(), false)))
    }
}

#[cold]
fn reject<E: From<Rejected>>(timeout: &Timeout, reached_inner: bool) -> E {
    let limit = timeout.limit;
    timeout.emit_timed_out(limit, reached_inner);
    Rejected::timed_out_by(timeout.full_name(), limit, reached_inner).into()
}

#[pinned_drop]
impl<P: Held, F> PinnedDrop for ResponseFuture<P, F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if self.running {
            self.cancel();
        }
    }
}

impl<P: Held, F> fmt::Debug for ResponseFuture<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("limit", &self.policy.timeout().limit)
            .finish_non_exhaustive()
    }
}
