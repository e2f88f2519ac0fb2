//! What a policy refuses with, and what a builder refuses.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{Error, Verdict};

/// The name of a policy: free to clone, whether it was a literal or made at run time.
#[derive(Clone)]
pub(crate) enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Name {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self::Static(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Shared(name) => name,
        }
    }
}

impl<N: Into<Cow<'static, str>>> From<N> for Name {
    fn from(name: N) -> Self {
        match name.into() {
            Cow::Borrowed(name) => Self::Static(name),
            Cow::Owned(name) => Self::Shared(name.into()),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Why a policy refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectedKind {
    /// A timeout elapsed.
    TimedOut,
    /// A circuit breaker is open.
    CircuitOpen,
    /// A bulkhead has neither a permit nor room in its queue.
    BulkheadFull,
    /// A call waited in a bulkhead's queue for longer than it may.
    QueueTimedOut,
    /// An operation with this idempotency key is in progress. Trying again later gets its outcome.
    InProgress,
    /// The idempotency key belongs to another request.
    KeyMismatch,
    /// An attempt under this idempotency key was interrupted, and nobody can say what it did. Trying again cannot help.
    OutcomeUnknown,
    /// The idempotency key was closed for ever.
    KeyCancelled,
    /// The operation was carried out, but its outcome was not kept or cannot be read.
    NotReplayable,
    /// The operation was carried out, but its outcome is too large to be stored, or has no encoding.
    NotStorable,
    /// The request has no fingerprint.
    NoFingerprint,
    /// The store of idempotency keys does not answer, or refuses.
    StoreUnavailable,
}

/// A policy refused the call.
///
/// It is the one error that the policies of this crate make themselves, and it travels inside the caller's own
/// error type: give that type a variant with `#[from] Rejected`, or use [`Error`], a boxed error or
/// `anyhow::Error`. [`Rejected::find`] gets it out again, however it is wrapped.
///
/// `Display` says who refused, [`source()`](std::error::Error::source) says why and until when. A chain printed in
/// full (`{:#}` of `anyhow`) is one sentence without repetition.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::{Rejected, RejectedKind};
///
/// #[derive(Debug, thiserror::Error)]
/// enum ApiError {
///     #[error("the card was declined")]
///     Declined,
///     #[error(transparent)]
///     Rejected(#[from] Rejected),
/// }
///
/// let error = ApiError::from(Rejected::timed_out("payments", Duration::from_secs(2)));
/// let rejected = Rejected::find(&error).unwrap();
/// assert_eq!(rejected.kind(), RejectedKind::TimedOut);
/// assert_eq!(rejected.policy(), "payments");
/// assert!(rejected.reached_inner());
/// assert!(Rejected::find(&ApiError::Declined).is_none());
/// ```
#[derive(Clone)]
pub struct Rejected {
    reason: Reason,
}

/// The whole content of a [`Rejected`], and its `source()`.
///
/// An error enum with `#[error(transparent)]` forwards `source()` past the `Rejected` it holds: walking its chain one
/// meets this type only. So it has to carry everything, and the finder looks for it and not for `Rejected`.
pub(crate) struct Reason {
    policy: Name,
    why: Why,
    /// Set through a shared reference: whoever learns that an earlier attempt was sent may have no more than that,
    /// the rejection being somewhere inside the caller's error. It publishes no other memory: relaxed.
    reached_inner: AtomicBool,
}

#[derive(Clone, Copy)]
enum Why {
    TimedOut {
        limit: Duration,
    },
    /// `None` where nobody knows: forced open, or its probes are under way.
    CircuitOpen {
        retry_after: Option<Duration>,
    },
    BulkheadFull,
    QueueTimedOut {
        waited: Duration,
    },
    #[cfg_attr(not(feature = "idempotency"), allow(dead_code, reason = "made by that policy alone"))]
    Idempotency(Idempotency),
}

/// Why an idempotency policy refused.
#[cfg_attr(not(feature = "idempotency"), allow(dead_code, reason = "made by that policy alone"))]
#[derive(Clone, Copy)]
pub(crate) enum Idempotency {
    InProgress { retry_after: Duration },
    KeyMismatch,
    OutcomeUnknown { attempt: u32 },
    KeyCancelled,
    NotReplayable,
    NotStorable { limit: Option<usize> },
    NoFingerprint,
    StoreUnavailable { reason: &'static str },
}

impl Rejected {
    #[inline]
    fn new(policy: Name, why: Why, reached_inner: bool) -> Self {
        Self {
            reason: Reason {
                policy,
                why,
                reached_inner: AtomicBool::new(reached_inner),
            },
        }
    }

    /// The timeout `policy` had no answer within `limit`; the call had been sent.
    pub fn timed_out(policy: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        Self::timed_out_by(policy.into().into(), limit, true)
    }

    pub(crate) fn timed_out_by(policy: Name, limit: Duration, reached_inner: bool) -> Self {
        Self::new(policy, Why::TimedOut { limit }, reached_inner)
    }

    /// The circuit breaker `policy` is open, and admits a probe after `retry_after`.
    pub fn circuit_open(policy: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self::circuit_open_by(policy.into().into(), Some(retry_after))
    }

    #[inline]
    pub(crate) fn circuit_open_by(policy: Name, retry_after: Option<Duration>) -> Self {
        Self::new(policy, Why::CircuitOpen { retry_after }, false)
    }

    /// The bulkhead `policy` has neither a permit nor room in its queue.
    pub fn bulkhead_full(policy: impl Into<Cow<'static, str>>) -> Self {
        Self::bulkhead_full_by(policy.into().into())
    }

    pub(crate) fn bulkhead_full_by(policy: Name) -> Self {
        Self::new(policy, Why::BulkheadFull, false)
    }

    /// The call `waited` in the queue of the bulkhead `policy`, and then gave up.
    pub fn queue_timed_out(policy: impl Into<Cow<'static, str>>, waited: Duration) -> Self {
        Self::queue_timed_out_by(policy.into().into(), waited)
    }

    pub(crate) fn queue_timed_out_by(policy: Name, waited: Duration) -> Self {
        Self::new(policy, Why::QueueTimedOut { waited }, false)
    }

    #[cfg(feature = "idempotency")]
    pub(crate) fn idempotency_by(policy: Name, why: Idempotency) -> Self {
        Self::new(policy, Why::Idempotency(why), why.reached_inner())
    }

    /// The same from within an operation, which may have had its effect by then.
    #[cfg(feature = "idempotency")]
    pub(crate) fn idempotency_within(policy: Name, why: Idempotency) -> Self {
        Self::new(policy, Why::Idempotency(why), true)
    }

    /// The rejection in `error`, if there is one.
    ///
    /// Looks at `error` itself, at everything along its `source()`, and inside `io::Error`. The outermost is returned.
    #[must_use]
    pub fn find(error: &(dyn StdError + 'static)) -> Option<Self> {
        Reason::find(error).map(|reason| Self { reason: reason.clone() })
    }

    /// Why the call was refused.
    #[must_use]
    pub fn kind(&self) -> RejectedKind {
        match self.reason.why {
            Why::TimedOut { .. } => RejectedKind::TimedOut,
            Why::CircuitOpen { .. } => RejectedKind::CircuitOpen,
            Why::BulkheadFull => RejectedKind::BulkheadFull,
            Why::QueueTimedOut { .. } => RejectedKind::QueueTimedOut,
            Why::Idempotency(why) => why.kind(),
        }
    }

    /// The name of the policy that refused.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.reason.policy.as_str()
    }

    /// How long from the refusal on another call would be refused as well, where the policy knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.reason.retry_after()
    }

    /// The attempt that was interrupted, of a rejection whose kind is [`OutcomeUnknown`](RejectedKind::OutcomeUnknown).
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        match self.reason.why {
            Why::Idempotency(Idempotency::OutcomeUnknown { attempt }) => Some(attempt),
            _ => None,
        }
    }

    /// Whether what lies inside the policy may have been called.
    ///
    /// False is a promise: nothing was sent. True for a timeout that interrupted a call, for an idempotency key under
    /// which an operation was or may have been carried out, and for every rejection that a retry returns after an
    /// earlier attempt of the same call may have been sent.
    #[must_use]
    pub fn reached_inner(&self) -> bool {
        self.reason.reached_inner()
    }
}

impl Reason {
    /// The outermost rejection in `error`.
    ///
    /// The first step is inlined, where the compiler knows the type of the error: most are settled by it.
    #[inline]
    pub(crate) fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Self::find_below(error.get_ref()?);
        }
        Self::of(error).or_else(|| Self::find_below(error.source()?))
    }

    fn find_below<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        chain(error).find_map(Self::of)
    }

    #[inline]
    fn of<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let reason = error.downcast_ref::<Self>();
        reason.or_else(|| error.downcast_ref::<Rejected>().map(|rejected| &rejected.reason))
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.why {
            Why::TimedOut { .. } => Verdict::Transient { retry_after: None },
            Why::CircuitOpen { .. } | Why::BulkheadFull | Why::QueueTimedOut { .. } | Why::Idempotency(_) => {
                Verdict::Ignored
            }
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.why {
            Why::CircuitOpen { retry_after } => retry_after,
            Why::Idempotency(Idempotency::InProgress { retry_after }) => Some(retry_after),
            Why::TimedOut { .. } | Why::BulkheadFull | Why::QueueTimedOut { .. } | Why::Idempotency(_) => None,
        }
    }

    /// Whether asking again cannot have another answer, so that no classifier is asked.
    #[inline]
    pub(crate) fn is_final(&self) -> bool {
        match self.why {
            Why::Idempotency(why) => !matches!(
                why,
                Idempotency::InProgress { .. } | Idempotency::StoreUnavailable { .. }
            ),
            Why::TimedOut { .. } | Why::CircuitOpen { .. } | Why::BulkheadFull | Why::QueueTimedOut { .. } => false,
        }
    }

    pub(crate) fn reached_inner(&self) -> bool {
        self.reached_inner.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_reached_inner(&self) {
        self.reached_inner.store(true, Ordering::Relaxed);
    }
}

impl Idempotency {
    fn kind(self) -> RejectedKind {
        match self {
            Self::InProgress { .. } => RejectedKind::InProgress,
            Self::KeyMismatch => RejectedKind::KeyMismatch,
            Self::OutcomeUnknown { .. } => RejectedKind::OutcomeUnknown,
            Self::KeyCancelled => RejectedKind::KeyCancelled,
            Self::NotReplayable => RejectedKind::NotReplayable,
            Self::NotStorable { .. } => RejectedKind::NotStorable,
            Self::NoFingerprint => RejectedKind::NoFingerprint,
            Self::StoreUnavailable { .. } => RejectedKind::StoreUnavailable,
        }
    }

    #[cfg(feature = "idempotency")]
    fn reached_inner(self) -> bool {
        match self {
            // Of one in progress somebody else has sent it: its effect may happen.
            // And one that was closed may have been closed over an attempt.
            Self::OutcomeUnknown { .. }
            | Self::NotReplayable
            | Self::NotStorable { .. }
            | Self::InProgress { .. }
            | Self::KeyCancelled => true,
            Self::KeyMismatch | Self::NoFingerprint | Self::StoreUnavailable { .. } => false,
        }
    }
}

/// `error` and everything below it, outermost first.
///
/// `io::Error` and [`Error`] both answer `source()` with the source of what they hold, and would hide it.
fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
        Some(error)
    })
}

/// The outermost `E` in `error`, also where [`Error`] hides it.
pub(crate) fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    chain(error).find_map(|error| {
        let found = error.downcast_ref::<E>();
        found.or_else(|| match error.downcast_ref::<Error<E>>() {
            Some(Error::Inner(inner)) => Some(inner),
            Some(Error::Rejected(_)) | None => None,
        })
    })
}

impl Clone for Reason {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            why: self.why,
            reached_inner: AtomicBool::new(self.reached_inner()),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy();
        match self.reason.why {
            Why::TimedOut { .. } => write!(f, "timed out at `{policy}`"),
            Why::CircuitOpen { .. } => write!(f, "circuit breaker `{policy}` is open"),
            Why::BulkheadFull => write!(f, "bulkhead `{policy}` is full"),
            Why::QueueTimedOut { .. } => write!(f, "bulkhead `{policy}` had no permit in time"),
            Why::Idempotency(why) => match why {
                Idempotency::InProgress { .. } => write!(f, "an operation with this key is in progress at `{policy}`"),
                Idempotency::KeyMismatch => write!(f, "the key belongs to another request at `{policy}`"),
                Idempotency::OutcomeUnknown { .. } => {
                    write!(f, "the outcome of the operation is unknown at `{policy}`")
                }
                Idempotency::KeyCancelled => write!(f, "the key was cancelled at `{policy}`"),
                Idempotency::NotReplayable => write!(f, "the outcome cannot be replayed at `{policy}`"),
                Idempotency::NotStorable { .. } => write!(f, "the outcome cannot be stored at `{policy}`"),
                Idempotency::NoFingerprint => write!(f, "the request cannot be told apart from others at `{policy}`"),
                Idempotency::StoreUnavailable { .. } => write!(f, "the store of `{policy}` is not available"),
            },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::TimedOut { limit } => write!(f, "no answer within {limit:?}"),
            Why::CircuitOpen {
                retry_after: Some(wait),
            } => write!(f, "it may be tried again in {wait:?}"),
            Why::CircuitOpen { retry_after: None } => f.write_str("nobody can say for how long"),
            Why::BulkheadFull => f.write_str("every permit is taken and the queue has no room"),
            Why::QueueTimedOut { waited } => write!(f, "waited for {waited:?}"),
            Why::Idempotency(why) => match why {
                Idempotency::InProgress { retry_after } => write!(f, "ask again in {retry_after:?}"),
                Idempotency::KeyMismatch => f.write_str("a new request needs a new key"),
                Idempotency::OutcomeUnknown { attempt } => {
                    write!(f, "attempt {attempt} was interrupted and may have had its effect")
                }
                Idempotency::KeyCancelled => f.write_str("nothing will be done under it any more"),
                Idempotency::NotReplayable => {
                    f.write_str("the operation was carried out, its outcome not kept readable")
                }
                Idempotency::NotStorable { limit: Some(limit) } => {
                    write!(
                        f,
                        "the operation was carried out, its outcome is larger than {limit} bytes"
                    )
                }
                Idempotency::NotStorable { limit: None } => {
                    f.write_str("the operation was carried out, its outcome has no encoding")
                }
                Idempotency::NoFingerprint => f.write_str("it cannot be written as JSON"),
                Idempotency::StoreUnavailable { reason } if self.reached_inner() => {
                    write!(f, "{reason}; something may have been done before")
                }
                Idempotency::StoreUnavailable { reason } => write!(f, "{reason}; nothing was done"),
            },
        }
    }
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("kind", &self.kind())
            .field("policy", &self.policy())
            .field("retry_after", &self.retry_after())
            .field("reached_inner", &self.reached_inner())
            .finish()
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reason({self})")
    }
}

impl StdError for Rejected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.reason)
    }
}

impl StdError for Reason {}
