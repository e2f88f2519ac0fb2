//! The policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::TimeoutConfig;
use super::event::Event;
use super::future::ResponseFuture;
use super::layer::RequestTimeoutLayer;
use crate::Rejected;
use crate::rare::Rare;
use crate::rejected::Name;

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Limits how long a call may take.
///
/// See the [module](super) for when to use it. A clone is the same policy.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::{Rejected, timeout::Timeout};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let timeout = Timeout::new(Duration::from_millis(50)).name("inventory");
///
/// let quick = timeout.call(async { Ok::<_, Rejected>(3) }).await;
/// assert_eq!(quick.unwrap(), 3);
///
/// let hanging = timeout.call(std::future::pending::<Result<u32, Rejected>>()).await;
/// assert_eq!(hanging.unwrap_err().policy(), "inventory");
/// # }
/// ```
#[derive(Clone)]
pub struct Timeout {
    pub(crate) limit: Duration,
    pub(crate) name: &'static str,
    /// What few have is kept apart: the Tower face clones a policy for each call.
    custom: Rare<Arc<Custom>>,
    #[cfg(feature = "metrics")]
    pub(crate) meters: Arc<crate::event::Meters<{ super::event::OUTCOMES }>>,
}

/// A name made at run time, or a listener.
#[derive(Clone)]
pub(crate) struct Custom {
    /// In place of the policy's own.
    name: Name,
    pub(crate) listener: Option<Listener>,
}

impl Timeout {
    /// At most `limit` for each call: anything from 0, which fails every call that is not ready at once, to
    /// `Duration::MAX`, which fails none.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self::named(limit, "timeout")
    }

    /// The same, called `total timeout` in logs and errors: for the outside of a retry.
    ///
    /// It hides the error of the attempts: give the retry a `max_elapsed` below it.
    #[must_use]
    pub fn total(limit: Duration) -> Self {
        Self::named(limit, "total timeout")
    }

    /// The same, called `attempt timeout` in logs and errors: for the inside of a retry.
    #[must_use]
    pub fn attempt(limit: Duration) -> Self {
        Self::named(limit, "attempt timeout")
    }

    /// As `config` says: it cannot be wrong.
    #[must_use]
    pub fn from_config(config: TimeoutConfig) -> Self {
        let timeout = Self::new(config.limit);
        match config.name {
            Some(name) => timeout.name(name),
            None => timeout,
        }
    }

    fn named(limit: Duration, name: &'static str) -> Self {
        Self {
            limit,
            name,
            custom: Rare::NONE,
            #[cfg(feature = "metrics")]
            meters: Arc::new(crate::event::Meters::new()),
        }
    }

    /// What the policy is called in events and errors. Default: `timeout`.
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        match (name.into(), self.custom.as_ref()) {
            (Cow::Borrowed(name), None) => self.name = name,
            (name, _) => self.custom_mut().name = name.into(),
        }
        self
    }

    /// Hears of every call that timed out, was dropped, or had an answer in time.
    ///
    /// Called on the task of the call. A panic in it is logged, and otherwise ignored.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.custom_mut().listener = Some(Arc::new(listener));
        self
    }

    fn custom_mut(&mut self) -> &mut Custom {
        let name = Name::new(self.name);
        let custom = || Arc::new(Custom { name, listener: None });
        Arc::make_mut(self.custom.get_or_insert_with(custom))
    }

    /// Whether there may be a listener.
    #[inline]
    pub(crate) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    pub(crate) fn full_name(&self) -> Name {
        let custom = self.custom.as_ref();
        custom.map_or(Name::new(self.name), |custom| custom.name.clone())
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.custom.as_ref().and_then(|custom| custom.listener.as_ref())
    }

    /// How long a call may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs `operation`, and drops it if it has no result in time.
    ///
    /// The time runs from the first poll; that poll itself is not interrupted. A result that is there when the time is
    /// up wins. An operation that is ready at once costs no timer.
    ///
    /// # Errors
    ///
    /// Those of `operation`, and a [`Rejected`] of the kind [`TimedOut`](crate::RejectedKind::TimedOut).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `operation`, and is no timeout.
    ///
    /// # Panics
    ///
    /// When `operation` is pending and there is no tokio runtime with time enabled.
    #[inline]
    pub fn call<F, T, E>(&self, operation: F) -> ResponseFuture<&Self, F>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Rejected>,
    {
        ResponseFuture::new(self, operation)
    }

    /// A Tower layer whose limit is computed from each request; the limit given before does not matter then.
    ///
    /// The limit is computed in `call`, and the time runs from the first poll: waiting until the inner service is ready is
    /// not limited, as there is no request yet.
    pub fn per_request<Req, L>(&self, limit: L) -> RequestTimeoutLayer<L>
    where
        L: Fn(&Req) -> Duration,
    {
        RequestTimeoutLayer::new(self.clone(), limit)
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("name", &self.full_name())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
