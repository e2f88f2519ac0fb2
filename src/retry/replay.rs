//! How a request is kept for another attempt.

use std::fmt;
use std::sync::Arc;

use super::attempt::{Attempt, Cause};

/// Keeps a request for another attempt.
///
/// A function `Fn(&Req) -> Option<Req>` is one: `retry.replay(reqwest::Request::try_clone)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep a request of the type `{Req}`",
    label = "needs another way to keep its requests",
    note = "requests that are not `Clone`: `retry.replay(|request: &{Req}| ..)`, which makes a copy or says `None`",
    note = "HTTP requests: `http::retry()` is the preset; for `reqwest` with the feature `reqwest-0_13` or `reqwest-0_12`"
)]
pub trait Replay<Req> {
    /// What is sent: mostly the request as it came.
    type Sent;

    /// Makes a request ready to be kept and sent.
    fn accept(&self, request: Req) -> Self::Sent;

    /// A copy to keep while `request` is sent, or `None` if it cannot be sent twice.
    ///
    /// Not asked before the last attempt, which is sent what was kept.
    fn copy(&self, request: &Self::Sent) -> Option<Self::Sent>;

    /// Whether `kept` may be sent after an attempt that ended by `cause`. Asked before each wait.
    fn allows(&self, kept: &Self::Sent, cause: &Cause<'_>) -> bool {
        let _ = (kept, cause);
        true
    }

    /// Changes a request just before it is sent: a header with the attempt's number, a fresh signature.
    fn prepare(&self, request: &mut Self::Sent, attempt: Attempt) {
        let _ = (request, attempt);
    }
}

/// Keeps a clone: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClone;

#[diagnostic::do_not_recommend]
impl<Req: Clone> Replay<Req> for ByClone {
    type Sent = Req;

    #[inline]
    fn accept(&self, request: Req) -> Req {
        request
    }

    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<Req, F: Fn(&Req) -> Option<Req>> Replay<Req> for F {
    type Sent = Req;

    #[inline]
    fn accept(&self, request: Req) -> Req {
        request
    }

    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

type Hook<Sent> = dyn Fn(&mut Sent, Attempt) + Send + Sync;

/// Runs a hook before each attempt; made by [`Retry::before_attempt`](super::Retry::before_attempt).
pub struct Prepared<R, Sent> {
    replay: R,
    hook: Arc<Hook<Sent>>,
}

impl<R, Sent> Prepared<R, Sent> {
    pub(crate) fn new(replay: R, hook: impl Fn(&mut Sent, Attempt) + Send + Sync + 'static) -> Self {
        Self {
            replay,
            hook: Arc::new(hook),
        }
    }
}

impl<Req, R: Replay<Req>> Replay<Req> for Prepared<R, R::Sent> {
    type Sent = R::Sent;

    fn accept(&self, request: Req) -> R::Sent {
        self.replay.accept(request)
    }

    fn copy(&self, request: &R::Sent) -> Option<R::Sent> {
        self.replay.copy(request)
    }

    fn allows(&self, kept: &R::Sent, cause: &Cause<'_>) -> bool {
        self.replay.allows(kept, cause)
    }

    fn prepare(&self, request: &mut R::Sent, attempt: Attempt) {
        self.replay.prepare(request, attempt);
        (self.hook)(request, attempt);
    }
}

impl<R: Clone, Sent> Clone for Prepared<R, Sent> {
    fn clone(&self) -> Self {
        Self {
            replay: self.replay.clone(),
            hook: Arc::clone(&self.hook),
        }
    }
}

impl<R: fmt::Debug, Sent> fmt::Debug for Prepared<R, Sent> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.replay).finish()
    }
}
