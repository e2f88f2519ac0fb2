//! A bit for each call of a count window.

use super::packed::{age, tagged, untagged};
use crate::sync::{AtomicU64, Ordering};

/// Bits in words of 32, each under the generation that last wrote to it: of one before that, no bit is set.
pub(crate) struct Ring(Box<[AtomicU64]>);

impl Ring {
    const BITS: u32 = u32::BITS;

    pub(crate) fn new(bits: u32) -> Self {
        Self((0..bits.div_ceil(Self::BITS)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Puts `bit` in its place, and returns the one it replaces; `None` if a later generation has begun.
    ///
    /// A bit that is there already is not written again. An empty ring takes none: nothing changes.
    #[inline]
    pub(crate) fn replace(&self, place: u32, generation: u64, bit: bool) -> Option<bool> {
        let Some(cell) = self.word(place) else {
            return Some(bit);
        };
        let word = cell.load(Ordering::Relaxed);
        let mask = 1 << (place % Self::BITS);
        if (Self::bits(word, generation)? & mask != 0) == bit {
            return Some(bit);
        }
        Self::write(cell, word, generation, mask, bit)
    }

    /// The bits as `generation` finds them; `None` if a later one has begun.
    #[inline]
    fn bits(word: u64, generation: u64) -> Option<u32> {
        match age(word, generation) {
            0 => Some(untagged(word)),
            1.. => Some(0),
            _ => None,
        }
    }

    #[inline(never)]
    fn write(cell: &AtomicU64, mut word: u64, generation: u64, mask: u32, bit: bool) -> Option<bool> {
        loop {
            let bits = Self::bits(word, generation)?;
            let before = bits & mask != 0;
            if before == bit {
                return Some(before);
            }
            let next = tagged(generation, bits ^ mask);
            match cell.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(before),
                Err(other) => word = other,
            }
        }
    }

    /// False only for a place without a bit, of whatever generation.
    #[inline]
    pub(crate) fn may_have(&self, place: u32) -> bool {
        let bits = self.word(place).map(|cell| untagged(cell.load(Ordering::Relaxed)));
        bits.is_none_or(|bits| bits & 1 << (place % Self::BITS) != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, place: u32, generation: u64) -> bool {
        self.word(place).is_some_and(|cell| {
            let bits = Self::bits(cell.load(Ordering::Relaxed), generation);
            bits.is_some_and(|bits| bits & 1 << (place % Self::BITS) != 0)
        })
    }

    #[inline]
    #[allow(clippy::as_conversions, reason = "no bit is lost")]
    fn word(&self, place: u32) -> Option<&AtomicU64> {
        self.0.get((place / Self::BITS) as usize)
    }
}
