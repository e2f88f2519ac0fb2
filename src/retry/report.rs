//! The driver that answers with a report too.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;

use super::attempt::{Attempts, Report};
use super::future::ResponseFuture;
use super::policy::Held;
use crate::Classify;

/// A call under a [`Retry`](super::Retry) that answers with its [`Report`] too.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct WithReport<P: Held, A: Attempts<P::Replay>> {
    #[pin]
    call: ResponseFuture<P, A>,
}

impl<P: Held, A: Attempts<P::Replay>> WithReport<P, A> {
    pub(crate) fn new(call: ResponseFuture<P, A>) -> Self {
        Self { call }
    }
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
