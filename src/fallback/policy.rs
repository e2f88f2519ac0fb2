//! The policy.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::event::{Event, Telemetry};
use super::future::ResponseFuture;
use super::recover::{
    ErasedHandler, FromError, FromErrorAsync, FromOutcome, FromRequest, OtherService, Recover, Value,
};
use crate::outcome::Judgement;
use crate::rejected::Name;
use crate::{AnyError, BoxedErrors, ByError, Classify, Erased, ErrorPredicate, ExchangeErrors, OutcomeFn, Verdict};

/// Answers for a call that failed.
///
/// See the [module](super) for when to use it. A clone is the same policy. `M` says which results it answers for:
/// [`Failures`], or with [`infallible`](Fallback::infallible) [`EveryError`]. [`builder`](Fallback::builder) is where the
/// rest is set.
///
/// # Examples
///
/// ```
/// use std::io;
/// use steadfast::fallback::Fallback;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let fallback = Fallback::value(vec!["bestseller"]);
/// let shelf = fallback.call(async { Err(io::ErrorKind::TimedOut.into()) as io::Result<_> }).await?;
/// assert_eq!(shelf, ["bestseller"]);
/// # Ok(())
/// # }
/// ```
pub struct Fallback<H, C = ByError, M = Failures> {
    pub(crate) core: Arc<Core<H, C>>,
    mode: PhantomData<fn() -> M>,
}

/// What every clone of a [`Fallback`] shares.
pub(crate) struct Core<H, C> {
    pub(crate) handler: H,
    pub(crate) judgement: Judgement<C>,
    pub(crate) telemetry: Telemetry,
}

/// Recovers from failures and rejections; every other result passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures;

/// Recovers from every error, so that none is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryError;

/// Which results are recovered from, and what error is left.
pub trait Mode<E> {
    type Error;

    /// Whether every error is recovered from, or only those that are failures.
    const EVERY_ERROR: bool;

    /// `Ok` with a result that passes, `Err` with one to recover from.
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, Self::Error>, Result<T, E>>;
}

impl<E> Mode<E> for Failures {
    type Error = E;

    const EVERY_ERROR: bool = false;

    #[inline]
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, E>, Result<T, E>> {
        if recover { Err(result) } else { Ok(result) }
    }
}

impl<E> Mode<E> for EveryError {
    type Error = Infallible;

    const EVERY_ERROR: bool = true;

    #[inline]
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, Infallible>, Result<T, E>> {
        match result {
            Ok(value) if !recover => Ok(Ok(value)),
            result => Err(result),
        }
    }
}

/// Shortcuts for [`builder`](Fallback::builder) with its defaults.
impl Fallback<()> {
    /// A builder with the defaults: it judges by [`ByError`] and is called `fallback`.
    pub fn builder() -> FallbackBuilder {
        FallbackBuilder {
            judgement: Judgement::new(ByError),
            telemetry: Telemetry {
                name: Name::new("fallback"),
                listener: None,
                #[cfg(feature = "metrics")]
                meters: Arc::new(crate::event::Meters::new()),
            },
        }
    }

    /// Answers with a clone of `value`.
    pub fn value<V>(value: V) -> Fallback<Value<V>> {
        Self::builder().value(value)
    }

    /// Answers with what `recover` makes of the error; a response that was judged a failure passes.
    pub fn from_error<T, E, X, F>(recover: F) -> Fallback<FromError<F>>
    where
        F: Fn(E) -> Result<T, X>,
    {
        Self::builder().from_error(recover)
    }

    /// Answers with what the async function `recover` makes of the error; a response that was judged a failure passes.
    pub fn from_error_async<E, Fut, F>(recover: F) -> Fallback<FromErrorAsync<F>>
    where
        F: Fn(E) -> Fut,
        Fut: Future,
    {
        Self::builder().from_error_async(recover)
    }

    /// Answers with what the async function `recover` makes of the whole result, failed responses included.
    pub fn from_outcome<T, E, Fut, F>(recover: F) -> Fallback<FromOutcome<F>>
    where
        F: Fn(Result<T, E>) -> Fut,
        Fut: Future,
    {
        Self::builder().from_outcome(recover)
    }

    /// Answers with what the async function `recover` makes of the request and the error; for the Tower face. The
    /// request is cloned before it is sent.
    pub fn from_request<Req, E, Fut, F>(recover: F) -> Fallback<FromRequest<F>>
    where
        F: Fn(Req, E) -> Fut,
        Fut: Future,
    {
        Self::builder().from_request(recover)
    }

    /// Answers with another service's answer to the same request; for the Tower face. The request is cloned before it
    /// is sent.
    pub fn service<S>(service: S) -> Fallback<OtherService<S>> {
        Self::builder().service(service)
    }
}

impl<H, C, M> Fallback<H, C, M> {
    /// Runs `operation`, and the recovery if it failed.
    ///
    /// # Errors
    ///
    /// The operation's own where it is not recovered from, and those of the recovery.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the operation or the recovery, whichever is under way. No recovery is begun then.
    #[inline]
    pub fn call<F, T, E>(&self, operation: F) -> ResponseFuture<&Self, (), F, (), E, H::Future>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
        M: Mode<E>,
        H: Recover<(), T, E, M::Error, Kept = ()>,
    {
        ResponseFuture::new(self, operation, ())
    }

    /// Recovers from every error whatever it was judged to be, so that none is left: the error type becomes
    /// [`Infallible`], as axum wants it.
    ///
    /// As a layer it parks an error of the inner `poll_ready` and recovers from it in `call`.
    #[must_use]
    pub fn infallible(self) -> Fallback<H, C, EveryError> {
        Fallback {
            core: self.core,
            mode: PhantomData,
        }
    }
}

impl<H, C> Fallback<H, C> {
    /// The same policy under a type that can be written down: for a field of a struct.
    ///
    /// Not for an answer that needs the request. The answer is boxed, when it is needed.
    #[must_use]
    pub fn erased<T, E>(&self) -> Fallback<ErasedHandler<T, E>, Erased<T, E>>
    where
        C: Classify<T, E> + Send + Sync + 'static,
        H: Recover<(), T, E, E, Kept = (), Future: Send + 'static> + Send + Sync + 'static,
    {
        Fallback {
            core: Arc::new(Core {
                handler: ErasedHandler::new(Arc::clone(&self.core)),
                judgement: Judgement {
                    classifier: Erased::new(Arc::clone(&self.core)),
                    judge_rejections: self.core.judgement.judge_rejections,
                },
                telemetry: self.core.telemetry.clone(),
            }),
            mode: PhantomData,
        }
    }
}

/// The classifier alone, for the erased form.
impl<T, E, H, C: Classify<T, E>> Classify<T, E> for Core<H, C> {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self.judgement.classify(result)
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn std::error::Error + 'static)> {
        self.judgement.as_error(error)
    }
}

/// Builds a [`Fallback`]; the answer is named last.
#[derive(Clone)]
#[must_use = "a builder does nothing until the answer is named"]
pub struct FallbackBuilder<C = ByError> {
    judgement: Judgement<C>,
    telemetry: Telemetry,
}

impl<C> FallbackBuilder<C> {
    /// Answers with a clone of `value`.
    pub fn value<V>(self, value: V) -> Fallback<Value<V>, C> {
        self.with(Value(value))
    }

    /// Answers with what `recover` makes of the error; a response that was judged a failure passes.
    pub fn from_error<T, E, X, F>(self, recover: F) -> Fallback<FromError<F>, C>
    where
        F: Fn(E) -> Result<T, X>,
    {
        self.with(FromError(recover))
    }

    /// Answers with what the async function `recover` makes of the error; a response that was judged a failure passes.
    pub fn from_error_async<E, Fut, F>(self, recover: F) -> Fallback<FromErrorAsync<F>, C>
    where
        F: Fn(E) -> Fut,
        Fut: Future,
    {
        self.with(FromErrorAsync(recover))
    }

    /// Answers with what the async function `recover` makes of the whole result, failed responses included.
    pub fn from_outcome<T, E, Fut, F>(self, recover: F) -> Fallback<FromOutcome<F>, C>
    where
        F: Fn(Result<T, E>) -> Fut,
        Fut: Future,
    {
        self.with(FromOutcome(recover))
    }

    /// Answers with what the async function `recover` makes of the request and the error; for the Tower face. The
    /// request is cloned before it is sent.
    pub fn from_request<Req, E, Fut, F>(self, recover: F) -> Fallback<FromRequest<F>, C>
    where
        F: Fn(Req, E) -> Fut,
        Fut: Future,
    {
        self.with(FromRequest(recover))
    }

    /// Answers with another service's answer to the same request; for the Tower face. The request is cloned before it
    /// is sent.
    pub fn service<S>(self, service: S) -> Fallback<OtherService<S>, C> {
        self.with(OtherService::new(service))
    }

    /// What the policy is called in events. Default: `fallback`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.telemetry.name = name.into().into();
        self
    }

    /// Hears of every recovery and of the end of every call.
    ///
    /// Called on the task of the call. A panic in it is logged, and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.telemetry.listener = Some(Arc::new(listener));
        self
    }

    /// Recovers from the errors that `predicate` is true for; any other passes. Rejections are not shown to it.
    pub fn fallback_if<E, F>(self, predicate: F) -> FallbackBuilder<ErrorPredicate<C, E, F>>
    where
        F: Fn(&E) -> bool,
    {
        self.judging(|judgement| judgement.by_predicate(predicate, Verdict::Success))
    }

    /// Judges whole results: an `Ok` can be worth a recovery. Rejections are not shown to it.
    pub fn classify<T, E, F>(self, judge: F) -> FallbackBuilder<OutcomeFn<C, T, E, F>>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
    {
        self.judging(|judgement| judgement.by_outcome(judge))
    }

    /// Judges by a classifier.
    pub fn classifier<D>(self, classifier: D) -> FallbackBuilder<D> {
        self.map_classifier(|_| classifier)
    }

    /// Judges `Box<dyn Error + Send + Sync>` and `anyhow::Error`; responses are judged as before.
    pub fn boxed_errors(self) -> FallbackBuilder<C::With>
    where
        C: ExchangeErrors<BoxedErrors>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(BoxedErrors))
    }

    /// Judges errors of any type, each as a failure; responses are judged as before.
    pub fn any_error(self) -> FallbackBuilder<C::With>
    where
        C: ExchangeErrors<AnyError>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(AnyError))
    }

    /// Shows rejections to the classifier as well.
    pub fn judge_rejections(mut self) -> Self {
        self.judgement.judge_rejections = true;
        self
    }

    fn with<H>(self, handler: H) -> Fallback<H, C> {
        Fallback {
            core: Arc::new(Core {
                handler,
                judgement: self.judgement,
                telemetry: self.telemetry,
            }),
            mode: PhantomData,
        }
    }

    fn map_classifier<D>(self, change: impl FnOnce(C) -> D) -> FallbackBuilder<D> {
        self.judging(|judgement| judgement.with(change))
    }

    fn judging<D>(self, change: impl FnOnce(Judgement<C>) -> Judgement<D>) -> FallbackBuilder<D> {
        FallbackBuilder {
            judgement: change(self.judgement),
            telemetry: self.telemetry,
        }
    }
}

impl<H, C, M> Clone for Fallback<H, C, M> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            mode: PhantomData,
        }
    }
}

impl<H: fmt::Debug, C: fmt::Debug, M> fmt::Debug for Fallback<H, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("name", &self.core.telemetry.name)
            .field("handler", &self.core.handler)
            .field("classifier", &self.core.judgement.classifier)
            .finish_non_exhaustive()
    }
}

impl<C: fmt::Debug> fmt::Debug for FallbackBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackBuilder")
            .field("name", &self.telemetry.name)
            .field("classifier", &self.judgement.classifier)
            .finish_non_exhaustive()
    }
}
