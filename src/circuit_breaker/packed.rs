//! Words of two halves: a tag that grows, and what belongs to it.

/// `value` under the low half of `tag`.
#[inline]
pub(crate) fn tagged(tag: u64, value: u32) -> u64 {
    tag << 32 | u64::from(value)
}

/// The value of a tagged word.
#[inline]
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the low half is meant"
)]
pub(crate) fn untagged(word: u64) -> u32 {
    word as u32
}

/// A thread can come this many tags late and be known as late.
const LATE: u32 = 1 << 24;

/// How much younger than the word's tag `tag` is: negative for one that came late.
///
/// A tag grows by one with every change of the breaker's state, or with every full turn of a time window, and wraps
/// around. Nobody is late for long, but a word may rest for years: so most of the circle is the past.
#[inline]
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the halves wrap around, and so does their distance"
)]
pub(crate) fn age(word: u64, tag: u64) -> i64 {
    let distance = (tag as u32).wrapping_sub((word >> 32) as u32);
    let late = distance.wrapping_neg();
    if distance != 0 && late <= LATE {
        -i64::from(late)
    } else {
        i64::from(distance)
    }
}
