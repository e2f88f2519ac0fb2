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
// The phase is dropped first, so that the compiler still knows what `drop` has seen to.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    #[pin]
    phase: Phase,
    /// `None` when the call has ended, or was never made. Not in the phase: it is pinned, and the phase changes.
    #[pin]
    operation: Option<F>,
    policy: P,
}

/// How far a call has come.
#[pin_project(project = PhaseProjection)]
enum Phase {
    /// Before the first poll, and at the end: there is no end to tell of.
    Idle,
    /// Polled, or the inner service was called, after `waited` of the limit had gone by.
    Started { waited: Duration },
    /// The operation has been pending.
    Pending {
        /// What was left of the limit when it first was.
        given: Duration,
        #[pin]
        timer: Sleep,
    },
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(policy: P, operation: F) -> Self {
        Self {
            phase: Phase::Idle,
            operation: Some(operation),
            policy,
        }
    }

    /// The inner service was called, after `waited` of the limit had gone by; `None` if it was not ready in time.
    #[inline]
    pub(crate) fn started(policy: P, operation: Option<F>, waited: Duration) -> Self {
        Self {
            phase: Phase::Started { waited },
            operation,
            policy,
        }
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
            return self.poll_without_operation().map(Err);
        };
        if matches!(*this.phase, Phase::Idle) {
            this.phase.set(Phase::Started { waited: Duration::ZERO });
        }
        let Poll::Ready(result) = operation.poll(cx) else {
            // It answers with an error alone: a whole result would share its place in memory with that of every call.
            return self.poll_pending(cx).map(Err);
        };
        let was_pending = matches!(*this.phase, Phase::Pending { .. });
        if was_pending || heard(this.policy.timeout().is_custom(), LevelFilter::TRACE) {
            self.complete();
        } else {
            this.phase.set(Phase::Idle);
            this.operation.set(None);
        }
        Poll::Ready(result)
    }
}

impl<P: Held, F> ResponseFuture<P, F> {
    fn end(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.phase.set(Phase::Idle);
        this.operation.set(None);
    }

    /// The end of a call that was pending, or that somebody may hear of.
    #[inline(never)]
    fn complete(self: Pin<&mut Self>) {
        let policy = self.policy.timeout();
        if heard(policy.is_custom(), LevelFilter::TRACE) {
            policy.emit_completed(self.phase.elapsed());
        }
        self.end();
    }

    /// Not inlined, like all that a call which is ready at once has no use for.
    #[inline(never)]
    fn poll_pending<E: From<Rejected>>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<E> {
        ready!(self.as_mut().poll_timer(cx));
        self.as_mut().end();
        Poll::Ready(reject(self.policy.timeout(), true))
    }

    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if !matches!(*this.phase, Phase::Pending { .. }) {
            let given = this.policy.timeout().limit.saturating_sub(this.phase.waited());
            if given.is_zero() {
                return Poll::Ready(());
            }
            let given = given.min(FOREVER);
            let timer = sleep(given);
            this.phase.set(Phase::Pending { given, timer });
        }
        // An operation that has used up the task's budget must not keep the timer from being looked at.
        match this.phase.project() {
            PhaseProjection::Pending { timer, .. } => pin!(unconstrained(timer)).poll(cx),
            PhaseProjection::Idle | PhaseProjection::Started { .. } => Poll::Pending,
        }
    }

    /// Tells that the call was dropped before its end.
    #[cold]
    #[inline(never)]
    fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.policy.timeout().emit_cancelled(this.phase.elapsed());
        this.phase.set(Phase::Idle);
    }

    #[cold]
    #[inline(never)]
    fn poll_without_operation<E: From<Rejected>>(self: Pin<&mut Self>) -> Poll<E> {
        let mut this = self.project();
        if matches!(*this.phase, Phase::Idle) {
            return polled_after_completion("timeout");
        }
        this.phase.set(Phase::Idle);
        Poll::Ready(reject(this.policy.timeout(), false))
    }
}

impl Phase {
    /// How much of the limit was spent before the call.
    fn waited(&self) -> Duration {
        match self {
            Self::Started { waited } => *waited,
            Self::Idle | Self::Pending { .. } => Duration::ZERO,
        }
    }

    /// How long the call has been pending.
    fn elapsed(&self) -> Duration {
        match self {
            Self::Pending { given, timer } => {
                let left = timer.deadline().saturating_duration_since(Instant::now());
                given.saturating_sub(left)
            }
            Self::Idle | Self::Started { .. } => Duration::ZERO,
        }
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
    fn drop(mut self: Pin<&mut Self>) {
        // `while` where `if` would do: behind it the compiler knows that there is no timer to drop. What is left to
        // drop is then small enough to be inlined, as a call that was ready at once is dropped by a comparison.
        while !matches!(self.phase, Phase::Idle) {
            self.as_mut().cancel();
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
