//! What is called inside: the same for every contender of a row.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

/// Succeeds at once.
pub async fn call() -> io::Result<u64> {
    Ok(black_box(1))
}

/// The same, for a request.
pub async fn serve(request: u64) -> io::Result<u64> {
    Ok(black_box(request))
}

/// Fails twice, succeeds once, and so on. A load and a store, no locked addition: one thread.
pub async fn fail_twice(request: u64) -> io::Result<u64> {
    static FAILURES: AtomicU32 = AtomicU32::new(0);
    let failures = FAILURES.load(Ordering::Relaxed);
    if failures < 2 {
        FAILURES.store(failures + 1, Ordering::Relaxed);
        Err(io::ErrorKind::ConnectionReset.into())
    } else {
        FAILURES.store(0, Ordering::Relaxed);
        Ok(black_box(request))
    }
}

/// The error of Tower's own layers, which holds a rejection or anything else: what a timeout needs.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Succeeds at once.
pub async fn limited_call() -> Result<u64, Failure> {
    Ok(black_box(1))
}

/// The same, for a request. It may fail, as far as the compiler can see.
pub async fn limited_serve(request: u64) -> Result<u64, Failure> {
    if black_box(false) {
        return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
    }
    Ok(black_box(request))
}

/// Pending at the first poll, succeeds at the second.
#[derive(Default)]
pub struct PendingOnce {
    polled: bool,
}

impl Future for PendingOnce {
    type Output = Result<u64, Failure>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if black_box(self.polled) {
            return Poll::Ready(Ok(black_box(1)));
        }
        self.polled = true;
        Poll::Pending
    }
}
