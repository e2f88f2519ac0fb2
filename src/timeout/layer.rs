//! The Tower face.

use std::fmt;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use super::future::ResponseFuture;
use super::policy::Timeout;
use crate::Rejected;
use crate::rare::Rare;

impl<S> Layer<S> for Timeout {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService {
            inner,
            timeout: self.clone(),
            readiness: Readiness::Unknown,
        }
    }
}

/// A service under a [`Timeout`].
///
/// The limit covers the wait until the inner service is ready: if that takes too long, `poll_ready` is ready and `call`
/// rejects. Time spent waiting there is taken off the call's.
pub struct TimeoutService<S> {
    inner: S,
    timeout: Timeout,
    readiness: Readiness,
}

/// How far this handle has come towards its next call.
enum Readiness {
    Unknown,
    Waiting {
        since: Instant,
        timer: Rare<Pin<Box<Sleep>>>,
    },
    Ready {
        waited: Duration,
    },
    Expired,
}

impl<S, Req> Service<Req> for TimeoutService<S>
where
    S: Service<Req, Error: From<Rejected>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Timeout, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !matches!(self.readiness, Readiness::Unknown) {
            return self.poll_ready_again(cx);
        }
        // Handed on in one piece: to take it apart and put it together again is to copy it.
        let polled = self.inner.poll_ready(cx);
        if polled.is_pending() {
            return self.poll_expired(cx);
        }
        polled
    }

    #[allow(
        clippy::inline_always,
        reason = "measured: a future that a call returns is moved, one that is made here is written to its place"
    )]
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let waited = if matches!(self.readiness, Readiness::Unknown) {
            Some(Duration::ZERO)
        } else {
            self.take_waited()
        };
        let (operation, waited) = if let Some(waited) = waited {
            (Some(self.inner.call(request)), waited)
        } else {
            // A fresh handle: the old one stays in line for a call that will not be made.
            self.inner = self.inner.clone();
            (None, Duration::ZERO)
        };
        ResponseFuture::started(self.timeout.clone(), operation, waited)
    }
}

// What a service that is ready at once has no use for, apart from its path.
impl<S> TimeoutService<S> {
    /// Readies a handle that was pending, or was readied before.
    #[inline(never)]
    fn poll_ready_again<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Req>,
    {
        if matches!(self.readiness, Readiness::Expired) {
            return Poll::Ready(Ok(()));
        }
        let polled = self.inner.poll_ready(cx);
        if polled.is_pending() {
            return self.poll_expired(cx);
        }
        self.stop_waiting();
        polled
    }

    /// Notes how long the wait has been, now that the inner service is ready.
    fn stop_waiting(&mut self) {
        if let Readiness::Waiting { since, .. } = &self.readiness {
            // Longer than the limit, and yet not expired: nobody was polling, so nobody was waiting.
            let waited = Some(since.elapsed()).filter(|waited| *waited < self.timeout.limit);
            self.readiness = Readiness::Ready {
                waited: waited.unwrap_or_default(),
            };
        }
    }

    /// How long the wait has been, or `None` if it was too long.
    #[cold]
    #[inline(never)]
    fn take_waited(&mut self) -> Option<Duration> {
        match mem::replace(&mut self.readiness, Readiness::Unknown) {
            Readiness::Expired => None,
            Readiness::Ready { waited } => Some(waited),
            Readiness::Unknown | Readiness::Waiting { .. } => Some(Duration::ZERO),
        }
    }

    #[cold]
    #[inline(never)]
    fn poll_expired<E>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if !matches!(self.readiness, Readiness::Waiting { .. }) {
            self.readiness = Readiness::Waiting {
                since: Instant::now(),
                timer: Rare::new(Box::pin(sleep(self.timeout.limit))),
            };
        }
        if let Readiness::Waiting { timer, .. } = &mut self.readiness {
            // A service that has used up the task's budget must not keep the timer from being looked at.
            if let Some(timer) = timer.as_mut() {
                ready!(pin!(unconstrained(timer.as_mut())).poll(cx));
            }
        }
        self.readiness = Readiness::Expired;
        Poll::Ready(Ok(()))
    }
}

/// A clone has not waited for anything yet.
impl<S: Clone> Clone for TimeoutService<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            timeout: self.timeout.clone(),
            readiness: Readiness::Unknown,
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for TimeoutService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutService")
            .field("inner", &self.inner)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A [`Timeout`] whose limit is computed from the request; made by [`Timeout::per_request`].
#[derive(Clone)]
pub struct RequestTimeoutLayer<L> {
    timeout: Timeout,
    limit: L,
}

impl<L> RequestTimeoutLayer<L> {
    pub(crate) fn new(timeout: Timeout, limit: L) -> Self {
        Self { timeout, limit }
    }
}

impl<S, L: Clone> Layer<S> for RequestTimeoutLayer<L> {
    type Service = RequestTimeoutService<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestTimeoutService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service under a [`Timeout`] whose limit is computed from the request.
#[derive(Clone)]
pub struct RequestTimeoutService<S, L> {
    inner: S,
    layer: RequestTimeoutLayer<L>,
}

impl<S, L, Req> Service<Req> for RequestTimeoutService<S, L>
where
    S: Service<Req, Error: From<Rejected>>,
    L: Fn(&Req) -> Duration,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Timeout, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let limit = (self.layer.limit)(&request);
        let operation = self.inner.call(request);
        let mut timeout = self.layer.timeout.clone();
        timeout.limit = limit;
        ResponseFuture::started(timeout, Some(operation), Duration::ZERO)
    }
}

impl<L> fmt::Debug for RequestTimeoutLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTimeoutLayer")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, L> fmt::Debug for RequestTimeoutService<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTimeoutService")
            .field("inner", &self.inner)
            .field("timeout", &self.layer.timeout)
            .finish_non_exhaustive()
    }
}
