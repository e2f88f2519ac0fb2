//! A bulkhead from a file.

use std::time::Duration;

use proptest::prelude::*;
use steadfast::bulkhead::{Bulkhead, BulkheadConfig};

use super::ms;

/// The configuration of the files in `tests/config`, in code.
fn ledger() -> BulkheadConfig {
    let mut config = BulkheadConfig::default();
    config.name = Some("ledger".into());
    config.max_concurrent = 16;
    config.max_queued = 8;
    config.max_wait = Some(ms(50));
    config
}

fn read(text: &str) -> Result<BulkheadConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn a_file_says_what_code_says() {
    assert_eq!(read(include_str!("../config/bulkhead.toml")).unwrap(), ledger());
    let json = serde_json::from_str::<BulkheadConfig>(include_str!("../config/bulkhead.json"));
    assert_eq!(json.unwrap(), ledger());
    let yaml = serde_yaml_ng::from_str::<BulkheadConfig>(include_str!("../config/bulkhead.yaml"));
    assert_eq!(yaml.unwrap(), ledger());
}

#[test]
fn a_bulkhead_of_a_file_is_the_one_of_the_setters() {
    let set = Bulkhead::builder("ledger")
        .max_concurrent(16)
        .max_queued(8)
        .max_wait(ms(50));
    let read = Bulkhead::builder("lanes").config(ledger());
    assert_eq!(format!("{read:?}"), format!("{set:?}"));
    assert_eq!(read.build().unwrap().snapshot(), set.build().unwrap().snapshot());
}

#[test]
fn what_a_file_leaves_out_is_the_default() {
    assert_eq!(read("").unwrap(), BulkheadConfig::default());
    let nothing = r#"{ "name": null, "max_wait": null }"#;
    assert_eq!(
        serde_json::from_str::<BulkheadConfig>(nothing).unwrap(),
        BulkheadConfig::default()
    );
    let unnamed = Bulkhead::builder("lanes")
        .config(BulkheadConfig::default())
        .build()
        .unwrap();
    let set = Bulkhead::builder("lanes").build().unwrap();
    assert_eq!((unnamed.name(), unnamed.snapshot()), ("lanes", set.snapshot()));
    let written = toml::to_string(&BulkheadConfig::default()).unwrap();
    assert_eq!(written, "max_concurrent = 64\nmax_queued = 0\n");
}

#[test]
fn what_is_set_after_the_file_wins_and_the_listener_stays() {
    let (heard, events) = std::sync::mpsc::channel();
    let bulkhead = Bulkhead::builder("lanes")
        .on_event(move |_| heard.send(()).unwrap())
        .max_concurrent(3)
        .config(ledger())
        .max_queued(2)
        .build()
        .unwrap();
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.max_concurrent, snapshot.max_queued), (16, 2));
    drop(bulkhead.try_acquire().unwrap());
    assert_eq!(events.try_iter().count(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    let unknown = read("max_concurent = 3").unwrap_err();
    let keys = "unknown field `max_concurent`, expected one of `name`, `max_concurrent`, `max_queued`, `max_wait`";
    assert!(unknown.contains(keys), "{unknown}");
    for (text, what) in [
        ("max_concurrent = -1", "invalid value: integer `-1`, expected u32"),
        ("max_concurrent = 4294967296", "expected u32"),
        ("max_wait = 50", "invalid type: integer `50`, expected a duration"),
        ("max_wait = '50'", "time unit needed"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_setting_out_of_range_is_refused_as_the_setter_would() {
    for (text, expected) in [
        (
            "name = 'ledger'\nmax_concurrent = 0",
            "policy `ledger`: max_concurrent cannot be 0: it has to be at least 1",
        ),
        (
            "max_queued = 1",
            "policy `lanes`: max_queued cannot be 1: it has to be 0 where there is no max_wait",
        ),
        (
            "max_wait = '1s'",
            "policy `lanes`: max_wait cannot be 1s: it has to be left out where max_queued is 0",
        ),
        (
            "max_queued = 1\nmax_wait = '0s'",
            "policy `lanes`: max_wait cannot be 0ns: it has to be longer than 0",
        ),
    ] {
        let config = read(text).unwrap();
        let error = Bulkhead::builder("lanes").config(config.clone()).build().unwrap_err();
        assert_eq!(error.to_string(), expected);
        let keyed = Bulkhead::builder("lanes").config(config).keyed::<u32>().build();
        assert_eq!(keyed.unwrap_err().to_string(), expected);
    }
}

prop_compose! {
    /// Any that a builder takes.
    fn any_config()(
        name in prop::option::of(any::<String>()),
        max_concurrent in 1..=u32::MAX,
        queue in prop::option::of((1..=u32::MAX, 1..=u64::MAX, 0..1_000_000_000_u32)),
    ) -> BulkheadConfig {
        let mut config = BulkheadConfig::default();
        config.name = name.map(Into::into);
        config.max_concurrent = max_concurrent;
        config.max_queued = queue.map_or(0, |(max_queued, ..)| max_queued);
        config.max_wait = queue.map(|(_, secs, nanos)| Duration::new(secs, nanos));
        config
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn what_was_written_is_read(config in any_config()) {
        prop_assert!(Bulkhead::builder("lanes").config(config.clone()).build().is_ok());
        let toml = toml::to_string(&config).unwrap();
        prop_assert_eq!(&toml::from_str::<BulkheadConfig>(&toml).unwrap(), &config);
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&serde_json::from_str::<BulkheadConfig>(&json).unwrap(), &config);
        let yaml = serde_yaml_ng::to_string(&config).unwrap();
        prop_assert_eq!(&serde_yaml_ng::from_str::<BulkheadConfig>(&yaml).unwrap(), &config);
    }
}
