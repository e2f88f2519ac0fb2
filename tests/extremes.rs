//! Every numeric setting at its extremes, through build, call and layer: a `ConfigError` that names the setting, or
//! what the setting says. Never a panic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    reason = "what a test does when it fails"
)]

use std::future::{Ready, ready};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use steadfast::http::DEFAULT_BODY_LIMIT;
use steadfast::retry::{
    CREDIT_LIFETIME, DEFAULT_BASE_DELAY, DEFAULT_FLOOR, DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_RETRY_AFTER, DEFAULT_RATIO,
    Retry, RetryBudget, RetryBuilder, StopReason,
};
use steadfast::timeout::Timeout;
use steadfast::{Backoff, ConfigError, DEFAULT_FACTOR, DEFAULT_MAX_DELAY, Error, Jitter, Rejected, Verdict};
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);
const S: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// How a call through a policy ended.
#[derive(Debug, PartialEq)]
struct Ended {
    succeeded: bool,
    calls: u32,
    elapsed: Duration,
}

/// Fails so many times, then succeeds.
fn flaky(calls: &AtomicU32, failures: u32) -> Ready<io::Result<()>> {
    ready(match calls.fetch_add(1, Ordering::Relaxed) {
        n if n < failures => Err(io::ErrorKind::ConnectionReset.into()),
        _ => Ok(()),
    })
}

/// Calls something that fails so many times, plainly and as a layer: both end alike, and that is given back.
async fn run(retry: RetryBuilder, failures: u32) -> Ended {
    let plain = {
        let (retry, calls, started) = (retry.clone().build().unwrap(), AtomicU32::default(), Instant::now());
        let result = retry.call(|| flaky(&calls, failures)).await;
        ended(&result, &calls, started)
    };
    let layered = {
        let (retry, calls, started) = (retry.build().unwrap(), AtomicU32::default(), Instant::now());
        let service = retry.layer(service_fn(|()| flaky(&calls, failures)));
        let result = service.oneshot(()).await;
        ended(&result, &calls, started)
    };
    assert_eq!(plain, layered, "the two faces");
    plain
}

fn ended(result: &io::Result<()>, calls: &AtomicU32, started: Instant) -> Ended {
    Ended {
        succeeded: result.is_ok(),
        calls: calls.load(Ordering::Relaxed),
        elapsed: started.elapsed(),
    }
}

fn quick() -> RetryBuilder {
    Retry::constant(Duration::ZERO)
}

/// A policy that waits so long between attempts, and how often it had called when `within` was over.
async fn calls_within(within: Duration, retry: RetryBuilder) -> u32 {
    let (retry, calls) = (retry.build().unwrap(), AtomicU32::default());
    let call = retry.call(|| flaky(&calls, u32::MAX));
    assert!(timeout(within, call).await.is_err(), "it still waits");
    calls.load(Ordering::Relaxed)
}

fn refused(retry: RetryBuilder) -> ConfigError {
    let error = retry.name("payments").build().unwrap_err();
    assert_eq!(error.policy(), "payments");
    for part in [error.setting(), error.value(), error.allowed()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    error
}

// Attempts and limits of a retry.

#[test]
fn no_attempts_at_all_are_refused() {
    let error = refused(quick().max_attempts(0));
    assert_eq!(
        (error.setting(), error.value(), error.allowed()),
        ("max_attempts", "0", "at least 1")
    );
}

#[tokio::test(start_paused = true)]
async fn one_attempt_never_waits() {
    let ended = run(Retry::constant(Duration::MAX).max_attempts(1), 5).await;
    assert_eq!(
        ended,
        Ended {
            succeeded: false,
            calls: 1,
            elapsed: Duration::ZERO
        }
    );
}

#[tokio::test(start_paused = true)]
async fn the_largest_number_of_attempts_goes_on_until_it_succeeds() {
    let ended = run(quick().max_attempts(u32::MAX), 10_000).await;
    assert_eq!((ended.succeeded, ended.calls), (true, 10_001));
}

#[tokio::test(start_paused = true)]
async fn the_largest_number_of_attempts_outlives_the_growth_of_its_backoff() {
    let retry = Retry::exponential(MS).jitter(Jitter::None).max_attempts(u32::MAX);
    let ended = run(retry, 1_100).await;
    assert_eq!((ended.succeeded, ended.calls), (true, 1_101));
    let growing: Duration = (0..14).map(|n| MS * (1 << n)).sum();
    assert_eq!(
        ended.elapsed.as_secs(),
        (growing + (1_100 - 14) * DEFAULT_MAX_DELAY).as_secs()
    );
}

#[test]
fn no_time_at_all_is_refused() {
    let error = refused(quick().max_elapsed(Duration::ZERO));
    assert_eq!(
        (error.setting(), error.value(), error.allowed()),
        ("max_elapsed", "0ns", "longer than 0")
    );
}

#[tokio::test(start_paused = true)]
async fn the_shortest_time_allows_no_wait_at_all() {
    let ended = run(Retry::constant(NS).max_elapsed(NS), 1).await;
    assert_eq!((ended.succeeded, ended.calls), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_ends_nothing() {
    let ended = run(Retry::constant(YEAR).max_elapsed(Duration::MAX), 2).await;
    assert_eq!((ended.succeeded, ended.calls), (true, 3));
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_the_longest_time_is_not_begun_under_the_longest_limit() {
    let ended = run(Retry::constant(Duration::MAX).max_elapsed(Duration::MAX), 2).await;
    assert_eq!(
        (ended.succeeded, ended.calls, ended.elapsed),
        (false, 1, Duration::ZERO)
    );
}

/// What becomes of a call whose server asks for a wait of `hint`.
async fn hinted(hint: Duration, max_retry_after: Duration) -> (u32, StopReason, Duration) {
    let retry = quick()
        .max_retry_after(max_retry_after)
        .classify(move |result: Result<&(), &io::Error>| match result {
            Ok(()) => Verdict::Success,
            Err(_) => Verdict::Overloaded {
                retry_after: Some(hint),
            },
        })
        .build()
        .unwrap();
    let calls = AtomicU32::default();
    let call = retry.call(|| flaky(&calls, 1)).with_report();
    let (_, report) = call.await;
    (report.attempts, report.stop, report.waited)
}

#[tokio::test(start_paused = true)]
async fn where_no_hint_is_followed_any_hint_ends_the_retry() {
    assert_eq!(
        hinted(NS, Duration::ZERO).await,
        (1, StopReason::HintTooLong, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_zero_is_no_wait() {
    assert_eq!(
        hinted(Duration::ZERO, Duration::ZERO).await,
        (2, StopReason::Success, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_ceiling_a_hint_of_a_year_is_followed() {
    let (attempts, stop, waited) = hinted(YEAR, Duration::MAX).await;
    assert_eq!((attempts, stop), (2, StopReason::Success));
    assert!((YEAR..=YEAR + YEAR / 10).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_hint_is_waited_for_or_ends_the_retry() {
    let below = hinted(Duration::MAX, Duration::MAX - NS).await;
    assert_eq!(below, (1, StopReason::HintTooLong, Duration::ZERO));
    assert!(timeout(YEAR, hinted(Duration::MAX, Duration::MAX)).await.is_err());
}

// Schedules.

#[tokio::test(start_paused = true)]
async fn schedules_from_zero_never_wait() {
    let zero = Duration::ZERO;
    for backoff in [
        Backoff::constant(zero),
        Backoff::linear(zero),
        Backoff::exponential(zero),
        Backoff::fibonacci(zero),
        Backoff::decorrelated(zero),
        Backoff::smooth(zero),
        Backoff::exponential(zero).max_delay(zero),
        Backoff::function(move |_| Some(zero)),
        Backoff::sequence(std::iter::repeat(zero)),
    ] {
        let shown = format!("{backoff:?}");
        let ended = run(quick().backoff(backoff).max_attempts(u32::MAX), 2_000).await;
        assert_eq!((ended.calls, ended.elapsed), (2_001, zero), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_is_waited() {
    let max = Duration::MAX;
    for backoff in [
        Backoff::constant(max),
        Backoff::linear(max).max_delay(max),
        Backoff::exponential(max).max_delay(max).jitter(Jitter::None),
        Backoff::exponential(max).max_delay(max).jitter(Jitter::Equal),
        Backoff::fibonacci(max).max_delay(max),
        Backoff::decorrelated(max).max_delay(max),
        Backoff::function(move |_| Some(max)),
        Backoff::sequence([max, max]),
        Backoff::constant(max).jitter(Jitter::Additive(Duration::ZERO)),
    ] {
        let shown = format!("{backoff:?}");
        assert_eq!(calls_within(YEAR, quick().backoff(backoff)).await, 1, "{shown}");
    }
}

#[test]
fn the_longest_base_is_above_the_default_cap() {
    let max = Duration::MAX;
    for backoff in [
        Backoff::linear(max),
        Backoff::exponential(max),
        Backoff::fibonacci(max),
        Backoff::decorrelated(max),
        Backoff::smooth(max),
    ] {
        let error = refused(quick().backoff(backoff));
        assert_eq!((error.setting(), error.value()), ("max_delay", "10s"));
        let allowed = format!("at least {max:?}, the base of the backoff (it was not set, and this is its default)");
        assert_eq!(error.allowed(), allowed);
    }
}

#[test]
fn a_cap_of_zero_is_below_any_base() {
    let error = refused(Retry::exponential(NS).max_delay(Duration::ZERO));
    assert_eq!((error.setting(), error.value()), ("max_delay", "0ns"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_backoff_allows_no_retry() {
    for backoff in [Backoff::sequence([]), Backoff::function(|_| None)] {
        let ended = run(quick().backoff(backoff).max_attempts(u32::MAX), 1).await;
        assert_eq!((ended.succeeded, ended.calls), (false, 1));
    }
}

#[test]
fn a_factor_that_is_no_growth_is_refused() {
    for (factor, value) in [
        (0.0, "0.0"),
        (-1.0, "-1.0"),
        (0.5, "0.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
    ] {
        let error = refused(quick().backoff(Backoff::exponential(MS).factor(factor)));
        assert_eq!((error.setting(), error.value()), ("factor", value));
        assert_eq!(error.allowed(), "finite and at least 1.0");
    }
}

#[tokio::test(start_paused = true)]
async fn the_smallest_and_the_largest_factor_work() {
    let of = |factor| quick().backoff(Backoff::exponential(MS).factor(factor).jitter(Jitter::None));
    assert_eq!(run(of(1.0).max_attempts(101), 100).await.elapsed, 100 * MS);
    assert_eq!(run(of(f64::MAX), 2).await.elapsed, MS + DEFAULT_MAX_DELAY);
}

#[test]
fn a_jitter_that_is_no_fraction_is_refused() {
    for fraction in [-0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        let error = refused(Retry::constant(S).jitter(Jitter::Proportional(fraction)));
        assert_eq!(error.setting(), "jitter");
        assert_eq!(error.value(), format!("Proportional({fraction:?})"));
        assert_eq!(error.allowed(), "a fraction from 0.0 to 1.0");
    }
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_a_jitter_work() {
    let of = |jitter| Retry::constant(S).jitter(jitter);
    assert_eq!(run(of(Jitter::Proportional(0.0)), 1).await.elapsed, S);
    assert_eq!(run(of(Jitter::Additive(Duration::ZERO)), 1).await.elapsed, S);

    let whole = of(Jitter::Proportional(1.0)).seed(7).build().unwrap();
    let (_, report) = whole.call(|| flaky(&AtomicU32::default(), 1)).with_report().await;
    assert!(report.waited <= 4 * S, "{report:?}");
    // Anything up to the longest time: the draw of this seed is no number near 0.
    assert_eq!(calls_within(YEAR, of(Jitter::Additive(Duration::MAX)).seed(7)).await, 1);
}

#[test]
fn the_same_schedule_is_refused_by_itself_as_in_a_policy() {
    let backoff = Backoff::exponential(S).factor(f64::NAN);
    let alone = backoff.delays(0).unwrap_err();
    let built = refused(quick().backoff(backoff));
    assert_eq!((alone.setting(), alone.allowed()), (built.setting(), built.allowed()));
    assert_eq!(alone.policy(), "backoff");
}

// Budgets.

#[test]
fn a_ratio_out_of_range_is_refused() {
    for (ratio, value) in [
        (-0.1, "-0.1"),
        (0.000_099, "9.9e-5"),
        (100.1, "100.1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
    ] {
        let error = RetryBudget::builder().ratio(ratio).build().unwrap_err();
        assert_eq!(
            (error.policy(), error.setting(), error.value()),
            ("retry budget", "ratio", value)
        );
        assert_eq!(error.allowed(), "0.0, or from 0.0001 to 100.0");
    }
}

#[test]
fn a_floor_out_of_range_is_refused() {
    for (floor, value) in [
        (-1.0, "-1.0"),
        (0.199, "0.199"),
        (1_000_001.0, "1000001.0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::MAX, "1.7976931348623157e308"),
    ] {
        let error = RetryBudget::builder().floor(floor).build().unwrap_err();
        assert_eq!(
            (error.policy(), error.setting(), error.value()),
            ("retry budget", "floor", value)
        );
        assert_eq!(error.allowed(), "0.0, or from 0.2 to 1000000.0");
    }
}

#[tokio::test(start_paused = true)]
async fn budgets_at_the_ends_of_their_ranges_pay_what_they_should() {
    let paid = async |ratio, floor, successes| {
        let calls = AtomicU32::default();
        let budget = RetryBudget::builder().ratio(ratio).floor(floor).build().unwrap();
        let retry = quick().budget(&budget).max_attempts(1_000).build().unwrap();
        for _ in 0..successes {
            retry.call(|| flaky(&AtomicU32::default(), 0)).await.unwrap();
        }
        let (_, report) = retry.call(|| flaky(&calls, u32::MAX)).with_report().await;
        (report.attempts - 1, report.stop)
    };
    assert_eq!(paid(0.0, 0.0, 100).await, (0, StopReason::BudgetEmpty));
    // The call that fails earns as well.
    assert_eq!(paid(0.000_1, 0.0, 9_998).await, (0, StopReason::BudgetEmpty));
    assert_eq!(paid(0.000_1, 0.0, 9_999).await, (1, StopReason::BudgetEmpty));
    assert_eq!(paid(100.0, 0.0, 0).await, (100, StopReason::BudgetEmpty));
    assert_eq!(paid(100.0, 0.0, 9).await, (999, StopReason::MaxAttempts));
    assert_eq!(paid(0.0, 0.2, 100).await, (2, StopReason::BudgetEmpty));
    assert_eq!(paid(0.0, 1_000_000.0, 0).await, (999, StopReason::MaxAttempts));
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_leaves_the_error_as_it_was() {
    let budget = RetryBudget::builder().ratio(0.0).floor(0.0).build().unwrap();
    let ended = run(quick().budget(&budget), 1).await;
    assert_eq!((ended.succeeded, ended.calls), (false, 1));
    let retry = quick().budget(&budget).build().unwrap();
    let error = retry.call(|| flaky(&AtomicU32::default(), 1)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

// Timeouts.

type Foreign = Error<io::Error>;

/// Runs an operation of `length` under a timeout of `limit`, plainly, as a layer and as a layer per request.
async fn limited(limit: Duration, length: Duration) -> Result<Duration, Rejected> {
    let work = move || async move {
        if !length.is_zero() {
            tokio::time::sleep(length).await;
        }
        Ok::<_, Foreign>(())
    };
    let policy = Timeout::new(limit);
    assert_eq!(policy.limit(), limit);
    let mut results = Vec::new();
    for face in 0..3 {
        let started = Instant::now();
        let result = match face {
            0 => policy.call(work()).await,
            1 => policy.layer(service_fn(|()| work())).oneshot(()).await,
            _ => {
                let layer = Timeout::new(S).per_request(move |(): &()| limit);
                layer.layer(service_fn(|()| work())).oneshot(()).await
            }
        };
        results.push(match result {
            Ok(()) => Ok(started.elapsed()),
            Err(Error::Rejected(rejected)) => Err(rejected),
            Err(Error::Inner(error)) => panic!("{error}"),
        });
    }
    let ends: Vec<_> = results.iter().map(|result| result.as_ref().ok()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
    results.swap_remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_lets_through_what_is_ready_at_once() {
    assert_eq!(limited(Duration::ZERO, Duration::ZERO).await.unwrap(), Duration::ZERO);
    let rejected = limited(Duration::ZERO, MS).await.unwrap_err();
    assert!(rejected.to_string().contains("timeout"), "{rejected}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_limit_ends_nothing() {
    for limit in [Duration::MAX, Duration::MAX - NS, 1_000 * YEAR] {
        assert!(limited(limit, YEAR).await.unwrap() >= YEAR);
        let policy = Timeout::new(limit);
        let hanging = policy.call(std::future::pending::<Result<(), Foreign>>());
        assert!(timeout(2 * YEAR, hanging).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_shortest_limit_ends_what_is_not_ready() {
    assert!(limited(NS, Duration::ZERO).await.is_ok());
    assert!(limited(NS, S).await.is_err());
}

// Defaults, and what is written about them.

#[test]
fn the_default_policy_is_the_documented_one() {
    let written = Retry::builder()
        .name("retry")
        .max_attempts(DEFAULT_MAX_ATTEMPTS)
        .max_retry_after(DEFAULT_MAX_RETRY_AFTER)
        .backoff(
            Backoff::exponential(DEFAULT_BASE_DELAY)
                .factor(DEFAULT_FACTOR)
                .jitter(Jitter::Full),
        )
        .max_delay(DEFAULT_MAX_DELAY)
        .build()
        .unwrap();
    assert_eq!(format!("{:?}", Retry::default()), format!("{written:?}"));
    assert_eq!(
        format!("{:?}", Retry::builder().build().unwrap()),
        format!("{written:?}")
    );
}

#[tokio::test(start_paused = true)]
async fn the_default_policy_makes_three_attempts_with_two_jittered_waits() {
    let ended = run(Retry::builder().seed(1), 9).await;
    assert_eq!((ended.succeeded, ended.calls), (false, 3));
    let waits: Vec<_> = (0..200)
        .map(|seed| Backoff::exponential(DEFAULT_BASE_DELAY).delays(seed).unwrap().take(2))
        .map(Vec::from_iter)
        .collect();
    for (n, high) in [100 * MS, 200 * MS].into_iter().enumerate() {
        let longest = waits.iter().map(|waits| waits[n]).max().unwrap();
        assert!((high * 9 / 10..=high).contains(&longest), "{longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_budget_is_the_documented_one() {
    for budget in [RetryBudget::default(), RetryBudget::builder().build().unwrap()] {
        let earned_by = |calls: u32| DEFAULT_FLOOR * CREDIT_LIFETIME.as_secs_f64() + DEFAULT_RATIO * f64::from(calls);
        let retry = Retry::builder().budget(&budget).build().unwrap();
        for calls in 0..10 {
            assert!((budget.available() - earned_by(calls)).abs() < 1e-9, "{budget:?}");
            retry.call(|| flaky(&AtomicU32::default(), 0)).await.unwrap();
        }
    }
}

#[test]
fn the_tables_of_defaults_say_what_the_constants_say() {
    let backoff = include_str!("../src/backoff.rs");
    let budget = include_str!("../src/retry/budget.rs");
    let builder = include_str!("../src/retry/builder.rs");
    let guide = include_str!("../docs/retry.md");
    let http = include_str!("../docs/http.md");
    let lines = [
        (
            backoff,
            format!(
                "| `max_delay` | {} s for the schedules that grow",
                DEFAULT_MAX_DELAY.as_secs()
            ),
        ),
        (backoff, format!("| `factor` | {DEFAULT_FACTOR:?}, exponential only |")),
        (budget, format!("| `ratio` | {DEFAULT_RATIO} retries a call |")),
        (budget, format!("| `floor` | {DEFAULT_FLOOR} retries a second |")),
        (
            budget,
            format!("is not used within {} s is gone", CREDIT_LIFETIME.as_secs()),
        ),
        (budget, format!("floor × (seconds + {})`", CREDIT_LIFETIME.as_secs())),
        (
            builder,
            format!("the first one included: at least 1. Default: {DEFAULT_MAX_ATTEMPTS}."),
        ),
        (
            builder,
            format!("the call ends. Default: {} s.", DEFAULT_MAX_RETRY_AFTER.as_secs()),
        ),
        (
            builder,
            format!(
                "Default: exponential from {} ms, times {DEFAULT_FACTOR}, full jitter, at most {} s.",
                DEFAULT_BASE_DELAY.as_millis(),
                DEFAULT_MAX_DELAY.as_secs(),
            ),
        ),
        (guide, format!("| `max_attempts` | {DEFAULT_MAX_ATTEMPTS} |")),
        (
            guide,
            format!("| `max_retry_after` | {} s |", DEFAULT_MAX_RETRY_AFTER.as_secs()),
        ),
        (
            guide,
            format!(
                "| `backoff` | exponential from {} ms, times {DEFAULT_FACTOR} |",
                DEFAULT_BASE_DELAY.as_millis()
            ),
        ),
        (guide, format!("| `max_delay` | {} s |", DEFAULT_MAX_DELAY.as_secs())),
        (http, format!("| `body_limit` | {} KiB |", DEFAULT_BODY_LIMIT / 1024)),
        (
            http,
            format!("| budget | {DEFAULT_RATIO} retries a call, and {DEFAULT_FLOOR} a second |"),
        ),
    ];
    for (text, line) in lines {
        assert!(text.contains(&line), "no longer written: {line}");
    }
}
