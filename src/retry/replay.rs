//! How a request is kept for another attempt.

use std::fmt;
use std::sync::Arc;

use super::attempt::{Attempt, Cause};

/// Keeps a request for another attempt.
///
/// A function `Fn(&Req) -> Option<Req>` is one: `.replay(reqwest::Request::try_clone)`.
pub trait Replay<Req> {
    /// A copy to keep while `request` is sent, or `None` if it cannot be sent twice.
    ///
    /// Not asked before the last attempt, which is sent the request itself.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Whether `kept` may be sent after an attempt that ended by `cause`. Asked before each wait.
    fn allows(&self, kept: &Req, cause: &Cause<'_>) -> bool {
        let _ = (kept, cause);
        true
    }

    /// Changes a request just before it is sent: a header with the attempt's number, a fresh signature.
    fn prepare(&self, request: &mut Req, attempt: Attempt) {
        let _ = (request, attempt);
    }
}

/// Keeps a clone: what a [`Retry`](super::Retry) does as a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClone;

impl<Req: Clone> Replay<Req> for ByClone {
    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

impl<Req, F: Fn(&Req) -> Option<Req>> Replay<Req> for F {
    #[inline]
    fn copy(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

type Hook<Req> = dyn Fn(&mut Req, Attempt) + Send + Sync;

/// Runs a hook before each attempt; made by `before_attempt`.
pub struct Prepared<R, Req> {
    pub(crate) replay: R,
    pub(crate) hook: Arc<Hook<Req>>,
}

impl<R: Replay<Req>, Req> Replay<Req> for Prepared<R, Req> {
    fn copy(&self, request: &Req) -> Option<Req> {
        self.replay.copy(request)
    }

    fn allows(&self, kept: &Req, cause: &Cause<'_>) -> bool {
        self.replay.allows(kept, cause)
    }

    fn prepare(&self, request: &mut Req, attempt: Attempt) {
        self.replay.prepare(request, attempt);
        (self.hook)(request, attempt);
    }
}

impl<R: Clone, Req> Clone for Prepared<R, Req> {
    fn clone(&self) -> Self {
        Self {
            replay: self.replay.clone(),
            hook: Arc::clone(&self.hook),
        }
    }
}

impl<R: fmt::Debug, Req> fmt::Debug for Prepared<R, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.replay).finish()
    }
}
