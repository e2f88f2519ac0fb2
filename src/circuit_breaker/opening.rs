//! How long a breaker stays open.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::nanos;
use crate::curve::{Curve, Progress};
use crate::random::{Random, seed};

/// Where the schedule of open times stands. It is asked by whoever holds the lock of the breaker, so nobody waits here.
pub(crate) struct Opening {
    curve: Curve,
    longest: Duration,
    use_retry_after: bool,
    session: Mutex<Session>,
}

struct Session {
    /// Openings that were drawn for.
    drawn: u32,
    progress: Progress,
    random: Random,
}

impl Opening {
    pub(crate) fn new(curve: Curve, longest: Duration, use_retry_after: bool, chosen: Option<u64>) -> Self {
        let session = Session {
            drawn: 0,
            progress: Progress::default(),
            random: Random::stream(chosen.unwrap_or_else(seed), 0),
        };
        Self {
            curve,
            longest,
            use_retry_after,
            session: Mutex::new(session),
        }
    }

    /// Nanoseconds for the opening that is the `openings`-th in a row.
    pub(crate) fn open_for(&self, openings: u32, retry_after: Option<Duration>) -> u64 {
        let asked = retry_after.filter(|wait| self.use_retry_after && !wait.is_zero());
        let time = asked.unwrap_or_else(|| self.draw(openings));
        nanos(time.min(self.longest))
    }

    /// The longest open time, in nanoseconds.
    pub(crate) fn longest(&self) -> u64 {
        nanos(self.longest)
    }

    fn draw(&self, openings: u32) -> Duration {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Session {
            drawn,
            progress,
            random,
        } = &mut *session;
        let before = openings.saturating_sub(1);
        if *drawn != before {
            // Closed meanwhile, restored, or opened for as long as the dependency asked.
            *progress = Progress::after(before);
        }
        *drawn = openings;
        self.curve.next(progress, || random.unit()).unwrap_or(self.longest)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("curve", &self.curve)
            .field("longest", &self.longest)
            .field("use_retry_after", &self.use_retry_after)
            .finish_non_exhaustive()
    }
}
