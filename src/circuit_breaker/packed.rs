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
const LATE: u32 = 1 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;

    const CIRCLE: u64 = 1 << 32;

    #[test]
    fn a_word_keeps_its_value_and_the_low_half_of_its_tag() {
        let word = tagged(CIRCLE + 7, u32::MAX);
        assert_eq!((word >> 32, untagged(word)), (7, u32::MAX));
    }

    #[test]
    fn a_tag_is_the_same_younger_or_late_also_around_the_end_of_the_circle() {
        for tag in [CIRCLE / 2, CIRCLE - 1, CIRCLE, CIRCLE + 1] {
            let word = tagged(tag, 9);
            assert_eq!([age(word, tag - 1), age(word, tag), age(word, tag + 1)], [-1, 0, 1]);
        }
    }

    #[test]
    fn a_word_that_rested_for_most_of_the_circle_is_of_the_past() {
        let word = tagged(0, 9);
        let late = u64::from(LATE);
        assert_eq!(age(word, CIRCLE / 2 + 1), i64::from(u32::MAX / 2) + 2);
        assert_eq!(age(word, CIRCLE - late - 1), i64::from(u32::MAX - LATE));
        assert_eq!(age(word, CIRCLE - late), -i64::from(LATE));
    }
}
