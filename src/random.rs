//! The one door to randomness.

use std::hash::{BuildHasher, RandomState};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A stream of numbers in `[0, 1)`, the same on every platform for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

/// An odd multiplier without structure (Steele and Vigna, 2021), to keep the seeds of neighbouring streams apart.
///
/// Not the increment of `SplitMix64`: seeding runs the seed through that generator, and neighbours would then share
/// three of their four state words.
const SPREAD: u64 = 0xD134_2543_DE82_EF95;

impl Random {
    /// The `n`-th stream of `seed`.
    pub(crate) fn stream(seed: u64, n: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(
            seed.wrapping_add(n.wrapping_mul(SPREAD)),
        ))
    }

    pub(crate) fn unit(&mut self) -> f64 {
        const BITS: u32 = f64::MANTISSA_DIGITS;
        #[allow(
            clippy::cast_precision_loss,
            clippy::as_conversions,
            reason = "exactly the 53 bits that fit"
        )]
        let bits = (self.0.next_u64() >> (u64::BITS - BITS)) as f64;
        bits * f64::EPSILON / 2.0
    }

    /// One of `0..limit`, nearly even: good enough to choose what a test does next.
    #[cfg(feature = "testing")]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64().checked_rem(limit).unwrap_or(0)
    }
}

/// A seed that no other policy has: the standard library's own, taken from the operating system.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(SPREAD)
}

/// 128 bits that nobody else has: of a hash whose key the standard library takes from the operating system.
#[cfg(any(feature = "idempotency", feature = "saga", feature = "http"))]
pub(crate) fn unique() -> [u8; 16] {
    let keyed = RandomState::new();
    let halves = [keyed.hash_one(0_u64), keyed.hash_one(1_u64)];
    let mut bytes = [0; 16];
    for (to, half) in bytes.chunks_exact_mut(8).zip(halves) {
        to.copy_from_slice(&half.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_unit_interval_and_fill_it() {
        let mut random = Random::stream(1, 0);
        let drawn: Vec<f64> = (0..10_000).map(|_| random.unit()).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert!(drawn.iter().any(|x| *x < 0.001) && drawn.iter().any(|x| *x > 0.999));
    }

    #[test]
    fn the_streams_of_a_seed_are_pinned_and_differ() {
        let first = |seed, n| Random::stream(seed, n).0.next_u64();
        let drawn = [first(42, 0), first(42, 1), first(42, 2), first(43, 0)];
        assert_eq!(
            drawn,
            [
                15_021_278_609_987_233_951,
                13_134_520_056_203_151_151,
                12_225_805_546_160_399_387,
                3_100_045_952_314_471_549
            ]
        );
    }

    #[test]
    fn two_policies_have_two_seeds() {
        assert_ne!(seed(), seed());
    }
}
