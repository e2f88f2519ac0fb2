//! Real futures over one shared breaker, polled, woken, decided and dropped by hand at random; and what is left when all
//! of them are gone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use steadfast::Backoff;
use steadfast::circuit_breaker::{Abandoned, Isolation};
use tokio::task::unconstrained;
use tower::limit::ConcurrencyLimit;

use super::support::{Wakes, cancellations};
use super::*;

/// So many calls are dropped before their end, or as many as `CANCELLATIONS` says.
const CANCELLATIONS: u64 = 100_000;
const PERMITS: usize = 3;

/// A generator of its own, so that a history is known by its number: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }
}

/// What becomes of an operation, once that is decided.
#[derive(Clone, Debug)]
enum Outcome {
    Result(Result<u32, Failure>),
    Panic,
}

/// Operations that are under way, decided by hand.
#[derive(Clone, Default)]
struct Dependency(Arc<Operations>);

#[derive(Default)]
struct Operations {
    started: AtomicU32,
    running: AtomicU32,
    undecided: Mutex<Vec<Arc<Slot>>>,
    /// Decides at once, if set.
    healthy: Mutex<Option<Outcome>>,
}

#[derive(Default)]
struct Slot(Mutex<(Option<Outcome>, Option<Waker>)>);

struct Operation {
    dependency: Dependency,
    slot: Arc<Slot>,
}

impl Dependency {
    fn begin(&self) -> Operation {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        self.0.running.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot::default());
        slot.0.lock().unwrap().0.clone_from(&self.0.healthy.lock().unwrap());
        self.0.undecided.lock().unwrap().push(Arc::clone(&slot));
        Operation {
            dependency: self.clone(),
            slot,
        }
    }

    fn decide(&self, random: &mut Random, outcome: Outcome) {
        let mut undecided = self.0.undecided.lock().unwrap();
        if undecided.is_empty() {
            return;
        }
        let place = random.index(undecided.len());
        let slot = undecided.swap_remove(place);
        let mut slot = slot.0.lock().unwrap();
        slot.0 = Some(outcome);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }
}

impl Future for Operation {
    type Output = Result<u32, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.0.lock().unwrap();
        let Some(outcome) = slot.0.clone() else {
            slot.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(slot);
        match outcome {
            Outcome::Result(result) => Poll::Ready(result),
            // Without a word on the terminal.
            Outcome::Panic => resume_unwind(Box::new("the operation")),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let operations = &self.dependency.0;
        operations.running.fetch_sub(1, Ordering::Relaxed);
        let mut undecided = operations.undecided.lock().unwrap();
        undecided.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}

impl Service<()> for Dependency {
    type Response = u32;
    type Error = Failure;
    type Future = Operation;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Operation {
        self.begin()
    }
}

/// A call that is under way.
struct Live {
    call: Call,
    wakes: Option<Arc<Wakes>>,
}

/// One breaker, and everything that happens to it.
struct History {
    random: Random,
    breaker: Breaker,
    dependency: Dependency,
    inner: ConcurrencyLimit<Dependency>,
    live: Vec<Live>,
    isolations: Vec<Isolation>,
    /// What the breaker told of ends, rejections and rejections in shadow mode.
    told: Arc<[AtomicU32; 3]>,
    cancelled: u32,
    rejections: u32,
}

impl History {
    fn new(number: u32) -> Self {
        let mut random = Random(u64::from(number));
        let told: Arc<[AtomicU32; 3]> = Arc::default();
        let counted = Arc::clone(&told);
        let samples = 1 + u32::try_from(random.below(4)).unwrap();
        let mut builder = CircuitBreaker::builder("payments")
            .minimum_calls(2)
            .open_backoff(Backoff::exponential(SECOND))
            .max_open_time(4 * SECOND)
            .samples(samples)
            .success_rate(random.one_of(&[0.01, 0.5, 1.0]))
            .max_concurrent_probes(1 + u32::try_from(random.below(u64::from(samples))).unwrap())
            .max_probe_time(random.one_of(&[MS, 3 * SECOND, Duration::MAX]))
            .use_retry_after(random.below(2) == 0)
            .shadow(random.below(8) == 0)
            .abandoned(random.one_of(&[
                Abandoned::Ignore,
                Abandoned::Failure,
                Abandoned::FailureAfter(ZERO),
                Abandoned::FailureAfter(SECOND),
            ]));
        builder = match random.below(3) {
            0 => builder.count_window(8),
            1 => builder.time_window(5 * SECOND),
            _ => builder.failure_rate(None).consecutive_failures(2),
        };
        if random.below(3) == 0 {
            builder = builder.slow_call_duration(SECOND).slow_call_rate(0.5);
        }
        let builder = builder.classify(verdict).on_event(move |event| {
            let which = match event {
                Event::Finished { .. } => 0,
                Event::Rejected { shadow: false, .. } => 1,
                Event::Rejected { shadow: true, .. } => 2,
                _ => return,
            };
            counted[which].fetch_add(1, Ordering::Relaxed);
        });
        let dependency = Dependency::default();
        Self {
            random,
            breaker: builder.build().unwrap().erased(),
            inner: ConcurrencyLimit::new(dependency.clone(), PERMITS),
            dependency,
            live: Vec::new(),
            isolations: Vec::new(),
            told,
            cancelled: 0,
            rejections: 0,
        }
    }

    fn call(&mut self) -> Call {
        let (breaker, dependency) = (self.breaker.clone(), self.dependency.clone());
        if self.random.below(2) == 0 {
            Box::pin(async move { breaker.call(async { dependency.begin().await }).await })
        } else {
            Box::pin(breaker.layer(self.inner.clone()).oneshot(()))
        }
    }

    /// Polls the call in this place, and takes it away if it has ended.
    fn poll(&mut self, place: usize) {
        let (wake_count, waker) = Wakes::new();
        let live = &mut self.live[place];
        live.wakes = Some(wake_count);
        let call = &mut live.call;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            call.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(Err(Failure::Rejected(_)))) => self.rejections += 1,
            Ok(Poll::Ready(_)) => {}
            Err(payload) => Self::check_panic(payload),
        }
        self.live.swap_remove(place);
    }

    fn check_panic(payload: Box<dyn Any + Send>) {
        match payload.downcast::<&str>() {
            Ok(message) if *message == "the operation" => {}
            Ok(message) => panic!("{message}"),
            Err(other) => resume_unwind(other),
        }
    }

    fn drop_one(&mut self, place: usize) {
        drop(self.live.swap_remove(place));
        self.cancelled += 1;
    }

    fn outcome(&mut self) -> Outcome {
        self.random.one_of(&[
            Outcome::Result(Ok(200)),
            Outcome::Result(Ok(200)),
            Outcome::Result(Ok(IGNORED)),
            Outcome::Result(Err(Failure::Down)),
            Outcome::Result(Err(Failure::Refused)),
            Outcome::Result(Err(Failure::Busy(Some(2 * SECOND)))),
            Outcome::Panic,
        ])
    }

    fn by_hand(&mut self) {
        match self.random.below(10) {
            0 => self.breaker.force_open(),
            1 => self.breaker.force_closed(),
            2 => self.breaker.disable(),
            3..=5 => self.breaker.reset(),
            6 => self.isolations.push(self.breaker.isolate()),
            7 => drop(self.isolations.pop()),
            8 => self.breaker.set_shadow(self.random.below(8) == 0),
            _ => self.breaker.restore(&self.breaker.export()).unwrap(),
        }
    }

    async fn step(&mut self) {
        match self.random.below(32) {
            0..10 if self.live.len() < 10 => {
                let call = self.call();
                self.live.push(Live { call, wakes: None });
                if self.random.below(8) > 0 {
                    self.poll(self.live.len() - 1);
                }
            }
            10..14 if !self.live.is_empty() => {
                let place = self.random.index(self.live.len());
                self.poll(place);
            }
            // Who was woken is polled.
            14..18 => {
                let woken = |live: &Live| live.wakes.as_ref().is_some_and(|wakes| wakes.count() > 0);
                while let Some(place) = self.live.iter().position(woken) {
                    self.poll(place);
                }
            }
            18..22 => {
                let outcome = self.outcome();
                self.dependency.decide(&mut self.random, outcome);
            }
            22..30 if !self.live.is_empty() => {
                let place = self.random.index(self.live.len());
                self.drop_one(place);
            }
            30 => advance(self.random.one_of(&[MS, 400 * MS, SECOND, 3 * SECOND])).await,
            31 if self.random.below(3) == 0 => self.by_hand(),
            _ => {}
        }
        let running = self.dependency.0.running.load(Ordering::Relaxed);
        assert!(
            self.breaker.snapshot().probes_in_flight <= running,
            "more probes than calls"
        );
    }

    /// Drops what is left: nothing is held any more, and each call had one end.
    fn end(&mut self) {
        while !self.live.is_empty() {
            let place = self.random.index(self.live.len());
            self.drop_one(place);
        }
        assert_eq!(self.breaker.snapshot().probes_in_flight, 0, "a probe is missing");
        assert_eq!(self.dependency.0.running.load(Ordering::Relaxed), 0);
        let mut permits: Vec<_> = (0..PERMITS).map(|_| self.inner.clone()).collect();
        assert!(
            permits.iter_mut().all(|inner| readiness(inner).is_ready()),
            "a permit is missing"
        );
        let told = |which: usize| self.told[which].load(Ordering::Relaxed);
        assert_eq!(told(0), self.dependency.0.started.load(Ordering::Relaxed), "ends");
        assert_eq!(told(1), self.rejections, "rejections");
    }

    /// Over a dependency that is well it closes: in its own time, or at a word where that was asked for.
    async fn heal(&mut self) {
        self.isolations.clear();
        self.breaker.set_shadow(false);
        if matches!(
            self.breaker.state(),
            State::ForcedOpen | State::ForcedClosed | State::Disabled
        ) {
            self.breaker.reset();
            assert_eq!(self.breaker.state(), State::Closed);
        }
        *self.dependency.0.healthy.lock().unwrap() = Some(Outcome::Result(Ok(200)));
        let mut calls = 0;
        while self.breaker.state() != State::Closed {
            advance(self.breaker.snapshot().retry_after.unwrap_or_default()).await;
            let mut call = self.call();
            assert!(matches!(poll(&mut call), Poll::Ready(Ok(200))), "not admitted");
            calls += 1;
            assert!(calls <= 4, "it does not close");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_dropped_and_when_nothing_is_held_and_the_breaker_closes() {
    let target = cancellations(CANCELLATIONS);
    let (mut cancelled, mut rejections, mut in_shadow) = (0, 0, 0);
    for number in 0.. {
        let run = async {
            let mut history = History::new(number);
            for _ in 0..300 {
                history.step().await;
            }
            history.end();
            history.heal().await;
            history
        };
        let history = AssertUnwindSafe(unconstrained(run));
        let history = futures::FutureExt::catch_unwind(history)
            .await
            .unwrap_or_else(|payload| {
                println!("in history {number}");
                resume_unwind(payload)
            });
        cancelled += u64::from(history.cancelled);
        rejections += u64::from(history.rejections);
        in_shadow += u64::from(history.told[2].load(Ordering::Relaxed));
        if cancelled >= target {
            break;
        }
    }
    println!("figure: cancellations injected: {cancelled}");
    // The histories are of the kind that they are meant to be.
    assert!(
        rejections > target / 20 && in_shadow > target / 1_000,
        "{rejections}, {in_shadow}"
    );
}

/// The same with two threads, in real time and without a wait: calls that yield, fail and are aborted while the breaker
/// opens and closes all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_aborted_on_other_threads_leave_nothing_behind_either() {
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&ended);
    let breaker = CircuitBreaker::builder("payments")
        .count_window(8)
        .minimum_calls(4)
        .open_time(Duration::from_micros(20))
        .samples(2)
        .abandoned(Abandoned::FailureAfter(Duration::from_micros(50)))
        .classify(verdict)
        .on_event(move |event| {
            if let Event::Finished { .. } = event {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
        .build()
        .unwrap()
        .erased();
    let mut random = Random(7);
    let mut aborted = 0;
    for _ in 0..2_000 {
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (breaker, begun) = (breaker.clone(), Arc::clone(&begun));
                let (yields, fails) = (random.below(6), random.below(3) == 0);
                let operation = async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    for _ in 0..yields {
                        tokio::task::yield_now().await;
                    }
                    if fails { Err(Failure::Down) } else { Ok(200) }
                };
                if n % 2 == 0 {
                    tokio::spawn(async move { breaker.call(operation).await })
                } else {
                    let once = Arc::new(Mutex::new(Some(operation)));
                    let service = tower::service_fn(move |()| {
                        let operation = once.lock().unwrap().take();
                        async move { operation.unwrap().await }
                    });
                    tokio::spawn(breaker.layer(service).oneshot(()))
                }
            })
            .collect();
        if random.below(2) == 0 {
            tokio::task::yield_now().await;
        }
        for task in tasks {
            if random.below(2) == 0 {
                task.abort();
            }
            if task.await.is_err() {
                aborted += 1;
            }
        }
        assert_eq!(breaker.snapshot().probes_in_flight, 0);
        assert_eq!(ended.load(Ordering::Relaxed), begun.load(Ordering::Relaxed));
    }
    println!("figure: cancellations injected: {aborted}");
    assert!(
        breaker.snapshot().stale_results > 0,
        "it has never changed under a call"
    );
}
