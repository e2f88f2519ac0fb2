//! The Tower face.

use std::fmt;
use std::mem;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::control::Refusal;
use super::event::Rejection;
use super::future::{OnPanic, ResponseFuture, Times};
use super::policy::CircuitBreaker;
use crate::{Classify, Rejected};

impl<S, C> Layer<S> for CircuitBreaker<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService {
            inner,
            breaker: self.clone(),
            readiness: Readiness::Unknown,
        }
    }
}

/// A service under a [`CircuitBreaker`].
///
/// While the breaker rejects, the service is ready at once and the inner one is not asked. A handle that had been waiting
/// for the inner service, or was ready, is then exchanged for a fresh one: nobody keeps a place for a call that is not made.
pub struct CircuitBreakerService<S, C> {
    inner: S,
    breaker: CircuitBreaker<C>,
    readiness: Readiness,
}

/// What this handle knows of the inner service's readiness.
#[derive(Clone, Copy)]
enum Readiness {
    Unknown,
    Pending,
    Ready,
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C>
where
    S: Service<Req, Error: From<Rejected>> + Clone,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<CircuitBreaker<C>, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.breaker.breaker().would_reject().is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.inner.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.readiness = Readiness::Ready;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                self.readiness = Readiness::Pending;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.count(error))),
        }
    }

    #[allow(
        clippy::inline_always,
        reason = "measured: a future that a call returns is moved, one that is made here is written to its place"
    )]
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let breaker = self.breaker.breaker();
        let readiness = mem::replace(&mut self.readiness, Readiness::Unknown);
        let admitted = match readiness {
            Readiness::Ready => breaker.admit(),
            Readiness::Unknown | Readiness::Pending => Err(self.reject_unready()),
        };
        let ticket = match admitted {
            Ok(ticket) => ticket,
            Err(refusal) => {
                if !matches!(readiness, Readiness::Unknown) {
                    self.inner = self.inner.clone();
                }
                return ResponseFuture::rejected(self.breaker.clone(), refusal);
            }
        };
        let times = Times::of_admitted(breaker);
        let guard = OnPanic::new(breaker, ticket);
        let operation = self.inner.call(request);
        guard.disarm();
        ResponseFuture::started(self.breaker.clone(), ticket, times, operation)
    }
}

/// Makes a call over a service that is ready, or rejects it and leaves a fresh clone that holds nothing.
#[inline]
pub(crate) fn admit<S, C, Req>(
    breaker: CircuitBreaker<C>,
    inner: &mut S,
    request: Req,
) -> ResponseFuture<CircuitBreaker<C>, S::Future>
where
    S: Service<Req> + Clone,
{
    let ticket = match breaker.breaker().admit() {
        Ok(ticket) => ticket,
        Err(refusal) => {
            *inner = inner.clone();
            return ResponseFuture::rejected(breaker, refusal);
        }
    };
    let times = Times::of_admitted(breaker.breaker());
    let guard = OnPanic::new(breaker.breaker(), ticket);
    let operation = inner.call(request);
    guard.disarm();
    ResponseFuture::started(breaker, ticket, times, operation)
}

impl<S, C> CircuitBreakerService<S, C> {
    /// A call through a handle whose inner service is not ready, because the breaker was rejecting when it was asked.
    #[cold]
    #[inline(never)]
    fn reject_unready(&self) -> Refusal {
        let breaker = self.breaker.breaker();
        // Where all probes hang no other call comes: this one has to end their round.
        breaker.cell.give_up_old_probes(breaker);
        let admits_by_now = Refusal {
            state: breaker.cell.state(),
            retry_after: Some(0),
        };
        let refusal = breaker.would_reject().unwrap_or(admits_by_now);
        breaker.tell_of(Rejection { refusal, shadow: false });
        refusal
    }

    /// An inner service that fails to become ready has failed.
    #[cold]
    #[inline(never)]
    fn count<Req>(&mut self, error: S::Error) -> S::Error
    where
        S: Service<Req>,
        C: Classify<S::Response, S::Error>,
    {
        self.readiness = Readiness::Unknown;
        let view = &*self.breaker.view;
        let judged = view.judgement.judge(Err(&error));
        if let Ok(ticket) = view.breaker.cell.enter(&*view.breaker) {
            view.breaker.finish(ticket, Times::NONE, &judged);
        }
        error
    }
}

/// A clone has asked for nothing yet.
impl<S: Clone, C> Clone for CircuitBreakerService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
            readiness: Readiness::Unknown,
        }
    }
}

impl<S: fmt::Debug, C: fmt::Debug> fmt::Debug for CircuitBreakerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}
