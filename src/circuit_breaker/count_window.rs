//! The last so many calls.

use super::packed::untagged;
use super::ring::Ring;
use super::window::{Counts, Sample, Shortcut};
use crate::sync::{AtomicU64, Ordering};

/// The largest window: 1,000,000 calls.
pub(crate) const MAX_SIZE: u32 = 1_000_000;

/// A ring of bits, and how many of them are set.
///
/// A thread records in up to three steps:
///
/// 1. it claims the next place in `head`, by compare-and-swap;
/// 2. it puts its bit there, and learns which bit it replaced;
/// 3. if the two differ, it adds the difference to `sums`, and then touches `head` again.
///
/// Every set bit was added once and is subtracted once, in whatever order threads come to it, so `sums` is what the ring
/// holds as soon as nobody is between two steps. A success that replaces a success ends with step 1: it reads its bit
/// and writes nothing else. And where the ring is full and holds no bit, a success writes nothing at all: whichever place
/// it took, the ring would be the same. So threads that share a healthy breaker only read what they share.
///
/// **Orderings.** A touch releases what was added before it, and a claim acquires it: of a claim and a touch, either the
/// claim comes later and sees what was added, or the touch does and sees what was claimed. So the last of several threads
/// decides over all of their results. `sums` is released and acquired so that whoever sees a failure there finds its
/// claim in `head`: an opening is never decided over fewer calls than failed. The bits publish nothing.
///
/// Between its steps a thread that replaces a failure has it counted still. Of calls that end in the same moment, the
/// window may therefore hold the oldest for a moment too long.
pub(crate) struct CountWindow {
    size: u32,
    head: AtomicU64,
    sums: AtomicU64,
    failed: Ring,
    /// Empty where no rule asks for slow calls.
    slow: Ring,
}

/// Generation, whether the ring has been filled, and the next place.
#[derive(Clone, Copy)]
struct Head {
    generation: u64,
    full: bool,
    place: u32,
}

impl Head {
    const PLACE_BITS: u32 = 20;
    const FULL: u64 = 1 << Self::PLACE_BITS;

    #[inline]
    fn unpack(word: u64) -> Self {
        Self {
            generation: word >> (Self::PLACE_BITS + 1),
            full: word & Self::FULL != 0,
            place: untagged(word & (Self::FULL - 1)),
        }
    }

    #[inline]
    fn pack(self) -> u64 {
        let full = if self.full { Self::FULL } else { 0 };
        self.generation << (Self::PLACE_BITS + 1) | full | u64::from(self.place)
    }

    #[inline]
    fn next(self, size: u32) -> Self {
        let place = self.place + 1;
        if place == size {
            return Self {
                full: true,
                place: 0,
                ..self
            };
        }
        Self { place, ..self }
    }

    #[inline]
    fn is_full_in(self, generation: u64) -> bool {
        self.full && self.generation == generation
    }

    /// Calls in a window whose next place this is.
    #[inline]
    fn calls(self, size: u32) -> u32 {
        if self.full { size } else { self.place }
    }
}

/// The low bits of a generation, and two sums; a sum is below zero while what it lost is known and what it won is not.
#[derive(Clone, Copy)]
struct Sums {
    generation: u64,
    failed: u32,
    slow: u32,
}

impl Sums {
    const SUM_BITS: u32 = 21;
    const SUM: u64 = (1 << Self::SUM_BITS) - 1;

    fn new(generation: u64) -> Self {
        Self {
            generation: generation & (u64::MAX >> (2 * Self::SUM_BITS)),
            failed: 0,
            slow: 0,
        }
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        Self {
            generation: word >> (2 * Self::SUM_BITS),
            failed: untagged(word >> Self::SUM_BITS & Self::SUM),
            slow: untagged(word & Self::SUM),
        }
    }

    #[inline]
    fn pack(self) -> u64 {
        let failed = u64::from(self.failed) & Self::SUM;
        let slow = u64::from(self.slow) & Self::SUM;
        self.generation << (2 * Self::SUM_BITS) | failed << Self::SUM_BITS | slow
    }

    #[inline]
    fn are_zero(word: u64) -> bool {
        word << (u64::BITS - 2 * Self::SUM_BITS) == 0
    }

    /// Neither below zero nor, while somebody has yet to subtract, above the size.
    #[inline]
    fn visible(sum: u32, size: u32) -> u32 {
        let below_zero = sum >> (Self::SUM_BITS - 1) != 0;
        if below_zero { 0 } else { sum.min(size) }
    }
}

impl CountWindow {
    /// `size` is from 1 to [`MAX_SIZE`], which a head has room for.
    pub(crate) fn new(size: u32, with_slow: bool) -> Self {
        Self {
            size,
            head: AtomicU64::new(0),
            sums: AtomicU64::new(0),
            failed: Ring::new(size),
            slow: Ring::new(if with_slow { size } else { 0 }),
        }
    }

    pub(crate) fn begin(&self, generation: u64) {
        let head = Head {
            generation,
            full: false,
            place: 0,
        };
        // Swaps, as a model checker knows for certain what comes before them.
        self.sums.swap(Sums::new(generation).pack(), Ordering::Relaxed);
        self.head.swap(head.pack(), Ordering::Relaxed);
    }

    /// Records a call that was neither failed nor slow: the same as [`record`](Self::record), on a way that most calls
    /// take and that is short.
    #[inline]
    pub(crate) fn record_good(&self, generation: u64) -> Shortcut {
        let mut word = self.head.load(Ordering::Relaxed);
        if Head::unpack(word).is_full_in(generation) && Sums::are_zero(self.sums.load(Ordering::Relaxed)) {
            return Shortcut::Healthy;
        }
        loop {
            let head = Head::unpack(word);
            // Its place may have a bit only if a failure, or another generation, wrote there.
            let replaces_nothing = !self.failed.may_have(head.place) && self.slow.is_empty();
            if head.generation != generation || !replaces_nothing {
                return Shortcut::NotTaken;
            }
            let next = if head.place + 1 == self.size {
                head.next(self.size).pack()
            } else {
                word + 1
            };
            match self
                .head
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(other) => word = other,
            }
        }
        if Sums::are_zero(self.sums.load(Ordering::Relaxed)) {
            Shortcut::Healthy
        } else {
            Shortcut::Recorded
        }
    }

    /// Records one call. `None` where the window holds neither a failure nor a slow call, or is of another generation.
    ///
    /// The counts may hold failures of calls that came after this one, and not those calls. Whoever opens a breaker for
    /// them looks at [`counts`](Self::counts) first.
    #[inline(never)]
    pub(crate) fn record(&self, generation: u64, sample: Sample) -> Option<Counts> {
        let mut word = self.head.load(Ordering::Relaxed);
        let (claimed, next) = loop {
            let head = Head::unpack(word);
            if head.generation != generation {
                return None;
            }
            let next = head.next(self.size);
            match self
                .head
                .compare_exchange_weak(word, next.pack(), Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => break (head.place, next),
                Err(other) => word = other,
            }
        };
        let failed_before = self.failed.replace(claimed, generation, sample.failed)?;
        let slow_before = self.slow.replace(claimed, generation, sample.slow)?;
        let before = Sample {
            failed: failed_before,
            slow: slow_before,
        };
        if before != sample {
            return self.settle(generation, before, sample);
        }
        let word = self.sums.load(Ordering::Relaxed);
        if Sums::are_zero(word) {
            return None;
        }
        self.counted(next, generation, word)
    }

    /// The third step.
    #[inline(never)]
    fn settle(&self, generation: u64, before: Sample, after: Sample) -> Option<Counts> {
        let add =
            |sum: u32, before: bool, after: bool| sum.wrapping_add(u32::from(after)).wrapping_sub(u32::from(before));
        let mut word = self.sums.load(Ordering::Relaxed);
        let settled = loop {
            let sums = Sums::unpack(word);
            if sums.generation != Sums::new(generation).generation {
                return None;
            }
            let next = Sums {
                generation: sums.generation,
                failed: add(sums.failed, before.failed, after.failed),
                slow: add(sums.slow, before.slow, after.slow),
            };
            match self
                .sums
                .compare_exchange_weak(word, next.pack(), Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => break next.pack(),
                Err(other) => word = other,
            }
        };
        // A load could miss a claim made at the same time, by a thread that misses what was just added.
        let head = Head::unpack(self.head.fetch_or(0, Ordering::Release));
        self.counted(head, generation, settled)
    }

    #[inline(never)]
    fn counted(&self, head: Head, generation: u64, sums: u64) -> Option<Counts> {
        let sums = Sums::unpack(sums);
        let current = head.generation == generation && sums.generation == Sums::new(generation).generation;
        current.then(|| Counts {
            calls: head.calls(self.size),
            failed: Sums::visible(sums.failed, self.size),
            slow: Sums::visible(sums.slow, self.size),
        })
    }

    pub(crate) fn counts(&self, generation: u64) -> Counts {
        let sums = self.sums.load(Ordering::Acquire);
        let head = Head::unpack(self.head.load(Ordering::Relaxed));
        self.counted(head, generation, sums).unwrap_or_default()
    }

    /// The calls, oldest first. Exact where nothing is being recorded.
    pub(crate) fn samples(&self, generation: u64) -> Vec<Sample> {
        let head = Head::unpack(self.head.load(Ordering::Acquire));
        if head.generation != generation {
            return Vec::new();
        }
        let (oldest, newest) = if head.full {
            (head.place..self.size, 0..head.place)
        } else {
            (0..0, 0..head.place)
        };
        let at = |place| Sample {
            failed: self.failed.get(place, generation),
            slow: self.slow.get(place, generation),
        };
        oldest.chain(newest).map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Sample = Sample {
        failed: true,
        slow: false,
    };
    const GOOD: Sample = Sample {
        failed: false,
        slow: false,
    };

    fn window(size: u32, generation: u64) -> CountWindow {
        let window = CountWindow::new(size, false);
        window.begin(generation);
        window
    }

    /// Calls and failures.
    fn counts(window: &CountWindow, generation: u64) -> (u32, u32) {
        let Counts { calls, failed, .. } = window.counts(generation);
        (calls, failed)
    }

    #[test]
    fn a_failure_weighs_less_with_each_call_and_then_slides_out() {
        let window = window(4, 1);
        let after = [FAILED, GOOD, GOOD, GOOD, GOOD].map(|sample| {
            let _ = window.record(1, sample);
            counts(&window, 1)
        });
        assert_eq!(after, [(1, 1), (2, 1), (3, 1), (4, 1), (4, 0)]);
    }

    #[test]
    fn a_window_without_failures_computes_nothing() {
        let window = window(2, 1);
        assert_eq!([GOOD, GOOD, GOOD].map(|sample| window.record(1, sample)), [None; 3]);
        assert!(window.record(1, FAILED).is_some());
        // Beside the failure, in its place, and in a window that holds none any more.
        assert!(window.record(1, GOOD).is_some());
        assert!(window.record(1, GOOD).is_some());
        assert_eq!(window.record(1, GOOD), None);
    }

    #[test]
    fn a_call_can_be_slow_and_failed() {
        let window = CountWindow::new(2, true);
        window.begin(1);
        let slow = Sample { slow: true, ..GOOD };
        for sample in [Sample { slow: true, ..FAILED }, slow, GOOD] {
            let _ = window.record(1, sample);
        }
        let counted = Counts {
            calls: 2,
            failed: 0,
            slow: 1,
        };
        assert_eq!(window.counts(1), counted);
        assert_eq!(window.samples(1), [slow, GOOD]);
    }

    #[test]
    fn a_sum_that_is_off_for_a_moment_is_none_or_all() {
        let minus_one = 0_u32.wrapping_sub(1);
        let packed = Sums {
            generation: 5,
            failed: minus_one,
            slow: 7,
        };
        let sums = Sums::unpack(packed.pack());
        assert_eq!((sums.generation, sums.slow), (5, 7));
        assert_eq!(Sums::visible(sums.failed, MAX_SIZE), 0);
        let settled = Sums {
            failed: sums.failed.wrapping_add(1),
            ..sums
        };
        assert_eq!(Sums::unpack(settled.pack()).failed, 0);
        assert_eq!([Sums::visible(4, 4), Sums::visible(5, 4)], [4, 4]);
        assert_eq!(Sums::visible(MAX_SIZE, MAX_SIZE), MAX_SIZE);
    }

    #[test]
    fn a_generation_begins_empty_also_where_its_tags_wrap_around() {
        for tags in [1_u64 << 22, 1 << 32, 1 << 42] {
            let before = (tags - 1).saturating_sub(1 << 30).max(1);
            let window = window(3, before);
            let _ = window.record(before, FAILED);
            for generation in tags - 1..=tags + 1 {
                window.begin(generation);
                assert_eq!(counts(&window, generation), (0, 0));
                let _ = window.record(generation, FAILED);
                // One that was given out before.
                assert_eq!(window.record(generation - 1, FAILED), None);
                let _ = window.record(generation, GOOD);
                assert_eq!(counts(&window, generation), (2, 1));
                assert_eq!(counts(&window, generation - 1), (0, 0));
                assert_eq!(window.samples(generation), [FAILED, GOOD]);
                assert_eq!(window.samples(generation - 1), []);
            }
        }
    }

    #[test]
    fn a_head_and_sums_of_different_generations_say_nothing() {
        let window = window(3, 2);
        let head = |generation| Head {
            generation,
            full: true,
            place: 0,
        };
        let sums = |generation| Sums::new(generation).pack();
        assert!(window.counted(head(2), 2, sums(2)).is_some());
        assert_eq!(window.counted(head(3), 2, sums(2)), None);
        assert_eq!(window.counted(head(2), 2, sums(3)), None);
    }

    #[test]
    fn a_result_that_is_late_by_one_step_is_dropped_there() {
        let window = window(1, 2);
        let _ = window.record(2, FAILED);
        assert_eq!(window.failed.replace(0, 1, true), None);
        assert_eq!(window.settle(1, GOOD, FAILED), None);
        assert_eq!(counts(&window, 2), (1, 1));
    }

    #[test]
    fn the_largest_window_can_be_full_of_failures_and_empty_of_them() {
        let window = window(MAX_SIZE, 1);
        for _ in 0..MAX_SIZE {
            let _ = window.record(1, FAILED);
        }
        assert_eq!(counts(&window, 1), (MAX_SIZE, MAX_SIZE));
        let _ = window.record(1, GOOD);
        assert_eq!(counts(&window, 1), (MAX_SIZE, MAX_SIZE - 1));
        for _ in 1..MAX_SIZE {
            let _ = window.record(1, GOOD);
        }
        assert_eq!(counts(&window, 1), (MAX_SIZE, 0));
    }
}
