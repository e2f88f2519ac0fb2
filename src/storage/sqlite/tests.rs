//! What the writer promises.
