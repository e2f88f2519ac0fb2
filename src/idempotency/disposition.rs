//! What a result means for the record of its key.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::rejected::Reason;
use crate::{AnyError, BoxedErrors, ByError};

/// What a result means for the record of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The operation is done: the result is stored, and replayed to whoever repeats it. An `Err` has no encoding, and
    /// interrupts.
    Store,
    /// The same, for this long instead of the policy's retention. After zero, the key is free at once.
    StoreFor(Duration),
    /// Nothing has happened: the key is free again, unless an earlier attempt was interrupted, or this one has
    /// [noted](super::Attempt::save_checkpoint) something.
    Release,
    /// Something may have happened. At least once: the next caller runs it again. At most once: its outcome is unknown.
    Interrupt,
}

/// Decides what a result means for the record of its key.
///
/// Most users never implement it: the builder takes a closure, and [`ByError`] is the default.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot decide what becomes of a `Result<{T}, {E}>`",
    label = "the error type `{E}` needs another decision",
    note = "errors that implement `std::error::Error` need nothing",
    note = "`anyhow::Error` and `Box<dyn Error + Send + Sync>`: add `.boxed_errors()` to the builder",
    note = "any other type: add `.any_error()` to the builder"
)]
pub trait Decide<T, E> {
    /// What becomes of the record.
    fn decide(&self, result: Result<&T, &E>) -> Disposition;
}

/// `Ok` is stored, and an `Err` interrupts: whoever lost the connection may have charged the card. Only what a policy
/// of this crate refused before it sent anything is released.
fn by_error(error: &(dyn Error + 'static)) -> Disposition {
    match Reason::find(error) {
        Some(rejected) if !rejected.reached_inner() => Disposition::Release,
        _ => Disposition::Interrupt,
    }
}

#[diagnostic::do_not_recommend]
impl<T, E: Error + 'static> Decide<T, E> for ByError {
    fn decide(&self, result: Result<&T, &E>) -> Disposition {
        result.map_or_else(|error| by_error(error), |_| Disposition::Store)
    }
}

#[diagnostic::do_not_recommend]
impl<T, E: AsRef<dyn Error + Send + Sync>> Decide<T, E> for BoxedErrors {
    fn decide(&self, result: Result<&T, &E>) -> Disposition {
        result.map_or_else(|error| by_error(error.as_ref()), |_| Disposition::Store)
    }
}

/// It cannot look inside, so every `Err` interrupts.
impl<T, E> Decide<T, E> for AnyError {
    fn decide(&self, result: Result<&T, &E>) -> Disposition {
        result.map_or(Disposition::Interrupt, |_| Disposition::Store)
    }
}

/// Decides by a function; made by [`IdempotencyBuilder::decide`](super::IdempotencyBuilder::decide).
pub struct DecideFn<T, E, F> {
    decide: F,
    result: PhantomData<fn(&T, &E)>,
}

impl<T, E, F> DecideFn<T, E, F> {
    pub(crate) fn new(decide: F) -> Self {
        Self {
            decide,
            result: PhantomData,
        }
    }
}

impl<T, E, F: Fn(Result<&T, &E>) -> Disposition> Decide<T, E> for DecideFn<T, E, F> {
    fn decide(&self, result: Result<&T, &E>) -> Disposition {
        (self.decide)(result)
    }
}

impl<T, E, F> fmt::Debug for DecideFn<T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecideFn")
    }
}

/// A decision whose type names the result and nothing else: for a field of a struct.
pub struct ErasedDecision<T, E>(Arc<dyn Decide<T, E> + Send + Sync>);

impl<T, E> ErasedDecision<T, E> {
    pub(crate) fn new(decide: Arc<impl Decide<T, E> + Send + Sync + 'static>) -> Self {
        Self(decide)
    }
}

impl<T, E> Decide<T, E> for ErasedDecision<T, E> {
    fn decide(&self, result: Result<&T, &E>) -> Disposition {
        self.0.decide(result)
    }
}

impl<T, E> fmt::Debug for ErasedDecision<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErasedDecision")
    }
}
