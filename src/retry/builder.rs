//! The builder of the policy, and its defaults.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::attempt::Attempt;
use super::budget::RetryBudget;
use super::config::RetryConfig;
use super::event::Event;
use super::policy::{Listener, Policy, Retry};
use super::replay::{ByClone, Prepared};
use super::session::Limits;
use crate::backoff::{Backoff, Jitter};
use crate::judgement::Judgement;
use crate::random;
use crate::{AnyError, BoxedErrors, ByError, ConfigError, ErrorPredicate, ExchangeErrors, OutcomeFn, Verdict};

impl Retry {
    /// A builder with the defaults.
    pub fn builder() -> RetryBuilder {
        RetryBuilder {
            settings: Settings::default(),
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
            .config
            .limits()
            .unwrap_or_else(|_| unreachable!("the defaults are in range, as a test shows"));
        settings.into_policy(limits, judgement, replay)
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

/// Plain data, and what is not.
#[derive(Clone, Default)]
struct Settings {
    config: RetryConfig,
    budget: Option<RetryBudget>,
    listener: Option<Listener>,
}

impl Settings {
    fn into_policy<C, R>(self, limits: Limits, judgement: Judgement<C>, replay: R) -> Retry<C, R> {
        let policy = Policy {
            name: self.config.full_name(),
            limits,
            budget: self.budget,
            listener: self.listener,
            seed: self.config.seed.unwrap_or_else(random::seed),
            sessions: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            meters: crate::event::Meters::new(),
        };
        Retry::new(Arc::new(policy), Arc::new(judgement), replay)
    }
}

impl<C, R> RetryBuilder<C, R> {
    /// Takes every setting that a [`RetryConfig`] has from `config`; the name only where it has one. The rest stays: the
    /// classifier, the budget, how requests are kept, the listener.
    pub fn config(mut self, config: RetryConfig) -> Self {
        let name = config.name.or(self.settings.config.name);
        self.settings.config = RetryConfig { name, ..config };
        self
    }

    /// What the policy is called in events and errors. Default: `retry`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.config.name = Some(name.into());
        self
    }

    /// Attempts of one call, the first one included: at least 1. Default: 3.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.settings.config.max_attempts = max_attempts;
        self
    }

    /// No wait is begun that would not end before this much time has passed since the call's first poll: more than 0.
    /// Default: no limit.
    ///
    /// It does not interrupt an attempt; a timeout does.
    pub fn max_elapsed(mut self, max_elapsed: Duration) -> Self {
        self.settings.config.max_elapsed = Some(max_elapsed);
        self
    }

    /// The longest wait that a server may ask for; where it asks for more, the call ends. Default: 30 s.
    pub fn max_retry_after(mut self, max_retry_after: Duration) -> Self {
        self.settings.config.max_retry_after = max_retry_after;
        self
    }

    /// The schedule of waits. Default: exponential from 100 ms, times 2, full jitter, at most 10 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.config.backoff = backoff;
        self
    }

    /// The longest wait of the schedule: see [`Backoff::max_delay`].
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.settings.config.backoff = self.settings.config.backoff.max_delay(max_delay);
        self
    }

    /// How the waits are spread: see [`Backoff::jitter`].
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.settings.config.backoff = self.settings.config.backoff.jitter(jitter);
        self
    }

    /// The budget that retries are paid from. Default: none, every retry is free.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.settings.budget = Some(budget.clone());
        self
    }

    /// Makes the jitter repeatable: the n-th call that comes to draw a number, for its first spread wait, draws from the
    /// n-th stream of this seed.
    /// Default: a seed from the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.config.seed = Some(seed);
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
        let limits = self.settings.config.limits()?;
        Ok(self.settings.into_policy(limits, self.judgement, self.replay))
    }
}

impl<C: fmt::Debug, R> fmt::Debug for RetryBuilder<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBuilder")
            .field("config", &self.settings.config)
            .field("budget", &self.settings.budget)
            .field("classifier", &self.judgement.classifier)
            .finish_non_exhaustive()
    }
}
