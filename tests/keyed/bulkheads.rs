//! Which bulkhead a key has, and which stay.

use std::sync::{Barrier, mpsc};
use std::thread;

use steadfast::bulkhead::Bulkheads;
use steadfast::{Rejected, RejectedKind};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

use super::support::{Backend, hang, ok, poll_once};
use super::{MS, bulkhead, bulkheads, succeeds};

fn stays(set: &Bulkheads<u32>, key: u32) -> bool {
    assert_eq!((set.max_keys(), set.len()), (1, 1));
    drop(set.get(&(key + 1)));
    set.peek(&key).is_some()
}

#[tokio::test(start_paused = true)]
async fn one_key_that_hangs_fills_its_own_bulkhead_and_no_other_in_both_faces() {
    let lanes = bulkheads(10);
    let hanging = Backend::new([hang()]);
    let layer = lanes.layer_by(|key: &u32| *key);
    let service = layer.layer(hanging.service_for::<u32>());
    let mut calls: Vec<_> = (0..2).map(|_| Box::pin(service.clone().oneshot(1))).collect();
    for call in &mut calls {
        assert!(poll_once(call.as_mut()).is_pending());
    }
    assert_eq!((lanes.get(&1).in_flight(), lanes.get(&1).queued()), (1, 1));
    for result in [service.clone().oneshot(1).await, lanes.get(&1).call(succeeds()).await] {
        let error = result.unwrap_err();
        let rejected = Rejected::find(&error).unwrap();
        assert_eq!(
            (rejected.kind(), rejected.policy()),
            (RejectedKind::BulkheadFull, "lanes")
        );
    }
    let service = layer.layer(Backend::new([ok(200)]).service_for::<u32>());
    assert_eq!(service.oneshot(2).await.unwrap(), 200);
    assert_eq!(lanes.get(&2).call(succeeds()).await.unwrap(), 1);
    drop(calls);
    assert_eq!((lanes.get(&1).in_flight(), lanes.get(&1).queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_in_use_stays_and_one_that_is_idle_goes() {
    let lanes = bulkheads(1);
    let handle = lanes.get(&1);
    assert!(stays(&lanes, 1));
    let permit = handle.try_acquire().unwrap();
    drop(handle);
    assert!(stays(&lanes, 1));
    drop(permit);
    assert!(!stays(&lanes, 1));
}

#[tokio::test(start_paused = true)]
async fn one_with_somebody_in_its_queue_stays() {
    let lanes = bulkheads(1);
    let service = lanes
        .layer_by(|key: &u32| *key)
        .layer(Backend::new([hang()]).service_for::<u32>());
    let permit = lanes.get(&1).try_acquire().unwrap();
    let mut queued = Box::pin(service.oneshot(1));
    assert!(poll_once(queued.as_mut()).is_pending());
    // Given back to who waits, who has not looked yet.
    drop(permit);
    assert!(stays(&lanes, 1));
    drop(queued);
    assert_eq!(lanes.get(&1).in_flight(), 0);
    assert!(!stays(&lanes, 1));
}

#[tokio::test(start_paused = true)]
async fn one_whose_limits_were_changed_stays_until_they_are_what_they_were() {
    let lanes = bulkheads(1);
    lanes.get(&1).set_max_concurrent(9);
    assert!(stays(&lanes, 1));
    lanes.get(&1).set_max_concurrent(1);
    lanes.get(&1).set_max_queued(2).unwrap();
    assert!(stays(&lanes, 1));
    lanes.get(&1).set_max_queued(1).unwrap();
    lanes.get(&1).set_max_wait(MS).unwrap();
    assert!(stays(&lanes, 1));
    lanes.get(&1).set_max_wait(50 * MS).unwrap();
    assert!(!stays(&lanes, 1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_can_be_changed_for_all_keys_and_for_those_to_come() {
    let (sent, heard) = mpsc::channel();
    let lanes = bulkhead()
        .on_event(move |event| sent.send(format!("{event:?}")).unwrap())
        .keyed::<u32>()
        .max_keys(3)
        .build()
        .unwrap();
    let running: Vec<_> = (0..3).map(|key| lanes.get(&key).try_acquire().unwrap()).collect();
    let service = lanes.layer_by(|key: &u32| *key);
    let service = service.layer(Backend::new([ok(200)]).service_for::<u32>());
    let waits = tokio::spawn(service.oneshot(0));
    tokio::task::yield_now().await;
    lanes.get(&1).set_max_concurrent(9);
    assert_eq!(heard.try_iter().count(), 2);
    lanes.set_max_concurrent(2);
    assert_eq!(waits.await.unwrap().unwrap(), 200, "who waited is let in");
    assert_eq!([0, 1, 2].map(|key| lanes.get(&key).available()), [1; 3]);
    assert_eq!(lanes.overflow().max_concurrent(), 2);
    let told: Vec<_> = heard.try_iter().filter(|event| event.starts_with("Limit")).collect();
    assert_eq!(told, [r#"LimitChanged { policy: "lanes", max_concurrent: 2 }"#]);
    drop(running);
    // They have the limit of the set, and make room.
    for key in 3..6 {
        assert_eq!(lanes.get(&key).max_concurrent(), 2);
        assert!(lanes.peek(&key).is_some());
    }
    lanes.set_max_concurrent(0);
    assert!(lanes.get(&9).try_acquire().is_err(), "a pause");
}

#[test]
fn of_two_changes_at_once_one_holds_for_all_keys_and_those_that_come_meanwhile() {
    const ROUNDS: u32 = 5_000;
    let lanes = bulkheads(1_000);
    let (start, end) = (Barrier::new(4), Barrier::new(4));
    let mut wrong = 0;
    thread::scope(|scope| {
        for side in [1, 2] {
            let (lanes, start, end) = (&lanes, &start, &end);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    start.wait();
                    lanes.set_max_concurrent(round * 10 + side);
                    end.wait();
                    start.wait();
                    end.wait();
                }
            });
        }
        let (lanes, start, end) = (&lanes, &start, &end);
        scope.spawn(move || {
            for round in 1..=ROUNDS {
                start.wait();
                (0..4).for_each(|key| drop(lanes.get(&(round * 10 + key))));
                end.wait();
                start.wait();
                end.wait();
            }
        });
        for _ in 1..=ROUNDS {
            start.wait();
            end.wait();
            start.wait();
            let limit = lanes.overflow().max_concurrent();
            for (key, lane) in lanes.entries() {
                // Told at the end: who panics here leaves the others at the barrier.
                wrong += u32::from(lane.max_concurrent() != limit);
                lanes.remove(&key);
            }
            end.wait();
        }
    });
    assert_eq!(wrong, 0, "bulkheads with a limit that nobody gave last");
}

#[tokio::test(start_paused = true)]
async fn keys_without_room_share_the_overflow() {
    let (sent, heard) = mpsc::channel();
    let lanes = bulkhead()
        .on_event(move |event| sent.send(format!("{event:?}")).unwrap())
        .keyed::<u32>()
        .max_keys(1)
        .build()
        .unwrap();
    let first = lanes.get(&1).try_acquire().unwrap();
    let second = lanes.get(&2).try_acquire().unwrap();
    assert!(lanes.get(&3).try_acquire().is_err());
    assert_eq!((lanes.overflow().in_flight(), lanes.len()), (1, 1));
    drop(first);
    // There is room from here on.
    drop(lanes.get(&3).try_acquire().unwrap());
    assert!(lanes.peek(&1).is_none() && lanes.peek(&3).is_some());
    drop(second);
    assert_eq!(lanes.overflow().in_flight(), 0);
    let overflows = heard.try_iter().filter(|event| event.starts_with("KeysOverflowed"));
    assert_eq!(
        overflows.collect::<Vec<_>>(),
        [r#"KeysOverflowed { policy: "lanes", max_keys: 1, lookups: 1 }"#]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_is_made_under_its_own_key() {
    let lanes = bulkheads(10);
    let backend = Backend::new([ok(200).after(10 * MS)]);
    let service = lanes.layer_by(|key: &u32| *key).layer(backend.service_for::<u32>());
    let calls: Vec<_> = [1, 1, 2, 2]
        .map(|key| tokio::spawn(service.clone().oneshot(key)))
        .into();
    tokio::task::yield_now().await;
    assert_eq!(backend.running(), 2);
    advance(10 * MS).await;
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 200);
    }
    assert_eq!((backend.started(), lanes.len()), (4, 2));
}

#[test]
fn settings_are_checked_once_when_the_set_is_built() {
    let error = bulkhead().max_concurrent(0).keyed::<u32>().build().unwrap_err();
    assert_eq!((error.policy(), error.setting()), ("lanes", "max_concurrent"));
    let error = bulkhead().keyed::<u32>().max_keys(0).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy `lanes`: max_keys cannot be 0: it has to be at least 1"
    );
}

#[test]
fn the_handle_says_what_there_is_and_prints_no_key() {
    let lanes = bulkhead().keyed::<String>().max_keys(3).build().unwrap();
    assert!(lanes.is_empty());
    drop(lanes.get("secret"));
    assert_eq!((lanes.len(), lanes.max_keys(), lanes.name()), (1, 3, "lanes"));
    assert_eq!(lanes.entries().len(), 1);
    let printed = format!("{lanes:?} {:?}", bulkhead().keyed::<String>().clone());
    assert!(printed.contains("lanes") && !printed.contains("secret"), "{printed}");
    assert!(lanes.remove("secret").is_some());
    assert!(lanes.remove("secret").is_none());
    assert!(lanes.is_empty());
}
