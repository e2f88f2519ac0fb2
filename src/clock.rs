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
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
