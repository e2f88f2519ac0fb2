//! The Tower face.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::attempt::{Attempt, Attempts, Cause};
use super::future::ResponseFuture;
use super::policy::{Policy, Retry};
use super::replay::{ByClone, Replay};
use crate::guard::Guard;
use crate::{ByError, Classify};

impl<S, C, R> Layer<S> for Retry<C, R> {
    type Service = RetryService<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            retry: self.clone(),
        }
    }
}

/// A service under a [`Retry`].
pub struct RetryService<S, C = ByError, R = ByClone> {
    inner: S,
    retry: Retry<C, R>,
}

impl<S, C, R, Req> Service<Req> for RetryService<S, C, R>
where
    S: Service<R::Sent> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Retry<C, R>, Requests<S, Req, R::Sent>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let view = &*self.retry.view;
        let first = Attempt {
            number: 1,
            max: view.policy.limits.max_attempts,
        };
        let mut request = view.replay.accept(request);
        // A panic of the service ends the call, of which there is no future yet.
        let telling = Guard::new(&*view.policy, Policy::emit_cancelled_at_start);
        let kept = keep(&view.replay, &request, first);
        view.replay.prepare(&mut request, first);
        let attempt = self.inner.call(request);
        // Cloned after the call, which this handle has made itself: a clone that is there before would have to be dropped
        // if the call panics, and what can be dropped is put together elsewhere and moved.
        let attempts = Requests {
            service: self.inner.clone(),
            kept,
            accepted: PhantomData,
        };
        telling.disarm();
        ResponseFuture::started(self.retry.clone(), attempts, attempt)
    }
}

impl<S: Clone, C, R> Clone for RetryService<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            retry: self.retry.clone(),
        }
    }
}

impl<S: fmt::Debug, C: fmt::Debug, R> fmt::Debug for RetryService<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService")
            .field("inner", &self.inner)
            .field("retry", &self.retry)
            .finish()
    }
}

/// Attempts made by sending copies of a request to a service.
pub struct Requests<S, Req, Sent> {
    /// For the attempts after the first.
    service: S,
    /// The copy of the request that is kept while an attempt is under way.
    kept: Option<Sent>,
    accepted: PhantomData<fn(Req)>,
}

impl<S, Req, R> Attempts<R> for Requests<S, Req, R::Sent>
where
    S: Service<R::Sent>,
    R: Replay<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    #[inline]
    fn start(&mut self, replay: &R, attempt: Attempt) -> S::Future {
        let Some(mut request) = self.kept.take() else {
            unreachable!("an attempt is repeated only while a request is kept for it")
        };
        self.kept = keep(replay, &request, attempt);
        replay.prepare(&mut request, attempt);
        self.service.call(request)
    }

    fn may_repeat(&self, replay: &R, cause: &Cause<'_>) -> bool {
        self.kept.as_ref().is_some_and(|kept| replay.allows(kept, cause))
    }
}

/// A copy for the attempts to come, if there may be one.
#[inline]
fn keep<Req, R: Replay<Req>>(replay: &R, request: &R::Sent, attempt: Attempt) -> Option<R::Sent> {
    if attempt.is_last() { None } else { replay.copy(request) }
}

impl<S, Req, Sent> fmt::Debug for Requests<S, Req, Sent> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("keeps_a_copy", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}
