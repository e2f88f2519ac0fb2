//! The builder of the policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::event::{Event, Telemetry};
use super::policy::{Core, Fallback};
use super::recover::{FromError, FromErrorAsync, FromOutcome, FromRequest, OtherService, Value};
use crate::judgement::Judgement;
use crate::rejected::Name;
use crate::{AnyError, BoxedErrors, ByError, ErrorPredicate, ExchangeErrors, OutcomeFn, Verdict};

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
        Fallback::new(Core {
            handler,
            judgement: self.judgement,
            telemetry: self.telemetry,
        })
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

impl<C: fmt::Debug> fmt::Debug for FallbackBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackBuilder")
            .field("name", &self.telemetry.name)
            .field("classifier", &self.judgement.classifier)
            .finish_non_exhaustive()
    }
}
