//! The driver: everything that is polled.

use std::error::Error;
use std::fmt;
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
use crate::{Classify, Rejected, Verdict};

/// A call under a [`CircuitBreaker`](super::CircuitBreaker).
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, F> {
    breaker: P,
    call: Call,
    times: Times,
    /// `None` when the call has ended, or was never made.
    #[pin]
    operation: Option<F>,
}

/// How far a call has come.
enum Call {
    New,
    Admitted(Ticket),
    Rejected(Refusal),
    Ended,
}

/// When a call was admitted and when it was first pending, in nanoseconds; each is taken only if a rule asks for it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    admitted: Option<u64>,
    pending: Option<u64>,
}

impl Times {
    #[inline]
    pub(crate) fn of_admitted(breaker: &Breaker) -> Self {
        Self {
            admitted: breaker.slow_after.map(|_| breaker.now()),
            pending: None,
        }
    }

    /// Notes the first `Pending`.
    #[inline]
    fn pend(&mut self, breaker: &Breaker) {
        if self.pending.is_none() && matches!(breaker.abandoned, Abandoned::FailureAfter(_)) {
            self.pending = Some(breaker.now());
        }
    }

    fn is_slow(self, breaker: &Breaker) -> bool {
        let times = breaker.slow_after.zip(self.admitted);
        times.is_some_and(|(limit, admitted)| breaker.now().saturating_sub(admitted) >= limit)
    }
}

/// How a call ended, and what that means.
#[derive(Clone, Copy)]
struct Ending<'a> {
    end: End,
    /// Whether it counts as failed; `None` if it does not count.
    failed: Option<bool>,
    verdict: Option<Verdict>,
    error: Option<&'a (dyn Error + 'static)>,
}

impl Breaker {
    /// Whether a success is all there is to know of a call: nobody listens, and nobody asks how long it took.
    #[inline]
    fn takes_success_as_it_is(&self) -> bool {
        self.is_plain && !heard(false, LevelFilter::TRACE)
    }

    /// Takes the ticket of a call that succeeded, of which nothing else is asked.
    #[inline(never)]
    fn succeed(&self, ticket: Ticket) {
        self.cell.exit_good(ticket, self);
    }

    /// Takes the ticket of a call with a result.
    #[inline(never)]
    pub(crate) fn finish(&self, ticket: Ticket, times: Times, judged: &Judged<'_>) {
        let end = End::of(judged.verdict);
        let ending = Ending {
            end,
            failed: match end {
                End::Success => Some(false),
                End::Failure => Some(true),
                End::Ignored | End::Abandoned | End::Panicked => None,
            },
            verdict: Some(judged.verdict),
            error: judged.error,
        };
        self.end(ticket, times, ending);
    }

    /// Takes the ticket of a call that was dropped.
    #[cold]
    #[inline(never)]
    fn abandon(&self, ticket: Ticket, times: Times) {
        let failed = match self.abandoned {
            Abandoned::Ignore => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => times
                .pending
                .is_some_and(|pending| self.now().saturating_sub(pending) >= nanos(limit)),
        };
        let ending = Ending {
            end: End::Abandoned,
            failed: failed.then_some(true),
            verdict: None,
            error: None,
        };
        self.end(ticket, times, ending);
    }

    /// Takes the ticket of a call that panicked.
    #[cold]
    #[inline(never)]
    fn panicked(&self, ticket: Ticket) {
        let ending = Ending {
            end: End::Panicked,
            failed: Some(true),
            verdict: None,
            error: None,
        };
        self.end(ticket, Times::default(), ending);
    }

    fn end(&self, ticket: Ticket, times: Times, ending: Ending<'_>) {
        let Ending {
            end,
            failed,
            verdict,
            error,
        } = ending;
        let slow = failed.is_some() && times.is_slow(self);
        let sample = failed.map(|failed| Sample { failed, slow });
        let retry_after = verdict.and_then(Verdict::retry_after);
        let counted = self.cell.exit(ticket, sample, retry_after, self) == Counted::Yes;
        let is_usual = end == End::Success && !slow;
        let level = if is_usual {
            LevelFilter::TRACE
        } else {
            LevelFilter::DEBUG
        };
        if heard(self.kind.listener.is_some(), level) {
            self.emit_finished(Finish {
                end,
                verdict,
                slow,
                counted,
                error,
            });
        }
    }
}

/// Has a call that panics counted as a failure while the panic passes through.
pub(crate) struct OnPanic<'a> {
    breaker: &'a Breaker,
    ticket: Ticket,
    armed: bool,
}

impl<'a> OnPanic<'a> {
    #[inline]
    pub(crate) fn new(breaker: &'a Breaker, ticket: Ticket) -> Self {
        Self {
            breaker,
            ticket,
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
            self.breaker.panicked(self.ticket);
        }
    }
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[inline]
    pub(crate) fn new(breaker: P, operation: F) -> Self {
        Self {
            breaker,
            call: Call::New,
            times: Times::default(),
            operation: Some(operation),
        }
    }

    /// The inner service was called.
    #[inline]
    pub(crate) fn started(breaker: P, ticket: Ticket, times: Times, operation: F) -> Self {
        Self {
            breaker,
            call: Call::Admitted(ticket),
            times,
            operation: Some(operation),
        }
    }

    pub(crate) fn rejected(breaker: P, refusal: Refusal) -> Self {
        Self {
            breaker,
            call: Call::Rejected(refusal),
            times: Times::default(),
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
        let ticket = if let Call::Admitted(ticket) = *this.call {
            ticket
        } else if let Call::New = this.call {
            match breaker.admit() {
                Ok(ticket) => {
                    *this.times = Times::of_admitted(breaker);
                    ticket
                }
                Err(refusal) => {
                    *this.call = Call::Ended;
                    this.operation.set(None);
                    return Poll::Ready(Err(breaker.rejected(refusal).into()));
                }
            }
        } else if let Call::Rejected(refusal) = *this.call {
            *this.call = Call::Ended;
            return Poll::Ready(Err(breaker.rejected(refusal).into()));
        } else {
            return polled_after_completion("circuit breaker");
        };
        // Whoever panics below is counted by the guard, and by nobody else.
        *this.call = Call::Ended;
        let Some(operation) = this.operation.as_mut().as_pin_mut() else {
            return polled_after_completion("circuit breaker");
        };
        let guard = OnPanic::new(breaker, ticket);
        let Poll::Ready(result) = operation.poll(cx) else {
            guard.disarm();
            this.times.pend(breaker);
            *this.call = Call::Admitted(ticket);
            return Poll::Pending;
        };
        let judged = view.judgement.judge(result.as_ref());
        guard.disarm();
        if matches!(judged.verdict, Verdict::Success) && breaker.takes_success_as_it_is() {
            breaker.succeed(ticket);
        } else {
            breaker.finish(ticket, *this.times, &judged);
        }
        this.operation.set(None);
        Poll::Ready(result)
    }
}

#[pinned_drop]
impl<P: Held, F> PinnedDrop for ResponseFuture<P, F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let Call::Admitted(ticket) = *this.call {
            let breaker = &*this.breaker.circuit_breaker().view.breaker;
            breaker.abandon(ticket, *this.times);
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
