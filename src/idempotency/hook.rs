//! What a caller may have asked before it is refused.

use std::fmt;
use std::future::Pending;

/// An async function of one argument, or [`NoHook`].
///
/// Nobody implements it: it is what the bounds of a layer with hooks say.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no async function from `{Q}` to `Result<{A}, {E}>`",
    note = "the value and the error are those of the service that the layer is around"
)]
pub trait Hook<Q, A, E> {
    /// Whether there is anything to ask.
    const ASKS: bool = true;

    /// The future of its answer.
    type Answer: Future<Output = Result<A, E>>;

    /// Asks.
    fn ask(self, question: Q) -> Self::Answer;
}

impl<Q, A, E, F, Fut> Hook<Q, A, E> for F
where
    F: FnOnce(Q) -> Fut,
    Fut: Future<Output = Result<A, E>>,
{
    type Answer = Fut;

    fn ask(self, question: Q) -> Fut {
        self(question)
    }
}

/// No hook: nobody is asked.
#[derive(Clone, Copy)]
pub struct NoHook;

impl<Q, A, E> Hook<Q, A, E> for NoHook {
    const ASKS: bool = false;

    type Answer = Pending<Result<A, E>>;

    fn ask(self, _: Q) -> Self::Answer {
        std::future::pending()
    }
}

impl fmt::Debug for NoHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoHook")
    }
}
