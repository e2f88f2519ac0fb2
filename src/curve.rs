//! The arithmetic of the waits: no clock, and no randomness of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Jitter;

pub(crate) type Sequence = Box<dyn Iterator<Item = Duration> + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Schedule {
    Constant(Duration),
    Linear(Duration),
    Exponential(Duration),
    Fibonacci(Duration),
    Decorrelated(Duration),
    Smooth(Duration),
    Function(Arc<dyn Fn(u32) -> Option<Duration> + Send + Sync>),
    Sequence(Arc<dyn Fn() -> Sequence + Send + Sync>),
}

/// A schedule that has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) schedule: Schedule,
    pub(crate) factor: f64,
    pub(crate) max_delay: Duration,
    pub(crate) jitter: Jitter,
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

impl Progress {
    /// That of a session with so many waits behind it, of which nothing else is known.
    pub(crate) fn after(retries: u32) -> Self {
        Self {
            retries,
            ..Self::default()
        }
    }
}

/// `4` and `1 / 1.4` in Polly's `DecorrelatedJitterBackoffV2`: the shape of the curve, and what brings its first median to the base.
const SMOOTH_SHAPE: f64 = 4.0;
const SMOOTH_SCALE: f64 = 1.0 / 1.4;

impl Curve {
    /// The wait that is the same each time, where this is such a schedule.
    pub(crate) fn fixed(&self) -> Option<Duration> {
        match (&self.schedule, self.jitter) {
            (Schedule::Constant(base), Jitter::None) => Some((*base).min(self.max_delay)),
            _ => None,
        }
    }

    /// The next wait; `None` once the schedule has ended. `random` gives numbers in `[0, 1)`.
    #[inline]
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

    #[inline]
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
pub(crate) fn fibonacci(n: u32) -> u32 {
    let (mut current, mut next) = (1_u32, 1_u32);
    for _ in 1..n.min(48) {
        (current, next) = (next, current.saturating_add(next));
    }
    current
}

/// Functions and sequences are equal to their clones alone.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Constant(a), Self::Constant(b))
            | (Self::Linear(a), Self::Linear(b))
            | (Self::Exponential(a), Self::Exponential(b))
            | (Self::Fibonacci(a), Self::Fibonacci(b))
            | (Self::Decorrelated(a), Self::Decorrelated(b))
            | (Self::Smooth(a), Self::Smooth(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => Arc::ptr_eq(a, b),
            (Self::Sequence(a), Self::Sequence(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
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
