//! The Tower contract, held by every layer: over services that insist on it, over tower's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod support;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use steadfast::bulkhead::{Bulkhead, Bulkheads};
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder, CircuitBreakers};
use steadfast::fallback::Fallback;
use steadfast::idempotency::{Fingerprint, Idempotency, IdempotencyBuilder, IdempotencyLayer, MemoryStore};
use steadfast::retry::{Event, Retry, RetryBudget, StopReason};
use steadfast::timeout::Timeout;
use steadfast::{Key, Rejected};
use support::{Backend, Failure, Gate, Log, MS, Readiness, Wakes, down, hang, ok, poll_once};
use tokio::time::{Instant, advance};
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type BoxError = Box<dyn StdError + Send + Sync>;

const SECOND: Duration = Duration::from_secs(1);

fn bulkhead() -> Bulkhead {
    Bulkhead::builder("lanes").build().unwrap()
}

fn breakers() -> CircuitBreakers<u8> {
    tolerant().keyed().build().unwrap()
}

fn bulkheads() -> Bulkheads<()> {
    Bulkhead::builder("lanes").keyed().build().unwrap()
}

fn keys() -> IdempotencyBuilder {
    Idempotency::at_least_once(MemoryStore::new())
}

/// Each request is under a key of its own.
fn once<D>(
    policy: &Idempotency<D>,
) -> IdempotencyLayer<(), impl Fn(&()) -> Option<(Key, Fingerprint)> + Clone + use<D>, D> {
    let requests = Arc::new(AtomicU64::new(0));
    policy.layer_by(move |()| {
        let key = requests.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Some((Key::new("tenant", key), Fingerprint::of_parts(&[])))
    })
}

fn one((): ()) -> std::future::Ready<Result<u32, Failure>> {
    std::future::ready(Ok(1))
}

/// Polls `poll_ready` once.
fn readiness<S: Service<Req>, Req>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(std::task::Waker::noop()))
}

/// A breaker that no test here opens by chance.
fn tolerant() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("lanes").consecutive_failures(100).open_time(MS)
}

/// The same, of which every call is a probe.
fn half_open() -> CircuitBreaker {
    let breaker = tolerant().samples(1_000).build().unwrap();
    let export = r#"{ "openings": 1, "consecutive_failures": 0, "state": "half_open", "calls": "none" }"#;
    breaker.restore(&serde_json::from_str(export).unwrap()).unwrap();
    breaker
}

/// Each layer around each service, with the name of the layer.
macro_rules! for_each_layer {
    (|$name:ident, $layer:ident| $body:block) => {{
        macro_rules! with {
            ($n:literal, $l:expr) => {{
                let ($name, $layer) = ($n, $l);
                $body
            }};
        }
        with!("retry", Retry::constant(10 * MS).build().unwrap());
        with!(
            "retry with a hook",
            Retry::constant(10 * MS)
                .build()
                .unwrap()
                .replay(|request: &()| Some(*request))
                .before_attempt(|(), _| {})
        );
        with!("circuit breaker", tolerant().build().unwrap());
        with!("half-open circuit breaker", half_open());
        with!("circuit breakers by key", breakers().layer_by(|()| 1_u8));
        with!("timeout", Timeout::new(SECOND));
        with!("timeout per request", Timeout::new(SECOND).per_request(|()| SECOND));
        with!("bulkhead", bulkhead());
        with!("bulkhead by weight", bulkhead().weighted(|()| NonZeroU32::MIN));
        with!("bulkheads by key", bulkheads().layer_by_ref(|request: &()| request));
        with!("idempotency", once(&keys().build().unwrap()));
        with!(
            "idempotency without a key",
            keys().build().unwrap().layer_by(|(): &()| None)
        );
        with!("fallback to a value", Fallback::value(1));
        with!(
            "fallback to a function",
            Fallback::from_error_async(|error: Failure| async move { Err::<u32, _>(error) })
        );
        with!("fallback to a service", Fallback::service(service_fn(one)));
    }};
}

#[tokio::test(start_paused = true)]
async fn only_a_clone_that_was_polled_ready_is_called() {
    for_each_layer!(|name, layer| {
        let backend = Backend::new([ok(200)]);
        let probe = backend.service();
        let gate = probe.gate();
        let mut service = layer.layer(probe);
        for n in 1..=3 {
            assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))), "{name}");
            // A clone of a readied service is not ready itself, and takes nothing from the original.
            let mut clone = service.clone();
            clone.ready().await.unwrap();
            drop(clone);
            assert_eq!(service.call(()).await.unwrap(), 200, "{name}");
            assert_eq!((backend.started(), gate.held()), (n, 0), "{name}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn the_readiness_of_the_inner_service_is_passed_on() {
    for_each_layer!(|name, layer| {
        let probe = Backend::new([ok(200)]).service().with_readiness([Readiness::Never]);
        let gate = probe.gate();
        let mut service = layer.layer(probe);
        let (wakes, waker) = Wakes::new();
        let mut cx = Context::from_waker(&waker);
        assert!(service.poll_ready(&mut cx).is_pending(), "{name}");
        gate.set([]);
        assert_eq!(wakes.count(), 1, "{name}: pending without a waker");
        assert!(service.poll_ready(&mut cx).is_ready(), "{name}");
        assert_eq!(gate.held(), 1);
        drop(service);
        assert_eq!(gate.held(), 0);
    });
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_readiness_passes_through_and_no_other_is_made() {
    for_each_layer!(|name, layer| {
        let backend = Backend::new([down()]);
        let mut service = layer.layer(backend.service().with_readiness([Readiness::Fails(Failure::Refused)]));
        assert!(
            matches!(readiness(&mut service), Poll::Ready(Err(Failure::Refused))),
            "{name}"
        );
        // The calls fail from here on, and readiness does not.
        for _ in 0..5 {
            service.ready().await.unwrap_or_else(|e| panic!("{name}: {e}"));
            let _ = service.call(()).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn over_a_concurrency_limit_every_layer_gives_its_permit_back_on_completion() {
    for_each_layer!(|name, layer| {
        let backend = Backend::new([ok(200).after(MS)]);
        let mut service = layer.layer(ConcurrencyLimit::new(backend.service(), 1));
        for _ in 0..3 {
            let mut call = pin!(service.ready().await.unwrap().call(()));
            assert!(readiness(&mut service.clone()).is_pending(), "{name}");
            call.as_mut().await.unwrap();
            // The future is still there.
            assert!(readiness(&mut service.clone()).is_ready(), "{name}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn over_a_concurrency_limit_a_readied_handle_and_a_waiting_one_give_up_their_place_when_dropped() {
    for_each_layer!(|name, layer| {
        let mut first = layer.layer(ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1));
        let mut second = first.clone();
        let mut third = first.clone();
        assert!(readiness(&mut first).is_ready(), "{name}");
        assert!(readiness(&mut second).is_pending(), "{name}");
        drop(second);
        drop(first);
        assert!(readiness(&mut third).is_ready(), "{name}");
    });
}

/// Each layer in a type that suits every service of tower: boxed errors, a cloneable service.
macro_rules! for_each_boxed_layer {
    (|$name:ident, $layer:ident| $body:block) => {{
        macro_rules! with {
            ($n:literal, $l:expr) => {{
                let ($name, $layer) = ($n, $l);
                $body
            }};
        }
        with!("retry", Retry::constant(MS).boxed_errors().build().unwrap());
        with!("circuit breaker", tolerant().boxed_errors().build().unwrap());
        with!("timeout", Timeout::new(SECOND));
        with!("timeout per request", Timeout::new(SECOND).per_request(|()| SECOND));
        with!("bulkhead", bulkhead());
        with!("bulkhead by weight", bulkhead().weighted(|()| NonZeroU32::MIN));
        with!(
            "circuit breakers by key",
            tolerant().boxed_errors().keyed().build().unwrap().layer_by(|()| 1_u8)
        );
        with!("bulkheads by key", bulkheads().layer_by_ref(|request: &()| request));
        with!("idempotency", once(&keys().boxed_errors().build().unwrap()));
        with!("fallback", Fallback::builder().boxed_errors().value(1));
    }};
}

#[tokio::test(start_paused = true)]
async fn every_layer_works_over_a_buffer_and_under_one() {
    for_each_boxed_layer!(|name, layer| {
        let backend = Backend::new([ok(200).after(MS)]);
        let buffered = ServiceBuilder::new()
            .buffer(4)
            .layer(layer)
            .buffer(4)
            .service(backend.service());
        let calls: Vec<_> = (0..8).map(|_| tokio::spawn(buffered.clone().oneshot(()))).collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 200, "{name}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_buffer_survives_every_failure_of_a_layer_below_it() {
    let backend = Backend::new([hang()]);
    let mut buffered = ServiceBuilder::new()
        .buffer(4)
        .layer(Timeout::new(10 * MS))
        .service(ConcurrencyLimit::new(backend.service(), 1));
    for _ in 0..5 {
        // The first of each pair holds the permit until it times out, the second waits for readiness.
        let (a, b) = (buffered.clone().oneshot(()), buffered.clone().oneshot(()));
        for result in [tokio::spawn(a), tokio::spawn(b)] {
            let error = result.await.unwrap().unwrap_err();
            assert!(
                Rejected::find(error.as_ref()).is_some(),
                "the buffer was closed: {error}"
            );
        }
    }
    buffered.ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_layer_works_over_load_shed() {
    for_each_boxed_layer!(|name, layer| {
        let backend = Backend::new([ok(200).after(MS)]);
        let service = ServiceBuilder::new()
            .layer(layer)
            .load_shed()
            .concurrency_limit(1)
            .service(backend.service());
        let results = futures::future::join_all((0..2).map(|_| service.clone().oneshot(()))).await;
        // One is shed at once; a retry then gets through, a fallback answers for it.
        let answers: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        let expected: &[&u32] = match name {
            "retry" => &[&200, &200],
            "fallback" => &[&200, &1],
            _ => &[&200],
        };
        assert_eq!(answers, expected, "{name}");
    });
}

#[tokio::test(start_paused = true)]
async fn every_layer_works_around_a_boxed_service_and_inside_one() {
    for_each_layer!(|name, layer| {
        let backend = Backend::new([ok(200)]);
        let boxed = BoxCloneService::new(layer.layer(BoxCloneService::new(backend.service())));
        assert_eq!(boxed.clone().oneshot(()).await.unwrap(), 200, "{name}");
        assert_eq!(tokio::spawn(boxed.oneshot(())).await.unwrap().unwrap(), 200, "{name}");
    });
}

#[tokio::test(start_paused = true)]
async fn every_layer_works_inside_a_spawned_task() {
    for_each_layer!(|name, layer| {
        let backend = Backend::new([ok(200).after(MS)]);
        let service = layer.layer(backend.service());
        assert_eq!(tokio::spawn(service.oneshot(())).await.unwrap().unwrap(), 200, "{name}");
    });
}

#[test]
fn layers_services_and_futures_have_the_auto_traits_of_their_parts() {
    fn layer<L: Clone + Send + Sync + 'static>(_: &L) {}
    fn service<S: Clone + Send + Sync + Unpin + 'static>(_: &S) {}
    fn send<T: Send>(_: &T) {}
    fn send_sync<T: Send + Sync>(_: T) {}

    let probe = Backend::new([ok(200)]).service();
    for_each_layer!(|_name, policy| {
        layer(&policy);
        service(&policy.layer(probe.clone()));
        let mut called = policy.layer(probe.clone());
        assert!(readiness(&mut called).is_ready());
        send(&called.call(()));
        // A service that is not `Sync` makes one that is not `Sync`, and is as good as another in a task.
        let boxed = BoxCloneService::new(probe.clone());
        let mut called = policy.layer(boxed);
        send(&called);
        assert!(readiness(&mut called).is_ready());
        send(&called.call(()));
    });
    let ready = || std::future::ready(Ok::<u32, Failure>(1));
    send_sync(Retry::default().call(ready));
    send_sync(Retry::default().call(ready).with_report());
    send_sync(tolerant().build().unwrap().call(ready()));
    send_sync(Timeout::new(MS).call(ready()));
    send_sync(bulkhead().call(ready()));
    send_sync(bulkhead().acquire());
    send_sync(bulkhead().try_acquire().unwrap());
    send_sync(Fallback::value(1).call(ready()));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_retry_is_readied_once_and_nothing_is_held_in_between() {
    let retry = Retry::constant(SECOND).build().unwrap();
    let backend = Backend::new([down()]);
    let probe = backend.service();
    let gate = probe.gate();
    let mut service = retry.layer(probe);
    let mut call = pin!(service.ready().await.unwrap().call(()));
    for attempt in 1..=2 {
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!((backend.started(), gate.readied(), gate.held()), (attempt, attempt, 0));
        advance(SECOND).await;
    }
    call.await.unwrap_err();
    assert_eq!((backend.started(), gate.readied(), gate.held()), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_lets_another_caller_through_while_it_backs_off() {
    let backend = Backend::new([down(), ok(200).after(MS), ok(201)]);
    let inner = ConcurrencyLimit::new(backend.service(), 1);
    let retry = Retry::constant(SECOND).build().unwrap();
    let first = tokio::spawn(retry.layer(inner.clone()).oneshot(()));
    tokio::task::yield_now().await;
    assert_eq!(backend.started(), 1);
    let started = Instant::now();
    assert_eq!(inner.oneshot(()).await.unwrap(), 200);
    assert_eq!(started.elapsed(), MS);
    assert_eq!(first.await.unwrap().unwrap(), 201);
    assert_eq!(started.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_in_line_for_its_next_attempt() {
    let backend = Backend::new([down(), ok(200).after(3 * SECOND), ok(201)]);
    let inner = ConcurrencyLimit::new(backend.service(), 1);
    let retry = Retry::constant(SECOND).build().unwrap();
    let started = Instant::now();
    let first = tokio::spawn(retry.layer(inner.clone()).oneshot(()));
    tokio::task::yield_now().await;
    assert_eq!(inner.oneshot(()).await.unwrap(), 200);
    assert_eq!(first.await.unwrap().unwrap(), 201);
    assert_eq!(started.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_ends_the_retry_with_that_error_and_refunds_its_token() {
    let ends = Log::default();
    let log = ends.clone();
    let budget = RetryBudget::builder().ratio(1.0).floor(0.0).build().unwrap();
    let retry = Retry::constant(SECOND)
        .budget(&budget)
        .on_event(move |event| {
            if let Event::Finished { report, error, .. } = event {
                log.push((report.stop, report.attempts, error.map(ToString::to_string)));
            }
        })
        .build()
        .unwrap();
    let backend = Backend::new([down()]);
    let probe = backend
        .service()
        .with_readiness([Readiness::Ready, Readiness::Fails(Failure::Refused)]);
    let result = retry.layer(probe).oneshot(()).await;
    assert!(matches!(result, Err(Failure::Refused)));
    assert_eq!(
        ends.take(),
        [(StopReason::NotReady, 1, Some("the request makes no sense".to_owned()))]
    );
    assert_eq!((backend.started(), budget.available()), (1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_by_readiness_after_an_attempt_says_that_something_was_sent() {
    let retry = Retry::constant(SECOND).build().unwrap();
    let refused = Failure::Rejected(Rejected::bulkhead_full("lanes"));
    let probe = Backend::new([down()])
        .service()
        .with_readiness([Readiness::Ready, Readiness::Fails(refused)]);
    let error = retry.layer(probe).oneshot(()).await.unwrap_err();
    assert!(Rejected::find(&error).unwrap().reached_inner());
}

#[tokio::test(start_paused = true)]
async fn the_request_of_each_attempt_is_prepared_and_the_change_is_not_kept() {
    let sent = Log::default();
    let log = sent.clone();
    let service = service_fn(move |request: Vec<u32>| {
        log.push(request);
        async { Err::<(), _>(Failure::Down) }
    });
    let copy = |request: &Vec<u32>| Some(request.clone());
    let count = |request: &mut Vec<u32>, attempt: steadfast::retry::Attempt| request.push(attempt.number());
    let of_the_policy = Retry::constant(MS).build().unwrap().replay(copy).before_attempt(count);
    let of_the_builder = Retry::constant(MS).replay(copy).before_attempt(count).build().unwrap();
    of_the_policy.layer(service.clone()).oneshot(vec![0]).await.unwrap_err();
    assert_eq!(sent.take(), [[0, 1], [0, 2], [0, 3]]);
    of_the_builder.layer(service).oneshot(vec![0]).await.unwrap_err();
    assert_eq!(sent.take(), [[0, 1], [0, 2], [0, 3]]);
}

fn never_ready() -> (Backend, support::Probe, Arc<Gate>) {
    let backend = Backend::new([ok(200)]);
    let probe = backend.service().with_readiness([Readiness::Never]);
    let gate = probe.gate();
    (backend, probe, gate)
}

#[tokio::test(start_paused = true)]
async fn a_timeout_covers_readiness_and_says_that_nothing_was_sent() {
    let (backend, probe, gate) = never_ready();
    let mut service = Timeout::new(SECOND).layer(probe);
    let started = Instant::now();
    service.ready().await.unwrap();
    assert_eq!(started.elapsed(), SECOND);
    let polled = gate.polled();
    assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))));
    assert_eq!(gate.polled(), polled, "it rejects, and does not ask any more");
    let error = service.call(()).await.unwrap_err();
    let rejected = Rejected::find(&error).unwrap();
    assert!(!rejected.reached_inner());
    assert_eq!((backend.started(), started.elapsed()), (0, SECOND));
    // The next call begins anew.
    gate.set([]);
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_rejects_leaves_nobody_in_line() {
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut holder = inner.clone();
    holder.ready().await.unwrap();
    let mut service = Timeout::new(SECOND).layer(inner.clone());
    service.ready().await.unwrap();
    let rejected = service.call(()).await.unwrap_err();
    assert!(Rejected::find(&rejected).is_some());
    let mut next = inner.clone();
    assert!(readiness(&mut next).is_pending());
    drop(holder);
    assert!(readiness(&mut next).is_ready(), "the idle handle was still in line");
}

#[tokio::test(start_paused = true)]
async fn each_call_and_each_clone_has_a_time_of_its_own() {
    let backend = Backend::new([ok(200), hang()]);
    let probe = backend.service();
    let gate = probe.gate();
    let mut service = Timeout::new(SECOND).layer(probe);
    gate.set([Readiness::Never]);
    assert!(readiness(&mut service).is_pending());
    advance(900 * MS).await;
    let mut clone = service.clone();
    assert!(readiness(&mut clone).is_pending());
    gate.set([]);
    assert!(readiness(&mut service).is_ready());
    service.call(()).await.unwrap();
    // What the first call waited is nothing to the second.
    service.ready().await.unwrap();
    let started = Instant::now();
    service.call(()).await.unwrap_err();
    assert_eq!(started.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_waited_for_nothing_whatever_the_original_has() {
    let probe = Backend::new([hang()]).service().with_readiness([Readiness::Never]);
    let gate = probe.gate();
    let mut service = Timeout::new(SECOND).layer(probe);
    service.ready().await.unwrap();
    // The original will reject; the clone waits for readiness like any other.
    assert!(readiness(&mut service.clone()).is_pending());
    service.call(()).await.unwrap_err();

    assert!(readiness(&mut service).is_pending());
    advance(700 * MS).await;
    gate.set([]);
    assert!(readiness(&mut service).is_ready());
    let started = Instant::now();
    service.clone().oneshot(()).await.unwrap_err();
    assert_eq!(started.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_per_request_does_not_limit_readiness() {
    let (_, probe, gate) = never_ready();
    let mut service = Timeout::new(MS).per_request(|()| SECOND).layer(probe);
    assert!(readiness(&mut service).is_pending());
    advance(60 * SECOND).await;
    assert!(readiness(&mut service).is_pending());
    gate.set([]);
    service.ready().await.unwrap().call(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_timeout_is_woken_by_the_last_waker() {
    let (_, probe, _) = never_ready();
    let mut service = Timeout::new(SECOND).layer(probe);
    let (first, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    let (second, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    advance(SECOND).await;
    assert_eq!((first.count(), second.count()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_infallible_fallback_keeps_backpressure_and_recovers_from_an_error_of_readiness() {
    let recovered = Log::default();
    let log = recovered.clone();
    let fallback = Fallback::from_error(move |error: Failure| {
        log.push(error.to_string());
        Ok::<_, Infallible>(1)
    })
    .infallible();
    let backend = Backend::new([ok(200)]);
    let probe = backend
        .service()
        .with_readiness([Readiness::Never, Readiness::Fails(Failure::Refused)]);
    let gate = probe.gate();
    let mut service = fallback.layer(probe);
    assert!(readiness(&mut service).is_pending());
    gate.set([Readiness::Fails(Failure::Refused)]);
    assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))));
    let polled = gate.polled();
    assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))));
    assert_eq!(
        gate.polled(),
        polled,
        "a failed service is not asked again before the call"
    );
    // A clone has to ask for itself, and finds the service well.
    let Ok(answer) = service.clone().oneshot(()).await;
    assert_eq!(answer, 200);
    let Ok(answer) = service.call(()).await;
    assert_eq!(
        (answer, recovered.take()),
        (1, vec!["the request makes no sense".to_owned()])
    );
    assert_eq!(backend.started(), 1, "the failed instance was not called");
    // And so does the next call.
    let Ok(answer) = service.ready().await.unwrap().call(()).await;
    assert_eq!(answer, 200);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_service_is_readied_before_it_is_called() {
    let other = Backend::new([ok(1)]);
    let probe = other.service().with_readiness([Readiness::Never]);
    let gate = probe.gate();
    let service = Fallback::service(probe).layer(Backend::new([down()]).service());
    let mut call = pin!(service.oneshot(()));
    assert!(poll_once(call.as_mut()).is_pending());
    gate.set([]);
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!((gate.readied(), gate.held()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_permit_of_a_failed_call_is_free_before_its_recovery_begins() {
    let inner = ConcurrencyLimit::new(Backend::new([down()]).service(), 1);
    let other = inner.clone();
    let fallback = Fallback::from_error_async(move |_: Failure| {
        assert!(readiness(&mut other.clone()).is_ready());
        std::future::pending::<Result<u32, Failure>>()
    });
    let mut service = fallback.layer(inner);
    let mut call = pin!(service.ready().await.unwrap().call(()));
    assert!(poll_once(call.as_mut()).is_pending());
}

#[tokio::test(start_paused = true)]
async fn boxed_errors_of_tower_itself_are_judged() {
    let service = ServiceBuilder::new()
        .map_err(|error: BoxError| error)
        .layer(Retry::constant(MS).boxed_errors().build().unwrap())
        .timeout(5 * MS)
        .service(Backend::new([hang(), ok(200)]).service());
    assert_eq!(service.oneshot(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn idle_time_between_readiness_and_the_call_is_not_taken_off() {
    for waited in [Duration::ZERO, 700 * MS] {
        let backend = Backend::new([hang()]);
        let probe = backend.service();
        let gate = probe.gate();
        let mut service = Timeout::new(SECOND).layer(probe);
        if !waited.is_zero() {
            gate.set([Readiness::Never]);
            assert!(readiness(&mut service).is_pending());
            advance(waited).await;
            gate.set([]);
        }
        assert!(readiness(&mut service).is_ready());
        advance(60 * SECOND).await;
        assert!(readiness(&mut service).is_ready());
        let started = Instant::now();
        service.call(()).await.unwrap_err();
        assert_eq!(started.elapsed() + waited, SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn time_spent_on_readiness_is_taken_off_the_call() {
    let probe = Backend::new([hang()]).service().with_readiness([Readiness::Never]);
    let gate = probe.gate();
    let mut service = Timeout::new(SECOND).layer(probe);
    let started = Instant::now();
    assert!(readiness(&mut service).is_pending());
    advance(700 * MS).await;
    gate.set([]);
    assert!(readiness(&mut service).is_ready());
    let error = service.call(()).await.unwrap_err();
    assert_eq!(started.elapsed(), SECOND);
    assert!(Rejected::find(&error).unwrap().reached_inner());
}

/// A service whose readiness uses up the budget that tokio gives a task, each time it is asked.
#[derive(Clone)]
struct Greedy;

impl Service<()> for Greedy {
    type Response = u32;
    type Error = Failure;
    type Future = std::future::Ready<Result<u32, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while let Poll::Ready(progress) = tokio::task::coop::poll_proceed(cx) {
            progress.made_progress();
        }
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        one(())
    }
}

#[tokio::test]
async fn a_readiness_that_uses_up_the_budget_of_its_task_is_timed_out_all_the_same() {
    let service = Timeout::new(5 * MS).layer(Greedy);
    let call = tokio::spawn(service.oneshot(()));
    let result = tokio::time::timeout(SECOND, call)
        .await
        .expect("it was never timed out");
    assert!(Rejected::find(&result.unwrap().unwrap_err()).is_some());
}

#[test]
fn a_fallback_to_a_service_that_is_not_sync_can_be_sent() {
    fn send<T: Send>(_: &T) {}
    let other = BoxCloneService::new(service_fn(one));
    let fallback = Fallback::service(other);
    send(&fallback);
    let mut service = fallback.layer(Backend::new([ok(200)]).service());
    assert!(readiness(&mut service).is_ready());
    send(&service.call(()));
}
