//! The name of one saga.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use crate::random::unique;

/// The id of one saga: 128 bits that no other has, and that its keys begin with.
///
/// The first six bytes are the time at which it was made, in milliseconds since 1970, so that ids sort by age and a
/// journal writes them side by side; the others are random. It reads and prints as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId([u8; 16]);

impl SagaId {
    /// The id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A new one.
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        let mut bytes = unique();
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self(bytes)
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SagaId({self})")
    }
}

/// What was to be a [`SagaId`] is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a saga has 32 hexadecimal digits")]
pub struct InvalidSagaId;

impl FromStr for SagaId {
    type Err = InvalidSagaId;

    fn from_str(text: &str) -> Result<Self, InvalidSagaId> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidSagaId);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| InvalidSagaId)?;
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_prints_and_nothing_else_is_one() {
        let id = SagaId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "ab",
            &"g".repeat(32),
            &"+1".repeat(16),
            &"0".repeat(33),
            &"é".repeat(16),
        ] {
            assert_eq!(wrong.parse::<SagaId>(), Err(InvalidSagaId), "{wrong}");
        }
    }

    #[test]
    fn later_ids_sort_after_earlier_ones_and_no_two_are_equal() {
        let first = SagaId::new();
        let second = SagaId::new();
        assert_ne!(first, second);
        assert!(first.as_bytes()[..6] <= second.as_bytes()[..6]);
    }
}
