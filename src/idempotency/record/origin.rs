//! Whose record it is.

use std::fmt;
use std::sync::Arc;

/// Who claimed a key: the namespace of a policy, and the face that ran the operation. For operators, who see but hashes
/// otherwise; nothing is decided by it.
///
/// Stores keep it as text, as `http:payments`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin(Arc<str>);

/// The face of a policy: each encodes outcomes in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Face {
    /// A plain call, also within a transaction.
    Call,
    /// The generic layer.
    Layer,
    /// The `Idempotency-Key` layer.
    Http,
}

impl Face {
    const ALL: [Self; 3] = [Self::Call, Self::Layer, Self::Http];

    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Layer => "layer",
            Self::Http => "http",
        }
    }
}

impl Origin {
    /// A face of the policies of `namespace`.
    #[must_use]
    pub fn new(face: Face, namespace: &str) -> Self {
        // The one character that PostgreSQL has no place for.
        let namespace = namespace.replace('\0', "\u{FFFD}");
        Self(format!("{}:{namespace}", face.as_str()).into())
    }

    /// What [`as_str`](Self::as_str) was; any text is one.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, namespace)| namespace)
    }

    /// The face; `None` for one that this version does not know.
    #[must_use]
    pub fn face(&self) -> Option<Face> {
        let (face, _) = self.0.split_once(':')?;
        Face::ALL.into_iter().find(|known| known.as_str() == face)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_reads_as_it_was_stored_whatever_the_namespace() {
        for (namespace, read) in [
            ("payments", "payments"),
            ("a:b", "a:b"),
            ("", ""),
            ("a\0b", "a\u{FFFD}b"),
        ] {
            for face in Face::ALL {
                let stored = Origin::new(face, namespace);
                let origin = Origin::from_text(stored.as_str());
                assert_eq!((origin.namespace(), origin.face()), (read, Some(face)));
            }
        }
        let later = Origin::from_text("grpc:payments");
        assert_eq!((later.namespace(), later.face()), ("payments", None));
        assert_eq!(Origin::from_text("old").namespace(), "old");
    }
}
