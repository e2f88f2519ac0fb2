//! Configurations from files: TOML, JSON and YAML say the same, what is wrong is named, and what was written is read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test does when it fails")]

use std::borrow::Cow;
use std::fmt::Debug;
use std::io;
use std::time::Duration;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use steadfast::retry::{Retry, RetryBudget, RetryBudgetConfig, RetryConfig, StopReason};
use steadfast::timeout::{Timeout, TimeoutConfig};
use steadfast::{Backoff, ConfigError, Jitter, Rejected, http};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// What a program might read at its start.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
struct Policies {
    budget: RetryBudgetConfig,
    reads: RetryConfig,
    writes: RetryConfig,
    timeout: TimeoutConfig,
}

/// The policies of the files beside this test, in code.
fn policies() -> Policies {
    let mut budget = RetryBudgetConfig::default();
    (budget.ratio, budget.floor) = (0.1, 2.0);

    let mut reads = RetryConfig::default();
    reads.name = Some("catalogue reads".into());
    reads.max_attempts = 5;
    reads.max_elapsed = Some(2 * S);
    reads.max_retry_after = 90 * S;
    reads.seed = Some(7);
    reads.backoff = Backoff::exponential(20 * MS)
        .factor(3.0)
        .max_delay(S)
        .jitter(Jitter::Proportional(0.25));

    let mut writes = RetryConfig::default();
    writes.backoff = Backoff::constant(Duration::from_micros(1_500)).jitter(Jitter::Equal);

    let mut timeout = TimeoutConfig::new(250 * MS);
    timeout.name = Some("catalogue attempt".into());
    Policies {
        budget,
        reads,
        writes,
        timeout,
    }
}

fn toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn retry(text: &str) -> Result<RetryConfig, String> {
    toml(text)
}

/// A retry whose backoff is 1 s, linear, and this.
fn backoff(rest: &str) -> Result<RetryConfig, String> {
    retry(&format!(r#"backoff = {{ kind = "linear", base = "1s", {rest} }}"#))
}

/// A retry with nothing but this for `max_elapsed`, or what is wrong with it.
fn elapsed(text: &str) -> Result<Duration, String> {
    let json = serde_json::json!({ "max_elapsed": text });
    let config = serde_json::from_value::<RetryConfig>(json).map_err(|error| error.to_string())?;
    Ok(config.max_elapsed.unwrap())
}

// What is in a file.

#[test]
fn a_file_says_what_code_says() {
    assert_eq!(
        toml::from_str::<Policies>(include_str!("config/policies.toml")).unwrap(),
        policies()
    );
    assert_eq!(
        serde_json::from_str::<Policies>(include_str!("config/policies.json")).unwrap(),
        policies()
    );
    assert_eq!(
        serde_yaml_ng::from_str::<Policies>(include_str!("config/policies.yaml")).unwrap(),
        policies()
    );
}

#[test]
fn a_policy_of_a_file_is_the_policy_of_the_setters() {
    let Policies { reads, timeout, .. } = policies();
    let set = Retry::builder()
        .name("catalogue reads")
        .max_attempts(5)
        .max_elapsed(2 * S)
        .max_retry_after(90 * S)
        .seed(7)
        .backoff(Backoff::exponential(20 * MS).factor(3.0))
        .max_delay(S)
        .jitter(Jitter::Proportional(0.25));
    let read = Retry::builder().config(reads);
    assert_eq!(format!("{read:?}"), format!("{set:?}"));
    let (read, set) = (read.build().unwrap(), set.build().unwrap());
    assert_eq!(format!("{read:?}"), format!("{set:?}"));

    let set = Timeout::new(250 * MS).name("catalogue attempt");
    assert_eq!(format!("{:?}", Timeout::from_config(timeout)), format!("{set:?}"));
    let unnamed = Timeout::from_config(TimeoutConfig::new(S));
    assert_eq!(format!("{unnamed:?}"), format!("{:?}", Timeout::new(S)));
}

#[test]
fn what_a_file_leaves_out_is_the_default() {
    assert_eq!(retry("").unwrap(), RetryConfig::default());
    assert_eq!(toml::<RetryBudgetConfig>("").unwrap(), RetryBudgetConfig::default());
    let nothing = r#"{ "name": null, "max_elapsed": null, "seed": null }"#;
    assert_eq!(
        serde_json::from_str::<RetryConfig>(nothing).unwrap(),
        RetryConfig::default()
    );
    let nothing =
        r#"{ "backoff": { "kind": "linear", "base": "1s", "factor": null, "max_delay": null, "jitter": null } }"#;
    assert_eq!(
        serde_json::from_str::<RetryConfig>(nothing).unwrap().backoff,
        Backoff::linear(S)
    );
    // A budget is built from these, and a timeout has no default.
    assert!(
        RetryBudget::builder()
            .config(RetryBudgetConfig::default())
            .build()
            .is_ok()
    );
    assert!(toml::<TimeoutConfig>("").unwrap_err().contains("missing field `limit`"));
}

/// Serde keeps the content of such an enum before it reads it.
#[test]
fn a_configuration_may_be_in_an_enum_of_the_program() {
    #[derive(Deserialize)]
    #[serde(tag = "policy", rename_all = "snake_case")]
    enum Policy {
        Retry(RetryConfig),
        Timeout(TimeoutConfig),
    }
    let text = r#"[
        { "policy": "retry", "backoff": { "kind": "linear", "base": "1s", "jitter": null, "max_delay": null } },
        { "policy": "retry", "backoff": { "kind": "linear", "base": "1s", "jitter": { "proportional": 1 } } },
        { "policy": "retry", "backoff": { "kind": "linear", "base": "1s", "jitter": "equal" } },
        { "policy": "timeout", "limit": "1s" }
    ]"#;
    let mut read = serde_json::from_str::<Vec<Policy>>(text).unwrap().into_iter();
    for jitter in [None, Some(Jitter::Proportional(1.0)), Some(Jitter::Equal)] {
        let linear = Backoff::linear(S);
        let expected = jitter.map_or(linear.clone(), |jitter| linear.jitter(jitter));
        assert!(matches!(read.next(), Some(Policy::Retry(retry)) if retry.backoff == expected));
    }
    assert!(matches!(read.next(), Some(Policy::Timeout(timeout)) if timeout == TimeoutConfig::new(S)));
}

#[test]
fn the_defaults_are_written_as_the_guide_has_them() {
    let written = toml::to_string(&RetryConfig::default()).unwrap();
    assert_eq!(
        written,
        "max_attempts = 3\nmax_retry_after = \"30s\"\n\n[backoff]\nkind = \"exponential\"\nbase = \"100ms\"\n"
    );
    let written = toml::to_string(&RetryBudgetConfig::default()).unwrap();
    assert_eq!(written, "ratio = 0.2\nfloor = 10.0\n");
}

#[test]
fn every_schedule_has_a_name() {
    for (kind, expected) in [
        ("constant", Backoff::constant(S)),
        ("linear", Backoff::linear(S)),
        ("exponential", Backoff::exponential(S)),
        ("fibonacci", Backoff::fibonacci(S)),
        ("decorrelated", Backoff::decorrelated(S)),
        ("smooth", Backoff::smooth(S)),
    ] {
        let read = retry(&format!(r#"backoff = {{ kind = "{kind}", base = "1s" }}"#)).unwrap();
        assert_eq!(read.backoff, expected);
    }
}

#[test]
fn every_jitter_has_a_name_or_a_table() {
    for (text, expected) in [
        (r#""none""#, Jitter::None),
        (r#""full""#, Jitter::Full),
        (r#""equal""#, Jitter::Equal),
        ("{ proportional = 0.5 }", Jitter::Proportional(0.5)),
        ("{ proportional = 1 }", Jitter::Proportional(1.0)),
        (r#"{ additive = "5ms" }"#, Jitter::Additive(5 * MS)),
    ] {
        let read = backoff(&format!("jitter = {text}")).unwrap();
        assert_eq!(read.backoff, Backoff::linear(S).jitter(expected));
    }
}

#[test]
fn yaml_takes_a_jitter_as_a_tag_too() {
    let tagged = "backoff: { kind: linear, base: 1s, jitter: !additive 5ms }";
    let read: RetryConfig = serde_yaml_ng::from_str(tagged).unwrap();
    assert_eq!(read.backoff, Backoff::linear(S).jitter(Jitter::Additive(5 * MS)));
}

#[test]
fn a_whole_number_is_a_fraction_too() {
    let read: RetryBudgetConfig = toml("ratio = 1\nfloor = 20").unwrap();
    assert_eq!(format!("{read:?}"), "RetryBudgetConfig { ratio: 1.0, floor: 20.0 }");
    let read = retry(r#"backoff = { kind = "exponential", base = "1s", factor = 2 }"#).unwrap();
    assert_eq!(read.backoff, Backoff::exponential(S).factor(2.0));
}

#[test]
fn code_is_not_written_to_a_file() {
    for backoff in [Backoff::function(|_| None), Backoff::sequence([S])] {
        let mut config = RetryConfig::default();
        config.backoff = backoff;
        let error = serde_json::to_string(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a backoff by a function or a sequence is code, and cannot be written to a file"
        );
    }
}

#[test]
fn a_function_is_equal_to_its_clone_alone() {
    let function = || Backoff::function(|_| None);
    let sequence = || Backoff::sequence([S]);
    for (one, other) in [(function(), function()), (sequence(), sequence())] {
        assert_eq!(one, one.clone());
        assert_ne!(one, other);
    }
    assert_ne!(Backoff::linear(S), Backoff::constant(S));
    assert_ne!(Backoff::linear(S), Backoff::linear(MS));
}

// Beside what is in a file.

#[test]
fn a_file_without_a_name_leaves_the_one_of_the_builder() {
    let name = |config| http::retry().config(config).build().unwrap().name().to_owned();
    assert_eq!(name(RetryConfig::default()), "http retry");
    assert_eq!(name(policies().reads), "catalogue reads");
    let unnamed = Retry::builder().config(RetryConfig::default()).build().unwrap();
    assert_eq!(unnamed.name(), "retry");
}

#[test]
fn what_is_set_after_the_file_wins() {
    let config = Retry::builder()
        .max_attempts(9)
        .config(policies().reads)
        .max_attempts(2);
    let shown = format!("{config:?}");
    assert!(shown.contains("max_attempts: 2"), "{shown}");
    assert!(shown.contains("max_elapsed: Some(2s)"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_file_leaves_the_budget_the_classifier_and_the_listener_alone() {
    let budget = RetryBudget::builder().ratio(0.0).floor(0.2).build().unwrap();
    let (heard, ends) = std::sync::mpsc::channel();
    let retry = Retry::builder()
        .budget(&budget)
        .retry_if(|error: &io::Error| error.kind() == io::ErrorKind::NotFound)
        .on_event(move |_| heard.send(()).unwrap())
        .config(policies().reads)
        .build()
        .unwrap();
    let fails = async |kind: io::ErrorKind| {
        let call = retry.call(|| async move { io::Result::<()>::Err(kind.into()) });
        let (_, report) = call.with_report().await;
        (report.attempts, report.stop)
    };
    assert_eq!(fails(io::ErrorKind::TimedOut).await, (1, StopReason::NotRetryable));
    // Two are in the floor of ten seconds.
    assert_eq!(fails(io::ErrorKind::NotFound).await, (3, StopReason::BudgetEmpty));
    assert_eq!(ends.try_iter().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_a_file_is_shared_by_who_is_given_it() {
    let budget: RetryBudgetConfig = toml("ratio = 0\nfloor = 0.2").unwrap();
    let budget = RetryBudget::builder().config(budget).build().unwrap();
    let retries = [policies().reads, policies().writes]
        .map(|config| Retry::builder().config(config).budget(&budget).build().unwrap());
    let mut made = 0;
    for retry in retries {
        let call = retry.call(|| async { Err::<(), _>(io::Error::other("down")) });
        made += call.with_report().await.1.attempts - 1;
    }
    assert_eq!(made, 2);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_a_file_is_one() {
    let timeout = Timeout::from_config(toml(r#"limit = "50ms""#).unwrap());
    let started = tokio::time::Instant::now();
    let rejected = timeout
        .call(std::future::pending::<Result<(), Rejected>>())
        .await
        .unwrap_err();
    assert_eq!((rejected.policy(), started.elapsed()), ("timeout", 50 * MS));
}

// What is wrong.

#[track_caller]
fn says(result: Result<impl Debug, String>, expected: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn an_unknown_key_is_named_and_so_are_the_known_ones() {
    says(
        retry("retries = 3"),
        "unknown field `retries`, expected one of `name`, `max_attempts`, `max_elapsed`, `max_retry_after`, `seed`, `backoff`",
    );
    says(
        backoff(r#"delay = "1s""#),
        "unknown field `delay`, expected one of `kind`, `base`, `factor`, `max_delay`, `jitter`",
    );
    says(
        toml::<RetryBudgetConfig>("share = 0.1"),
        "unknown field `share`, expected `ratio` or `floor`",
    );
    says(
        toml::<TimeoutConfig>("limit = '1s'\nmax = '1s'"),
        "unknown field `max`, expected `name` or `limit`",
    );
}

#[test]
fn an_error_points_at_its_place() {
    let error = retry("max_attempts = 3\nmax_elapsed = '5 parsecs'").unwrap_err();
    let (place, what) = error.split_once("invalid value").unwrap();
    assert_eq!(
        place,
        "TOML parse error at line 2, column 15\n  |\n2 | max_elapsed = '5 parsecs'\n  |               ^^^^^^^^^^^\n"
    );
    assert!(
        what.starts_with(
            r#": string "5 parsecs", expected a duration such as "250ms" or "1m 30s": unknown time unit "parsecs""#
        ),
        "{what}"
    );
    says(backoff("factor = 'x'"), "line 1, column 52");
    let error = serde_yaml_ng::from_str::<RetryConfig>("backoff: { kind: linear, base: 1 parsec }").unwrap_err();
    assert!(error.to_string().starts_with("backoff.base: "), "{error}");
}

#[test]
fn a_number_that_cannot_be_is_refused() {
    says(retry("max_attempts = -1"), "invalid value: integer `-1`, expected u32");
    says(
        retry("max_attempts = 4294967296"),
        "invalid value: integer `4294967296`, expected u32",
    );
    says(
        retry("max_attempts = 2.5"),
        "invalid type: floating point `2.5`, expected u32",
    );
    says(retry("seed = -1"), "invalid value: integer `-1`, expected u64");
    says(backoff("factor = 'x'"), r#"invalid type: string "x", expected f64"#);
}

#[test]
fn a_backoff_that_is_none_is_refused() {
    says(
        retry("backoff = 'linear'"),
        r#"invalid type: string "linear", expected a table of `kind`, `base` and what else a backoff has"#,
    );
    says(retry("backoff = {}"), "missing field `kind`");
    says(retry("backoff = { kind = 'linear' }"), "missing field `base`");
    says(
        retry("backoff = { kind = 'function', base = '1s' }"),
        "unknown variant `function`, expected one of \
         `constant`, `linear`, `exponential`, `fibonacci`, `decorrelated`, `smooth`",
    );
}

#[test]
fn a_jitter_that_is_none_is_refused() {
    let names = "expected one of `none`, `full`, `equal`, `proportional`, `additive`";
    for (text, error) in [
        ("'much'", &*format!("unknown variant `much`, {names}")),
        ("{ much = 1 }", &format!("unknown variant `much`, {names}")),
        ("3", &format!("invalid type: integer `3`, {names}")),
        ("{}", "invalid type: map, expected enum"),
        ("{ full = 1 }", "invalid type: integer `1`, expected unit"),
        (
            "'additive'",
            "`additive` alone says too little, expected `{ additive = .. }`",
        ),
        ("{ additive = 5 }", "invalid type: integer `5`, expected a duration"),
        ("{ proportional = 'x' }", r#"invalid type: string "x", expected f64"#),
        (
            "{ additive = '1s', proportional = 0.1 }",
            "`proportional` is one too many, expected only one of `none`, `full`",
        ),
    ] {
        says(backoff(&format!("jitter = {text}")), error);
    }
}

fn refused(config: Result<RetryConfig, String>) -> ConfigError {
    Retry::builder().config(config.unwrap()).build().unwrap_err()
}

#[test]
fn a_setting_out_of_range_is_refused_as_the_setter_would() {
    let of = |text: &str| refused(retry(text)).to_string();
    assert_eq!(
        of("name = 'payments'\nmax_attempts = 0"),
        "policy `payments`: max_attempts cannot be 0: it has to be at least 1"
    );
    assert_eq!(
        of("max_elapsed = '0s'"),
        "policy `retry`: max_elapsed cannot be 0ns: it has to be longer than 0"
    );
    let of = |text: &str| refused(backoff(text)).to_string();
    assert_eq!(
        of("factor = 2"),
        "policy `retry`: factor cannot be 2.0: it has to be left out, but for an exponential backoff"
    );
    assert_eq!(
        of("max_delay = '999ms'"),
        "policy `retry`: max_delay cannot be 999ms: it has to be at least 1s, the base of the backoff"
    );
    for fraction in ["-0.1", "1.1", "nan", "inf", "-inf"] {
        let error = of(&format!("jitter = {{ proportional = {fraction} }}"));
        assert!(
            error.ends_with("it has to be a fraction from 0.0 to 1.0"),
            "{fraction}: {error}"
        );
    }
    for (factor, value) in [
        ("0.5", "0.5"),
        ("-2", "-2.0"),
        ("nan", "NaN"),
        ("inf", "inf"),
        ("-inf", "-inf"),
    ] {
        let text = format!("backoff = {{ kind = 'exponential', base = '1s', factor = {factor} }}");
        let error = refused(retry(&text));
        assert_eq!((error.setting(), error.value()), ("factor", value));
    }
    for (setting, value) in [("ratio", "nan"), ("ratio", "-1"), ("floor", "inf"), ("floor", "1e9")] {
        let config = toml::<RetryBudgetConfig>(&format!("{setting} = {value}")).unwrap();
        let error = RetryBudget::builder().config(config).build().unwrap_err();
        assert_eq!((error.policy(), error.setting()), ("retry budget", setting));
    }
}

// Durations.

#[test]
fn a_duration_is_a_sum_of_numbers_with_units() {
    for (text, expected) in [
        ("0s", Duration::ZERO),
        ("1ns", Duration::from_nanos(1)),
        ("1500us", Duration::from_micros(1_500)),
        ("250ms", 250 * MS),
        ("250 ms", 250 * MS),
        ("0.25s", 250 * MS),
        ("90s", 90 * S),
        ("1m 30s", 90 * S),
        ("1m30s", 90 * S),
        ("1min 30sec", 90 * S),
        ("2h", 7_200 * S),
        ("1day", 86_400 * S),
        ("18446744073709551615s 999999999ns", Duration::MAX),
    ] {
        assert_eq!(elapsed(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_duration_without_a_unit_or_a_sense_is_refused() {
    for (text, error) in [
        ("", "value was empty"),
        ("250", "time unit needed"),
        ("ms", "expected number at 0"),
        ("-1s", "expected number at 0"),
        ("1s -1s", "expected number at 0"),
        ("inf", "expected number at 0"),
        ("NaN", "expected number at 0"),
        ("5 parsecs", r#"unknown time unit "parsecs""#),
        ("5M", r#"unknown time unit "M""#),
        ("1h 5 M", r#"unknown time unit "M""#),
        ("1,5s", "invalid character at 1"),
        ("0.1ns", "number is too large or cannot be represented"),
        ("18446744073709551616s", "number is too large"),
        ("18446744073709551615s 1000000000ns", "number is too large"),
        ("18446744073709551615s 500000000ns 500000000ns", "number is too large"),
        ("18446744073709551615s500000000ns500000000ns", "number is too large"),
    ] {
        let wrong = elapsed(text).unwrap_err();
        let start =
            format!(r#"invalid value: string "{text}", expected a duration such as "250ms" or "1m 30s": {error}"#);
        assert!(wrong.starts_with(&start), "{wrong}");
    }
    says(
        retry("max_elapsed = 250"),
        r#"invalid type: integer `250`, expected a duration such as "250ms" or "1m 30s""#,
    );
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        (0..100_000_u64).prop_map(Duration::from_millis),
        any::<u64>().prop_map(Duration::from_nanos),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn any_jitter() -> impl Strategy<Value = Jitter> {
    prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        (0.0..=1.0).prop_map(Jitter::Proportional),
        any_duration().prop_map(Jitter::Additive),
    ]
}

/// Any that a builder takes.
fn any_backoff() -> impl Strategy<Value = Backoff> {
    let factor = prop_oneof![Just(1.0), 1.0..10.0, Just(f64::MAX)];
    (
        0..6_usize,
        (any_duration(), any_duration()),
        prop::option::of(factor),
        prop::option::of(any_jitter()),
        any::<bool>(),
    )
        .prop_map(|(kind, (a, b), factor, jitter, capped)| {
            let kinds = [
                Backoff::constant,
                Backoff::linear,
                Backoff::exponential,
                Backoff::fibonacci,
                Backoff::decorrelated,
                Backoff::smooth,
            ];
            let base = if capped { a.min(b) } else { a.min(10 * S) };
            let mut backoff = kinds[kind](base);
            if capped {
                backoff = backoff.max_delay(a.max(b));
            }
            if let (2, Some(factor)) = (kind, factor) {
                backoff = backoff.factor(factor);
            }
            if let (0..4, Some(jitter)) = (kind, jitter) {
                backoff = backoff.jitter(jitter);
            }
            backoff
        })
}

fn any_name() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    prop::option::of(any::<String>().prop_map(Cow::Owned))
}

prop_compose! {
    /// Any that a builder takes.
    fn any_retry()(
        name in any_name(),
        max_attempts in 1..=u32::MAX,
        max_elapsed in prop::option::of(any_duration().prop_filter("longer than 0", |limit| !limit.is_zero())),
        max_retry_after in any_duration(),
        seed in prop::option::of(any::<u64>()),
        backoff in any_backoff(),
    ) -> RetryConfig {
        let mut config = RetryConfig::default();
        config.name = name;
        config.max_attempts = max_attempts;
        config.max_elapsed = max_elapsed;
        config.max_retry_after = max_retry_after;
        config.seed = seed;
        config.backoff = backoff;
        config
    }
}

prop_compose! {
    fn any_policies()(
        ratio in prop_oneof![Just(0.0), 0.000_1..=100.0],
        floor in prop_oneof![Just(0.0), 0.2..=1_000_000.0],
        reads in any_retry(),
        writes in any_retry(),
        name in any_name(),
        limit in any_duration(),
    ) -> Policies {
        let mut budget = RetryBudgetConfig::default();
        (budget.ratio, budget.floor) = (ratio, floor);
        let mut timeout = TimeoutConfig::new(limit);
        timeout.name = name;
        Policies { budget, reads, writes, timeout }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn what_was_written_is_read(policies in any_policies()) {
        prop_assert!(Retry::builder().config(policies.reads.clone()).build().is_ok());
        prop_assert!(RetryBudget::builder().config(policies.budget).build().is_ok());

        let toml = toml::to_string(&policies).unwrap();
        prop_assert_eq!(&toml::from_str::<Policies>(&toml).unwrap(), &policies);
        let json = serde_json::to_string(&policies).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Policies>(&json).unwrap(), &policies);
        let yaml = serde_yaml_ng::to_string(&policies).unwrap();
        prop_assert_eq!(&serde_yaml_ng::from_str::<Policies>(&yaml).unwrap(), &policies);
    }

    #[test]
    fn no_text_for_a_duration_panics(text in r"([0-9 .]{0,21}(ns|us|µs|ms|s|m|M|h|day|year| |é|-)){0,4}") {
        let _ = elapsed(&text);
    }

    #[test]
    fn the_last_second_is_neither_missed_nor_passed(nanos in prop::collection::vec(0..1_000_000_000_u64, 0..4)) {
        let spans: Vec<_> = nanos.iter().map(|nanos| format!(" {nanos}ns")).collect();
        let sum = Duration::from_secs(u64::MAX).checked_add(Duration::from_nanos(nanos.iter().sum()));
        prop_assert_eq!(elapsed(&format!("{}s{}", u64::MAX, spans.concat())).ok(), sum);
    }
}
