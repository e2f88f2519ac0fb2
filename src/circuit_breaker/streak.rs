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
