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

#[cfg(feature = "serde")]
mod form;

use std::sync::Arc;
use std::time::Duration;

use crate::curve::{Curve, Progress, Schedule, Sequence};
use crate::error::ConfigError;
use crate::random::Random;
use crate::rejected::Name;

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
///
/// In a file it is `"none"`, `"full"`, `"equal"`, `{ proportional = 0.1 }` or `{ additive = "50ms" }`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
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
    Additive(#[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))] Duration),
}

/// A schedule of waits.
///
/// In a file it is a table of `kind` (the name of the constructor), `base` (what the constructor takes), and where they
/// are set `factor`, `max_delay` and `jitter`. Functions and sequences are for code: they are not written to a file.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | `max_delay` | 10 s for the schedules that grow, none for constant, function and sequence |
/// | `factor` | 2.0, exponential only |
/// | `jitter` | `Full` for exponential, `None` for the others; decorrelated and smooth bring their own |
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "form::Form"))]
pub struct Backoff {
    schedule: Schedule,
    factor: Option<f64>,
    max_delay: Option<Duration>,
    jitter: Option<Jitter>,
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

    /// The checked form of this schedule as that of the open times of `policy`, none of them longer than `longest`.
    ///
    /// What is not set is `longest` for the longest wait and no jitter: an open time of nothing is no open time. It is
    /// drawn under a lock, so no function of the caller's may be asked.
    #[cfg(feature = "circuit-breaker")]
    pub(crate) fn check_open_time(&self, policy: &Name, longest: Duration) -> Result<Curve, ConfigError> {
        let refused = |value: &dyn std::fmt::Debug, allowed: String| {
            Err(ConfigError::new(policy, "open_backoff", value, allowed))
        };
        match self.schedule {
            Schedule::Function(_) | Schedule::Sequence(_) => {
                let allowed = "constant, linear, exponential, fibonacci, decorrelated or smooth";
                return refused(&"a function or a sequence", allowed.to_owned());
            }
            Schedule::Constant(base)
            | Schedule::Linear(base)
            | Schedule::Exponential(base)
            | Schedule::Fibonacci(base)
            | Schedule::Decorrelated(base)
            | Schedule::Smooth(base) => {
                if base.is_zero() || base > longest {
                    let allowed = format!("based on more than 0, and at most {longest:?}, the max_open_time");
                    return refused(&base, allowed);
                }
            }
        }
        let mut backoff = self.clone();
        backoff.max_delay = self.max_delay.or(Some(longest));
        let mut curve = backoff.check(policy)?;
        curve.jitter = self.jitter.unwrap_or(Jitter::None);
        Ok(curve)
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
                let unset = if self.max_delay.is_none() {
                    " (it was not set, and this is its default)"
                } else {
                    ""
                };
                let allowed = format!("at least {base:?}, the base of the backoff{unset}");
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

#[cfg(test)]
#[allow(clippy::unchecked_time_subtraction, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::curve::fibonacci;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);
    const POLICY: Name = Name::new("test");

    fn curve(backoff: &Backoff) -> Curve {
        backoff.check(&POLICY).unwrap()
    }

    /// The first `n` waits, with every random number being `random`.
    fn waits(backoff: &Backoff, n: usize, random: f64) -> Vec<Duration> {
        let (curve, mut progress) = (curve(backoff), Progress::default());
        let next = || curve.next(&mut progress, || random);
        std::iter::from_fn(next).take(n).collect()
    }

    /// The wait before retry number `retry`, those before it not having been drawn.
    fn wait_at(backoff: &Backoff, retry: u32, random: f64) -> Duration {
        let mut progress = Progress::after(retry - 1);
        curve(backoff).next(&mut progress, || random).unwrap()
    }

    fn millis(millis: impl IntoIterator<Item = u32>) -> Vec<Duration> {
        millis.into_iter().map(|n| n * MS).collect()
    }

    fn assert_close(drawn: &[Duration], expected: &[f64]) {
        assert_eq!(drawn.len(), expected.len());
        for (drawn, expected) in drawn.iter().zip(expected) {
            assert!(
                (drawn.as_secs_f64() - expected).abs() < 1e-6,
                "{drawn:?}, not {expected}"
            );
        }
    }

    /// One of each schedule that has a base.
    fn schedules(base: Duration) -> [Backoff; 6] {
        [
            Backoff::constant(base),
            Backoff::linear(base),
            Backoff::exponential(base),
            Backoff::fibonacci(base),
            Backoff::decorrelated(base),
            Backoff::smooth(base),
        ]
    }

    fn jitters_itself(backoff: &Backoff) -> bool {
        matches!(backoff.schedule, Schedule::Decorrelated(_) | Schedule::Smooth(_))
    }

    fn rejected(backoff: &Backoff) -> (&'static str, String) {
        let error = backoff.check(&POLICY).unwrap_err();
        assert_eq!(error.policy(), "test");
        (error.setting(), error.to_string())
    }

    #[test]
    fn an_exponential_schedule_multiplies_by_its_factor() {
        let doubling = Backoff::exponential(500 * MS).jitter(Jitter::None);
        assert_eq!(waits(&doubling, 5, 0.5), millis([500, 1_000, 2_000, 4_000, 8_000]));
        assert_eq!(waits(&doubling, 2, 0.5).iter().sum::<Duration>(), 1_500 * MS);
        assert_eq!(waits(&doubling.clone().factor(1.5), 3, 0.5), millis([500, 750, 1_125]));
        assert_eq!(waits(&doubling.factor(1.0), 3, 0.5), millis([500, 500, 500]));
    }

    #[test]
    fn a_wait_below_a_millisecond_is_kept() {
        let backoff = Backoff::exponential(Duration::from_nanos(1_500)).jitter(Jitter::None);
        assert_eq!(waits(&backoff, 3, 0.5), [1_500, 3_000, 6_000].map(Duration::from_nanos));
    }

    #[test]
    fn a_linear_schedule_adds_its_base() {
        assert_eq!(waits(&Backoff::linear(2 * S), 3, 0.5), [2 * S, 4 * S, 6 * S]);
    }

    #[test]
    fn a_constant_schedule_stays() {
        assert_eq!(waits(&Backoff::constant(7 * MS), 3, 0.5), millis([7, 7, 7]));
    }

    #[test]
    fn a_fibonacci_schedule_adds_the_last_two() {
        let expected = millis([10, 10, 20, 30, 50, 80, 130, 210]);
        assert_eq!(waits(&Backoff::fibonacci(10 * MS), 8, 0.5), expected);
        assert_eq!((fibonacci(46), fibonacci(47)), (1_836_311_903, 2_971_215_073));
        assert_eq!((fibonacci(48), fibonacci(u32::MAX)), (u32::MAX, u32::MAX));
    }

    #[test]
    fn a_capped_schedule_grows_to_its_cap_and_stays() {
        let backoff = Backoff::exponential(MS).max_delay(10 * MS).jitter(Jitter::None);
        assert_eq!(waits(&backoff, 6, 0.5), millis([1, 2, 4, 8, 10, 10]));
    }

    #[test]
    fn a_smooth_schedule_draws_the_published_numbers() {
        let backoff = Backoff::smooth(S).max_delay(60 * S);
        assert_close(
            &waits(&backoff, 7, 0.5),
            &[
                0.897_405, 1.093_004, 2.035_748, 4.045_979, 8.083_632, 16.163_663, 32.325_517,
            ],
        );
        assert_close(
            &waits(&backoff, 5, 0.0),
            &[0.0, 1.377_182, 1.460_067, 2.865_85, 5.717_807],
        );
    }

    #[test]
    fn a_decorrelated_wait_lies_between_the_base_and_three_times_the_wait_before() {
        let backoff = Backoff::decorrelated(100 * MS);
        assert_eq!(waits(&backoff, 4, 0.0), millis([100, 100, 100, 100]));
        assert_eq!(waits(&backoff, 3, 0.5), millis([200, 350, 575]));

        for seed in 0..200 {
            let mut high = 300 * MS;
            for wait in backoff.delays(seed).unwrap().take(50) {
                assert!((100 * MS..=high).contains(&wait), "{wait:?} is not below {high:?}");
                high = (wait * 3).min(DEFAULT_MAX_DELAY);
            }
        }
    }

    #[test]
    fn full_jitter_fills_the_interval_from_zero_to_the_wait() {
        const DRAWS: u32 = 20_000;
        let backoff = Backoff::exponential(500 * MS).max_delay(60 * S);
        for (retry, high) in (1..).zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
            let mut random = Random::stream(7, u64::from(retry));
            let mut sum = 0.0;
            for _ in 0..DRAWS {
                let wait = wait_at(&backoff, retry, random.unit()).as_secs_f64();
                assert!((0.0..=high).contains(&wait), "retry {retry}: {wait}");
                sum += wait;
            }
            let mean = sum / f64::from(DRAWS);
            assert!((mean / high - 0.5).abs() < 0.01, "retry {retry}: mean {mean}");
        }
    }

    #[test]
    fn each_jitter_spreads_as_it_says() {
        let ends = |jitter| {
            let backoff = Backoff::constant(1_000 * MS).jitter(jitter);
            [0.0, 0.5, 1.0].map(|random| waits(&backoff, 1, random)[0].as_millis())
        };
        assert_eq!(ends(Jitter::None), [1_000, 1_000, 1_000]);
        assert_eq!(ends(Jitter::Full), [0, 500, 1_000]);
        assert_eq!(ends(Jitter::Equal), [500, 750, 1_000]);
        assert_eq!(ends(Jitter::Proportional(0.1)), [900, 1_000, 1_100]);
        assert_eq!(ends(Jitter::Proportional(0.0)), [1_000, 1_000, 1_000]);
        assert_eq!(ends(Jitter::Proportional(1.0)), [0, 1_000, 2_000]);
        assert_eq!(ends(Jitter::Additive(200 * MS)), [1_000, 1_100, 1_200]);
        assert_eq!(ends(Jitter::Additive(Duration::ZERO)), [1_000, 1_000, 1_000]);
    }

    #[test]
    fn only_exponential_schedules_jitter_by_default() {
        for backoff in schedules(S) {
            let varies = waits(&backoff, 1, 0.1) != waits(&backoff, 1, 0.9);
            let exponential = matches!(backoff.schedule, Schedule::Exponential(_));
            assert_eq!(varies, exponential || jitters_itself(&backoff), "{backoff:?}");
        }
    }

    /// One of each schedule, with each jitter it takes.
    fn jittered(base: Duration) -> Vec<Backoff> {
        let jitters = [
            Jitter::Full,
            Jitter::Equal,
            Jitter::Proportional(0.3),
            Jitter::Additive(300 * MS),
        ];
        let combine = |backoff: Backoff| {
            if jitters_itself(&backoff) {
                vec![backoff]
            } else {
                jitters.map(|jitter| backoff.clone().jitter(jitter)).to_vec()
            }
        };
        schedules(base).into_iter().flat_map(combine).collect()
    }

    #[test]
    fn whole_second_bases_jitter_too() {
        for backoff in jittered(2 * S) {
            let drawn: Vec<_> = (0..20).map(|n| backoff.delays(n).unwrap().next().unwrap()).collect();
            assert!(drawn.iter().any(|wait| wait.subsec_nanos() != 0), "{backoff:?}");
            assert!(drawn.iter().any(|wait| *wait != drawn[0]), "{backoff:?}");
        }
    }

    #[test]
    fn a_capped_sequence_keeps_its_jitter() {
        for backoff in jittered(S) {
            let backoff = backoff.max_delay(4 * S);
            for seed in 0..20 {
                let drawn: Vec<_> = backoff.delays(seed).unwrap().skip(20).take(20).collect();
                let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
                assert!(*high <= 4 * S, "{backoff:?}: {high:?}");
                assert!(*high > *low + 50 * MS, "{backoff:?}: from {low:?} to {high:?}");
            }
        }
    }

    #[test]
    fn no_jitter_leaves_the_capped_wait_to_one_instant() {
        // A pile of waits that are exactly the cap would bring everyone back at once.
        for backoff in jittered(S) {
            let backoff = backoff.max_delay(4 * S);
            let at_cap = (0..1_000).filter(|seed| backoff.delays(*seed).unwrap().nth(20) == Some(4 * S));
            assert!(at_cap.count() < 5, "{backoff:?}");
        }
    }

    #[test]
    fn late_retries_saturate_to_the_cap() {
        for backoff in [
            Backoff::linear(S),
            Backoff::exponential(MS).jitter(Jitter::None),
            Backoff::exponential(MS).factor(f64::MAX).jitter(Jitter::None),
            Backoff::fibonacci(MS),
        ] {
            for retry in [50, 1_024, 1_025, 1_026, u32::MAX - 1, u32::MAX] {
                assert_eq!(
                    wait_at(&backoff, retry, 0.5),
                    DEFAULT_MAX_DELAY,
                    "{backoff:?} at {retry}"
                );
            }
        }
    }

    #[test]
    fn the_number_of_retries_does_not_overflow() {
        let curve = curve(&Backoff::exponential(MS).jitter(Jitter::None));
        let mut progress = Progress::after(u32::MAX - 1);
        for _ in 0..3 {
            assert_eq!(curve.next(&mut progress, || 0.5), Some(DEFAULT_MAX_DELAY));
        }
    }

    #[test]
    fn a_smooth_schedule_stays_in_the_upper_half_below_its_cap() {
        let backoff = Backoff::smooth(MS);
        let mut drawn = backoff.delays(3).unwrap().skip(40).take(2_000);
        assert!(drawn.all(|wait| (DEFAULT_MAX_DELAY / 2..=DEFAULT_MAX_DELAY).contains(&wait)));
    }

    #[test]
    fn a_base_of_zero_never_waits() {
        for backoff in schedules(Duration::ZERO) {
            let mut drawn = backoff.delays(1).unwrap().take(1_100);
            assert!(drawn.all(|wait| wait.is_zero()), "{backoff:?}");
            assert_eq!(wait_at(&backoff, u32::MAX, 0.9), Duration::ZERO, "{backoff:?}");
        }
    }

    #[test]
    fn the_longest_base_and_cap_do_not_overflow() {
        for backoff in jittered(Duration::MAX) {
            let backoff = backoff.max_delay(Duration::MAX);
            for random in [0.0, 0.5, 0.999] {
                assert_eq!(waits(&backoff, 1_100, random).len(), 1_100, "{backoff:?}");
            }
        }
        let backoff = Backoff::linear(Duration::MAX).max_delay(Duration::MAX);
        assert_eq!(waits(&backoff, 3, 0.5), [Duration::MAX; 3]);
    }

    #[test]
    fn a_constant_wait_has_no_cap_unless_told() {
        assert_eq!(waits(&Backoff::constant(60 * S), 1, 0.5), [60 * S]);
        assert_eq!(waits(&Backoff::sequence([60 * S]), 1, 0.5), [60 * S]);
        let capped = Backoff::sequence([S, 60 * S]).max_delay(10 * S);
        assert_eq!(waits(&capped, 2, 0.5), [S, 10 * S]);
    }

    #[test]
    fn a_sequence_ends_with_its_last_wait_and_starts_anew_for_each_session() {
        let backoff = Backoff::sequence(millis([5, 1, 3]));
        for _ in 0..2 {
            assert_eq!(waits(&backoff, 9, 0.5), millis([5, 1, 3]));
        }
    }

    #[test]
    fn an_empty_sequence_has_no_wait() {
        assert_eq!(waits(&Backoff::sequence([]), 9, 0.5), []);
    }

    #[test]
    fn a_function_is_told_the_number_of_the_retry_and_ends_with_none() {
        let backoff = Backoff::function(|retry| (retry <= 2).then_some(retry * 10 * MS));
        assert_eq!(waits(&backoff, 9, 0.5), millis([10, 20]));
        assert_eq!(waits(&Backoff::function(|_| None), 9, 0.5), []);
    }

    #[test]
    fn the_same_seed_repeats_and_another_differs() {
        for backoff in jittered(S) {
            let draw = |seed| backoff.delays(seed).unwrap().take(10).collect::<Vec<_>>();
            assert_eq!(draw(1), draw(1), "{backoff:?}");
            assert_ne!(draw(1), draw(2), "{backoff:?}");
        }
    }

    #[test]
    fn a_factor_is_finite_and_at_least_one() {
        for factor in [0.0, -2.0, 0.999_999, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (setting, text) = rejected(&Backoff::exponential(S).factor(factor));
            assert_eq!(setting, "factor");
            assert!(text.ends_with("it has to be finite and at least 1.0"), "{text}");
        }
    }

    #[test]
    fn a_factor_is_for_exponential_schedules_only() {
        let others = schedules(S)
            .into_iter()
            .chain([Backoff::sequence([]), Backoff::function(|_| None)]);
        for backoff in others.filter(|backoff| !matches!(backoff.schedule, Schedule::Exponential(_))) {
            let (setting, text) = rejected(&backoff.factor(2.0));
            assert_eq!(setting, "factor");
            assert!(text.ends_with("left out, but for an exponential backoff"), "{text}");
        }
    }

    #[test]
    fn a_proportional_jitter_is_a_fraction() {
        for fraction in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (setting, text) = rejected(&Backoff::constant(S).jitter(Jitter::Proportional(fraction)));
            assert_eq!(setting, "jitter");
            assert!(text.ends_with("a fraction from 0.0 to 1.0"), "{text}");
        }
    }

    #[test]
    fn a_schedule_with_its_own_jitter_takes_no_other() {
        for backoff in [Backoff::decorrelated(S), Backoff::smooth(S)] {
            let (setting, text) = rejected(&backoff.jitter(Jitter::None));
            assert_eq!(setting, "jitter");
            assert!(text.ends_with("left out, as this backoff brings its own"), "{text}");
        }
    }

    #[test]
    fn a_cap_is_not_below_the_base() {
        for backoff in schedules(S) {
            assert!(backoff.clone().max_delay(S).check(&POLICY).is_ok());
            let (setting, text) = rejected(&backoff.max_delay(Duration::from_nanos(999_999_999)));
            assert_eq!(setting, "max_delay");
            assert!(text.ends_with("at least 1s, the base of the backoff"), "{text}");
        }
        // The default cap is one too.
        assert_eq!(rejected(&Backoff::linear(11 * S)).0, "max_delay");
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(Duration::ZERO),
            Just(Duration::from_nanos(1)),
            Just(Duration::MAX),
            (0..10_000_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_nanos),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        ]
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            (0.0..=1.0).prop_map(Jitter::Proportional),
            any_duration().prop_map(Jitter::Additive),
        ]
    }

    proptest! {
        #![proptest_config(crate::histories::histories(4_096))]

        #[test]
        fn no_wait_exceeds_its_cap(
            kind in 0..8_usize,
            (a, b) in (any_duration(), any_duration()),
            jitter in any_jitter(),
            factor in prop_oneof![Just(1.0), 1.0..4.0, Just(f64::MAX)],
            skipped in prop_oneof![0..64_u32, 1_000..1_100_u32, Just(u32::MAX - 8)],
            randoms in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0 - f64::EPSILON / 2.0), 0.0..1.0], 24),
        ) {
            let (base, cap) = (a.min(b), a.max(b));
            let backoff = match kind {
                6 => Backoff::function(move |retry| Some(base.saturating_mul(retry))),
                7 => Backoff::sequence(std::iter::repeat_n(b, 4)),
                n => schedules(base)[n].clone(),
            };
            let backoff = backoff.max_delay(cap);
            let backoff = if jitters_itself(&backoff) { backoff } else { backoff.jitter(jitter) };
            let backoff = if kind == 2 { backoff.factor(factor) } else { backoff };

            let curve = curve(&backoff);
            let mut progress = Progress::after(skipped);
            let mut randoms = randoms.into_iter().cycle();
            let mut random = || randoms.next().unwrap();
            for _ in 0..12 {
                let Some(wait) = curve.next(&mut progress, &mut random) else { break };
                prop_assert!(wait <= cap, "{wait:?} of {backoff:?}");
                if kind == 4 {
                    prop_assert!(wait >= base, "{wait:?} of {backoff:?}");
                }
            }
        }
    }
}
