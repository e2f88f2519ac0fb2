//! The policy.

use std::fmt;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::admission::Admission;
use super::builder::{Settings, check_max_wait, needs_max_wait};
use super::event::Event;
use super::future::ResponseFuture;
use super::layer::WeightedLayer;
use super::permit::{Acquire, Permit};
use super::semaphore::{Gauges, Semaphore, Wakers};
use crate::rejected::Name;
use crate::{ConfigError, Rejected};

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Limits how many calls run at once.
///
/// See the [module](super) for when to use it. A clone is the same bulkhead, and so is each layer made of it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::{Rejected, RejectedKind, bulkhead::Bulkhead};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bulkhead = Bulkhead::builder("payments").max_concurrent(1).build()?;
///
/// let answer = bulkhead.call(async { Ok::<_, Rejected>(7) }).await?;
/// assert_eq!(answer, 7);
///
/// let permit = bulkhead.try_acquire()?;
/// let refused = bulkhead.call(async { Ok::<_, Rejected>(7) }).await.unwrap_err();
/// assert_eq!(refused.kind(), RejectedKind::BulkheadFull);
/// drop(permit);
/// assert_eq!(bulkhead.available(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bulkhead {
    pub(crate) shared: Arc<Shared>,
}

/// What every clone and every layer of a [`Bulkhead`] shares.
pub(crate) struct Shared {
    pub(crate) semaphore: Semaphore,
    pub(crate) listener: Option<Listener>,
    pub(crate) name: Name,
    #[cfg(feature = "metrics")]
    pub(crate) meters: super::event::BulkheadMeters,
}

/// A bulkhead at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// How many calls may run at once.
    pub max_concurrent: u32,
    /// How many run; each counts as often as it weighs.
    pub in_flight: u32,
    /// How many more could run.
    pub available: u32,
    /// How many calls may wait.
    pub max_queued: u32,
    /// How many wait; each counts once.
    pub queued: u32,
    /// How long a call may wait.
    pub max_wait: Option<Duration>,
}

impl Bulkhead {
    pub(crate) fn new(name: Name, settings: Settings, listener: Option<Listener>) -> Self {
        let Settings {
            max_concurrent,
            max_queued,
            max_wait,
        } = settings;
        Self {
            shared: Arc::new(Shared {
                semaphore: Semaphore::new(max_concurrent, max_queued, max_wait),
                listener,
                name,
                #[cfg(feature = "metrics")]
                meters: super::event::BulkheadMeters::new(),
            }),
        }
    }

    /// Runs `operation` under a permit, and waits for one where there is a queue.
    ///
    /// The permit is taken at the first poll, and is given back when `operation` has its result.
    ///
    /// # Errors
    ///
    /// Those of `operation`, and a [`Rejected`] of the kind [`BulkheadFull`](crate::RejectedKind::BulkheadFull) or
    /// [`QueueTimedOut`](crate::RejectedKind::QueueTimedOut); then `operation` was not polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `operation` and gives the permit back, or the place in the queue.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no tokio runtime with time enabled. If `operation` panics, the permit is given
    /// back while the panic unwinds.
    #[inline]
    pub fn call<F, T, E>(&self, operation: F) -> ResponseFuture<&Self, F>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Rejected>,
    {
        self.call_weighted(NonZeroU32::MIN, operation)
    }

    /// As [`call`](Self::call), for an operation that counts as `weight` calls.
    ///
    /// A weight above the limit is refused at once, and so is a call that waits when the limit falls below its weight.
    #[inline]
    pub fn call_weighted<F, T, E>(&self, weight: NonZeroU32, operation: F) -> ResponseFuture<&Self, F>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Rejected>,
    {
        ResponseFuture::new(Admission::new(self, weight), Some(operation))
    }

    /// A permit, if there is one right now and nobody waits for it.
    ///
    /// # Errors
    ///
    /// A [`Rejected`] of the kind [`BulkheadFull`](crate::RejectedKind::BulkheadFull).
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        self.try_acquire_weighted(NonZeroU32::MIN)
    }

    /// As [`try_acquire`](Self::try_acquire), for a permit that counts as `weight` calls.
    ///
    /// # Errors
    ///
    /// A [`Rejected`] of the kind [`BulkheadFull`](crate::RejectedKind::BulkheadFull).
    #[inline]
    pub fn try_acquire_weighted(&self, weight: NonZeroU32) -> Result<Permit, Rejected> {
        let mut admission = Admission::new(self.clone(), weight);
        admission.enter_now();
        if admission.is_holding() {
            return Ok(Permit::new(admission));
        }
        Err(Rejected::bulkhead_full_by(self.shared.name.clone()))
    }

    /// A permit, for which the future waits where there is a queue: for work that is not one future.
    ///
    /// # Errors
    ///
    /// A [`Rejected`], as [`call`](Self::call) has it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place in the queue back.
    ///
    /// # Panics
    ///
    /// When it has to wait and there is no tokio runtime with time enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # use steadfast::{Rejected, bulkhead::Bulkhead};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bulkhead = Bulkhead::builder("exports").max_concurrent(2).build()?;
    /// let permit = bulkhead.acquire().await?;
    /// let export = tokio::spawn(async move {
    ///     let _permit = permit;
    ///     // held until the task ends
    /// });
    /// export.await?;
    /// assert_eq!(bulkhead.in_flight(), 0);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn acquire(&self) -> Acquire<'_> {
        self.acquire_weighted(NonZeroU32::MIN)
    }

    /// As [`acquire`](Self::acquire), for a permit that counts as `weight` calls.
    #[inline]
    pub fn acquire_weighted(&self, weight: NonZeroU32) -> Acquire<'_> {
        Acquire::new(Admission::new(self, weight))
    }

    /// A Tower layer under which each request counts as `weight` says.
    pub fn weighted<Req, W>(&self, weight: W) -> WeightedLayer<W>
    where
        W: Fn(&Req) -> NonZeroU32,
    {
        WeightedLayer::new(self.clone(), weight)
    }

    /// The name of the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// How many calls may run at once.
    #[must_use]
    pub fn max_concurrent(&self) -> u32 {
        self.gauges().limit
    }

    /// How many calls run; each counts as often as it weighs.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.gauges().in_flight
    }

    /// How many calls wait; each counts once.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.gauges().queued
    }

    /// How many more calls could run; 0 while more run than a lowered limit allows.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.snapshot().available
    }

    /// Everything at one moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let gauges = self.gauges();
        Snapshot {
            max_concurrent: gauges.limit,
            in_flight: gauges.in_flight,
            available: gauges.limit.saturating_sub(gauges.in_flight),
            max_queued: gauges.max_queued,
            queued: gauges.queued,
            max_wait: gauges.max_wait,
        }
    }

    /// Changes how many calls may run at once, for every clone and layer; 0 pauses.
    ///
    /// No call is interrupted. Under a lower limit none is admitted until fewer run; calls that wait and weigh more are
    /// refused. A higher limit admits who waits at once. While it pauses, calls wait as far as queue and `max_wait`
    /// allow.
    pub fn set_max_concurrent(&self, max_concurrent: u32) {
        wake(self.shared.semaphore.set_limit(max_concurrent));
        self.emit_limit_changed(max_concurrent);
    }

    /// Changes how many calls may wait. Those that wait already stay.
    ///
    /// # Errors
    ///
    /// More than 0 where no `max_wait` was ever set.
    pub fn set_max_queued(&self, max_queued: u32) -> Result<(), ConfigError> {
        if !self.shared.semaphore.set_max_queued(max_queued) {
            return Err(needs_max_wait(&self.shared.name, max_queued));
        }
        Ok(())
    }

    /// Changes how long those calls may wait that come from now on.
    ///
    /// # Errors
    ///
    /// No time at all.
    pub fn set_max_wait(&self, max_wait: Duration) -> Result<(), ConfigError> {
        check_max_wait(&self.shared.name, max_wait)?;
        self.shared.semaphore.set_max_wait(max_wait);
        Ok(())
    }

    /// Whether nobody runs and nobody waits.
    #[allow(dead_code, reason = "for the keyed set, which evicts idle ones only")]
    pub(crate) fn is_idle(&self) -> bool {
        let gauges = self.gauges();
        gauges.in_flight == 0 && gauges.queued == 0
    }

    fn gauges(&self) -> Gauges {
        self.shared.semaphore.gauges()
    }

    /// Takes a permit, if there is one and nobody waits for it.
    #[inline]
    pub(crate) fn try_admit(&self, weight: NonZeroU32) -> bool {
        let admitted = self.shared.semaphore.try_acquire(weight);
        if admitted {
            self.count_admitted(weight);
        }
        admitted
    }

    /// Gives a permit back. True: somebody waits, and [`hand_on`](Self::hand_on) has to be called.
    #[inline]
    #[must_use]
    pub(crate) fn give_back(&self, weight: NonZeroU32) -> bool {
        self.count_released(weight);
        self.shared.semaphore.release(weight)
    }

    #[cold]
    pub(crate) fn hand_on(&self) {
        wake(self.shared.semaphore.hand_on());
    }

    /// Gives a permit back, to the first who waits if somebody does.
    pub(crate) fn release(&self, weight: NonZeroU32) {
        if self.give_back(weight) {
            self.hand_on();
        }
    }
}

/// Wakes all of them: a waker is the executor's code, and its panic is not to cost another its wake-up.
pub(crate) fn wake(wakers: Wakers) {
    for waker in wakers {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!(target: "steadfast::bulkhead", "a waker panicked");
        }
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gauges = self.gauges();
        f.debug_struct("Bulkhead")
            .field("name", &self.shared.name)
            .field("max_concurrent", &gauges.limit)
            .field("in_flight", &gauges.in_flight)
            .field("queued", &gauges.queued)
            .finish_non_exhaustive()
    }
}

/// How a call holds its policy: borrowed in the plain face, owned in Tower's.
pub trait Held {
    fn bulkhead(&self) -> &Bulkhead;
}

impl Held for Bulkhead {
    #[inline]
    fn bulkhead(&self) -> &Bulkhead {
        self
    }
}

impl Held for &Bulkhead {
    #[inline]
    fn bulkhead(&self) -> &Bulkhead {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_is_who_has_nobody_that_runs_and_nobody_that_waits() {
        let second = Duration::from_secs(1);
        let builder = Bulkhead::builder("lanes").max_concurrent(1).max_queued(1);
        let bulkhead = builder.max_wait(second).build().unwrap();
        assert!(bulkhead.is_idle());
        let permit = bulkhead.try_acquire().unwrap();
        assert!(!bulkhead.is_idle());
        drop(permit);
        bulkhead.set_max_concurrent(0);
        assert!(bulkhead.is_idle());
        let mut waiting = pin!(bulkhead.acquire());
        assert!(matches!(
            waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Poll::Pending
        ));
        assert!(!bulkhead.is_idle());
    }
}
