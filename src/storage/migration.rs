//! The schema of a component, in numbered steps.

use super::{hash_parts, write_hex};

/// One step of a component's schema: run once, in order, in a transaction.
///
/// A step that has been released never changes: its checksum is stored beside it, and a database in which another text
/// was run is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    component: &'static str,
    version: u32,
    sql: &'static str,
}

impl Migration {
    pub(crate) const fn new(component: &'static str, version: u32, sql: &'static str) -> Self {
        Self {
            component,
            version,
            sql,
        }
    }

    /// What the step belongs to: `idempotency`.
    #[must_use]
    pub fn component(&self) -> &'static str {
        self.component
    }

    /// The version of the schema after this step; the first is 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The statements, for who runs them by other means.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        self.sql
    }

    /// SHA-256 of component, version and statements, in hexadecimal digits.
    #[must_use]
    pub fn checksum(&self) -> String {
        let version = self.version.to_string();
        let hash = hash_parts(&[self.component.as_bytes(), version.as_bytes(), self.sql.as_bytes()]);
        let mut digits = String::with_capacity(2 * hash.len());
        let _ = write_hex(&hash, &mut digits);
        digits
    }
}
