//! The far end of tokio's clock.

use std::time::Duration;

use tokio::time::Instant;

/// What counts as for ever: 30 years. A longer time may not fit the clock.
pub(crate) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment `wait` from now, or for ever.
pub(crate) fn after(wait: Duration) -> Instant {
    Instant::now() + wait.min(FOREVER)
}

/// A time in nanoseconds; what does not fit is 584 years.
#[inline]
pub(crate) fn nanos(time: Duration) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    time.as_secs()
        .saturating_mul(SECOND)
        .saturating_add(u64::from(time.subsec_nanos()))
}
