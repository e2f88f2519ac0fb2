//! The Tower contract of the layer by key, where it differs from that of the other layers.

use std::task::{Context, Poll, Waker};

use steadfast::Rejected;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use super::support::{Backend, Failure, Readiness, hang, ok, poll_once};
use super::{breakers, bulkheads, fails};

fn readiness<S: Service<Req>, Req>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_rejected_leaves_nothing_readied() {
    let hosts = breakers(10);
    hosts.get(&1).call(fails()).await.unwrap_err();
    let probe = Backend::new([ok(200)]).service_for::<u32>();
    let gate = probe.gate();
    let mut service = hosts.layer_by(|key: &u32| *key).layer(probe);
    assert!(readiness(&mut service).is_ready());
    assert_eq!(gate.held(), 1);
    let call = service.call(1);
    assert_eq!(gate.held(), 0, "an idle handle holds what others wait for");
    assert!(Rejected::find(&call.await.unwrap_err()).is_some());
    // The same handle is good for another key.
    assert_eq!(service.ready().await.unwrap().call(2).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_its_queue_holds_nothing_of_the_inner_service() {
    let lanes = bulkheads(10);
    let permit = lanes.get(&1).try_acquire().unwrap();
    let inner = ConcurrencyLimit::new(Backend::new([ok(200)]).service_for::<u32>(), 1);
    let service = lanes.layer_by(|key: &u32| *key).layer(inner);
    let mut queued = service.clone();
    assert!(readiness(&mut queued).is_ready());
    let mut queued = Box::pin(queued.call(1));
    assert!(poll_once(queued.as_mut()).is_pending());
    assert_eq!(service.clone().oneshot(2).await.unwrap(), 200);
    drop(permit);
    assert_eq!(queued.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_saturated_inner_service_is_waited_for_and_load_shed_says_so_at_once() {
    let hosts = breakers(10);
    hosts.get(&1).call(fails()).await.unwrap_err();
    let saturated = || {
        let mut inner = ConcurrencyLimit::new(Backend::new([hang()]).service_for::<u32>(), 1);
        let taken = inner.clone();
        let inner_ready = readiness(&mut inner);
        assert!(inner_ready.is_ready());
        (inner, taken)
    };
    let layer = hosts.layer_by(|key: &u32| *key);
    let (_holder, inner) = saturated();
    assert!(readiness(&mut layer.layer(inner)).is_pending());

    let hosts = super::breaker().boxed_errors().keyed::<u32>().build().unwrap();
    hosts.get(&1).force_open();
    let (_holder, inner) = saturated();
    let service = ServiceBuilder::new()
        .layer(hosts.layer_by(|key: &u32| *key))
        .load_shed()
        .service(inner);
    let rejected = service.clone().oneshot(1).await.unwrap_err();
    assert!(Rejected::find(rejected.as_ref()).is_some());
    let shed = service.oneshot(2).await.unwrap_err();
    assert!(Rejected::find(shed.as_ref()).is_none(), "{shed}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_inner_readiness_counts_for_no_key() {
    let hosts = breakers(10);
    let probe = Backend::new([ok(200)]).service_for::<u32>();
    let mut service = hosts
        .layer_by(|key: &u32| *key)
        .layer(probe.with_readiness([Readiness::Fails(Failure::Down)]));
    assert!(matches!(readiness(&mut service), Poll::Ready(Err(Failure::Down))));
    assert!(hosts.is_empty());
    assert_eq!(hosts.overflow().snapshot().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn sets_stack_around_each_other_and_around_other_layers() {
    let backend = Backend::new([ok(200)]);
    let (hosts, lanes) = (breakers(10), bulkheads(10));
    let service = ServiceBuilder::new()
        .layer(hosts.layer_by(|key: &u32| *key))
        .layer(lanes.layer_by_ref(|key: &u32| key))
        .layer(steadfast::timeout::Timeout::new(super::SECOND))
        .service(backend.service_for::<u32>());
    assert_eq!(service.clone().oneshot(1).await.unwrap(), 200);
    let _full = (lanes.get(&1).try_acquire().unwrap(), lanes.get(&2));
    hosts.get(&2).force_open();
    assert!(Rejected::find(&service.oneshot(2).await.unwrap_err()).is_some());
    assert_eq!((hosts.len(), lanes.len()), (2, 2));
}
