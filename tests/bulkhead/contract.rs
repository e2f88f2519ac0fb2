//! The Tower contract where a bulkhead is full, or becomes so between readiness and call.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use steadfast::RejectedKind::{BulkheadFull, QueueTimedOut};
use tokio::time::advance;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use super::support::{
    Backend, Failure, Gate, Log, Probe, Readiness, Wakes, hang, ok, panic_of, panics_when_called, poll_once,
};
use super::{WAIT, builder, gauges, lanes, ms, rejected, settle, w};

fn readiness<S: Service<()>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

fn probe() -> (Backend, Probe, Arc<Gate>) {
    let backend = Backend::new([ok(200).after(ms(1))]);
    let probe = backend.service();
    let gate = probe.gate();
    (backend, probe, gate)
}

#[tokio::test(start_paused = true)]
async fn a_full_one_is_ready_at_once_and_does_not_ask_the_inner_service() {
    for queued in [0, 1] {
        let bulkhead = lanes(1, queued);
        let (backend, probe, gate) = probe();
        gate.set([Readiness::Never]);
        let mut service = bulkhead.layer(probe);
        let _permit = bulkhead.try_acquire().unwrap();
        for _ in 0..3 {
            assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))));
        }
        let kind = if queued == 0 { BulkheadFull } else { QueueTimedOut };
        rejected(service.call(()).await, kind);
        assert_eq!((gate.polled(), backend.started()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_readied_and_then_rejects_keeps_nothing_of_the_inner_service() {
    let bulkhead = lanes(1, 0);
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut service = bulkhead.layer(inner.clone());
    assert!(readiness(&mut service).is_ready());
    assert!(readiness(&mut inner.clone()).is_pending());
    let permit = bulkhead.try_acquire().unwrap();
    rejected(service.call(()).await, BulkheadFull);
    assert!(
        readiness(&mut inner.clone()).is_ready(),
        "the idle handle holds a permit"
    );
    drop(permit);
    assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_readiness_and_then_rejects_gives_its_place_in_line_up() {
    let bulkhead = lanes(1, 0);
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut holder = inner.clone();
    assert!(readiness(&mut holder).is_ready());
    let mut service = bulkhead.layer(inner.clone());
    assert!(readiness(&mut service).is_pending());
    let _permit = bulkhead.try_acquire().unwrap();
    assert!(readiness(&mut service).is_ready());
    rejected(service.call(()).await, BulkheadFull);
    let mut next = inner.clone();
    assert!(readiness(&mut next).is_pending());
    drop(holder);
    assert!(readiness(&mut next).is_ready(), "the idle handle was still in line");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_holds_nothing_of_the_inner_service_and_readies_a_clone_after_its_wait() {
    let bulkhead = lanes(1, 1);
    let (backend, probe, gate) = probe();
    let mut service = bulkhead.layer(probe);
    // Readied while there was a permit, called when there is none.
    assert!(readiness(&mut service).is_ready());
    let permit = bulkhead.try_acquire().unwrap();
    let mut call = Box::pin(service.call(()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!((gate.held(), gate.readied()), (0, 1));
    assert_eq!(gauges(&bulkhead), (1, 1, 0));
    drop(permit);
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!((gate.held(), gate.readied(), backend.started()), (0, 2, 1));
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_admitted_over_an_inner_service_that_is_not_ready_takes_its_permit_first() {
    let bulkhead = lanes(1, 0);
    let (backend, probe, gate) = probe();
    gate.set([Readiness::Never]);
    let mut service = bulkhead.layer(probe);
    let permit = bulkhead.try_acquire().unwrap();
    assert!(readiness(&mut service).is_ready());
    drop(permit);
    let mut call = Box::pin(service.call(()));
    assert_eq!(gauges(&bulkhead), (1, 0, 0));
    let (heard, waker) = Wakes::new();
    assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(backend.started(), 0);
    gate.set([]);
    assert_eq!(heard.count(), 1, "pending without a waker");
    assert_eq!(call.await.unwrap(), 200);
    assert_eq!((gate.held(), gate.readied(), backend.started()), (0, 1, 1));
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_readiness_of_one_call_is_not_used_by_the_next() {
    let bulkhead = lanes(1, 0);
    let (backend, probe, gate) = probe();
    let mut service = bulkhead.layer(probe);
    service.ready().await.unwrap().call(()).await.unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    assert!(readiness(&mut service).is_ready());
    drop(permit);
    assert_eq!(service.call(()).await.unwrap(), 200);
    assert_eq!((gate.readied(), gate.held(), backend.started()), (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_the_place_in_line_along_that_its_handle_had() {
    let bulkhead = lanes(1, 0);
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service(), 1);
    let mut holder = inner.clone();
    assert!(readiness(&mut holder).is_ready());
    let mut service = bulkhead.layer(inner.clone());
    assert!(readiness(&mut service).is_pending());
    let mut other = inner.clone();
    assert!(readiness(&mut other).is_pending());
    // Full for a moment: ready without asking, and admitted all the same.
    let permit = bulkhead.try_acquire().unwrap();
    assert!(readiness(&mut service).is_ready());
    drop(permit);
    let mut call = pin!(service.call(()));
    drop(holder);
    assert!(readiness(&mut other).is_pending(), "the first in line was passed");
    assert_eq!(call.as_mut().await.unwrap(), 200);
    assert!(readiness(&mut other).is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_fails_to_become_ready_after_the_wait_ends_the_call_with_that_error() {
    let bulkhead = lanes(1, 1);
    let (backend, probe, gate) = probe();
    let permit = bulkhead.try_acquire().unwrap();
    let mut call = Box::pin(bulkhead.layer(probe).oneshot(()));
    assert!(poll_once(call.as_mut()).is_pending());
    gate.set([Readiness::Fails(Failure::Refused)]);
    drop(permit);
    assert!(matches!(call.await, Err(Failure::Refused)));
    assert_eq!((gauges(&bulkhead), backend.started()), ((0, 0, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_free_as_soon_as_the_call_has_its_result() {
    let bulkhead = lanes(1, 0);
    let mut plain = pin!(bulkhead.call(Backend::new([ok(200).after(ms(1))]).call()));
    plain.as_mut().await.unwrap();
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
    let mut service = bulkhead.layer(Backend::new([ok(200).after(ms(1))]).service());
    let mut call = pin!(service.ready().await.unwrap().call(()));
    assert_eq!(gauges(&bulkhead), (1, 0, 0));
    call.as_mut().await.unwrap();
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_has_its_place_in_line_from_the_moment_it_is_made() {
    let bulkhead = lanes(1, 2);
    let permit = bulkhead.try_acquire().unwrap();
    let mut service = bulkhead.layer(Backend::new([ok(1)]).service());
    assert!(readiness(&mut service).is_ready());
    let first = service.call(());
    assert!(readiness(&mut service).is_ready());
    let second = service.call(());
    assert_eq!(gauges(&bulkhead), (1, 2, 0));
    drop(permit);
    // The first has not been polled yet, and has its permit.
    assert_eq!(gauges(&bulkhead), (1, 1, 0));
    drop(first);
    assert_eq!(second.await.unwrap(), 1);
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_wait_runs_from_the_call() {
    let bulkhead = lanes(1, 1);
    let _permit = bulkhead.try_acquire().unwrap();
    let mut service = bulkhead.layer(Backend::new([ok(1)]).service());
    assert!(readiness(&mut service).is_ready());
    let call = service.call(());
    advance(WAIT).await;
    let mut call = pin!(call);
    let Poll::Ready(result) = poll_once(call.as_mut()) else {
        panic!("its time is up")
    };
    rejected(result, QueueTimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_weight_may_be_computed_from_the_request() {
    let bulkhead = lanes(3, 0);
    let backend = Backend::new([hang()]);
    let layer = bulkhead.weighted(|size: &u32| w(*size));
    let mut service = layer.layer(backend.service_for::<u32>());
    service.ready().await.unwrap();
    let call = service.call(2);
    assert_eq!(gauges(&bulkhead), (2, 0, 1));
    service.ready().await.unwrap();
    rejected(service.call(2).await, BulkheadFull);
    service.ready().await.unwrap();
    let _other = service.call(1);
    drop(call);
    assert_eq!(gauges(&bulkhead), (1, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_panic_where_the_inner_call_is_made_frees_the_permit() {
    let ends = Log::default();
    let log = ends.clone();
    let bulkhead = builder(1, 1).on_event(move |event| log.push(format!("{event:?}")));
    let bulkhead = bulkhead.build().unwrap();
    let mut service = bulkhead.layer(Backend::new([panics_when_called(), ok(200)]).service());
    assert!(readiness(&mut service).is_ready());
    panic_of(|| drop(service.call(())));
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
    assert_eq!(
        ends.take(),
        ["Cancelled { policy: \"lanes\", weight: 1, waited: 0ns, admitted: true }"]
    );
    // The same after a wait, where the call is made inside of the future.
    let permit = bulkhead.try_acquire().unwrap();
    let mut service = bulkhead.layer(Backend::new([panics_when_called()]).service());
    assert!(readiness(&mut service).is_ready());
    let mut call = pin!(service.call(()));
    assert!(poll_once(call.as_mut()).is_pending());
    drop(permit);
    panic_of(|| poll_once(call.as_mut()));
    assert_eq!(gauges(&bulkhead), (0, 0, 1), "the future is still there");
    panic_of(|| poll_once(call.as_mut()));
}

#[tokio::test(start_paused = true)]
async fn a_buffer_above_a_bulkhead_survives_every_rejection() {
    let bulkhead = lanes(1, 1);
    let backend = Backend::new([ok(200).after(10 * WAIT)]);
    let buffered = ServiceBuilder::new()
        .buffer(8)
        .layer(bulkhead.clone())
        .service(ConcurrencyLimit::new(backend.service(), 1));
    let calls: Vec<_> = (0..4).map(|_| tokio::spawn(buffered.clone().oneshot(()))).collect();
    let mut kinds = Vec::new();
    for call in calls {
        let error = call.await.unwrap().err();
        kinds.push(error.map(|error| steadfast::Rejected::find(error.as_ref()).unwrap().kind()));
    }
    assert_eq!(
        kinds,
        [None, Some(QueueTimedOut), Some(BulkheadFull), Some(BulkheadFull)]
    );
    settle().await;
    assert_eq!(buffered.oneshot(()).await.unwrap(), 200);
}
