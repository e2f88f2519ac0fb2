//! The driver: everything that is polled.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};
use tracing::level_filters::LevelFilter;

use super::config::Abandoned;
use super::control::{Counted, Refusal, Ticket};
use super::event::{End, Finish};
use super::outside::Outside;
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
    call: Call,
    times: Times,
    /// `None` when the call has ended, or was never made.
    #[pin]
    operation: Option<F>,
    breaker: P,
}

/// How far a call has come.
// With a tag of its own, as one that hides in a ticket is computed at each look; and none is larger than a ticket.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Call {
    New,
    Admitted(Ticket),
    Rejected {
        retry_after: u64,
    },
    /// The same, and nobody can say for how long.
    RejectedForNow,
    Ended,
}

/// When a call was admitted and when it was first pending, in nanoseconds; each is taken only if a rule asks for it.
// Plain numbers: options are moved in twice as many pieces.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    admitted: u64,
    pending: u64,
}

/// A time that was not taken.
const NEVER: u64 = u64::MAX;

impl Times {
    pub(crate) const NONE: Self = Self {
        admitted: NEVER,
        pending: NEVER,
    };

    #[inline]
    pub(crate) fn of_admitted(breaker: &Breaker) -> Self {
        Self {
            admitted: breaker.slow_after.map_or(NEVER, |_| breaker.now()),
            ..Self::NONE
        }
    }

    /// Notes the first `Pending`.
    #[inline]
    fn pend(&mut self, breaker: &Breaker) {
        if self.pending == NEVER && matches!(breaker.abandoned, Abandoned::FailureAfter(_)) {
            self.pending = breaker.now();
        }
    }

    fn is_slow(self, breaker: &Breaker) -> bool {
        let lasted = |limit| breaker.now().saturating_sub(self.admitted) >= limit;
        self.admitted != NEVER && breaker.slow_after.is_some_and(lasted)
    }

    fn is_pending_for(self, breaker: &Breaker, limit: Duration) -> bool {
        self.pending != NEVER && breaker.now().saturating_sub(self.pending) >= nanos(limit)
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
    fn abandon(&self, ticket: Ticket, times: Times) {
        let failed = match self.abandoned {
            Abandoned::Ignore => false,
            Abandoned::Failure => true,
            Abandoned::FailureAfter(limit) => times.is_pending_for(self, limit),
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
        self.end(ticket, Times::NONE, ending);
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
            call: Call::New,
            times: Times::NONE,
            operation: Some(operation),
            breaker,
        }
    }

    /// The inner service was called.
    #[inline]
    pub(crate) fn started(breaker: P, ticket: Ticket, times: Times, operation: F) -> Self {
        Self {
            call: Call::Admitted(ticket),
            times,
            operation: Some(operation),
            breaker,
        }
    }

    pub(crate) fn rejected(breaker: P, refusal: Refusal) -> Self {
        Self {
            call: match refusal.retry_after {
                Some(retry_after) => Call::Rejected { retry_after },
                None => Call::RejectedForNow,
            },
            times: Times::NONE,
            operation: None,
            breaker,
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
        let ticket = match *this.call {
            Call::Admitted(ticket) => ticket,
            Call::New => match breaker.admit() {
                Ok(ticket) => {
                    *this.times = Times::of_admitted(breaker);
                    ticket
                }
                Err(refusal) => {
                    *this.call = Call::Ended;
                    this.operation.set(None);
                    return Poll::Ready(Err(breaker.rejected(refusal.retry_after).into()));
                }
            },
            Call::Rejected { .. } | Call::RejectedForNow | Call::Ended => {
                return poll_without_ticket(this.call, breaker).map(|error| Err(error.into()));
            }
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
        // A response is judged apart from an error: a success then makes nothing that only a failure has.
        let verdict = match &result {
            Ok(response) => Some(view.judgement.judge(Ok(response)).verdict),
            Err(_) => None,
        };
        if verdict == Some(Verdict::Success) && breaker.takes_success_as_it_is() {
            guard.disarm();
            breaker.succeed(ticket);
        } else {
            let judged = match verdict {
                Some(verdict) => Judged::response(verdict),
                None => view.judgement.judge(result.as_ref()),
            };
            guard.disarm();
            breaker.finish(ticket, *this.times, &judged);
        }
        this.operation.set(None);
        Poll::Ready(result)
    }
}

/// The answer to a call that was rejected before it was polled.
#[cold]
#[inline(never)]
fn poll_without_ticket(call: &mut Call, breaker: &Breaker) -> Poll<Rejected> {
    let retry_after = match *call {
        Call::Rejected { retry_after } => Some(retry_after),
        Call::RejectedForNow => None,
        Call::New | Call::Admitted(_) | Call::Ended => return polled_after_completion("circuit breaker"),
    };
    *call = Call::Ended;
    Poll::Ready(breaker.rejected(retry_after))
}

#[pinned_drop]
impl<P: Held, F> PinnedDrop for ResponseFuture<P, F> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if let Call::Admitted(ticket) = self.call {
            self.abandon(ticket);
        }
    }
}

impl<P: Held, F> ResponseFuture<P, F> {
    #[cold]
    #[inline(never)]
    fn abandon(&self, ticket: Ticket) {
        let breaker = &*self.breaker.circuit_breaker().view.breaker;
        breaker.abandon(ticket, self.times);
    }
}

impl<P: Held, F> fmt::Debug for ResponseFuture<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("circuit_breaker", &self.breaker.circuit_breaker().name())
            .finish_non_exhaustive()
    }
}
