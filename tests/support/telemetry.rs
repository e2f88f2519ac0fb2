//! What was logged and what was counted while something ran.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fmt::{Debug, Write};

use metrics_util::debugging::{DebugValue, Snapshotter};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::support::Log;

/// Runs `call`, and returns what steadfast logged on this thread: level, target, fields.
///
/// With a single subscriber in the process, a thread of another test that came to an event first would have it cached that
/// nobody listens: so there is a second one.
pub(crate) fn logged<T>(call: impl FnOnce() -> T) -> (T, Vec<String>) {
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let lines = Log::default();
    let subscriber = tracing_subscriber::registry().with(Notebook(lines.clone()));
    let result = tracing::subscriber::with_default(subscriber, call);
    (result, lines.take())
}

struct Notebook(Log<String>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Notebook {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("steadfast") {
            let mut fields = Fields(format!("{} {}:", metadata.level(), metadata.target()));
            event.record(&mut fields);
            self.0.push(fields.0);
        }
    }
}

/// What was counted since the last look: name, labels, value; in the order of the names.
pub(crate) fn counted(snapshotter: &Snapshotter) -> Vec<String> {
    let mut lines: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let key = key.key();
            let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => format!("{values:?}"),
            };
            format!("{}: {}: {value}", key.name(), labels.join(", "))
        })
        .collect();
    lines.sort();
    lines
}

pub(crate) fn paused() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}
