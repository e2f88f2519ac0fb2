//! The driver: everything that is polled.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::{pin_project, pinned_drop};
use tracing::level_filters::LevelFilter;

use super::cell::{Counted, Outside, Refusal, Ticket};
use super::config::Abandoned;
use super::event::{End, Finish};
use super::policy::{Breaker, Held};
use super::window::Sample;
use crate::clock::nanos;
use crate::event::heard;
use crate::judgement::Judged;
use crate::poll::polled_after_completion;
use crate::{Classify, Rejected};

/// A call under a [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    breaker: P,
    call: Call,
    /// `None` when the call has ended, or was never made.
    #[pin]
    operation: Option<F>,
}

/// How far a call has come.
enum Call {
    New,
    Admitted(Admitted),
    Rejected(Refusal),
    Ended,
}

/// A call that is under way, and its times, in nanoseconds; each is taken only if a rule asks for it.
#[derive(Clone, Copy)]
pub(crate) struct Admitted {
    ticket: Ticket,
    since: Option<u64>,
    pending_since: Option<u64>,
}

impl Admitted {
    #[inline]
    pub(crate) fn new(breaker: &Breaker, ticket: Ticket) -> Self {
        Self {
            ticket,
            since: breaker.slow_after.map(|_| breaker.now()),
            pending_since: None,
        }
    }

    /// Takes the ticket back. `verdict` and `error` are of the result, if there was one.
    #[inline]
    fn end(self, breaker: &Breaker, end: End, failed: Option<bool>, judged: &Judged<'_>, has_result: bool) {
        let slow = failed.is_some() && self.is_slow(breaker);
        let sample = failed.map(|failed| Sample { failed, slow });
        let verdict = has_result.then_some(judged.verdict);
        let retry_after = verdict.and_then(crate::Verdict::retry_after);
        let counted = breaker.cell.exit(self.ticket, sample, retry_after, breaker);
        if heard(breaker.listener.is_some(), level(end, slow)) {
            breaker.emit_finished(Finish {
                end,
                verdict,
                slow,
                counted: counted == Counted::Yes,
                error: judged.error,
            });
        }
    }

    #[inline]
    fn is_slow(&self, breaker: &Breaker) -> bool {
        let Some((limit, since)) = breaker.slow_after.zip(self.since) else {
            return false;
        };
        breaker.now().saturating_sub(since) >= limit
    }

    #[inline]
    pub(crate) fn judged(self, breaker: &Breaker, judged: &Judged<'_>) {
        let end = End::of(judged.verdict);
        let failed = match end {
            End::Success => Some(false),
            End::Ignored => None,
            End::Failure | End::Abandoned | End::Panicked => Some(true),
        };
        self.end(breaker, end, failed, judged, true);
    }

    #[cold]
    #[inline(never)]
    fn panicked(self, breaker: &Breaker) {
        self.end(breaker, End::Panicked, Some(true), &NOTHING, false);
    }

    #[cold]
    #[inline(never)]
    fn abandoned(self, breaker: &Breaker) {
        let failed = match breaker.abandoned {
            Abandoned::Ignore => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => self
                .pending_since
                .is_some_and(|since| breaker.now().saturating_sub(since) >= nanos(limit)),
        };
        self.end(breaker, End::Abandoned, failed.then_some(true), &NOTHING, false);
    }

    /// Notes the first `Pending`.
    #[inline]
    fn pend(&mut self, breaker: &Breaker) {
        if self.pending_since.is_none() && matches!(breaker.abandoned, Abandoned::FailureAfter(_)) {
            self.pending_since = Some(breaker.now());
        }
    }
}

/// In place of a result.
const NOTHING: Judged<'static> = Judged {
    verdict: crate::Verdict::Ignored,
    error: None,
    rejected: None,
};

fn level(end: End, slow: bool) -> LevelFilter {
    if end == End::Success && !slow {
        LevelFilter::TRACE
    } else {
        LevelFilter::DEBUG
    }
}

/// Has a call that panics counted as a failure while the panic passes through.
pub(crate) struct OnPanic<'a> {
    breaker: &'a Breaker,
    admitted: Admitted,
    armed: bool,
}

impl<'a> OnPanic<'a> {
    #[inline]
    pub(crate) fn new(breaker: &'a Breaker, admitted: Admitted) -> Self {
        Self {
            breaker,
            admitted,
            armed: true,
        }
    }

    /// Nothing has panicked.
    #[inline]
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for OnPanic<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.armed {
            self.admitted.panicked(self.breaker);
        }
    }
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(breaker: P, operation: F) -> Self {
        Self {
            breaker,
            call: Call::New,
            operation: Some(operation),
        }
    }

    /// The inner service was called.
    #[inline]
    pub(crate) fn started(breaker: P, admitted: Admitted, operation: F) -> Self {
        Self {
            breaker,
            call: Call::Admitted(admitted),
            operation: Some(operation),
        }
    }

    pub(crate) fn rejected(breaker: P, refusal: Refusal) -> Self {
        Self {
            breaker,
            call: Call::Rejected(refusal),
            operation: None,
        }
    }
}

impl<P, F, T, E> Future for ResponseFuture<P, F>
where
    P: Held,
    P::Classifier: Classify<T, E>,
    F: Future<Output = Result<T, E>>,
    E: From<Rejected>,
{
    type Output = Result<T, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let view = &*this.breaker.circuit_breaker().view;
        let breaker = &*view.breaker;
        let mut admitted = match mem::replace(this.call, Call::Ended) {
            Call::Admitted(admitted) => admitted,
            Call::New => match breaker.admit() {
                Ok(ticket) => Admitted::new(breaker, ticket),
                Err(refusal) => {
                    this.operation.set(None);
                    return Poll::Ready(Err(breaker.rejected(refusal).into()));
                }
            },
            Call::Rejected(refusal) => return Poll::Ready(Err(breaker.rejected(refusal).into())),
            Call::Ended => return polled_after_completion("circuit breaker"),
        };
        let Some(operation) = this.operation.as_mut().as_pin_mut() else {
            return polled_after_completion("circuit breaker");
        };
        let guard = OnPanic::new(breaker, admitted);
        let Poll::Ready(result) = operation.poll(cx) else {
            guard.disarm();
            admitted.pend(breaker);
            *this.call = Call::Admitted(admitted);
            return Poll::Pending;
        };
        let judged = view.judgement.judge(result.as_ref());
        guard.disarm();
        admitted.judged(breaker, &judged);
        this.operation.set(None);
        Poll::Ready(result)
    }
}

#[pinned_drop]
impl<P: Held, F> PinnedDrop for ResponseFuture<P, F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let Call::Admitted(admitted) = mem::replace(this.call, Call::Ended) {
            admitted.abandoned(&this.breaker.circuit_breaker().view.breaker);
        }
    }
}

impl<P: Held, F> fmt::Debug for ResponseFuture<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("circuit_breaker", &self.breaker.circuit_breaker().name())
            .finish_non_exhaustive()
    }
}
