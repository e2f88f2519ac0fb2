//! Which breaker a key has, and which stay.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use steadfast::circuit_breaker::{CircuitBreaker, CircuitBreakers, State};
use steadfast::{Erased, Error, Rejected, RejectedKind};
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

use super::support::{Failure, poll_once};
use super::{MAX_OPEN_TIME, MS, OPEN_TIME, SECOND, breaker, breakers, fails, succeeds};

/// A millisecond before the end.
const NEARLY_MAX_OPEN_TIME: Duration = Duration::from_millis(59_999);

/// Whether a set of one keeps `key` when another comes.
fn stays(set: &CircuitBreakers<u32>, key: u32) -> bool {
    assert_eq!((set.max_keys(), set.len()), (1, 1));
    assert!(set.peek(&key).is_some());
    let other = set.get(&(key + 1));
    let kept = set.peek(&key).is_some();
    assert_eq!(set.peek(&(key + 1)).is_none(), kept);
    if kept {
        assert_eq!(other.state(), set.overflow().state());
    }
    kept
}

#[tokio::test(start_paused = true)]
async fn one_key_that_is_down_rejects_and_the_others_go_on_in_both_faces() {
    let hosts = breaker().keyed::<String>().build().unwrap();
    let plain = hosts.get("a").call(fails()).await.unwrap_err();
    assert!(matches!(plain, Failure::Down));
    let service = hosts
        .layer_by_ref(|host: &String| host.as_str())
        .layer(service_fn(|host: String| async move {
            if host == "c" { Err(Failure::Down) } else { Ok(host) }
        }));
    let call = |host: &str| service.clone().oneshot(host.to_owned());
    let error = call("a").await.unwrap_err();
    let rejected = Rejected::find(&error).unwrap();
    assert_eq!(
        (rejected.kind(), rejected.policy()),
        (RejectedKind::CircuitOpen, "hosts")
    );
    assert_eq!(rejected.retry_after(), Some(OPEN_TIME));
    assert_eq!(call("b").await.unwrap(), "b");
    // Open by a call of the Tower face, and seen by the plain one.
    assert!(matches!(call("c").await, Err(Failure::Down)));
    assert!(Rejected::find(&hosts.get("c").call(succeeds()).await.unwrap_err()).is_some());
    assert_eq!(hosts.get("b").call(succeeds()).await.unwrap(), 1);
    assert_eq!(hosts.len(), 3);
}

#[test]
fn a_key_has_one_breaker_and_a_clone_of_the_set_is_the_same_set() {
    let hosts = breakers(10);
    assert!(hosts.is_empty());
    hosts.get(&1).force_open();
    assert_eq!(hosts.clone().get(&1).state(), State::ForcedOpen);
    assert_eq!(hosts.get(&2).state(), State::Closed);
    assert_eq!((hosts.len(), hosts.max_keys(), hosts.name()), (2, 10, "hosts"));
    assert_eq!(hosts.get(&1).name(), "hosts");
    let mut states: Vec<_> = hosts
        .entries()
        .iter()
        .map(|(key, breaker)| (*key, breaker.state()))
        .collect();
    states.sort_by_key(|(key, _)| *key);
    assert_eq!(states, [(1, State::ForcedOpen), (2, State::Closed)]);
    assert!(hosts.peek(&3).is_none());
    assert_eq!(hosts.len(), 2);
}

#[test]
fn a_key_that_is_removed_begins_anew_and_who_has_its_breaker_goes_on() {
    let hosts = breakers(10);
    let old = hosts.get(&1);
    old.force_open();
    assert_eq!(hosts.remove(&1).unwrap().state(), State::ForcedOpen);
    assert!(hosts.remove(&1).is_none());
    assert_eq!(hosts.len(), 0);
    assert_eq!((hosts.get(&1).state(), old.state()), (State::Closed, State::ForcedOpen));
}

#[test]
fn one_that_is_closed_and_unused_goes() {
    let hosts = breakers(1);
    block_on(hosts.get(&1).call(succeeds())).unwrap();
    assert!(!stays(&hosts, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_open_stays_until_its_open_time_is_long_over() {
    let hosts = breakers(1);
    hosts.get(&1).call(fails()).await.unwrap_err();
    for time in [OPEN_TIME, NEARLY_MAX_OPEN_TIME] {
        assert!(stays(&hosts, 1));
        assert_eq!(hosts.get(&1).state(), State::Open);
        advance(time).await;
    }
    assert!(stays(&hosts, 1));
    advance(MS).await;
    assert!(!stays(&hosts, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_half_open_stays_for_a_while() {
    let hosts = breakers(1);
    hosts.get(&1).call(fails()).await.unwrap_err();
    advance(OPEN_TIME + NEARLY_MAX_OPEN_TIME).await;
    hosts.get(&1).call(succeeds()).await.unwrap();
    assert_eq!(hosts.get(&1).state(), State::HalfOpen);
    advance(NEARLY_MAX_OPEN_TIME).await;
    assert!(stays(&hosts, 1));
    assert_eq!(
        hosts.get(&1).snapshot().calls,
        1,
        "the probe that was good is remembered"
    );
    advance(MS).await;
    assert!(!stays(&hosts, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_somebody_changed_stays_until_it_is_changed_back() {
    let change: [fn(&CircuitBreaker); 4] = [
        CircuitBreaker::force_open,
        CircuitBreaker::force_closed,
        CircuitBreaker::disable,
        |breaker| breaker.set_shadow(true),
    ];
    for change in change {
        let hosts = breakers(1);
        change(&hosts.get(&1));
        advance(1_000 * MAX_OPEN_TIME).await;
        assert!(stays(&hosts, 1));
        hosts.get(&1).reset();
        hosts.get(&1).set_shadow(false);
        assert!(!stays(&hosts, 1));
    }
    let shadowed = breaker().shadow(true).keyed().max_keys(1).build().unwrap();
    drop(shadowed.get(&1));
    assert!(!stays(&shadowed, 1), "shadow mode by configuration is no change");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_held_in_any_way_stays() {
    let hosts = breakers(1);
    let clone = hosts.get(&1);
    assert!(stays(&hosts, 1));
    let view = clone.with_classifier(steadfast::AnyError);
    drop(clone);
    assert!(stays(&hosts, 1));
    let isolation = view.isolate();
    drop(view);
    assert!(stays(&hosts, 1));
    assert_eq!(hosts.get(&1).state(), State::Isolated);
    isolation.release();
    let list = hosts.entries();
    assert!(stays(&hosts, 1));
    drop(list);
    let service = hosts
        .layer_by(|key: &u32| *key)
        .layer(service_fn(|_: u32| pending::<Result<u32, Failure>>()));
    let mut call = Box::pin(service.oneshot(1));
    assert!(poll_once(call.as_mut()).is_pending());
    assert!(stays(&hosts, 1));
    drop(call);
    assert!(!stays(&hosts, 1));
}

#[test]
fn who_waits_for_changes_of_one_that_goes_is_told_that_it_is_gone() {
    let hosts = breakers(1);
    let mut changes = hosts.get(&1).subscribe();
    assert!(!stays(&hosts, 1));
    assert_eq!(block_on(changes.changed()), None);
}

#[tokio::test(start_paused = true)]
async fn new_keys_share_the_overflow_while_nothing_can_go() {
    let hosts = breakers(2);
    for key in [1, 2] {
        hosts.get(&key).force_closed();
    }
    hosts.get(&3).call(fails()).await.unwrap_err();
    assert_eq!(hosts.overflow().state(), State::Open);
    assert!(Rejected::find(&hosts.get(&4).call(succeeds()).await.unwrap_err()).is_some());
    assert_eq!(hosts.get(&1).call(succeeds()).await.unwrap(), 1);
    assert_eq!(hosts.len(), 2);
    hosts.get(&1).reset();
    assert_eq!(hosts.get(&4).call(succeeds()).await.unwrap(), 1);
    assert!(hosts.peek(&1).is_none());
}

#[test]
fn a_classifier_is_shared_by_all_and_can_be_erased() {
    struct Client {
        hosts: CircuitBreakers<u32, Erased<u32, Failure>>,
    }
    let judged = Arc::new(AtomicU32::new(0));
    let counter = judged.clone();
    let hosts = breaker().failure_if(move |error: &Failure| {
        counter.fetch_add(1, Ordering::SeqCst);
        matches!(error, Failure::Down)
    });
    let hosts = hosts.keyed().max_keys(7).erased().build().unwrap();
    let client = Client { hosts };
    assert_eq!(client.hosts.max_keys(), 7);
    for key in 0..5 {
        block_on(client.hosts.get(&key).call(async { Err(Failure::Refused) })).unwrap_err();
        assert_eq!(client.hosts.get(&key).state(), State::Closed);
        block_on(client.hosts.get(&key).call(fails())).unwrap_err();
        assert_eq!(client.hosts.get(&key).state(), State::Open);
    }
    assert_eq!(judged.load(Ordering::SeqCst), 10);
}

/// All of one seed would try their probes at the same moment.
#[tokio::test(start_paused = true)]
async fn the_jitter_of_the_keys_is_repeatable_and_not_the_same() {
    let open_times = || {
        let backoff = steadfast::Backoff::constant(SECOND).jitter(steadfast::Jitter::Full);
        let set = breaker().open_backoff(backoff).seed(7).keyed::<u32>().build().unwrap();
        let open = |key: u32| {
            block_on(set.get(&key).call(fails())).unwrap_err();
            set.get(&key).snapshot().retry_after.unwrap()
        };
        (0..20).map(open).collect::<Vec<_>>()
    };
    let mut times = open_times();
    assert_eq!(times, open_times());
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 20);
}

#[test]
fn settings_are_checked_once_when_the_set_is_built() {
    let error = breaker().samples(0).keyed::<u32>().build().unwrap_err();
    assert_eq!((error.policy(), error.setting()), ("hosts", "samples"));
    let error = breaker().keyed::<u32>().max_keys(0).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy `hosts`: max_keys cannot be 0: it has to be at least 1"
    );
    assert_eq!(
        breaker().keyed::<u32>().build().unwrap().max_keys(),
        steadfast::keyed::DEFAULT_MAX_KEYS
    );
}

#[test]
fn what_is_printed_holds_no_key() {
    let hosts = breaker().keyed::<String>().build().unwrap();
    drop(hosts.get("secret"));
    let layer = hosts.layer_by_ref(|key: &String| key.as_str());
    let printed = format!("{hosts:?} {layer:?} {:?}", layer.layer(1));
    assert!(printed.contains("hosts") && printed.contains("len: 1"), "{printed}");
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn an_error_of_the_program_may_be_any_that_takes_a_rejection() {
    let hosts = breakers(1);
    let result = block_on(hosts.get(&1).call(async { "7".parse::<u32>().map_err(Error::Inner) }));
    assert_eq!(result.unwrap(), 7);
}
