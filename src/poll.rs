//! What the futures have in common.

use std::task::Poll;

/// A future of `policy` was polled again after it had answered.
#[cold]
#[allow(clippy::panic, reason = "the contract of Future, broken by the caller")]
pub(crate) fn polled_after_completion<T>(policy: &str) -> Poll<T> {
    panic!("a call under a {policy} was polled after it had completed")
}
