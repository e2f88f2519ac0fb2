//! The Tower face.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::attempt::{Attempt, Attempts, Cause};
use super::future::ResponseFuture;
use super::policy::Retry;
use super::replay::{ByClone, Prepared, Replay};
use crate::{ByError, Classify};

/// A [`Retry`] as a Tower layer, with its way to keep requests; made by [`Retry::replay`].
#[derive(Debug)]
pub struct RetryLayer<C = ByError, R = ByClone> {
    retry: Retry<C>,
    replay: R,
}

impl<C, R> RetryLayer<C, R> {
    pub(crate) fn new(retry: Retry<C>, replay: R) -> Self {
        Self { retry, replay }
    }

    /// Runs `hook` on each request just before it is sent: a header with the attempt's number, a fresh signature.
    ///
    /// What it changes is seen by that attempt alone.
    pub fn before_attempt<Req>(
        self,
        hook: impl Fn(&mut Req, Attempt) + Send + Sync + 'static,
    ) -> RetryLayer<C, Prepared<R, Req>> {
        RetryLayer {
            retry: self.retry,
            replay: Prepared {
                replay: self.replay,
                hook: Arc::new(hook),
            },
        }
    }
}

impl<S, C, R: Clone> Layer<S> for RetryLayer<C, R> {
    type Service = RetryService<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryService {
            inner,
            retry: self.retry.clone(),
            replay: self.replay.clone(),
        }
    }
}

/// Keeps requests by cloning them.
impl<S, C> Layer<S> for Retry<C> {
    type Service = RetryService<S, C, ByClone>;

    fn layer(&self, inner: S) -> Self::Service {
        self.replay(ByClone).layer(inner)
    }
}

/// A service under a [`Retry`].
pub struct RetryService<S, C = ByError, R = ByClone> {
    inner: S,
    retry: Retry<C>,
    replay: R,
}

impl<S, C, R, Req> Service<Req> for RetryService<S, C, R>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Retry<C>, Requests<S, Req, R>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let clone = self.inner.clone();
        let attempts = Requests {
            service: mem::replace(&mut self.inner, clone),
            request: Some(request),
            replay: self.replay.clone(),
        };
        ResponseFuture::started(self.retry.clone(), attempts)
    }
}

impl<C, R: Clone> Clone for RetryLayer<C, R> {
    fn clone(&self) -> Self {
        Self {
            retry: self.retry.clone(),
            replay: self.replay.clone(),
        }
    }
}

impl<S: Clone, C, R: Clone> Clone for RetryService<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            retry: self.retry.clone(),
            replay: self.replay.clone(),
        }
    }
}

impl<S: fmt::Debug, C: fmt::Debug, R> fmt::Debug for RetryService<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService")
            .field("inner", &self.inner)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Attempts made by sending copies of a request to a service.
pub struct Requests<S, Req, R> {
    service: S,
    /// The request, or the copy of it kept while an attempt is under way.
    request: Option<Req>,
    replay: R,
}

impl<S: Service<Req>, Req, R: Replay<Req>> Attempts for Requests<S, Req, R> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    #[inline]
    fn start(&mut self, attempt: Attempt) -> S::Future {
        let Some(mut request) = self.request.take() else {
            unreachable!("an attempt is repeated only while a request is kept for it")
        };
        if !attempt.is_last() {
            self.request = self.replay.copy(&request);
        }
        self.replay.prepare(&mut request, attempt);
        self.service.call(request)
    }

    fn may_repeat(&self, cause: &Cause<'_>) -> bool {
        self.request
            .as_ref()
            .is_some_and(|kept| self.replay.allows(kept, cause))
    }
}

impl<S, Req, R> fmt::Debug for Requests<S, Req, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests")
            .field("keeps_a_copy", &self.request.is_some())
            .finish_non_exhaustive()
    }
}
