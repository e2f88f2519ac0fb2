//! Calls that are dropped, at every point where they can be.

use steadfast::circuit_breaker::Abandoned;
use steadfast::retry::Retry;
use steadfast::timeout::Timeout;
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimit;

use super::support::{Driven, Probe, cancel_everywhere};
use super::*;

/// Pending five times, 2 ms apart.
async fn slow(backend: Backend) -> Result<u32, Failure> {
    for _ in 0..4 {
        tokio::time::sleep(2 * MS).await;
    }
    backend.call().await
}

/// Nothing is held, and there was one end if there was a beginning.
fn check<T>(rig: &Rig, driven: &Driven<T>) {
    assert_eq!(rig.in_flight(), 0, "after {} polls", driven.polls);
    assert!(rig.sent.all().iter().all(|backend| backend.running() == 0));
    let ends = rig.ends.take();
    let begun = usize::from(driven.polls > 0);
    assert_eq!(ends.len(), begun, "{ends:?} after {} polls", driven.polls);
    if driven.output.is_none() && begun == 1 {
        assert_eq!(ends, ["abandoned"]);
    }
    assert!(driven.wakes <= driven.polls);
}

#[tokio::test(start_paused = true)]
async fn a_call_through_a_closed_breaker_can_be_dropped_anywhere() {
    for face in FACES {
        cancel_everywhere(
            || {
                let rig = Rig::new(face, by_count(10).minimum_calls(10));
                let backend = Backend::new([ok(200).after(2 * MS)]);
                rig.sent.push(backend.clone());
                let call = match face {
                    Face::Plain => {
                        let breaker = rig.breaker.clone();
                        let call: Call = Box::pin(async move { breaker.call(slow(backend)).await });
                        call
                    }
                    Face::Tower => call(face, &rig.breaker, &backend),
                };
                (rig, call)
            },
            |rig, driven| {
                check(&rig, &driven);
                let counted = u32::from(driven.output.is_some());
                assert_eq!(rig.counts(), (counted, 0), "dropped early, it says nothing");
            },
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_can_be_dropped_anywhere() {
    for face in FACES {
        for (abandoned, failures) in [
            (Abandoned::Ignore, 0),
            (Abandoned::Failure, 1),
            (Abandoned::FailureAfter(MS), 1),
            (Abandoned::FailureAfter(SECOND), 0),
        ] {
            cancel_everywhere(
                || {
                    let rig = Rig::new(face, brittle().samples(10).success_rate(0.5).abandoned(abandoned));
                    rig.breaker.restore(&half_open()).unwrap();
                    rig.changes.take();
                    let call = rig.call(ok(200).after(3 * MS));
                    (rig, call)
                },
                |rig, driven| {
                    check(&rig, &driven);
                    let counts = match driven.output {
                        Some(_) => (1, 0),
                        None if driven.polls == 0 => (0, 0),
                        // It is dropped at its first `Pending`, before a millisecond is over.
                        None if matches!(abandoned, Abandoned::FailureAfter(_)) => (0, 0),
                        None => (failures, failures),
                    };
                    assert_eq!(rig.counts(), counts, "{abandoned:?} after {} polls", driven.polls);
                },
            )
            .await;
        }
    }
}

/// As exported by a breaker that was half-open: the next call is the first probe.
pub(super) fn half_open() -> steadfast::circuit_breaker::CircuitBreakerExport {
    let export = r#"{ "openings": 1, "consecutive_failures": 0, "state": "half_open", "calls": "none" }"#;
    serde_json::from_str(export).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stack_can_be_dropped_anywhere() {
    for half_opened in [false, true] {
        for face in FACES {
            cancel_everywhere(
                || {
                    let rig = Rig::new(face, brittle().consecutive_failures(10).samples(10).success_rate(0.5));
                    if half_opened {
                        rig.breaker.restore(&half_open()).unwrap();
                    }
                    rig.changes.take();
                    let backend = Backend::new([down().after(2 * MS), hang(), ok(200).after(2 * MS)]);
                    rig.sent.push(backend.clone());
                    let retry = Retry::constant(3 * MS).build().unwrap();
                    let timeout = Timeout::attempt(5 * MS);
                    let inner = ConcurrencyLimit::new(backend.service(), 1);
                    let kept = inner.clone();
                    let breaker = rig.breaker.clone();
                    let call: Call = match face {
                        Face::Plain => {
                            Box::pin(async move { retry.call(|| breaker.call(timeout.call(backend.call()))).await })
                        }
                        Face::Tower => {
                            let stack = ServiceBuilder::new().layer(retry).layer(breaker).layer(timeout);
                            Box::pin(stack.service(inner).oneshot(()))
                        }
                    };
                    ((rig, kept), call)
                },
                |(rig, mut inner): (Rig, ConcurrencyLimit<Probe>), driven| {
                    assert_eq!(rig.in_flight(), 0, "after {} polls", driven.polls);
                    assert!(rig.sent.all().iter().all(|backend| backend.running() == 0));
                    assert!(readiness(&mut inner).is_ready(), "the permit is still taken");
                    let started: u32 = rig.sent.all().iter().map(Backend::started).sum();
                    assert_eq!(rig.ends.take().len(), usize::try_from(started).unwrap());
                    if let Some(result) = driven.output {
                        assert_eq!((result.unwrap(), started), (200, 3));
                    }
                },
            )
            .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_has_never_been_made() {
    let rig = expired(Face::Plain, brittle()).await;
    let call = rig.breaker.call(std::future::pending::<Result<u32, Failure>>());
    assert_eq!((rig.state(), rig.in_flight()), (State::Open, 0));
    drop(call);
    assert!(rig.ends.take().is_empty() && rig.changes.take().is_empty());
}

/// In Tower a call begins with `call`: a probe that nobody polls is dropped at once, or given up.
#[tokio::test(start_paused = true)]
async fn a_tower_call_that_is_dropped_before_its_first_poll_has_ended() {
    let rig = expired(Face::Tower, brittle().abandoned(Abandoned::FailureAfter(ZERO))).await;
    let mut service = rig.breaker.layer(Backend::new([ok(200)]).service());
    let call = service.ready().await.unwrap().call(());
    assert_eq!(rig.in_flight(), 1);
    advance(SECOND).await;
    drop(call);
    // It was never pending, so it has not been pending for long.
    assert_eq!(
        (rig.state(), rig.in_flight(), rig.counts()),
        (State::HalfOpen, 0, (0, 0))
    );
    assert_eq!(rig.ends.take(), ["abandoned"]);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_abandoned_call_begins_with_its_first_pending() {
    for face in FACES {
        let rig = Rig::new(
            face,
            by_count(10)
                .minimum_calls(10)
                .abandoned(Abandoned::FailureAfter(SECOND)),
        );
        let call = rig.call(hang());
        advance(5 * SECOND).await;
        let mut call = call;
        assert!(poll(&mut call).is_pending());
        advance(999 * MS).await;
        drop(call);
        assert_eq!(rig.counts(), (0, 0));
        let mut call = rig.hanging();
        for _ in 0..10 {
            advance(100 * MS).await;
            assert!(poll(&mut call).is_pending());
        }
        drop(call);
        assert_eq!(rig.counts(), (1, 1), "later polls do not begin it again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_operation_is_dropped_before_the_rejection_is_seen() {
    let rig = Rig::new(Face::Plain, brittle());
    rig.breaker.force_open();
    let held = std::sync::Arc::new(());
    let weak = std::sync::Arc::downgrade(&held);
    let mut call = Box::pin(rig.breaker.call(async move {
        let result = std::future::pending::<Result<u32, Failure>>().await;
        drop(held);
        result
    }));
    assert!(poll(&mut call).is_ready());
    assert!(
        weak.upgrade().is_none(),
        "the future is still there, and what it held is not"
    );
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_panics_when_it_is_dropped_has_brought_its_slot_back() {
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let rig = expired(Face::Plain, brittle()).await;
    for ready in [false, true] {
        let mut call = Box::pin(rig.breaker.call(async move {
            let bomb = PanicsOnDrop;
            if !ready {
                std::future::pending::<()>().await;
            }
            drop(bomb);
            Err::<u32, _>(Failure::Down)
        }));
        let message = support::panic_of(move || {
            assert!(poll(&mut call).is_pending());
            drop(call);
        });
        assert_eq!(message, "dropped");
        assert_eq!(rig.in_flight(), 0);
    }
    assert_eq!(rig.ends.take(), ["abandoned", "panicked"]);
}

#[test]
fn a_breaker_outlives_the_runtime_that_its_calls_were_dropped_with() {
    for face in FACES {
        let rig = Rig::new(face, brittle());
        rig.breaker.restore(&half_open()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.spawn(rig.call(hang()));
        runtime.block_on(tokio::task::yield_now());
        assert_eq!(rig.in_flight(), 1);
        drop(runtime);
        assert_eq!(rig.in_flight(), 0);
        assert_eq!(futures::executor::block_on(rig.call(ok(200))).unwrap(), 200);
        assert_eq!(rig.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_ended_is_not_polled_again() {
    for builder in [brittle(), brittle().shadow(true)] {
        let rig = Rig::new(Face::Plain, builder);
        for step in [ok(200), down(), ok(200)] {
            let backend = Backend::new([step]);
            let mut call = Box::pin(rig.breaker.call(backend.call()));
            assert!(poll(&mut call).is_ready());
            let message = support::panic_of(|| poll(&mut call));
            assert!(message.contains("circuit breaker"), "{message}");
        }
    }
}
