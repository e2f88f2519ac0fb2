//! The Tower face.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::attempt::{Attempt, Attempts, Cause};
use super::future::ResponseFuture;
use super::policy::Retry;
use super::replay::{ByClone, Replay};
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
        let clone = self.inner.clone();
        let attempts = Requests {
            service: mem::replace(&mut self.inner, clone),
            request: Some(self.retry.view.replay.accept(request)),
            accepted: PhantomData,
        };
        ResponseFuture::started(self.retry.clone(), attempts)
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
    service: S,
    /// The request, or the copy of it kept while an attempt is under way.
    request: Option<Sent>,
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
        let Some(mut request) = self.request.take() else {
            unreachable!("an attempt is repeated only while a request is kept for it")
        };
        if !attempt.is_last() {
            self.request = replay.copy(&request);
        }
        replay.prepare(&mut request, attempt);
        self.service.call(request)
    }

    fn may_repeat(&self, replay: &R, cause: &Cause<'_>) -> bool {
        self.request.as_ref().is_some_and(|kept| replay.allows(kept, cause))
    }
}

impl<S, Req, Sent> fmt::Debug for Requests<S, Req, Sent> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("keeps_a_copy", &self.request.is_some())
            .finish_non_exhaustive()
    }
}
