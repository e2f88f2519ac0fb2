//! Permits for work that is not one future.

use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::admission::Admission;
use super::policy::Bulkhead;
use crate::Rejected;

/// The right to run under a [`Bulkhead`], given back when it is dropped, wherever that is.
///
/// Made by [`Bulkhead::try_acquire`] and [`Bulkhead::acquire`].
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit {
    admission: Admission<Bulkhead>,
}

impl Permit {
    #[inline]
    pub(crate) fn new(admission: Admission<Bulkhead>) -> Self {
        Self { admission }
    }

    /// How many calls it counts as.
    #[must_use]
    pub fn weight(&self) -> NonZeroU32 {
        self.admission.weight()
    }

    /// The bulkhead that it belongs to.
    #[must_use]
    pub fn bulkhead(&self) -> &Bulkhead {
        self.admission.bulkhead()
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        let somebody_waits = self.admission.release();
        if somebody_waits || self.admission.is_heard() {
            self.admission.complete(somebody_waits);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("bulkhead", &self.bulkhead().name())
            .field("weight", &self.weight())
            .finish()
    }
}

/// A [`Permit`] to come: the future of [`Bulkhead::acquire`].
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Acquire<'a> {
    admission: Admission<&'a Bulkhead>,
}

impl<'a> Acquire<'a> {
    #[inline]
    pub(crate) fn new(admission: Admission<&'a Bulkhead>) -> Self {
        Self { admission }
    }
}

impl Future for Acquire<'_> {
    type Output = Result<Permit, Rejected>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.admission.poll(cx))?;
        Poll::Ready(Ok(Permit::new(self.admission.own())))
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("admission", &self.admission).finish()
    }
}
