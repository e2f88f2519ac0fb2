//! The driver: everything that is polled.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::{pin_project, pinned_drop};
use tracing::level_filters::LevelFilter;

use super::event::{Outcome, Telemetry};
use super::policy::{Fallback, Mode};
use super::recover::Recover;
use crate::event::heard;
use crate::judgement::Judged;
use crate::poll::polled_after_completion;
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
// The phase is dropped first, so that the compiler still knows what `drop` has seen to.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, Req, F, K, E, R> {
    #[pin]
    phase: Phase<E, R>,
    /// `None` when it has a result, or was never made.
    #[pin]
    operation: Option<F>,
    /// What is kept of the request, until a recovery takes it.
    kept: Option<K>,
    policy: P,
    request: PhantomData<fn(Req)>,
}

/// How far a call has come.
#[pin_project(project = PhaseProjection)]
enum Phase<E, R> {
    /// Before the first poll, and at the end: there is no call to tell of.
    Idle,
    /// Polled, or the inner service was called.
    Started,
    /// The inner service failed before it could be called. Dropped by hand, so that every other call need not know how.
    Failed { error: Option<ManuallyDrop<E>> },
    Recovering {
        #[pin]
        recovery: R,
    },
}

impl<P: Held, Req, F, K, E, R> ResponseFuture<P, Req, F, K, E, R> {
    #[inline]
    pub(crate) fn new(policy: P, operation: F, kept: K) -> Self {
        Self::with(policy, Phase::Idle, Some(operation), kept)
    }

    /// The inner service was called.
    #[inline]
    pub(crate) fn started(policy: P, operation: F, kept: K) -> Self {
        Self::with(policy, Phase::Started, Some(operation), kept)
    }

    /// The inner service failed before it could be called.
    pub(crate) fn failed(policy: P, error: E, kept: K) -> Self {
        let error = Some(ManuallyDrop::new(error));
        Self::with(policy, Phase::Failed { error }, None, kept)
    }

    #[inline]
    fn with(policy: P, phase: Phase<E, R>, operation: Option<F>, kept: K) -> Self {
        Self {
            phase,
            operation,
            kept: Some(kept),
            policy,
            request: PhantomData,
        }
    }

    /// The end of a call that was dropped before it had one.
    #[cold]
    #[inline(never)]
    fn cancel(self: Pin<&mut Self>) {
        let mut this = self.project();
        // Taken now and dropped at the end, whatever the event runs into.
        let _error = match this.phase.as_mut().project() {
            PhaseProjection::Failed { error } => error.take().map(ManuallyDrop::into_inner),
            PhaseProjection::Idle | PhaseProjection::Started | PhaseProjection::Recovering { .. } => None,
        };
        this.policy.fallback().core.telemetry.emit_finished(Outcome::Cancelled);
        this.phase.set(Phase::Idle);
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
        let mut this = self.as_mut().project();
        let Some(operation) = this.operation.as_mut().as_pin_mut() else {
            return self.poll_recovery(cx);
        };
        if matches!(*this.phase, Phase::Idle) {
            this.phase.set(Phase::Started);
        }
        let result = ready!(operation.poll(cx));
        let fallback = &*this.policy.fallback().core;
        let verdict = match &result {
            Ok(response) => Some(fallback.judgement.judge(Ok(response)).verdict),
            Err(_) => None,
        };
        // The phase is no other here. It is asked for the compiler, which then knows that there is no recovery to drop.
        if verdict == Some(Verdict::Success) && matches!(*this.phase, Phase::Started) {
            let Ok(result) = P::Mode::sort(result, false) else {
                unreachable!("a response that need not be replaced passes")
            };
            this.operation.set(None);
            this.phase.set(Phase::Idle);
            if heard(fallback.telemetry.listener.is_some(), LevelFilter::TRACE) {
                fallback.telemetry.emit_finished(Outcome::NotNeeded);
            }
            return Poll::Ready(result);
        }
        match self.as_mut().settle(result, verdict) {
            Some(result) => Poll::Ready(result),
            None => self.poll_recovery(cx),
        }
    }
}

impl<P: Held, Req, F, K, E, R> ResponseFuture<P, Req, F, K, E, R> {
    /// What follows from an error, and from a response with a `verdict` of its own: the end of the call, or a recovery
    /// under way and `None`.
    ///
    /// Not inlined, to keep `poll` small.
    #[inline(never)]
    fn settle<T, X>(self: Pin<&mut Self>, result: Result<T, E>, verdict: Option<Verdict>) -> Option<Result<T, X>>
    where
        P: Held<Classifier: Classify<T, E>, Mode: Mode<E, Error = X>>,
        P::Handler: Recover<Req, T, E, X, Kept = K, Future = R>,
    {
        let mut this = self.project();
        let fallback = &*this.policy.fallback().core;
        let judged = match verdict {
            Some(verdict) => Judged::response(verdict),
            None => fallback.judgement.judge(result.as_ref()),
        };
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
                this.operation.set(None);
                fallback.handler.recover(result, kept).map_err(Ok)
            }
            (Err(_), None) => unreachable!("the request is kept until the one recovery takes it"),
        };
        match recovery {
            Ok(recovery) => {
                if !is_error {
                    fallback.telemetry.emit_recovering(verdict, None);
                }
                this.phase.set(Phase::Recovering { recovery });
                None
            }
            Err(result) => {
                this.operation.set(None);
                this.phase.set(Phase::Idle);
                if heard(fallback.telemetry.listener.is_some(), LevelFilter::TRACE) {
                    fallback.telemetry.emit_finished(Outcome::NotNeeded);
                }
                Some(result)
            }
        }
    }

    /// Not inlined, for the same reason.
    #[inline(never)]
    fn poll_recovery<T, X>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, X>>
    where
        P: Held<Classifier: Classify<T, E>, Mode: Mode<E, Error = X>>,
        P::Handler: Recover<Req, T, E, X, Kept = K, Future = R>,
        R: Future<Output = Result<T, X>>,
    {
        loop {
            let mut this = self.as_mut().project();
            match this.phase.as_mut().project() {
                PhaseProjection::Recovering { recovery } => {
                    let result = ready!(recovery.poll(cx));
                    this.phase.set(Phase::Idle);
                    let outcome = if result.is_ok() {
                        Outcome::Recovered
                    } else {
                        Outcome::RecoveryFailed
                    };
                    this.policy.fallback().core.telemetry.emit_finished(outcome);
                    return Poll::Ready(result);
                }
                PhaseProjection::Failed { error } => {
                    let Some(error) = error.take() else {
                        return polled_after_completion("fallback");
                    };
                    if let Some(result) = self.as_mut().settle(Err(ManuallyDrop::into_inner(error)), None) {
                        return Poll::Ready(result);
                    }
                }
                PhaseProjection::Idle | PhaseProjection::Started => return polled_after_completion("fallback"),
            }
        }
    }
}

#[pinned_drop]
impl<P: Held, Req, F, K, E, R> PinnedDrop for ResponseFuture<P, Req, F, K, E, R> {
    #[inline]
    fn drop(mut self: Pin<&mut Self>) {
        // `while` where `if` would do: behind it the compiler knows that there is no recovery to drop. What is left to
        // drop is then small enough to be inlined, as a call that needed none is dropped by a comparison.
        while !matches!(self.phase, Phase::Idle) {
            self.as_mut().cancel();
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
