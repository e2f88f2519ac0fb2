//! Both faces of each pattern, run through one table: they have to agree on the result, the attempts and the time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod support;

use std::task::Poll;
use std::time::Duration;

use steadfast::fallback::{self, Fallback};
use steadfast::retry::{Event, Report, Retry, RetryBudget, RetryBuilder, StopReason};
use steadfast::timeout::Timeout;
use steadfast::{Backoff, Jitter, Rejected, RejectedKind, Verdict};
use support::{Backend, Failure, Log, MS, Step, down, fail, hang, judge, ok, poll_once};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};

/// What can be seen of a call from outside.
#[derive(Debug)]
struct Seen {
    result: Result<u32, Failure>,
    attempts: u32,
    elapsed: Duration,
}

async fn timed(backend: &Backend, call: impl Future<Output = Result<u32, Failure>>) -> Seen {
    let started = Instant::now();
    let result = call.await;
    Seen {
        result,
        attempts: backend.started(),
        elapsed: started.elapsed(),
    }
}

struct RetryCase {
    name: &'static str,
    policy: fn() -> RetryBuilder,
    script: Vec<Step>,
    result: &'static str,
    attempts: u32,
    /// The whole time, from and to.
    elapsed: (Duration, Duration),
    waited: (Duration, Duration),
    stop: StopReason,
}

const ZERO: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn constant(delay: Duration) -> RetryBuilder {
    Retry::constant(delay)
}

fn busy(retry_after: Duration) -> Step {
    fail(Failure::Busy(Some(retry_after)))
}

/// A case whose time is known exactly.
fn exactly(time: Duration) -> (Duration, Duration) {
    (time, time)
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn retry_cases() -> Vec<RetryCase> {
    let case = |name, policy, script, result, attempts, time, stop| RetryCase {
        name,
        policy,
        script,
        result,
        attempts,
        elapsed: exactly(time),
        waited: exactly(time),
        stop,
    };
    vec![
        case(
            "a first success is returned at once",
            || constant(SECOND),
            vec![ok(200)],
            "Ok(200)",
            1,
            ZERO,
            StopReason::Success,
        ),
        case(
            "three failures are three attempts, two waits and the last error",
            || constant(SECOND),
            vec![down(), fail(Failure::Busy(None)), down()],
            "Err(Down)",
            3,
            2 * SECOND,
            StopReason::MaxAttempts,
        ),
        case(
            "a failure that passes is survived",
            || constant(SECOND),
            vec![down(), ok(204)],
            "Ok(204)",
            2,
            SECOND,
            StopReason::Success,
        ),
        case(
            "one attempt never waits",
            || constant(SECOND).max_attempts(1),
            vec![down()],
            "Err(Down)",
            1,
            ZERO,
            StopReason::MaxAttempts,
        ),
        case(
            "what is not retryable is one attempt",
            || constant(SECOND),
            vec![fail(Failure::Refused)],
            "Err(Refused)",
            1,
            ZERO,
            StopReason::NotRetryable,
        ),
        case(
            "a response can be retried",
            || constant(SECOND),
            vec![ok(503), ok(200)],
            "Ok(200)",
            2,
            SECOND,
            StopReason::Success,
        ),
        case(
            "the last failed response is returned as it was",
            || constant(SECOND),
            vec![ok(503), ok(502), ok(500)],
            "Ok(500)",
            3,
            2 * SECOND,
            StopReason::MaxAttempts,
        ),
        case(
            "an exponential backoff from 500 ms waits for 1,500 ms in all",
            || Retry::exponential(500 * MS).jitter(Jitter::None),
            vec![down()],
            "Err(Down)",
            3,
            1_500 * MS,
            StopReason::MaxAttempts,
        ),
        case(
            "a linear backoff of 2 s waits for 2, 4 and 6 s",
            || {
                Retry::linear(2 * SECOND)
                    .max_delay(10 * SECOND)
                    .jitter(Jitter::None)
                    .max_attempts(4)
            },
            vec![down()],
            "Err(Down)",
            4,
            12 * SECOND,
            StopReason::MaxAttempts,
        ),
        case(
            "a sequence that is over ends the retry",
            || Retry::builder().backoff(Backoff::sequence([MS, MS])).max_attempts(9),
            vec![down()],
            "Err(Down)",
            3,
            2 * MS,
            StopReason::BackoffEnded,
        ),
        case(
            "a hint of a day ends the call without a wait",
            || constant(SECOND),
            vec![busy(DAY)],
            "Err(Busy(Some(86400s)))",
            1,
            ZERO,
            StopReason::HintTooLong,
        ),
        case(
            "a ceiling that is lifted lets a hint of a day pass",
            || constant(DAY).max_retry_after(DAY),
            vec![busy(DAY), ok(200)],
            "Ok(200)",
            2,
            DAY,
            StopReason::Success,
        ),
        RetryCase {
            name: "a hint above the backoff is waited for, and up to a tenth longer",
            policy: || constant(SECOND),
            script: vec![busy(2 * SECOND), ok(200)],
            result: "Ok(200)",
            attempts: 2,
            elapsed: (2 * SECOND, 2_201 * MS),
            waited: (2 * SECOND, 2_200 * MS),
            stop: StopReason::Success,
        },
        case(
            "a hint below the backoff changes nothing",
            || constant(SECOND),
            vec![busy(900 * MS), ok(200)],
            "Ok(200)",
            2,
            SECOND,
            StopReason::Success,
        ),
        case(
            "an overload without a hint waits for the backoff",
            || constant(SECOND),
            vec![fail(Failure::Busy(None)), ok(200)],
            "Ok(200)",
            2,
            SECOND,
            StopReason::Success,
        ),
        case(
            "a wait that would end at the limit is not begun",
            || constant(100 * MS).max_elapsed(100 * MS),
            vec![down()],
            "Err(Down)",
            1,
            ZERO,
            StopReason::MaxElapsed,
        ),
        case(
            "a wait that ends before the limit is",
            || constant(40 * MS).max_elapsed(100 * MS).max_attempts(9),
            vec![down()],
            "Err(Down)",
            3,
            80 * MS,
            StopReason::MaxElapsed,
        ),
        RetryCase {
            name: "the limit counts the attempts too, and does not cut one short",
            policy: || constant(10 * MS).max_elapsed(100 * MS).max_attempts(9),
            script: vec![down().after(60 * MS)],
            result: "Err(Down)",
            attempts: 2,
            elapsed: exactly(130 * MS),
            waited: exactly(10 * MS),
            stop: StopReason::MaxElapsed,
        },
        RetryCase {
            name: "the time of a slow attempt is no backoff",
            policy: || constant(10 * MS),
            script: vec![down().after(60 * MS), ok(200).after(5 * MS)],
            result: "Ok(200)",
            attempts: 2,
            elapsed: exactly(75 * MS),
            waited: exactly(10 * MS),
            stop: StopReason::Success,
        },
        case(
            "an empty budget ends the call with its own error, before the wait",
            || {
                constant(SECOND)
                    .max_attempts(9)
                    .budget(&RetryBudget::builder().ratio(1.0).floor(0.0).build().unwrap())
            },
            vec![down()],
            "Err(Down)",
            2,
            SECOND,
            StopReason::BudgetEmpty,
        ),
        case(
            "an overload costs the budget twice",
            || {
                constant(SECOND)
                    .max_attempts(9)
                    .budget(&RetryBudget::builder().ratio(1.0).floor(0.0).build().unwrap())
            },
            vec![fail(Failure::Busy(None))],
            "Err(Busy(None))",
            1,
            ZERO,
            StopReason::BudgetEmpty,
        ),
        case(
            "a rejection that never reached the dependency is not retried",
            || constant(SECOND),
            vec![fail(Rejected::bulkhead_full("lanes").into())],
            "Err(Rejected(Rejected { kind: BulkheadFull, policy: \"lanes\", retry_after: None, reached_inner: false }))",
            1,
            ZERO,
            StopReason::NotRetryable,
        ),
        case(
            "no wait between attempts is possible",
            || constant(ZERO).max_attempts(100),
            vec![down()],
            "Err(Down)",
            100,
            ZERO,
            StopReason::MaxAttempts,
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn both_faces_of_a_retry_agree() {
    for case in retry_cases() {
        let RetryCase { name, stop, .. } = case;

        let backend = Backend::new(case.script.clone());
        let retry = (case.policy)().classify(judge).build().unwrap();
        let mut report = None;
        let plain = timed(&backend, async {
            let (result, told) = retry.call(|| backend.call()).with_report().await;
            report = Some(told);
            result
        })
        .await;
        check(&case, "plain", &plain, report.unwrap());

        let backend = Backend::new(case.script.clone());
        let reports = Log::default();
        let log = reports.clone();
        let retry = (case.policy)()
            .classify(judge)
            .on_event(move |event| {
                if let Event::Finished { report, .. } = event {
                    log.push(*report);
                }
            })
            .build()
            .unwrap();
        let service = ServiceBuilder::new().layer(retry).service(backend.service());
        let tower = timed(&backend, service.oneshot(())).await;
        let [report] = reports.take()[..] else {
            panic!("{name}: more than one end")
        };
        check(&case, "tower", &tower, report);
        assert_eq!(report.stop, stop);
    }
}

fn check(case: &RetryCase, face: &str, seen: &Seen, report: Report) {
    let name = format!("{} ({face})", case.name);
    assert_eq!(format!("{:?}", seen.result), case.result, "{name}");
    assert_eq!(seen.attempts, case.attempts, "{name}");
    assert_eq!(report.attempts, case.attempts, "{name}");
    assert_eq!(report.stop, case.stop, "{name}");
    assert_eq!(report.elapsed, seen.elapsed, "{name}: the report's own time");
    assert!(
        case.elapsed.0 <= seen.elapsed && seen.elapsed <= case.elapsed.1,
        "{name}: {:?}",
        seen.elapsed
    );
    assert!(
        case.waited.0 <= report.waited && report.waited <= case.waited.1,
        "{name}: {:?}",
        report.waited
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_one_attempt_and_an_event_says_so() {
    for (script, stop, result) in [
        (vec![down(), ok(200)], StopReason::NotReplayable, "Err(Down)"),
        (vec![ok(200)], StopReason::Success, "Ok(200)"),
        (vec![fail(Failure::Refused)], StopReason::NotRetryable, "Err(Refused)"),
    ] {
        let backend = Backend::new(script);
        let stops = Log::default();
        let log = stops.clone();
        let retry = constant(SECOND)
            .classify(judge)
            .on_event(move |event| {
                if let Event::Finished { report, .. } = event {
                    log.push(report.stop);
                }
            })
            .build()
            .unwrap();
        let service = ServiceBuilder::new()
            .layer(retry.replay(|_: &&str| None))
            .service(backend.service_for());
        let seen = timed(&backend, service.oneshot("a stream")).await;
        assert_eq!(format!("{:?}", seen.result), result);
        assert_eq!((seen.attempts, seen.elapsed), (1, ZERO));
        assert_eq!(stops.take(), [stop]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_sent_the_request_itself() {
    let copies = Log::default();
    let log = copies.clone();
    let retry = constant(MS).classify(judge).build().unwrap();
    let replay = move |request: &u32| {
        log.push(());
        Some(*request)
    };
    let backend = Backend::new([down()]);
    let service = ServiceBuilder::new()
        .layer(retry.replay(replay))
        .service(backend.service_for());
    service.oneshot(7).await.unwrap_err();
    assert_eq!((backend.started(), copies.take().len()), (3, 2));
}

/// The waits of one session after the other, plain and Tower in turn.
async fn waits_of_sessions(seed: Option<u64>) -> Vec<Vec<Duration>> {
    let waits = Log::default();
    let log = waits.clone();
    let mut builder = Retry::exponential(SECOND).max_attempts(6);
    if let Some(seed) = seed {
        builder = builder.seed(seed);
    }
    let retry = builder
        .classify(judge)
        .on_event(move |event| {
            if let Event::Retrying { wait, .. } = event {
                log.push(*wait);
            }
        })
        .build()
        .unwrap();
    let backend = Backend::new([down()]);
    let service = ServiceBuilder::new().layer(retry.clone()).service(backend.service());
    let mut sessions = Vec::new();
    for _ in 0..4 {
        retry.call(|| backend.call()).await.unwrap_err();
        sessions.push(waits.take());
        service.clone().oneshot(()).await.unwrap_err();
        sessions.push(waits.take());
        // A call that does not wait takes no stream away from those that do.
        retry.call(|| async { Ok::<_, Failure>(200) }).await.unwrap();
        assert!(waits.take().is_empty());
    }
    sessions
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_repeats_every_session_exactly() {
    assert_eq!(waits_of_sessions(Some(7)).await, waits_of_sessions(Some(7)).await);
}

#[tokio::test(start_paused = true)]
async fn two_sessions_differ_and_so_do_two_seeds_and_two_policies() {
    let mut sessions = waits_of_sessions(Some(7)).await;
    sessions.extend(waits_of_sessions(Some(8)).await);
    sessions.extend(waits_of_sessions(None).await);
    sessions.extend(waits_of_sessions(None).await);
    let all = sessions.len();
    sessions.sort();
    sessions.dedup();
    assert_eq!((all, sessions.len()), (32, 32));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_cancelled_in_its_wait_makes_no_attempt_and_gets_its_token_back() {
    for tower in [false, true] {
        let budget = RetryBudget::builder().ratio(1.0).floor(0.0).build().unwrap();
        let retry = constant(SECOND).budget(&budget).classify(judge).build().unwrap();
        let backend = Backend::new([down()]);
        let service = ServiceBuilder::new().layer(retry.clone()).service(backend.service());
        let limit = Timeout::new(500 * MS);
        let result = if tower {
            limit.call(service.oneshot(())).await
        } else {
            limit.call(retry.call(|| backend.call())).await
        };
        assert!(matches!(result, Err(Failure::Rejected(_))));
        assert_eq!((backend.started(), budget.available()), (1, 1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_is_taken_before_the_wait() {
    let budget = RetryBudget::builder().ratio(1.0).floor(0.0).build().unwrap();
    let retry = constant(SECOND).budget(&budget).classify(judge).build().unwrap();
    let backend = Backend::new([down()]);
    let mut call = std::pin::pin!(retry.call(|| backend.call()));
    assert!(poll_once(call.as_mut()).is_pending());
    assert_eq!((backend.started(), budget.available()), (1, 0.0));
}

#[test]
fn a_retry_without_waits_needs_no_runtime() {
    let retry = constant(ZERO).max_attempts(100).classify(judge).build().unwrap();
    let backend = Backend::new([down()]);
    let plain = futures::executor::block_on(retry.call(|| backend.call()).with_report());
    assert_eq!(plain.1.attempts, 100);

    let backend = Backend::new([down()]);
    let service = ServiceBuilder::new().layer(retry).service(backend.service());
    futures::executor::block_on(service.oneshot(())).unwrap_err();
    assert_eq!(backend.started(), 100);
}

#[test]
fn a_timeout_over_a_call_that_is_ready_at_once_needs_no_runtime() {
    let timeout = Timeout::new(SECOND);
    let backend = Backend::new([ok(200)]);
    futures::executor::block_on(timeout.call(backend.call())).unwrap();
    let service = ServiceBuilder::new().layer(timeout).service(backend.service());
    futures::executor::block_on(service.oneshot(())).unwrap();
}

#[tokio::test]
async fn a_retry_without_end_and_without_waits_lets_other_tasks_run() {
    let retry = constant(ZERO).max_attempts(u32::MAX).classify(judge).build().unwrap();
    let backend = Backend::new([down()]);
    let polled = backend.clone();
    let plain = tokio::spawn({
        let retry = retry.clone();
        async move { retry.call(|| polled.call()).await }
    });
    let service = ServiceBuilder::new().layer(retry).service(backend.service());
    let tower = tokio::spawn(service.oneshot(()));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(backend.started() > 64);
    plain.abort();
    tower.abort();
    assert!(plain.await.unwrap_err().is_cancelled() && tower.await.unwrap_err().is_cancelled());
    assert_eq!(backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_response_is_dropped_before_the_wait() {
    struct Response(Log<Instant>);
    impl Drop for Response {
        fn drop(&mut self) {
            self.0.push(Instant::now());
        }
    }
    let retry = constant(SECOND)
        .classify(|_: Result<&Response, &Failure>| Verdict::TRANSIENT)
        .max_attempts(2)
        .build()
        .unwrap();
    let dropped = Log::default();
    let started = Instant::now();
    let last = retry
        .call(|| {
            let response = Response(dropped.clone());
            async { Ok(response) }
        })
        .await;
    assert_eq!(dropped.take(), [started]);
    assert_eq!(started.elapsed(), SECOND);
    drop(last);
}

struct TimeoutCase {
    name: &'static str,
    limit: Duration,
    script: Step,
    result: Result<u32, RejectedKind>,
    elapsed: Duration,
}

fn timeout_cases() -> Vec<TimeoutCase> {
    let case = |name, limit, script, result, elapsed| TimeoutCase {
        name,
        limit,
        script,
        result,
        elapsed,
    };
    let timed_out = Err(RejectedKind::TimedOut);
    vec![
        case("ready at once", SECOND, ok(200), Ok(200), ZERO),
        case("ready at once under no time at all", ZERO, ok(200), Ok(200), ZERO),
        case("in time", SECOND, ok(200).after(999 * MS), Ok(200), 999 * MS),
        case("the value wins a tie", SECOND, ok(200).after(SECOND), Ok(200), SECOND),
        case("too late", SECOND, ok(200).after(1_001 * MS), timed_out, SECOND),
        case("never", SECOND, hang(), timed_out, SECOND),
        case("never under no time at all", ZERO, hang(), timed_out, ZERO),
        case("no limit at all", Duration::MAX, ok(200).after(DAY), Ok(200), DAY),
    ]
}

#[tokio::test(start_paused = true)]
async fn both_faces_of_a_timeout_agree() {
    for case in timeout_cases() {
        let timeout = Timeout::new(case.limit);
        let backend = Backend::new([case.script.clone()]);
        let plain = timed(&backend, timeout.call(backend.call())).await;
        let seen = [
            ("plain", plain),
            ("tower", {
                let backend = Backend::new([case.script.clone()]);
                let service = ServiceBuilder::new().layer(timeout).service(backend.service());
                timed(&backend, service.oneshot(())).await
            }),
            ("per request", {
                let backend = Backend::new([case.script.clone()]);
                let layer = Timeout::new(ZERO).per_request(|limit: &Duration| *limit);
                let service = ServiceBuilder::new().layer(layer).service(backend.service_for());
                timed(&backend, service.oneshot(case.limit)).await
            }),
        ];
        for (face, seen) in seen {
            let name = format!("{} ({face})", case.name);
            let result = seen.result.map_err(|error| Rejected::find(&error).unwrap());
            if let Err(rejected) = &result {
                assert!(rejected.reached_inner(), "{name}");
            }
            assert_eq!(result.map_err(|rejected| rejected.kind()), case.result, "{name}");
            assert_eq!((seen.attempts, seen.elapsed), (1, case.elapsed), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_over_a_timeout_tries_again_what_timed_out() {
    for tower in [false, true] {
        let backend = Backend::new([hang(), hang(), ok(200)]);
        let retry = constant(SECOND).classify(judge).build().unwrap();
        let attempt = Timeout::attempt(50 * MS);
        let seen = if tower {
            let service = ServiceBuilder::new()
                .layer(retry)
                .layer(attempt)
                .service(backend.service());
            timed(&backend, service.oneshot(())).await
        } else {
            timed(&backend, retry.call(|| attempt.call(backend.call()))).await
        };
        // The attempt's timeout does not run during the waits, which are longer than it.
        assert_eq!(seen.result.unwrap(), 200);
        assert_eq!((seen.attempts, seen.elapsed), (3, 2_100 * MS));
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_over_a_retry_ends_it_in_its_wait() {
    for tower in [false, true] {
        let backend = Backend::new([down()]);
        let retry = constant(SECOND).classify(judge).build().unwrap();
        let total = Timeout::total(100 * MS);
        let seen = if tower {
            let service = ServiceBuilder::new()
                .layer(total)
                .layer(retry)
                .service(backend.service());
            timed(&backend, service.oneshot(())).await
        } else {
            timed(&backend, total.call(retry.call(|| backend.call()))).await
        };
        assert_eq!(
            Rejected::find(&seen.result.unwrap_err()).unwrap().policy(),
            "total timeout"
        );
        assert_eq!((seen.attempts, seen.elapsed), (1, 100 * MS));
    }
}

/// What a fallback makes of each result of the dependency: its answer, and how the call ended.
#[tokio::test(start_paused = true)]
async fn both_faces_of_a_fallback_agree() {
    use fallback::Outcome::{NotNeeded, Recovered, RecoveryFailed};

    let open = || fail(Rejected::circuit_open("payments", SECOND).into());
    let answer = |error: Failure| match error {
        Failure::Refused => Err(Failure::Busy(None)),
        _ => Ok(1),
    };
    for (script, result, outcome) in [
        (ok(200), "Ok(200)", NotNeeded),
        (ok(503), "Ok(503)", NotNeeded),
        (ok(503).after(SECOND), "Ok(503)", NotNeeded),
        (down(), "Ok(1)", Recovered),
        (down().after(SECOND), "Ok(1)", Recovered),
        (open(), "Ok(1)", Recovered),
        (fail(Failure::Refused), "Err(Busy(None))", RecoveryFailed),
    ] {
        let outcomes = Log::default();
        let builder = || {
            let log = outcomes.clone();
            Fallback::builder().classify(judge).on_event(move |event| {
                if let fallback::Event::Finished { outcome, .. } = event {
                    log.push(*outcome);
                }
            })
        };
        let sync = builder().from_error(answer);
        let slow = builder().from_error_async(move |error| async move {
            tokio::time::sleep(MS).await;
            answer(error)
        });

        let backend = Backend::new([script.clone()]);
        let plain = timed(&backend, sync.call(backend.call())).await;
        let backend = Backend::new([script.clone()]);
        let service = ServiceBuilder::new().layer(sync).service(backend.service());
        let tower = timed(&backend, service.oneshot(())).await;
        assert_eq!(plain.elapsed, tower.elapsed);

        let backend = Backend::new([script.clone()]);
        let slow_plain = timed(&backend, slow.call(backend.call())).await;
        let backend = Backend::new([script.clone()]);
        let service = ServiceBuilder::new().layer(slow).service(backend.service());
        let slow_tower = timed(&backend, service.oneshot(())).await;
        let waited = if outcome == NotNeeded { ZERO } else { MS };
        assert_eq!(slow_plain.elapsed, plain.elapsed + waited);
        assert_eq!(slow_tower.elapsed, slow_plain.elapsed);

        for seen in [plain, tower, slow_plain, slow_tower] {
            assert_eq!(format!("{:?}", seen.result), result);
            assert_eq!(seen.attempts, 1);
        }
        assert_eq!(outcomes.take(), [outcome; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_answers_for_failed_responses_too() {
    for tower in [false, true] {
        let fallback = Fallback::builder().classify(judge).value(1);
        for (script, answer) in [(ok(200), 200), (ok(503), 1), (down(), 1)] {
            let backend = Backend::new([script]);
            let result = if tower {
                let service = ServiceBuilder::new().layer(fallback.clone()).service(backend.service());
                service.oneshot(()).await
            } else {
                fallback.call(backend.call()).await
            };
            assert_eq!(result.unwrap(), answer);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ignored_and_no_rejection_passes_a_fallback_unless_it_is_infallible() {
    let ignored = || Fallback::builder().classify(|_: Result<&u32, &Failure>| Verdict::Ignored);
    let backend = Backend::new([down()]);
    assert!(ignored().value(1).call(backend.call()).await.is_err());
    let Ok(answer) = ignored().value(1).infallible().call(backend.call()).await;
    assert_eq!(answer, 1);
    let service = ServiceBuilder::new()
        .layer(ignored().value(1).infallible())
        .service(backend.service());
    let Ok(answer) = service.oneshot(()).await;
    assert_eq!(answer, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_cancelled_begins_no_recovery() {
    for tower in [false, true] {
        let recoveries = Log::default();
        let log = recoveries.clone();
        let fallback = Fallback::from_error(move |error: Failure| {
            log.push(());
            Err(error)
        });
        let backend = Backend::new([hang()]);
        let limit = Timeout::new(MS);
        let result: Result<u32, _> = if tower {
            let service = ServiceBuilder::new().layer(fallback).service(backend.service());
            limit.call(service.oneshot(())).await
        } else {
            limit.call(fallback.call(backend.call())).await
        };
        result.unwrap_err();
        assert_eq!((backend.running(), recoveries.take().len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_over_a_retry_answers_after_its_last_attempt() {
    let backend = Backend::new([down()]);
    let retry = constant(SECOND).classify(judge).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(Fallback::value(1))
        .layer(retry)
        .service(backend.service());
    let seen = timed(&backend, service.oneshot(())).await;
    assert_eq!((seen.result.unwrap(), seen.attempts), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_hint_without_a_ceiling_waits_for_as_long_as_there_is_time() {
    let retry = constant(ZERO)
        .max_retry_after(Duration::MAX)
        .classify(judge)
        .build()
        .unwrap();
    let backend = Backend::new([busy(Duration::MAX)]);
    let mut call = std::pin::pin!(retry.call(|| backend.call()));
    assert!(matches!(poll_once(call.as_mut()), Poll::Pending));
    tokio::time::advance(365 * DAY).await;
    assert!(matches!(poll_once(call.as_mut()), Poll::Pending));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_is_judged_a_success_says_that_something_was_sent_too() {
    let retry = Retry::constant(MS)
        .judge_rejections()
        .classify(|result: Result<&u32, &Failure>| match result {
            Err(Failure::Rejected(_)) => Verdict::Success,
            other => judge(other),
        })
        .build()
        .unwrap();
    let backend = Backend::new([down(), fail(Rejected::bulkhead_full("lanes").into())]);
    let error = retry.call(|| backend.call()).await.unwrap_err();
    assert!(Rejected::find(&error).unwrap().reached_inner());
    let backend = Backend::new([fail(Rejected::bulkhead_full("lanes").into())]);
    let error = retry.call(|| backend.call()).await.unwrap_err();
    assert!(!Rejected::find(&error).unwrap().reached_inner());
}
