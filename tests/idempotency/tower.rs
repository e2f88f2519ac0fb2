//! The generic layer.
