//! What makes two definitions the same for a saga under way.

use std::fmt;
use std::str::FromStr;

use super::plan::{Plan, StepPlan};
use crate::KeyId;
use crate::storage::hash_parts;

/// A hash of the names and kinds of a definition's steps, in order: SHA-256, 64 hexadecimal digits.
///
/// Closures, timeouts and attempts are not part of it, and may change while sagas are under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(plan: &Plan) -> Self {
        // A step in a transaction leaves other events than one that is not.
        let kind = |step: &StepPlan| step.kind.as_str().to_owned() + if step.local { " in a transaction" } else { "" };
        let kinds: Vec<_> = plan.steps.iter().map(kind).collect();
        let steps = plan.steps.iter().zip(&kinds);
        let parts: Vec<&[u8]> = steps
            .flat_map(|(step, kind)| [step.name.as_bytes(), kind.as_bytes()])
            .collect();
        Self(hash_parts(&parts))
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::storage::write_hex(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What was to be a [`Fingerprint`] is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits")]
pub struct InvalidFingerprint;

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let bytes: KeyId = text.parse().map_err(|_| InvalidFingerprint)?;
        Ok(Self(*bytes.as_bytes()))
    }
}
