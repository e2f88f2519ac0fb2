//! The policy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::cell::Cell;
use super::config::Abandoned;
use super::control::{Refusal, Ticket};
use super::event::{Event, Rejection};
use super::future::ResponseFuture;
use super::opening::Opening;
use super::outside::{Outside, Transition};
use super::watch::Watch;
use crate::clock::nanos;
use crate::event::heard;
use crate::judgement::Judgement;
use crate::rejected::Name;
use crate::{ByError, Classify, Erased, Rejected};

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Stops calling a dependency that fails, until a probe succeeds.
///
/// See the [module](super) for when to use it. A clone is the same breaker, and so is every layer that is made of it.
///
/// # Examples
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use steadfast::circuit_breaker::{CircuitBreaker, State};
/// use steadfast::{Error, Rejected};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let breaker = CircuitBreaker::builder("payments").consecutive_failures(3).build()?;
///
/// for _ in 0..3 {
///     let down = async { Err::<(), _>(Error::Inner(io::Error::from(io::ErrorKind::ConnectionRefused))) };
///     assert!(breaker.call(down).await.is_err());
/// }
/// assert_eq!(breaker.state(), State::Open);
///
/// let not_called = async { Ok::<_, Error<io::Error>>(()) };
/// let error = breaker.call(not_called).await.unwrap_err();
/// assert_eq!(Rejected::find(&error).unwrap().retry_after(), Some(Duration::from_secs(10)));
/// # Ok(())
/// # }
/// ```
pub struct CircuitBreaker<C = ByError> {
    pub(crate) view: Arc<View<C>>,
}

/// What clones share: a way to judge, and the breaker that it is a view on.
pub(crate) struct View<C> {
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) judgement: Arc<Judgement<C>>,
}

/// What every clone and every view of a [`CircuitBreaker`] shares.
pub(crate) struct Breaker {
    pub(crate) name: Name,
    pub(crate) cell: Cell,
    /// What times are counted from.
    pub(crate) made: Instant,
    pub(crate) opening: Opening,
    /// From here on a call is slow, in nanoseconds.
    pub(crate) slow_after: Option<u64>,
    pub(crate) abandoned: Abandoned,
    /// No rule for slow calls, and no listener.
    pub(crate) is_plain: bool,
    /// Relaxed: it says what to do with a refusal, and nothing of its reason.
    pub(crate) shadow: AtomicBool,
    pub(crate) watch: Watch,
    pub(crate) kind: Arc<Kind>,
}

/// What all breakers of a keyed set share; one by itself has its own.
pub(crate) struct Kind {
    pub(crate) listener: Option<Listener>,
    /// Whether they begin in shadow mode.
    pub(crate) shadow: bool,
    /// Whether there may be many of the same name.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "it tells how they are metered"))]
    pub(crate) keyed: bool,
    #[cfg(feature = "metrics")]
    pub(crate) meters: crate::event::Counters<{ super::event::OUTCOMES }>,
}

impl Breaker {
    /// Admits a call, or says that it has been rejected.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Ticket, Refusal> {
        let ticket = match self.cell.enter(self) {
            Ok(ticket) => ticket,
            Err(refusal) if self.is_shadow() || heard(self.kind.listener.is_some(), LevelFilter::DEBUG) => {
                self.refuse(refusal)?
            }
            Err(refusal) => return Err(refusal),
        };
        Ok(ticket)
    }

    /// Rejects a call, or in shadow mode says only that it would have.
    #[cold]
    #[inline(never)]
    fn refuse(&self, refusal: Refusal) -> Result<Ticket, Refusal> {
        let shadow = self.is_shadow();
        self.tell_of(Rejection { refusal, shadow });
        if shadow { Ok(Ticket::UNCOUNTED) } else { Err(refusal) }
    }

    pub(crate) fn tell_of(&self, rejection: Rejection) {
        if heard(self.kind.listener.is_some(), LevelFilter::DEBUG) {
            self.emit_rejected(rejection);
        }
    }

    /// What a call would be rejected with now.
    #[inline]
    pub(crate) fn would_reject(&self) -> Option<Refusal> {
        self.cell.would_refuse(self).filter(|_| !self.is_shadow())
    }

    #[inline]
    pub(crate) fn rejected(&self, retry_after: Option<u64>) -> Rejected {
        Rejected::circuit_open_by(self.name.clone(), retry_after.map(Duration::from_nanos))
    }

    #[inline]
    pub(crate) fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }
}

impl Outside for Breaker {
    #[inline]
    fn now(&self) -> u64 {
        nanos(Instant::now().saturating_duration_since(self.made))
    }

    fn open_for(&self, openings: u32, retry_after: Option<Duration>) -> u64 {
        self.opening.open_for(openings, retry_after)
    }

    fn announce(&self, transition: &Transition) {
        self.watch.tell(transition);
        self.emit_transition(transition);
    }
}

impl<C> CircuitBreaker<C> {
    pub(crate) fn new(breaker: Arc<Breaker>, judgement: Arc<Judgement<C>>) -> Self {
        Self {
            view: Arc::new(View { breaker, judgement }),
        }
    }

    pub(crate) fn breaker(&self) -> &Breaker {
        &self.view.breaker
    }

    /// Runs `operation` if the breaker admits it, and learns from its result.
    ///
    /// It is admitted at its first poll, and not before.
    ///
    /// # Errors
    ///
    /// Those of `operation`, and a [`Rejected`] of the kind [`CircuitOpen`](crate::RejectedKind::CircuitOpen), in which
    /// case `operation` was not polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `operation`. The call then counts as the breaker's [`Abandoned`] says; a probe gives
    /// its place back at once.
    ///
    /// # Panics
    ///
    /// Panics of `operation` and of the classifier count as failures and pass through.
    #[inline]
    pub fn call<F, T, E>(&self, operation: F) -> ResponseFuture<&Self, F>
    where
        F: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
        E: From<Rejected>,
    {
        ResponseFuture::new(self, operation)
    }

    /// The same breaker, judging by `classifier`.
    pub fn with_classifier<D>(&self, classifier: D) -> CircuitBreaker<D> {
        let judgement = Judgement {
            classifier,
            judge_rejections: self.view.judgement.judge_rejections,
        };
        CircuitBreaker::new(Arc::clone(&self.view.breaker), Arc::new(judgement))
    }

    /// The same breaker under a type that can be written down: for a field of a struct.
    #[must_use]
    pub fn erased<T, E>(&self) -> CircuitBreaker<Erased<T, E>>
    where
        C: Classify<T, E> + Send + Sync + 'static,
    {
        self.with_classifier(Erased::new(Arc::clone(&self.view.judgement)))
    }

    /// The name of the breaker.
    #[must_use]
    pub fn name(&self) -> &str {
        self.breaker().name.as_str()
    }
}

impl<C> Clone for CircuitBreaker<C> {
    fn clone(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for CircuitBreaker<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.breaker().name)
            .field("state", &self.state())
            .field("classifier", &self.view.judgement.classifier)
            .finish_non_exhaustive()
    }
}

/// How a call holds its breaker: borrowed in the plain face, owned in Tower's.
pub trait Held {
    type Classifier;

    fn circuit_breaker(&self) -> &CircuitBreaker<Self::Classifier>;
}

impl<C> Held for CircuitBreaker<C> {
    type Classifier = C;

    #[inline]
    fn circuit_breaker(&self) -> &Self {
        self
    }
}

impl<C> Held for &CircuitBreaker<C> {
    type Classifier = C;

    #[inline]
    fn circuit_breaker(&self) -> &CircuitBreaker<C> {
        self
    }
}
