//! What a statement that is a transaction of its own sets for itself, and how it takes intervals.

use std::time::Duration;

/// Makes the commit durable whatever the default is: a setting of `remote_apply` promises more, and stays. And bounds the
/// wait for a row that somebody's open transaction holds. Both before the rest of the statement, and until the end of the
/// transaction, which the statement is.
pub(crate) const SETTINGS: &str = "settings AS MATERIALIZED (SELECT
    CASE WHEN current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
        THEN set_config('synchronous_commit', 'on', true) END,
    CASE current_setting('lock_timeout') WHEN '0' THEN set_config('lock_timeout', '2s', true) END
)";

/// What an interval is a multiple of.
pub(crate) const MICROSECOND: &str = "interval '1 microsecond'";

/// Longer intervals end here: a hundred years.
const MAX_INTERVAL: i64 = 100 * 365 * 24 * 3600 * 1_000_000;

/// An interval as the statements take it, rounded up: nothing ends early.
pub(crate) fn microseconds(interval: Duration) -> i64 {
    let microseconds = interval.as_nanos().div_ceil(1000);
    i64::try_from(microseconds).map_or(MAX_INTERVAL, |microseconds| microseconds.min(MAX_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_never_shorter_than_it_was_unless_it_is_longer_than_a_century() {
        assert_eq!(microseconds(Duration::ZERO), 0);
        assert_eq!(microseconds(Duration::from_nanos(1)), 1);
        assert_eq!(microseconds(Duration::from_micros(2)), 2);
        assert_eq!(microseconds(Duration::from_nanos(2001)), 3);
        assert_eq!(microseconds(Duration::MAX), MAX_INTERVAL);
    }
}
