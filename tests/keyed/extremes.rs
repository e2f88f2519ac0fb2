//! The smallest and the largest set, keys whose code panics, and many threads.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use futures::executor::block_on;
use steadfast::circuit_breaker::{CircuitBreaker, State};
use tower::{Layer, Service, ServiceExt};

use super::support::{Backend, ok, panic_of};
use super::{breaker, breakers, bulkhead, bulkheads, fails, succeeds};

#[test]
fn a_set_of_one_and_a_set_without_an_end() {
    let one = breakers(1);
    for key in 0..100 {
        block_on(one.get(&key).call(succeeds())).unwrap();
        assert_eq!(one.len(), 1);
    }
    let many = breakers(usize::MAX);
    for key in 0..100 {
        block_on(many.get(&key).call(succeeds())).unwrap();
    }
    assert_eq!((many.len(), many.max_keys()), (100, usize::MAX));
}

#[tokio::test(start_paused = true)]
async fn one_that_may_be_open_for_ever_stays_for_ever() {
    let hosts = breaker()
        .max_open_time(std::time::Duration::MAX)
        .open_time(std::time::Duration::MAX)
        .keyed::<u32>()
        .max_keys(1)
        .build()
        .unwrap();
    hosts.get(&1).call(fails()).await.unwrap_err();
    tokio::time::advance(std::time::Duration::from_secs(1 << 30)).await;
    drop(hosts.get(&2));
    assert_eq!(hosts.peek(&1).map(|breaker| breaker.state()), Some(State::Open));
}

#[test]
fn a_key_function_that_panics_costs_nothing() {
    let backend = Backend::new([ok(200)]);
    let lanes = bulkheads(1);
    let layer = lanes.layer_by(|key: &u32| {
        assert_ne!(*key, 0, "no key");
        *key
    });
    let mut service = layer.layer(backend.service_for::<u32>());
    block_on(service.ready()).unwrap();
    let message = panic_of(|| drop(service.call(0)));
    assert!(message.contains("no key"), "{message}");
    assert_eq!((backend.started(), lanes.len()), (0, 0));
    // What was readied is still ready.
    assert_eq!(block_on(service.call(1)).unwrap(), 200);
    assert_eq!(lanes.get(&1).in_flight(), 0);
}

#[derive(Clone, Debug)]
struct Brittle(u32, Arc<AtomicBool>);

impl PartialEq for Brittle {
    fn eq(&self, other: &Self) -> bool {
        assert!(!self.1.load(SeqCst), "Eq panics");
        self.0 == other.0
    }
}

impl Eq for Brittle {}

impl Hash for Brittle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn an_eq_that_panics_leaves_the_set_as_it_was() {
    let panics = Arc::new(AtomicBool::new(false));
    let key = |n| Brittle(n, panics.clone());
    let hosts = breaker().keyed::<Brittle>().max_keys(2).build().unwrap();
    hosts.get(&key(1)).force_open();
    let layer = hosts.layer_by_ref(|key: &Brittle| key);
    let service = layer.layer(Backend::new([ok(200)]).service_for::<Brittle>());
    panics.store(true, SeqCst);
    assert!(panic_of(|| drop(hosts.get(&key(1)))).contains("Eq panics"));
    let call = service.clone().oneshot(key(1));
    assert!(panic_of(|| block_on(call).map(drop)).contains("Eq panics"));
    panics.store(false, SeqCst);
    assert_eq!(hosts.get(&key(1)).state(), State::ForcedOpen);
    assert_eq!(block_on(service.oneshot(key(2))).unwrap(), 200);
    assert_eq!(hosts.len(), 2);
}

#[test]
fn an_operation_that_panics_counts_for_its_key_alone() {
    let hosts = breakers(10);
    let backend = Backend::new([super::support::panics_when_called()]);
    let mut service = hosts.layer_by(|key: &u32| *key).layer(backend.service_for::<u32>());
    block_on(service.ready()).unwrap();
    panic_of(|| drop(service.call(1)));
    assert_eq!(hosts.get(&1).state(), State::Open);
    assert_eq!(hosts.get(&2).state(), State::Closed);
    let lanes = bulkheads(10);
    let mut service = lanes.layer_by(|key: &u32| *key).layer(backend.service_for::<u32>());
    block_on(service.ready()).unwrap();
    panic_of(|| drop(service.call(1)));
    assert_eq!(lanes.get(&1).in_flight(), 0);
}

/// A key that says when it is dropped.
#[derive(Debug)]
struct Counted(u32, Arc<AtomicU64>);

impl Counted {
    fn new(n: u32, alive: &Arc<AtomicU64>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self(n, alive.clone())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.0, &self.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Counted {}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Borrow<u32> for Counted {
    fn borrow(&self) -> &u32 {
        &self.0
    }
}

#[test]
fn a_key_is_dropped_with_its_entry() {
    let alive = Arc::new(AtomicU64::new(0));
    let hosts = breaker().keyed::<Counted>().max_keys(3).build().unwrap();
    for n in 0..10 {
        drop(hosts.get(&Counted::new(n, &alive)));
        assert!(alive.load(SeqCst) <= 3);
    }
    assert_eq!(alive.load(SeqCst), 3);
    let last = hosts.entries().pop().unwrap().0;
    // By another form of the key, without the key itself.
    assert!(hosts.remove(&last.0).is_some());
    drop(last);
    assert_eq!(alive.load(SeqCst), 2);
    drop(hosts);
    assert_eq!(alive.load(SeqCst), 0);
}

/// Of eight places no more than four are in use, so there is always one to give; no key has two bulkheads at once.
#[test]
fn threads_that_share_a_set_never_exceed_the_limit_of_a_key() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 20_000;
    let lanes = bulkhead().keyed::<u32>().max_keys(8).build().unwrap();
    let running: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
    let (running, start) = (Arc::new(running), Barrier::new(4));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (lanes, running, start) = (lanes.clone(), running.clone(), &start);
            scope.spawn(move || {
                start.wait();
                let mut random = thread.wrapping_mul(2_654_435_761) | 1;
                for _ in 0..ROUNDS {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let key = random % 16;
                    let lane = lanes.get(&key);
                    let Ok(permit) = lane.try_acquire() else { continue };
                    let place = &running[usize::try_from(key).unwrap()];
                    assert_eq!(place.fetch_add(1, SeqCst), 0, "two at once under one key");
                    thread::yield_now();
                    place.fetch_sub(1, SeqCst);
                    drop(permit);
                }
            });
        }
    });
    assert!(lanes.len() <= 8);
    for (_, lane) in lanes.entries() {
        assert_eq!((lane.in_flight(), lane.queued()), (0, 0));
    }
    assert_eq!(lanes.overflow().in_flight(), 0);
}

#[test]
fn a_listener_may_use_the_set() {
    use std::sync::OnceLock;
    let door: Arc<OnceLock<steadfast::circuit_breaker::CircuitBreakers<u32>>> = Arc::default();
    let inside = door.clone();
    let hosts = CircuitBreaker::builder("hosts")
        .on_event(move |_| {
            if let Some(hosts) = inside.get() {
                drop(hosts.peek(&1));
                assert!(hosts.len() <= 1);
            }
        })
        .keyed()
        .max_keys(1)
        .build()
        .unwrap();
    door.set(hosts.clone()).unwrap();
    hosts.get(&1).force_open();
    drop(hosts.get(&2));
    assert_eq!(hosts.len(), 1);
}
