//! How long to wait before the next try: schedules and jitter.
//!
//! A [`Backoff`] is a description: it is checked when the policy that takes it is built. [`Backoff::delays`] gives the
//! waits themselves, to look at or to test with.
//!
//! ```
//! use std::time::Duration;
//! use steadfast::{Backoff, Jitter};
//!
//! let backoff = Backoff::exponential(Duration::from_millis(500)).jitter(Jitter::None);
//! let waits: Vec<_> = backoff.delays(7)?.take(5).map(|wait| wait.as_millis()).collect();
//! assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000]);
//! # Ok::<(), steadfast::ConfigError>(())
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::random::Random;
use crate::rejected::{ConfigError, Name};

/// The longest wait of a growing schedule: 10 s.
///
/// Longer than most dependencies take to come back, and short enough that a person who waits still waits.
pub const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(10);

/// What an exponential schedule multiplies by: 2.
pub const DEFAULT_FACTOR: f64 = 2.0;

/// How a wait is spread, so that callers who failed together do not return together.
///
/// Every draw stays at or below the schedule's `max_delay`, and a schedule that has reached it is still spread.
/// The first three are those of Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// The wait as the schedule says.
    None,
    /// Anything from 0 to the wait.
    Full,
    /// Anything from half the wait to the wait.
    Equal,
    /// The wait, less or more by up to this fraction of it: from 0.0 to 1.0.
    Proportional(f64),
    /// The wait, and up to this much more.
    Additive(Duration),
}

/// A schedule of waits.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | `max_delay` | 10 s for the schedules that grow, none for constant, function and sequence |
/// | `factor` | 2.0, exponential only |
/// | `jitter` | `Full` for exponential, `None` for the others; decorrelated and smooth bring their own |
#[derive(Clone, Debug)]
pub struct Backoff {
    schedule: Schedule,
    factor: Option<f64>,
    max_delay: Option<Duration>,
    jitter: Option<Jitter>,
}

type Sequence = Box<dyn Iterator<Item = Duration> + Send + Sync>;

#[derive(Clone)]
enum Schedule {
    Constant(Duration),
    Linear(Duration),
    Exponential(Duration),
    Fibonacci(Duration),
    Decorrelated(Duration),
    Smooth(Duration),
    Function(Arc<dyn Fn(u32) -> Option<Duration> + Send + Sync>),
    Sequence(Arc<dyn Fn() -> Sequence + Send + Sync>),
}

impl Backoff {
    const fn of(schedule: Schedule) -> Self {
        Self {
            schedule,
            factor: None,
            max_delay: None,
            jitter: None,
        }
    }

    /// The same wait each time.
    #[must_use]
    pub const fn constant(delay: Duration) -> Self {
        Self::of(Schedule::Constant(delay))
    }

    /// `base`, twice `base`, three times `base`, ...
    #[must_use]
    pub const fn linear(base: Duration) -> Self {
        Self::of(Schedule::Linear(base))
    }

    /// `base`, multiplied by [`factor`](Self::factor) each time.
    #[must_use]
    pub const fn exponential(base: Duration) -> Self {
        Self::of(Schedule::Exponential(base))
    }

    /// `base` times 1, 1, 2, 3, 5, 8, ...
    #[must_use]
    pub const fn fibonacci(base: Duration) -> Self {
        Self::of(Schedule::Fibonacci(base))
    }

    /// Anything from `base` to three times the wait before ("decorrelated jitter" of Brooker, 2015).
    #[must_use]
    pub const fn decorrelated(base: Duration) -> Self {
        Self::of(Schedule::Decorrelated(base))
    }

    /// Exponential, jittered without the clusters that other jitters leave: the decorrelated jitter V2 of Polly.
    ///
    /// The median of the first wait is near `base` (0.9 of it). A wait that would exceed `max_delay` is drawn from its upper half.
    #[must_use]
    pub const fn smooth(base: Duration) -> Self {
        Self::of(Schedule::Smooth(base))
    }

    /// What `delay` says for the first, second, third retry ...; `None` ends the retrying.
    #[must_use]
    pub fn function(delay: impl Fn(u32) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self::of(Schedule::Function(Arc::new(delay)))
    }

    /// These waits in turn; the retrying ends with them. Each call gets a clone.
    #[must_use]
    pub fn sequence<I>(delays: I) -> Self
    where
        I: IntoIterator<Item = Duration, IntoIter: Send + Sync + 'static> + Clone + Send + Sync + 'static,
    {
        let start = move || -> Sequence { Box::new(delays.clone().into_iter()) };
        Self::of(Schedule::Sequence(Arc::new(start)))
    }

    /// What an exponential schedule multiplies by: finite, at least 1.0.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    /// The longest wait, jitter included: at least the schedule's base.
    #[must_use]
    pub const fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = Some(max_delay);
        self
    }

    /// How the waits are spread.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// The waits of one session, drawn from `seed`.
    ///
    /// # Errors
    ///
    /// Where the schedule makes no sense, as the builder that takes it would say.
    pub fn delays(&self, seed: u64) -> Result<Delays, ConfigError> {
        Ok(Delays {
            curve: self.check(&Name::new("backoff"))?,
            progress: Progress::default(),
            random: Random::stream(seed, 0),
        })
    }

    /// The checked form of this schedule, for `policy`.
    pub(crate) fn check(&self, policy: &Name) -> Result<Curve, ConfigError> {
        let (base, grows) = match self.schedule {
            Schedule::Constant(base) => (base, false),
            Schedule::Function(_) | Schedule::Sequence(_) => (Duration::ZERO, false),
            Schedule::Linear(base)
            | Schedule::Exponential(base)
            | Schedule::Fibonacci(base)
            | Schedule::Decorrelated(base)
            | Schedule::Smooth(base) => (base, true),
        };
        let exponential = matches!(self.schedule, Schedule::Exponential(_));
        let jitters_itself = matches!(self.schedule, Schedule::Decorrelated(_) | Schedule::Smooth(_));

        if let Some(factor) = self.factor {
            if !exponential {
                return Err(ConfigError::new(
                    policy,
                    "factor",
                    factor,
                    "left out, but for an exponential backoff",
                ));
            }
            if !(factor.is_finite() && factor >= 1.0) {
                return Err(ConfigError::new(policy, "factor", factor, "finite and at least 1.0"));
            }
        }
        if let Some(jitter) = self.jitter {
            if jitters_itself {
                return Err(ConfigError::new(
                    policy,
                    "jitter",
                    jitter,
                    "left out, as this backoff brings its own",
                ));
            }
            if let Jitter::Proportional(fraction) = jitter {
                if !(0.0..=1.0).contains(&fraction) {
                    return Err(ConfigError::new(policy, "jitter", jitter, "a fraction from 0.0 to 1.0"));
                }
            }
        }
        let max_delay = self.max_delay.or(grows.then_some(DEFAULT_MAX_DELAY));
        if let Some(max_delay) = max_delay {
            if max_delay < base {
                let allowed = format!("at least {base:?}, the base of the backoff");
                return Err(ConfigError::new(policy, "max_delay", max_delay, allowed));
            }
        }
        let jitter = self
            .jitter
            .unwrap_or(if exponential { Jitter::Full } else { Jitter::None });
        Ok(Curve {
            schedule: self.schedule.clone(),
            factor: self.factor.unwrap_or(DEFAULT_FACTOR),
            max_delay: max_delay.unwrap_or(Duration::MAX),
            jitter,
        })
    }
}

/// A schedule that has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    schedule: Schedule,
    factor: f64,
    max_delay: Duration,
    jitter: Jitter,
}

/// How far one session has come on its [`Curve`].
#[derive(Default)]
pub(crate) struct Progress {
    /// Waits drawn so far.
    retries: u32,
    previous: Duration,
    /// The value of the smooth formula at the previous draw, in units of the base.
    smooth: f64,
    sequence: Option<Sequence>,
}

/// `4` and `1 / 1.4` in Polly's `DecorrelatedJitterBackoffV2`: the shape of the curve, and what brings its first median to the base.
const SMOOTH_SHAPE: f64 = 4.0;
const SMOOTH_SCALE: f64 = 1.0 / 1.4;

impl Curve {
    /// The next wait; `None` once the schedule has ended. `random` gives numbers in `[0, 1)`.
    pub(crate) fn next(&self, progress: &mut Progress, mut random: impl FnMut() -> f64) -> Option<Duration> {
        progress.retries = progress.retries.saturating_add(1);
        let retry = progress.retries;
        let wait = match &self.schedule {
            Schedule::Constant(base) => *base,
            Schedule::Linear(base) => base.saturating_mul(retry),
            Schedule::Exponential(base) => scale(*base, self.factor.powf(f64::from(retry - 1))),
            Schedule::Fibonacci(base) => base.saturating_mul(fibonacci(retry)),
            Schedule::Function(delay) => delay(retry)?,
            Schedule::Sequence(start) => progress.sequence.get_or_insert_with(|| start()).next()?,
            Schedule::Decorrelated(base) => {
                let high = progress.previous.max(*base).saturating_mul(3).min(self.max_delay);
                progress.previous = between(*base, high.max(*base), random());
                return Some(progress.previous);
            }
            Schedule::Smooth(base) => return Some(self.smooth(*base, progress, random)),
        };
        Some(self.spread(wait.min(self.max_delay), random))
    }

    fn spread(&self, wait: Duration, mut random: impl FnMut() -> f64) -> Duration {
        let (low, high) = match self.jitter {
            Jitter::None => return wait,
            Jitter::Full => (Duration::ZERO, wait),
            Jitter::Equal => (wait / 2, wait),
            Jitter::Proportional(fraction) => {
                let spread = scale(wait, fraction);
                (
                    wait.saturating_sub(spread),
                    wait.saturating_add(spread).min(self.max_delay),
                )
            }
            Jitter::Additive(spread) => {
                let low = wait.min(self.max_delay.saturating_sub(spread));
                (low, wait.saturating_add(spread).min(self.max_delay))
            }
        };
        between(low, high, random())
    }

    fn smooth(&self, base: Duration, progress: &mut Progress, mut random: impl FnMut() -> f64) -> Duration {
        let t = f64::from(progress.retries - 1) + random();
        let value = t.exp2() * (SMOOTH_SHAPE * t).sqrt().tanh();
        let step = (value - progress.smooth) * SMOOTH_SCALE;
        progress.smooth = value;
        // Past 2^1024 the step is infinite or not a number, which scales to the longest wait: far above any limit.
        let wait = scale(base, step);
        if wait <= self.max_delay {
            wait
        } else {
            between(self.max_delay / 2, self.max_delay, random())
        }
    }
}

/// `base * factor`, saturating, also where the factor is not a number; zero times anything is zero.
fn scale(base: Duration, factor: f64) -> Duration {
    if base.is_zero() {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(base.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// The point a fraction `at` of the way from `low` to `high`.
fn between(low: Duration, high: Duration, at: f64) -> Duration {
    low.saturating_add(scale(high.saturating_sub(low), at)).min(high)
}

/// The `n`-th Fibonacci number, from 1: 1, 1, 2, 3, 5, ...; saturates at the 48th.
fn fibonacci(n: u32) -> u32 {
    let (mut current, mut next) = (1_u32, 1_u32);
    for _ in 1..n.min(48) {
        (current, next) = (next, current.saturating_add(next));
    }
    current
}

/// The waits of one session; made by [`Backoff::delays`].
///
/// Endless, but for a function or a sequence that ends.
#[derive(Debug)]
pub struct Delays {
    curve: Curve,
    progress: Progress,
    random: Random,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.curve.next(&mut self.progress, || self.random.unit())
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, base) = match self {
            Self::Constant(base) => ("Constant", base),
            Self::Linear(base) => ("Linear", base),
            Self::Exponential(base) => ("Exponential", base),
            Self::Fibonacci(base) => ("Fibonacci", base),
            Self::Decorrelated(base) => ("Decorrelated", base),
            Self::Smooth(base) => ("Smooth", base),
            Self::Function(_) => return f.write_str("Function"),
            Self::Sequence(_) => return f.write_str("Sequence"),
        };
        f.debug_tuple(name).field(base).finish()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
