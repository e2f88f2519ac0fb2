//! What a set tells: never a key, and of an overflow once a minute.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use steadfast::circuit_breaker::{CircuitBreaker, Event, State};
use tokio::time::advance;
use tracing_subscriber::fmt::MakeWriter;

use super::support::Log;
use super::{MAX_OPEN_TIME, OPEN_TIME, breaker, bulkhead, fails, succeeds};

#[tokio::test(start_paused = true)]
async fn an_overflow_is_told_when_it_begins_and_once_a_minute() {
    let told = Log::default();
    let log = told.clone();
    let hosts = breaker()
        .on_event(move |event| {
            if let Event::KeysOverflowed {
                policy,
                max_keys,
                lookups,
                ..
            } = event
            {
                log.push((policy.to_string(), *max_keys, *lookups));
            }
        })
        .keyed::<u32>()
        .max_keys(1)
        .build()
        .unwrap();
    hosts.get(&0).force_open();
    assert_eq!(told.take(), []);
    let one = |lookups| vec![("hosts".to_owned(), 1, lookups)];
    for key in 1..=100 {
        drop(hosts.get(&key));
    }
    assert_eq!(told.take(), one(1));
    advance(Duration::from_millis(59_999)).await;
    drop(hosts.get(&1));
    assert_eq!(told.take(), []);
    advance(Duration::from_millis(1)).await;
    drop(hosts.get(&1));
    drop(hosts.get(&1));
    // 99 of the first minute, one at its end, and the one that told.
    assert_eq!(told.take(), one(101));
    drop(hosts.get(&0));
    assert_eq!(told.take(), []);
}

#[tokio::test(start_paused = true)]
async fn the_listener_of_the_builder_hears_every_key_under_the_name_of_the_set() {
    let told = Log::default();
    let log = told.clone();
    let hosts = breaker()
        .on_event(move |event| log.push(format!("{event:?}")))
        .keyed::<String>()
        .build()
        .unwrap();
    for key in ["secret-a", "secret-b"] {
        hosts.get(key).call(fails()).await.unwrap_err();
        hosts.get(key).call(succeeds()).await.unwrap_err();
    }
    let told = told.take();
    assert_eq!(told.len(), 6);
    for event in told {
        assert!(event.contains(r#"policy: "hosts""#), "{event}");
        assert!(!event.contains("secret"), "{event}");
    }
}

#[derive(Clone, Default)]
struct Lines(Log<u8>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            self.0.push(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn the_log_has_a_warning_with_the_name_and_no_key() {
    let written = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(written.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let tenants = bulkhead().keyed::<String>().max_keys(1).build().unwrap();
        let hosts = breaker().keyed::<String>().max_keys(1).build().unwrap();
        let (_tenant, _host) = (tenants.get("secret-1"), hosts.get("secret-1"));
        for _ in 0..10 {
            drop(tenants.get("secret-2"));
            drop(hosts.get("secret-3"));
        }
    });
    let text = String::from_utf8(written.0.take()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, target, policy) in [
        (lines[0], "steadfast::bulkhead", "lanes"),
        (lines[1], "steadfast::circuit_breaker", "hosts"),
    ] {
        let expected = format!("WARN {target}: no room for new keys policy=\"{policy}\" max_keys=1 lookups=1");
        assert!(line.ends_with(&expected), "{line}");
    }
}

/// What has changed since the last look: the snapshotter leaves a 0 wherever it looks. No label depends on a key, so there
/// is one metric of each name.
fn changes(snapshotter: &Snapshotter) -> Vec<(String, f64)> {
    let mut changes = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
        assert!(labels.iter().all(|label| !label.contains("secret")), "{labels:?}");
        let value = match value {
            DebugValue::Counter(count) => f64::from(u32::try_from(count).unwrap()),
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(_) => continue,
        };
        changes.push((format!("{} {}", key.key().name(), labels.join(" ")), value));
    }
    changes
}

#[track_caller]
fn told(snapshotter: &Snapshotter, expected: &[(&str, f64)]) {
    let changes = changes(snapshotter);
    for (name, value) in expected {
        let full = format!("steadfast.{name}");
        let found: Vec<_> = changes.iter().filter(|(name, _)| *name == full).collect();
        assert_eq!(found.len(), 1, "{name}: {changes:?}");
        assert!((found[0].1 - value).abs() < 1e-9, "{name}: {changes:?}");
    }
}

#[test]
fn the_meters_count_over_all_keys() {
    const OPEN: &str = "circuit_breaker.open hosts";
    const KEYS: &str = "circuit_breaker.keyed.keys hosts";
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let told = |expected: &[(&str, f64)]| told(&snapshotter, expected);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let hosts = async {
        let hosts = breaker().keyed::<String>().max_keys(3).build().unwrap();
        for key in ["secret-1", "secret-2", "secret-3"] {
            hosts.get(key).call(fails()).await.unwrap_err();
        }
        told(&[(OPEN, 3.0), (KEYS, 3.0)]);
        drop(hosts.get("secret-4"));
        drop(hosts.get("secret-5"));
        told(&[("circuit_breaker.keyed.overflows hosts", 2.0)]);
        hosts.get("secret-1").force_open();
        told(&[(OPEN, 0.0)]);
        hosts.get("secret-1").reset();
        told(&[(OPEN, -1.0)]);
        let removed = hosts.remove("secret-2").unwrap();
        assert_eq!(removed.state(), State::Open);
        told(&[(OPEN, 0.0), (KEYS, 2.0)]);
        drop(removed);
        told(&[(OPEN, -1.0)]);
        advance(OPEN_TIME + MAX_OPEN_TIME).await;
        for key in 0..10 {
            drop(hosts.get(&format!("secret {key}")));
        }
        told(&[(OPEN, -1.0), (KEYS, 3.0)]);
        // One by itself is set, not counted.
        let alone: CircuitBreaker = CircuitBreaker::builder("alone").build().unwrap();
        alone.force_open();
        told(&[("circuit_breaker.open alone", 1.0)]);
        drop(alone);
        told(&[("circuit_breaker.open alone", 0.0)]);
    };
    let lanes = async {
        let lanes = bulkhead().keyed::<String>().max_keys(2).build().unwrap();
        let permits = ["secret-1", "secret-2"].map(|key| lanes.get(key).try_acquire().unwrap());
        drop(lanes.get("secret-3"));
        told(&[
            ("bulkhead.in_flight lanes", 2.0),
            ("bulkhead.keyed.overflows lanes", 1.0),
            ("bulkhead.keyed.keys lanes", 2.0),
        ]);
        drop(permits);
        told(&[("bulkhead.in_flight lanes", -2.0)]);
    };
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(hosts);
        runtime.block_on(lanes);
    });
}
