//! Failures in a row.

use super::packed::{age, tagged, untagged};
use crate::sync::{AtomicU64, Ordering};

/// The number of failures since the last success: a word of generation and length, 32 bits each.
pub(crate) struct Streak(AtomicU64);

impl Streak {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn begin(&self, generation: u64) {
        self.set(generation, 0);
    }

    pub(crate) fn set(&self, generation: u64, length: u32) {
        // A swap, as a model checker knows for certain what comes before it.
        self.0.swap(tagged(generation, length), Ordering::Relaxed);
    }

    /// The length after this result; 0 for one that came too late to count.
    ///
    /// A success after a success writes nothing.
    #[inline]
    pub(crate) fn record(&self, generation: u64, failed: bool) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let length = untagged(word);
            if age(word, generation) != 0 || (length == 0 && !failed) {
                return 0;
            }
            let next = if failed { length.saturating_add(1) } else { 0 };
            match self
                .0
                .compare_exchange_weak(word, tagged(generation, next), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return next,
                Err(other) => word = other,
            }
        }
    }

    pub(crate) fn length(&self, generation: u64) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        if age(word, generation) == 0 { untagged(word) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_a_streak_and_another_changes_nothing() {
        let streak = Streak::new();
        streak.begin(1);
        let lengths = [true, true, false, false, true].map(|failed| streak.record(1, failed));
        assert_eq!(lengths, [1, 2, 0, 0, 1]);
    }

    #[test]
    fn a_late_result_neither_lengthens_a_streak_nor_ends_it() {
        let streak = Streak::new();
        streak.set(2, 3);
        assert_eq!([streak.record(1, true), streak.record(1, false)], [0, 0]);
        assert_eq!((streak.length(1), streak.length(2)), (0, 3));
    }

    #[test]
    fn a_streak_grows_no_longer_than_it_can_say() {
        let streak = Streak::new();
        streak.set(1, u32::MAX);
        assert_eq!(streak.record(1, true), u32::MAX);
    }
}
