//! What a set costs: memory that is flat, no allocation for a key that is there, bounded polls.

use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use futures::executor::block_on;
use steadfast::Rejected;
use steadfast::circuit_breaker::{CircuitBreaker, State};
use steadfast::http::authority;
use tower::{Layer, Service, service_fn};

use super::support::{Backend, drive, ok, poll_once};
use super::{MS, bulkhead, bulkheads, fails};

type Answer = Result<u32, Rejected>;

fn answer<T>(_: T) -> Ready<Answer> {
    ready(Ok(1))
}

#[tokio::test(start_paused = true)]
async fn a_million_keys_through_a_set_of_ten_thousand_leave_memory_flat_and_the_open_ones_there() {
    const OPEN: u32 = 100;
    const HELD: u32 = 200;
    let hosts = CircuitBreaker::builder("hosts")
        .minimum_calls(3)
        .keyed::<u32>()
        .max_keys(10_000)
        .build()
        .unwrap();
    for key in 0..OPEN {
        for _ in 0..3 {
            hosts.get(&key).call(fails()).await.unwrap_err();
        }
        assert_eq!(hosts.get(&key).state(), State::Open);
    }
    let held: Vec<_> = (OPEN..HELD).map(|key| hosts.get(&key)).collect();
    for (n, breaker) in held.iter().enumerate() {
        let fails = u32::try_from(n).unwrap() % 2;
        for _ in 0..=fails {
            breaker.call(super::fails()).await.unwrap_err();
        }
    }
    let call = |key: u32| {
        let called = poll_once(pin!(hosts.get(&key).call(answer(key))));
        assert!(matches!(called, Poll::Ready(Ok(1))));
    };
    for key in HELD..20_000 {
        call(key);
    }
    let counted = measure(|| (20_000..1_020_000).for_each(call));
    println!("figure: bytes kept after a million keys: {}", counted.bytes_current);
    assert_eq!(counted.bytes_current, 0);
    assert_eq!(hosts.len(), 10_000);
    for key in 0..OPEN {
        let breaker = hosts.peek(&key).unwrap();
        let snapshot = breaker.snapshot();
        assert_eq!((snapshot.state, snapshot.calls, snapshot.openings), (State::Open, 3, 1));
    }
    for (n, key) in (OPEN..HELD).enumerate() {
        let failures = 1 + u32::try_from(n).unwrap() % 2;
        assert_eq!(hosts.peek(&key).unwrap().snapshot().failures, failures);
    }
    assert_eq!(hosts.overflow().snapshot().calls, 0, "nobody was without a place");
}

#[test]
fn a_million_keys_through_a_set_of_bulkheads_leave_memory_flat_and_those_in_use_there() {
    let lanes = bulkheads(10_000);
    let permits: Vec<_> = (0..100).map(|key| lanes.get(&key).try_acquire().unwrap()).collect();
    let call = |key: u32| drop(lanes.get(&key).try_acquire().unwrap());
    (100..20_000).for_each(call);
    let counted = measure(|| (20_000..1_020_000).for_each(call));
    assert_eq!((counted.bytes_current, lanes.len()), (0, 10_000));
    for key in 0..100 {
        assert_eq!(lanes.peek(&key).unwrap().in_flight(), 1);
    }
    drop(permits);
}

/// The guides say about a kilobyte for a breaker of the default window.
#[test]
fn a_key_costs_about_a_kilobyte() {
    const KEYS: u32 = 10_000;
    let hosts = CircuitBreaker::builder("hosts").keyed::<u32>().build().unwrap();
    let lanes = bulkheads(10_000);
    let of_breakers = measure(|| (0..KEYS).for_each(|key| drop(hosts.get(&key)))).bytes_current;
    let of_bulkheads = measure(|| (0..KEYS).for_each(|key| drop(lanes.get(&key)))).bytes_current;
    println!(
        "figure: bytes for each key of breakers: {}",
        of_breakers / i64::from(KEYS)
    );
    println!(
        "figure: bytes for each key of bulkheads: {}",
        of_bulkheads / i64::from(KEYS)
    );
    assert!(of_breakers / i64::from(KEYS) < 1_200);
    assert!(of_bulkheads / i64::from(KEYS) < 500);
}

#[track_caller]
fn costs_nothing(what: &str, mut call: impl FnMut()) {
    call();
    call();
    assert_eq!(measure(call).count_total, 0, "allocations of {what}");
}

fn served<S: Service<Req, Response = u32, Error = Rejected>, Req: Clone>(service: &mut S, request: &Req) {
    let request = request.clone();
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    assert!(matches!(poll_once(pin!(service.call(request))), Poll::Ready(Ok(1))));
}

#[test]
fn a_key_that_is_there_costs_no_allocation() {
    let hosts = CircuitBreaker::builder("hosts").keyed::<String>().build().unwrap();
    let lanes = bulkhead().keyed::<String>().build().unwrap();
    costs_nothing("a plain call under a breaker", || {
        assert!(poll_once(pin!(hosts.get("a.example").call(answer(())))).is_ready());
    });
    costs_nothing("a plain call under a bulkhead", || {
        assert!(poll_once(pin!(lanes.get("a.example").call(answer(())))).is_ready());
    });
    let mut service = hosts
        .layer_by_ref(|request: &&'static str| *request)
        .layer(service_fn(answer::<&'static str>));
    costs_nothing("a breaker's layer", || served(&mut service, &"a.example"));
    let mut service = lanes
        .layer_by_ref(|request: &&'static str| *request)
        .layer(service_fn(answer::<&'static str>));
    costs_nothing("a bulkhead's layer", || served(&mut service, &"a.example"));
}

#[test]
fn an_authority_that_is_there_costs_no_allocation_and_a_long_one_works() {
    let hosts = CircuitBreaker::builder("hosts").keyed::<String>().build().unwrap();
    let mut service = hosts
        .layer_by_authority()
        .layer(service_fn(answer::<http::Request<()>>));
    let label = "a".repeat(300);
    for (uri, key) in [
        ("https://API.example/x", "api.example:443"),
        ("http://user:pass@b.example:8080", "b.example:8080"),
        ("/path", ""),
        (&*format!("http://{label}"), &*format!("{label}:80")),
    ] {
        let request = || http::Request::get(uri).body(()).unwrap();
        assert_eq!(authority(&request()), key);
        let mut call = |request| {
            assert!(matches!(
                service.poll_ready(&mut Context::from_waker(Waker::noop())),
                Poll::Ready(Ok(()))
            ));
            assert!(poll_once(pin!(service.call(request))).is_ready());
        };
        call(request());
        call(request());
        assert!(hosts.peek(key).is_some(), "{key}");
        let (mut one, long) = (Some(request()), key.len() > 261);
        let allocated = measure(|| call(one.take().unwrap())).count_total;
        assert_eq!(allocated == 0, !long, "{key}");
    }
    assert_eq!(hosts.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_polled_as_often_as_without_a_set() {
    let backend = Backend::new([ok(200).after(MS)]);
    let lanes = bulkheads(10);
    let service = lanes.layer_by(|key: &u32| *key).layer(backend.service_for::<u32>());
    let driven = drive(tower::ServiceExt::oneshot(service, 1), 100, false).await;
    assert_eq!(
        (driven.output.unwrap().unwrap(), driven.polls, driven.wakes),
        (200, 2, 1)
    );
    let hosts = super::breakers(10);
    let service = hosts.layer_by(|key: &u32| *key).layer(backend.service_for::<u32>());
    let driven = drive(tower::ServiceExt::oneshot(service, 1), 100, false).await;
    assert_eq!(
        (driven.output.unwrap().unwrap(), driven.polls, driven.wakes),
        (200, 2, 1)
    );
    let call = block_on(async { lanes.get(&1).call(answer(())).await });
    assert_eq!(call.unwrap(), 1);
}
