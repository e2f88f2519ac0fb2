//! The store against the pure transitions.
