//! The driver: everything that is polled.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::{pin_project, pinned_drop};

use super::event::{Outcome, Telemetry};
use super::policy::{Fallback, Mode};
use super::recover::Recover;
use crate::event::heard;
use crate::{Classify, Verdict};

/// How a call holds its policy: borrowed in the plain face, owned in Tower's.
pub trait Held {
    type Handler;
    type Classifier;
    type Mode;

    fn fallback(&self) -> &Fallback<Self::Handler, Self::Classifier, Self::Mode>;
}

impl<H, C, M> Held for Fallback<H, C, M> {
    type Handler = H;
    type Classifier = C;
    type Mode = M;

    #[inline]
    fn fallback(&self) -> &Self {
        self
    }
}

impl<H, C, M> Held for &Fallback<H, C, M> {
    type Handler = H;
    type Classifier = C;
    type Mode = M;

    #[inline]
    fn fallback(&self) -> &Fallback<H, C, M> {
        self
    }
}

/// A call under a [`Fallback`].
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, Req, F, K, E, R> {
    policy: P,
    request: PhantomData<fn(Req)>,
    /// What is kept of the request, until a recovery takes it.
    kept: Option<K>,
    /// Whether there is a call to tell of: from its first poll, or from the call of the inner service.
    started: bool,
    #[pin]
    state: State<F, E, R>,
}

#[pin_project(project = StateProjection)]
enum State<F, E, R> {
    Running {
        #[pin]
        operation: F,
    },
    /// The inner service failed before it could be called.
    Failed {
        error: Option<E>,
    },
    Recovering {
        #[pin]
        recovery: R,
    },
    Done,
}

impl<P: Held, Req, F, K, E, R> ResponseFuture<P, Req, F, K, E, R> {
    #[inline]
    pub(crate) fn new(policy: P, operation: F, kept: K) -> Self {
        Self::with(policy, kept, State::Running { operation }, false)
    }

    /// The inner service was called.
    #[inline]
    pub(crate) fn started(policy: P, operation: F, kept: K) -> Self {
        Self::with(policy, kept, State::Running { operation }, true)
    }

    pub(crate) fn failed(policy: P, error: E, kept: K) -> Self {
        Self::with(policy, kept, State::Failed { error: Some(error) }, true)
    }

    #[inline]
    fn with(policy: P, kept: K, state: State<F, E, R>, started: bool) -> Self {
        Self {
            policy,
            request: PhantomData,
            kept: Some(kept),
            started,
            state,
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.policy.fallback().core.telemetry
    }
}

impl<P, Req, F, K, R, T, E, X> Future for ResponseFuture<P, Req, F, K, E, R>
where
    P: Held<Classifier: Classify<T, E>, Mode: Mode<E, Error = X>>,
    P::Handler: Recover<Req, T, E, X, Kept = K, Future = R>,
    F: Future<Output = Result<T, E>>,
    R: Future<Output = Result<T, X>>,
{
    type Output = Result<T, X>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        *self.as_mut().project().started = true;
        loop {
            let this = self.as_mut().project();
            let mut state = this.state;
            let result = match state.as_mut().project() {
                StateProjection::Running { operation } => ready!(operation.poll(cx)),
                StateProjection::Failed { error } => match error.take() {
                    Some(error) => Err(error),
                    None => return polled_after_completion(),
                },
                StateProjection::Recovering { recovery } => {
                    let result = ready!(recovery.poll(cx));
                    state.set(State::Done);
                    let outcome = if result.is_ok() {
                        Outcome::Recovered
                    } else {
                        Outcome::RecoveryFailed
                    };
                    this.policy.fallback().core.telemetry.emit_finished(outcome);
                    return Poll::Ready(result);
                }
                StateProjection::Done => return polled_after_completion(),
            };
            if let Some(result) = self.as_mut().settle(result) {
                return Poll::Ready(result);
            }
        }
    }
}

#[cold]
#[allow(clippy::panic, reason = "the contract of Future, broken by the caller")]
fn polled_after_completion<T>() -> Poll<T> {
    panic!("a fallback was polled after it had completed")
}

impl<P: Held, Req, F, K, E, R> ResponseFuture<P, Req, F, K, E, R> {
    /// What follows from the result of the operation: the end of the call, or a recovery under way and `None`.
    #[inline]
    fn settle<T, X>(self: Pin<&mut Self>, result: Result<T, E>) -> Option<Result<T, X>>
    where
        P: Held<Classifier: Classify<T, E>, Mode: Mode<E, Error = X>>,
        P::Handler: Recover<Req, T, E, X, Kept = K, Future = R>,
    {
        let this = self.project();
        let fallback = &*this.policy.fallback().core;
        let mut state = this.state;
        let judged = fallback.judgement.judge(result.as_ref());
        let verdict = judged.verdict;
        let failed = verdict.is_failure() || verdict == Verdict::Ignored && judged.rejected.is_some();
        let is_error = result.is_err();
        let recover = failed || (P::Mode::EVERY_ERROR && is_error);
        if recover && is_error {
            fallback.telemetry.emit_recovering(verdict, judged.error);
        }
        let recovery = match (P::Mode::sort(result, recover), this.kept.take()) {
            (Ok(result), _) => Err(result),
            (Err(result), Some(kept)) => {
                // Frees what the operation held; not yet done, as the handler may panic.
                state.set(State::Failed { error: None });
                fallback.handler.recover(result, kept).map_err(Ok)
            }
            (Err(_), None) => unreachable!("the request is kept until the one recovery takes it"),
        };
        match recovery {
            Ok(recovery) => {
                if !is_error {
                    fallback.telemetry.emit_recovering(verdict, None);
                }
                state.set(State::Recovering { recovery });
                None
            }
            Err(result) => {
                state.set(State::Done);
                if heard(fallback.telemetry.listener.is_some()) {
                    fallback.telemetry.emit_finished(Outcome::NotNeeded);
                }
                Some(result)
            }
        }
    }
}

#[pinned_drop]
impl<P: Held, Req, F, K, E, R> PinnedDrop for ResponseFuture<P, Req, F, K, E, R> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if self.started && !matches!(self.state, State::Done) {
            self.telemetry().emit_finished(Outcome::Cancelled);
        }
    }
}

impl<P: Held, Req, F, K, E, R> fmt::Debug for ResponseFuture<P, Req, F, K, E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("name", &self.telemetry().name)
            .finish_non_exhaustive()
    }
}
