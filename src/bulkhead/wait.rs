//! One call's wait in the queue.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::policy::wake;
use super::queue::{Settled, Ticket};
use super::semaphore::Semaphore;
use crate::clock::FOREVER;
use crate::poll::polled_after_completion;

/// A place in the queue, and the time that may be spent there. Whoever has it calls [`leave`](Self::leave) before
/// dropping it.
#[pin_project]
pub(crate) struct Wait {
    /// `None` when it is settled.
    ticket: Option<Ticket>,
    since: Instant,
    longest: Duration,
    waited: Duration,
    /// Made at the first poll: a wait may begin where there is no runtime, in `Service::call`.
    #[pin]
    timer: Option<Sleep>,
}

impl Wait {
    pub(crate) fn new(ticket: Ticket, longest: Duration) -> Self {
        Self {
            ticket: Some(ticket),
            since: Instant::now(),
            longest: longest.min(FOREVER),
            waited: Duration::ZERO,
            timer: None,
        }
    }

    /// What the wait came to; `None` where the time was up first.
    ///
    /// `waker` is a clone of that of `cx`, and is to be dropped when what came of it is in safety: to clone and to drop it
    /// is the executor's code.
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        semaphore: &Semaphore,
        waker: &mut Option<Waker>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Settled>> {
        let mut this = self.as_mut().project();
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(*this.since + *this.longest)));
        }
        // The time is asked first, so that the queue has the last word. A task that has used up its budget must not keep
        // it from being asked.
        let timer = this.timer.as_mut().as_pin_mut();
        if timer.is_some_and(|timer| pin!(unconstrained(timer)).poll(cx).is_ready()) {
            return Poll::Ready(self.leave(semaphore));
        }
        let Some(ticket) = this.ticket.take() else {
            return polled_after_completion("bulkhead");
        };
        match semaphore.poll(ticket, waker) {
            Ok(settled) => Poll::Ready(Some(settled)),
            Err(ticket) => {
                *this.ticket = Some(ticket);
                Poll::Pending
            }
        }
    }

    /// Gives the place back. If the permit had come just before, the caller has it.
    pub(crate) fn leave(self: Pin<&mut Self>, semaphore: &Semaphore) -> Option<Settled> {
        let (settled, wakers) = semaphore.leave(self.project().ticket.take()?);
        wake(wakers);
        settled
    }

    /// The end of it: no timer any more, and how long it was.
    pub(crate) fn stop(self: Pin<&mut Self>) -> Duration {
        let mut this = self.project();
        this.timer.set(None);
        *this.waited = this.since.elapsed();
        *this.waited
    }

    /// How long it was, once it has ended.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}
