//! How many random histories a property test runs.

use proptest::test_runner::Config;

/// `default` of them, or as many as `PROPTEST_CASES` says.
pub(crate) fn histories(default: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(default);
    println!("figure: random histories: {cases}");
    Config {
        cases,
        // The minimal failing history is printed: it becomes a test of its own, not a file of seeds.
        failure_persistence: None,
        ..Config::default()
    }
}
