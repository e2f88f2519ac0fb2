//! What every call has room for, and few have.

use std::fmt;
use std::mem::ManuallyDrop;

/// A value that few have and everybody drops: that there is none is seen by a comparison, and the rest is out of line.
///
/// What drops it then stays small enough for the compiler to inline, by its own measure and in each place that unwinds.
pub(crate) struct Rare<T>(Option<ManuallyDrop<T>>);

impl<T> Rare<T> {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn new(value: T) -> Self {
        Self(Some(ManuallyDrop::new(value)))
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    #[inline]
    pub(crate) fn as_ref(&self) -> Option<&T> {
        self.0.as_deref()
    }

    #[inline]
    pub(crate) fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    pub(crate) fn get_or_insert_with(&mut self, make: impl FnOnce() -> T) -> &mut T {
        self.0.get_or_insert_with(|| ManuallyDrop::new(make()))
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take().map(ManuallyDrop::into_inner)
    }
}

impl<T> Drop for Rare<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.take() {
            drop_apart(value);
        }
    }
}

#[cold]
#[inline(never)]
fn drop_apart<T>(value: T) {
    drop(value);
}

impl<T> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rare").finish_non_exhaustive()
    }
}

impl<T: Clone> Clone for Rare<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
