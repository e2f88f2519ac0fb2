//! The policy and its builder.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::attempt::{Attempt, Calls, NumberedCalls};
use super::budget::RetryBudget;
use super::event::Event;
use super::future::ResponseFuture;
use super::replay::{ByClone, Prepared};
use super::session::{DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_RETRY_AFTER, Limits};
use crate::backoff::{Backoff, Jitter};
use crate::outcome::Judgement;
use crate::random::{self, Random};
use crate::rejected::Name;
use crate::{
    AnyError, BoxedErrors, ByError, Classify, ConfigError, Erased, ErrorPredicate, ExchangeErrors, OutcomeFn, Verdict,
};

/// The base of the default backoff: 100 ms, about one round trip across an ocean.
pub const DEFAULT_BASE_DELAY: Duration = Duration::from_millis(100);

const DEFAULT_NAME: Name = Name::new("retry");

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Tries a call again when it failed and another attempt makes sense.
///
/// See the [module](super) for when to use it. A clone is the same policy: it shares the budget, the seed and the
/// listener.
///
/// # Examples
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use steadfast::retry::Retry;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let retry = Retry::exponential(Duration::from_millis(100)).max_attempts(4).build()?;
///
/// let mut calls = 0;
/// let answer = retry
///     .call(|| {
///         calls += 1;
///         let flaky = if calls < 3 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok("pong") };
///         async move { flaky as io::Result<_> }
///     })
///     .await?;
/// assert_eq!((answer, calls), ("pong", 3));
/// # Ok(())
/// # }
/// ```
pub struct Retry<C = ByError, R = ByClone> {
    pub(crate) view: Arc<View<C, R>>,
}

/// What clones share: a way to judge and a way to keep requests, and the policy that they are a view on.
pub(crate) struct View<C, R> {
    pub(crate) policy: Arc<Policy>,
    pub(crate) judgement: Arc<Judgement<C>>,
    pub(crate) replay: R,
}

/// What every clone and every view of a [`Retry`] shares.
pub(crate) struct Policy {
    pub(crate) name: Name,
    pub(crate) limits: Limits,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) listener: Option<Listener>,
    seed: u64,
    /// Sessions that have drawn a number; relaxed, as only its value matters.
    sessions: AtomicU64,
    #[cfg(feature = "metrics")]
    pub(crate) meters: crate::event::Meters<{ super::StopReason::COUNT }>,
}

impl Policy {
    /// The random numbers of the next session.
    pub(crate) fn random(&self) -> Random {
        Random::stream(self.seed, self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

impl Retry {
    /// A builder with the defaults.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            settings: Settings {
                name: DEFAULT_NAME,
                max_attempts: DEFAULT_MAX_ATTEMPTS,
                max_elapsed: None,
                max_retry_after: DEFAULT_MAX_RETRY_AFTER,
                backoff: Backoff::exponential(DEFAULT_BASE_DELAY),
                budget: None,
                seed: None,
                listener: None,
            },
            judgement: Judgement::new(ByError),
            replay: ByClone,
        }
    }

    /// A builder with a constant backoff.
    pub fn constant(delay: Duration) -> RetryBuilder {
        Self::builder().backoff(Backoff::constant(delay))
    }

    /// A builder with a linear backoff.
    pub fn linear(base: Duration) -> RetryBuilder {
        Self::builder().backoff(Backoff::linear(base))
    }

    /// A builder with an exponential backoff, factor 2, full jitter.
    pub fn exponential(base: Duration) -> RetryBuilder {
        Self::builder().backoff(Backoff::exponential(base))
    }
}

/// The policy of [`Retry::builder`], unchanged.
impl Default for Retry {
    fn default() -> Self {
        let RetryBuilder {
            settings,
            judgement,
            replay,
        } = Self::builder();
        let limits = settings
            .limits()
            .unwrap_or_else(|_| unreachable!("the defaults are in range, as a test shows"));
        settings.into_policy(limits, judgement, replay)
    }
}

impl<C, R> Retry<C, R> {
    fn new(policy: Arc<Policy>, judgement: Arc<Judgement<C>>, replay: R) -> Self {
        Self {
            view: Arc::new(View {
                policy,
                judgement,
                replay,
            }),
        }
    }

    /// Calls `operation` until it succeeds or the policy says stop, and returns its last result as it was.
    ///
    /// The error type is the operation's own. Ask the returned future for
    /// [`with_report`](ResponseFuture::with_report) to learn how often and how long it tried.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the attempt under way, or the wait: no further attempt is made, and a retry already
    /// paid for from the budget is refunded. A last event with [`Cancelled`](super::StopReason::Cancelled) is emitted.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no tokio runtime with time enabled. Panics of `operation` and of the
    /// classifier pass through.
    #[inline]
    pub fn call<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<&Self, Calls<F>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        ResponseFuture::new(self, Calls(operation))
    }

    /// As [`call`](Self::call), for an operation that wants to know which attempt it is.
    #[inline]
    pub fn call_with<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<&Self, NumberedCalls<F>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        ResponseFuture::new(self, NumberedCalls(operation))
    }

    /// The same policy, which as a layer keeps requests by `replay` instead of cloning them.
    pub fn replay<Q>(&self, replay: Q) -> Retry<C, Q> {
        Retry::new(Arc::clone(&self.view.policy), Arc::clone(&self.view.judgement), replay)
    }

    /// The same policy, which as a layer runs `hook` on each request just before it is sent: a header with the
    /// attempt's number, a fresh signature. What it changes is seen by that attempt alone.
    pub fn before_attempt<Req>(
        &self,
        hook: impl Fn(&mut Req, Attempt) + Send + Sync + 'static,
    ) -> Retry<C, Prepared<R, Req>>
    where
        R: Clone,
    {
        self.replay(Prepared::new(self.view.replay.clone(), hook))
    }

    /// The same policy, judging by `classifier`.
    pub fn with_classifier<D>(&self, classifier: D) -> Retry<D, R>
    where
        R: Clone,
    {
        let judgement = Judgement {
            classifier,
            judge_rejections: self.view.judgement.judge_rejections,
        };
        let view = &*self.view;
        Retry::new(Arc::clone(&view.policy), Arc::new(judgement), view.replay.clone())
    }

    /// The same policy under a type that can be written down: for a field of a struct.
    #[must_use]
    pub fn erased<T, E>(&self) -> Retry<Erased<T, E>, R>
    where
        C: Classify<T, E> + Send + Sync + 'static,
        R: Clone,
    {
        self.with_classifier(Erased::new(Arc::clone(&self.view.judgement)))
    }

    /// The name of the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        self.view.policy.name.as_str()
    }
}

impl<C, R> Clone for Retry<C, R> {
    fn clone(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
        }
    }
}

impl<C: fmt::Debug, R> fmt::Debug for Retry<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("name", &self.view.policy.name)
            .field("limits", &self.view.policy.limits)
            .field("budget", &self.view.policy.budget)
            .field("classifier", &self.view.judgement.classifier)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Retry`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RetryBuilder<C = ByError, R = ByClone> {
    settings: Settings,
    judgement: Judgement<C>,
    replay: R,
}

#[derive(Clone)]
struct Settings {
    name: Name,
    max_attempts: u32,
    max_elapsed: Option<Duration>,
    max_retry_after: Duration,
    backoff: Backoff,
    budget: Option<RetryBudget>,
    seed: Option<u64>,
    listener: Option<Listener>,
}

impl Settings {
    fn limits(&self) -> Result<Limits, ConfigError> {
        if self.max_attempts == 0 {
            return Err(ConfigError::new(&self.name, "max_attempts", 0, "at least 1"));
        }
        if self.max_elapsed.is_some_and(|limit| limit.is_zero()) {
            return Err(ConfigError::new(
                &self.name,
                "max_elapsed",
                Duration::ZERO,
                "longer than 0",
            ));
        }
        Ok(Limits {
            max_attempts: self.max_attempts,
            max_elapsed: self.max_elapsed,
            max_retry_after: self.max_retry_after,
            curve: self.backoff.check(&self.name)?,
        })
    }

    fn into_policy<C, R>(self, limits: Limits, judgement: Judgement<C>, replay: R) -> Retry<C, R> {
        let policy = Policy {
            name: self.name,
            limits,
            budget: self.budget,
            listener: self.listener,
            seed: self.seed.unwrap_or_else(random::seed),
            sessions: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            meters: crate::event::Meters::new(),
        };
        Retry::new(Arc::new(policy), Arc::new(judgement), replay)
    }
}

impl<C, R> RetryBuilder<C, R> {
    /// What the policy is called in events and errors. Default: `retry`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.name = name.into().into();
        self
    }

    /// Attempts of one call, the first one included: at least 1. Default: 3.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.settings.max_attempts = max_attempts;
        self
    }

    /// No wait is begun that would not end before this much time has passed since the call's first poll: more than 0.
    /// Default: no limit.
    ///
    /// It does not interrupt an attempt; a timeout does.
    pub fn max_elapsed(mut self, max_elapsed: Duration) -> Self {
        self.settings.max_elapsed = Some(max_elapsed);
        self
    }

    /// The longest wait that a server may ask for; where it asks for more, the call ends. Default: 30 s.
    pub fn max_retry_after(mut self, max_retry_after: Duration) -> Self {
        self.settings.max_retry_after = max_retry_after;
        self
    }

    /// The schedule of waits. Default: exponential from 100 ms, times 2, full jitter, at most 10 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// The longest wait of the schedule: see [`Backoff::max_delay`].
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.settings.backoff = self.settings.backoff.max_delay(max_delay);
        self
    }

    /// How the waits are spread: see [`Backoff::jitter`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.settings.backoff = self.settings.backoff.jitter(jitter);
        self
    }

    /// The budget that retries are paid from. Default: none, every retry is free.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.settings.budget = Some(budget.clone());
        self
    }

    /// Makes the jitter repeatable: the n-th call that waits draws the n-th stream of this seed.
    /// Default: a seed from the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Hears of every retry and of the end of every call.
    ///
    /// Called outside of any lock, on the task of the call. A panic in it is logged, and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.settings.listener = Some(Arc::new(listener));
        self
    }

    /// Retries the errors that `predicate` is true for; any other is permanent. Rejections are not shown to it.
    pub fn retry_if<E, F>(self, predicate: F) -> RetryBuilder<ErrorPredicate<C, E, F>, R>
    where
        F: Fn(&E) -> bool,
    {
        RetryBuilder {
            settings: self.settings,
            judgement: self.judgement.by_predicate(predicate, Verdict::Permanent),
            replay: self.replay,
        }
    }

    /// Judges whole results: an `Ok` can be worth a retry. Rejections are not shown to it.
    pub fn classify<T, E, F>(self, judge: F) -> RetryBuilder<OutcomeFn<C, T, E, F>, R>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
    {
        RetryBuilder {
            settings: self.settings,
            judgement: self.judgement.by_outcome(judge),
            replay: self.replay,
        }
    }

    /// Judges by a classifier.
    pub fn classifier<D>(self, classifier: D) -> RetryBuilder<D, R> {
        self.map_classifier(|_| classifier)
    }

    pub(crate) fn map_classifier<D>(self, change: impl FnOnce(C) -> D) -> RetryBuilder<D, R> {
        RetryBuilder {
            settings: self.settings,
            judgement: self.judgement.with(change),
            replay: self.replay,
        }
    }

    /// Keeps requests by `replay`, as a layer. Default: clones them.
    pub fn replay<Q>(self, replay: Q) -> RetryBuilder<C, Q> {
        RetryBuilder {
            settings: self.settings,
            judgement: self.judgement,
            replay,
        }
    }

    /// Runs `hook`, as a layer, on each request just before it is sent: see [`Retry::before_attempt`].
    pub fn before_attempt<Req>(
        self,
        hook: impl Fn(&mut Req, Attempt) + Send + Sync + 'static,
    ) -> RetryBuilder<C, Prepared<R, Req>> {
        RetryBuilder {
            settings: self.settings,
            judgement: self.judgement,
            replay: Prepared::new(self.replay, hook),
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn replay_mut(&mut self) -> &mut R {
        &mut self.replay
    }

    /// Judges `Box<dyn Error + Send + Sync>` and `anyhow::Error`; responses are judged as before.
    pub fn boxed_errors(self) -> RetryBuilder<C::With, R>
    where
        C: ExchangeErrors<BoxedErrors>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(BoxedErrors))
    }

    /// Judges errors of any type, each as transient; responses are judged as before.
    pub fn any_error(self) -> RetryBuilder<C::With, R>
    where
        C: ExchangeErrors<AnyError>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(AnyError))
    }

    /// Shows rejections to the classifier as well: an open circuit can be retried, though not before its
    /// `retry_after`.
    pub fn judge_rejections(mut self) -> Self {
        self.judgement.judge_rejections = true;
        self
    }

    /// Checks the settings and makes the policy.
    ///
    /// # Errors
    ///
    /// A setting outside its range, with that range.
    pub fn build(self) -> Result<Retry<C, R>, ConfigError> {
        let limits = self.settings.limits()?;
        Ok(self.settings.into_policy(limits, self.judgement, self.replay))
    }
}

impl<C: fmt::Debug, R> fmt::Debug for RetryBuilder<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBuilder")
            .field("name", &self.settings.name)
            .field("max_attempts", &self.settings.max_attempts)
            .field("max_elapsed", &self.settings.max_elapsed)
            .field("max_retry_after", &self.settings.max_retry_after)
            .field("backoff", &self.settings.backoff)
            .field("budget", &self.settings.budget)
            .field("seed", &self.settings.seed)
            .field("classifier", &self.judgement.classifier)
            .finish_non_exhaustive()
    }
}
