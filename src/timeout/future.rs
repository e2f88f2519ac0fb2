//! The driver: everything that is polled.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

use super::policy::Timeout;
use crate::Rejected;
use crate::event::heard;

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

/// What counts as for ever: 30 years. A longer time may not fit the clock, and the timer's deadline is what tells how
/// long the call has been pending.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A call under a [`Timeout`].
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    policy: P,
    limit: Duration,
    /// How much of the limit was not spent on readiness.
    left: Duration,
    /// Whether there is a call to tell of: from its first poll, or from the call of the inner service.
    started: bool,
    #[pin]
    state: State<F>,
}

#[pin_project(project = StateProjection)]
enum State<F> {
    Running {
        #[pin]
        operation: F,
        /// Made when the operation is first pending.
        #[pin]
        timer: Option<Sleep>,
    },
    /// The inner service was not ready in time.
    Unready,
    Done,
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(policy: P, operation: F) -> Self {
        let limit = policy.timeout().limit;
        let mut call = Self::started(policy, operation, limit, Duration::ZERO);
        call.started = false;
        call
    }

    /// The inner service was called, after `waited` of the limit had gone by.
    #[inline]
    pub(crate) fn started(policy: P, operation: F, limit: Duration, waited: Duration) -> Self {
        let timer = None;
        Self {
            policy,
            limit,
            left: limit.saturating_sub(waited).min(FOREVER),
            started: true,
            state: State::Running { operation, timer },
        }
    }

    pub(crate) fn unready(policy: P) -> Self {
        let limit = policy.timeout().limit;
        Self {
            policy,
            limit,
            left: Duration::ZERO,
            started: true,
            state: State::Unready,
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        *this.started = true;
        match this.state.as_mut().project() {
            StateProjection::Running { operation, mut timer } => {
                if let Poll::Ready(result) = operation.poll(cx) {
                    let timeout = this.policy.timeout();
                    if heard(timeout.listener.is_some()) {
                        timeout.emit_completed(elapsed(timer.as_ref().get_ref().as_ref(), *this.left));
                    }
                    this.state.set(State::Done);
                    return Poll::Ready(result);
                }
                if timer.is_none() {
                    timer.set(Some(sleep(*this.left)));
                }
                // An operation that has used up the task's budget must not keep the timer from being looked at.
                let due = timer
                    .as_pin_mut()
                    .is_some_and(|timer| pin!(unconstrained(timer)).poll(cx).is_ready());
                if !due {
                    return Poll::Pending;
                }
                this.state.set(State::Done);
                Poll::Ready(Err(reject(this.policy.timeout(), *this.limit, true)))
            }
            StateProjection::Unready => {
                this.state.set(State::Done);
                Poll::Ready(Err(reject(this.policy.timeout(), *this.limit, false)))
            }
            StateProjection::Done => polled_after_completion(),
        }
    }
}

#[cold]
fn reject<E: From<Rejected>>(timeout: &Timeout, limit: Duration, reached_inner: bool) -> E {
    timeout.emit_timed_out(limit, reached_inner);
    Rejected::timed_out_by(timeout.name.clone(), limit, reached_inner).into()
}

#[cold]
#[allow(clippy::panic, reason = "the contract of Future, broken by the caller")]
fn polled_after_completion<T>() -> Poll<T> {
    panic!("a timeout was polled after it had completed")
}

/// How long the call has been pending.
fn elapsed(timer: Option<&Sleep>, given: Duration) -> Duration {
    let left = |timer: &Sleep| timer.deadline().saturating_duration_since(Instant::now());
    timer.map_or(Duration::ZERO, |timer| given.saturating_sub(left(timer)))
}

#[pinned_drop]
impl<P: Held, F> PinnedDrop for ResponseFuture<P, F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        let elapsed = match this.state.project() {
            StateProjection::Running { timer, .. } => elapsed(timer.as_ref().get_ref().as_ref(), *this.left),
            StateProjection::Unready => Duration::ZERO,
            StateProjection::Done => return,
        };
        if *this.started {
            this.policy.timeout().emit_cancelled(elapsed);
        }
    }
}

impl<P: Held, F> fmt::Debug for ResponseFuture<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
