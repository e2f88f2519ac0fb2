//! The one door to what threads share in a core.
//!
//! A model checker has to see each of these operations, so the model of a core in `tests/loom` comes in here. The cfg
//! is our own: `--cfg loom` would reach tokio too, and break it.

#[cfg(steadfast_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(steadfast_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
