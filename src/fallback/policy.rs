//! The policy.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::event::Telemetry;
use super::future::ResponseFuture;
use super::recover::{ErasedHandler, Recover};
use crate::judgement::Judgement;
use crate::{ByError, Classify, Erased, Verdict};

/// Answers for a call that failed.
///
/// See the [module](super) for when to use it. A clone is the same policy. `M` says which results it answers for:
/// [`Failures`], or with [`infallible`](Fallback::infallible) [`EveryError`]. [`builder`](Fallback::builder) is where the
/// rest is set.
///
/// # Examples
///
/// ```
/// use std::io;
/// use steadfast::fallback::Fallback;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> io::Result<()> {
/// let fallback = Fallback::value(vec!["bestseller"]);
/// let shelf = fallback.call(async { Err(io::ErrorKind::TimedOut.into()) as io::Result<_> }).await?;
/// assert_eq!(shelf, ["bestseller"]);
/// # Ok(())
/// # }
/// ```
pub struct Fallback<H, C = ByError, M = Failures> {
    pub(crate) core: Arc<Core<H, C>>,
    mode: PhantomData<fn() -> M>,
}

/// What every clone of a [`Fallback`] shares.
pub(crate) struct Core<H, C> {
    pub(crate) handler: H,
    pub(crate) judgement: Judgement<C>,
    pub(crate) telemetry: Telemetry,
}

/// Recovers from failures and rejections; every other result passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures;

/// Recovers from every error, so that none is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryError;

/// Which results are recovered from, and what error is left.
pub trait Mode<E> {
    type Error;

    /// Whether every error is recovered from, or only those that are failures.
    const EVERY_ERROR: bool;

    /// `Ok` with a result that passes, `Err` with one to recover from.
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, Self::Error>, Result<T, E>>;
}

impl<E> Mode<E> for Failures {
    type Error = E;

    const EVERY_ERROR: bool = false;

    #[inline]
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, E>, Result<T, E>> {
        if recover { Err(result) } else { Ok(result) }
    }
}

impl<E> Mode<E> for EveryError {
    type Error = Infallible;

    const EVERY_ERROR: bool = true;

    #[inline]
    fn sort<T>(result: Result<T, E>, recover: bool) -> Result<Result<T, Infallible>, Result<T, E>> {
        match result {
            Ok(value) if !recover => Ok(Ok(value)),
            result => Err(result),
        }
    }
}

impl<H, C, M> Fallback<H, C, M> {
    pub(crate) fn new(core: Core<H, C>) -> Self {
        Self {
            core: Arc::new(core),
            mode: PhantomData,
        }
    }

    /// Runs `operation`, and the recovery if it failed.
    ///
    /// # Errors
    ///
    /// The operation's own where it is not recovered from, and those of the recovery.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the operation or the recovery, whichever is under way. No recovery is begun then.
    #[inline]
    pub fn call<F, T, E>(&self, operation: F) -> ResponseFuture<&Self, (), F, (), E, H::Future>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
        M: Mode<E>,
        H: Recover<(), T, E, M::Error, Kept = ()>,
    {
        ResponseFuture::new(self, operation, ())
    }

    /// Recovers from every error whatever it was judged to be, so that none is left: the error type becomes
    /// [`Infallible`], as axum wants it.
    ///
    /// As a layer it parks an error of the inner `poll_ready` and recovers from it in `call`.
    #[must_use]
    pub fn infallible(self) -> Fallback<H, C, EveryError> {
        Fallback {
            core: self.core,
            mode: PhantomData,
        }
    }
}

impl<H, C> Fallback<H, C> {
    /// The same policy under a type that can be written down: for a field of a struct.
    ///
    /// Not for an answer that needs the request. The answer is boxed, when it is needed.
    #[must_use]
    pub fn erased<T, E>(&self) -> Fallback<ErasedHandler<T, E>, Erased<T, E>>
    where
        C: Classify<T, E> + Send + Sync + 'static,
        H: Recover<(), T, E, E, Kept = (), Future: Send + 'static> + Send + Sync + 'static,
    {
        Fallback {
            core: Arc::new(Core {
                handler: ErasedHandler::new(Arc::clone(&self.core)),
                judgement: Judgement {
                    classifier: Erased::new(Arc::clone(&self.core)),
                    judge_rejections: self.core.judgement.judge_rejections,
                },
                telemetry: self.core.telemetry.clone(),
            }),
            mode: PhantomData,
        }
    }
}

/// The classifier alone, for the erased form.
impl<T, E, H, C: Classify<T, E>> Classify<T, E> for Core<H, C> {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self.judgement.classify(result)
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn std::error::Error + 'static)> {
        self.judgement.as_error(error)
    }
}

impl<H, C, M> Clone for Fallback<H, C, M> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            mode: PhantomData,
        }
    }
}

impl<H: fmt::Debug, C: fmt::Debug, M> fmt::Debug for Fallback<H, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("name", &self.core.telemetry.name)
            .field("handler", &self.core.handler)
            .field("classifier", &self.core.judgement.classifier)
            .finish_non_exhaustive()
    }
}
