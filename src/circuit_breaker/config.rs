//! What of a circuit breaker is plain data.

use std::borrow::Cow;
use std::time::Duration;

use super::cell::Cell;
use super::count_window::{CountWindow, MAX_SIZE};
use super::machine::Probing;
use super::opening::Opening;
use super::time_window::{BUCKETS, TimeWindow};
use super::window::{Memory, Recent, Rules};
use crate::clock::nanos;
use crate::curve::Curve;
use crate::random::{Random, seed};
use crate::rejected::Name;
use crate::{Backoff, ConfigError};

/// The share of failed calls that opens a breaker: 0.5. Less is often noise; more is an outage that was noticed late.
pub const DEFAULT_FAILURE_RATE: f64 = 0.5;
/// The calls that a rate is computed over: the last 100, so that one call is one percent.
pub const DEFAULT_WINDOW: Window = Window::Count(100);
/// Calls below which no rate is known: 20. Two failures of the first three calls are no outage.
pub const DEFAULT_MINIMUM_CALLS: u32 = 20;
/// How long an open breaker rejects before it tries a probe: 10 s, about what a restart takes.
pub const DEFAULT_OPEN_TIME: Duration = Duration::from_secs(10);
/// The longest open time, however it was found: 5 min. Whoever waits longer is not told of the recovery.
pub const DEFAULT_MAX_OPEN_TIME: Duration = Duration::from_secs(300);
/// How many probes decide: 4. One would believe a single lucky call.
pub const DEFAULT_SAMPLES: u32 = 4;
/// The share of good probes that closes the breaker: 0.75, three of the four.
pub const DEFAULT_SUCCESS_RATE: f64 = 0.75;
/// How long a probe may take before it counts as failed: 30 s, what most clients and proxies give up after.
pub const DEFAULT_MAX_PROBE_TIME: Duration = Duration::from_secs(30);
/// What a call counts as that was dropped: a failure, if it had been pending for 1 s.
pub const DEFAULT_ABANDONED: Abandoned = Abandoned::FailureAfter(Duration::from_secs(1));

/// The most probes of a round: 1,000. A breaker has a place for each.
const MAX_SAMPLES: u32 = 1_000;
/// A half-open round is given up after so many times its samples have ended without saying anything.
const UNDECIDED_ROUNDS: u32 = 4;

/// The calls that rates are computed over.
///
/// In a file it is `{ count = 100 }` or `{ time = "30s" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Window {
    /// The last so many calls: from 1 to 1,000,000.
    Count(u32),
    /// The calls of the last so much time, from 10 ms on. It slides by a tenth of its length.
    Time(#[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))] Duration),
}

/// What a call counts as that was dropped before it had a result.
///
/// In a file it is `"ignore"`, `"failure"` or `{ failure_after = "1s" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Abandoned {
    /// As nothing.
    Ignore,
    /// As a failure.
    Failure,
    /// As a failure if it had been pending for this long, measured from its first `Pending`; else as nothing.
    ///
    /// A timeout outside of the breaker drops the calls of a dependency that hangs: what it waits has to be longer than
    /// this, or the breaker never opens.
    FailureAfter(#[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))] Duration),
}

/// What of a [`CircuitBreaker`](super::CircuitBreaker) can be read from a file: see
/// [`CircuitBreakerBuilder::config`](super::CircuitBreakerBuilder::config).
///
/// Each field is the setting of that name; what is left out of a file is the default. It is checked by
/// [`build`](super::CircuitBreakerBuilder::build).
///
#[cfg_attr(feature = "serde", doc = "# Examples", doc = "", doc = "```")]
#[cfg_attr(
    feature = "serde",
    doc = "use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerConfig};

let config: CircuitBreakerConfig = toml::from_str(
    r#\"
    failure_rate = 0.4
    window = { time = \"30s\" }
    open_backoff = { kind = \"exponential\", base = \"5s\", max_delay = \"1m\" }
    \"#,
)?;
let breaker = CircuitBreaker::builder(\"payments\").config(config).build()?;
# let _: CircuitBreaker = breaker;
# Ok::<(), Box<dyn std::error::Error>>(())"
)]
#[cfg_attr(feature = "serde", doc = "```")]
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// See [`CircuitBreaker::builder`](super::CircuitBreaker::builder). Default: `None`, the name that the builder has.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub name: Option<Cow<'static, str>>,
    /// See [`CircuitBreakerBuilder::failure_rate`](super::CircuitBreakerBuilder::failure_rate). `None` is `"off"` in a
    /// file.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::or_off"))]
    pub failure_rate: Option<f64>,
    /// See [`CircuitBreakerBuilder::slow_call_rate`](super::CircuitBreakerBuilder::slow_call_rate).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub slow_call_rate: Option<f64>,
    /// See [`CircuitBreakerBuilder::slow_call_duration`](super::CircuitBreakerBuilder::slow_call_duration).
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::config::duration::optional", skip_serializing_if = "Option::is_none")
    )]
    pub slow_call_duration: Option<Duration>,
    /// See [`CircuitBreakerBuilder::consecutive_failures`](super::CircuitBreakerBuilder::consecutive_failures).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub consecutive_failures: Option<u32>,
    /// See [`CircuitBreakerBuilder::minimum_calls`](super::CircuitBreakerBuilder::minimum_calls). Default: `None`, 20 or
    /// the whole count window, if that is smaller.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub minimum_calls: Option<u32>,
    /// See [`CircuitBreakerBuilder::open_time`](super::CircuitBreakerBuilder::open_time).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub open_time: Duration,
    /// See [`CircuitBreakerBuilder::max_open_time`](super::CircuitBreakerBuilder::max_open_time).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub max_open_time: Duration,
    /// See [`CircuitBreakerBuilder::use_retry_after`](super::CircuitBreakerBuilder::use_retry_after).
    pub use_retry_after: bool,
    /// See [`CircuitBreakerBuilder::samples`](super::CircuitBreakerBuilder::samples).
    pub samples: u32,
    /// See [`CircuitBreakerBuilder::success_rate`](super::CircuitBreakerBuilder::success_rate).
    pub success_rate: f64,
    /// See [`CircuitBreakerBuilder::max_concurrent_probes`](super::CircuitBreakerBuilder::max_concurrent_probes).
    /// Default: `None`, as many as there are samples.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_concurrent_probes: Option<u32>,
    /// See [`CircuitBreakerBuilder::max_probe_time`](super::CircuitBreakerBuilder::max_probe_time).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub max_probe_time: Duration,
    /// See [`CircuitBreakerBuilder::shadow`](super::CircuitBreakerBuilder::shadow).
    pub shadow: bool,
    /// See [`CircuitBreakerBuilder::seed`](super::CircuitBreakerBuilder::seed).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub seed: Option<u64>,
    /// See [`CircuitBreakerBuilder::count_window`](super::CircuitBreakerBuilder::count_window) and
    /// [`time_window`](super::CircuitBreakerBuilder::time_window).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::config::choice::deserialize"))]
    pub window: Window,
    /// See [`CircuitBreakerBuilder::abandoned`](super::CircuitBreakerBuilder::abandoned).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::config::choice::deserialize"))]
    pub abandoned: Abandoned,
    /// See [`CircuitBreakerBuilder::open_backoff`](super::CircuitBreakerBuilder::open_backoff). Default: `None`, the
    /// `open_time` each time.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub open_backoff: Option<Backoff>,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            name: None,
            failure_rate: Some(DEFAULT_FAILURE_RATE),
            slow_call_rate: None,
            slow_call_duration: None,
            consecutive_failures: None,
            minimum_calls: None,
            open_time: DEFAULT_OPEN_TIME,
            max_open_time: DEFAULT_MAX_OPEN_TIME,
            use_retry_after: false,
            samples: DEFAULT_SAMPLES,
            success_rate: DEFAULT_SUCCESS_RATE,
            max_concurrent_probes: None,
            max_probe_time: DEFAULT_MAX_PROBE_TIME,
            shadow: false,
            seed: None,
            window: DEFAULT_WINDOW,
            abandoned: DEFAULT_ABANDONED,
            open_backoff: None,
        }
    }
}

const RATE: &str = "above 0.0 and at most 1.0";

/// Checks one setting after the other.
struct Checks<'a> {
    policy: &'a Name,
}

impl Checks<'_> {
    fn rate(&self, setting: &'static str, rate: f64) -> Result<(), ConfigError> {
        let allowed = rate > 0.0 && rate <= 1.0;
        if allowed {
            Ok(())
        } else {
            Err(ConfigError::new(self.policy, setting, rate, RATE))
        }
    }

    fn number(&self, setting: &'static str, number: u32, most: u32) -> Result<(), ConfigError> {
        let allowed = format!("from 1 to {most}");
        let in_range = (1..=most).contains(&number);
        if in_range {
            Ok(())
        } else {
            Err(ConfigError::new(self.policy, setting, number, allowed))
        }
    }

    fn time(&self, setting: &'static str, time: Duration) -> Result<(), ConfigError> {
        if time.is_zero() {
            return Err(ConfigError::new(self.policy, setting, time, "longer than 0"));
        }
        Ok(())
    }
}

impl CircuitBreakerConfig {
    pub(crate) fn full_name(&self) -> Name {
        self.name.clone().map_or(Name::new("circuit breaker"), Name::from)
    }

    /// What breakers with these settings are made of.
    pub(crate) fn check(&self) -> Result<Checked, ConfigError> {
        Ok(Checked {
            rules: self.rules()?,
            window: self.window,
            probing: self.probing()?,
            open_curve: self.open_curve()?,
            max_open_time: self.max_open_time,
            use_retry_after: self.use_retry_after,
            seed: self.seed,
        })
    }

    fn rules(&self) -> Result<Rules, ConfigError> {
        let policy = &self.full_name();
        let checks = Checks { policy };
        if let Some(rate) = self.failure_rate {
            checks.rate("failure_rate", rate)?;
        }
        match (self.slow_call_rate, self.slow_call_duration) {
            (Some(rate), Some(duration)) => {
                checks.rate("slow_call_rate", rate)?;
                checks.time("slow_call_duration", duration)?;
            }
            (Some(rate), None) => {
                let allowed = "left out, or set together with slow_call_duration";
                return Err(ConfigError::new(policy, "slow_call_rate", rate, allowed));
            }
            (None, Some(duration)) => {
                let allowed = "left out, or set together with slow_call_rate";
                return Err(ConfigError::new(policy, "slow_call_duration", duration, allowed));
            }
            (None, None) => {}
        }
        if let Some(failures) = self.consecutive_failures {
            checks.number("consecutive_failures", failures, u32::MAX)?;
        }
        if self.failure_rate.or(self.slow_call_rate).is_none() && self.consecutive_failures.is_none() {
            let allowed = "a rate, where neither slow_call_rate nor consecutive_failures is set";
            return Err(ConfigError::new(policy, "failure_rate", "off", allowed));
        }
        Ok(Rules {
            minimum: self.minimum(&checks)?,
            failure_rate: self.failure_rate,
            slow_rate: self.slow_call_rate,
            consecutive: self.consecutive_failures,
        })
    }

    fn minimum(&self, checks: &Checks<'_>) -> Result<u32, ConfigError> {
        let most = match self.window {
            Window::Count(size) => {
                checks.number("count_window", size, MAX_SIZE)?;
                size
            }
            Window::Time(length) => {
                let shortest = Duration::from_millis(u64::from(BUCKETS));
                if length < shortest {
                    let allowed = format!("at least {shortest:?}");
                    return Err(ConfigError::new(checks.policy, "time_window", length, allowed));
                }
                u32::MAX
            }
        };
        let minimum = self.minimum_calls.unwrap_or(DEFAULT_MINIMUM_CALLS.min(most));
        checks.number("minimum_calls", minimum, most)?;
        Ok(minimum)
    }

    fn probing(&self) -> Result<Probing, ConfigError> {
        let policy = &self.full_name();
        let checks = Checks { policy };
        checks.number("samples", self.samples, MAX_SAMPLES)?;
        checks.rate("success_rate", self.success_rate)?;
        let max_concurrent = self.max_concurrent_probes.unwrap_or(self.samples);
        checks.number("max_concurrent_probes", max_concurrent, self.samples)?;
        checks.time("max_probe_time", self.max_probe_time)?;
        Ok(Probing {
            samples: self.samples,
            needed: needed(self.success_rate, self.samples),
            max_concurrent,
            max_probe_time: nanos(self.max_probe_time),
            max_undecided: UNDECIDED_ROUNDS * self.samples,
        })
    }

    fn open_curve(&self) -> Result<Curve, ConfigError> {
        let policy = &self.full_name();
        let checks = Checks { policy };
        checks.time("max_open_time", self.max_open_time)?;
        if self.open_backoff.is_none() {
            checks.time("open_time", self.open_time)?;
            if self.open_time > self.max_open_time {
                let allowed = format!("at most {:?}, the max_open_time", self.max_open_time);
                return Err(ConfigError::new(policy, "open_time", self.open_time, allowed));
            }
        }
        let backoff = self.open_backoff.clone();
        let backoff = backoff.unwrap_or_else(|| Backoff::constant(self.open_time));
        backoff.check_open_time(policy, self.max_open_time)
    }
}

/// Settings that were checked. Any number of breakers is made of them.
pub(crate) struct Checked {
    rules: Rules,
    window: Window,
    probing: Probing,
    open_curve: Curve,
    max_open_time: Duration,
    use_retry_after: bool,
    seed: Option<u64>,
}

impl Checked {
    /// The core of a breaker.
    pub(crate) fn cell(&self) -> Cell {
        let with_slow = self.rules.slow_rate.is_some();
        let rates = self.rules.failure_rate.is_some() || with_slow;
        let recent = match self.window {
            _ if !rates => Recent::None,
            Window::Count(size) => Recent::Count(CountWindow::new(size, with_slow)),
            Window::Time(length) => Recent::Time(TimeWindow::new(nanos(length))),
        };
        Cell::new(Memory::new(self.rules, recent), self.probing, 0)
    }

    /// How long the `n`-th of these breakers stays open: of one seed, but each with a jitter of its own.
    pub(crate) fn opening(&self, n: u64) -> Opening {
        let curve = self.open_curve.clone();
        let random = || Random::stream(self.seed.unwrap_or_else(seed), n);
        Opening::new(curve, self.max_open_time, self.use_retry_after, random)
    }
}

/// The fewest of `samples` that are at least `rate` of them.
fn needed(rate: f64, samples: u32) -> u32 {
    let enough = |good: &u32| f64::from(*good) / f64::from(samples) >= rate;
    (1..=samples).find(enough).unwrap_or(samples)
}
