//! The time of a file: milliseconds since 1970, by the machine's clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

/// A clock that never goes back, though the machine's may: a lease that was over stays over.
///
/// Where the machine's clock is set back, time stands still until it has caught up. A lease then ends late, which is the
/// safe side.
#[derive(Clone)]
pub(crate) struct Clock {
    read: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The largest time that was read. It publishes nothing else: relaxed.
    floor: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's clock; all users of it in this process share its floor.
    pub(crate) fn system() -> Self {
        static SYSTEM: LazyLock<Clock> = LazyLock::new(|| {
            Clock::new(|| {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            })
        });
        SYSTEM.clone()
    }

    pub(crate) fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            read: Arc::new(read),
            floor: Arc::new(AtomicU64::new(0)),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        let read = (self.read)();
        let floor = self.floor.fetch_max(read, Ordering::Relaxed);
        Duration::from_millis(read.max(floor))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_while_the_machine_s_clock_is_behind() {
        let machine = Arc::new(AtomicU64::new(1_000));
        let read = Arc::clone(&machine);
        let clock = Clock::new(move || read.load(Ordering::Relaxed));
        let times = [1_000, 400, 999, 1_000, 1_001].map(|at| {
            machine.store(at, Ordering::Relaxed);
            clock.clone().now().as_millis()
        });
        assert_eq!(times, [1_000, 1_000, 1_000, 1_000, 1_001]);
    }
}
