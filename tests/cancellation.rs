//! Every future, dropped after each of its polls; and every piece of a caller's code that a policy runs, panicking.
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is test code")]

mod support;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use steadfast::fallback::{self, Fallback, FallbackBuilder};
use steadfast::retry::{self, Cause, Replay, Retry, RetryBudget};
use steadfast::timeout::{self, Timeout};
use steadfast::{Backoff, Classify, Rejected};
use support::{
    Backend, Driven, Failure, Log, MS, Probe, Readiness, Step, cancel_everywhere, down, drive, fail, hang, judge, ok,
    panic_of, panics, panics_when_called, poll_once,
};
use tokio::time::sleep;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};

const ZERO: Duration = Duration::ZERO;

/// What one call could leave behind.
struct Traces {
    backend: Backend,
    /// Whether the call exists before its first poll.
    tower: bool,
    inner: ConcurrencyLimit<Probe>,
    ends: Log<String>,
    budget: RetryBudget,
}

impl Traces {
    fn new(script: impl IntoIterator<Item = Step>, tower: bool) -> Self {
        let backend = Backend::new(script);
        Self {
            inner: ConcurrencyLimit::new(backend.service(), 1),
            backend,
            tower,
            ends: Log::default(),
            budget: RetryBudget::builder().ratio(2.0).floor(0.0).build().unwrap(),
        }
    }

    /// Nothing is held any more, and there was one end if there was a beginning. `polls` is how many it took to the
    /// end, if this is the end: no poll was in vain.
    fn check<T>(&self, driven: &Driven<T>, polls: u32) {
        let begun = self.tower || driven.polls > 0;
        assert_eq!(self.backend.running(), 0, "the operation is still there");
        let permit = self.inner.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(permit.is_ready(), "the permit is still taken");
        let ends = self.ends.take();
        assert_eq!(ends.len(), usize::from(begun), "{ends:?} after {} polls", driven.polls);
        if driven.output.is_some() {
            assert_eq!(driven.polls, polls, "polls to the end");
        } else if begun {
            assert!(ends[0].contains("Cancelled"), "{ends:?}");
        }
        assert!(driven.wakes <= driven.polls, "{} wakes", driven.wakes);
    }

    /// The same for a retry: it has paid for each attempt that it made after the first, and for no other.
    fn check_retry<T>(&self, driven: &Driven<T>, polls: u32) {
        self.check(driven, polls);
        let earned = if self.backend.ended() > 0 { 2.0 } else { 0.0 };
        let spent = f64::from(self.backend.started().saturating_sub(1));
        let available = self.budget.available();
        assert!((available - (earned - spent)).abs() < 1e-9, "{available}");
    }

    fn retry(&self) -> &'static Retry<impl Classify<u32, Failure> + Send + Sync + use<>> {
        let log = self.ends.clone();
        let retry = Retry::constant(5 * MS)
            .budget(&self.budget)
            .classify(judge)
            .on_event(move |event| {
                if let retry::Event::Finished { report, .. } = event {
                    log.push(format!("{:?}", report.stop));
                }
            });
        Box::leak(Box::new(retry.build().unwrap()))
    }

    fn timeout(&self, limit: Duration) -> &'static Timeout {
        let log = self.ends.clone();
        Box::leak(Box::new(
            Timeout::new(limit).on_event(move |event: &timeout::Event<'_>| log.push(format!("{event:?}"))),
        ))
    }

    fn fallback(&self) -> FallbackBuilder<impl Classify<u32, Failure> + Send + Sync + use<>> {
        let log = self.ends.clone();
        Fallback::builder().classify(judge).on_event(move |event| {
            if let fallback::Event::Finished { outcome, .. } = event {
                log.push(format!("{outcome:?}"));
            }
        })
    }
}

/// A call of `layer` around the service of `traces`, made ready first.
fn call<L, S>(layer: &L, traces: &Traces) -> S::Future
where
    L: Layer<ConcurrencyLimit<Probe>, Service = S>,
    S: Service<()>,
{
    let mut service = layer.layer(traces.inner.clone());
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    service.call(())
}

fn retried() -> [Step; 3] {
    [down().after(3 * MS), down(), ok(200).after(3 * MS)]
}

#[tokio::test(start_paused = true)]
async fn a_retry_can_be_dropped_anywhere() {
    cancel_everywhere(
        || {
            let traces = Traces::new(retried(), false);
            let backend = traces.backend.clone();
            let future = traces.retry().call(move || backend.call());
            (traces, future)
        },
        |traces, driven| traces.check_retry(&driven, 5),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_a_report_can_be_dropped_anywhere() {
    cancel_everywhere(
        || {
            let traces = Traces::new(retried(), false);
            let backend = traces.backend.clone();
            let future = traces.retry().call_with(move |_| backend.call()).with_report();
            (traces, future)
        },
        |traces, driven| traces.check_retry(&driven, 5),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_as_a_layer_can_be_dropped_anywhere() {
    cancel_everywhere(
        || {
            let traces = Traces::new(retried(), true);
            let future = call(traces.retry(), &traces);
            (traces, future)
        },
        |traces, driven| traces.check_retry(&driven, 5),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_can_be_dropped_while_it_waits_in_line_for_an_attempt() {
    for swap in [false, true] {
        for limit in 0..3 {
            let traces = Traces::new([down()], true);
            let future = call(traces.retry(), &traces);
            let mut other = traces.inner.clone();
            let (polled, holder) = futures::future::join(drive(future, limit, swap), async {
                sleep(MS).await;
                other.ready().await.unwrap();
                sleep(20 * MS).await;
                drop(other);
            })
            .await;
            assert!(polled.output.is_none());
            let () = holder;
            traces.check_retry(&polled, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_can_be_dropped_anywhere() {
    for script in [ok(200).after(3 * MS), hang()] {
        cancel_everywhere(
            || {
                let traces = Traces::new([script.clone()], false);
                let future = traces.timeout(5 * MS).call(traces.backend.call());
                (traces, future)
            },
            |traces, driven| traces.check(&driven, 2),
        )
        .await;
    }
}

async fn slowly<T, E>(result: Result<T, E>) -> Result<T, E> {
    sleep(3 * MS).await;
    result
}

#[tokio::test(start_paused = true)]
async fn a_fallback_can_be_dropped_anywhere() {
    macro_rules! drops {
        ($polls:expr, |$builder:ident| $fallback:expr) => {
            for script in [ok(503).after(3 * MS), down().after(3 * MS)] {
                cancel_everywhere(
                    || {
                        let traces = Traces::new([script.clone()], false);
                        let $builder = traces.fallback();
                        let fallback = Box::leak(Box::new($fallback));
                        let future = fallback.call(traces.backend.call());
                        (traces, future)
                    },
                    |traces, driven| {
                        let passed = traces.ends.all() == ["NotNeeded"];
                        traces.check(&driven, if passed { 2 } else { $polls });
                    },
                )
                .await;
            }
        };
    }
    drops!(2, |builder| builder.value(1));
    drops!(2, |builder| builder.value(1).infallible());
    drops!(2, |builder| builder.from_error(|e: Failure| Err::<u32, _>(e)));
    drops!(3, |builder| builder
        .from_error_async(|e: Failure| slowly(Err::<u32, _>(e))));
    drops!(3, |builder| builder.from_outcome(slowly::<u32, Failure>));
    drops!(3, |builder| builder
        .from_outcome(|_: Result<u32, Failure>| slowly(Ok::<_, Infallible>(1)))
        .infallible());
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_all_three_can_be_dropped_anywhere() {
    cancel_everywhere(
        || {
            let traces = Traces::new([hang(), down(), hang()], true);
            let backend = traces.backend.clone();
            let retry = traces.retry();
            let attempt: &'static _ = Box::leak(Box::new(Timeout::attempt(4 * MS)));
            let fallback = Box::leak(Box::new(Fallback::from_error_async(|e: Failure| {
                slowly(Err::<u32, _>(e))
            })));
            let future = fallback.call(retry.call(move || attempt.call(backend.call())));
            (traces, future)
        },
        |traces, driven| {
            assert_eq!(traces.backend.running(), 0);
            assert_eq!(traces.ends.take().len(), usize::from(driven.polls > 0));
            if driven.output.is_some() {
                // Three attempts, two of them cut short, two waits and the recovery.
                assert_eq!(driven.polls, 6);
            }
        },
    )
    .await;
}

/// An operation that uses up the budget that tokio gives a task, each time it is polled.
async fn greedy() -> Result<u32, Failure> {
    poll_fn(|cx| {
        while let Poll::Ready(progress) = tokio::task::coop::poll_proceed(cx) {
            progress.made_progress();
        }
        Poll::Pending
    })
    .await
}

#[tokio::test]
async fn an_operation_that_uses_up_the_budget_of_its_task_is_timed_out_all_the_same() {
    let timeout = Timeout::new(5 * MS);
    let service = || tower::service_fn(|()| greedy());
    let plain = timeout.clone();
    let calls = [
        tokio::spawn(async move { plain.call(greedy()).await }),
        tokio::spawn(timeout.layer(service()).oneshot(())),
        tokio::spawn(timeout.per_request(|()| 5 * MS).layer(service()).oneshot(())),
    ];
    for call in calls {
        let result = tokio::time::timeout(200 * 5 * MS, call).await.unwrap().unwrap();
        assert!(Rejected::find(&result.unwrap_err()).is_some());
    }
}

/// The events of a policy that ends in a panic.
fn ends_once(ends: &Log<String>) {
    let ends = ends.take();
    assert!(matches!(&ends[..], [end] if end.contains("Cancelled")), "{ends:?}");
}

#[test]
fn a_panic_of_the_operation_passes_through_and_leaves_nothing_behind() {
    for (step, message) in [
        (panics(), "the operation panics when it is polled"),
        (panics_when_called(), "the operation panics when it is called"),
    ] {
        let traces = Traces::new([step.clone(), ok(200)], true);
        let retry = traces.retry();
        assert_eq!(panic_of(|| block_on(retry.call(|| traces.backend.call()))), message);
        ends_once(&traces.ends);
        assert_eq!(traces.backend.running(), 0);
        assert_eq!(block_on(retry.call(|| traces.backend.call())).unwrap(), 200);

        let traces = Traces::new([step.clone(), ok(200)], true);
        let mut service = traces.retry().layer(traces.inner.clone());
        assert_eq!(
            panic_of(|| block_on(async { service.ready().await.unwrap().call(()).await })),
            message
        );
        ends_once(&traces.ends);
        assert_eq!(traces.backend.running(), 0);
        assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
    }
}

#[test]
fn a_panic_in_a_later_attempt_leaves_nothing_behind_either() {
    for step in [panics(), panics_when_called()] {
        for tower in [false, true] {
            let traces = Traces::new([down(), step.clone(), ok(200)], tower);
            let log = traces.ends.clone();
            let retry = Retry::constant(ZERO)
                .budget(&traces.budget)
                .classify(judge)
                .on_event(move |event| {
                    if let retry::Event::Finished { report, .. } = event {
                        log.push(format!("{:?} after {}", report.stop, report.attempts));
                    }
                })
                .build()
                .unwrap();
            let mut service = retry.layer(traces.inner.clone());
            panic_of(|| {
                block_on(async {
                    if tower {
                        service.ready().await.unwrap().call(()).await
                    } else {
                        retry.call(|| traces.backend.call()).await
                    }
                })
            });
            assert_eq!(traces.ends.take(), ["Cancelled after 2"]);
            assert_eq!((traces.backend.running(), traces.budget.available()), (0, 1.0));
            assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
        }
    }
}

#[test]
fn a_panic_of_the_limit_of_a_request_leaves_the_service_usable() {
    let traces = Traces::new([ok(200)], true);
    let layer = traces.timeout(MS).per_request(|request: &u32| {
        assert_ne!(*request, 0, "no limit for this request");
        MS
    });
    let mut service = layer.layer(ConcurrencyLimit::new(traces.backend.service_for::<u32>(), 1));
    panic_of(|| block_on(async { service.ready().await.unwrap().call(0).await }));
    assert_eq!(
        block_on(async { service.ready().await.unwrap().call(1).await }).unwrap(),
        200
    );
}

#[test]
fn a_panic_of_the_classifier_passes_through_and_leaves_nothing_behind() {
    let classifier = |result: Result<&u32, &Failure>| match result {
        Err(Failure::Down) => panic!("unheard of"),
        other => judge(other),
    };
    for tower in [false, true] {
        let traces = Traces::new([down(), ok(200)], tower);
        let log = traces.ends.clone();
        let retry = Retry::constant(ZERO)
            .classify(classifier)
            .on_event(move |event| log.push(format!("{event:?}")))
            .build()
            .unwrap();
        let mut service = retry.layer(traces.inner.clone());
        let message = panic_of(|| {
            block_on(async {
                if tower {
                    service.ready().await.unwrap().call(()).await
                } else {
                    retry.call(|| traces.backend.call()).await
                }
            })
        });
        assert_eq!(message, "unheard of");
        ends_once(&traces.ends);
        assert_eq!(block_on(service.oneshot(())).unwrap(), 200);

        let traces = Traces::new([down(), ok(200)], tower);
        let log = traces.ends.clone();
        let fallback = Fallback::builder()
            .classify(classifier)
            .on_event(move |event| log.push(format!("{event:?}")))
            .value(1);
        let mut service = fallback.layer(traces.inner.clone());
        let message = panic_of(|| {
            block_on(async {
                if tower {
                    service.ready().await.unwrap().call(()).await
                } else {
                    fallback.call(traces.backend.call()).await
                }
            })
        });
        assert_eq!(message, "unheard of");
        ends_once(&traces.ends);
        assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
    }
}

/// Panics where it is told to.
#[derive(Clone, Copy, PartialEq)]
enum Fragile {
    Copy,
    Allows,
    Prepare,
}

impl Replay<()> for Fragile {
    type Sent = ();

    fn accept(&self, (): ()) {}

    fn copy(&self, (): &()) -> Option<()> {
        assert!(*self != Self::Copy, "no copy");
        Some(())
    }

    fn allows(&self, (): &(), _: &Cause<'_>) -> bool {
        assert!(*self != Self::Allows, "not allowed");
        true
    }

    fn prepare(&self, (): &mut (), attempt: retry::Attempt) {
        assert!(*self != Self::Prepare || attempt.number() < 2, "not prepared");
    }
}

#[test]
fn a_panic_of_the_replay_passes_through_and_leaves_nothing_behind() {
    for fragile in [Fragile::Copy, Fragile::Allows, Fragile::Prepare] {
        let traces = Traces::new([down()], true);
        let log = traces.ends.clone();
        let retry = Retry::constant(ZERO)
            .classify(judge)
            .on_event(move |event| {
                if let retry::Event::Finished { report, .. } = event {
                    log.push(format!("{:?}", report.stop));
                }
            })
            .build()
            .unwrap();
        let service = retry.replay(fragile).layer(traces.inner.clone());
        for _ in 0..2 {
            panic_of(|| block_on(service.clone().oneshot(())));
            ends_once(&traces.ends);
            assert_eq!(traces.backend.running(), 0);
        }
        assert!(block_on(traces.inner.oneshot(())).is_err(), "the permit is free");
    }
}

#[test]
fn a_panic_of_a_backoff_function_is_the_end_of_its_call() {
    let traces = Traces::new([down()], false);
    let log = traces.ends.clone();
    let retry = Retry::builder()
        .backoff(Backoff::function(|_| panic!("no idea")))
        .classify(judge)
        .on_event(move |event| log.push(format!("{event:?}")))
        .build()
        .unwrap();
    panic_of(|| block_on(retry.call(|| traces.backend.call())));
    ends_once(&traces.ends);
}

#[test]
fn a_panic_of_a_listener_changes_nothing() {
    let backend = Backend::new([down(), ok(200)]);
    let retry = Retry::constant(ZERO)
        .classify(judge)
        .on_event(|_| panic!("a listener"))
        .build()
        .unwrap();
    assert_eq!(block_on(retry.call(|| backend.call())).unwrap(), 200);
    let timeout = Timeout::new(MS).on_event(|_| panic!("a listener"));
    assert_eq!(block_on(timeout.call(backend.call())).unwrap(), 200);
    let fallback = Fallback::builder().on_event(|_| panic!("a listener")).value(1);
    assert_eq!(block_on(fallback.call(async { Err(Failure::Down) })).unwrap(), 1);

    let backend = Backend::new([down(), ok(200)]);
    let service = tower::ServiceBuilder::new()
        .layer(fallback)
        .layer(retry)
        .layer(timeout)
        .service(backend.service());
    assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
    assert_eq!(backend.started(), 2);
}

/// A second panic that is not caught would end the process.
#[test]
fn a_panic_of_a_listener_during_the_panic_of_an_operation_is_swallowed() {
    let backend = Backend::new([panics()]);
    let retry = Retry::constant(ZERO)
        .on_event(|_| panic!("a listener"))
        .build()
        .unwrap();
    let timeout = Timeout::new(MS).on_event(|_| panic!("a listener"));
    let fallback = Fallback::builder().on_event(|_| panic!("a listener")).value(1);
    let message = panic_of(|| block_on(fallback.call(timeout.call(retry.call(|| backend.call())))));
    assert_eq!(message, "the operation panics when it is polled");
    assert_eq!(backend.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_a_dropped_call_that_panics_does_not_reach_who_dropped_it() {
    let retry = Retry::constant(MS).on_event(|_| panic!("a listener")).build().unwrap();
    let backend = Backend::new([fail(Failure::Down)]);
    {
        let mut call = pin!(retry.call(|| backend.call()));
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!(backend.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_for_a_failed_readiness_can_be_dropped_anywhere() {
    cancel_everywhere(
        || {
            let traces = Traces::new([ok(200)], true);
            let fallback = traces
                .fallback()
                .from_error_async(|_: Failure| slowly(Ok::<u32, Infallible>(1)))
                .infallible();
            let failing = traces
                .backend
                .service()
                .with_readiness([Readiness::Fails(Failure::Down)]);
            let mut service = fallback.layer(failing);
            assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
            (traces, service.call(()))
        },
        |traces, driven| traces.check(&driven, 2),
    )
    .await;
}

#[test]
fn an_error_of_readiness_is_dropped_with_the_call_it_was_parked_for() {
    let error = Arc::new(());
    let failing = NeverReady(Arc::clone(&error));
    let mut service = Fallback::value(1).infallible().layer(failing);
    for polled in [false, true] {
        let ready = Service::<()>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready());
        let mut call = Box::pin(service.call(()));
        assert_eq!(Arc::strong_count(&error), 3);
        if polled {
            assert_eq!(block_on(call.as_mut()), Ok(1));
            assert_eq!(Arc::strong_count(&error), 2);
        }
        drop(call);
        assert_eq!(Arc::strong_count(&error), 2);
    }
}

/// A service that fails to become ready, with an error that can be counted.
struct NeverReady(Arc<()>);

#[derive(Debug, thiserror::Error)]
#[error("never ready")]
struct Counted(#[allow(dead_code, reason = "it is counted")] Arc<()>);

impl Service<()> for NeverReady {
    type Response = u32;
    type Error = Counted;
    type Future = std::future::Pending<Result<u32, Counted>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Counted>> {
        Poll::Ready(Err(Counted(Arc::clone(&self.0))))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_as_a_layer_can_be_dropped_anywhere() {
    macro_rules! drops {
        ($polls:expr, |$builder:ident, $other:ident| $fallback:expr) => {
            let other = Backend::new([ok(1).after(3 * MS)]);
            cancel_everywhere(
                || {
                    let traces = Traces::new([down().after(3 * MS)], true);
                    let $builder = traces.fallback();
                    let $other = other.service();
                    let future = call(&$fallback, &traces);
                    (traces, future)
                },
                |traces, driven| {
                    traces.check(&driven, $polls);
                    assert_eq!(other.running(), 0);
                },
            )
            .await;
        };
    }
    drops!(2, |builder, _other| builder.value(1));
    drops!(2, |builder, _other| builder.from_error(|e: Failure| Err::<u32, _>(e)));
    drops!(3, |builder, _other| builder
        .from_error_async(|e: Failure| slowly(Err::<u32, _>(e))));
    drops!(3, |builder, _other| builder.from_outcome(slowly::<u32, Failure>));
    drops!(3, |builder, _other| builder
        .from_request(|(), e: Failure| slowly(Err::<u32, _>(e))));
    drops!(3, |builder, other| builder.service(other));
    drops!(3, |builder, _other| builder
        .from_error_async(|_: Failure| slowly(Ok::<u32, Infallible>(1)))
        .infallible());
}

#[test]
fn a_panic_under_a_timeout_is_the_end_of_its_call() {
    for tower in [false, true] {
        let traces = Traces::new([panics(), ok(200)], tower);
        let timeout = traces.timeout(MS);
        let mut service = timeout.layer(traces.inner.clone());
        panic_of(|| {
            block_on(async {
                if tower {
                    service.ready().await.unwrap().call(()).await
                } else {
                    timeout.call(traces.backend.call()).await
                }
            })
        });
        ends_once(&traces.ends);
        assert_eq!(traces.backend.running(), 0);
        assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_as_a_layer_can_be_dropped_anywhere() {
    for script in [ok(200).after(3 * MS), hang()] {
        cancel_everywhere(
            || {
                let traces = Traces::new([script.clone()], true);
                let future = call(traces.timeout(5 * MS), &traces);
                (traces, future)
            },
            |traces, driven| traces.check(&driven, 2),
        )
        .await;
        cancel_everywhere(
            || {
                let traces = Traces::new([script.clone()], true);
                let future = call(&traces.timeout(ZERO).per_request(|()| 5 * MS), &traces);
                (traces, future)
            },
            |traces, driven| traces.check(&driven, 2),
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_readiness_can_be_dropped_too() {
    for limit in 0..2 {
        let traces = Traces::new([ok(200)], true);
        let timeout = traces.timeout(5 * MS);
        let mut service = timeout.layer(traces.backend.service().with_readiness([Readiness::Never]));
        let driven = drive(service.ready().await.unwrap().call(()), limit, false).await;
        assert_eq!((traces.backend.started(), driven.output.is_some()), (0, limit == 1));
        traces.check(&driven, 1);
    }
}

#[test]
fn a_panic_of_the_answer_of_a_fallback_passes_through_and_ends_the_call_once() {
    fn no_answer<T>() -> T {
        panic!("no answer")
    }
    struct Fragile;
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            no_answer()
        }
    }
    macro_rules! panics {
        (|$builder:ident| $fallback:expr) => {
            for tower in [false, true] {
                let traces = Traces::new([down(), ok(200)], tower);
                let $builder = traces.fallback();
                let fallback = $fallback;
                let mut service = fallback.layer(traces.inner.clone());
                let message = panic_of(|| {
                    block_on(async {
                        if tower {
                            service.ready().await.unwrap().call(()).await
                        } else {
                            fallback.call(traces.backend.call()).await
                        }
                    })
                });
                assert_eq!(message, "no answer");
                ends_once(&traces.ends);
                assert_eq!(traces.backend.running(), 0);
                assert_eq!(block_on(service.oneshot(())).unwrap(), 200);
            }
        };
    }
    panics!(|builder| builder.from_error(|_: Failure| no_answer::<Result<u32, Failure>>()));
    panics!(|builder| builder.from_error_async(|_: Failure| no_answer::<std::future::Ready<Result<u32, Failure>>>()));
    panics!(|builder| builder.from_error_async(|_: Failure| async { no_answer::<Result<u32, Failure>>() }));
    panics!(|builder| builder.from_outcome(|_: Result<u32, Failure>| async { no_answer::<Result<u32, Failure>>() }));

    let ends = Log::default();
    let log = ends.clone();
    let fallback = Fallback::builder()
        .on_event(move |event| {
            if let fallback::Event::Finished { outcome, .. } = event {
                log.push(format!("{outcome:?}"));
            }
        })
        .value(Fragile);
    panic_of(|| block_on(fallback.call(async { Err::<Fragile, _>(Failure::Down) })));
    ends_once(&ends);
}

#[test]
fn a_panic_of_the_classifier_over_a_failed_readiness_ends_the_call_once() {
    let ends = Log::default();
    let log = ends.clone();
    let retry = Retry::constant(ZERO)
        .classify(|result: Result<&u32, &Failure>| match result {
            Err(Failure::Refused) => panic!("unheard of"),
            other => judge(other),
        })
        .on_event(move |event| {
            if let retry::Event::Finished { report, .. } = event {
                log.push(format!("{:?}", report.stop));
            }
        })
        .build()
        .unwrap();
    let probe = Backend::new([down()])
        .service()
        .with_readiness([Readiness::Ready, Readiness::Fails(Failure::Refused)]);
    panic_of(|| block_on(retry.layer(probe).oneshot(())));
    ends_once(&ends);
}
