//! When a writer leaves the file for a while, so that others have their turn.

use std::time::{Duration, Instant};

/// How long one writer has the file before it leaves it for a [`GAP`].
const STRETCH: Duration = Duration::from_millis(50);

/// The same where it had to wait for the file: others want it too, and each of them has to be the first to look.
const SHARED_STRETCH: Duration = Duration::from_millis(10);

/// Longer than anybody who waits sleeps between two looks, so that the file is found free; 3 % of a stretch.
const GAP: Duration = Duration::from_micros(1_500);

/// Since when the file has been this writer's, without a gap in which somebody else could have had it.
///
/// ```text
///   |transaction|transaction|transaction|   GAP   |transaction| ..
///   |<------------ STRETCH ------------>|
/// ```
#[derive(Debug)]
pub(super) struct Shift {
    since: Instant,
    /// The end of the last transaction.
    left: Instant,
    stretch: Duration,
    /// Somebody else had the file at the last look.
    refused: bool,
}

impl Shift {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            left: now,
            stretch: STRETCH,
            refused: false,
        }
    }

    /// How much longer the file has to be left alone.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        if self.left.duration_since(self.since) < self.stretch {
            return Duration::ZERO;
        }
        GAP.saturating_sub(now.duration_since(self.left))
    }

    pub(super) fn is_refused(&mut self) {
        self.refused = true;
    }

    pub(super) fn begins(&mut self, now: Instant) {
        if self.refused || now.duration_since(self.left) >= GAP {
            self.since = now;
            self.stretch = if self.refused { SHARED_STRETCH } else { STRETCH };
            self.refused = false;
        }
    }

    pub(super) fn ends(&mut self, now: Instant) {
        self.left = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::now;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const REST_OF_GAP: Duration = Duration::from_micros(500);

    /// Transactions of 1 ms each, one after the other, until it has to rest: how many.
    fn transactions(shift: &mut Shift, at: &mut Instant) -> u32 {
        for n in 0..1_000 {
            if !shift.rest(*at).is_zero() {
                return n;
            }
            shift.begins(*at);
            *at += MS;
            shift.ends(*at);
        }
        unreachable!("it never rests")
    }

    #[test]
    fn a_writer_without_a_pause_rests_after_each_stretch_and_goes_on_after_the_gap() {
        let mut at = now();
        let mut shift = Shift::new(at);
        for _ in 0..3 {
            assert_eq!(transactions(&mut shift, &mut at), 50);
            assert_eq!(shift.rest(at), GAP);
            at += MS;
            assert_eq!(shift.rest(at), REST_OF_GAP);
            at += REST_OF_GAP;
        }
    }

    #[test]
    fn one_that_had_to_wait_has_a_shorter_stretch_and_the_next_is_a_full_one() {
        let mut at = now();
        let mut shift = Shift::new(at);
        assert_eq!(transactions(&mut shift, &mut at), 50);
        at += GAP;
        shift.is_refused();
        at += 30 * MS;
        assert_eq!(transactions(&mut shift, &mut at), 10);
        at += GAP;
        assert_eq!(transactions(&mut shift, &mut at), 50);
    }

    #[test]
    fn a_pause_for_the_want_of_work_is_a_gap_and_a_shorter_one_is_none() {
        let mut at = now();
        let mut shift = Shift::new(at);
        for pause in [MS, GAP] {
            for _ in 0..49 {
                assert!(shift.rest(at).is_zero());
                shift.begins(at);
                at += MS;
                shift.ends(at);
            }
            at += pause;
            if pause >= GAP {
                assert_eq!(transactions(&mut shift, &mut at), 50);
            } else {
                // The pause was not long enough, and counts as work.
                assert_eq!(transactions(&mut shift, &mut at), 1);
                at += GAP;
            }
        }
    }

    #[test]
    fn one_transaction_longer_than_a_stretch_is_followed_by_a_gap() {
        let mut at = now();
        let mut shift = Shift::new(at);
        shift.begins(at);
        at += 300 * MS;
        shift.ends(at);
        assert_eq!(shift.rest(at), GAP);
    }
}
