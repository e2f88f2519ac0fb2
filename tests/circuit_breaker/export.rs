//! A breaker's state over a restart.

use serde_json::json;
use steadfast::circuit_breaker::CircuitBreakerExport;

use super::*;

/// Something in every place: `F` of five calls, half a second of its open time over, forced closed.
async fn rigs() -> Vec<(&'static str, Rig)> {
    let fresh = |builder| Rig::new(Face::Plain, builder);
    let counting = fresh(
        by_count(10)
            .minimum_calls(10)
            .slow_call_duration(4 * SECOND)
            .slow_call_rate(0.9),
    );
    counting.run("SFsfS").await;
    let timed = fresh(by_time().minimum_calls(10));
    timed.run("SF").await;
    advance(3 * SECOND).await;
    timed.run("Ff").await;
    let streak = fresh(
        CircuitBreaker::builder("payments")
            .failure_rate(None)
            .consecutive_failures(3),
    );
    streak.run("SFF").await;
    let half_open = expired(Face::Plain, brittle()).await;
    drop(half_open.hanging());
    let open = fresh(brittle());
    open.run("F").await;
    advance(500 * MS).await;
    let forced = fresh(by_count(10));
    forced.breaker.force_closed();
    forced.run("FFF").await;
    vec![
        ("counting", counting),
        ("timed", timed),
        ("streak", streak),
        ("open", open),
        ("half-open", half_open),
        ("forced", forced),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_export_is_written_for_people() {
    let mut written = Vec::new();
    for (name, rig) in rigs().await {
        let export = serde_json::to_value(rig.breaker.export()).unwrap();
        written.push(format!("{name}: {export}"));
    }
    assert_eq!(
        written,
        [
            r#"counting: {"calls":{"count":".FsS."},"consecutive_failures":0,"openings":0,"state":"closed"}"#,
            concat!(
                r#"timed: {"calls":{"time":[{"age":"8s","calls":2,"failures":1,"slow_calls":0},"#,
                r#"{"age":"6s","calls":1,"failures":1,"slow_calls":0},"#,
                r#"{"age":"0s","calls":1,"failures":1,"slow_calls":1}]},"#,
                r#""consecutive_failures":0,"openings":0,"state":"closed"}"#
            ),
            r#"streak: {"calls":"none","consecutive_failures":2,"openings":0,"state":"closed"}"#,
            r#"open: {"calls":{"count":""},"consecutive_failures":0,"openings":1,"state":{"open":"500ms"}}"#,
            r#"half-open: {"calls":{"count":""},"consecutive_failures":0,"openings":1,"state":"half_open"}"#,
            r#"forced: {"calls":{"count":"FFF"},"consecutive_failures":0,"forced":"closed","openings":0,"state":"closed"}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_and_goes_on_the_same() {
    for (name, rig) in rigs().await {
        let export = rig.breaker.export();
        let json = serde_json::to_string(&export).unwrap();
        assert_eq!(
            serde_json::from_str::<CircuitBreakerExport>(&json).unwrap(),
            export,
            "{name}"
        );
        let toml = toml::to_string(&export).unwrap();
        assert_eq!(
            toml::from_str::<CircuitBreakerExport>(&toml).unwrap(),
            export,
            "{name}: {toml}"
        );
        let yaml = serde_yaml_ng::to_string(&export).unwrap();
        let read = serde_yaml_ng::from_str::<CircuitBreakerExport>(&yaml).unwrap();
        assert_eq!(read, export, "{name}: {yaml}");

        let before = rig.breaker.snapshot();
        rig.breaker.restore(&read).unwrap();
        let after = rig.breaker.snapshot();
        if name == "half-open" {
            // Its probes are not here: the next call begins another round.
            assert_eq!((after.state, after.retry_after), (State::Open, Some(ZERO)));
            assert_eq!(rig.run("S").await, "S");
            assert_eq!(rig.state(), State::Closed);
        } else {
            assert_eq!(rig.breaker.export(), export, "{name}");
            assert_eq!((after.state, after.calls), (before.state, before.calls), "{name}");
            assert_eq!(
                (after.retry_after, after.openings),
                (before.retry_after, before.openings),
                "{name}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_over_time_grow_old_while_nobody_runs() {
    let rig = Rig::new(Face::Plain, by_time().minimum_calls(10));
    rig.run("FFF").await;
    let export = rig.breaker.export();
    let other = Rig::new(Face::Plain, by_time().minimum_calls(10));
    advance(5 * SECOND).await;
    // What passed between export and restore is not known: their age is that of the export.
    other.breaker.restore(&export).unwrap();
    assert_eq!(other.counts(), (3, 3));
    advance(18 * SECOND).await;
    assert_eq!(other.counts(), (3, 3));
    advance(2 * SECOND).await;
    assert_eq!(other.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_smaller_window_takes_the_latest_and_another_rule_what_it_can_use() {
    let rig = Rig::new(Face::Plain, by_count(8).minimum_calls(8));
    rig.run("FFFFSSS").await;
    let smaller = Rig::new(Face::Plain, by_count(4).minimum_calls(4));
    smaller.breaker.restore(&rig.breaker.export()).unwrap();
    assert_eq!((smaller.counts(), smaller.state()), ((4, 1), State::Closed));
    let streak = Rig::new(
        Face::Plain,
        CircuitBreaker::builder("payments")
            .failure_rate(None)
            .consecutive_failures(3),
    );
    streak.breaker.restore(&rig.breaker.export()).unwrap();
    assert_eq!(streak.counts(), (0, 0));
    // Nor is a streak remembered where nobody would ever end it.
    streak.run("FF").await;
    smaller.breaker.restore(&streak.breaker.export()).unwrap();
    assert_eq!(smaller.breaker.snapshot().consecutive_failures, 0);
    // Without a window of its own it has none to give, and any breaker takes that.
    rig.breaker.restore(&streak.breaker.export()).unwrap();
    assert_eq!(rig.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_restored_over_the_limit_opens_it_at_the_next_call_and_not_before() {
    let rig = Rig::new(Face::Plain, by_count(8).failure_rate(1.0).minimum_calls(4));
    rig.breaker.force_closed();
    rig.run("FFFF").await;
    rig.breaker.reset();
    let export = json!({ "openings": 0, "consecutive_failures": 0, "state": "closed", "calls": { "count": "FFFF" } });
    rig.breaker.restore(&serde_json::from_value(export).unwrap()).unwrap();
    assert_eq!((rig.state(), rig.counts()), (State::Closed, (4, 4)));
    rig.run("F").await;
    assert_eq!(rig.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_of_another_breaker_are_none_where_no_rule_asks() {
    let slow = json!({ "openings": 0, "consecutive_failures": 0, "state": "closed", "calls": { "count": "sS.F" } });
    let over_time = json!({ "openings": 0, "consecutive_failures": 0, "state": "closed", "calls": { "time": [
        { "age": "0s", "calls": 4, "failures": 2, "slow_calls": 2 } ] } });
    for (export, builder) in [(slow, by_count(8)), (over_time, by_count(8).time_window(10 * SECOND))] {
        let rig = Rig::new(Face::Plain, builder.minimum_calls(8));
        rig.breaker.restore(&serde_json::from_value(export).unwrap()).unwrap();
        let snapshot = rig.breaker.snapshot();
        assert_eq!((snapshot.calls, snapshot.failures, snapshot.slow_calls), (4, 2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_is_told_and_a_call_from_before_it_is_late() {
    for face in FACES {
        let open = expired(face, brittle()).await;
        let open = open.breaker.export();
        let rig = Rig::new(face, brittle());
        let mut changes = rig.breaker.subscribe();
        let late = rig.begun(ok(200).after(MS));
        rig.breaker.restore(&open).unwrap();
        assert_eq!(rig.changes.take(), ["closed > open 0/0 slow 0"]);
        assert_eq!(changes.changed().await, Some(State::Open));
        late.await.unwrap();
        assert_eq!(rig.breaker.snapshot().stale_results, 1);
        assert_eq!((rig.run("S").await.as_str(), rig.state()), ("S", State::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn an_isolation_is_neither_kept_nor_ended_by_a_restore() {
    let rig = Rig::new(Face::Plain, brittle());
    let guard = rig.breaker.isolate();
    let export = rig.breaker.export();
    assert_eq!(serde_json::to_value(&export).unwrap()["state"], "closed");
    rig.breaker.restore(&export).unwrap();
    assert_eq!(rig.state(), State::Isolated);
    drop(guard);
    assert_eq!(rig.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn windows_of_different_kinds_are_not_mixed() {
    let by_number = Rig::new(Face::Plain, by_count(10));
    let over_time = Rig::new(Face::Plain, by_time());
    for (from, to, value) in [
        (&by_number, &over_time, "\"of a number of calls\""),
        (&over_time, &by_number, "\"of calls over time\""),
    ] {
        to.breaker.force_open();
        let error = to.breaker.restore(&from.breaker.export()).unwrap_err();
        assert_eq!(
            (error.policy(), error.setting(), error.value()),
            ("payments", "restore", value)
        );
        assert_eq!(
            error.allowed(),
            "of the same kind of window as the breaker has: of a number of calls, or of time"
        );
        assert_eq!(to.state(), State::ForcedOpen, "nothing has changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_export_is_refused_and_nothing_has_changed() {
    let with = |calls: serde_json::Value| json!({ "openings": 0, "consecutive_failures": 0, "state": { "open": "1s" }, "calls": calls });
    let past = |age: &str, calls: u32, failures: u32, slow: u32| {
        with(json!({ "time": [{ "age": age, "calls": calls, "failures": failures, "slow_calls": slow }] }))
    };
    let cases = [
        (
            by_count(10),
            with(json!({ "count": ".F.x" })),
            "made of `.`, `F`, `s` and `S`",
        ),
        (
            by_count(10),
            with(json!({ "count": "ä" })),
            "made of `.`, `F`, `s` and `S`",
        ),
        (
            by_time(),
            past("0s", 1, 2, 0),
            "no more failures, and no more slow calls, than calls",
        ),
        (
            by_time(),
            past("0s", 1, 0, 2),
            "no more failures, and no more slow calls, than calls",
        ),
    ];
    for (builder, export, allowed) in cases {
        let rig = Rig::new(Face::Plain, builder);
        rig.run("F").await;
        rig.breaker.reset();
        let before = rig.breaker.snapshot();
        let export = serde_json::from_value(export).unwrap();
        let error = rig.breaker.restore(&export).unwrap_err();
        assert_eq!(
            (error.policy(), error.setting(), error.allowed()),
            ("payments", "restore", allowed)
        );
        assert_eq!(rig.breaker.snapshot(), before);
    }
}

#[test]
fn what_is_no_export_is_not_read() {
    let good = json!({ "openings": 0, "consecutive_failures": 0, "state": "closed", "calls": "none" });
    assert!(serde_json::from_value::<CircuitBreakerExport>(good.clone()).is_ok());
    for (field, value) in [
        ("openings", json!(-1)),
        ("openings", json!(4_294_967_296_u64)),
        ("consecutive_failures", json!("many")),
        ("state", json!("ajar")),
        ("state", json!({ "open": 5 })),
        ("state", json!("open")),
        ("forced", json!("shut")),
        ("calls", json!({ "count": 7 })),
        ("calls", json!({ "time": [{ "age": "1s" }] })),
        ("calls", json!({ "count": "", "time": [] })),
        ("rate", json!(1)),
    ] {
        let mut export = good.clone();
        export[field] = value.clone();
        let read = serde_json::from_value::<CircuitBreakerExport>(export);
        assert!(read.is_err(), "{field} = {value}: {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_number_in_an_export_is_too_large() {
    let most = u32::MAX;
    let past = json!({ "age": "0s", "calls": most, "failures": most, "slow_calls": most });
    let far = json!({ "age": "18446744073709551615s", "calls": 1, "failures": 1, "slow_calls": 1 });
    for (builder, calls) in [
        (by_time(), json!({ "time": [past, past, far] })),
        (by_count(3), json!({ "count": "F".repeat(100_000) })),
    ] {
        for backoff in [
            steadfast::Backoff::exponential,
            steadfast::Backoff::fibonacci,
            steadfast::Backoff::smooth,
        ] {
            let rig = Rig::new(
                Face::Plain,
                builder.clone().open_backoff(backoff(SECOND)).consecutive_failures(5),
            );
            let export = json!({
                "openings": most,
                "consecutive_failures": most,
                "state": { "open": "18446744073709551615s 999999999ns" },
                "calls": calls,
            });
            rig.breaker.restore(&serde_json::from_value(export).unwrap()).unwrap();
            assert_eq!(
                rig.rejection().await,
                Some(300 * SECOND),
                "no longer than this breaker allows"
            );
            advance(300 * SECOND).await;
            assert_eq!(rig.run("FF").await, "FF");
            let snapshot = rig.breaker.snapshot();
            assert_eq!((snapshot.state, snapshot.openings), (State::Open, most));
            assert!(snapshot.retry_after.unwrap() <= 300 * SECOND);
            let closed = json!({ "openings": 0, "consecutive_failures": most, "state": "closed", "calls": calls });
            rig.breaker.restore(&serde_json::from_value(closed).unwrap()).unwrap();
            assert_eq!(rig.run("F").await, "F");
            assert_eq!(rig.state(), State::Open);
        }
    }
}
