//! The calls of the last so much time.

use std::num::NonZeroU64;

use super::packed::{age, tagged, untagged};
use super::window::{Counts, Past, Sample, Shortcut};
use crate::sync::{AtomicU64, Ordering};

/// Into how many parts a window is divided: it slides by one of them. 10.
///
/// One tenth is what a window can be too long by, and ten words are quick to add up.
pub(crate) const BUCKETS: u32 = 10;

/// A ring of counters, one for each tenth of the window.
///
/// Time is counted in buckets, from the making of the breaker on. A bucket's place in the ring is its number modulo ten,
/// and what it counts is under the number of its turn: a counter of an earlier turn is known as such, and begins anew. A
/// new generation skips two whole turns, so that all earlier buckets lie behind its window, also that of a thread whose
/// clock is ahead.
///
/// A thread counts its call first, then its failure or slow call, then notes the bucket in `unhealthy`, and then touches
/// the count of calls again.
///
/// **Orderings.** As in a count window: of several threads in one bucket the last to be done sees what the others
/// counted, because its operation on the count of calls acquires what theirs released. Failures and slow calls in
/// different buckets meet in `unhealthy` in the same way. A success may miss a failure that another thread records at the
/// same time in an earlier bucket, and be missed by it; the next call sees both.
pub(crate) struct TimeWindow {
    /// Nanoseconds in a bucket.
    width: NonZeroU64,
    /// Apart, so that a breaker without them is smaller.
    buckets: Box<[Bucket; 10]>,
    /// The last bucket that counted a failure or a slow call.
    unhealthy: AtomicU64,
}

/// The number of the turn, and a count; 32 bits each.
#[derive(Default)]
struct Bucket {
    calls: Counter,
    failed: Counter,
    slow: Counter,
}

#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount` in `turn`; `None` if a later one has begun.
    #[inline]
    fn add(&self, turn: u64, amount: u32) -> Option<()> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let count = match age(word, turn) {
                0 => untagged(word),
                1.. => 0,
                _ => return None,
            };
            let next = tagged(turn, count.saturating_add(amount));
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Some(()),
                Err(other) => word = other,
            }
        }
    }

    /// What was counted in `turn`; `None` outside it.
    fn in_turn(&self, turn: u64) -> Option<u32> {
        let word = self.0.load(Ordering::Acquire);
        (age(word, turn) == 0).then(|| untagged(word))
    }
}

impl Bucket {
    /// What was counted in `turn`.
    ///
    /// Calls are read last, and if another turn has begun, nothing is: no more calls have failed than there were.
    fn counts(&self, turn: u64) -> Counts {
        let (failed, slow) = (self.failed.in_turn(turn), self.slow.in_turn(turn));
        let counts = self.calls.in_turn(turn).map(|calls| Counts {
            calls,
            failed: failed.unwrap_or(0),
            slow: slow.unwrap_or(0),
        });
        counts.unwrap_or_default()
    }
}

impl TimeWindow {
    /// `length` is the whole window, in nanoseconds, at least one for each bucket.
    pub(crate) fn new(length: u64) -> Self {
        Self {
            width: NonZeroU64::new(length.div_ceil(u64::from(BUCKETS))).unwrap_or(NonZeroU64::MIN),
            buckets: Box::default(),
            unhealthy: AtomicU64::new(0),
        }
    }

    /// The bucket of `now`.
    #[inline]
    fn number(&self, generation: u64, now: u64) -> u64 {
        now / self.width + generation.wrapping_mul(2 * u64::from(BUCKETS))
    }

    #[inline]
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "less than ten")]
    fn place(number: u64) -> usize {
        (number % u64::from(BUCKETS)) as usize
    }

    #[inline]
    fn turn(number: u64) -> u64 {
        number / u64::from(BUCKETS)
    }

    /// Records one call. `None` where the window holds neither a failure nor a slow call, or time has passed it by.
    pub(crate) fn record(&self, generation: u64, sample: Sample, now: u64) -> Option<Counts> {
        let number = self.number(generation, now);
        let turn = Self::turn(number);
        let bucket = &self.buckets[Self::place(number)];
        bucket.calls.add(turn, 1)?;
        if sample.failed || sample.slow {
            return self.settle(number, sample);
        }
        if self.unhealthy.load(Ordering::Acquire) + u64::from(BUCKETS) <= number {
            return None;
        }
        Some(self.sum(number))
    }

    /// Records a call that was neither failed nor slow: the same as [`record`](Self::record), on a way that most calls
    /// take and that is short.
    #[inline]
    pub(crate) fn record_good(&self, generation: u64, now: u64) -> Shortcut {
        let number = self.number(generation, now);
        let calls = &self.buckets[Self::place(number)].calls.0;
        let word = calls.load(Ordering::Relaxed);
        // A count that cannot overflow into its turn, and a bucket that has been begun.
        if age(word, Self::turn(number)) != 0 || untagged(word) == u32::MAX {
            return Shortcut::NotTaken;
        }
        let counted = calls.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
        if counted.is_err() {
            return Shortcut::NotTaken;
        }
        if self.unhealthy.load(Ordering::Acquire) + u64::from(BUCKETS) <= number {
            Shortcut::Healthy
        } else {
            Shortcut::Recorded
        }
    }

    #[inline(never)]
    fn settle(&self, number: u64, sample: Sample) -> Option<Counts> {
        let turn = Self::turn(number);
        let bucket = &self.buckets[Self::place(number)];
        if sample.failed {
            bucket.failed.add(turn, 1)?;
        }
        if sample.slow {
            bucket.slow.add(turn, 1)?;
        }
        // Of two failures in different buckets the later to come here sees the other.
        let latest = self.unhealthy.fetch_max(number, Ordering::AcqRel).max(number);
        bucket.calls.add(turn, 0)?;
        Some(self.sum(latest))
    }

    #[inline(never)]
    fn sum(&self, last: u64) -> Counts {
        let mut counts = Counts::default();
        for (number, bucket) in self.live(last) {
            let Counts { calls, failed, slow } = bucket.counts(Self::turn(number));
            counts.calls = counts.calls.saturating_add(calls);
            counts.failed = counts.failed.saturating_add(failed);
            counts.slow = counts.slow.saturating_add(slow);
        }
        counts
    }

    /// The buckets of the window that ends with `last`, each with its number; the oldest first.
    fn live(&self, last: u64) -> impl Iterator<Item = (u64, &Bucket)> {
        let first = (last + 1).saturating_sub(u64::from(BUCKETS));
        (first..=last).map(|number| (number, &self.buckets[Self::place(number)]))
    }

    pub(crate) fn counts(&self, generation: u64, now: u64) -> Counts {
        self.sum(self.number(generation, now))
    }

    /// What is in the buckets, the oldest first; of each the age that it had reached when it ended.
    pub(crate) fn samples(&self, generation: u64, now: u64) -> Vec<Past> {
        let last = self.number(generation, now);
        let of = |(number, bucket): (u64, &Bucket)| Past {
            age: (last - number) * self.width.get(),
            counts: bucket.counts(Self::turn(number)),
        };
        self.live(last).map(of).filter(|past| past.counts.calls > 0).collect()
    }

    /// Puts calls of the past into their buckets; those that are too old are left out.
    pub(crate) fn fill(&self, generation: u64, now: u64, past: impl Iterator<Item = Past>) {
        let last = self.number(generation, now);
        for Past { age, counts } in past {
            let buckets_ago = age / self.width;
            if buckets_ago >= u64::from(BUCKETS) {
                continue;
            }
            let number = last - buckets_ago;
            let turn = Self::turn(number);
            let bucket = &self.buckets[Self::place(number)];
            let counters = [
                (&bucket.calls, counts.calls),
                (&bucket.failed, counts.failed),
                (&bucket.slow, counts.slow),
            ];
            for (counter, count) in counters {
                // Nobody knows this generation yet, and none is younger.
                let _ = counter.add(turn, count);
            }
            if counts.failed > 0 || counts.slow > 0 {
                self.unhealthy.fetch_max(number, Ordering::AcqRel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;
    const FAILED: Sample = Sample {
        failed: true,
        slow: false,
    };
    const GOOD: Sample = Sample::GOOD;

    /// Calls and failures.
    fn counts(window: &TimeWindow, generation: u64, now: u64) -> (u32, u32) {
        let Counts { calls, failed, .. } = window.counts(generation, now);
        (calls, failed)
    }

    #[test]
    fn calls_slide_out_a_window_after_they_came() {
        let window = TimeWindow::new(5 * S);
        for at in [0, 400 * MS, 800 * MS] {
            let _ = window.record(1, FAILED, at);
        }
        let after = [800 * MS, 4_800 * MS, 5_800 * MS].map(|now| counts(&window, 1, now));
        assert_eq!(after, [(3, 3), (3, 3), (0, 0)]);
    }

    #[test]
    fn a_bucket_ends_at_its_edge() {
        let window = TimeWindow::new(5 * S);
        let _ = window.record(1, FAILED, 500 * MS - 1);
        let _ = window.record(1, GOOD, 500 * MS);
        let after = [5 * S - 1, 5 * S, 5_500 * MS - 1, 5_500 * MS].map(|now| counts(&window, 1, now));
        assert_eq!(after, [(2, 1), (1, 0), (1, 0), (0, 0)]);
    }

    #[test]
    fn a_window_without_failures_computes_nothing() {
        let window = TimeWindow::new(5 * S);
        assert_eq!(window.record(1, GOOD, 0), None);
        assert!(window.record(1, FAILED, S).is_some());
        assert!(window.record(1, GOOD, 6 * S - 1).is_some());
        assert_eq!(window.record(1, GOOD, 6 * S), None);
    }

    #[test]
    fn a_turn_begins_where_the_one_before_was_counted() {
        let window = TimeWindow::new(5 * S);
        let _ = window.record(1, FAILED, 0);
        let _ = window.record(1, GOOD, 5 * S);
        assert_eq!(counts(&window, 1, 5 * S), (1, 0));
        // A thread whose clock is a turn behind.
        assert_eq!(window.record(1, FAILED, 0), None);
        assert_eq!(counts(&window, 1, 5 * S), (1, 0));
        assert_eq!(counts(&window, 1, 0), (0, 0));
    }

    #[test]
    fn a_failure_sees_what_has_failed_in_a_later_bucket() {
        let window = TimeWindow::new(5 * S);
        let _ = window.record(1, FAILED, 600 * MS);
        let seen = window.record(1, FAILED, 400 * MS).unwrap();
        assert_eq!((seen.calls, seen.failed), (2, 2));
    }

    #[test]
    fn a_generation_begins_empty() {
        let window = TimeWindow::new(5 * S);
        let _ = window.record(1, FAILED, 5 * S);
        // A thread whose clock is a whole window ahead.
        let _ = window.record(1, FAILED, 10 * S);
        assert_eq!(counts(&window, 2, 5 * S), (0, 0));
        assert_eq!(window.record(2, GOOD, 5 * S), None);
        assert_eq!(counts(&window, 2, 5 * S), (1, 0));
    }

    #[test]
    fn turns_wrap_around() {
        let window = TimeWindow::new(10 * MS);
        let around = ((1 << 32) * u64::from(BUCKETS) - 2 * u64::from(BUCKETS)) * MS;
        for at in 0..u64::from(BUCKETS) {
            let _ = window.record(1, FAILED, around / 2 + at * MS);
        }
        let _ = window.record(1, FAILED, around - MS);
        let _ = window.record(1, FAILED, around);
        assert_eq!(counts(&window, 1, around), (2, 2));
        assert_eq!(counts(&window, 1, around + 9 * MS), (1, 1));
        assert_eq!(counts(&window, 1, around + 10 * MS), (0, 0));
    }

    #[test]
    fn a_failure_after_years_of_health_is_counted() {
        let window = TimeWindow::new(10 * MS);
        let _ = window.record(1, FAILED, 0);
        let half_around = (1 << 31) * 10 * MS;
        for later in [half_around + 20 * MS, half_around + half_around / 2] {
            assert!(window.record(1, FAILED, later).is_some());
            assert_eq!(counts(&window, 1, later), (1, 1));
        }
    }

    #[test]
    fn what_was_kept_comes_back_in_its_place_unless_it_is_too_old() {
        let window = TimeWindow::new(5 * S);
        let past = |age| Past {
            age,
            counts: Counts {
                calls: 3,
                failed: 1,
                slow: 0,
            },
        };
        let kept = [past(u64::MAX), past(5 * S), past(5 * S - 1), past(0)];
        window.fill(2, 0, kept.into_iter());
        assert_eq!(counts(&window, 2, 0), (6, 2));
        assert_eq!(counts(&window, 2, 500 * MS), (3, 1));
        assert_eq!(window.samples(2, 500 * MS), [past(500 * MS)]);
    }

    #[test]
    fn a_success_after_a_restore_computes_where_something_failed_or_was_slow() {
        let computes = |failed, slow| {
            let window = TimeWindow::new(5 * S);
            let counts = Counts { calls: 1, failed, slow };
            window.fill(2, 0, std::iter::once(Past { age: 0, counts }));
            window.record(2, GOOD, 0).is_some()
        };
        assert_eq!(
            [computes(0, 0), computes(1, 0), computes(0, 1), computes(1, 1)],
            [false, true, true, true]
        );
    }

    #[test]
    fn the_longest_window_holds_everything() {
        let window = TimeWindow::new(u64::MAX);
        let _ = window.record(1, FAILED, 0);
        let _ = window.record(1, FAILED, u64::MAX);
        assert_eq!(counts(&window, 1, u64::MAX), (2, 2));
        assert_eq!(window.samples(1, u64::MAX).len(), 2);
    }
}
