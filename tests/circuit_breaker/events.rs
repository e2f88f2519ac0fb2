//! What a breaker tells of its calls: to a listener, to `tracing` and to `metrics`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use metrics::{Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::debugging::DebuggingRecorder;
use steadfast::Backoff;
use steadfast::circuit_breaker::End;

use super::telemetry::{counted, logged, paused};
use super::*;

/// A breaker whose every event is written down as it is.
fn written(builder: CircuitBreakerBuilder) -> (Log<String>, Breaker) {
    let events = Log::default();
    let log = events.clone();
    let builder = builder.classify(verdict);
    let builder = builder.on_event(move |event| log.push(format!("{event:?}")));
    (events, builder.build().unwrap().erased())
}

#[tokio::test(start_paused = true)]
async fn each_call_has_one_end_and_each_change_one_event() {
    for face in FACES {
        let (events, breaker) = written(brittle().open_backoff(Backoff::exponential(SECOND)));
        let run = async |step: Step| call(face, &breaker, &Backend::new([step])).await;
        let finished = |end: &str, verdict: &str, error: &str| {
            format!(
                "Finished {{ policy: \"payments\", end: {end}, verdict: {verdict}, slow: false, counted: {}, error: \
                 {error} }}",
                !matches!(end, "Ignored" | "Abandoned")
            )
        };
        run(ok(200)).await.unwrap();
        run(ok(IGNORED)).await.unwrap();
        run(fail(Failure::Busy(None))).await.unwrap_err();
        assert_eq!(
            events.take(),
            [
                finished("Success", "Some(Success)", "None"),
                finished("Ignored", "Some(Ignored)", "None"),
                "StateChanged { policy: \"payments\", from: Closed, to: Open, generation: 2, calls: 2, failures: 1, \
                 slow_calls: 0, openings: 1, open_for: Some(1s) }"
                    .to_owned(),
                finished("Failure", "Some(Overloaded { retry_after: None })", "Some(Busy(None))"),
            ]
        );
        advance(400 * MS).await;
        run(ok(200)).await.unwrap_err();
        assert_eq!(
            events.take(),
            ["Rejected { policy: \"payments\", state: Open, retry_after: Some(600ms), shadow: false }"]
        );
        advance(600 * MS).await;
        let mut probe = call(face, &breaker, &Backend::new([hang()]));
        assert!(poll(&mut probe).is_pending());
        run(ok(200)).await.unwrap_err();
        drop(probe);
        run(fail(Failure::Refused)).await.unwrap_err();
        assert_eq!(
            events.take(),
            [
                "StateChanged { policy: \"payments\", from: Open, to: HalfOpen, generation: 3, calls: 2, failures: 1, \
                 slow_calls: 0, openings: 1, open_for: None }"
                    .to_owned(),
                "Rejected { policy: \"payments\", state: HalfOpen, retry_after: None, shadow: false }".to_owned(),
                finished("Abandoned", "None", "None"),
                "StateChanged { policy: \"payments\", from: HalfOpen, to: Open, generation: 4, calls: 1, failures: 1, \
                 slow_calls: 0, openings: 2, open_for: Some(2s) }"
                    .to_owned(),
                finished("Failure", "Some(Permanent)", "Some(Refused)"),
            ]
        );
        breaker.force_open();
        breaker.set_shadow(true);
        run(ok(200)).await.unwrap();
        assert_eq!(
            events.take(),
            [
                "StateChanged { policy: \"payments\", from: Open, to: ForcedOpen, generation: 5, calls: 1, failures: 1, \
                 slow_calls: 0, openings: 2, open_for: None }",
                "Rejected { policy: \"payments\", state: ForcedOpen, retry_after: None, shadow: true }",
                "Finished { policy: \"payments\", end: Success, verdict: Some(Success), slow: false, counted: false, \
                 error: None }",
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_says_whether_it_was_slow_and_whether_it_came_too_late() {
    for face in FACES {
        let ends = Log::default();
        let log = ends.clone();
        let builder = by_time().classify(verdict).on_event(move |event| {
            if let Event::Finished { end, slow, counted, .. } = event {
                log.push((*end, *slow, *counted));
            }
        });
        let breaker = builder.build().unwrap().erased();
        let begun = |step| {
            let mut call = call(face, &breaker, &Backend::new([step]));
            assert!(poll(&mut call).is_pending());
            call
        };
        let slow = begun(ok(200).after(4 * SECOND));
        let fast = begun(ok(200).after(4 * SECOND - MS));
        let (stale, dropped) = (begun(down().after(5 * SECOND)), begun(hang()));
        fast.await.unwrap();
        slow.await.unwrap();
        breaker.force_open();
        stale.await.unwrap_err();
        drop(dropped);
        assert_eq!(
            ends.take(),
            [
                (End::Success, false, true),
                (End::Success, true, true),
                (End::Failure, true, false),
                // Abandoned after more than a second: a failure, had it not come too late.
                (End::Abandoned, true, false),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_ask_and_tell_the_breaker_anything() {
    for face in FACES {
        let handle: Arc<OnceLock<Breaker>> = Arc::default();
        let (to_listener, changes) = (Arc::clone(&handle), Log::default());
        let log = changes.clone();
        let builder = brittle().classify(verdict).on_event(move |event| {
            let Some(breaker) = to_listener.get() else { return };
            if let Event::StateChanged {
                from,
                to,
                calls,
                failures,
                ..
            } = event
            {
                log.push(format!("{} > {} {failures}/{calls}", from.as_str(), to.as_str()));
            }
            let export = breaker.export();
            let _ = (
                breaker.state(),
                breaker.snapshot(),
                breaker.subscribe(),
                breaker.is_shadow(),
            );
            breaker.set_shadow(false);
            if !matches!(event, Event::StateChanged { to: State::Open, .. }) {
                return;
            }
            // Each of these is told of too, in here.
            breaker.force_open();
            breaker.reset();
            breaker.force_closed();
            breaker.reset();
            breaker.disable();
            breaker.reset();
            drop(breaker.isolate());
            breaker.restore(&CLOSED.with(Clone::clone)).unwrap();
            assert_ne!(breaker.export(), export);
        });
        thread_local! {
            static CLOSED: steadfast::circuit_breaker::CircuitBreakerExport = serde_json::from_str(
                r#"{ "openings": 0, "consecutive_failures": 0, "state": "closed", "calls": { "count": "F" } }"#,
            )
            .unwrap();
        }
        let breaker = builder.build().unwrap().erased();
        assert!(handle.set(breaker.clone()).is_ok());
        call(face, &breaker, &Backend::new([down()])).await.unwrap_err();
        assert_eq!((breaker.state(), breaker.snapshot().calls), (State::Closed, 1));
        assert_eq!(
            changes.take(),
            [
                "closed > open 1/1",
                "open > forced_open 1/1",
                "forced_open > closed 1/1",
                "closed > forced_closed 0/0",
                "forced_closed > closed 0/0",
                "closed > disabled 0/0",
                "disabled > closed 0/0",
                "closed > isolated 0/0",
                "isolated > closed 0/0",
            ]
        );
        // Held by its own listener, it would live for ever.
        breaker.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_disturbs_nobody() {
    for face in FACES {
        let builder = brittle()
            .classify(verdict)
            .on_event(|_| std::panic::resume_unwind(Box::new(())));
        let breaker = builder.build().unwrap().erased();
        let run = async |step: Step| call(face, &breaker, &Backend::new([step])).await;
        run(ok(200)).await.unwrap();
        run(down()).await.unwrap_err();
        assert_eq!(breaker.state(), State::Open);
        run(ok(200)).await.unwrap_err();
        advance(SECOND).await;
        let mut probe = call(face, &breaker, &Backend::new([hang()]));
        assert!(poll(&mut probe).is_pending());
        drop(probe);
        assert_eq!(breaker.snapshot().probes_in_flight, 0);
        run(ok(200)).await.unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }
}

/// One of each event, under a fresh breaker.
async fn one_of_each() {
    let breaker = by_time()
        .slow_call_rate(1.0)
        .minimum_calls(2)
        .samples(1)
        .classify(verdict)
        .build()
        .unwrap();
    let breaker = breaker.erased();
    let run = async |step: Step| call(Face::Plain, &breaker, &Backend::new([step])).await;
    run(ok(200)).await.unwrap();
    run(ok(IGNORED)).await.unwrap();
    run(ok(200).after(4 * SECOND)).await.unwrap();
    run(down()).await.unwrap_err();
    let panics = std::panic::AssertUnwindSafe(breaker.call(async { std::panic::resume_unwind(Box::new(())) }));
    futures::FutureExt::catch_unwind(panics).await.unwrap_err();
    run(ok(200)).await.unwrap_err();
    breaker.set_shadow(true);
    run(ok(200)).await.unwrap();
    breaker.set_shadow(false);
    advance(5 * SECOND).await;
    drop({
        let mut probe = call(Face::Plain, &breaker, &Backend::new([hang()]));
        assert!(poll(&mut probe).is_pending());
        probe
    });
    run(ok(200)).await.unwrap();
}

#[test]
fn every_end_and_every_change_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || paused().block_on(one_of_each()));
    assert_eq!(
        counted(&snapshotter),
        [
            "steadfast.circuit_breaker.calls: policy=payments, outcome=abandoned: 1",
            "steadfast.circuit_breaker.calls: policy=payments, outcome=failure: 1",
            "steadfast.circuit_breaker.calls: policy=payments, outcome=ignored: 1",
            "steadfast.circuit_breaker.calls: policy=payments, outcome=panicked: 1",
            "steadfast.circuit_breaker.calls: policy=payments, outcome=rejected: 1",
            // The one in shadow mode has its own end as well.
            "steadfast.circuit_breaker.calls: policy=payments, outcome=success: 4",
            "steadfast.circuit_breaker.calls: policy=payments, outcome=would_reject: 1",
            "steadfast.circuit_breaker.open: policy=payments: 0",
            "steadfast.circuit_breaker.transitions: policy=payments, to=closed: 1",
            "steadfast.circuit_breaker.transitions: policy=payments, to=half_open: 1",
            "steadfast.circuit_breaker.transitions: policy=payments, to=open: 1",
        ]
    );
}

/// A recorder of the gauge alone.
struct Gauges(Arc<LastSet>);

/// What the gauge was set to last. It may be slow to be set: in the middle of it the breaker changes once more, as another
/// thread would have it.
struct LastSet {
    value: Mutex<f64>,
    resets: OnceLock<Mutex<Option<Breaker>>>,
}

impl LastSet {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            value: Mutex::new(f64::NAN),
            resets: OnceLock::new(),
        })
    }

    /// `None` before it was set.
    fn says_open(&self) -> Option<bool> {
        let value = *self.value.lock().unwrap();
        (!value.is_nan()).then_some(value > 0.5)
    }
}

impl GaugeFn for LastSet {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, value: f64) {
        let resets = self.resets.get().and_then(|breaker| breaker.lock().unwrap().take());
        if let Some(breaker) = resets {
            breaker.reset();
        }
        *self.value.lock().unwrap() = value;
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(&self.0))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn the_gauge_says_after_each_change_whether_calls_are_rejected() {
    let gauge = LastSet::new();
    metrics::with_local_recorder(&Gauges(Arc::clone(&gauge)), || {
        paused().block_on(async {
            let rig = Rig::new(Face::Plain, brittle());
            rig.run("S").await;
            assert_eq!(gauge.says_open(), None);
            rig.run("F").await;
            assert_eq!(gauge.says_open(), Some(true));
            advance(SECOND).await;
            let probe = rig.hanging();
            assert_eq!(gauge.says_open(), Some(false));
            drop(probe);
            assert_eq!(gauge.says_open(), Some(false), "a cancelled probe leaves it half-open");
            rig.run("F").await;
            assert_eq!(gauge.says_open(), Some(true));
            rig.breaker.force_closed();
            assert_eq!(gauge.says_open(), Some(false));
            rig.breaker.force_open();
            assert_eq!(gauge.says_open(), Some(true));
            rig.breaker.reset();
            assert_eq!(gauge.says_open(), Some(false));
            let (first, second) = (rig.breaker.isolate(), rig.breaker.isolate());
            assert_eq!(gauge.says_open(), Some(true));
            drop(first);
            assert_eq!(gauge.says_open(), Some(true));
            drop(second);
            assert_eq!(gauge.says_open(), Some(false));
        });
    });
}

#[test]
fn the_gauge_is_true_also_where_one_change_overtakes_another() {
    let gauge = LastSet::new();
    let rig = Rig::new(Face::Plain, brittle());
    assert!(gauge.resets.set(Mutex::new(Some(rig.breaker.clone()))).is_ok());
    metrics::with_local_recorder(&Gauges(Arc::clone(&gauge)), || rig.breaker.force_open());
    assert_eq!((rig.state(), gauge.says_open()), (State::Closed, Some(false)));
}

#[test]
fn every_event_is_logged_with_its_target_and_its_fields() {
    let ((), lines) = logged(|| paused().block_on(one_of_each()));
    let expected = [
        "TRACE: message=finished policy=\"payments\" end=\"success\" counted=true",
        "DEBUG: message=finished policy=\"payments\" end=\"ignored\" verdict=\"ignored\" slow=false counted=false",
        "DEBUG: message=finished policy=\"payments\" end=\"success\" verdict=\"success\" slow=true counted=true",
        "DEBUG: message=finished policy=\"payments\" end=\"failure\" verdict=\"transient\" slow=false counted=true \
         error=the dependency is down",
        "WARN: message=rejects calls policy=\"payments\" from=\"closed\" to=\"open\" calls=4 failures=2 slow_calls=1 \
         openings=1 open_for=Some(5s)",
        "DEBUG: message=finished policy=\"payments\" end=\"panicked\" slow=false counted=true",
        "DEBUG: message=rejected policy=\"payments\" state=\"open\" retry_after=Some(5s) shadow=false",
        "DEBUG: message=rejected policy=\"payments\" state=\"open\" retry_after=Some(5s) shadow=true",
        "TRACE: message=finished policy=\"payments\" end=\"success\" counted=false",
        "INFO: message=admits calls policy=\"payments\" from=\"open\" to=\"half_open\" calls=4 failures=2 slow_calls=1",
        "DEBUG: message=finished policy=\"payments\" end=\"abandoned\" slow=false counted=false",
        "INFO: message=admits calls policy=\"payments\" from=\"half_open\" to=\"closed\" calls=1 failures=0 slow_calls=0",
        "TRACE: message=finished policy=\"payments\" end=\"success\" counted=true",
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|line| line.replacen(':', " steadfast::circuit_breaker:", 1))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn every_end_and_every_state_has_a_label_of_its_own() {
    fn snake(name: &impl Debug) -> String {
        let name = format!("{name:?}");
        let words = name.char_indices().map(|(i, c)| match c {
            'A'..='Z' if i > 0 => format!("_{}", c.to_ascii_lowercase()),
            _ => c.to_ascii_lowercase().to_string(),
        });
        words.collect()
    }

    for end in [End::Success, End::Failure, End::Ignored, End::Abandoned, End::Panicked] {
        assert_eq!(end.as_str(), snake(&end));
    }
    for (state, open) in [
        (State::Closed, false),
        (State::Open, true),
        (State::HalfOpen, false),
        (State::ForcedOpen, true),
        (State::ForcedClosed, false),
        (State::Disabled, false),
        (State::Isolated, true),
    ] {
        assert_eq!((state.as_str(), state.is_open()), (snake(&state).as_str(), open));
    }
}
