//! The calls of the last so much time.

use super::packed::{age, tagged, untagged};
use super::window::{Counts, Past, Sample};
use crate::sync::{AtomicU64, Ordering};

/// Into how many parts a window is divided: it slides by one of them. 10.
///
/// One tenth is what a window can be too long by, and ten words are quick to add up.
pub(crate) const BUCKETS: u32 = 10;

/// A ring of counters, one for each tenth of the window.
///
/// Time is counted in buckets, from the making of the breaker on. A bucket's place in the ring is its number modulo ten,
/// and what it counts is under the number of its turn: a counter of an earlier turn is known as such, and begins anew. A
/// new generation skips one whole turn, so that all earlier buckets lie behind its window.
///
/// A thread counts its call first, then its failure, and then touches the count of calls again.
///
/// **Orderings.** As in a count window: of several threads in one bucket the last to be done sees what the others
/// counted, because its operation on the count of calls acquires what theirs released. Two that record in different
/// buckets, in the moment in which the one ends and the other begins, may miss each other; the next call sees both.
pub(crate) struct TimeWindow {
    /// Nanoseconds in a bucket.
    width: u64,
    buckets: [Bucket; 10],
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

    fn in_turn(&self, turn: u64) -> u32 {
        let word = self.0.load(Ordering::Acquire);
        if age(word, turn) == 0 { untagged(word) } else { 0 }
    }
}

impl TimeWindow {
    /// `length` is the whole window, in nanoseconds, at least one for each bucket.
    pub(crate) fn new(length: u64) -> Self {
        Self {
            width: length.div_ceil(u64::from(BUCKETS)),
            buckets: Default::default(),
            unhealthy: AtomicU64::new(0),
        }
    }

    /// The bucket of `now`.
    #[inline]
    fn number(&self, generation: u64, now: u64) -> u64 {
        now / self.width + generation.wrapping_mul(u64::from(BUCKETS))
    }

    #[inline]
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "less than ten")]
    fn place(number: u64) -> usize {
        (number % u64::from(BUCKETS)) as usize
    }

    /// Records one call. `None` where the window holds neither a failure nor a slow call, or time has passed it by.
    #[inline]
    pub(crate) fn record(&self, generation: u64, sample: Sample, now: u64) -> Option<Counts> {
        let number = self.number(generation, now);
        let turn = number / u64::from(BUCKETS);
        let bucket = &self.buckets[Self::place(number)];
        bucket.calls.add(turn, 1)?;
        if sample.failed || sample.slow {
            self.settle(number, sample)?;
        } else if self.unhealthy.load(Ordering::Acquire) + u64::from(BUCKETS) <= number {
            return None;
        }
        Some(self.sum(number))
    }

    #[inline(never)]
    fn settle(&self, number: u64, sample: Sample) -> Option<()> {
        let turn = number / u64::from(BUCKETS);
        let bucket = &self.buckets[Self::place(number)];
        if sample.failed {
            bucket.failed.add(turn, 1)?;
        }
        if sample.slow {
            bucket.slow.add(turn, 1)?;
        }
        self.unhealthy.fetch_max(number, Ordering::AcqRel);
        bucket.calls.add(turn, 0)
    }

    #[inline(never)]
    fn sum(&self, last: u64) -> Counts {
        let mut counts = Counts::default();
        for (number, bucket) in self.live(last) {
            let turn = number / u64::from(BUCKETS);
            let add = |sum: u32, counter: &Counter| sum.saturating_add(counter.in_turn(turn));
            // Failures before calls: a call that is counted meanwhile must not be missing below the line.
            counts.failed = add(counts.failed, &bucket.failed);
            counts.slow = add(counts.slow, &bucket.slow);
            counts.calls = add(counts.calls, &bucket.calls);
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
        let of = |(number, bucket): (u64, &Bucket)| {
            let turn = number / u64::from(BUCKETS);
            Past {
                age: (last - number) * self.width,
                counts: Counts {
                    calls: bucket.calls.in_turn(turn),
                    failed: bucket.failed.in_turn(turn),
                    slow: bucket.slow.in_turn(turn),
                },
            }
        };
        self.live(last).map(of).filter(|past| past.counts.calls > 0).collect()
    }

    /// Puts calls of the past into their buckets; those that are too old are left out.
    pub(crate) fn fill(&self, generation: u64, now: u64, past: &[Past]) {
        let last = self.number(generation, now);
        for Past { age, counts } in past {
            let buckets_ago = age / self.width;
            if buckets_ago >= u64::from(BUCKETS) {
                continue;
            }
            let number = last - buckets_ago;
            let turn = number / u64::from(BUCKETS);
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
