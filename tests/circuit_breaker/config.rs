//! A breaker from a file: TOML, JSON and YAML say the same, what is wrong is named, and what was written is read.

use std::borrow::Cow;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use steadfast::circuit_breaker::{Abandoned, CircuitBreakerConfig, Window};
use steadfast::{Backoff, Jitter};

use super::*;

/// What a program might read at its start.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Breakers {
    payments: CircuitBreakerConfig,
    search: CircuitBreakerConfig,
}

/// The breakers of the files beside this test, in code.
fn breakers() -> Breakers {
    let mut payments = CircuitBreakerConfig::default();
    payments.name = Some("payments".into());
    payments.failure_rate = Some(0.4);
    payments.slow_call_rate = Some(0.8);
    payments.slow_call_duration = Some(1_500 * MS);
    payments.consecutive_failures = Some(10);
    payments.minimum_calls = Some(5);
    payments.max_open_time = 120 * SECOND;
    payments.use_retry_after = true;
    payments.samples = 6;
    payments.success_rate = 1.0;
    payments.max_concurrent_probes = Some(2);
    payments.max_probe_time = 5 * SECOND;
    payments.shadow = true;
    payments.seed = Some(7);
    payments.window = Window::Time(30 * SECOND);
    payments.abandoned = Abandoned::FailureAfter(150 * MS);
    payments.open_backoff = Some(
        Backoff::exponential(5 * SECOND)
            .max_delay(60 * SECOND)
            .jitter(Jitter::Equal),
    );

    let mut search = CircuitBreakerConfig::default();
    search.failure_rate = None;
    search.consecutive_failures = Some(3);
    search.open_time = 30 * SECOND;
    search.window = Window::Count(500);
    search.abandoned = Abandoned::Ignore;
    Breakers { payments, search }
}

fn read(text: &str) -> Result<CircuitBreakerConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn a_file_says_what_code_says() {
    let toml = toml::from_str::<Breakers>(include_str!("config/breakers.toml"));
    assert_eq!(toml.unwrap(), breakers());
    let json = serde_json::from_str::<Breakers>(include_str!("config/breakers.json"));
    assert_eq!(json.unwrap(), breakers());
    let yaml = serde_yaml_ng::from_str::<Breakers>(include_str!("config/breakers.yaml"));
    assert_eq!(yaml.unwrap(), breakers());
}

#[test]
fn a_breaker_of_a_file_is_the_breaker_of_the_setters() {
    let Breakers { payments, search } = breakers();
    let set = CircuitBreaker::builder("payments")
        .failure_rate(0.4)
        .slow_call_rate(0.8)
        .slow_call_duration(1_500 * MS)
        .consecutive_failures(10)
        .time_window(30 * SECOND)
        .minimum_calls(5)
        .max_open_time(120 * SECOND)
        .use_retry_after(true)
        .samples(6)
        .success_rate(1.0)
        .max_concurrent_probes(2)
        .max_probe_time(5 * SECOND)
        .abandoned(Abandoned::FailureAfter(150 * MS))
        .shadow(true)
        .seed(7);
    let set = set.open_backoff(
        Backoff::exponential(5 * SECOND)
            .max_delay(60 * SECOND)
            .jitter(Jitter::Equal),
    );
    let of_file = CircuitBreaker::builder("by another name").config(payments);
    assert_eq!(format!("{of_file:?}"), format!("{set:?}"));
    assert!(of_file.build().unwrap().is_shadow());

    let set = CircuitBreaker::builder("search")
        .failure_rate(None)
        .consecutive_failures(3)
        .open_time(30 * SECOND)
        .count_window(500)
        .abandoned(Abandoned::Ignore);
    let of_file = CircuitBreaker::builder("search").config(search);
    assert_eq!(format!("{of_file:?}"), format!("{set:?}"));
}

#[test]
fn what_a_file_leaves_out_is_the_default() {
    assert_eq!(read("").unwrap(), CircuitBreakerConfig::default());
    let nothing = r#"{ "name": null, "slow_call_rate": null, "slow_call_duration": null, "consecutive_failures": null,
        "minimum_calls": null, "max_concurrent_probes": null, "seed": null, "open_backoff": null }"#;
    assert_eq!(
        serde_json::from_str::<CircuitBreakerConfig>(nothing).unwrap(),
        CircuitBreakerConfig::default()
    );
    assert_eq!(
        toml::to_string(&CircuitBreakerConfig::default()).unwrap(),
        "failure_rate = 0.5\nopen_time = \"10s\"\nmax_open_time = \"5m\"\nuse_retry_after = false\nsamples = 4\n\
         success_rate = 0.75\nmax_probe_time = \"30s\"\nshadow = false\n\n[window]\ncount = 100\n\n\
         [abandoned]\nfailure_after = \"1s\"\n"
    );
}

#[test]
fn a_rate_is_a_number_or_off() {
    for (text, rate) in [
        ("\"off\"", None),
        ("0.4", Some(0.4)),
        ("1", Some(1.0)),
        ("1.0", Some(1.0)),
    ] {
        assert_eq!(read(&format!("failure_rate = {text}")).unwrap().failure_rate, rate);
        let json = format!(r#"{{ "failure_rate": {text} }}"#);
        let config = serde_json::from_str::<CircuitBreakerConfig>(&json).unwrap();
        assert_eq!(config.failure_rate, rate);
    }
    let yaml = serde_yaml_ng::from_str::<CircuitBreakerConfig>("failure_rate: off").unwrap();
    assert_eq!(yaml.failure_rate, None);
    for text in ["\"on\"", "\"0.5\"", "true", "[]"] {
        let error = read(&format!("failure_rate = {text}")).unwrap_err();
        assert!(error.contains("expected a number or \"off\""), "{error}");
    }
    // Off alone is no breaker.
    let config = read("failure_rate = 'off'").unwrap();
    let error = CircuitBreaker::builder("payments").config(config).build().unwrap_err();
    assert_eq!((error.setting(), error.value()), ("failure_rate", "\"off\""));
}

#[test]
fn a_choice_is_a_name_or_a_table() {
    for (text, abandoned) in [
        ("'ignore'", Abandoned::Ignore),
        ("'failure'", Abandoned::Failure),
        ("{ failure_after = '5s' }", Abandoned::FailureAfter(5 * SECOND)),
    ] {
        assert_eq!(read(&format!("abandoned = {text}")).unwrap().abandoned, abandoned);
    }
    for (text, error) in [
        (
            "abandoned = 'never'",
            "unknown variant `never`, expected one of `ignore`, `failure`, `failure_after`",
        ),
        (
            "abandoned = 'failure_after'",
            "`failure_after` alone says too little, expected `{ failure_after = .. }`",
        ),
        (
            "abandoned = { failure_after = 5 }",
            "invalid type: integer `5`, expected a duration",
        ),
        (
            "window = 'count'",
            "`count` alone says too little, expected `{ count = .. }`",
        ),
        (
            "window = { calls = 5 }",
            "unknown variant `calls`, expected `count` or `time`",
        ),
        ("window = { count = -5 }", "invalid value: integer `-5`, expected u32"),
        ("window = { count = 5, time = '5s' }", "`time` is one too many"),
        (
            "window = { time = 5 }",
            "invalid type: integer `5`, expected a duration",
        ),
        ("window = 100", "expected one of `count`, `time`"),
        (
            "samples = 4294967296",
            "invalid value: integer `4294967296`, expected u32",
        ),
        ("open_time = 5", "invalid type: integer `5`, expected a duration"),
        (
            "rate = 0.5",
            "unknown field `rate`, expected one of `name`, `failure_rate`, `slow_call_rate`",
        ),
    ] {
        let wrong = read(text).unwrap_err();
        assert!(wrong.contains(error), "{wrong}");
    }
}

#[test]
fn a_setting_out_of_range_is_refused_as_the_setter_would() {
    for (text, expected) in [
        (
            "failure_rate = nan",
            "policy `payments`: failure_rate cannot be NaN: it has to be above 0.0 and at most 1.0",
        ),
        (
            "failure_rate = -1",
            "policy `payments`: failure_rate cannot be -1.0: it has to be above 0.0 and at most 1.0",
        ),
        (
            "window = { count = 0 }",
            "policy `payments`: count_window cannot be 0: it has to be from 1 to 1000000",
        ),
        (
            "window = { time = '9ms' }",
            "policy `payments`: time_window cannot be 9ms: it has to be at least 10ms",
        ),
        (
            "samples = 0",
            "policy `payments`: samples cannot be 0: it has to be from 1 to 1000",
        ),
        (
            "open_time = '10m'",
            "policy `payments`: open_time cannot be 600s: it has to be at most 300s, the max_open_time",
        ),
        (
            "max_probe_time = '0s'",
            "policy `payments`: max_probe_time cannot be 0ns: it has to be longer than 0",
        ),
    ] {
        let config = read(text).unwrap();
        let error = CircuitBreaker::builder("payments").config(config).build().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_leaves_name_classifier_and_listener_alone_and_what_is_set_after_it_wins() {
    let heard = Log::default();
    let log = heard.clone();
    let breaker = CircuitBreaker::builder("payments")
        .failure_if(|error: &Failure| matches!(error, Failure::Refused))
        .on_event(move |_| log.push(()))
        .config(breakers().search)
        .consecutive_failures(1)
        .build()
        .unwrap();
    assert_eq!(breaker.name(), "payments");
    breaker.call(async { Err::<u32, _>(Failure::Down) }).await.unwrap_err();
    assert_eq!((breaker.state(), heard.take().len()), (State::Closed, 1));
    breaker
        .call(async { Err::<u32, _>(Failure::Refused) })
        .await
        .unwrap_err();
    assert_eq!(
        (breaker.state(), breaker.snapshot().retry_after),
        (State::Open, Some(30 * SECOND))
    );
    let named = CircuitBreaker::builder("by another name").config(breakers().payments);
    assert_eq!(named.build().unwrap().name(), "payments");
    // An open time that is set after a file takes the place of its backoff.
    let set = CircuitBreaker::builder("payments")
        .config(breakers().payments)
        .open_time(SECOND);
    let set = set
        .failure_rate(0.5)
        .consecutive_failures(1)
        .shadow(false)
        .build()
        .unwrap();
    set.call(async { Err::<u32, _>(Failure::Down) }).await.unwrap_err();
    assert_eq!(set.snapshot().retry_after, Some(SECOND));
}

#[test]
fn a_configuration_may_be_in_an_enum_of_the_program() {
    #[derive(Deserialize)]
    #[serde(tag = "policy", rename_all = "snake_case")]
    enum Policy {
        CircuitBreaker(Box<CircuitBreakerConfig>),
    }

    let text = r#"[
        { "policy": "circuit_breaker", "window": { "time": "30s" }, "abandoned": "ignore", "failure_rate": "off" },
        { "policy": "circuit_breaker", "window": { "count": 7 }, "abandoned": { "failure_after": "1ms" } }
    ]"#;
    let read = serde_json::from_str::<Vec<Policy>>(text).unwrap();
    let expected = [
        (None, Window::Time(30 * SECOND), Abandoned::Ignore),
        (Some(0.5), Window::Count(7), Abandoned::FailureAfter(MS)),
    ];
    for (Policy::CircuitBreaker(config), expected) in read.into_iter().zip(expected) {
        assert_eq!((config.failure_rate, config.window, config.abandoned), expected);
    }
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        (1..100_000_u64).prop_map(Duration::from_millis),
        (any::<u64>(), 1..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn any_rate() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), Just(f64::MIN_POSITIVE), 1e-9..=1.0]
}

prop_compose! {
    /// What has two values that have to fit each other.
    fn any_times()(
        one in any_duration(),
        other in any_duration(),
        kind in 0..4_usize,
        backoff in any::<bool>(),
    ) -> (Duration, Duration, Option<Backoff>) {
        let kinds = [Backoff::constant, Backoff::linear, Backoff::exponential, Backoff::fibonacci];
        let (open_time, longest) = (one.min(other), one.max(other));
        (open_time, longest, backoff.then(|| kinds[kind](open_time)))
    }
}

prop_compose! {
    /// Any that a builder takes.
    fn any_config()(
        name in prop::option::of(any::<String>().prop_map(Cow::Owned)),
        failure_rate in prop::option::of(any_rate()),
        slow in prop::option::of((any_rate(), any_duration())),
        consecutive_failures in 1..=u32::MAX,
        window in prop_oneof![
            (1..=1_000_u32).prop_map(Window::Count),
            any_duration().prop_map(|time| Window::Time(time.max(10 * MS))),
        ],
        minimum in prop::option::of(any::<prop::sample::Index>()),
        (open_time, max_open_time, open_backoff) in any_times(),
        flags in any::<(bool, bool)>(),
        (samples, at_once) in (1..=1_000_u32).prop_flat_map(|samples| (Just(samples), prop::option::of(1..=samples))),
        success_rate in any_rate(),
        max_probe_time in any_duration(),
        seed in prop::option::of(any::<u64>()),
        abandoned in prop_oneof![
            Just(Abandoned::Ignore),
            Just(Abandoned::Failure),
            any_duration().prop_map(Abandoned::FailureAfter),
        ],
    ) -> CircuitBreakerConfig {
        let mut config = CircuitBreakerConfig::default();
        config.name = name;
        config.failure_rate = failure_rate;
        (config.slow_call_rate, config.slow_call_duration) = slow.unzip();
        config.consecutive_failures = Some(consecutive_failures);
        config.window = window;
        config.minimum_calls = minimum.map(|minimum| {
            let most = if let Window::Count(most) = window { most } else { u32::MAX };
            1 + u32::try_from(minimum.index(usize::try_from(most).unwrap())).unwrap()
        });
        (config.open_time, config.max_open_time, config.open_backoff) = (open_time, max_open_time, open_backoff);
        (config.use_retry_after, config.shadow) = flags;
        (config.samples, config.max_concurrent_probes) = (samples, at_once);
        config.success_rate = success_rate;
        config.max_probe_time = max_probe_time;
        config.seed = seed;
        config.abandoned = abandoned;
        config
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_was_written_is_read(config in any_config()) {
        let built = CircuitBreaker::builder("payments").config(config.clone()).build();
        prop_assert!(built.is_ok(), "{:?}", built);
        let toml = toml::to_string(&config).unwrap();
        prop_assert_eq!(&toml::from_str::<CircuitBreakerConfig>(&toml).unwrap(), &config);
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&serde_json::from_str::<CircuitBreakerConfig>(&json).unwrap(), &config);
        let yaml = serde_yaml_ng::to_string(&config).unwrap();
        prop_assert_eq!(&serde_yaml_ng::from_str::<CircuitBreakerConfig>(&yaml).unwrap(), &config);
    }
}
