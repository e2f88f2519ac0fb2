//! The policy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attempt::{Attempt, Calls, NumberedCalls};
use super::budget::RetryBudget;
use super::event::Event;
use super::future::ResponseFuture;
use super::replay::{ByClone, Prepared};
use super::session::Limits;
use crate::judgement::Judgement;
use crate::random::Random;
use crate::rejected::Name;
use crate::{ByError, Classify, Erased};

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Tries a call again when it failed and another attempt makes sense.
///
/// See the [module](super) for when to use it. A clone is the same policy: it shares the budget, the seed and the
/// listener.
///
/// # Examples
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use steadfast::retry::Retry;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let retry = Retry::exponential(Duration::from_millis(100)).max_attempts(4).build()?;
///
/// let mut calls = 0;
/// let answer = retry
///     .call(|| {
///         calls += 1;
///         let flaky = if calls < 3 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok("pong") };
///         async move { flaky as io::Result<_> }
///     })
///     .await?;
/// assert_eq!((answer, calls), ("pong", 3));
/// # Ok(())
/// # }
/// ```
pub struct Retry<C = ByError, R = ByClone> {
    pub(crate) view: Arc<View<C, R>>,
}

/// What clones share: a way to judge and a way to keep requests, and the policy that they are a view on.
pub(crate) struct View<C, R> {
    pub(crate) policy: Arc<Policy>,
    pub(crate) judgement: Arc<Judgement<C>>,
    pub(crate) replay: R,
}

/// What every clone and every view of a [`Retry`] shares.
pub(crate) struct Policy {
    pub(crate) name: Name,
    pub(crate) limits: Limits,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) listener: Option<Listener>,
    pub(crate) seed: u64,
    /// Sessions that have drawn a number; relaxed, as only its value matters.
    pub(crate) sessions: AtomicU64,
    #[cfg(feature = "metrics")]
    pub(crate) meters: crate::event::Meters<{ super::StopReason::COUNT }>,
}

impl Policy {
    /// The random numbers of the next session.
    pub(crate) fn random(&self) -> Random {
        Random::stream(self.seed, self.sessions.fetch_add(1, Ordering::Relaxed))
    }
}

impl<C, R> Retry<C, R> {
    pub(crate) fn new(policy: Arc<Policy>, judgement: Arc<Judgement<C>>, replay: R) -> Self {
        Self {
            view: Arc::new(View {
                policy,
                judgement,
                replay,
            }),
        }
    }

    /// Calls `operation` until it succeeds or the policy says stop, and returns its last result as it was.
    ///
    /// The error type is the operation's own. Ask the returned future for
    /// [`with_report`](ResponseFuture::with_report) to learn how often and how long it tried.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the attempt under way, or the wait: no further attempt is made, and a retry already
    /// paid for from the budget is refunded. A last event with [`Cancelled`](super::StopReason::Cancelled) is emitted.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no tokio runtime with time enabled. Panics of `operation` and of the
    /// classifier pass through.
    #[inline]
    pub fn call<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<&Self, Calls<F>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        ResponseFuture::new(self, Calls(operation))
    }

    /// As [`call`](Self::call), for an operation that wants to know which attempt it is.
    #[inline]
    pub fn call_with<F, Fut, T, E>(&self, operation: F) -> ResponseFuture<&Self, NumberedCalls<F>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        ResponseFuture::new(self, NumberedCalls(operation))
    }

    /// The same policy, which as a layer keeps requests by `replay` instead of cloning them.
    pub fn replay<Q>(&self, replay: Q) -> Retry<C, Q> {
        Retry::new(Arc::clone(&self.view.policy), Arc::clone(&self.view.judgement), replay)
    }

    /// The same policy, which as a layer runs `hook` on each request just before it is sent: a header with the
    /// attempt's number, a fresh signature. What it changes is seen by that attempt alone.
    pub fn before_attempt<Req>(
        &self,
        hook: impl Fn(&mut Req, Attempt) + Send + Sync + 'static,
    ) -> Retry<C, Prepared<R, Req>>
    where
        R: Clone,
    {
        self.replay(Prepared::new(self.view.replay.clone(), hook))
    }

    /// The same policy, judging by `classifier`.
    pub fn with_classifier<D>(&self, classifier: D) -> Retry<D, R>
    where
        R: Clone,
    {
        let judgement = Judgement {
            classifier,
            judge_rejections: self.view.judgement.judge_rejections,
        };
        let view = &*self.view;
        Retry::new(Arc::clone(&view.policy), Arc::new(judgement), view.replay.clone())
    }

    /// The same policy under a type that can be written down: for a field of a struct.
    #[must_use]
    pub fn erased<T, E>(&self) -> Retry<Erased<T, E>, R>
    where
        C: Classify<T, E> + Send + Sync + 'static,
        R: Clone,
    {
        self.with_classifier(Erased::new(Arc::clone(&self.view.judgement)))
    }

    /// The name of the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        self.view.policy.name.as_str()
    }
}

impl<C, R> Clone for Retry<C, R> {
    fn clone(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
        }
    }
}

impl<C: fmt::Debug, R> fmt::Debug for Retry<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("name", &self.view.policy.name)
            .field("limits", &self.view.policy.limits)
            .field("budget", &self.view.policy.budget)
            .field("classifier", &self.view.judgement.classifier)
            .finish_non_exhaustive()
    }
}

/// How a call holds its policy: borrowed in the plain face, owned in Tower's.
pub trait Held {
    type Classifier;
    type Replay;

    fn retry(&self) -> &Retry<Self::Classifier, Self::Replay>;
}

impl<C, R> Held for Retry<C, R> {
    type Classifier = C;
    type Replay = R;

    #[inline]
    fn retry(&self) -> &Self {
        self
    }
}

impl<C, R> Held for &Retry<C, R> {
    type Classifier = C;
    type Replay = R;

    #[inline]
    fn retry(&self) -> &Retry<C, R> {
        self
    }
}
