//! What answers instead: the ways to recover.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::policy::Core;

/// Answers for a call that failed.
///
/// `X` is the error after the recovery: the same as before, or `Infallible`.
pub trait Recover<Req, T, E, X> {
    /// What is kept of the request while the call is under way.
    type Kept;
    /// The recovery under way.
    type Future: Future<Output = Result<T, X>>;

    /// Keeps what [`recover`](Self::recover) will need of the request.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// Begins the recovery, or hands an `Ok` back that is not its business.
    ///
    /// # Errors
    ///
    /// The `Ok` value, where only errors are recovered from.
    fn recover(&self, failed: Result<T, E>, kept: Self::Kept) -> Result<Self::Future, T>;
}

/// Answers with a clone of a value; made by [`Fallback::value`](super::Fallback::value).
#[derive(Clone, Copy, Debug)]
pub struct Value<V>(pub(crate) V);

impl<Req, T: Clone, E, X> Recover<Req, T, E, X> for Value<T> {
    type Kept = ();
    type Future = Ready<Result<T, X>>;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn recover(&self, _: Result<T, E>, (): ()) -> Result<Self::Future, T> {
        Ok(ready(Ok(self.0.clone())))
    }
}

/// Answers with a function of the error; made by [`Fallback::from_error`](super::Fallback::from_error).
pub struct FromError<F>(pub(crate) F);

impl<Req, T, E, X, F> Recover<Req, T, E, X> for FromError<F>
where
    F: Fn(E) -> Result<T, X>,
{
    type Kept = ();
    type Future = Ready<Result<T, X>>;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn recover(&self, failed: Result<T, E>, (): ()) -> Result<Self::Future, T> {
        failed.map_or_else(|error| Ok(ready((self.0)(error))), Err)
    }
}

/// Answers with an async function of the error; made by
/// [`Fallback::from_error_async`](super::Fallback::from_error_async).
pub struct FromErrorAsync<F>(pub(crate) F);

impl<Req, T, E, X, F, Fut> Recover<Req, T, E, X> for FromErrorAsync<F>
where
    F: Fn(E) -> Fut,
    Fut: Future<Output = Result<T, X>>,
{
    type Kept = ();
    type Future = Fut;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn recover(&self, failed: Result<T, E>, (): ()) -> Result<Fut, T> {
        failed.map_or_else(|error| Ok((self.0)(error)), Err)
    }
}

/// Answers with an async function of the whole result; made by
/// [`Fallback::from_outcome`](super::Fallback::from_outcome).
pub struct FromOutcome<F>(pub(crate) F);

impl<Req, T, E, X, F, Fut> Recover<Req, T, E, X> for FromOutcome<F>
where
    F: Fn(Result<T, E>) -> Fut,
    Fut: Future<Output = Result<T, X>>,
{
    type Kept = ();
    type Future = Fut;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn recover(&self, failed: Result<T, E>, (): ()) -> Result<Fut, T> {
        Ok((self.0)(failed))
    }
}

/// Answers with an async function of the request and the error; made by
/// [`Fallback::from_request`](super::Fallback::from_request).
pub struct FromRequest<F>(pub(crate) F);

impl<Req, T, E, X, F, Fut> Recover<Req, T, E, X> for FromRequest<F>
where
    Req: Clone,
    F: Fn(Req, E) -> Fut,
    Fut: Future<Output = Result<T, X>>,
{
    type Kept = Req;
    type Future = Fut;

    #[inline]
    fn keep(&self, request: &Req) -> Req {
        request.clone()
    }

    fn recover(&self, failed: Result<T, E>, request: Req) -> Result<Fut, T> {
        failed.map_or_else(|error| Ok((self.0)(request, error)), Err)
    }
}

/// Answers with another service; made by [`Fallback::service`](super::Fallback::service).
///
/// The mutex asks for no `Sync` of the service; it is locked for the time of a clone, when a call has failed.
#[derive(Debug)]
pub struct OtherService<S>(Mutex<S>);

impl<S> OtherService<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S: Clone> OtherService<S> {
    fn service(&self) -> S {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Clone> Clone for OtherService<S> {
    fn clone(&self) -> Self {
        Self::new(self.service())
    }
}

impl<Req, T, E, X, S> Recover<Req, T, E, X> for OtherService<S>
where
    Req: Clone,
    S: Service<Req, Response = T, Error = X> + Clone,
{
    type Kept = Req;
    type Future = Oneshot<S, Req, S::Future>;

    #[inline]
    fn keep(&self, request: &Req) -> Req {
        request.clone()
    }

    fn recover(&self, _: Result<T, E>, request: Req) -> Result<Self::Future, T> {
        Ok(Oneshot::Waiting {
            service: self.service(),
            request: Some(request),
        })
    }
}

/// Answers as another handler does, behind a type that names the result alone; made by
/// [`Fallback::erased`](super::Fallback::erased).
pub struct ErasedHandler<T, E, X = E>(Arc<dyn AnyHandler<T, E, X>>);

type BoxFuture<T, X> = Pin<Box<dyn Future<Output = Result<T, X>> + Send>>;

/// A handler that keeps nothing of the request.
trait AnyHandler<T, E, X>: Send + Sync {
    fn recover(&self, failed: Result<T, E>) -> Result<BoxFuture<T, X>, T>;
}

impl<T, E, X> ErasedHandler<T, E, X> {
    pub(crate) fn new<H, C>(core: Arc<Core<H, C>>) -> Self
    where
        H: Recover<(), T, E, X, Kept = (), Future: Send + 'static> + Send + Sync + 'static,
        C: Send + Sync + 'static,
    {
        Self(core)
    }
}

impl<T, E, X, H, C> AnyHandler<T, E, X> for Core<H, C>
where
    H: Recover<(), T, E, X, Kept = (), Future: Send + 'static> + Send + Sync,
    C: Send + Sync,
{
    fn recover(&self, failed: Result<T, E>) -> Result<BoxFuture<T, X>, T> {
        let recovery: BoxFuture<T, X> = Box::pin(self.handler.recover(failed, ())?);
        Ok(recovery)
    }
}

impl<Req, T, E, X> Recover<Req, T, E, X> for ErasedHandler<T, E, X> {
    type Kept = ();
    type Future = BoxFuture<T, X>;

    #[inline]
    fn keep(&self, _: &Req) {}

    fn recover(&self, failed: Result<T, E>, (): ()) -> Result<Self::Future, T> {
        self.0.recover(failed)
    }
}

impl<T, E, X> fmt::Debug for ErasedHandler<T, E, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErasedHandler")
    }
}

/// Readies a service and calls it once.
#[pin_project(project = OneshotProjection)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub enum Oneshot<S, Req, F> {
    /// Until the service is ready.
    Waiting {
        /// The service.
        service: S,
        /// The request, until it is sent.
        request: Option<Req>,
    },
    /// Until it has answered.
    Called {
        /// Its answer.
        #[pin]
        future: F,
    },
}

impl<S, Req> Future for Oneshot<S, Req, S::Future>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                OneshotProjection::Called { future } => return future.poll(cx),
                OneshotProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        unreachable!("the state changes with the request's departure")
                    };
                    service.call(request)
                }
            };
            self.set(Self::Called { future });
        }
    }
}

macro_rules! debug_by_name {
    ($($name:ident),+) => { $(
        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )+ };
}

debug_by_name!(FromError, FromErrorAsync, FromOutcome, FromRequest);

impl<S, Req, F> fmt::Debug for Oneshot<S, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Oneshot::Waiting",
            Self::Called { .. } => "Oneshot::Called",
        })
    }
}
