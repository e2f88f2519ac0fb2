//! The key of an operation, and the hash of it that is stored.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What names one operation: a scope (the tenant, the user, the account) and the caller's own key.
///
/// Two scopes never meet, whatever their keys are. Neither part is stored or shown: a store sees the [`KeyId`], and
/// `Debug` shows nothing.
///
/// # Examples
///
/// ```
/// use steadfast::Key;
///
/// let key = Key::new("tenant-7", "order-1234");
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    scope: Box<[u8]>,
    key: Box<[u8]>,
}

impl Key {
    /// The operation that `scope` calls `key`.
    #[must_use]
    pub fn new(scope: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self {
            scope: scope.as_ref().into(),
            key: key.as_ref().into(),
        }
    }

    /// The hash under which the operation is stored.
    pub(crate) fn id(&self, namespace: &str, secret: Option<&Secret>) -> KeyId {
        let parts = [namespace.as_bytes(), &self.scope, &self.key];
        KeyId(match secret {
            None => hash_parts(&parts),
            Some(secret) => secret.hash_parts(&parts),
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// SHA-256 over `parts`, each preceded by its length in bytes as a little-endian `u64`: no two lists of parts meet.
pub(crate) fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(length(part));
        hash.update(part);
    }
    hash.finalize().into()
}

fn length(part: &[u8]) -> [u8; 8] {
    u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes()
}

/// A key for HMAC-SHA-256 (RFC 2104) in place of SHA-256: without it nobody can try out what a stored hash stands for.
#[derive(Clone)]
pub(crate) struct Secret(Hmac<Sha256>);

impl Secret {
    /// The shortest key in bytes: a shorter one can be tried out.
    pub(crate) const MIN_LEN: usize = 16;

    /// `None` for a key that is too short.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        if key.len() < Self::MIN_LEN {
            return None;
        }
        Hmac::new_from_slice(key).ok().map(Self)
    }

    fn hash_parts(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = self.0.clone();
        for part in parts {
            hash.update(&length(part));
            hash.update(part);
        }
        hash.finalize().into_bytes().into()
    }
}

/// The hash of a key and its namespace: what a store keeps, and what logs and operators see.
///
/// SHA-256, or HMAC-SHA-256 with a secret. It reads and prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// The hash from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut impl fmt::Write) -> fmt::Result {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes.iter().try_for_each(|byte| {
        f.write_char(DIGITS[usize::from(byte >> 4)])?;
        f.write_char(DIGITS[usize::from(byte & 15)])
    })
}

/// What was to be a [`KeyId`] is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 64 hexadecimal digits")]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidKeyId);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidKeyId)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidKeyId)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_key_is_the_published_one() {
        let key = Key::new("tenant-7", "order-1234");
        let plain = key.id("payments", None);
        let secret = Secret::new(b"sixteen bytes ok").expect("it is long enough");
        let keyed = key.id("payments", Some(&secret));
        assert_eq!(
            (plain.to_string().as_str(), keyed.to_string().as_str()),
            (
                "ec28004891eedf64566c29b086b77ed1961db6c9a3198f4a7606297bb9b49969",
                "36cd65095bd825f0dfdaa78f83947fc4885fb799635833a03a54d4a306507ade"
            )
        );
    }

    #[test]
    fn parts_that_read_the_same_in_a_row_are_different_keys() {
        let ids = [
            Key::new("a", "bc").id("n", None),
            Key::new("ab", "c").id("n", None),
            Key::new("abc", "").id("n", None),
            Key::new("", "abc").id("n", None),
            Key::new("bc", "").id("na", None),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[at + 1..].contains(id), "{at}");
        }
    }

    #[test]
    fn an_id_reads_as_it_prints_and_nothing_else_is_one() {
        let id = Key::new("tenant", "key").id("n", None);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "ab", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert_eq!(wrong.parse::<KeyId>(), Err(InvalidKeyId), "{wrong}");
        }
    }

    #[test]
    fn a_secret_of_fifteen_bytes_is_none() {
        assert!(Secret::new(&[7; 15]).is_none());
    }
}
