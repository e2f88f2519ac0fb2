//! Values as SQLite keeps them: 64 bits with a sign, and bytes.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::Fault;

/// The longest time that is given: a century.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// A duration as it is stored: whole milliseconds, rounded up, so that nothing ends early.
pub(crate) fn stored(duration: Duration) -> Duration {
    let whole = Duration::from_millis(u64::try_from(duration.min(LONGEST).as_millis()).unwrap_or(u64::MAX));
    if whole < duration && duration < LONGEST {
        whole + Duration::from_millis(1)
    } else {
        whole
    }
}

/// A time as SQLite counts it. The largest is 292 million years away: what has been clamped cannot reach it.
pub(crate) fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn time(ms: i64) -> Result<Duration, Fault> {
    let ms = u64::try_from(ms).map_err(|_| Fault::corrupt("a time is before 1970"))?;
    Ok(Duration::from_millis(ms))
}

/// SQLite's integers have a sign: the same 64 bits.
pub(crate) fn signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

pub(crate) fn blob(row: &Row<'_>, column: usize) -> Result<Option<Bytes>, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
        _ => Err(Fault::corrupt("bytes are of another type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_milliseconds_rounded_up_and_at_most_a_century() {
        let cases = [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_nanos(1), Duration::from_millis(1)),
            (Duration::from_millis(7), Duration::from_millis(7)),
            (Duration::from_micros(7_001), Duration::from_millis(8)),
            (LONGEST, LONGEST),
            (Duration::MAX, LONGEST),
        ];
        for (given, expected) in cases {
            assert_eq!(stored(given), expected, "{given:?}");
        }
    }
}
