//! The driver: everything that is polled.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::admission::Admission;
use super::policy::Held;
use crate::Rejected;
use crate::guard::Guard;
use crate::poll::polled_after_completion;
use crate::rare::Rare;

/// A call under a [`Bulkhead`](super::Bulkhead).
// The operation is dropped before what admitted it: never are there more operations than permits.
#[pin_project]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    /// `None` when the call has ended, or will not be made.
    #[pin]
    operation: Option<F>,
    admission: Admission<P>,
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(admission: Admission<P>, operation: Option<F>) -> Self {
        Self { operation, admission }
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
        if let Err(rejected) = ready!(this.admission.poll(cx)) {
            this.operation.set(None);
            return Poll::Ready(Err(rejected.into()));
        }
        let Some(operation) = this.operation.as_mut().as_pin_mut() else {
            return polled_after_completion("bulkhead");
        };
        // A panic gives the permit back while it unwinds: nobody knows when this future will be dropped.
        let unwinding = Guard::new(&mut *this.admission, Admission::abandon);
        let Poll::Ready(result) = operation.poll(cx) else {
            unwinding.disarm();
            return Poll::Pending;
        };
        this.operation.set(None);
        unwinding.disarm();
        let somebody_waits = this.admission.release();
        if somebody_waits || this.admission.is_heard() {
            this.admission.complete(somebody_waits);
        }
        Poll::Ready(result)
    }
}

impl<P: Held, F> fmt::Debug for ResponseFuture<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}

/// A call of a service: already made, or to be made when the service is ready. It is polled under a permit only.
#[pin_project(project = ServiceCallProjection)]
pub enum ServiceCall<S: Service<Req>, Req> {
    Unready(Unready<S, Req>),
    Made {
        #[pin]
        future: S::Future,
    },
}

/// A service, and the request that it is to be called with when it is ready.
///
/// Boxed: few calls have it, and all would be moved with the room for it.
pub struct Unready<S, Req>(Rare<Box<(S, Option<Req>)>>);

impl<S, Req> Unready<S, Req> {
    pub(crate) fn new(service: S, request: Req) -> Self {
        Self(Rare::new(Box::new((service, Some(request)))))
    }
}

impl<S: Service<Req>, Req> Future for ServiceCall<S, Req> {
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let ServiceCallProjection::Made { future } = self.as_mut().project() {
                return future.poll(cx);
            }
            if let Err(error) = ready!(self.as_mut().make(cx)) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl<S: Service<Req>, Req> ServiceCall<S, Req> {
    /// Makes the call, as soon as the service is ready.
    #[cold]
    #[inline(never)]
    fn make(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if let ServiceCallProjection::Unready(Unready(parts)) = self.as_mut().project() {
            let Some((service, request)) = parts.as_mut().map(Box::as_mut) else {
                return polled_after_completion("bulkhead");
            };
            ready!(service.poll_ready(cx))?;
            let Some(request) = request.take() else {
                return polled_after_completion("bulkhead");
            };
            let future = service.call(request);
            self.set(Self::Made { future });
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, Req> fmt::Debug for Unready<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unready").finish_non_exhaustive()
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ServiceCall<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCall").finish_non_exhaustive()
    }
}
