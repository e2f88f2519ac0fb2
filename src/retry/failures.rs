//! What a call has to remember once an attempt has failed.

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::attempt::StopReason;
use super::budget::{Cost, Payment, RetryBudget};
use super::policy::Policy;
use super::session::Session;
use crate::Verdict;
use crate::clock;
use crate::random::Random;

/// What a call has to remember once an attempt has failed: nothing, where the next one follows at once and for free.
#[derive(Default)]
pub(crate) struct Failures {
    pub(crate) session: Session,
    random: Option<Random>,
    /// The timer of every backoff. The one box of a call, and only where it waits: it keeps the future small.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether a backoff is under way.
    waiting: bool,
    /// For the retry that is being waited for.
    pub(crate) payment: Option<Payment>,
}

// Not inlined: none of it is needed by a call that succeeds, nor by a failure that is repeated at once and for free.
impl Failures {
    pub(crate) fn in_place(failures: &mut Option<ManuallyDrop<Self>>) -> &mut Self {
        failures.get_or_insert_with(ManuallyDrop::default)
    }

    /// How long to wait before the next attempt.
    #[inline(never)]
    pub(crate) fn wait(
        &mut self,
        policy: &Policy,
        verdict: Verdict,
        started: Option<Instant>,
    ) -> Result<Duration, StopReason> {
        let elapsed = || started.map_or(Duration::ZERO, |started| started.elapsed());
        let Self { session, random, .. } = self;
        let random = || random.get_or_insert_with(|| policy.random()).unit();
        session.wait(&policy.limits, verdict, elapsed, random)
    }

    #[inline(never)]
    pub(crate) fn pay(&mut self, budget: &RetryBudget, verdict: Verdict) -> Result<(), StopReason> {
        let cost = match verdict {
            Verdict::Overloaded { .. } => Cost::Overload,
            _ => Cost::Failure,
        };
        self.payment = Some(budget.withdraw(cost).ok_or(StopReason::BudgetEmpty)?);
        Ok(())
    }

    #[inline(never)]
    pub(crate) fn begin_to_wait(&mut self, wait: Duration) {
        self.session.waited = self.session.waited.saturating_add(wait);
        self.waiting = true;
        let until = clock::after(wait);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(until),
            None => self.timer = Some(Box::pin(sleep_until(until))),
        }
    }

    /// Whether the backoff that was begun, if there is one, has ended.
    pub(crate) fn poll_backoff(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting;
        if let Some(timer) = self.timer.as_mut().filter(|_| waiting) {
            ready!(timer.as_mut().poll(cx));
            self.waiting = false;
        }
        Poll::Ready(())
    }
}
