//! What is counted and told of durable sagas.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use steadfast::saga::{Cx, SagaEnd, Step, StepError};
use tracing_subscriber::fmt::MakeWriter;

use super::world::{Bench, Fate, Order, acts, key, saga, secs};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Runs `work` on a thread of its own with a paused clock, and gives what was counted and told.
fn observed(work: impl AsyncFnOnce()) -> (HashMap<String, u64>, String) {
    let (recorder, lines) = (DebuggingRecorder::new(), Lines::default());
    let snapshotter = recorder.snapshotter();
    // With a single subscriber, a thread of another test that came first would have it cached that nobody listens.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    let subscriber = subscriber
        .with_writer(lines.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        tracing::subscriber::with_default(subscriber, || runtime.block_on(work()));
    });
    let mut counters = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels = key.key().labels().filter(|label| label.key() != "saga");
        let labels: Vec<_> = labels
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        if let DebugValue::Counter(count) = value {
            counters.insert(format!("{}{{{}}}", key.key().name(), labels.join(",")), count);
        }
    }
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (counters, lines)
}

#[test]
fn a_saga_that_is_resumed_is_counted_once_and_its_takeover_too() {
    let (counters, lines) = observed(async || {
        let bench = Bench::new();
        let hangs = |run| if run == 1 { Fate::Hangs } else { Fate::Acts };
        let saga = saga([bench.world.step("a", acts), bench.world.step("b", hangs)])
            .build()
            .unwrap();
        let first = bench.process(&saga);
        let id = first.start(&saga, &key(1), Order::default()).await.unwrap().id();
        tokio::time::sleep(secs(1)).await;
        first.die();
        let _second = bench.process(&saga);
        bench.rests(id, secs(60)).await;
    });
    assert_eq!(counters["steadfast.saga.started{}"], 1, "{counters:?}");
    assert_eq!(counters["steadfast.saga.steps{step=a,outcome=succeeded}"], 1);
    assert_eq!(counters["steadfast.saga.steps{step=b,outcome=succeeded}"], 1);
    assert_eq!(counters["steadfast.saga.finished{end=completed}"], 1);
    assert_eq!(counters["steadfast.saga.recoveries{}"], 1);
    // The one that died could not know; its lease ran out.
    assert_eq!(counters["steadfast.saga.fenced{}"], 1);
    assert_eq!(
        lines.matches("taken over from an owner whose lease ran out").count(),
        1,
        "{lines}"
    );
    assert_eq!(lines.matches("finished").count(), 1, "{lines}");
}

#[test]
fn a_saga_that_is_stuck_is_told_as_a_warning_and_no_context_is() {
    let (counters, lines) = observed(async || {
        let bench = Bench::new();
        let pivot = Step::pivot("b", bench.world.action(|_| Fate::Unknown)).attempts(1);
        let saga = saga([bench.world.step("a", acts), pivot]).build().unwrap();
        let process = bench.process(&saga);
        let order = Order {
            done: vec!["4111 1111 1111 1111".to_owned()],
        };
        let id = process.start(&saga, &key(1), order).await.unwrap().id();
        assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Stuck);
    });
    assert_eq!(counters["steadfast.saga.finished{end=stuck}"], 1);
    assert!(
        lines.contains("WARN") && lines.contains("stuck") && lines.contains("pivot_unknown"),
        "{lines}"
    );
    assert!(!lines.contains("4111"), "{lines}");
}

#[test]
fn what_is_logged_in_a_step_is_logged_in_its_span() {
    let (_, lines) = observed(async || {
        let step = Step::compensatable(
            "a",
            async |_: &mut Cx<Order>| {
                tracing::info!("from within");
                Ok(())
            },
            async |_: &mut Cx<Order>| {
                tracing::info!("on the way back");
                Ok(())
            },
        );
        let no = Step::pivot("b", async |_: &mut Cx<Order>| Err(StepError::failed("no")));
        let bench = Bench::new();
        let saga = saga([step, no]).build().unwrap();
        let process = bench.process(&saga);
        let id = process.start(&saga, &key(1), Order::default()).await.unwrap().id();
        assert_eq!(bench.rests(id, secs(10)).await, SagaEnd::Compensated);
    });
    let with = |text: &str| lines.lines().find(|line| line.contains(text)).unwrap();
    for (text, phase) in [("from within", "do"), ("on the way back", "undo")] {
        let line = with(text);
        let span = format!("step=\"a\" phase=\"{phase}\" attempt=1 fence=1");
        assert!(line.contains("saga.step{saga=") && line.contains(&span), "{line}");
    }
}
