//! What the layer owes to the service inside, and to whoever holds a handle.

use std::error::Error as StdError;
use std::pin::pin;

use steadfast::circuit_breaker::CircuitBreakerService;
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::util::BoxCloneService;

use super::support::{Probe, Readiness, Wakes};
use super::*;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The breaker of `rig` around a service that does as `step` says.
fn layered(rig: &Rig, step: Step) -> (Backend, Probe, CircuitBreakerService<Probe, Erased<u32, Failure>>) {
    let backend = Backend::new([step]);
    let probe = backend.service();
    let service = rig.breaker.layer(probe.clone());
    (backend, probe, service)
}

fn is_rejected<T: std::fmt::Debug>(result: Result<T, Failure>) -> Option<Duration> {
    Rejected::find(&result.unwrap_err()).unwrap().retry_after()
}

#[tokio::test(start_paused = true)]
async fn it_rejects_at_once_whatever_becomes_of_the_service_inside() {
    let rig = Rig::new(Face::Tower, brittle());
    let inner = ConcurrencyLimit::new(Backend::new([hang()]).service(), 1);
    let mut occupied = inner.clone();
    let running = occupied.ready().await.unwrap().call(());
    let mut service = rig.breaker.layer(inner);
    assert!(readiness(&mut service).is_pending(), "closed: there is backpressure");
    for (open, wait) in [(true, Some(SECOND)), (false, None)] {
        if open {
            rig.run("F").await;
        } else {
            rig.breaker.force_open();
        }
        let started = Instant::now();
        service.ready().await.unwrap();
        assert_eq!(is_rejected(service.call(()).await), wait);
        assert_eq!(started.elapsed(), ZERO);
    }
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn it_rejects_at_once_over_a_buffer_that_hangs() {
    let breaker = brittle().boxed_errors().build().unwrap();
    let stuck = Backend::new([hang()]).service().with_readiness([Readiness::Never]);
    let (buffer, _worker) = Buffer::pair(stuck, 1);
    let mut service = breaker.layer(buffer);
    let queued = service.ready().await.unwrap().call(());
    assert!(readiness(&mut service).is_pending(), "the buffer is full");
    breaker.force_open();
    let error: BoxError = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(Rejected::find(error.as_ref()).is_some());
    drop(queued);
}

#[tokio::test(start_paused = true)]
async fn while_it_would_reject_it_is_ready_and_asks_nobody() {
    let rig = Rig::new(Face::Tower, brittle());
    let (backend, probe, mut service) = layered(&rig, ok(200));
    let gate = probe.gate();
    gate.set([Readiness::Fails(Failure::Down)]);
    let rejects = |service: &mut _| {
        for _ in 0..3 {
            assert!(matches!(
                readiness::<CircuitBreakerService<_, _>, ()>(service),
                Poll::Ready(Ok(()))
            ));
        }
    };
    rig.breaker.force_open();
    rejects(&mut service);
    rig.breaker.reset();
    let isolation = rig.breaker.isolate();
    rejects(&mut service);
    drop(isolation);
    rig.run("F").await;
    rejects(&mut service);
    advance(SECOND).await;
    let probe_call = rig.hanging();
    rejects(&mut service);
    assert_eq!((gate.polled(), gate.held(), backend.started()), (0, 0, 0));
    // It has not used up the script either: as soon as it would admit, the error is there.
    drop(probe_call);
    assert!(matches!(readiness(&mut service), Poll::Ready(Err(Failure::Down))));
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_was_ready_before_the_opening_gives_its_place_back_with_the_rejection() {
    let rig = Rig::new(Face::Tower, brittle());
    let (backend, probe, mut service) = layered(&rig, ok(200));
    let gate = probe.gate();
    service.ready().await.unwrap();
    assert_eq!(gate.held(), 1);
    rig.run("F").await;
    assert_eq!(is_rejected(service.call(()).await), Some(SECOND));
    assert_eq!((gate.held(), backend.started()), (0, 0));
    // With a look at readiness in between, too.
    rig.breaker.reset();
    service.ready().await.unwrap();
    rig.run("F").await;
    service.ready().await.unwrap();
    assert_eq!(is_rejected(service.call(()).await), Some(SECOND));
    assert_eq!((gate.held(), gate.polled()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_was_in_line_before_the_opening_leaves_it_with_the_rejection() {
    let rig = Rig::new(Face::Tower, brittle());
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut holder = inner.clone();
    holder.ready().await.unwrap();
    let mut service = rig.breaker.layer(inner.clone());
    assert!(readiness(&mut service).is_pending());
    rig.run("F").await;
    service.ready().await.unwrap();
    assert_eq!(is_rejected(service.call(()).await), Some(SECOND));
    let mut next = inner.clone();
    assert!(readiness(&mut next).is_pending());
    drop(holder);
    assert!(readiness(&mut next).is_ready(), "the idle handle was still in line");
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn of_two_ready_handles_the_one_that_is_no_probe_gives_its_place_back() {
    let rig = expired(Face::Tower, brittle()).await;
    let (backend, probe, mut first) = layered(&rig, hang());
    let gate = probe.gate();
    let mut second = first.clone();
    first.ready().await.unwrap();
    second.ready().await.unwrap();
    assert_eq!((gate.held(), rig.state()), (2, State::Open), "readiness takes no slot");
    let running = first.call(());
    assert_eq!((gate.held(), rig.in_flight()), (1, 1));
    assert_eq!(is_rejected(second.call(()).await), None);
    assert_eq!((gate.held(), backend.started()), (0, 1));
    drop(running);
    assert_eq!(rig.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_was_rejecting_when_it_was_asked_and_admits_by_now_says_try_again_at_once() {
    let rig = Rig::new(Face::Tower, brittle());
    let (backend, probe, mut service) = layered(&rig, ok(200));
    rig.run("F").await;
    service.ready().await.unwrap();
    advance(SECOND).await;
    assert_eq!(is_rejected(service.call(()).await), Some(ZERO));
    assert_eq!((backend.started(), probe.gate().polled()), (0, 0));
    assert_eq!((rig.state(), rig.in_flight()), (State::Open, 0), "nothing was taken");
    assert_eq!(rig.ends.take(), ["failure", "rejected"]);
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 200);
    assert_eq!(rig.state(), State::Closed);
    // Nor does it call a service that is closed by now, but was not asked.
    rig.breaker.force_open();
    service.ready().await.unwrap();
    rig.breaker.reset();
    assert_eq!(is_rejected(service.call(()).await), Some(ZERO));
    assert_eq!(backend.started(), 1);
}

/// It was waiting inside when the breaker opened, and the breaker admits again before the call.
#[tokio::test(start_paused = true)]
async fn who_is_in_line_and_admits_by_now_leaves_the_line_too() {
    let rig = Rig::new(Face::Tower, brittle());
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut holder = inner.clone();
    holder.ready().await.unwrap();
    let mut service = rig.breaker.layer(inner.clone());
    assert!(readiness(&mut service).is_pending());
    rig.run("F").await;
    service.ready().await.unwrap();
    advance(SECOND).await;
    assert_eq!(is_rejected(service.call(()).await), Some(ZERO));
    drop(holder);
    assert!(readiness(&mut inner.clone()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_stayed_ready_through_an_outage_is_called() {
    let rig = Rig::new(Face::Tower, brittle());
    let (backend, probe, mut service) = layered(&rig, ok(200));
    service.ready().await.unwrap();
    rig.run("F").await;
    service.ready().await.unwrap();
    advance(SECOND).await;
    assert_eq!(service.call(()).await.unwrap(), 200);
    assert_eq!(
        (backend.started(), probe.gate().held(), rig.state()),
        (1, 0, State::Closed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_asked_for_nothing_whatever_the_original_has() {
    let rig = Rig::new(Face::Tower, brittle());
    let (backend, probe, mut service) = layered(&rig, ok(200));
    let gate = probe.gate();
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert_eq!(is_rejected(clone.call(()).await), Some(ZERO));
    assert_eq!((gate.held(), backend.started()), (1, 0), "the original is as it was");
    assert_eq!(service.call(()).await.unwrap(), 200);
    assert_eq!(clone.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_has_failed() {
    let rig = Rig::new(Face::Tower, brittle().consecutive_failures(2));
    let (backend, probe, mut service) = layered(&rig, ok(200));
    let gate = probe.gate();
    for state in [State::Closed, State::Open] {
        gate.set([Readiness::Fails(Failure::Down)]);
        assert!(matches!(readiness(&mut service), Poll::Ready(Err(Failure::Down))));
        assert_eq!(rig.state(), state);
    }
    assert_eq!(
        (backend.started(), rig.ends.take().as_slice()),
        (0, ["failure", "failure"].map(String::from).as_slice())
    );
    // As a probe it takes a slot and brings it back.
    advance(SECOND).await;
    gate.set([Readiness::Fails(Failure::Down)]);
    assert!(matches!(readiness(&mut service), Poll::Ready(Err(Failure::Down))));
    let snapshot = rig.breaker.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.openings, snapshot.probes_in_flight),
        (State::Open, 2, 0)
    );
    // A rejection further in says nothing.
    advance(SECOND).await;
    gate.set([Readiness::Fails(Failure::Rejected(Rejected::bulkhead_full("lanes")))]);
    assert!(matches!(
        readiness(&mut service),
        Poll::Ready(Err(Failure::Rejected(_)))
    ));
    let snapshot = rig.breaker.snapshot();
    assert_eq!(
        (snapshot.state, snapshot.calls, snapshot.probes_in_flight),
        (State::HalfOpen, 0, 0)
    );
    // And whoever calls all the same is not let through to it.
    assert_eq!(is_rejected(service.call(()).await), Some(ZERO));
    assert_eq!(backend.started(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_in_shadow_mode_passes_and_an_open_breaker_does_not_count_it() {
    let rig = Rig::new(Face::Tower, brittle().shadow(true));
    let (_, probe, mut service) = layered(&rig, ok(200));
    rig.run("F").await;
    probe.gate().set([Readiness::Fails(Failure::Down)]);
    assert!(matches!(readiness(&mut service), Poll::Ready(Err(Failure::Down))));
    assert_eq!((rig.state(), rig.breaker.snapshot().openings), (State::Open, 1));
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_probe_gives_its_slot_back_when_it_is_done_and_not_when_its_future_is_dropped() {
    for face in FACES {
        let rig = expired(face, brittle().samples(2)).await;
        let mut call = rig.call(ok(200));
        assert!(poll(&mut call).is_ready());
        assert_eq!((rig.counts(), rig.in_flight()), ((1, 0), 0));
        drop(call);
        assert_eq!((rig.counts(), rig.in_flight()), ((1, 0), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_inside_is_free_when_the_call_is_done() {
    let rig = Rig::new(Face::Tower, brittle());
    let mut service = rig
        .breaker
        .layer(ConcurrencyLimit::new(Backend::new([down().after(MS)]).service(), 1));
    let mut call = pin!(service.ready().await.unwrap().call(()));
    assert!(readiness(&mut service.clone()).is_pending());
    call.as_mut().await.unwrap_err();
    rig.breaker.reset();
    assert!(readiness(&mut service.clone()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_service_inside_is_woken_by_it() {
    let rig = Rig::new(Face::Tower, brittle());
    let (_, probe, mut service) = layered(&rig, ok(200));
    let gate = probe.gate();
    gate.set([Readiness::Never]);
    let (first, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    let (second, waker) = Wakes::new();
    assert!(service.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    gate.set([]);
    assert_eq!((first.count(), second.count()), (1, 1));
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_survives_everything_a_breaker_below_it_does() {
    let rig = Rig::new(Face::Tower, brittle());
    let backend = Backend::new([down(), down(), ok(200)]);
    let mut buffered = Buffer::new(rig.breaker.layer(backend.service()), 4);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let result = buffered.ready().await.unwrap().call(()).await;
        seen.push(match result {
            Ok(status) => status,
            Err(error) => u32::from(Rejected::find(error.as_ref()).is_none()),
        });
        advance(400 * MS).await;
    }
    // Down, rejected twice, down as a probe, rejected twice.
    assert_eq!(seen, [1, 0, 0, 1, 0, 0]);
    advance(SECOND).await;
    assert_eq!(buffered.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_load_shed_sheds_is_a_failure_unless_the_classifier_knows_better() {
    let breaker = brittle().boxed_errors().build().unwrap();
    let inner = LoadShed::new(ConcurrencyLimit::new(Backend::new([hang()]).service(), 1));
    let service = breaker.layer(inner);
    let mut running = Box::pin(service.clone().oneshot(()));
    assert!(poll(&mut running).is_pending());
    service.clone().oneshot(()).await.unwrap_err();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn it_works_over_a_boxed_service_and_inside_one_and_both_are_one_breaker() {
    let rig = Rig::new(Face::Tower, brittle());
    let backend = Backend::new([down()]);
    let inner = BoxCloneService::new(backend.service());
    let boxed = BoxCloneService::new(rig.breaker.layer(inner));
    boxed.clone().oneshot(()).await.unwrap_err();
    assert_eq!(is_rejected(boxed.oneshot(()).await), Some(SECOND));
    assert_eq!((backend.started(), rig.run("S").await.as_str()), (1, "x"));
}

#[tokio::test(start_paused = true)]
async fn every_service_that_is_made_of_a_layer_is_the_same_breaker() {
    let breaker = brittle().build().unwrap();
    let backend = Backend::new([down()]);
    let services = [
        breaker.layer(backend.service()),
        breaker.clone().layer(backend.service()),
    ];
    let [first, second] = services;
    first.clone().oneshot(()).await.unwrap_err();
    assert!(is_rejected(second.oneshot(()).await).is_some());
    assert!(is_rejected(first.oneshot(()).await).is_some());
    assert_eq!(backend.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_when_it_is_asked_for_readiness_leaves_no_slot_taken() {
    #[derive(Clone)]
    struct Panics;

    impl Service<()> for Panics {
        type Response = u32;
        type Error = Failure;
        type Future = Call;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            panic!("readiness")
        }

        fn call(&mut self, (): ()) -> Call {
            panic!("called without being ready")
        }
    }

    let rig = expired(Face::Tower, brittle()).await;
    let mut service = rig.breaker.layer(Panics);
    assert_eq!(support::panic_of(|| readiness(&mut service)), "readiness");
    assert_eq!((rig.state(), rig.in_flight()), (State::Open, 0));
    assert_eq!(is_rejected(service.call(()).await), Some(ZERO));
    assert_eq!(rig.run("S").await, "S");
}
