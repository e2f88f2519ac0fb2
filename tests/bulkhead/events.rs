//! What a bulkhead tells: to a listener, to `tracing` and to `metrics`.

use std::sync::{Arc, OnceLock};

use metrics_util::debugging::DebuggingRecorder;
use steadfast::bulkhead::{Bulkhead, Event};
use tokio::time::advance;

use super::support::{Backend, Log, hang, ok, panics, poll_once};
use super::telemetry::{counted, logged, paused};
use super::{FACES, Face, WAIT, builder, gauges, ms, w};

fn listened(max_concurrent: u32, max_queued: u32) -> (Bulkhead, Log<String>) {
    let events = Log::default();
    let log = events.clone();
    let bulkhead = builder(max_concurrent, max_queued)
        .on_event(move |event: &Event<'_>| log.push(format!("{event:?}")))
        .build()
        .unwrap();
    (bulkhead, events)
}

const FULL: &str = "Full { policy: \"lanes\", weight: 1 }";
const QUEUED: &str = "Queued { policy: \"lanes\", weight: 1 }";

#[tokio::test(start_paused = true)]
async fn each_call_has_one_last_event() {
    for face in FACES {
        let (bulkhead, events) = listened(1, 1);
        let backend = Backend::new([ok(200)]);
        face.call(&bulkhead, w(1), &backend).await.unwrap();
        assert_eq!(
            events.take(),
            ["Completed { policy: \"lanes\", weight: 1, waited: 0ns }"]
        );

        let permit = bulkhead.try_acquire().unwrap();
        face.call(&bulkhead, w(1), &backend).await.unwrap_err();
        let timed_out = "QueueTimedOut { policy: \"lanes\", weight: 1, waited: 50ms }";
        assert_eq!(events.take(), [QUEUED, timed_out], "{face:?}");

        let mut call = face.call(&bulkhead, w(1), &backend);
        assert!(poll_once(call.as_mut()).is_pending());
        face.call(&bulkhead, w(1), &backend).await.unwrap_err();
        assert_eq!(events.take(), [QUEUED, FULL]);
        advance(ms(7)).await;
        drop(permit);
        call.await.unwrap();
        assert_eq!(
            events.take(),
            [
                "Completed { policy: \"lanes\", weight: 1, waited: 0ns }",
                "Completed { policy: \"lanes\", weight: 1, waited: 7ms }"
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_tells_how_far_it_had_come() {
    for face in [Face::Plain, Face::Tower] {
        let (bulkhead, events) = listened(1, 1);
        let mut running = face.call(&bulkhead, w(1), &Backend::new([hang()]));
        assert!(poll_once(running.as_mut()).is_pending());
        let mut waiting = face.call(&bulkhead, w(1), &Backend::new([hang()]));
        assert!(poll_once(waiting.as_mut()).is_pending());
        advance(ms(7)).await;
        drop(waiting);
        drop(running);
        assert_eq!(
            events.take(),
            [
                QUEUED,
                "Cancelled { policy: \"lanes\", weight: 1, waited: 7ms, admitted: false }",
                "Cancelled { policy: \"lanes\", weight: 1, waited: 0ns, admitted: true }"
            ],
            "{face:?}"
        );
        drop(face.call(&bulkhead, w(1), &Backend::new([hang()])));
        assert!(events.take().is_empty(), "a call that was never polled");
    }
}

#[tokio::test(start_paused = true)]
async fn a_weight_that_no_longer_fits_and_a_limit_that_changes_are_told() {
    let (bulkhead, events) = listened(3, 1);
    let _permit = bulkhead.try_acquire().unwrap();
    let mut call = Face::Plain.call(&bulkhead, w(3), &Backend::new([ok(200)]));
    assert!(poll_once(call.as_mut()).is_pending());
    bulkhead.set_max_concurrent(2);
    assert!(poll_once(call.as_mut()).is_ready());
    bulkhead.try_acquire_weighted(w(2)).unwrap_err();
    assert_eq!(
        events.take(),
        [
            "Queued { policy: \"lanes\", weight: 3 }",
            "LimitChanged { policy: \"lanes\", max_concurrent: 2 }",
            "Full { policy: \"lanes\", weight: 3 }",
            "Full { policy: \"lanes\", weight: 2 }"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_ask_the_bulkhead_and_finds_what_is_true_after_the_event() {
    let own: Arc<OnceLock<Bulkhead>> = Arc::default();
    let seen = Log::default();
    let (log, asked) = (seen.clone(), Arc::clone(&own));
    let bulkhead = builder(1, 1)
        .on_event(move |event| {
            let bulkhead = asked.get().unwrap();
            let (event, _) = format!("{event:?}")
                .split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            log.push((event, gauges(bulkhead)));
        })
        .build()
        .unwrap();
    own.set(bulkhead.clone()).unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    let mut call = Face::Plain.call(&bulkhead, w(1), &Backend::new([ok(200)]));
    assert!(poll_once(call.as_mut()).is_pending());
    bulkhead.try_acquire().unwrap_err();
    drop(permit);
    call.await.unwrap();
    let seen: Vec<_> = seen.take();
    let seen: Vec<_> = seen.iter().map(|(event, gauges)| (event.as_str(), *gauges)).collect();
    assert_eq!(
        seen,
        [
            ("Queued", (1, 1, 0)),
            ("Full", (1, 1, 0)),
            // Its permit has gone to the one that waits.
            ("Completed", (1, 0, 0)),
            ("Completed", (0, 0, 1)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_changes_nothing() {
    let bulkhead = builder(1, 0).on_event(|_| panic!("a listener")).build().unwrap();
    for face in FACES {
        face.call(&bulkhead, w(1), &Backend::new([ok(200)])).await.unwrap();
        let mut call = face.call(&bulkhead, w(1), &Backend::new([hang()]));
        assert!(poll_once(call.as_mut()).is_pending());
        face.call(&bulkhead, w(1), &Backend::new([ok(200)])).await.unwrap_err();
        drop(call);
        assert_eq!(gauges(&bulkhead), (0, 0, 1));
    }
}

/// Each kind of event, once.
async fn one_of_each(bulkhead: &Bulkhead) {
    let call = |backend| Face::Plain.call(bulkhead, w(1), &Backend::new([backend]));
    call(ok(200)).await.unwrap();
    let mut running = call(hang());
    assert!(poll_once(running.as_mut()).is_pending());
    let mut waiting = call(ok(200));
    assert!(poll_once(waiting.as_mut()).is_pending());
    call(ok(200)).await.unwrap_err();
    advance(WAIT).await;
    assert!(poll_once(waiting.as_mut()).is_ready());
    drop(running);
    bulkhead.set_max_concurrent(2);
    let _never_run = call(panics());
}

#[test]
fn every_event_is_logged_with_its_target_and_its_fields() {
    let bulkhead = builder(1, 1).build().unwrap();
    let ((), lines) = logged(|| paused().block_on(one_of_each(&bulkhead)));
    assert_eq!(
        lines,
        [
            "TRACE steadfast::bulkhead: message=completed policy=\"lanes\" weight=1 waited=0ns",
            "DEBUG steadfast::bulkhead: message=queued policy=\"lanes\" weight=1",
            "INFO steadfast::bulkhead: message=full policy=\"lanes\" weight=1",
            "INFO steadfast::bulkhead: message=queue timed out policy=\"lanes\" weight=1 waited=50ms",
            "DEBUG steadfast::bulkhead: message=cancelled policy=\"lanes\" weight=1 waited=0ns admitted=true",
            "INFO steadfast::bulkhead: message=limit changed policy=\"lanes\" max_concurrent=2",
        ]
    );
}

#[test]
fn calls_are_counted_and_the_gauges_are_true() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let counted = || counted(&snapshotter);
    let bulkhead = builder(3, 1).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        paused().block_on(async {
            bulkhead.set_max_concurrent(1);
            one_of_each(&bulkhead).await;
            let _permit = bulkhead.try_acquire_weighted(w(2)).unwrap();
            let mut waiting = Face::Tower.call(&bulkhead, w(1), &Backend::new([ok(200)]));
            assert!(poll_once(waiting.as_mut()).is_pending());
            let gauges: Vec<_> = counted().into_iter().filter(|line| !line.contains("calls")).collect();
            assert_eq!(
                gauges,
                [
                    "steadfast.bulkhead.in_flight: policy=lanes: 2",
                    "steadfast.bulkhead.queued: policy=lanes: 1",
                    "steadfast.bulkhead.wait_seconds: policy=lanes: [0.05]",
                ]
            );
        });
    });
    assert_eq!(
        counted(),
        [
            "steadfast.bulkhead.calls: policy=lanes, outcome=cancelled: 1",
            "steadfast.bulkhead.calls: policy=lanes, outcome=completed: 1",
            "steadfast.bulkhead.calls: policy=lanes, outcome=full: 0",
            "steadfast.bulkhead.calls: policy=lanes, outcome=queue_timed_out: 0",
            // This recorder starts again from zero with each snapshot: what was up is down again.
            "steadfast.bulkhead.in_flight: policy=lanes: -2",
            "steadfast.bulkhead.queued: policy=lanes: -1",
            "steadfast.bulkhead.wait_seconds: policy=lanes: [0.0]",
        ]
    );
}
