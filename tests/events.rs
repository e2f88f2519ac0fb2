//! What each pattern tells of its calls: to a listener, to `tracing` and to `metrics`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod support;
#[path = "support/telemetry.rs"]
mod telemetry;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use steadfast::Rejected;
use steadfast::fallback::{self, Fallback};
use steadfast::retry::{self, Retry, StopReason};
use steadfast::timeout::{self, Timeout};
use support::{Backend, Failure, Log, MS, Readiness, down, fail, hang, judge, ok, poll_once};
use telemetry::{counted, logged, paused};
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceExt};

fn retry_events() -> (Log<String>, Retry<impl steadfast::Classify<u32, Failure>>) {
    let events = Log::default();
    let log = events.clone();
    let retry = Retry::constant(10 * MS)
        .name("reads")
        .classify(judge)
        .on_event(move |event| log.push(format!("{event:?}")))
        .build()
        .unwrap();
    (events, retry)
}

#[tokio::test(start_paused = true)]
async fn a_retry_tells_of_every_retry_and_of_the_end() {
    let (events, retry) = retry_events();
    let backend = Backend::new([down().after(MS), fail(Failure::Busy(None)), ok(200).after(MS)]);
    retry.call(|| backend.call()).await.unwrap();
    assert_eq!(
        events.take(),
        [
            "Retrying { policy: \"reads\", attempt: 1, verdict: Transient { retry_after: None }, wait: 10ms, error: \
             Some(Down) }",
            "Retrying { policy: \"reads\", attempt: 2, verdict: Overloaded { retry_after: None }, wait: 10ms, error: \
             Some(Busy(None)) }",
            "Finished { policy: \"reads\", report: Report { attempts: 3, elapsed: 22ms, waited: 20ms, stop: Success \
             }, error: None }",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_tells_why_it_gave_up_and_over_which_error() {
    let (events, retry) = retry_events();
    let backend = Backend::new([fail(Failure::Refused)]);
    retry.call(|| backend.call()).await.unwrap_err();
    assert_eq!(
        events.take(),
        [
            "Finished { policy: \"reads\", report: Report { attempts: 1, elapsed: 0ns, waited: 0ns, stop: \
             NotRetryable }, error: Some(Refused) }"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_in_its_wait_tells_how_far_it_came() {
    let (events, retry) = retry_events();
    let backend = Backend::new([down()]);
    {
        let mut call = pin!(retry.call(|| backend.call()));
        assert!(poll_once(call.as_mut()).is_pending());
        advance(4 * MS).await;
        events.take();
    }
    assert_eq!(
        events.take(),
        [
            "Finished { policy: \"reads\", report: Report { attempts: 1, elapsed: 4ms, waited: 10ms, stop: Cancelled \
             }, error: None }"
        ]
    );
}

fn timeout_events(limit: Duration) -> (Log<String>, Timeout) {
    let events = Log::default();
    let log = events.clone();
    let timeout = Timeout::new(limit)
        .name("reads")
        .on_event(move |event: &timeout::Event<'_>| log.push(format!("{event:?}")));
    (events, timeout)
}

#[test]
fn a_listener_is_dropped_with_the_last_clone_of_its_timeout() {
    let heard = Arc::new(());
    let captured = Arc::clone(&heard);
    let timeout = Timeout::new(MS).on_event(move |_| {
        let _ = &captured;
    });
    let clone = timeout.clone();
    drop(timeout);
    assert_eq!(Arc::strong_count(&heard), 2);
    drop(clone);
    assert_eq!(Arc::strong_count(&heard), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_of_each_of_its_ends() {
    for limit in [10 * MS, Duration::MAX] {
        let (events, timeout) = timeout_events(limit);
        timeout.call(Backend::new([ok(200)]).call()).await.unwrap();
        timeout
            .call(Backend::new([ok(200).after(4 * MS)]).call())
            .await
            .unwrap();
        {
            let backend = Backend::new([hang()]);
            let mut call = pin!(timeout.call(backend.call()));
            assert!(poll_once(call.as_mut()).is_pending());
            advance(7 * MS).await;
        }
        assert_eq!(
            events.take(),
            [
                "Completed { policy: \"reads\", elapsed: 0ns }",
                "Completed { policy: \"reads\", elapsed: 4ms }",
                "Cancelled { policy: \"reads\", elapsed: 7ms }",
            ]
        );
    }
    let (events, timeout) = timeout_events(10 * MS);
    timeout.call(Backend::new([hang()]).call()).await.unwrap_err();
    let probe = Backend::new([ok(200)]).service().with_readiness([Readiness::Never]);
    timeout.layer(probe).oneshot(()).await.unwrap_err();
    assert_eq!(
        events.take(),
        [
            "TimedOut { policy: \"reads\", limit: 10ms, reached_inner: true }",
            "TimedOut { policy: \"reads\", limit: 10ms, reached_inner: false }",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_of_the_time_since_its_call_and_not_since_readiness() {
    let (events, timeout) = timeout_events(10 * MS);
    let probe = Backend::new([ok(200).after(3 * MS)])
        .service()
        .with_readiness([Readiness::Never]);
    let gate = probe.gate();
    let mut service = timeout.layer(probe);
    let ((), ()) = futures::join!(
        async {
            service.ready().await.unwrap();
        },
        async {
            sleep(4 * MS).await;
            gate.set([]);
        }
    );
    service.call(()).await.unwrap();
    assert_eq!(events.take(), ["Completed { policy: \"reads\", elapsed: 3ms }"]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_tells_of_the_recovery_and_of_the_end() {
    let events = Log::default();
    let log = events.clone();
    let fallback = Fallback::builder()
        .name("shelf")
        .classify(judge)
        .on_event(move |event: &fallback::Event<'_>| log.push(format!("{event:?}")))
        .from_outcome(|result: Result<u32, Failure>| async move {
            sleep(MS).await;
            match result {
                Ok(_) => Ok(1),
                Err(error) => Err(error),
            }
        });
    fallback.call(Backend::new([ok(200)]).call()).await.unwrap();
    assert_eq!(events.take(), ["Finished { policy: \"shelf\", outcome: NotNeeded }"]);
    fallback.call(Backend::new([ok(503)]).call()).await.unwrap();
    assert_eq!(
        events.take(),
        [
            "Recovering { policy: \"shelf\", verdict: Transient { retry_after: None }, error: None }",
            "Finished { policy: \"shelf\", outcome: Recovered }",
        ]
    );
    let open = Rejected::bulkhead_full("lanes");
    fallback
        .call(Backend::new([fail(open.into())]).call())
        .await
        .unwrap_err();
    assert_eq!(
        events.take(),
        [
            "Recovering { policy: \"shelf\", verdict: Ignored, error: Some(Rejected(Rejected { kind: BulkheadFull, \
             policy: \"lanes\", retry_after: None, reached_inner: false })) }",
            "Finished { policy: \"shelf\", outcome: RecoveryFailed }",
        ]
    );
    let backend = Backend::new([down()]);
    {
        let mut call = pin!(fallback.call(backend.call()));
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!(
        events.take(),
        [
            "Recovering { policy: \"shelf\", verdict: Transient { retry_after: None }, error: Some(Down) }",
            "Finished { policy: \"shelf\", outcome: Cancelled }",
        ]
    );
}

/// One of each end of each pattern, under fresh policies.
async fn one_of_each() {
    let retry = Retry::constant(10 * MS).name("reads").classify(judge).build().unwrap();
    retry.call(|| async { Ok(200) }).await.unwrap();
    let service = retry.layer(Backend::new([down()]).service());
    service.oneshot(()).await.unwrap_err();
    retry.call(|| async { Err(Failure::Refused) }).await.unwrap_err();
    drop(
        retry
            .layer(Backend::new([ok(200)]).service())
            .ready()
            .await
            .unwrap()
            .call(()),
    );

    let timeout = Timeout::new(10 * MS).name(String::from("made at run time"));
    timeout.call(async { Ok::<_, Rejected>(1) }).await.unwrap();
    timeout
        .call(std::future::pending::<Result<(), Rejected>>())
        .await
        .unwrap_err();

    assert!(poll_once(pin!(timeout.call(std::future::pending::<Result<(), Rejected>>()))).is_pending());

    let fallback = Fallback::builder().name("shelf").from_error(|error| match error {
        Failure::Down => Ok(1),
        other => Err(other),
    });
    fallback.call(async { Ok(2) }).await.unwrap();
    fallback.call(async { Err(Failure::Down) }).await.unwrap();
    fallback.call(async { Err(Failure::Refused) }).await.unwrap_err();
    assert!(poll_once(pin!(fallback.call(std::future::pending()))).is_pending());
}

#[test]
fn every_end_is_counted_by_policy_and_outcome() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || paused().block_on(one_of_each()));
    assert_eq!(
        counted(&snapshotter),
        [
            "steadfast.fallback.calls: policy=shelf, outcome=cancelled: 1",
            "steadfast.fallback.calls: policy=shelf, outcome=not_needed: 1",
            "steadfast.fallback.calls: policy=shelf, outcome=recovered: 1",
            "steadfast.fallback.calls: policy=shelf, outcome=recovery_failed: 1",
            "steadfast.retry.calls: policy=reads, outcome=cancelled: 1",
            "steadfast.retry.calls: policy=reads, outcome=max_attempts: 1",
            "steadfast.retry.calls: policy=reads, outcome=not_retryable: 1",
            "steadfast.retry.calls: policy=reads, outcome=success: 1",
            "steadfast.retry.wait_seconds: policy=reads: [0.01, 0.01]",
            "steadfast.timeout.calls: policy=made at run time, outcome=cancelled: 1",
            "steadfast.timeout.calls: policy=made at run time, outcome=completed: 1",
            "steadfast.timeout.calls: policy=made at run time, outcome=timed_out: 1",
        ]
    );
}

#[test]
fn every_event_is_logged_with_its_target_and_its_fields() {
    let ((), lines) = logged(|| paused().block_on(one_of_each()));
    assert_eq!(
        lines,
        [
            "TRACE steadfast::retry: message=succeeded policy=\"reads\" attempts=1 stop_reason=\"success\"",
            "DEBUG steadfast::retry: message=retrying policy=\"reads\" attempt=1 verdict=\"transient\" wait=10ms \
             error=the dependency is down",
            "DEBUG steadfast::retry: message=retrying policy=\"reads\" attempt=2 verdict=\"transient\" wait=10ms \
             error=the dependency is down",
            "WARN steadfast::retry: message=gave up policy=\"reads\" attempts=3 elapsed=20ms waited=20ms \
             stop_reason=\"max_attempts\" error=the dependency is down",
            "DEBUG steadfast::retry: message=ended policy=\"reads\" attempts=1 elapsed=0ns waited=0ns \
             stop_reason=\"not_retryable\" error=the request makes no sense",
            "DEBUG steadfast::retry: message=ended policy=\"reads\" attempts=1 elapsed=0ns waited=0ns \
             stop_reason=\"cancelled\"",
            "TRACE steadfast::timeout: message=completed policy=\"made at run time\" elapsed=0ns",
            "INFO steadfast::timeout: message=timed out policy=\"made at run time\" limit=10ms reached_inner=true",
            "DEBUG steadfast::timeout: message=cancelled policy=\"made at run time\" elapsed=0ns",
            "TRACE steadfast::fallback: message=finished policy=\"shelf\" outcome=\"not_needed\"",
            "INFO steadfast::fallback: message=recovering policy=\"shelf\" verdict=\"transient\" error=the dependency \
             is down",
            "DEBUG steadfast::fallback: message=finished policy=\"shelf\" outcome=\"recovered\"",
            "INFO steadfast::fallback: message=recovering policy=\"shelf\" verdict=\"transient\" error=the request \
             makes no sense",
            "WARN steadfast::fallback: message=finished policy=\"shelf\" outcome=\"recovery_failed\"",
            "DEBUG steadfast::fallback: message=finished policy=\"shelf\" outcome=\"cancelled\"",
        ]
    );
}

#[test]
fn a_listener_that_panics_is_logged() {
    let retry = Retry::constant(Duration::ZERO)
        .on_event(|_| panic!("a listener"))
        .build()
        .unwrap();
    let call = retry.call(|| async { Ok::<_, Failure>(1) });
    let (answer, lines) = logged(|| futures::executor::block_on(call));
    answer.unwrap();
    assert_eq!(lines[1..], ["ERROR steadfast: message=an event listener panicked"]);
}

#[test]
fn every_stop_reason_has_a_label_of_its_own() {
    let reasons = [
        StopReason::Success,
        StopReason::NotRetryable,
        StopReason::MaxAttempts,
        StopReason::MaxElapsed,
        StopReason::BackoffEnded,
        StopReason::HintTooLong,
        StopReason::BudgetEmpty,
        StopReason::NotReplayable,
        StopReason::NotReady,
        StopReason::Cancelled,
    ];
    for (reason, other) in reasons.iter().zip(&reasons[1..]) {
        assert_ne!(reason.as_str(), other.as_str());
        let snake: String = format!("{reason:?}")
            .char_indices()
            .map(|(i, c)| match c {
                'A'..='Z' if i > 0 => format!("_{}", c.to_ascii_lowercase()),
                _ => c.to_ascii_lowercase().to_string(),
            })
            .collect();
        assert_eq!(reason.as_str(), snake);
    }
}

/// An `Event` is one type for every result that a policy may see.
#[test]
fn a_listener_is_a_plain_function() {
    fn listener(event: &retry::Event<'_>) {
        let _ = event;
    }
    let _ = Retry::constant(MS).on_event(listener).any_error().build().unwrap();
}
