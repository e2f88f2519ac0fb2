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
        let polled = operation.poll(cx);
        if polled.is_pending() {
            unwinding.disarm();
            return polled;
        }
        this.operation.set(None);
        unwinding.disarm();
        let somebody_waits = this.admission.release();
        if somebody_waits || this.admission.is_heard() {
            return complete(this.admission, somebody_waits, polled);
        }
        polled
    }
}

/// The end of a call that somebody waits for, or hears of.
#[inline(never)]
fn complete<P: Held, T>(admission: &Admission<P>, somebody_waits: bool, polled: T) -> T {
    admission.complete(somebody_waits);
    polled
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
    Unready {
        service: S,
        request: Option<Req>,
    },
    Made {
        #[pin]
        future: S::Future,
    },
}

impl<S: Service<Req>, Req> Future for ServiceCall<S, Req> {
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let ServiceCallProjection::Made { future } = self.as_mut().project() {
            return future.poll(cx);
        }
        self.poll_unready(cx)
    }
}

impl<S: Service<Req>, Req> ServiceCall<S, Req> {
    #[cold]
    #[inline(never)]
    fn poll_unready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        loop {
            match self.as_mut().project() {
                ServiceCallProjection::Made { future } => return future.poll(cx),
                ServiceCallProjection::Unready { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        return polled_after_completion("bulkhead");
                    };
                    let future = service.call(request);
                    self.set(Self::Made { future });
                }
            }
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for ServiceCall<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCall").finish_non_exhaustive()
    }
}
