//! The simple face: a saga in memory.

use std::fmt::Write as _;
use std::sync::Arc;

use super::definition::Saga;
use super::drive::Interpreter;
use super::error::SagaError;
use crate::random::unique;

impl<C: Clone + Send + 'static, D: Send + Sync + 'static> Saga<C, D> {
    /// Runs the saga in memory, on a task of its own.
    ///
    /// # Errors
    ///
    /// [`SagaError::Compensated`] when a step failed and everything before it was undone; [`SagaError::Stuck`] when
    /// something could not be undone, or a step after the pivot failed for good.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll, it never ran. Dropped later, the saga goes on to its end. It ends with the runtime:
    /// what has to survive that needs a journal.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled. A panic of a step does not pass: it counts as a failure that may
    /// have had its effect.
    pub async fn run(&self, context: C) -> Result<C, SagaError> {
        let id = new_id();
        let interpreter = Interpreter::new(Arc::clone(&self.0), Arc::clone(&id), context);
        match tokio::spawn(interpreter.run()).await {
            Ok(ended) => ended,
            Err(_) => Err(SagaError::Detached {
                saga: self.name().to_owned(),
                id: id.as_ref().to_owned(),
            }),
        }
    }
}

/// 128 random bits, in hexadecimal digits.
fn new_id() -> Arc<str> {
    let mut id = String::with_capacity(32);
    for byte in unique() {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id.into()
}
