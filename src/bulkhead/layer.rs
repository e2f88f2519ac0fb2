//! The Tower face.

use std::fmt;
use std::mem;
use std::num::NonZeroU32;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::admission::Admission;
use super::future::{ResponseFuture, ServiceCall, Unready};
use super::policy::Bulkhead;
use crate::Rejected;
use crate::guard::Guard;

impl<S> Layer<S> for Bulkhead {
    type Service = BulkheadService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::new(inner, self.clone(), One)
    }
}

/// A [`Bulkhead`] under which each request has a weight; made by [`Bulkhead::weighted`].
#[derive(Clone)]
pub struct WeightedLayer<W> {
    bulkhead: Bulkhead,
    weight: W,
}

impl<W> WeightedLayer<W> {
    pub(crate) fn new(bulkhead: Bulkhead, weight: W) -> Self {
        Self { bulkhead, weight }
    }
}

impl<S, W: Clone> Layer<S> for WeightedLayer<W> {
    type Service = BulkheadService<S, W>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::new(inner, self.bulkhead.clone(), self.weight.clone())
    }
}

/// How many calls a request counts as.
pub trait Weigh<Req> {
    fn weigh(&self, request: &Req) -> NonZeroU32;
}

/// Each request counts as one.
#[derive(Clone, Copy, Debug)]
pub struct One;

impl<Req> Weigh<Req> for One {
    #[inline]
    fn weigh(&self, _: &Req) -> NonZeroU32 {
        NonZeroU32::MIN
    }
}

impl<Req, W: Fn(&Req) -> NonZeroU32> Weigh<Req> for W {
    #[inline]
    fn weigh(&self, request: &Req) -> NonZeroU32 {
        self(request)
    }
}

/// A service under a [`Bulkhead`].
///
/// While there is a permit it is as ready as the inner service. While there is none it is ready at once: `call` then
/// rejects, or waits in the queue, and readies a clone of the inner service of its own when it has its permit.
pub struct BulkheadService<S, W = One> {
    inner: S,
    bulkhead: Bulkhead,
    weight: W,
    readiness: Readiness,
}

/// What the inner service of this handle was asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Readiness {
    Unasked,
    /// It may have a place in a line.
    Pending,
    /// It may hold something for the call to come.
    Ready,
}

impl<S, W> BulkheadService<S, W> {
    fn new(inner: S, bulkhead: Bulkhead, weight: W) -> Self {
        Self {
            inner,
            bulkhead,
            weight,
            readiness: Readiness::Unasked,
        }
    }
}

impl<S, W, Req> Service<Req> for BulkheadService<S, W>
where
    S: Service<Req, Error: From<Rejected>> + Clone,
    W: Weigh<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<Bulkhead, ServiceCall<S, Req>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if !self.bulkhead.shared.semaphore.admits() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.inner.poll_ready(cx);
        self.readiness = match polled {
            Poll::Ready(Ok(())) => Readiness::Ready,
            Poll::Ready(Err(_)) | Poll::Pending => Readiness::Pending,
        };
        polled
    }

    #[allow(
        clippy::inline_always,
        reason = "measured: a future that a call returns is moved, one that is made here is written to its place"
    )]
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let weight = self.weight.weigh(&request);
        let readiness = mem::replace(&mut self.readiness, Readiness::Unasked);
        admit(&self.bulkhead, &mut self.inner, weight, readiness, request)
    }
}

/// Makes a call, or rejects it, or lets it wait.
#[allow(clippy::inline_always, reason = "as for `call`")]
#[inline(always)]
pub(crate) fn admit<S, Req>(
    bulkhead: &Bulkhead,
    inner: &mut S,
    weight: NonZeroU32,
    readiness: Readiness,
    request: Req,
) -> ResponseFuture<Bulkhead, ServiceCall<S, Req>>
where
    S: Service<Req> + Clone,
{
    if readiness == Readiness::Ready && bulkhead.try_admit(weight) {
        // A panic gives the permit back: there is no future yet that would.
        let unwinding = Guard::new((bulkhead, weight), abandon);
        let future = inner.call(request);
        unwinding.disarm();
        let admission = Admission::holding(bulkhead.clone(), weight);
        return ResponseFuture::new(admission, Some(ServiceCall::Made { future }));
    }
    let (admission, unready) = admit_unready(bulkhead, inner, weight, readiness, request);
    ResponseFuture::new(admission, unready.map(ServiceCall::Unready))
}

/// The end of a call whose service panicked.
#[cold]
#[inline(never)]
fn abandon((bulkhead, weight): (&Bulkhead, NonZeroU32)) {
    drop(Admission::holding(bulkhead, weight));
}

/// What a call that is not made at once goes on with.
type Later<S, Req> = (Admission<Bulkhead>, Option<Unready<S, Req>>);

/// A call that is rejected, waits for its permit, or has its permit and is to be made when the inner service is ready.
///
/// The handle goes on with a fresh clone: it is not to keep what it got for a call that is not made by it.
// It returns the parts of a future: one that is written here too would be put together aside, and be copied.
#[cold]
#[inline(never)]
fn admit_unready<S: Clone, Req>(
    bulkhead: &Bulkhead,
    inner: &mut S,
    weight: NonZeroU32,
    readiness: Readiness,
    request: Req,
) -> Later<S, Req> {
    let asked = readiness != Readiness::Unasked;
    let mut admission = Admission::new(bulkhead.clone(), weight);
    admission.enter();
    if admission.is_refused() {
        if asked {
            *inner = inner.clone();
        }
        return (admission, None);
    }
    let fresh = inner.clone();
    let mut service = mem::replace(inner, fresh);
    if asked && admission.is_queued() {
        // Neither does a call that waits for its permit keep anybody from using the inner service.
        service = inner.clone();
    }
    (admission, Some(Unready::new(service, request)))
}

/// A clone has not asked for readiness yet.
impl<S: Clone, W: Clone> Clone for BulkheadService<S, W> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.bulkhead.clone(), self.weight.clone())
    }
}

impl<W> fmt::Debug for WeightedLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedLayer")
            .field("bulkhead", &self.bulkhead)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, W> fmt::Debug for BulkheadService<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadService")
            .field("inner", &self.inner)
            .field("bulkhead", &self.bulkhead)
            .finish_non_exhaustive()
    }
}
