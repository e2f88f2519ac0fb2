//! How a request's key is found.

use std::fmt;
use std::marker::PhantomData;

/// Says which key a request has. The key is lent, so that it may be made on the stack.
pub trait KeyOf<Req> {
    type Key: ?Sized;

    fn with_key<R>(&self, request: &Req, look_up: impl FnOnce(&Self::Key) -> R) -> R;
}

/// A function that makes the key of a request.
pub struct ByKey<F, K> {
    function: F,
    key: PhantomData<fn() -> K>,
}

/// A function that finds the key in a request.
pub struct ByRef<F, Q: ?Sized> {
    function: F,
    key: PhantomData<fn(&Q)>,
}

impl<F, K> ByKey<F, K> {
    pub(crate) fn new(function: F) -> Self {
        Self {
            function,
            key: PhantomData,
        }
    }
}

impl<F, Q: ?Sized> ByRef<F, Q> {
    pub(crate) fn new(function: F) -> Self {
        Self {
            function,
            key: PhantomData,
        }
    }
}

impl<Req, K, F: Fn(&Req) -> K> KeyOf<Req> for ByKey<F, K> {
    type Key = K;

    #[inline]
    fn with_key<R>(&self, request: &Req, look_up: impl FnOnce(&K) -> R) -> R {
        look_up(&(self.function)(request))
    }
}

impl<Req, Q: ?Sized, F: Fn(&Req) -> &Q> KeyOf<Req> for ByRef<F, Q> {
    type Key = Q;

    #[inline]
    fn with_key<R>(&self, request: &Req, look_up: impl FnOnce(&Q) -> R) -> R {
        look_up((self.function)(request))
    }
}

impl<F: Clone, K> Clone for ByKey<F, K> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F: Clone, Q: ?Sized> Clone for ByRef<F, Q> {
    fn clone(&self) -> Self {
        Self::new(self.function.clone())
    }
}

impl<F, K> fmt::Debug for ByKey<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByKey")
    }
}

impl<F, Q: ?Sized> fmt::Debug for ByRef<F, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRef")
    }
}
