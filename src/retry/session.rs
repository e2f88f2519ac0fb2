//! The decision after each attempt, without a clock and without randomness of its own.

use std::time::Duration;

use super::attempt::StopReason;
use crate::Verdict;
use crate::curve::{Curve, Progress};

/// The longest wait that a server may ask for: 30 s. A server that asks for more is told to the caller instead.
pub const DEFAULT_MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Attempts of one call: 3. The first retry catches the blip, the second the restart.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// How much a wait that a server asked for may be lengthened, so that those who were told the same do not return at once.
const HINT_SPREAD: f64 = 0.1;

/// When a call stops.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_attempts: u32,
    pub(crate) max_elapsed: Option<Duration>,
    pub(crate) max_retry_after: Duration,
    pub(crate) curve: Curve,
    /// The wait after every failure without a hint, where no clock and no random number has a say in it.
    fixed: Option<Duration>,
}

impl Limits {
    pub(crate) fn new(
        max_attempts: u32,
        max_elapsed: Option<Duration>,
        max_retry_after: Duration,
        curve: Curve,
    ) -> Self {
        Self {
            max_attempts,
            max_elapsed,
            max_retry_after,
            fixed: if max_elapsed.is_none() { curve.fixed() } else { None },
            curve,
        }
    }

    /// What [`Session::wait`] would say, where it can be said without one.
    #[inline]
    pub(crate) fn fixed_wait(&self, verdict: Verdict) -> Option<Duration> {
        self.fixed.filter(|_| verdict.retry_after().is_none())
    }

    /// Whether the attempt of this number, which ended with `verdict`, may have a successor at all.
    #[inline]
    pub(crate) fn may_continue(&self, number: u32, verdict: Verdict) -> Result<(), StopReason> {
        if verdict == Verdict::Success {
            return Err(StopReason::Success);
        }
        if !verdict.is_retryable() {
            return Err(StopReason::NotRetryable);
        }
        if number >= self.max_attempts {
            return Err(StopReason::MaxAttempts);
        }
        Ok(())
    }
}

/// How far one call has come with its waits.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) waited: Duration,
    progress: Progress,
}

impl Session {
    /// How long to wait before the next attempt. `random` gives numbers in `[0, 1)`.
    #[inline]
    pub(crate) fn wait(
        &mut self,
        limits: &Limits,
        verdict: Verdict,
        elapsed: impl FnOnce() -> Duration,
        mut random: impl FnMut() -> f64,
    ) -> Result<Duration, StopReason> {
        let backoff = limits
            .curve
            .next(&mut self.progress, &mut random)
            .ok_or(StopReason::BackoffEnded)?;
        let wait = match verdict.retry_after() {
            Some(hint) if hint > limits.max_retry_after => return Err(StopReason::HintTooLong),
            Some(hint) if hint > backoff => hint.saturating_add(hint.mul_f64(HINT_SPREAD * random())),
            _ => backoff,
        };
        match limits.max_elapsed {
            Some(max_elapsed) if elapsed().saturating_add(wait) >= max_elapsed => Err(StopReason::MaxElapsed),
            _ => Ok(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::{Backoff, Jitter};
    use crate::rejected::Name;

    const MS: Duration = Duration::from_millis(1);

    fn limits(backoff: &Backoff) -> Limits {
        let curve = backoff.check(&Name::new("test")).unwrap();
        Limits::new(3, None, DEFAULT_MAX_RETRY_AFTER, curve)
    }

    fn wait_after(limits: &Limits, verdict: Verdict, elapsed: Duration, random: f64) -> Result<Duration, StopReason> {
        Session::default().wait(limits, verdict, || elapsed, || random)
    }

    fn overloaded(retry_after: Duration) -> Verdict {
        Verdict::Overloaded {
            retry_after: Some(retry_after),
        }
    }

    #[test]
    fn the_larger_of_backoff_and_hint_is_waited_and_only_the_hint_is_spread() {
        let limits = limits(&Backoff::constant(100 * MS));
        assert_eq!(wait_after(&limits, overloaded(200 * MS), MS, 0.0), Ok(200 * MS));
        assert_eq!(wait_after(&limits, overloaded(200 * MS), MS, 0.5), Ok(210 * MS));
        assert_eq!(wait_after(&limits, overloaded(50 * MS), MS, 0.5), Ok(100 * MS));
        assert_eq!(wait_after(&limits, overloaded(100 * MS), MS, 0.5), Ok(100 * MS));
        assert_eq!(wait_after(&limits, overloaded(Duration::ZERO), MS, 0.5), Ok(100 * MS));
    }

    #[test]
    fn a_hint_of_a_day_ends_the_retry() {
        let limits = limits(&Backoff::constant(MS));
        let day = Duration::from_secs(86_400);
        assert_eq!(
            wait_after(&limits, overloaded(day), MS, 0.5),
            Err(StopReason::HintTooLong)
        );
        assert_eq!(
            wait_after(&limits, overloaded(Duration::MAX), MS, 0.5),
            Err(StopReason::HintTooLong)
        );
        assert!(wait_after(&limits, overloaded(Duration::from_secs(30)), MS, 0.5).is_ok());
    }

    #[test]
    fn a_hint_without_a_ceiling_does_not_overflow() {
        let mut limits = limits(&Backoff::constant(MS));
        limits.max_retry_after = Duration::MAX;
        assert_eq!(
            wait_after(&limits, overloaded(Duration::MAX), MS, 0.999),
            Ok(Duration::MAX)
        );
    }

    #[test]
    fn a_wait_that_would_not_end_before_max_elapsed_is_not_begun() {
        let mut limits = limits(&Backoff::constant(40 * MS));
        limits.max_elapsed = Some(100 * MS);
        assert_eq!(wait_after(&limits, Verdict::TRANSIENT, 59 * MS, 0.0), Ok(40 * MS));
        assert_eq!(
            wait_after(&limits, Verdict::TRANSIENT, 60 * MS, 0.0),
            Err(StopReason::MaxElapsed)
        );
        assert_eq!(
            wait_after(&limits, Verdict::TRANSIENT, Duration::MAX, 0.0),
            Err(StopReason::MaxElapsed)
        );
    }

    #[test]
    fn a_fixed_wait_is_what_a_session_would_say() {
        let constant = limits(&Backoff::constant(40 * MS).max_delay(50 * MS));
        assert_eq!(constant.fixed_wait(Verdict::OVERLOADED), Some(40 * MS));
        assert_eq!(wait_after(&constant, Verdict::OVERLOADED, MS, 0.5), Ok(40 * MS));

        let hinted = overloaded(Duration::ZERO);
        let jittered = limits(&Backoff::constant(40 * MS).jitter(Jitter::Full));
        let growing = limits(&Backoff::linear(40 * MS));
        let timed = Limits::new(3, Some(MS), MS, constant.curve.clone());
        assert_eq!(constant.fixed_wait(hinted), None);
        for limits in [jittered, growing, timed] {
            assert_eq!(limits.fixed_wait(Verdict::TRANSIENT), None);
        }
    }

    #[test]
    fn an_empty_sequence_allows_no_retry() {
        let limits = limits(&Backoff::sequence([]));
        assert_eq!(
            wait_after(&limits, Verdict::TRANSIENT, MS, 0.0),
            Err(StopReason::BackoffEnded)
        );
    }

    #[test]
    fn only_what_is_retryable_goes_on_and_only_so_often() {
        let limits = limits(&Backoff::constant(MS));
        assert_eq!(limits.may_continue(2, Verdict::TRANSIENT), Ok(()));
        assert_eq!(limits.may_continue(2, Verdict::OVERLOADED), Ok(()));
        assert_eq!(limits.may_continue(2, Verdict::Success), Err(StopReason::Success));
        for verdict in [Verdict::Permanent, Verdict::Ignored] {
            assert_eq!(limits.may_continue(2, verdict), Err(StopReason::NotRetryable));
        }
        assert_eq!(limits.may_continue(3, Verdict::TRANSIENT), Err(StopReason::MaxAttempts));
    }
}
