//! The builder of the policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Abandoned, Checked, CircuitBreakerConfig, Window};
use super::event::Event;
use super::keyed::CircuitBreakersBuilder;
use super::policy::{Breaker, CircuitBreaker, Kind, Listener};
use super::watch::Watch;
use crate::clock::nanos;
use crate::judgement::Judgement;
use crate::rejected::Name;
use crate::{
    AnyError, Backoff, BoxedErrors, ByError, Classify, ConfigError, Erased, ErrorPredicate, ExchangeErrors, OutcomeFn,
    Verdict,
};

impl CircuitBreaker {
    /// A builder with the defaults. The name is what the breaker is called in events and errors: that of the dependency.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder {
            config: CircuitBreakerConfig {
                name: Some(name.into()),
                ..CircuitBreakerConfig::default()
            },
            listener: None,
            judgement: Judgement::new(ByError),
        }
    }
}

/// Builds a [`CircuitBreaker`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct CircuitBreakerBuilder<C = ByError> {
    config: CircuitBreakerConfig,
    listener: Option<Listener>,
    judgement: Judgement<C>,
}

impl<C> CircuitBreakerBuilder<C> {
    /// Takes every setting that a [`CircuitBreakerConfig`] has from `config`; the name only where it has one. The rest
    /// stays: the classifier and the listener.
    pub fn config(mut self, config: CircuitBreakerConfig) -> Self {
        let name = config.name.or(self.config.name);
        self.config = CircuitBreakerConfig { name, ..config };
        self
    }

    /// Opens when this share of the calls in the window has failed: above 0.0 and at most 1.0; `None` for no such rule.
    /// Default: 0.5.
    pub fn failure_rate(mut self, failure_rate: impl Into<Option<f64>>) -> Self {
        self.config.failure_rate = failure_rate.into();
        self
    }

    /// Opens when this share of the calls in the window was slow: above 0.0 and at most 1.0. Together with
    /// [`slow_call_duration`](Self::slow_call_duration). Default: no such rule.
    ///
    /// A slow probe is a failed one, even if it succeeds.
    pub fn slow_call_rate(mut self, slow_call_rate: f64) -> Self {
        self.config.slow_call_rate = Some(slow_call_rate);
        self
    }

    /// From this time on a call is slow: longer than 0. Together with [`slow_call_rate`](Self::slow_call_rate).
    pub fn slow_call_duration(mut self, slow_call_duration: Duration) -> Self {
        self.config.slow_call_duration = Some(slow_call_duration);
        self
    }

    /// Opens after so many failures in a row: at least 1. Default: no such rule.
    pub fn consecutive_failures(mut self, consecutive_failures: u32) -> Self {
        self.config.consecutive_failures = Some(consecutive_failures);
        self
    }

    /// Computes rates over the last so many calls: from 1 to 1,000,000. Default: 100.
    ///
    /// It costs two bits of memory for each call; four, with slow calls.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.config.window = Window::Count(calls);
        self
    }

    /// Computes rates over the calls of the last so much time, at least 10 ms, instead of a number of calls. The window
    /// slides by a tenth of its length.
    pub fn time_window(mut self, time: Duration) -> Self {
        self.config.window = Window::Time(time);
        self
    }

    /// No rate is known below so many calls in the window: from 1 to a count window's length. Default: 20, or a smaller
    /// count window's length.
    pub fn minimum_calls(mut self, minimum_calls: u32) -> Self {
        self.config.minimum_calls = Some(minimum_calls);
        self
    }

    /// How long an open breaker rejects before it admits a probe: longer than 0, at most
    /// [`max_open_time`](Self::max_open_time). Default: 10 s.
    pub fn open_time(mut self, open_time: Duration) -> Self {
        self.config.open_time = open_time;
        self.config.open_backoff = None;
        self
    }

    /// The same as a schedule over the openings in a row, begun anew by every close. A schedule that is computed, not a
    /// function or a sequence; without jitter and up to [`max_open_time`](Self::max_open_time) where it does not say.
    pub fn open_backoff(mut self, open_backoff: Backoff) -> Self {
        self.config.open_backoff = Some(open_backoff);
        self
    }

    /// The longest open time, wherever it comes from: longer than 0. Default: 5 min.
    pub fn max_open_time(mut self, max_open_time: Duration) -> Self {
        self.config.max_open_time = max_open_time;
        self
    }

    /// Stays open for as long as the failure that opened it said in its verdict, up to
    /// [`max_open_time`](Self::max_open_time). Default: false.
    pub fn use_retry_after(mut self, use_retry_after: bool) -> Self {
        self.config.use_retry_after = use_retry_after;
        self
    }

    /// How many probes decide whether a half-open breaker closes: from 1 to 1,000. Default: 4.
    pub fn samples(mut self, samples: u32) -> Self {
        self.config.samples = samples;
        self
    }

    /// The share of good probes that closes the breaker: above 0.0 and at most 1.0. Default: 0.75.
    pub fn success_rate(mut self, success_rate: f64) -> Self {
        self.config.success_rate = success_rate;
        self
    }

    /// How many probes may be under way at once: from 1 to [`samples`](Self::samples). Default: as many as there are
    /// samples.
    pub fn max_concurrent_probes(mut self, max_concurrent_probes: u32) -> Self {
        self.config.max_concurrent_probes = Some(max_concurrent_probes);
        self
    }

    /// How long a probe may take before it counts as failed, whatever becomes of it: longer than 0. Default: 30 s.
    pub fn max_probe_time(mut self, max_probe_time: Duration) -> Self {
        self.config.max_probe_time = max_probe_time;
        self
    }

    /// What a call counts as that was dropped before it had a result. Default: a failure, if it had been pending for 1 s.
    pub fn abandoned(mut self, abandoned: Abandoned) -> Self {
        self.config.abandoned = abandoned;
        self
    }

    /// Shadow mode: counts and decides as ever and tells of it, but rejects nothing. Default: false.
    ///
    /// [`set_shadow`](CircuitBreaker::set_shadow) changes it later.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.config.shadow = shadow;
        self
    }

    /// Makes the jitter of an [`open_backoff`](Self::open_backoff) repeatable. Default: a seed from the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// Hears of every change of state, every rejection, and the end of every call.
    ///
    /// Called outside of any lock, on the task of the call, and free to ask the breaker anything. A panic in it is logged,
    /// and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Counts the errors that `predicate` is true for as failures; any other is a success: the dependency has done its
    /// job. Rejections are not shown to it.
    pub fn failure_if<E, F>(self, predicate: F) -> CircuitBreakerBuilder<ErrorPredicate<C, E, F>>
    where
        F: Fn(&E) -> bool,
    {
        CircuitBreakerBuilder {
            config: self.config,
            listener: self.listener,
            judgement: self.judgement.by_predicate(predicate, Verdict::Success),
        }
    }

    /// Judges whole results: an `Ok` can be a failure. Rejections are not shown to it.
    pub fn classify<T, E, F>(self, judge: F) -> CircuitBreakerBuilder<OutcomeFn<C, T, E, F>>
    where
        F: Fn(Result<&T, &E>) -> Verdict,
    {
        CircuitBreakerBuilder {
            config: self.config,
            listener: self.listener,
            judgement: self.judgement.by_outcome(judge),
        }
    }

    /// Judges by a classifier.
    pub fn classifier<D>(self, classifier: D) -> CircuitBreakerBuilder<D> {
        self.map_classifier(|_| classifier)
    }

    pub(crate) fn map_classifier<D>(self, change: impl FnOnce(C) -> D) -> CircuitBreakerBuilder<D> {
        CircuitBreakerBuilder {
            config: self.config,
            listener: self.listener,
            judgement: self.judgement.with(change),
        }
    }

    /// Judges `Box<dyn Error + Send + Sync>` and `anyhow::Error`; responses are judged as before.
    pub fn boxed_errors(self) -> CircuitBreakerBuilder<C::With>
    where
        C: ExchangeErrors<BoxedErrors>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(BoxedErrors))
    }

    /// Judges errors of any type, each as a failure; responses are judged as before.
    pub fn any_error(self) -> CircuitBreakerBuilder<C::With>
    where
        C: ExchangeErrors<AnyError>,
    {
        self.map_classifier(|classifier| classifier.exchange_errors(AnyError))
    }

    /// Shows rejections to the classifier as well: those of a bulkhead inside can then count as failures.
    pub fn judge_rejections(mut self) -> Self {
        self.judgement.judge_rejections = true;
        self
    }

    /// Checks the settings and makes the breaker.
    ///
    /// # Errors
    ///
    /// A setting outside its range, with that range.
    pub fn build(self) -> Result<CircuitBreaker<C>, ConfigError> {
        let breaker = self.plan(false)?.breaker(0);
        Ok(CircuitBreaker::new(Arc::new(breaker), Arc::new(self.judgement)))
    }

    /// A set of breakers with these settings, one for each key.
    pub fn keyed<K>(self) -> CircuitBreakersBuilder<K, C> {
        CircuitBreakersBuilder::new(self)
    }

    /// `keyed`: for the breakers of a set.
    pub(crate) fn plan(&self, keyed: bool) -> Result<Plan, ConfigError> {
        let kind = Kind {
            listener: self.listener.clone(),
            shadow: self.config.shadow,
            keyed,
            #[cfg(feature = "metrics")]
            meters: crate::event::Counters::new(),
        };
        Ok(Plan {
            name: self.config.full_name(),
            checked: self.config.check()?,
            slow_after: self.config.slow_call_duration.map(nanos),
            abandoned: self.config.abandoned,
            kind: Arc::new(kind),
        })
    }

    pub(crate) fn erased<T, E>(self) -> CircuitBreakerBuilder<Erased<T, E>>
    where
        C: Classify<T, E> + Send + Sync + 'static,
    {
        self.map_classifier(|classifier| Erased::new(Arc::new(classifier)))
    }

    pub(crate) fn into_judgement(self) -> Judgement<C> {
        self.judgement
    }
}

/// What breakers are made of: settings that were checked.
pub(crate) struct Plan {
    pub(crate) name: Name,
    checked: Checked,
    slow_after: Option<u64>,
    abandoned: Abandoned,
    kind: Arc<Kind>,
}

impl Plan {
    /// The `n`-th of these breakers.
    pub(crate) fn breaker(&self, n: u64) -> Breaker {
        Breaker {
            name: self.name.clone(),
            cell: self.checked.cell(),
            made: Instant::now(),
            opening: self.checked.opening(n),
            slow_after: self.slow_after,
            abandoned: self.abandoned,
            is_plain: self.slow_after.is_none() && self.kind.listener.is_none(),
            shadow: AtomicBool::new(self.kind.shadow),
            watch: Watch::default(),
            kind: Arc::clone(&self.kind),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for CircuitBreakerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("config", &self.config)
            .field("classifier", &self.judgement.classifier)
            .finish_non_exhaustive()
    }
}
