//! Stops calling a dependency that fails, until a probe succeeds.
