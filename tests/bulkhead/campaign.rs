//! Random histories of real calls, polled, dropped and woken by hand, in every face at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use steadfast::RejectedKind;
use steadfast::bulkhead::Bulkhead;
use tower::{Layer, ServiceExt, service_fn};

use super::support::{Failure, Wakes, cancellations};
use super::{Call, FACES, Face, builder, gauges, ms, w};

#[derive(Clone, Debug)]
enum Step {
    /// A call in a face, of a weight, that takes so many milliseconds; and how often it is polled at once.
    Start(usize, u32, u32, u32),
    /// Of the n-th call, counted around: with a new waker.
    Poll(usize),
    Drop(usize),
    /// Every call that was woken.
    PollWoken,
    Advance(u32),
    SetLimit(u32),
    SetMaxQueued(u32),
    /// A permit taken by hand, and the n-th given back.
    TryAcquire(u32),
    GiveBack(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let weight = || prop_oneof![5 => Just(1_u32), 2 => 2..4_u32];
    prop_oneof![
        12 => (0..3_usize, weight(), 0..8_u32, 0..3_u32).prop_map(|(face, w, takes, polls)| Step::Start(face, w, takes, polls)),
        4 => any::<usize>().prop_map(Step::Poll),
        9 => any::<usize>().prop_map(Step::Drop),
        3 => Just(Step::PollWoken),
        3 => (1..12_u32).prop_map(Step::Advance),
        1 => (0..5_u32).prop_map(Step::SetLimit),
        1 => (0..6_u32).prop_map(Step::SetMaxQueued),
        1 => weight().prop_map(Step::TryAcquire),
        1 => any::<usize>().prop_map(Step::GiveBack),
    ]
}

/// What the operations themselves count: the weight of those under way.
type Running = Arc<AtomicU32>;

/// An operation that counts from its first poll to its end.
struct Counted(Running, u32);

impl Counted {
    fn new(running: &Running, weight: u32) -> Self {
        running.fetch_add(weight, Ordering::SeqCst);
        Self(Arc::clone(running), weight)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

async fn operation(running: Running, weight: u32, takes: u32) -> Result<u32, Failure> {
    let _counted = Counted::new(&running, weight);
    if takes > 0 {
        tokio::time::sleep(ms(takes)).await;
    }
    Ok(weight)
}

fn call(bulkhead: &Bulkhead, face: Face, running: &Running, weight: u32, takes: u32) -> Call {
    let (bulkhead, running) = (bulkhead.clone(), Arc::clone(running));
    match face {
        Face::Plain => Box::pin(async move {
            let operation = operation(running, weight, takes);
            bulkhead.call_weighted(w(weight), operation).await
        }),
        Face::Tower => {
            let inner = service_fn(move |()| operation(Arc::clone(&running), weight, takes));
            Box::pin(bulkhead.weighted(move |()| w(weight)).layer(inner).oneshot(()))
        }
        Face::Permit => Box::pin(async move {
            let permit = bulkhead.acquire_weighted(w(weight)).await?;
            let result = operation(running, weight, takes).await;
            drop(permit);
            result
        }),
    }
}

struct Live {
    call: Call,
    /// Of the last poll; `None` before the first.
    wakes: Option<Arc<Wakes>>,
}

struct History {
    bulkhead: Bulkhead,
    running: Running,
    permits: Vec<steadfast::bulkhead::Permit>,
    calls: Vec<Live>,
    cancelled: u64,
}

impl History {
    fn new(limit: u32, max_queued: u32) -> Self {
        let bulkhead = builder(limit, max_queued).build().unwrap();
        bulkhead.set_max_wait(ms(20)).unwrap();
        Self {
            bulkhead,
            running: Running::default(),
            permits: Vec::new(),
            calls: Vec::new(),
            cancelled: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Start(face, weight, takes, polls) => {
                let call = call(&self.bulkhead, FACES[face], &self.running, weight, takes);
                self.calls.push(Live { call, wakes: None });
                for _ in 0..polls {
                    if !self.poll(self.calls.len() - 1) {
                        break;
                    }
                }
            }
            Step::Poll(n) if !self.calls.is_empty() => {
                self.poll(n % self.calls.len());
            }
            Step::Drop(n) if !self.calls.is_empty() => {
                self.calls.remove(n % self.calls.len());
                self.cancelled += 1;
            }
            Step::PollWoken => {
                self.poll_woken();
            }
            Step::Advance(millis) => tokio::time::advance(ms(millis)).await,
            Step::SetLimit(limit) => self.bulkhead.set_max_concurrent(limit),
            Step::SetMaxQueued(max_queued) => self.bulkhead.set_max_queued(max_queued).unwrap(),
            Step::TryAcquire(weight) => self.permits.extend(self.bulkhead.try_acquire_weighted(w(weight))),
            Step::GiveBack(n) if !self.permits.is_empty() => {
                drop(self.permits.remove(n % self.permits.len()));
            }
            Step::Poll(_) | Step::Drop(_) | Step::GiveBack(_) => {}
        }
        self.check();
    }

    /// Polls with a new waker. False: it is done, and gone.
    fn poll(&mut self, index: usize) -> bool {
        let live = &mut self.calls[index];
        let (heard, waker) = Wakes::new();
        let polled = live.call.as_mut().poll(&mut Context::from_waker(&waker));
        live.wakes = Some(heard);
        if let Poll::Ready(result) = polled {
            self.calls.remove(index);
            if let Err(error) = result {
                let kind = steadfast::Rejected::find(&error).unwrap().kind();
                assert!(matches!(kind, RejectedKind::BulkheadFull | RejectedKind::QueueTimedOut));
            }
            return false;
        }
        true
    }

    fn woken(&self) -> Option<usize> {
        self.calls
            .iter()
            .position(|live| live.wakes.as_ref().is_some_and(|wakes| wakes.count() > 0))
    }

    fn poll_woken(&mut self) {
        while let Some(index) = self.woken() {
            self.poll(index);
        }
    }

    fn by_hand(&self) -> u32 {
        self.permits.iter().map(|permit| permit.weight().get()).sum()
    }

    /// The gauges agree with what the operations say, exactly where no call has news that it has not seen.
    fn check(&self) {
        let (in_flight, queued, available) = gauges(&self.bulkhead);
        let running = self.running.load(Ordering::SeqCst) + self.by_hand();
        let polled = self.calls.iter().filter(|live| live.wakes.is_some()).count();
        assert!(running <= in_flight, "{running} run, {in_flight} are counted");
        assert!(usize::try_from(queued).unwrap() <= polled);
        assert_eq!(available, self.bulkhead.max_concurrent().saturating_sub(in_flight));
        if self.woken().is_none() {
            assert_eq!(in_flight, running);
        }
    }

    /// Nothing is cancelled from here on: every call comes to its end, and nothing is left.
    async fn end(mut self) {
        self.permits.clear();
        self.bulkhead.set_max_concurrent(9);
        for index in (0..self.calls.len()).rev() {
            if self.calls[index].wakes.is_none() {
                self.poll(index);
            }
        }
        for _ in 0..100 {
            self.poll_woken();
            self.check();
            if self.calls.is_empty() {
                break;
            }
            tokio::time::advance(ms(1)).await;
        }
        assert!(self.calls.is_empty(), "a wake-up was lost");
        assert_eq!(gauges(&self.bulkhead), (0, 0, 9));
        assert_eq!(self.running.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn random_histories_of_calls_lose_no_permit_and_no_wake_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let histories = Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    };
    let (target, cancelled) = (cancellations(50_000), AtomicU64::new(0));
    let strategy = (1..5_u32, 1..6_u32, prop::collection::vec(any_step(), 1..80));
    while cancelled.load(Ordering::Relaxed) < target {
        TestRunner::new(histories.clone())
            .run(&strategy, |(limit, max_queued, steps)| {
                runtime.block_on(async {
                    let mut history = History::new(limit, max_queued);
                    for step in steps {
                        history.step(step).await;
                    }
                    cancelled.fetch_add(history.cancelled, Ordering::Relaxed);
                    history.end().await;
                });
                Ok(())
            })
            .unwrap();
    }
    println!("figure: cancellations injected: {}", cancelled.into_inner());
}

/// Threads that start calls and drop them at any moment, for real.
#[test]
fn calls_that_are_aborted_from_other_threads_leave_nothing_behind() {
    const CALLS: u32 = 4_000;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let bulkhead = builder(3, 16).max_wait(Duration::from_secs(60)).build().unwrap();
    let running = Running::default();
    let most = Arc::new(AtomicU32::new(0));
    let mut cancelled = 0;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for n in 0..CALLS {
            let (counter, most) = (Arc::clone(&running), Arc::clone(&most));
            let operation = async move {
                let under_way = Counted::new(&counter, 1);
                most.fetch_max(counter.load(Ordering::SeqCst), Ordering::SeqCst);
                tokio::task::yield_now().await;
                drop(under_way);
                Ok::<_, Failure>(1)
            };
            let lanes = bulkhead.clone();
            tasks.push(tokio::spawn(async move { lanes.call(operation).await }));
            if n % 3 == 0 {
                tokio::task::yield_now().await;
                tasks[usize::try_from(n / 2).unwrap()].abort();
            }
        }
        for task in tasks {
            cancelled += u32::from(task.await.is_err());
        }
    });
    assert_eq!(gauges(&bulkhead), (0, 0, 3));
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    println!("figure: cancellations injected: {cancelled}");
}
