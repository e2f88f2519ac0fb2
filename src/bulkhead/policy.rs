//! The policy.

use std::fmt;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::admission::Admission;
use super::config::Limits;
use super::event::Event;
use super::future::ResponseFuture;
use super::layer::WeightedLayer;
use super::permit::{Acquire, Permit};
use super::semaphore::{Semaphore, Wakers};
use crate::Rejected;
use crate::rejected::Name;

pub(crate) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Limits how many calls run at once.
///
/// See the [module](super) for when to use it. A clone is the same bulkhead, and so is each layer made of it.
///
/// # Examples
///
/// ```
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
    pub(crate) usual: Arc<Usual>,
    pub(crate) first_max_concurrent: u32,
    #[cfg(feature = "metrics")]
    pub(crate) meters: Arc<super::event::BulkheadMeters>,
}

/// The limits that bulkheads of one plan have. One that has others was changed by itself.
#[allow(clippy::struct_field_names, reason = "the names of the setters")]
pub(crate) struct Usual {
    /// Relaxed: whoever changes it for all goes by the lock of each of them afterwards.
    max_concurrent: AtomicU32,
    max_queued: u32,
    max_wait: Option<Duration>,
}

impl Usual {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            max_concurrent: AtomicU32::new(limits.max_concurrent),
            max_queued: limits.max_queued,
            max_wait: limits.max_wait,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_concurrent: self.max_concurrent.load(Ordering::Relaxed),
            max_queued: self.max_queued,
            max_wait: self.max_wait,
        }
    }

    pub(crate) fn set_max_concurrent(&self, max_concurrent: u32) {
        self.max_concurrent.store(max_concurrent, Ordering::Relaxed);
    }
}

/// What bulkheads are made of: settings that were checked. Those of one plan share their listener and meters.
pub(crate) struct Plan {
    pub(crate) name: Name,
    pub(crate) usual: Arc<Usual>,
    pub(crate) listener: Option<Listener>,
    #[cfg(feature = "metrics")]
    pub(crate) meters: Arc<super::event::BulkheadMeters>,
}

impl Bulkhead {
    pub(crate) fn new(plan: &Plan) -> Self {
        let Limits {
            max_concurrent,
            max_queued,
            max_wait,
        } = plan.usual.limits();
        Self {
            shared: Arc::new(Shared {
                semaphore: Semaphore::new(max_concurrent, max_queued, max_wait),
                listener: plan.listener.clone(),
                name: plan.name.clone(),
                usual: Arc::clone(&plan.usual),
                first_max_concurrent: max_concurrent,
                #[cfg(feature = "metrics")]
                meters: Arc::clone(&plan.meters),
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
        let gauges = self.shared.semaphore.gauges();
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
