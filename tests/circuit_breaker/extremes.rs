//! Every setting at its extremes, through build, call and layer: a `ConfigError` that names it, or what it says.

use steadfast::circuit_breaker::{
    Abandoned, CircuitBreakerConfig, DEFAULT_ABANDONED, DEFAULT_FAILURE_RATE, DEFAULT_MAX_OPEN_TIME,
    DEFAULT_MAX_PROBE_TIME, DEFAULT_MINIMUM_CALLS, DEFAULT_OPEN_TIME, DEFAULT_SAMPLES, DEFAULT_SUCCESS_RATE,
    DEFAULT_WINDOW, Window,
};
use steadfast::{Backoff, Jitter};

use super::*;

const NS: Duration = Duration::from_nanos(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const LONGEST: Duration = Duration::from_nanos(u64::MAX);

fn builder() -> CircuitBreakerBuilder {
    CircuitBreaker::builder("payments")
}

/// What is refused, as `setting: value: allowed`.
#[track_caller]
fn refused(builder: CircuitBreakerBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.policy(), "payments");
    for part in [error.setting(), error.value(), error.allowed()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    format!("{}: {}: {}", error.setting(), error.value(), error.allowed())
}

#[test]
fn a_rate_is_a_share_and_nothing_else() {
    type Setter = fn(CircuitBreakerBuilder, f64) -> CircuitBreakerBuilder;
    let setters: [(&str, Setter); 3] = [
        ("failure_rate", |builder, rate| builder.failure_rate(rate)),
        ("slow_call_rate", |builder, rate| {
            builder.slow_call_rate(rate).slow_call_duration(SECOND)
        }),
        ("success_rate", |builder, rate| builder.success_rate(rate)),
    ];
    for (setting, set) in setters {
        for (rate, value) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (-1.0, "-1.0"),
            (1.0 + f64::EPSILON, "1.0000000000000002"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN, "-1.7976931348623157e308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
        ] {
            let expected = format!("{setting}: {value}: above 0.0 and at most 1.0");
            assert_eq!(refused(set(builder(), rate)), expected);
        }
        for rate in [f64::MIN_POSITIVE, f64::EPSILON, 0.5, 1.0] {
            set(builder(), rate).build().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_smallest_and_the_largest_failure_rate() {
    for face in FACES {
        let rig = Rig::new(
            face,
            by_count(1_000).minimum_calls(1_000).failure_rate(f64::MIN_POSITIVE),
        );
        rig.run(&"S".repeat(999)).await;
        rig.run("F").await;
        assert_eq!(rig.state(), State::Open, "a single failure of a thousand");
        let rig = Rig::new(face, by_count(10).minimum_calls(10).failure_rate(1.0));
        rig.run("FFFFFFFFFSFFFFFFFFF").await;
        assert_eq!(rig.state(), State::Closed);
        rig.run("F").await;
        assert_eq!(rig.state(), State::Open);
    }
}

#[test]
fn a_number_out_of_range_is_refused_with_its_range() {
    for (builder, expected) in [
        (builder().count_window(0), "count_window: 0: from 1 to 1000000"),
        (
            builder().count_window(1_000_001),
            "count_window: 1000001: from 1 to 1000000",
        ),
        (
            builder().count_window(u32::MAX),
            "count_window: 4294967295: from 1 to 1000000",
        ),
        (builder().minimum_calls(0), "minimum_calls: 0: from 1 to 100"),
        (builder().minimum_calls(101), "minimum_calls: 101: from 1 to 100"),
        (
            builder().minimum_calls(u32::MAX),
            "minimum_calls: 4294967295: from 1 to 100",
        ),
        (
            builder().time_window(SECOND).minimum_calls(0),
            "minimum_calls: 0: from 1 to 4294967295",
        ),
        (
            builder().consecutive_failures(0),
            "consecutive_failures: 0: from 1 to 4294967295",
        ),
        (builder().samples(0), "samples: 0: from 1 to 1000"),
        (builder().samples(1_001), "samples: 1001: from 1 to 1000"),
        (builder().samples(u32::MAX), "samples: 4294967295: from 1 to 1000"),
        (
            builder().max_concurrent_probes(0),
            "max_concurrent_probes: 0: from 1 to 4",
        ),
        (
            builder().max_concurrent_probes(5),
            "max_concurrent_probes: 5: from 1 to 4",
        ),
        (
            builder().max_concurrent_probes(u32::MAX),
            "max_concurrent_probes: 4294967295: from 1 to 4",
        ),
    ] {
        assert_eq!(refused(builder), expected);
    }
}

#[test]
fn a_time_out_of_range_is_refused_with_its_range() {
    let open_backoff = |base| builder().open_backoff(Backoff::exponential(base));
    for (builder, expected) in [
        (builder().time_window(ZERO), "time_window: 0ns: at least 10ms"),
        (builder().time_window(NS), "time_window: 1ns: at least 10ms"),
        (
            builder().time_window(10 * MS - NS),
            "time_window: 9.999999ms: at least 10ms",
        ),
        (builder().open_time(ZERO), "open_time: 0ns: longer than 0"),
        (
            builder().open_time(301 * SECOND),
            "open_time: 301s: at most 300s, the max_open_time",
        ),
        (
            builder().open_time(Duration::MAX),
            "open_time: 18446744073709551615.999999999s: at most 300s, the max_open_time",
        ),
        (builder().max_open_time(ZERO), "max_open_time: 0ns: longer than 0"),
        (
            builder().max_open_time(NS),
            "open_time: 10s: at most 1ns, the max_open_time",
        ),
        (builder().max_probe_time(ZERO), "max_probe_time: 0ns: longer than 0"),
        (
            builder().slow_call_rate(0.5).slow_call_duration(ZERO),
            "slow_call_duration: 0ns: longer than 0",
        ),
        (
            open_backoff(ZERO),
            "open_backoff: 0ns: based on more than 0, and at most 300s, the max_open_time",
        ),
        (
            open_backoff(301 * SECOND),
            "open_backoff: 301s: based on more than 0, and at most 300s, the max_open_time",
        ),
        (
            builder().open_backoff(Backoff::function(|_| None)),
            "open_backoff: \"a function or a sequence\": constant, linear, exponential, fibonacci, decorrelated or smooth",
        ),
        (
            builder().open_backoff(Backoff::exponential(SECOND).factor(0.5)),
            "factor: 0.5: finite and at least 1.0",
        ),
        (
            builder().open_backoff(Backoff::exponential(SECOND).factor(f64::NAN)),
            "factor: NaN: finite and at least 1.0",
        ),
    ] {
        assert_eq!(refused(builder), expected);
    }
}

#[test]
fn rules_that_need_each_other_are_named_together() {
    for (builder, expected) in [
        (
            builder().slow_call_rate(0.5),
            "slow_call_rate: 0.5: left out, or set together with slow_call_duration",
        ),
        (
            builder().slow_call_duration(SECOND),
            "slow_call_duration: 1s: left out, or set together with slow_call_rate",
        ),
        (
            builder().failure_rate(None),
            "failure_rate: \"off\": a rate, where neither slow_call_rate nor consecutive_failures is set",
        ),
    ] {
        assert_eq!(refused(builder), expected);
    }
    builder().failure_rate(None).consecutive_failures(1).build().unwrap();
    let slow = builder().slow_call_rate(0.5).slow_call_duration(SECOND);
    slow.failure_rate(None).build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_smallest_window_holds_the_last_call() {
    for face in FACES {
        let rig = Rig::new(face, by_count(1));
        rig.run("SSS").await;
        assert_eq!((rig.counts(), rig.state()), ((1, 0), State::Closed));
        rig.run("F").await;
        assert_eq!(rig.changes.take(), ["closed > open 1/1 slow 0"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_window_holds_a_million_calls() {
    let breaker = by_count(1_000_000)
        .failure_rate(1.0)
        .minimum_calls(1_000_000)
        .build()
        .unwrap();
    let run = |fails: bool| {
        let result = if fails { Err(Failure::Down) } else { Ok(200) };
        assert!(support::poll_once(std::pin::pin!(breaker.call(std::future::ready(result)))).is_ready());
    };
    run(false);
    for _ in 0..1_000_000 - 1 {
        run(true);
    }
    let full = breaker.snapshot();
    assert_eq!(
        (full.state, full.calls, full.failures),
        (State::Closed, 1_000_000, 999_999)
    );
    run(true);
    assert_eq!(breaker.state(), State::Open, "the success has left it");
}

#[tokio::test(start_paused = true)]
async fn the_shortest_window_of_time_slides_by_a_millisecond() {
    for face in FACES {
        let rig = Rig::new(face, by_time().time_window(10 * MS).minimum_calls(100));
        for n in 1..=10 {
            rig.run("F").await;
            assert_eq!(rig.counts(), (n, n));
            advance(MS).await;
        }
        assert_eq!(rig.counts(), (9, 9));
        advance(8 * MS).await;
        assert_eq!(rig.counts(), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_window_of_time_forgets_nothing() {
    for face in FACES {
        let rig = Rig::new(face, by_time().time_window(Duration::MAX).minimum_calls(u32::MAX));
        rig.run("FS").await;
        advance(100 * YEAR).await;
        rig.run("F").await;
        assert_eq!(rig.counts(), (3, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_open_time_ends_in_no_life() {
    for face in FACES {
        for builder in [
            brittle().max_open_time(Duration::MAX).open_time(Duration::MAX),
            brittle()
                .max_open_time(Duration::MAX)
                .open_backoff(Backoff::constant(Duration::MAX)),
            brittle()
                .max_open_time(Duration::MAX)
                .open_backoff(Backoff::exponential(Duration::MAX).factor(f64::MAX)),
        ] {
            let rig = Rig::new(face, builder);
            rig.run("F").await;
            assert_eq!(rig.rejection().await, Some(LONGEST));
            advance(100 * YEAR).await;
            assert_eq!(rig.rejection().await, Some(LONGEST - 100 * YEAR));
            let export = rig.breaker.export();
            rig.breaker.restore(&export).unwrap();
            assert_eq!(rig.run("S").await, "x");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_open_time_is_over_with_the_next_tick() {
    for face in FACES {
        let rig = Rig::new(face, brittle().open_time(NS).max_open_time(NS));
        rig.run("F").await;
        assert_eq!(rig.rejection().await, Some(NS));
        advance(NS).await;
        assert_eq!(rig.run("S").await, "S");
        assert_eq!(rig.state(), State::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_time_grows_to_its_limit_however_often_it_opens() {
    type Shape = fn(Duration) -> Backoff;
    let shapes: [(Shape, Option<Jitter>); 6] = [
        (Backoff::linear, Some(Jitter::Full)),
        (Backoff::exponential, Some(Jitter::Equal)),
        (Backoff::fibonacci, Some(Jitter::Proportional(1.0))),
        (Backoff::exponential, Some(Jitter::Additive(Duration::MAX))),
        (Backoff::decorrelated, None),
        (Backoff::smooth, None),
    ];
    for (backoff, jitter) in shapes {
        let backoff = jitter.map_or_else(|| backoff(SECOND), |jitter| backoff(SECOND).jitter(jitter));
        let rig = Rig::new(
            Face::Plain,
            brittle().open_backoff(backoff).max_open_time(60 * SECOND).seed(7),
        );
        for n in 1..2_000 {
            rig.run("F").await;
            let snapshot = rig.breaker.snapshot();
            assert_eq!((snapshot.state, snapshot.openings), (State::Open, n));
            let wait = snapshot.retry_after.unwrap();
            assert!(wait <= 60 * SECOND, "{wait:?}");
            advance(wait).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_probe_time_gives_nobody_up_and_the_shortest_everybody() {
    for face in FACES {
        let rig = expired(face, brittle().max_probe_time(Duration::MAX)).await;
        let probe = rig.hanging();
        advance(100 * YEAR).await;
        assert_eq!(rig.rejection().await, None);
        drop(probe);

        let rig = expired(face, brittle().max_probe_time(NS)).await;
        assert_eq!(rig.run("S").await, "S", "it took no time at all");
        assert_eq!(rig.state(), State::Closed);
        let rig = expired(face, brittle().max_probe_time(NS)).await;
        assert_eq!(rig.call(ok(200).after(MS)).await.unwrap(), 200);
        assert_eq!(rig.state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_samples_are_a_thousand_probes_at_once() {
    for face in FACES {
        let rig = expired(face, brittle().samples(1_000)).await;
        let probes: Vec<_> = (0..1_000).map(|_| rig.begun(ok(200).after(MS))).collect();
        assert_eq!((rig.rejection().await, rig.in_flight()), (None, 1_000));
        futures::future::join_all(probes).await;
        assert_eq!((rig.state(), rig.in_flight()), (State::Closed, 0));
        // And one at a time, by the strictest of rates.
        let rig = expired(face, brittle().samples(1_000).max_concurrent_probes(1)).await;
        let probe = rig.hanging();
        assert_eq!(rig.rejection().await, None);
        drop(probe);
        rig.run(&"S".repeat(999)).await;
        assert_eq!(rig.state(), State::HalfOpen);
        rig.run("S").await;
        assert_eq!(rig.state(), State::Closed);
        let rig = expired(face, brittle().samples(1_000).success_rate(f64::MIN_POSITIVE)).await;
        rig.run(&"F".repeat(999)).await;
        rig.run("S").await;
        assert_eq!(rig.state(), State::Closed, "one good sample is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_from_the_first_nanosecond_on_or_never() {
    for face in FACES {
        let slow = |limit| by_count(10).slow_call_rate(1.0).slow_call_duration(limit);
        let rig = Rig::new(face, slow(NS));
        rig.run("S").await;
        assert_eq!(rig.state(), State::Closed);
        assert_eq!(rig.call(ok(200).after(MS)).await.unwrap(), 200);
        rig.breaker.reset();
        assert_eq!(rig.call(ok(200).after(MS)).await.unwrap(), 200);
        assert_eq!(rig.state(), State::Open);
        let rig = Rig::new(face, slow(Duration::MAX));
        assert_eq!(rig.call(ok(200).after(365 * 86_400 * SECOND)).await.unwrap(), 200);
        assert_eq!(rig.breaker.snapshot().slow_calls, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_failures_in_a_row_are_never_reached() {
    for face in FACES {
        let rig = Rig::new(face, builder().failure_rate(None).consecutive_failures(u32::MAX));
        rig.run(&"F".repeat(1_000)).await;
        assert_eq!(
            (rig.state(), rig.breaker.snapshot().consecutive_failures),
            (State::Closed, 1_000)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_abandoned_after_no_time_or_never() {
    for face in FACES {
        for (abandoned, failures) in [
            (Abandoned::FailureAfter(ZERO), 1),
            (Abandoned::FailureAfter(NS), 0),
            (Abandoned::FailureAfter(Duration::MAX), 0),
        ] {
            let rig = Rig::new(face, by_count(10).minimum_calls(10).abandoned(abandoned));
            drop(rig.hanging());
            assert_eq!(rig.counts(), (failures, failures), "{abandoned:?}");
        }
        let rig = Rig::new(
            face,
            by_count(10)
                .minimum_calls(10)
                .abandoned(Abandoned::FailureAfter(Duration::MAX)),
        );
        let call = rig.hanging();
        advance(100 * YEAR).await;
        drop(call);
        assert_eq!(rig.counts(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_hint_is_cut_to_the_longest_open_time() {
    for face in FACES {
        for (longest, opened) in [(300 * SECOND, 300 * SECOND), (Duration::MAX, LONGEST)] {
            let rig = Rig::new(face, brittle().use_retry_after(true).max_open_time(longest));
            rig.call(fail(Failure::Busy(Some(Duration::MAX)))).await.unwrap_err();
            assert_eq!(rig.rejection().await, Some(opened));
        }
        let rig = Rig::new(face, brittle().use_retry_after(true));
        rig.call(fail(Failure::Busy(Some(NS)))).await.unwrap_err();
        assert_eq!(rig.rejection().await, Some(NS));
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_of_a_hundred_years_works_like_a_new_one() {
    for face in FACES {
        for builder in [
            builder(),
            by_time().slow_call_duration(SECOND),
            by_time().time_window(10 * MS),
            by_time().time_window(SECOND),
            brittle(),
        ] {
            let builder = builder.minimum_calls(5).samples(1);
            let rig = Rig::new(face, builder);
            rig.run("SSSS").await;
            for _ in 0..2 {
                advance(100 * YEAR).await;
                rig.run("FFFFF").await;
                let wait = rig.rejection().await.expect("it does not open");
                advance(wait).await;
                assert_eq!(rig.run("S").await, "S");
                assert_eq!(rig.state(), State::Closed);
            }
        }
    }
}

/// The counters of the shortest window know their turn by 32 bits, which go around in 497 days.
#[tokio::test(start_paused = true)]
async fn a_breaker_that_nobody_asked_for_months_counts_the_next_calls() {
    for days in [100, 249, 300, 400, 498, 750, 1_000] {
        let rig = Rig::new(Face::Plain, by_time().time_window(10 * MS));
        rig.run("SSSSSSSSSS").await;
        advance(Duration::from_secs(days * 86_400)).await;
        rig.run("FFFFF").await;
        assert_eq!(rig.state(), State::Open, "after {days} days");
    }
}

#[test]
fn the_defaults_are_those_of_the_tables() {
    let guide = include_str!("../../docs/circuit_breaker.md");
    let setters = include_str!("../../src/circuit_breaker/builder.rs");
    let (Window::Count(window), Abandoned::FailureAfter(abandoned)) = (DEFAULT_WINDOW, DEFAULT_ABANDONED) else {
        panic!("other kinds of defaults");
    };
    let abandoned = abandoned.as_secs();
    let lines = [
        (guide, format!("| `failure_rate` | {DEFAULT_FAILURE_RATE} |")),
        (setters, format!("Default: {DEFAULT_FAILURE_RATE}.")),
        (
            guide,
            "| `slow_call_rate`, `slow_call_duration` | no such rule |".to_owned(),
        ),
        (guide, "| `consecutive_failures` | no such rule |".to_owned()),
        (guide, format!("| window | the last {window} calls |")),
        (setters, format!("from 1 to 1,000,000. Default: {window}.")),
        (
            guide,
            format!("| `minimum_calls` | {DEFAULT_MINIMUM_CALLS}, or a smaller count window's length |"),
        ),
        (setters, format!("Default: {DEFAULT_MINIMUM_CALLS}, or a smaller")),
        (guide, format!("| `open_time` | {} s |", DEFAULT_OPEN_TIME.as_secs())),
        (setters, format!("Default: {} s.", DEFAULT_OPEN_TIME.as_secs())),
        (
            guide,
            format!("| `max_open_time` | {} min |", DEFAULT_MAX_OPEN_TIME.as_secs() / 60),
        ),
        (
            setters,
            format!("Default: {} min.", DEFAULT_MAX_OPEN_TIME.as_secs() / 60),
        ),
        (guide, "| `use_retry_after` | false |".to_owned()),
        (guide, format!("| `samples` | {DEFAULT_SAMPLES} |")),
        (setters, format!("from 1 to 1,000. Default: {DEFAULT_SAMPLES}.")),
        (guide, format!("| `success_rate` | {DEFAULT_SUCCESS_RATE} |")),
        (setters, format!("Default: {DEFAULT_SUCCESS_RATE}.")),
        (
            guide,
            "| `max_concurrent_probes` | as many as there are samples |".to_owned(),
        ),
        (
            guide,
            format!("| `max_probe_time` | {} s |", DEFAULT_MAX_PROBE_TIME.as_secs()),
        ),
        (setters, format!("Default: {} s.", DEFAULT_MAX_PROBE_TIME.as_secs())),
        (
            guide,
            format!("| `abandoned` | a failure, if it had been pending for {abandoned} s |"),
        ),
        (
            setters,
            format!("Default: a failure, if it had been pending for {abandoned} s."),
        ),
    ];
    for (text, line) in lines {
        assert!(text.contains(&line), "no longer written: {line}");
    }
    let config = CircuitBreakerConfig::default();
    assert_eq!(
        (config.failure_rate, config.window, config.abandoned),
        (Some(DEFAULT_FAILURE_RATE), DEFAULT_WINDOW, DEFAULT_ABANDONED)
    );
    assert_eq!(
        (config.open_time, config.max_open_time, config.max_probe_time),
        (DEFAULT_OPEN_TIME, DEFAULT_MAX_OPEN_TIME, DEFAULT_MAX_PROBE_TIME)
    );
    assert_eq!(
        (config.samples, config.success_rate),
        (DEFAULT_SAMPLES, DEFAULT_SUCCESS_RATE)
    );
}

#[tokio::test(start_paused = true)]
async fn a_breaker_without_any_setting_does_as_its_defaults_say() {
    for face in FACES {
        let rig = Rig::new(face, builder());
        rig.run(&"F".repeat(19)).await;
        assert_eq!(rig.state(), State::Closed, "below the minimum");
        rig.run("F").await;
        assert_eq!(rig.rejection().await, Some(10 * SECOND));
        advance(10 * SECOND).await;
        let mut probes: Vec<_> = (0..4).map(|_| rig.hanging()).collect();
        assert_eq!(rig.rejection().await, None);
        probes.truncate(1);
        assert_eq!(rig.run("SS").await, "SS");
        advance(30 * SECOND).await;
        // One of four has failed by now, which is one that may.
        assert_eq!(rig.run("S").await, "S");
        assert_eq!(rig.state(), State::Closed);
        drop(probes);
        // A count window below the minimum is its own minimum.
        let rig = Rig::new(face, builder().count_window(3));
        rig.run("FF").await;
        assert_eq!(rig.state(), State::Closed);
        rig.run("F").await;
        assert_eq!(rig.state(), State::Open);
    }
}
