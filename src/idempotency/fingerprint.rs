//! What tells two requests under one key apart.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::storage::write_hex;

/// How the hash below is made. Another way gets another number, and matches nothing that was stored before.
const VERSION: u8 = 1;

/// A hash of a request: another request under the same key is a mismatch.
///
/// A version byte, and SHA-256 of the request as JSON with the keys of its objects sorted, so that neither the order
/// of a map nor that of a struct's fields matters. Of two numbers, `1` and `1.0` differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::LEN]);

/// A request has no JSON form.
#[derive(Debug, thiserror::Error)]
#[error("the request cannot be written as JSON")]
pub struct FingerprintError(#[source] serde_json::Error);

impl Fingerprint {
    /// Length in bytes.
    pub const LEN: usize = 33;

    /// The fingerprint of `request`.
    ///
    /// # Errors
    ///
    /// When it has no JSON form, as a map whose keys are lists.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use steadfast::idempotency::Fingerprint;
    ///
    /// let one = HashMap::from([("amount", "10"), ("currency", "EUR")]);
    /// let other = HashMap::from([("currency", "EUR"), ("amount", "10")]);
    /// assert_eq!(Fingerprint::of(&one)?, Fingerprint::of(&other)?);
    /// # Ok::<_, steadfast::idempotency::FingerprintError>(())
    /// ```
    pub fn of<T: Serialize + ?Sized>(request: &T) -> Result<Self, FingerprintError> {
        let value = serde_json::to_value(request).map_err(FingerprintError)?;
        let mut hash = Sha256::new();
        canonical(&value, &mut hash).map_err(FingerprintError)?;
        Ok(Self::finish(hash))
    }

    /// The fingerprint of a request that consists of these bytes; each part counts with its length.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part);
        }
        Self::finish(hash)
    }

    fn finish(hash: Sha256) -> Self {
        let mut bytes = [VERSION; Self::LEN];
        bytes[1..].copy_from_slice(&hash.finalize());
        Self(bytes)
    }

    /// The fingerprint from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(")?;
        write_hex(&self.0[..5], f)?;
        f.write_str("..)")
    }
}

/// Writes `value` as JSON without spaces, object keys sorted by their bytes.
///
/// Sorted here: whether `serde_json`'s own map is sorted depends on the features that any crate of a build asks for.
fn canonical(value: &Value, hash: &mut Sha256) -> Result<(), serde_json::Error> {
    match value {
        Value::Array(items) => {
            hash.update(b"[");
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    hash.update(b",");
                }
                canonical(item, hash)?;
            }
            hash.update(b"]");
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_bytes());
            hash.update(b"{");
            for (at, (name, field)) in fields.into_iter().enumerate() {
                if at > 0 {
                    hash.update(b",");
                }
                hash.update(serde_json::to_vec(name)?);
                hash.update(b":");
                canonical(field, hash)?;
            }
            hash.update(b"}");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => hash.update(serde_json::to_vec(value)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    struct Charge<'a> {
        card: &'a str,
        amount: u64,
        lines: Vec<Option<f64>>,
    }

    #[test]
    fn the_fingerprint_of_a_request_is_the_published_one() {
        let charge = Charge {
            card: "4242 \"é\"",
            amount: 1_000,
            lines: vec![Some(1.5), None],
        };
        let mut hex = String::new();
        write_hex(Fingerprint::of(&charge).expect("JSON").as_bytes(), &mut hex).expect("a string takes all");
        assert_eq!(
            hex,
            "01d6e92969ee7ae529d4f695fbf440b82e8ebab9c4940deef55e1cbfae5a8beeb6"
        );
    }

    #[test]
    fn the_order_of_fields_does_not_matter_and_the_order_of_a_list_does() {
        let sorted = serde_json::json!({"amount": 1, "card": {"a": 1, "b": 2}});
        let other = Fingerprint::of(&BTreeMap::from([
            ("card", serde_json::json!({"b": 2, "a": 1})),
            ("amount", 1.into()),
        ]));
        assert_eq!(Fingerprint::of(&sorted).expect("JSON"), other.expect("JSON"));
        assert_ne!(
            Fingerprint::of(&[1, 2]).expect("JSON"),
            Fingerprint::of(&[2, 1]).expect("JSON")
        );
    }

    #[test]
    fn what_has_no_json_form_is_an_error() {
        assert!(Fingerprint::of(&BTreeMap::from([(vec![1], 2)])).is_err());
    }

    #[test]
    fn debug_shows_the_beginning_only() {
        let text = format!("{:?}", Fingerprint::of_parts(&[b"a"]));
        assert_eq!(text.len(), "Fingerprint(0011223344..)".len(), "{text}");
    }
}
