//! Words of two halves: a tag that grows, and what belongs to it.

/// `value` under the low half of `tag`.
#[inline]
#[allow(clippy::as_conversions, reason = "no bit is lost")]
pub(crate) fn tagged(tag: u64, value: u32) -> u64 {
    tag << 32 | value as u64
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

/// How much younger than the word's tag `tag` is: negative for one that came late.
///
/// Tags that are two thousand million apart are confused. A tag grows by one with every change of the breaker's state,
/// or with every full turn of a time window.
#[inline]
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "the halves wrap around, and so does their distance"
)]
pub(crate) fn age(word: u64, tag: u64) -> i32 {
    (tag as u32).wrapping_sub((word >> 32) as u32) as i32
}
