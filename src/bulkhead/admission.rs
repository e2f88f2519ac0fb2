//! The way of one call to its permit and back: the polling of what the core decides.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::policy::{Bulkhead, Held};
use super::queue::Settled;
use super::semaphore::Entered;
use super::wait::Wait;
use crate::Rejected;
use crate::event::heard;
use crate::poll::polled_after_completion;

/// One call's permit, or its place in the queue. Dropped, it gives back what it has.
pub(crate) struct Admission<P: Held> {
    policy: P,
    weight: NonZeroU32,
    stage: Stage,
    /// Made when the call has to wait, and kept to its end. Dropped by hand, in
    /// [`abandon`](Self::abandon): a call without one has nothing of it in what drops it, which is then inlined.
    wait: Option<ManuallyDrop<Pin<Box<Wait>>>>,
}

// As wide as a weight: what has no padding is moved in fewer pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u32)]
enum Stage {
    /// It has not asked yet.
    Outside,
    /// There is nothing left to give back, or to drop.
    Ended,
    /// The same, but for its wait.
    EndedAfterWait,
    Queued,
    Holding,
    /// It is refused, and has not been told.
    Refused,
}

impl<P: Held> Admission<P> {
    #[inline]
    pub(crate) fn new(policy: P, weight: NonZeroU32) -> Self {
        Self {
            policy,
            weight,
            stage: Stage::Outside,
            wait: None,
        }
    }

    /// Of a permit that was taken already.
    #[inline]
    pub(crate) fn holding(policy: P, weight: NonZeroU32) -> Self {
        Self {
            policy,
            weight,
            stage: Stage::Holding,
            wait: None,
        }
    }

    pub(crate) fn weight(&self) -> NonZeroU32 {
        self.weight
    }

    pub(crate) fn bulkhead(&self) -> &Bulkhead {
        self.policy.bulkhead()
    }

    #[inline]
    pub(crate) fn is_holding(&self) -> bool {
        self.stage == Stage::Holding
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.stage == Stage::Refused
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.stage == Stage::Queued
    }

    /// Takes a permit or a place in the queue, or is refused.
    #[inline]
    pub(crate) fn enter(&mut self) {
        if !self.try_enter() {
            self.enter_by_the_lock(true);
        }
    }

    /// Takes a permit, or is refused.
    #[inline]
    pub(crate) fn enter_now(&mut self) {
        if !self.try_enter() {
            self.enter_by_the_lock(false);
        }
    }

    #[inline]
    fn try_enter(&mut self) -> bool {
        let admitted = self.policy.bulkhead().try_admit(self.weight);
        if admitted {
            self.stage = Stage::Holding;
        }
        admitted
    }

    #[cold]
    #[inline(never)]
    fn enter_by_the_lock(&mut self, may_wait: bool) {
        let bulkhead = self.policy.bulkhead();
        match bulkhead.shared.semaphore.enter(self.weight, may_wait) {
            Entered::Admitted => {
                bulkhead.count_admitted(self.weight);
                self.stage = Stage::Holding;
            }
            Entered::Queued(ticket, longest) => {
                self.wait = Some(ManuallyDrop::new(Box::pin(Wait::new(ticket, longest))));
                self.stage = Stage::Queued;
                bulkhead.emit_queued(self.weight);
            }
            Entered::Full => {
                self.stage = Stage::Refused;
                bulkhead.emit_full(self.weight);
            }
        }
    }

    /// Ready when there is a permit, or will be none.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        if self.stage == Stage::Outside {
            self.enter();
        }
        if self.stage == Stage::Holding {
            return Poll::Ready(Ok(()));
        }
        self.poll_without_permit(cx)
    }

    #[cold]
    #[inline(never)]
    fn poll_without_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        if self.stage == Stage::Refused {
            self.stage = self.ended();
            return Poll::Ready(Err(Rejected::bulkhead_full_by(self.bulkhead().shared.name.clone())));
        }
        let mut waker = Some(cx.waker().clone());
        let semaphore = &self.policy.bulkhead().shared.semaphore;
        let settled = match &mut self.wait {
            Some(wait) if self.stage == Stage::Queued => ready!(wait.as_mut().poll(semaphore, &mut waker, cx)),
            _ => return polled_after_completion("bulkhead"),
        };
        Poll::Ready(self.end_wait(settled))
    }

    /// The end of a wait, by what it came to: `None` where the time was up.
    fn end_wait(&mut self, settled: Option<Settled>) -> Result<(), Rejected> {
        self.stage = match settled {
            Some(Settled::Granted) => Stage::Holding,
            Some(Settled::Refused) | None => self.ended(),
        };
        let waited = self.stop_waiting();
        let bulkhead = self.policy.bulkhead();
        bulkhead.count_waited(waited);
        let name = || bulkhead.shared.name.clone();
        match settled {
            Some(Settled::Granted) => {
                bulkhead.count_admitted(self.weight);
                Ok(())
            }
            Some(Settled::Refused) => {
                bulkhead.emit_full(self.weight);
                Err(Rejected::bulkhead_full_by(name()))
            }
            None => {
                bulkhead.emit_queue_timed_out(self.weight, waited);
                Err(Rejected::queue_timed_out_by(name(), waited))
            }
        }
    }

    /// The stage after the last.
    #[inline]
    fn ended(&self) -> Stage {
        if self.wait.is_none() {
            Stage::Ended
        } else {
            Stage::EndedAfterWait
        }
    }

    fn stop_waiting(&mut self) -> Duration {
        self.wait.as_mut().map_or(Duration::ZERO, |wait| wait.as_mut().stop())
    }

    fn waited(&self) -> Duration {
        self.wait.as_ref().map_or(Duration::ZERO, |wait| wait.waited())
    }

    /// Gives the permit back after a call that ran to its end. True: somebody waits for it.
    /// [`complete`](Self::complete) has to follow, if so or if it [`is_heard`](Self::is_heard).
    #[inline]
    #[must_use]
    pub(crate) fn release(&mut self) -> bool {
        self.stage = self.ended();
        self.policy.bulkhead().give_back(self.weight)
    }

    /// Whether somebody may hear of the end.
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        heard(self.policy.bulkhead().shared.listener.is_some(), LevelFilter::TRACE)
    }

    #[cold]
    pub(crate) fn complete(&self, somebody_waits: bool) {
        let bulkhead = self.policy.bulkhead();
        if somebody_waits {
            bulkhead.hand_on();
        }
        if self.is_heard() {
            bulkhead.emit_completed(self.weight, self.waited());
        }
    }

    /// Gives back what there is, of a call that was dropped or panicked, and drops its wait.
    #[cold]
    #[inline(never)]
    pub(crate) fn abandon(&mut self) {
        let mut wait = self.wait.take().map(ManuallyDrop::into_inner);
        let bulkhead = self.policy.bulkhead();
        match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Holding => {
                let waited = wait.as_ref().map_or(Duration::ZERO, |wait| wait.waited());
                bulkhead.release(self.weight);
                bulkhead.emit_cancelled(self.weight, waited, true);
            }
            Stage::Queued => {
                let semaphore = &bulkhead.shared.semaphore;
                let settled = wait.as_mut().and_then(|wait| wait.as_mut().leave(semaphore));
                let waited = wait.as_mut().map_or(Duration::ZERO, |wait| wait.as_mut().stop());
                bulkhead.count_waited(waited);
                if settled == Some(Settled::Granted) {
                    bulkhead.count_admitted(self.weight);
                    bulkhead.release(self.weight);
                }
                bulkhead.emit_cancelled(self.weight, waited, false);
            }
            Stage::Outside | Stage::Refused | Stage::Ended | Stage::EndedAfterWait => {}
        }
    }
}

impl Admission<&Bulkhead> {
    /// Hands the permit over, to be kept apart from the reference.
    #[inline]
    pub(crate) fn own(&mut self) -> Admission<Bulkhead> {
        Admission {
            policy: self.policy.clone(),
            weight: self.weight,
            stage: mem::replace(&mut self.stage, Stage::Ended),
            wait: self.wait.take(),
        }
    }
}

impl<P: Held> Drop for Admission<P> {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Outside | Stage::Ended) {
            self.abandon();
        }
    }
}

impl<P: Held> fmt::Debug for Admission<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("bulkhead", &self.bulkhead().name())
            .field("weight", &self.weight)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
