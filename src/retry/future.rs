//! The driver: everything that is polled.

use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::attempt::{Attempt, Attempts, Cause, Report, StopReason};
use super::failures::Failures;
use super::policy::Held;
use super::report::WithReport;
use crate::event::heard;
use crate::judgement::Judged;
use crate::poll::polled_after_completion;
use crate::{Classify, Verdict};

/// Attempts that fail at once and are followed by no wait, before the task lets others run.
const ATTEMPTS_PER_POLL: u32 = 32;

/// A call under a [`Retry`](super::Retry).
// A call that succeeds at once neither makes nor drops what a failure needs: hence the options, in place of one state
// with a variant for each phase.
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, A: Attempts<P::Replay>> {
    policy: P,
    attempts: A,
    /// Attempts that were started.
    number: u32,
    /// Why the call has ended, once it has.
    stop: Option<StopReason>,
    /// Whether an attempt that has ended may have reached the server.
    sent: bool,
    /// The attempt under way.
    #[pin]
    attempt: Option<A::Future>,
    /// Since the first failure that left something to remember. Dropped by hand, so that a call without one pays for a
    /// comparison and no more.
    failures: Option<ManuallyDrop<Failures>>,
    /// Set when the clock is first needed.
    started: Option<Instant>,
}

impl<P: Held, A: Attempts<P::Replay>> ResponseFuture<P, A> {
    #[inline]
    pub(crate) fn new(policy: P, attempts: A) -> Self {
        Self::with(policy, attempts, 0, None)
    }

    /// The first attempt was started.
    #[inline]
    pub(crate) fn started(policy: P, attempts: A, attempt: A::Future) -> Self {
        Self::with(policy, attempts, 1, Some(attempt))
    }

    #[inline]
    fn with(policy: P, attempts: A, number: u32, attempt: Option<A::Future>) -> Self {
        Self {
            policy,
            attempts,
            number,
            stop: None,
            sent: false,
            attempt,
            failures: None,
            started: None,
        }
    }

    /// The same call, answering with a [`Report`] beside the result.
    pub fn with_report(self) -> WithReport<P, A> {
        WithReport::new(self)
    }
}

impl<P, A> Future for ResponseFuture<P, A>
where
    P: Held<Classifier: Classify<A::Response, A::Error>>,
    A: Attempts<P::Replay>,
{
    type Output = Result<A::Response, A::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut started_here = 0;
        let is_timed = self.policy.retry().view.policy.limits.max_elapsed.is_some();
        loop {
            let this = self.as_mut().project();
            let Some(attempt) = this.attempt.as_pin_mut() else {
                if this.stop.is_some() {
                    return polled_after_completion("retry");
                }
                if *this.number > 0 {
                    if let Err(error) = ready!(self.as_mut().poll_next(cx)) {
                        return Poll::Ready(Err(self.fail_unready(error)));
                    }
                }
                self.as_mut().start();
                started_here += 1;
                continue;
            };
            if is_timed {
                this.started.get_or_insert_with(Instant::now);
            }
            let Poll::Ready(result) = attempt.poll(cx) else {
                this.started.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            if let Some(result) = self.as_mut().settle(result) {
                return Poll::Ready(result);
            }
            if started_here >= ATTEMPTS_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl<P, A> ResponseFuture<P, A>
where
    P: Held<Classifier: Classify<A::Response, A::Error>>,
    A: Attempts<P::Replay>,
{
    /// Waits until another attempt can be started.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), A::Error>> {
        let this = self.project();
        if let Some(failures) = this.failures {
            ready!(failures.poll_backoff(cx));
        }
        let ready = this.attempts.poll_ready(cx);
        if ready.is_pending() {
            this.started.get_or_insert_with(Instant::now);
        }
        ready
    }

    #[inline]
    fn start(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let Some(payment) = this.failures.as_mut().and_then(|failures| failures.payment.take()) {
            payment.disarm();
        }
        *this.number += 1;
        let view = &*this.policy.retry().view;
        let attempt = Attempt {
            number: *this.number,
            max: view.policy.limits.max_attempts,
        };
        let attempt = this.attempts.start(&view.replay, attempt);
        this.attempt.set(Some(attempt));
    }

    /// What follows from the result of an attempt: the end of the call, or `None` and another attempt.
    #[inline]
    fn settle(
        mut self: Pin<&mut Self>,
        result: Result<A::Response, A::Error>,
    ) -> Option<Result<A::Response, A::Error>> {
        let mut this = self.as_mut().project();
        let retry = &*this.policy.retry().view;
        let verdict = match &result {
            Ok(response) => Some(retry.judgement.judge(Ok(response)).verdict),
            Err(_) => None,
        };
        if verdict != Some(Verdict::Success) {
            return self.settle_failure(result, verdict);
        }
        if let Some(budget) = &retry.policy.budget {
            if *this.number == 1 {
                budget.deposit();
            }
        }
        this.attempt.set(None);
        *this.stop = Some(StopReason::Success);
        let has_listener = retry.policy.listener.is_some();
        if heard(has_listener, LevelFilter::TRACE) || *this.number > 1 && heard(has_listener, LevelFilter::DEBUG) {
            self.emit_end(None);
        }
        Some(result)
    }

    /// The same for an error, and for a response with a `verdict` of its own.
    // Inlined, although it is long: a call to it costs more registers than the path of a success has to save for it.
    #[inline]
    fn settle_failure(
        mut self: Pin<&mut Self>,
        result: Result<A::Response, A::Error>,
        verdict: Option<Verdict>,
    ) -> Option<Result<A::Response, A::Error>> {
        let this = self.as_mut().project();
        let retry = &*this.policy.retry().view;
        let judged = match verdict {
            Some(verdict) => Judged::response(verdict),
            None => retry.judgement.judge(result.as_ref()),
        };
        if let Some(budget) = &retry.policy.budget {
            if *this.number == 1 && judged.verdict != Verdict::Ignored {
                budget.deposit();
            }
        }
        let planned = self.as_mut().plan(&judged);
        let error = judged.error;
        if let Err(stop) = planned {
            let mut this = self.as_mut().project();
            this.attempt.set(None);
            *this.stop = Some(stop);
            self.emit_end(error);
            return Some(result);
        }
        drop(result);
        self.project().attempt.set(None);
        None
    }

    /// Prepares another attempt: a wait for it, where there is one, and its payment.
    #[inline]
    fn plan(self: Pin<&mut Self>, judged: &Judged<'_>) -> Result<(), StopReason> {
        let this = self.project();
        let view = &*this.policy.retry().view;
        let policy = &view.policy;
        let verdict = judged.verdict;
        let may_have_been_sent = judged.rejected.is_none_or(crate::rejected::Reason::reached_inner);
        *this.sent |= may_have_been_sent;
        if let Some(rejected) = judged.rejected.filter(|_| *this.sent) {
            rejected.mark_reached_inner();
        }

        policy.limits.may_continue(*this.number, verdict)?;
        let wait = match policy.limits.fixed_wait(verdict) {
            Some(wait) => wait,
            None => Failures::in_place(this.failures).wait(policy, verdict, *this.started)?,
        };
        if let Some(budget) = &policy.budget {
            Failures::in_place(this.failures).pay(budget, verdict)?;
        }
        // Asked last, so that it stops only what nothing else would have stopped; the payment is refunded.
        let cause = Cause {
            verdict,
            error: judged.error,
            may_have_been_sent,
        };
        if !this.attempts.may_repeat(&view.replay, &cause) {
            if let Some(failures) = this.failures {
                failures.payment = None;
            }
            return Err(StopReason::NotReplayable);
        }
        if heard(policy.listener.is_some(), LevelFilter::DEBUG) {
            policy.emit_retrying(*this.number, verdict, wait, judged.error);
        }
        if !wait.is_zero() {
            this.started.get_or_insert_with(Instant::now);
            Failures::in_place(this.failures).begin_to_wait(wait);
        }
        Ok(())
    }

    /// The inner service failed while it was made ready for another attempt: that ends the call.
    #[cold]
    fn fail_unready(mut self: Pin<&mut Self>, error: A::Error) -> A::Error {
        let this = self.as_mut().project();
        let retry = &*this.policy.retry().view;
        if let Some(failures) = this.failures {
            // There will be no retry: a payment for one goes back.
            failures.payment = None;
        }
        let judged = retry.judgement.judge(Err(&error));
        if let Some(rejected) = judged.rejected.filter(|_| *this.sent) {
            rejected.mark_reached_inner();
        }
        *this.stop = Some(StopReason::NotReady);
        self.emit_end(judged.error);
        error
    }
}

impl<P: Held, A: Attempts<P::Replay>> ResponseFuture<P, A> {
    #[cold]
    fn emit_end(&self, error: Option<&(dyn std::error::Error + 'static)>) {
        let policy = &self.policy.retry().view.policy;
        policy.emit_finished(self.number, self.stop(), || self.report(), error);
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            attempts: self.number,
            elapsed: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
            waited: self.waited(),
            stop: self.stop(),
        }
    }

    /// Why the call has ended, or why it would if it were dropped now.
    fn stop(&self) -> StopReason {
        self.stop.unwrap_or(StopReason::Cancelled)
    }

    /// A call that was cancelled or never polled, or that has failures to drop.
    #[cold]
    #[inline(never)]
    fn drop_unfinished(self: Pin<&mut Self>) {
        let cancelled = (self.stop.is_none() && self.number > 0).then(|| self.report());
        let this = self.project();
        if let Some(failures) = this.failures {
            **failures = Failures::default();
        }
        if let Some(report) = cancelled {
            let policy = &this.policy.retry().view.policy;
            policy.emit_finished(report.attempts, report.stop, || report, None);
        }
    }

    fn waited(&self) -> Duration {
        let failures = self.failures.as_ref();
        failures.map_or(Duration::ZERO, |failures| failures.session.waited)
    }
}

#[pinned_drop]
impl<P: Held, A: Attempts<P::Replay>> PinnedDrop for ResponseFuture<P, A> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if self.stop.is_none() || self.failures.is_some() {
            self.drop_unfinished();
        }
    }
}

impl<P: Held, A: Attempts<P::Replay>> fmt::Debug for ResponseFuture<P, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempts", &self.number)
            .field("waited", &self.waited())
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
