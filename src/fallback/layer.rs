//! The Tower face.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tower_layer::Layer;
use tower_service::Service;

use super::future::ResponseFuture;
use super::policy::{EveryError, Failures, Fallback};
use super::recover::Recover;
use crate::{ByError, Classify};

impl<S, H, C, M> Layer<S> for Fallback<H, C, M> {
    type Service = FallbackService<S, H, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        FallbackService {
            inner,
            fallback: self.clone(),
            parked: Mutex::new(None),
        }
    }
}

/// A service under a [`Fallback`].
pub struct FallbackService<S, H, C = ByError, M = Failures> {
    inner: S,
    fallback: Fallback<H, C, M>,
    /// An error of `poll_ready`, for the next `call`; only where every error is recovered from. Its type depends on
    /// the request's, which a layer does not know. Never locked: the mutex makes the service `Sync`.
    parked: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<S, H, C, Req> Service<Req> for FallbackService<S, H, C, Failures>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    H: Recover<Req, S::Response, S::Error, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Fallback<H, C, Failures>, Req, S::Future, H::Kept, S::Error, H::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let kept = self.fallback.core.handler.keep(&request);
        let operation = self.inner.call(request);
        ResponseFuture::started(self.fallback.clone(), operation, kept)
    }
}

impl<S, H, C, Req> Service<Req> for FallbackService<S, H, C, EveryError>
where
    S: Service<Req, Error: Send + 'static>,
    C: Classify<S::Response, S::Error>,
    H: Recover<Req, S::Response, S::Error, Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = ResponseFuture<Fallback<H, C, EveryError>, Req, S::Future, H::Kept, S::Error, H::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let parked = self.parked.get_mut().unwrap_or_else(PoisonError::into_inner);
        if parked.is_none() {
            if let Err(error) = ready!(self.inner.poll_ready(cx)) {
                *parked = Some(Box::new(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let kept = self.fallback.core.handler.keep(&request);
        let parked = self.parked.get_mut().unwrap_or_else(PoisonError::into_inner);
        match parked.take().map(<Box<dyn Any + Send>>::downcast::<S::Error>) {
            Some(Ok(error)) => ResponseFuture::failed(self.fallback.clone(), *error, kept),
            // Another request type's error cannot be parked here: whoever readies for one request calls with it.
            Some(Err(_)) | None => ResponseFuture::started(self.fallback.clone(), self.inner.call(request), kept),
        }
    }
}

/// A clone has nothing parked.
impl<S: Clone, H, C, M> Clone for FallbackService<S, H, C, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            fallback: self.fallback.clone(),
            parked: Mutex::new(None),
        }
    }
}

impl<S: fmt::Debug, H: fmt::Debug, C: fmt::Debug, M> fmt::Debug for FallbackService<S, H, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackService")
            .field("inner", &self.inner)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}
