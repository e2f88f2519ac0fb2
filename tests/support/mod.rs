//! What the tests of the public faces share: a scripted dependency, a probe of the Tower contract, and drivers that
//! poll a future by hand.
#![allow(dead_code, reason = "each test crate uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::future::pending;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use steadfast::{Rejected, Verdict};
use tokio::time::{advance, sleep};
use tower::Service;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// The error of a caller.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the dependency is down")]
    Down,
    #[error("the dependency is busy")]
    Busy(Option<Duration>),
    #[error("the request makes no sense")]
    Refused,
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// A response of 500 and above is a failure that may pass.
pub(crate) fn judge(result: Result<&u32, &Failure>) -> Verdict {
    match result {
        Ok(status) if *status >= 500 => Verdict::TRANSIENT,
        Ok(_) => Verdict::Success,
        Err(Failure::Busy(retry_after)) => Verdict::Overloaded {
            retry_after: *retry_after,
        },
        Err(Failure::Refused) => Verdict::Permanent,
        Err(Failure::Down | Failure::Rejected(_)) => Verdict::TRANSIENT,
    }
}

/// What one call of the dependency does.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    delay: Option<Duration>,
    end: End,
}

#[derive(Clone, Debug)]
enum End {
    Result(Result<u32, Failure>),
    Panic,
    PanicWhenCalled,
}

pub(crate) fn ok(status: u32) -> Step {
    Step {
        delay: Some(Duration::ZERO),
        end: End::Result(Ok(status)),
    }
}

pub(crate) fn fail(failure: Failure) -> Step {
    Step {
        delay: Some(Duration::ZERO),
        end: End::Result(Err(failure)),
    }
}

pub(crate) fn down() -> Step {
    fail(Failure::Down)
}

/// Overloaded, for so long.
pub(crate) fn busy_for(retry_after: Duration) -> Step {
    fail(Failure::Busy(Some(retry_after)))
}

pub(crate) fn hang() -> Step {
    Step {
        delay: None,
        end: End::Panic,
    }
}

/// Panics while it is polled.
pub(crate) fn panics() -> Step {
    Step {
        delay: Some(Duration::ZERO),
        end: End::Panic,
    }
}

/// Panics where the future is made, before there is one to poll.
pub(crate) fn panics_when_called() -> Step {
    Step {
        delay: None,
        end: End::PanicWhenCalled,
    }
}

impl Step {
    /// The same, that much later.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }
}

/// A dependency that follows a script, and repeats its last step for ever.
#[derive(Clone, Debug)]
pub(crate) struct Backend(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    script: Vec<Step>,
    started: AtomicU32,
    ended: AtomicU32,
    running: AtomicI64,
}

/// A call of the dependency that is under way.
struct Running(Backend);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend {
    pub(crate) fn new(script: impl IntoIterator<Item = Step>) -> Self {
        Self(Arc::new(Shared {
            script: script.into_iter().collect(),
            started: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            running: AtomicI64::new(0),
        }))
    }

    /// One call; it counts from here, and not from its first poll.
    pub(crate) fn call(&self) -> impl Future<Output = Result<u32, Failure>> + Send + use<> {
        let index = usize::try_from(self.0.started.fetch_add(1, Ordering::SeqCst)).unwrap();
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.clone());
        let step = self.0.script[index.min(self.0.script.len() - 1)].clone();
        if let End::PanicWhenCalled = step.end {
            panic!("the operation panics when it is called");
        }
        async move {
            match step.delay {
                Some(Duration::ZERO) => {}
                Some(delay) => sleep(delay).await,
                None => pending().await,
            }
            let End::Result(result) = step.end else {
                panic!("the operation panics when it is polled")
            };
            running.0.0.ended.fetch_add(1, Ordering::SeqCst);
            result
        }
    }

    /// Calls that were started.
    pub(crate) fn started(&self) -> u32 {
        self.0.started.load(Ordering::SeqCst)
    }

    /// Calls that came to a result.
    pub(crate) fn ended(&self) -> u32 {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// Calls that hold something right now.
    pub(crate) fn running(&self) -> i64 {
        self.0.running.load(Ordering::SeqCst)
    }

    pub(crate) fn service(&self) -> Probe {
        self.service_for()
    }

    /// The same for another type of request.
    pub(crate) fn service_for<Req>(&self) -> Probe<Req> {
        Probe {
            backend: self.clone(),
            gate: Arc::default(),
            ready: false,
            request: PhantomData,
        }
    }
}

/// A service over a [`Backend`] that insists on the Tower contract: an instance is called only if it was polled ready.
#[derive(Debug)]
pub(crate) struct Probe<Req = ()> {
    backend: Backend,
    gate: Arc<Gate>,
    ready: bool,
    request: PhantomData<fn(Req)>,
}

/// What all clones of a [`Probe`] share.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// What `poll_ready` answers in turn; ready where the script is over.
    script: Mutex<Vec<Readiness>>,
    /// Instances that were readied and neither called nor dropped.
    held: AtomicI64,
    /// Readiness that was given out.
    readied: AtomicU32,
    polled: AtomicU32,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    Ready,
    /// Pending, and never woken.
    Never,
    /// Fails.
    Fails(Failure),
}

impl Gate {
    pub(crate) fn held(&self) -> i64 {
        self.held.load(Ordering::SeqCst)
    }

    pub(crate) fn readied(&self) -> u32 {
        self.readied.load(Ordering::SeqCst)
    }

    pub(crate) fn polled(&self) -> u32 {
        self.polled.load(Ordering::SeqCst)
    }

    /// Replaces what is to come, and wakes who waits.
    pub(crate) fn set(&self, script: impl IntoIterator<Item = Readiness>) {
        let mut script: Vec<_> = script.into_iter().collect();
        script.reverse();
        *self.script.lock().unwrap() = script;
        for waker in std::mem::take(&mut *self.wakers.lock().unwrap()) {
            waker.wake();
        }
    }
}

impl<Req> Probe<Req> {
    pub(crate) fn with_readiness(self, script: impl IntoIterator<Item = Readiness>) -> Self {
        self.gate.set(script);
        self
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }
}

impl<Req> Service<Req> for Probe<Req> {
    type Response = u32;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.gate.polled.fetch_add(1, Ordering::SeqCst);
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        let mut script = self.gate.script.lock().unwrap();
        match script.pop().unwrap_or(Readiness::Ready) {
            Readiness::Ready => {
                self.ready = true;
                self.gate.held.fetch_add(1, Ordering::SeqCst);
                self.gate.readied.fetch_add(1, Ordering::SeqCst);
                Poll::Ready(Ok(()))
            }
            Readiness::Never => {
                script.push(Readiness::Never);
                self.gate.wakers.lock().unwrap().push(cx.waker().clone());
                Poll::Pending
            }
            Readiness::Fails(failure) => Poll::Ready(Err(failure)),
        }
    }

    fn call(&mut self, _: Req) -> Self::Future {
        assert!(self.ready, "called on an instance that was not polled ready");
        self.ready = false;
        self.gate.held.fetch_sub(1, Ordering::SeqCst);
        Box::pin(self.backend.call())
    }
}

impl<Req> Clone for Probe<Req> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            gate: Arc::clone(&self.gate),
            ready: false,
            request: PhantomData,
        }
    }
}

impl<Req> Drop for Probe<Req> {
    fn drop(&mut self) {
        if self.ready {
            self.gate.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// A waker that counts.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls once with a waker that nobody listens to.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the clock run, a millisecond at a time, until `wakes` has counted one.
async fn until_woken(wakes: &Wakes) {
    for _ in 0..10_000 {
        if wakes.count() > 0 {
            return;
        }
        advance(MS).await;
    }
    panic!("the wake-up was lost");
}

/// What became of a future that was polled by hand.
#[derive(Debug)]
pub(crate) struct Driven<T> {
    /// `None` for one that was dropped before it was done.
    pub(crate) output: Option<T>,
    pub(crate) polls: u32,
    pub(crate) wakes: u32,
}

/// Polls `future` when it is woken, at most `limit` times, and drops it. With `swap`, each poll is followed by another
/// with a second waker, and only that one is listened to.
pub(crate) async fn drive<F: Future>(future: F, limit: u32, swap: bool) -> Driven<F::Output> {
    let mut driven = Driven {
        output: None,
        polls: 0,
        wakes: 0,
    };
    let mut future = pin!(future);
    while driven.polls < limit {
        let (first, waker) = Wakes::new();
        driven.polls += 1;
        let mut polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut heard = first;
        if swap && polled.is_pending() {
            let (second, waker) = Wakes::new();
            polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            heard = second;
        }
        if let Poll::Ready(output) = polled {
            driven.output = Some(output);
            break;
        }
        if driven.polls < limit {
            until_woken(&heard).await;
            driven.wakes += heard.count();
        }
    }
    driven
}

/// Makes a future, polls it `k` times and drops it, for every `k` until it is done; with one waker, then with two.
///
/// `check` is asked after each drop.
pub(crate) async fn cancel_everywhere<C, F: Future>(
    mut make: impl FnMut() -> (C, F),
    mut check: impl FnMut(C, Driven<F::Output>),
) {
    for swap in [false, true] {
        let mut limit = 0;
        loop {
            let (case, future) = make();
            let driven = drive(future, limit, swap).await;
            let done = driven.output.is_some();
            check(case, driven);
            if done {
                break;
            }
            limit += 1;
            assert!(limit < 1_000, "a future without an end");
        }
        assert!(limit > 1, "nothing was cancelled");
        println!("figure: cancellations injected: {limit}");
    }
}

/// How many calls a random test drops before it is content: `default`, or as many as `CANCELLATIONS` says.
pub(crate) fn cancellations(default: u64) -> u64 {
    let asked = std::env::var("CANCELLATIONS").ok();
    asked.map_or(default, |asked| asked.parse().unwrap())
}

/// Runs `call`, which has to panic, and says with what.
pub(crate) fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("there was no panic")
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&'static str>().unwrap()).to_owned(),
    }
}

/// Values in the order in which they were told.
#[derive(Debug)]
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Log<T> {
    pub(crate) fn push(&self, value: T) {
        self.0.lock().unwrap().push(value);
    }

    pub(crate) fn all(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
