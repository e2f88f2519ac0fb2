//! What a bulkhead does, by its plain face, by Tower's and by permits.

use steadfast::RejectedKind::{BulkheadFull, QueueTimedOut};
use steadfast::retry::Retry;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder, ServiceExt};

use super::support::{Backend, down, hang, ok, poll_once};
use super::{FACES, Face, WAIT, gauges, lanes, ms, rejected, settle, w};

#[tokio::test(start_paused = true)]
async fn two_run_the_third_is_refused_and_then_there_is_room_again() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(2, 0), Backend::new([ok(200).after(ms(10))]));
        let call = || face.call(&bulkhead, w(1), &backend);
        let (mut first, mut second) = (call(), call());
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        assert_eq!(gauges(&bulkhead), (2, 0, 0));
        rejected(call().await, BulkheadFull);
        assert_eq!(first.await.unwrap(), 200);
        assert_eq!(second.await.unwrap(), 200);
        assert_eq!(gauges(&bulkhead), (0, 0, 2));
        assert_eq!(call().await.unwrap(), 200);
        assert_eq!(backend.started(), 3, "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_start_in_the_order_of_arrival_and_who_is_cancelled_is_skipped() {
    for face in FACES {
        let bulkhead = lanes(2, 3);
        let order = super::support::Log::default();
        let spawn = |number: u32, delay| {
            let call = face.call(&bulkhead, w(1), &Backend::new([ok(200).after(ms(delay))]));
            let log = order.clone();
            tokio::spawn(async move {
                let result = call.await;
                log.push(number);
                result
            })
        };
        let _running = (spawn(1, 10), spawn(2, 20));
        settle().await;
        let waiting = [spawn(3, 1), spawn(4, 1), spawn(5, 1)];
        settle().await;
        assert_eq!(gauges(&bulkhead), (2, 3, 0));
        rejected(spawn(6, 1).await.unwrap(), BulkheadFull);
        waiting[1].abort();
        settle().await;
        assert_eq!(gauges(&bulkhead), (2, 2, 0));
        // The place is free for another one.
        let last = spawn(7, 1);
        last.await.unwrap().unwrap();
        assert_eq!(order.take(), [6, 1, 3, 5, 7], "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused_and_who_is_admitted_in_time_runs() {
    for face in FACES {
        for (freed, admitted) in [(20, true), (49, true), (51, false)] {
            let (bulkhead, backend) = (lanes(1, 1), Backend::new([ok(200)]));
            let permit = bulkhead.try_acquire().unwrap();
            let started = Instant::now();
            let call = tokio::spawn(face.call(&bulkhead, w(1), &backend));
            tokio::time::sleep(ms(freed)).await;
            drop(permit);
            let result = call.await.unwrap();
            if admitted {
                assert_eq!(result.unwrap(), 200);
                assert_eq!(started.elapsed(), ms(freed));
            } else {
                rejected(result, QueueTimedOut);
                assert_eq!(backend.started(), 0, "{face:?}");
            }
            assert_eq!(gauges(&bulkhead), (0, 0, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_not_ended_is_refused_when_its_time_is_up() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(1, 1), Backend::new([ok(200)]));
        let _permit = bulkhead.try_acquire().unwrap();
        let started = Instant::now();
        rejected(face.call(&bulkhead, w(1), &backend).await, QueueTimedOut);
        assert_eq!(started.elapsed(), WAIT, "{face:?}");
        assert_eq!(gauges(&bulkhead), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_as_the_time_is_up_is_used() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(1, 1), Backend::new([ok(200)]));
        let permit = bulkhead.try_acquire().unwrap();
        let mut call = face.call(&bulkhead, w(1), &backend);
        assert!(poll_once(call.as_mut()).is_pending());
        advance(WAIT).await;
        // The timer has fired, the permit has come, and nobody has looked yet.
        drop(permit);
        assert_eq!(gauges(&bulkhead), (1, 0, 0));
        assert_eq!(call.await.unwrap(), 200, "{face:?}");
        assert_eq!(gauges(&bulkhead), (0, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_changes_while_calls_run_and_none_of_them_is_dropped() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(3, 0), Backend::new([ok(200).after(ms(10))]));
        let clone = bulkhead.clone();
        let start = || {
            let mut call = face.call(&bulkhead, w(1), &backend);
            assert!(poll_once(call.as_mut()).is_pending());
            call
        };
        let mut running: Vec<_> = (0..3).map(|_| start()).collect();
        clone.set_max_concurrent(5);
        running.extend([start(), start()]);
        clone.set_max_concurrent(2);
        assert_eq!(gauges(&bulkhead), (5, 0, 0));
        while running.len() > 2 {
            rejected(face.call(&bulkhead, w(1), &backend).await, BulkheadFull);
            assert_eq!(running.remove(0).await.unwrap(), 200);
        }
        rejected(face.call(&bulkhead, w(1), &backend).await, BulkheadFull);
        assert_eq!(running.remove(0).await.unwrap(), 200);
        assert_eq!(start().await.unwrap(), 200);
        assert_eq!(running.remove(0).await.unwrap(), 200);
        assert_eq!((gauges(&bulkhead), bulkhead.max_concurrent()), ((0, 0, 2), 2));
        assert_eq!(backend.ended(), 6, "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_admits_who_waits_and_a_pause_admits_nobody() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(1, 4), Backend::new([ok(200)]));
        bulkhead.set_max_concurrent(0);
        let calls: Vec<_> = (0..2)
            .map(|_| tokio::spawn(face.call(&bulkhead, w(1), &backend)))
            .collect();
        settle().await;
        assert_eq!((gauges(&bulkhead), backend.started()), ((0, 2, 0), 0));
        bulkhead.set_max_concurrent(1);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), 200, "{face:?}");
        }
        bulkhead.set_max_concurrent(0);
        rejected(face.call(&bulkhead, w(1), &backend).await, QueueTimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_heavy_call_takes_more_than_one_permit_and_is_not_passed() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(3, 2), Backend::new([ok(200).after(ms(10))]));
        let permit = bulkhead.try_acquire_weighted(w(2)).unwrap();
        assert_eq!((permit.weight(), permit.bulkhead().name()), (w(2), "lanes"));
        let heavy = tokio::spawn(face.call(&bulkhead, w(3), &backend));
        settle().await;
        let light = tokio::spawn(face.call(&bulkhead, w(1), &backend));
        settle().await;
        assert_eq!((gauges(&bulkhead), backend.started()), ((2, 2, 1), 0));
        drop(permit);
        settle().await;
        assert_eq!((gauges(&bulkhead), backend.started()), ((3, 1, 0), 1));
        heavy.await.unwrap().unwrap();
        light.await.unwrap().unwrap();
        assert_eq!(gauges(&bulkhead), (0, 0, 3), "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_weight_above_the_limit_is_refused_at_once() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(3, 2), Backend::new([ok(200)]));
        let started = Instant::now();
        rejected(face.call(&bulkhead, w(4), &backend).await, BulkheadFull);
        assert!(bulkhead.try_acquire_weighted(w(4)).is_err());
        assert_eq!((started.elapsed(), gauges(&bulkhead)), (ms(0), (0, 0, 3)), "{face:?}");
        assert_eq!(face.call(&bulkhead, w(3), &backend).await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_falls_below_the_weight_of_a_waiter_refuses_it_and_those_behind_it_move_up() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(4, 2), Backend::new([ok(200)]));
        let _permit = bulkhead.try_acquire().unwrap();
        let heavy = tokio::spawn(face.call(&bulkhead, w(4), &backend));
        settle().await;
        let light = tokio::spawn(face.call(&bulkhead, w(1), &backend));
        settle().await;
        let started = Instant::now();
        bulkhead.set_max_concurrent(2);
        rejected(heavy.await.unwrap(), BulkheadFull);
        assert_eq!(light.await.unwrap().unwrap(), 200);
        assert_eq!((started.elapsed(), gauges(&bulkhead)), (ms(0), (1, 0, 1)), "{face:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_changes_while_calls_wait_and_none_of_them_is_dropped() {
    for face in FACES {
        let (bulkhead, backend) = (lanes(1, 2), Backend::new([ok(200)]));
        let permit = bulkhead.try_acquire().unwrap();
        let waiting: Vec<_> = (0..2)
            .map(|_| tokio::spawn(face.call(&bulkhead, w(1), &backend)))
            .collect();
        settle().await;
        bulkhead.set_max_queued(0).unwrap();
        assert_eq!((gauges(&bulkhead), bulkhead.snapshot().max_queued), ((1, 2, 0), 0));
        rejected(face.call(&bulkhead, w(1), &backend).await, BulkheadFull);
        bulkhead.set_max_queued(3).unwrap();
        bulkhead.set_max_wait(ms(5)).unwrap();
        let started = Instant::now();
        rejected(face.call(&bulkhead, w(1), &backend).await, QueueTimedOut);
        assert_eq!(started.elapsed(), ms(5), "{face:?}");
        drop(permit);
        for call in waiting {
            assert_eq!(call.await.unwrap().unwrap(), 200);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_around_a_bulkhead_frees_the_permit_while_it_backs_off() {
    let bulkhead = lanes(1, 0);
    let retry = Retry::constant(ms(10)).build().unwrap();

    let backend = Backend::new([down(), ok(200)]);
    let mut plain = Box::pin(retry.call(|| bulkhead.call(backend.call())));
    assert!(poll_once(plain.as_mut()).is_pending());
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
    assert_eq!(plain.await.unwrap(), 200);

    let backend = Backend::new([down(), ok(200)]);
    let service = ServiceBuilder::new()
        .layer(retry.clone())
        .layer(bulkhead.clone())
        .service(backend.service());
    let mut call = Box::pin(service.oneshot(()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_around_a_retry_holds_the_permit_while_it_backs_off() {
    let bulkhead = lanes(1, 0);
    let retry = Retry::constant(ms(10)).build().unwrap();

    let backend = Backend::new([down(), ok(200)]);
    let mut plain = Box::pin(bulkhead.call(retry.call(|| backend.call())));
    assert!(poll_once(plain.as_mut()).is_pending());
    assert_eq!(gauges(&bulkhead), (1, 0, 0));
    assert_eq!(plain.await.unwrap(), 200);

    let backend = Backend::new([down(), ok(200)]);
    let service = ServiceBuilder::new()
        .layer(bulkhead.clone())
        .layer(retry.clone())
        .service(backend.service());
    let mut call = Box::pin(service.oneshot(()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!(gauges(&bulkhead), (1, 0, 0));
    assert_eq!(call.await.unwrap(), 200);
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_retried_unless_it_is_asked_for() {
    for (judge, elapsed) in [(false, 0), (true, 20)] {
        let bulkhead = lanes(1, 0);
        let _permit = bulkhead.try_acquire().unwrap();
        let retry = Retry::constant(ms(10));
        let retry = if judge { retry.judge_rejections() } else { retry };
        let retry = retry
            .classify(|_: Result<&u32, &_>| steadfast::Verdict::TRANSIENT)
            .build()
            .unwrap();
        let backend = Backend::new([ok(200)]);
        let started = Instant::now();
        rejected(retry.call(|| bulkhead.call(backend.call())).await, BulkheadFull);
        assert_eq!(started.elapsed(), ms(elapsed));
    }
}

#[tokio::test(start_paused = true)]
async fn all_clones_and_all_layers_share_one_state() {
    let bulkhead = lanes(1, 0);
    let hanging = Backend::new([hang()]);
    for face in [Face::Plain, Face::Tower] {
        let mut call = face.call(&bulkhead.clone(), w(1), &hanging);
        assert!(poll_once(call.as_mut()).is_pending());
        // Applied again, as a server does for each connection.
        let other = bulkhead.clone().layer(Backend::new([ok(200)]).service());
        rejected(other.oneshot(()).await, BulkheadFull);
        rejected(bulkhead.call(Backend::new([ok(200)]).call()).await, BulkheadFull);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_kept_across_tasks() {
    let bulkhead = lanes(1, 1);
    let permit = bulkhead.acquire().await.unwrap();
    let task = tokio::spawn(async move {
        tokio::time::sleep(ms(10)).await;
        drop(permit);
    });
    let started = Instant::now();
    let next = bulkhead.acquire().await.unwrap();
    assert_eq!(started.elapsed(), ms(10));
    task.await.unwrap();
    drop(next);
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}
