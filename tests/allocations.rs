//! What a call costs in memory: no allocation where nothing goes wrong, and futures of a size that can be told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

use std::future::{Future, Ready, pending, ready};
use std::mem::size_of_val;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use steadfast::Rejected;
use steadfast::bulkhead::Bulkhead;
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder, State};
use steadfast::fallback::Fallback;
use steadfast::retry::{Retry, RetryBudget};
use steadfast::timeout::Timeout;
use tower::{Layer, Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<u32, Rejected>;

fn answer() -> Ready<Answer> {
    ready(Ok(1))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Allocations of the second run of `call`; the first one registers counters and log events.
#[track_caller]
fn costs(what: &str, allocations: u64, mut call: impl FnMut()) {
    call();
    let counted = measure(call).count_total;
    assert_eq!(counted, allocations, "allocations of {what}");
}

fn done<F: Future<Output = Answer>>(future: F) {
    assert!(matches!(poll(pin!(future)), Poll::Ready(Ok(1))));
}

/// Readies and calls a service that is built once.
fn served<S: Service<u32, Response = u32, Error = Rejected>>(service: &mut S) {
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    done(service.call(7));
}

fn retry() -> Retry {
    let budget = RetryBudget::default();
    Retry::exponential(SECOND)
        .max_elapsed(SECOND)
        .budget(&budget)
        .build()
        .unwrap()
}

fn bulkhead() -> Bulkhead {
    Bulkhead::builder("lanes").max_concurrent(2).build().unwrap()
}

/// A breaker for each kind of window, with everything that a rule can ask of it.
fn breakers() -> [(&'static str, CircuitBreakerBuilder); 4] {
    let breaker = || CircuitBreaker::builder("payments");
    [
        ("a count window", breaker()),
        ("a time window", breaker().time_window(SECOND)),
        ("a streak", breaker().failure_rate(None).consecutive_failures(5)),
        (
            "every rule",
            breaker()
                .consecutive_failures(50)
                .slow_call_rate(0.5)
                .slow_call_duration(SECOND),
        ),
    ]
}

fn failed() -> Ready<Answer> {
    ready(Err(Rejected::timed_out("inner", SECOND)))
}

fn rejected<F: Future<Output = Answer>>(future: F) {
    assert!(matches!(poll(pin!(future)), Poll::Ready(Err(_))));
}

#[test]
fn a_counting_allocator_is_at_work() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn a_call_that_goes_well_allocates_nothing() {
    let (retry, timeout, fallback) = (retry(), Timeout::new(SECOND), Fallback::value(2));
    let breaker = CircuitBreaker::builder("payments").build().unwrap();
    costs("a circuit breaker", 0, || done(breaker.call(answer())));
    costs("a retry", 0, || done(retry.call(answer)));
    costs("a timeout", 0, || done(timeout.call(answer())));
    costs("a fallback", 0, || done(fallback.call(answer())));
    let bulkhead = bulkhead();
    costs("a bulkhead", 0, || done(bulkhead.call(answer())));
    costs("a permit", 0, || drop(bulkhead.try_acquire().unwrap()));
    costs("a stack", 0, || {
        done(fallback.call(timeout.call(retry.call(|| breaker.call(timeout.call(answer()))))));
    });
}

#[test]
fn a_tower_call_that_goes_well_allocates_nothing() {
    let inner = || service_fn(|_: u32| answer());
    let mut service = retry().layer(inner());
    costs("a retry", 0, || served(&mut service));
    let mut service = Timeout::new(SECOND).layer(inner());
    costs("a timeout", 0, || served(&mut service));
    let mut service = Timeout::new(SECOND).per_request(|_: &u32| SECOND).layer(inner());
    costs("a timeout per request", 0, || served(&mut service));
    let mut service = bulkhead().layer(inner());
    costs("a bulkhead", 0, || served(&mut service));
    let mut service = bulkhead().weighted(|_: &u32| NonZeroU32::MIN).layer(inner());
    costs("a bulkhead by weight", 0, || served(&mut service));
    let mut service = Fallback::value(2).layer(inner());
    costs("a fallback", 0, || served(&mut service));
    let mut service = Fallback::service(inner()).layer(inner());
    costs("a fallback to a service", 0, || served(&mut service));
    let mut service = ServiceBuilder::new()
        .layer(Fallback::value(2))
        .layer(Timeout::total(SECOND))
        .layer(retry())
        .layer(CircuitBreaker::builder("payments").build().unwrap())
        .layer(Timeout::attempt(SECOND))
        .service(inner());
    costs("a stack", 0, || served(&mut service));
}

#[test]
fn a_retry_that_does_not_wait_allocates_nothing() {
    let retry = Retry::constant(Duration::ZERO).build().unwrap();
    costs("three attempts", 0, || {
        let mut left = 3;
        done(retry.call(|| {
            left -= 1;
            ready(if left > 0 {
                Err(Rejected::timed_out("inner", SECOND))
            } else {
                Ok(1)
            })
        }));
    });
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Polls `make`'s future until it is ready, and counts the allocations of the polls and of the drop.
async fn pending_costs<F: Future<Output = Answer>>(mut make: impl FnMut() -> F) -> u64 {
    let mut counted = 0;
    for _ in 0..2 {
        counted = 0;
        let mut future = None;
        counted += measure(|| future = Some(make())).count_total;
        let mut future = pin!(future.unwrap());
        let mut polled = Poll::Pending;
        while polled.is_pending() {
            counted += measure(|| polled = poll(future.as_mut())).count_total;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
    counted
}

#[test]
fn a_rejection_allocates_nothing() {
    paused().block_on(async {
        let timeout = Timeout::new(Duration::ZERO);
        assert_eq!(pending_costs(|| timeout.call(pending::<Answer>())).await, 0);
        let service = timeout.layer(service_fn(|_: u32| pending::<Answer>()));
        assert_eq!(pending_costs(|| service.clone().call(7)).await, 0);
        // A name that was made at run time is shared, not copied.
        let named = timeout.name(String::from("made at run time"));
        assert_eq!(pending_costs(|| named.call(pending::<Answer>())).await, 0);

        let full = Bulkhead::builder(String::from("made at run time")).build().unwrap();
        full.set_max_concurrent(0);
        assert_eq!(pending_costs(|| full.call(answer())).await, 0);
        assert_eq!(pending_costs(|| full.call_weighted(NonZeroU32::MAX, answer())).await, 0);
        let service = full.layer(service_fn(|_: u32| answer()));
        assert_eq!(pending_costs(|| service.clone().call(7)).await, 0);
        costs("a permit that is refused", 0, || drop(full.try_acquire().unwrap_err()));
    });
}

#[test]
fn a_wait_for_a_permit_allocates_once_and_handing_it_on_never() {
    paused().block_on(async {
        let bulkhead = Bulkhead::builder("lanes").max_concurrent(1).max_queued(1);
        let bulkhead = bulkhead.max_wait(SECOND).build().unwrap();
        // The first ones also make a place in the queue, and register counters.
        for (n, admitted) in [true, false, true, false].into_iter().enumerate() {
            let mut permit = Some(bulkhead.try_acquire().unwrap());
            let mut call = pin!(bulkhead.call(answer()));
            let waits = measure(|| assert!(poll(call.as_mut()).is_pending())).count_total;
            if !admitted {
                tokio::time::advance(SECOND).await;
            }
            let ends = measure(|| {
                permit = permit.take().filter(|_| !admitted);
                assert!(poll(call.as_mut()).is_ready());
            });
            assert!(n < 2 || (waits, ends.count_total) == (1, 0), "{waits}, {ends:?}");
        }
    });
}

#[test]
fn all_waits_of_a_call_share_one_timer_and_there_is_no_other_allocation() {
    paused().block_on(async {
        let failing = || ready(Err::<u32, _>(Rejected::timed_out("inner", SECOND)));
        for (wait, allocations) in [(Duration::from_millis(5), 1), (Duration::ZERO, 0)] {
            let retry = Retry::constant(wait).max_attempts(5).build().unwrap();
            assert_eq!(pending_costs(|| retry.call(failing)).await, allocations);
        }
    });
}

#[test]
fn a_circuit_breaker_allocates_nothing_after_it_was_built() {
    for (name, builder) in breakers() {
        let breaker = builder.max_open_time(SECOND).open_time(SECOND).build().unwrap();
        let mut service = breaker.layer(service_fn(|_: u32| answer()));
        let mut pending_inside = breaker.layer(service_fn(|_: u32| pending::<Answer>()));
        costs(name, 0, || done(breaker.call(answer())));
        costs(name, 0, || rejected(breaker.call(failed())));
        costs(name, 0, || served(&mut service));
        costs(name, 0, || {
            assert!(poll(pin!(breaker.call(pending::<Answer>()))).is_pending());
        });
        costs(name, 0, || {
            std::hint::black_box((breaker.snapshot(), breaker.state()));
        });
        // A change of state may cost something where it is counted by name; what comes between two of them does not.
        let paused = paused();
        let _inside = paused.enter();
        while breaker.state() == State::Closed {
            rejected(breaker.call(failed()));
        }
        costs(name, 0, || rejected(breaker.call(answer())));
        costs(name, 0, || {
            let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
            assert!(ready.is_ready());
            rejected(service.call(7));
        });
        paused.block_on(tokio::time::advance(SECOND));
        assert!(poll(pin!(breaker.call(pending::<Answer>()))).is_pending());
        let ready = pending_inside.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready());
        assert_eq!(breaker.state(), State::HalfOpen);
        let counted = measure(|| {
            // Three probes that are pending, a good one, and one too many.
            let tower = pending_inside.call(7);
            let mut probes = [(); 2].map(|()| breaker.call(pending::<Answer>()));
            let mut tower = pin!(tower);
            assert!(poll(tower.as_mut()).is_pending());
            for probe in &mut probes {
                assert!(poll(Pin::new(probe)).is_pending());
            }
            done(breaker.call(answer()));
            rejected(breaker.call(answer()));
            drop(probes);
            served(&mut service);
        });
        assert_eq!((counted.count_total, breaker.state()), (0, State::HalfOpen), "{name}");
    }
}

/// What is on the heap for a breaker, its calls included.
fn size_of_breaker(builder: CircuitBreakerBuilder) -> i64 {
    let mut breaker = None;
    let built = measure(|| breaker = Some(builder.build().unwrap()));
    let breaker = breaker.unwrap();
    let mut grown = 0;
    for n in 0..5_000 {
        let call = || {
            let call = breaker.call(if n % 3 == 0 { failed() } else { answer() });
            assert!(poll(pin!(call)).is_ready());
        };
        // The first of each kind registers its counter.
        if n < 10 {
            call();
        } else {
            grown += measure(call).count_total;
        }
    }
    assert_eq!(grown, 0, "it grows");
    built.bytes_current
}

#[test]
fn a_circuit_breaker_takes_less_than_a_kibibyte() {
    let breaker = || CircuitBreaker::builder("payments");
    let slow = |builder: CircuitBreakerBuilder| builder.slow_call_rate(0.9).slow_call_duration(SECOND);
    for (name, builder, limit) in [
        ("100 calls", breaker(), 1_024),
        ("1,000 calls", breaker().count_window(1_000), 1_024),
        ("a time window", breaker().time_window(SECOND), 1_024),
        (
            "a time window with slow calls",
            slow(breaker().time_window(SECOND)),
            1_024,
        ),
        // A bit for each call, and one for each that may be slow.
        (
            "1,000 calls that may be slow",
            slow(breaker().count_window(1_000)),
            1_280,
        ),
    ] {
        let size = size_of_breaker(builder);
        println!("figure: bytes of a circuit breaker, {name}: {size}");
        assert!(size < limit, "{name}: {size} bytes");
    }
}

/// An operation of one byte.
struct Tiny(u8);

impl Future for Tiny {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Ready(Ok(self.0.into()))
    }
}

#[test]
fn futures_are_small_but_for_the_timer_that_they_hold() {
    // tokio's own, and none of our business.
    let timer = size_of::<tokio::time::Sleep>();
    let tiny = || Tiny(1);
    let inner = || service_fn(|_: u8| Tiny(1));
    let (retry, timeout, fallback) = (Retry::default(), Timeout::new(SECOND), Fallback::value(2));
    let bulkhead = bulkhead();
    let breaker = CircuitBreaker::builder("payments").build().unwrap();
    for (name, size, ceiling) in [
        ("retry", size_of_val(&retry.call(tiny)), timer + 192),
        ("timeout", size_of_val(&timeout.call(tiny())), timer + 64),
        ("fallback", size_of_val(&fallback.call(tiny())), 88),
        // Its timer is in a box, made for a call that waits.
        ("bulkhead", size_of_val(&bulkhead.call(tiny())), 32),
        ("circuit breaker", size_of_val(&breaker.call(tiny())), 64),
        (
            "circuit breaker, Tower",
            size_of_val(&breaker.layer(inner()).call(7)),
            64,
        ),
        ("retry, Tower", size_of_val(&retry.layer(inner()).call(7)), timer + 192),
        (
            "timeout, Tower",
            size_of_val(&timeout.layer(inner()).call(7)),
            timer + 120,
        ),
        ("bulkhead, Tower", size_of_val(&bulkhead.layer(inner()).call(7)), 40),
        ("fallback, Tower", size_of_val(&fallback.layer(inner()).call(7)), 88),
    ] {
        assert!(size <= ceiling, "{name}: {size} bytes, {ceiling} allowed");
    }
}
