//! Every future of the bulkhead, dropped after each of its polls, and panics in all that it runs.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::executor::block_on;
use steadfast::bulkhead::{Bulkhead, Snapshot};
use tokio::time::{advance, sleep};

use super::support::{Backend, Driven, Log, Wakes, cancel_everywhere, drive, hang, ok, panic_of, panics, poll_once};
use super::{FACES, Face, WAIT, builder, gauges, lanes, ms, settle, w};

/// A bulkhead whose events are written down.
fn listened(max_concurrent: u32, max_queued: u32) -> (Bulkhead, Log<String>) {
    let ends = Log::default();
    let log = ends.clone();
    let bulkhead = builder(max_concurrent, max_queued)
        .on_event(move |event| {
            let event = format!("{event:?}");
            if !event.starts_with("Queued") {
                log.push(event);
            }
        })
        .build()
        .unwrap();
    (bulkhead, ends)
}

/// Nothing is held any more, and there was one end if there was a beginning.
fn check<T>(face: Face, (bulkhead, backend, ends): &(Bulkhead, Backend, Log<String>), driven: &Driven<T>, polls: u32) {
    assert_eq!(backend.running(), 0, "{face:?}");
    assert_eq!(gauges(bulkhead), (0, 0, 1), "{face:?}");
    let ends = ends.take();
    assert_eq!(ends.len(), usize::from(driven.polls > 0), "{face:?}: {ends:?}");
    if driven.output.is_some() {
        assert_eq!(driven.polls, polls, "{face:?}: polls to the end");
    } else if driven.polls > 0 && face != Face::Permit {
        assert!(ends[0].contains("Cancelled"), "{ends:?}");
    }
    assert!(driven.wakes <= driven.polls, "{} wakes", driven.wakes);
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_dropped_anywhere() {
    for face in FACES {
        cancel_everywhere(
            || {
                let (bulkhead, ends) = listened(1, 1);
                let backend = Backend::new([ok(200).after(ms(3))]);
                let call = face.call(&bulkhead, w(1), &backend);
                ((bulkhead, backend, ends), call)
            },
            |case, driven| check(face, &case, &driven, 2),
        )
        .await;
    }
}

/// Someone who holds all there is for a while.
async fn hold(bulkhead: Bulkhead) {
    let permit = bulkhead.acquire().await.unwrap();
    sleep(ms(5)).await;
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_can_be_dropped_anywhere() {
    for face in FACES {
        for swap in [false, true] {
            let mut limit = 0;
            loop {
                let (bulkhead, ends) = listened(1, 1);
                let backend = Backend::new([ok(200).after(ms(3))]);
                let holder = tokio::spawn(hold(bulkhead.clone()));
                settle().await;
                let driven = drive(face.call(&bulkhead, w(1), &backend), limit, swap).await;
                holder.await.unwrap();
                let all = ends.take();
                assert!(all.iter().any(|end| end.contains("Completed")), "the holder's: {all:?}");
                assert_eq!(all.len(), 1 + usize::from(limit > 0), "{face:?}: {all:?}");
                assert_eq!(backend.running(), 0);
                assert_eq!(gauges(&bulkhead), (0, 0, 1));
                assert!(driven.wakes <= driven.polls);
                if driven.output.is_some() {
                    assert_eq!(driven.polls, 3, "{face:?}: it waits, it runs, it ends");
                    break;
                }
                limit += 1;
            }
            println!("figure: cancellations injected: {limit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_came_to_a_call_that_is_dropped_goes_to_the_next() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(1, 2), Backend::new([ok(200)]));
        let permit = bulkhead.try_acquire().unwrap();
        let mut first = face.call(&bulkhead, w(1), &backend);
        assert!(poll_once(first.as_mut()).is_pending());
        let second = tokio::spawn(face.call(&bulkhead, w(1), &backend));
        settle().await;
        drop(permit);
        assert_eq!(gauges(&bulkhead), (1, 1, 0));
        drop(first);
        assert_eq!(second.await.unwrap().unwrap(), 200, "{face:?}");
        assert_eq!(gauges(&bulkhead), (0, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_waker_is_woken_and_no_other() {
    for face in FACES {
        for timed_out in [false, true] {
            let (bulkhead, backend) = (lanes(1, 1), Backend::new([ok(200)]));
            let mut permit = Some(bulkhead.try_acquire().unwrap());
            let mut call = face.call(&bulkhead, w(1), &backend);
            let (first, waker) = Wakes::new();
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            let (second, waker) = Wakes::new();
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            advance(WAIT / 2).await;
            assert_eq!((first.count(), second.count()), (0, 0));
            if timed_out {
                advance(WAIT / 2).await;
            } else {
                permit = None;
            }
            assert_eq!((first.count(), second.count()), (0, 1), "{face:?}");
            assert!(poll_once(call.as_mut()).is_ready());
            drop(permit);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_admitted_is_not_woken_by_the_end_of_its_wait() {
    for face in FACES {
        let bulkhead = lanes(1, 1);
        let permit = bulkhead.try_acquire().unwrap();
        let mut call = face.call(&bulkhead, w(1), &Backend::new([hang()]));
        assert!(poll_once(call.as_mut()).is_pending());
        drop(permit);
        let (heard, waker) = Wakes::new();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        advance(2 * WAIT).await;
        assert_eq!((heard.count(), gauges(&bulkhead)), (0, (1, 0, 0)), "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_rejected_is_dropped_with_the_answer() {
    for (queued, polls) in [(0, 1), (1, 2)] {
        let (bulkhead, backend) = (lanes(1, queued), Backend::new([ok(200)]));
        let _permit = bulkhead.try_acquire().unwrap();
        let mut call = pin!(bulkhead.call(backend.call()));
        assert_eq!(backend.running(), 1);
        for n in 1..=polls {
            assert_eq!(poll_once(call.as_mut()).is_ready(), n == polls);
            advance(WAIT).await;
        }
        assert_eq!(backend.running(), 0);
    }
}

#[test]
fn a_panic_of_the_operation_frees_the_permit_while_it_unwinds() {
    let (bulkhead, ends) = listened(1, 0);
    let mut call = pin!(bulkhead.call(Backend::new([panics()]).call()));
    assert_eq!(
        panic_of(|| poll_once(call.as_mut())),
        "the operation panics when it is polled"
    );
    // The future is still there.
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
    let ends = ends.take();
    assert!(matches!(&ends[..], [end] if end.contains("Cancelled")), "{ends:?}");
    assert_eq!(
        panic_of(|| poll_once(call.as_mut())),
        "a call under a bulkhead was polled after it had completed"
    );
    assert_eq!(block_on(bulkhead.call(Backend::new([ok(200)]).call())).unwrap(), 200);
}

#[test]
fn a_call_that_has_completed_panics_when_it_is_polled_again_and_changes_nothing() {
    let bulkhead = lanes(1, 0);
    let mut call = pin!(bulkhead.call(Backend::new([ok(200)]).call()));
    assert!(poll_once(call.as_mut()).is_ready());
    panic_of(|| poll_once(call.as_mut()));
    let permit = bulkhead.try_acquire().unwrap();
    let mut call = pin!(bulkhead.call(Backend::new([ok(200)]).call()));
    assert!(poll_once(call.as_mut()).is_ready());
    panic_of(|| poll_once(call.as_mut()));
    drop(permit);
    let mut acquire = pin!(bulkhead.acquire());
    assert!(poll_once(acquire.as_mut()).is_ready());
    panic_of(|| poll_once(acquire.as_mut()));
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[test]
fn a_wait_without_a_runtime_panics_and_leaves_nothing_behind() {
    let bulkhead = lanes(1, 1);
    let permit = bulkhead.try_acquire().unwrap();
    for face in FACES {
        panic_of(|| block_on(face.call(&bulkhead, w(1), &Backend::new([ok(200)]))));
        assert_eq!(gauges(&bulkhead), (1, 0, 0), "{face:?}");
    }
    drop(permit);
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[test]
fn a_runtime_that_shuts_down_leaves_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .unwrap();
    let bulkhead = builder(2, 8).max_wait(ms(60_000)).build().unwrap();
    let backend = Backend::new([hang()]);
    for n in 0..8 {
        runtime.spawn(FACES[n % 3].call(&bulkhead, w(1), &backend));
    }
    // One look at a time: calls begin on other threads, between two looks.
    let has_begun = |now: Snapshot| (now.in_flight, now.queued) == (2, 6);
    while !has_begun(bulkhead.snapshot()) {
        std::thread::yield_now();
    }
    drop(runtime);
    assert_eq!((gauges(&bulkhead), backend.running()), ((0, 0, 2), 0));
}

/// A waker whose every wake-up panics.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker")
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_costs_nobody_else_a_wake_up() {
    let (bulkhead, backend) = (lanes(1, 2), Backend::new([ok(200)]));
    bulkhead.set_max_concurrent(0);
    let mut first = Face::Plain.call(&bulkhead, w(1), &backend);
    let waker = Waker::from(Arc::new(Panicking));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let second = tokio::spawn(Face::Plain.call(&bulkhead, w(1), &backend));
    settle().await;
    bulkhead.set_max_concurrent(2);
    assert_eq!(second.await.unwrap().unwrap(), 200);
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Ok(200))));
    assert_eq!(gauges(&bulkhead), (0, 0, 2));
}

/// An operation that uses up the budget that tokio gives a task, and then waits.
#[tokio::test]
async fn a_task_without_budget_is_timed_out_all_the_same() {
    let bulkhead = builder(1, 1).max_wait(ms(5)).build().unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    let mut call = Face::Plain.call(&bulkhead, w(1), &Backend::new([ok(200)]));
    let call = std::future::poll_fn(move |cx| {
        while let Poll::Ready(progress) = tokio::task::coop::poll_proceed(cx) {
            progress.made_progress();
        }
        call.as_mut().poll(cx)
    });
    let result = tokio::time::timeout(100 * ms(5), tokio::spawn(call)).await;
    super::rejected(
        result.expect("it was never timed out").unwrap(),
        steadfast::RejectedKind::QueueTimedOut,
    );
}
