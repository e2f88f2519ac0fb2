//! How long a breaker stays open.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::nanos;
use crate::curve::{Curve, Progress};
use crate::random::Random;

/// How long each opening lasts.
#[derive(Debug)]
pub(crate) struct Opening {
    times: Times,
    longest: Duration,
    use_retry_after: bool,
}

#[derive(Debug)]
enum Times {
    Fixed(Duration),
    Drawn(Box<Drawn>),
}

/// Open times by a schedule. It is asked by whoever holds the lock of the breaker, so nobody waits here.
struct Drawn {
    curve: Curve,
    session: Mutex<Session>,
}

struct Session {
    /// Openings that were drawn for.
    drawn: u32,
    progress: Progress,
    random: Random,
}

impl Opening {
    pub(crate) fn new(curve: Curve, longest: Duration, use_retry_after: bool, random: impl FnOnce() -> Random) -> Self {
        let times = curve.fixed().map_or_else(
            || {
                let session = Mutex::new(Session {
                    drawn: 0,
                    progress: Progress::default(),
                    random: random(),
                });
                Times::Drawn(Box::new(Drawn { curve, session }))
            },
            Times::Fixed,
        );
        Self {
            times,
            longest,
            use_retry_after,
        }
    }

    /// Nanoseconds for the opening that is the `openings`-th in a row.
    pub(crate) fn open_for(&self, openings: u32, retry_after: Option<Duration>) -> u64 {
        let asked = retry_after.filter(|wait| self.use_retry_after && !wait.is_zero());
        let time = asked.unwrap_or_else(|| match &self.times {
            Times::Fixed(time) => *time,
            Times::Drawn(drawn) => drawn.next(openings).unwrap_or(self.longest),
        });
        nanos(time.min(self.longest))
    }

    /// The longest open time, in nanoseconds.
    pub(crate) fn longest(&self) -> u64 {
        nanos(self.longest)
    }
}

impl Drawn {
    fn next(&self, openings: u32) -> Option<Duration> {
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
        self.curve.next(progress, || random.unit())
    }
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drawn")
            .field("curve", &self.curve)
            .finish_non_exhaustive()
    }
}
