//! The driver: everything that is polled.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::{pin_project, pinned_drop};
use tokio::time::{Instant, Sleep, sleep};

use super::attempt::{Attempt, Attempts, Cause, Report, StopReason};
use super::budget::{Cost, Payment};
use super::policy::Retry;
use super::session::Session;
use crate::event::heard;
use crate::outcome::Judged;
use crate::random::Random;
use crate::{Classify, Verdict};

/// How a call holds its policy: borrowed in the plain face, owned in Tower's.
pub trait Held {
    type Classifier;
    type Replay;

    fn retry(&self) -> &Retry<Self::Classifier, Self::Replay>;
}

impl<C, R> Held for Retry<C, R> {
    type Classifier = C;
    type Replay = R;

    #[inline]
    fn retry(&self) -> &Self {
        self
    }
}

impl<C, R> Held for &Retry<C, R> {
    type Classifier = C;
    type Replay = R;

    #[inline]
    fn retry(&self) -> &Retry<C, R> {
        self
    }
}

/// Attempts that fail at once and are followed by no wait, before the task lets others run.
const ATTEMPTS_PER_POLL: u32 = 32;

/// A call under a [`Retry`].
#[pin_project(PinnedDrop)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<P: Held, A: Attempts<P::Replay>> {
    policy: P,
    attempts: A,
    #[pin]
    state: State<A::Future>,
    session: Session,
    random: Option<Random>,
    /// Set when the clock is first needed.
    started: Option<Instant>,
    /// Whether an attempt that has ended may have reached the server.
    sent: bool,
    stop: Option<StopReason>,
}

#[pin_project(project = StateProjection)]
enum State<F> {
    /// Between attempts: the next one starts as soon as it can.
    Next { payment: Option<Payment> },
    /// An attempt is under way.
    Attempt {
        #[pin]
        future: F,
    },
    /// A backoff is under way, paid for.
    Backoff {
        #[pin]
        sleep: Sleep,
        payment: Option<Payment>,
    },
    /// The call has ended.
    Done,
}

impl<P: Held, A: Attempts<P::Replay>> ResponseFuture<P, A> {
    #[inline]
    pub(crate) fn new(policy: P, attempts: A) -> Self {
        Self {
            policy,
            attempts,
            state: State::Next { payment: None },
            session: Session::default(),
            random: None,
            started: None,
            sent: false,
            stop: None,
        }
    }

    /// Starts the first attempt now, with a service that is ready.
    #[inline]
    pub(crate) fn started(policy: P, attempts: A) -> Self {
        let mut call = Self::new(policy, attempts);
        call.session.attempts = 1;
        let view = &*call.policy.retry().view;
        let max = view.policy.limits.max_attempts;
        call.state = State::Attempt {
            future: call.attempts.start(&view.replay, Attempt { number: 1, max }),
        };
        call
    }

    /// The same call, answering with a [`Report`] beside the result.
    pub fn with_report(self) -> WithReport<P, A> {
        WithReport { call: self }
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
        loop {
            let this = self.as_mut().project();
            let view = &*this.policy.retry().view;
            let limits = &view.policy.limits;
            let mut state = this.state;
            match state.as_mut().project() {
                StateProjection::Attempt { future } => {
                    if limits.max_elapsed.is_some() {
                        this.started.get_or_insert_with(Instant::now);
                    }
                    let Poll::Ready(result) = future.poll(cx) else {
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
                StateProjection::Backoff { sleep, payment } => {
                    ready!(sleep.poll(cx));
                    let payment = payment.take();
                    state.set(State::Next { payment });
                }
                StateProjection::Next { payment } => {
                    if this.session.attempts > 0 {
                        match this.attempts.poll_ready(cx) {
                            Poll::Pending => {
                                this.started.get_or_insert_with(Instant::now);
                                return Poll::Pending;
                            }
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(self.fail_unready(error)),
                        }
                    }
                    if let Some(payment) = payment.take() {
                        payment.disarm();
                    }
                    started_here += 1;
                    this.session.attempts += 1;
                    let future = this.attempts.start(
                        &view.replay,
                        Attempt {
                            number: this.session.attempts,
                            max: limits.max_attempts,
                        },
                    );
                    state.set(State::Attempt { future });
                }
                StateProjection::Done => return polled_after_completion(),
            }
        }
    }
}

#[cold]
#[allow(clippy::panic, reason = "the contract of Future, broken by the caller")]
fn polled_after_completion<T>() -> Poll<T> {
    panic!("a retry was polled after it had completed")
}

impl<P, A> ResponseFuture<P, A>
where
    P: Held<Classifier: Classify<A::Response, A::Error>>,
    A: Attempts<P::Replay>,
{
    /// What follows from the result of an attempt: the end of the call, or a new state and `None`.
    #[inline]
    fn settle(
        mut self: Pin<&mut Self>,
        result: Result<A::Response, A::Error>,
    ) -> Option<Result<A::Response, A::Error>> {
        let this = self.as_mut().project();
        let retry = &*this.policy.retry().view;
        let judged = retry.judgement.judge(result.as_ref());
        if let Some(budget) = &retry.policy.budget {
            if this.session.attempts == 1 && judged.verdict != Verdict::Ignored {
                budget.deposit();
            }
        }
        if judged.verdict == Verdict::Success {
            if let Some(rejected) = judged.rejected.filter(|_| *this.sent) {
                rejected.mark_reached_inner();
            }
            let mut state = this.state;
            state.set(State::Done);
            *this.stop = Some(StopReason::Success);
            if this.session.attempts > 1 || heard(retry.policy.listener.is_some()) {
                self.emit_end(judged.error);
            }
            return Some(result);
        }
        match self.as_mut().plan(&judged) {
            Ok((wait, payment)) => {
                drop(result);
                let this = self.project();
                let next = if wait.is_zero() {
                    State::Next { payment }
                } else {
                    this.started.get_or_insert_with(Instant::now);
                    State::Backoff {
                        sleep: sleep(wait),
                        payment,
                    }
                };
                let mut state = this.state;
                state.set(next);
                None
            }
            Err(stop) => {
                let this = self.as_mut().project();
                let mut state = this.state;
                state.set(State::Done);
                *this.stop = Some(stop);
                self.emit_end(judged.error);
                Some(result)
            }
        }
    }

    /// The wait before the next attempt, paid for; the attempt that failed is dropped before it begins.
    #[cold]
    fn plan(self: Pin<&mut Self>, judged: &Judged<'_>) -> Result<(Duration, Option<Payment>), StopReason> {
        let this = self.project();
        let view = &*this.policy.retry().view;
        let policy = &view.policy;
        let verdict = judged.verdict;
        let may_have_been_sent = judged.rejected.is_none_or(crate::rejected::Reason::reached_inner);
        *this.sent |= may_have_been_sent;
        let marked = judged.rejected.filter(|_| *this.sent);
        if let Some(rejected) = marked {
            rejected.mark_reached_inner();
        }

        this.session.may_continue(&policy.limits, verdict)?;
        let cause = Cause {
            verdict,
            error: judged.error,
            may_have_been_sent,
        };
        if !this.attempts.may_repeat(&view.replay, &cause) {
            return Err(StopReason::NotReplayable);
        }
        let started = &*this.started;
        let elapsed = || started.map_or(Duration::ZERO, |started| started.elapsed());
        let random = || this.random.get_or_insert_with(|| policy.random()).unit();
        let wait = this.session.wait(&policy.limits, verdict, elapsed, random)?;
        let payment = match &policy.budget {
            None => None,
            Some(budget) => {
                let cost = match verdict {
                    Verdict::Overloaded { .. } => Cost::Overload,
                    _ => Cost::Failure,
                };
                Some(budget.withdraw(cost).ok_or(StopReason::BudgetEmpty)?)
            }
        };
        this.session.waited = this.session.waited.saturating_add(wait);
        policy.emit_retrying(this.session.attempts, verdict, wait, judged.error);
        Ok((wait, payment))
    }

    /// The inner service failed while it was made ready for another attempt: that ends the call.
    #[cold]
    fn fail_unready(mut self: Pin<&mut Self>, error: A::Error) -> Result<A::Response, A::Error> {
        let this = self.as_mut().project();
        let mut state = this.state;
        state.set(State::Done);
        let retry = &*this.policy.retry().view;
        let result = Err(error);
        let judged = retry.judgement.judge(result.as_ref());
        if let Some(rejected) = judged.rejected.filter(|_| *this.sent) {
            rejected.mark_reached_inner();
        }
        *this.stop = Some(StopReason::NotReady);
        self.emit_end(judged.error);
        result
    }
}

impl<P: Held, A: Attempts<P::Replay>> ResponseFuture<P, A> {
    #[cold]
    fn emit_end(&self, error: Option<&(dyn std::error::Error + 'static)>) {
        self.policy.retry().view.policy.emit_finished(self.report(), error);
    }

    fn report(&self) -> Report {
        Report {
            attempts: self.session.attempts,
            elapsed: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
            waited: self.session.waited,
            stop: self.stop.unwrap_or(StopReason::Cancelled),
        }
    }
}

#[pinned_drop]
impl<P: Held, A: Attempts<P::Replay>> PinnedDrop for ResponseFuture<P, A> {
    #[inline]
    fn drop(self: Pin<&mut Self>) {
        if self.stop.is_none() && self.session.attempts > 0 {
            self.emit_end(None);
        }
    }
}

impl<P: Held, A: Attempts<P::Replay>> fmt::Debug for ResponseFuture<P, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempts", &self.session.attempts)
            .field("waited", &self.session.waited)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// A call under a [`Retry`] that answers with its [`Report`] too.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WithReport<P: Held, A: Attempts<P::Replay>> {
    #[pin]
    call: ResponseFuture<P, A>,
}

impl<P, A> Future for WithReport<P, A>
where
    P: Held<Classifier: Classify<A::Response, A::Error>>,
    A: Attempts<P::Replay>,
{
    type Output = (Result<A::Response, A::Error>, Report);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = self.project().call;
        let result = ready!(call.as_mut().poll(cx));
        Poll::Ready((result, call.report()))
    }
}
