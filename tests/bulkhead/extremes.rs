//! Every setting at its extremes: a `ConfigError` that names the setting, or what the setting says. Never a panic.

use std::time::Duration;

use steadfast::bulkhead::{Bulkhead, BulkheadBuilder, DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_QUEUED};
use steadfast::{ConfigError, RejectedKind};
use tokio::time::advance;

use super::support::{Backend, ok, poll_once};
use super::{FACES, gauges, lanes, ms, rejected, w};

fn refused(builder: BulkheadBuilder) -> (&'static str, String, String) {
    parts(&builder.build().unwrap_err())
}

fn parts(error: &ConfigError) -> (&'static str, String, String) {
    assert_eq!(error.policy(), "lanes");
    (error.setting(), error.value().to_owned(), error.allowed().to_owned())
}

fn named() -> BulkheadBuilder {
    Bulkhead::builder(String::from("lanes"))
}

#[test]
fn no_permits_at_all_are_refused() {
    let error = refused(named().max_concurrent(0));
    assert_eq!(error, ("max_concurrent", "0".into(), "at least 1".into()));
}

#[test]
fn a_queue_and_a_limit_on_the_wait_need_each_other() {
    let error = refused(named().max_queued(1));
    assert_eq!(error, ("max_queued", "1".into(), "0 where there is no max_wait".into()));
    let error = refused(named().max_wait(ms(5)));
    assert_eq!(
        error,
        ("max_wait", "5ms".into(), "left out where max_queued is 0".into())
    );
    let error = refused(named().max_queued(1).max_wait(Duration::ZERO));
    assert_eq!(error, ("max_wait", "0ns".into(), "longer than 0".into()));
}

#[test]
fn what_cannot_be_built_cannot_be_set_either() {
    let bulkhead = named().build().unwrap();
    let error = parts(&bulkhead.set_max_queued(u32::MAX).unwrap_err());
    assert_eq!(
        error,
        (
            "max_queued",
            u32::MAX.to_string(),
            "0 where there is no max_wait".into()
        )
    );
    let error = parts(&bulkhead.set_max_wait(Duration::ZERO).unwrap_err());
    assert_eq!(error, ("max_wait", "0ns".into(), "longer than 0".into()));
    bulkhead.set_max_queued(0).unwrap();
    bulkhead.set_max_wait(Duration::MAX).unwrap();
    bulkhead.set_max_queued(u32::MAX).unwrap();
    let snapshot = bulkhead.snapshot();
    assert_eq!(
        (snapshot.max_queued, snapshot.max_wait),
        (u32::MAX, Some(Duration::MAX))
    );
}

#[tokio::test(start_paused = true)]
async fn the_largest_settings_work() {
    for face in FACES {
        let bulkhead = named()
            .max_concurrent(u32::MAX)
            .max_queued(u32::MAX)
            .max_wait(Duration::MAX)
            .build()
            .unwrap();
        let backend = Backend::new([ok(200)]);
        assert_eq!(face.call(&bulkhead, w(u32::MAX), &backend).await.unwrap(), 200);
        let permit = bulkhead.try_acquire_weighted(w(u32::MAX)).unwrap();
        assert_eq!(gauges(&bulkhead), (u32::MAX, 0, 0));
        let mut call = face.call(&bulkhead, w(1), &backend);
        assert!(poll_once(call.as_mut()).is_pending());
        advance(Duration::from_secs(365 * 86_400)).await;
        assert!(poll_once(call.as_mut()).is_pending());
        bulkhead.set_max_concurrent(0);
        bulkhead.set_max_concurrent(u32::MAX);
        assert_eq!(gauges(&bulkhead), (u32::MAX, 1, 0));
        drop(permit);
        assert_eq!(call.await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_wait_is_one() {
    let bulkhead = named()
        .max_queued(1)
        .max_wait(Duration::from_nanos(1))
        .max_concurrent(1)
        .build()
        .unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    for face in FACES {
        rejected(
            face.call(&bulkhead, w(1), &Backend::new([ok(200)])).await,
            RejectedKind::QueueTimedOut,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_wait_and_each_has_its_turn() {
    let bulkhead = named()
        .max_concurrent(1)
        .max_queued(10_000)
        .max_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let backend = Backend::new([ok(200)]);
    let permit = bulkhead.try_acquire().unwrap();
    let mut calls: Vec<_> = (0..10_000)
        .map(|n: usize| FACES[n % 3].call(&bulkhead, w(1), &backend))
        .collect();
    for call in &mut calls {
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!(gauges(&bulkhead), (1, 10_000, 0));
    drop(permit);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(gauges(&bulkhead), (0, 0, 1));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let bulkhead = named().build().unwrap();
    let snapshot = bulkhead.snapshot();
    assert_eq!(
        (snapshot.max_concurrent, snapshot.max_queued, snapshot.max_wait),
        (DEFAULT_MAX_CONCURRENT, DEFAULT_MAX_QUEUED, None)
    );
    let (guide, builder) = (
        include_str!("../../docs/bulkhead.md"),
        include_str!("../../src/bulkhead/builder.rs"),
    );
    let lines = [
        (guide, format!("| `max_concurrent` | {DEFAULT_MAX_CONCURRENT} |")),
        (guide, format!("| `max_queued` | {DEFAULT_MAX_QUEUED} |")),
        (
            builder,
            format!("weigh together: at least 1. Default: {DEFAULT_MAX_CONCURRENT}."),
        ),
        (
            builder,
            format!("needs a [`max_wait`](Self::max_wait). Default: {DEFAULT_MAX_QUEUED}."),
        ),
    ];
    for (text, line) in lines {
        assert!(text.contains(&line), "no longer written: {line}");
    }
}

#[test]
fn what_is_printed_says_which_and_how_full() {
    let bulkhead = lanes(2, 1);
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(
        format!("{bulkhead:?}"),
        "Bulkhead { name: \"lanes\", max_concurrent: 2, in_flight: 1, queued: 0, .. }"
    );
}
