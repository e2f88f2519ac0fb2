use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError, Weak};
use std::thread;

use allocation_counter::measure;
use proptest::prelude::*;

use super::DEFAULT_MAX_KEYS;
use super::set::*;

#[derive(Clone)]
struct Policy(Arc<Inner>);

#[derive(Default)]
struct Inner {
    id: usize,
    must_stay: AtomicBool,
    /// How often policies of the set were asked whether they must stay.
    asked: Arc<AtomicUsize>,
}

impl Resident for Policy {
    fn is_unused(&self) -> bool {
        is_only(&self.0)
    }

    fn must_stay(&self) -> bool {
        self.0.asked.fetch_add(1, SeqCst);
        self.0.must_stay.load(SeqCst)
    }
}

impl Policy {
    fn id(&self) -> usize {
        self.0.id
    }

    fn stay(&self, must_stay: bool) {
        self.0.must_stay.store(must_stay, SeqCst);
    }
}

/// Policies with ids in the order that they were made in, from 0, the overflow policy; and the counter of questions.
fn numbered() -> (impl Fn() -> Policy + Send + Sync + 'static, Arc<AtomicUsize>) {
    let (next, asked) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let questions = asked.clone();
    let make = move || {
        Policy(Arc::new(Inner {
            id: next.fetch_add(1, SeqCst),
            asked: asked.clone(),
            ..Inner::default()
        }))
    };
    (make, questions)
}

fn set<K>(max_keys: usize) -> KeyedSet<K, Policy> {
    KeyedSet::new(max_keys, numbered().0)
}

fn check<K>(set: &KeyedSet<K, Policy>) {
    let mut entries = 0;
    for Padded(shard) in &set.shards {
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.check();
        entries += shard.line().len();
    }
    assert_eq!(entries, set.len());
    assert!(u64::try_from(entries).unwrap() <= set.max_keys);
}

fn is_overflow<P>(lookup: &Lookup<P>) -> bool {
    matches!(lookup, Lookup::Overflow(_))
}

#[test]
fn a_key_is_made_once_and_found_by_its_borrowed_form() {
    let set = set::<String>(10);
    let Lookup::Created(made) = set.get("a.example") else {
        panic!("not created")
    };
    let Lookup::Found(found) = set.get("a.example") else {
        panic!("not found")
    };
    assert!(Arc::ptr_eq(&made.0, &found.0));
    assert_eq!(set.get(&String::from("a.example")).into_policy().id(), made.id());
    assert_ne!(set.get("b.example").into_policy().id(), made.id());
    assert_eq!(set.len(), 2);
}

#[test]
fn a_key_that_is_there_costs_no_allocation() {
    let set = set::<String>(10);
    set.get("a.example");
    let counted = measure(|| assert!(matches!(set.get("a.example"), Lookup::Found(_))));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn keys_without_room_share_one_policy_until_there_is_room() {
    let set = set::<u32>(2);
    let held = [set.get(&1).into_policy(), set.get(&2).into_policy()];
    for key in 3..6 {
        let lookup = set.get(&key);
        assert!(is_overflow(&lookup));
        assert!(Arc::ptr_eq(&lookup.into_policy().0, &set.overflow().0));
    }
    assert_eq!(set.len(), 2);
    drop(held);
    assert!(matches!(set.get(&3), Lookup::Created(_)));
}

#[test]
fn a_set_without_room_for_anything_has_its_overflow_policy() {
    let set = set::<u32>(0);
    assert!(is_overflow(&set.get(&1)));
    assert_eq!(set.len(), 0);
}

#[test]
fn nothing_is_made_for_a_key_without_room() {
    let set = set::<u32>(2);
    let first = set.get(&1).into_policy();
    let _second = set.get(&2);
    for key in 3..100 {
        assert!(is_overflow(&set.get(&key)));
    }
    let id = first.id();
    drop(first);
    assert_eq!(
        set.get(&3).into_policy().id(),
        id + 2,
        "the next to be made after the second"
    );
}

#[test]
fn a_set_that_is_looked_at_whole_overflows_only_when_every_key_is_in_use() {
    let max_keys = u32::try_from(LOOKS).unwrap();
    let set = set::<u32>(LOOKS);
    let mut held: Vec<_> = (0..max_keys).map(|key| set.get(&key).into_policy()).collect();
    assert!(is_overflow(&set.get(&1_000)));
    for key in 0..max_keys {
        let id = held.remove(0).id();
        let lookup = set.get(&(1_000 + key));
        assert!(matches!(lookup, Lookup::Created(_)), "{key}");
        assert!(set.entries().iter().all(|(_, policy)| policy.id() != id));
        held.push(lookup.into_policy());
    }
}

#[test]
fn keys_that_are_used_again_outlive_a_flood_of_keys_that_are_not() {
    // Each shard has some 300 places, half of them used again after every thirty keys that come and do not return.
    let set = set::<u32>(10_000);
    let flood = |key: u32| drop(set.get(&(1_000_000 + key)));
    let mut used = Vec::new();
    for key in 0..5_000 {
        used.push(set.get(&key).into_policy().id());
        flood(key);
    }
    for key in 0..50_000 {
        if key % 1_000 == 0 {
            let found = (0..5_000).map(|key| set.get(&key).into_policy().id());
            assert!(found.eq(used.iter().copied()), "lost one at {key}");
        }
        flood(5_000 + key);
    }
}

#[test]
fn where_all_were_used_lately_one_goes_and_the_others_have_their_turn() {
    let keys = LOOKS * 2 + 2;
    let set = KeyedSet::with_shards(1, keys, numbered().0);
    for key in (0..keys).chain(0..keys) {
        set.get(&key);
    }
    for (new, goes) in (keys..).zip([0, LOOKS, 1, 2]) {
        assert!(set.peek(&goes).is_some());
        set.get(&new);
        assert!(set.peek(&goes).is_none(), "{goes}");
    }
}

#[test]
fn a_key_that_is_removed_starts_anew_and_makes_room() {
    let set = set::<String>(1);
    let held = set.get("a").into_policy();
    assert!(is_overflow(&set.get("b")));
    assert_eq!(set.remove("a").unwrap().id(), held.id());
    assert!(set.remove("a").is_none());
    assert_eq!(set.len(), 0);
    assert_ne!(set.get("a").into_policy().id(), held.id());
    check(&set);
}

#[test]
fn a_peek_neither_makes_a_policy_nor_counts_as_use() {
    let set = KeyedSet::with_shards(1, 2, numbered().0);
    assert!(set.peek(&1).is_none());
    assert_eq!(set.len(), 0);
    set.get(&1);
    set.get(&2);
    assert!(set.peek(&1).is_some());
    set.get(&3);
    assert!(set.peek(&1).is_none());
}

#[test]
fn a_million_keys_leave_no_more_than_the_bound_and_all_that_must_stay() {
    const KEYS: u64 = 1_000_000;
    let set = set::<u64>(DEFAULT_MAX_KEYS);
    let held: Vec<_> = (0..50).map(|key| set.get(&key).into_policy()).collect();
    let open: Vec<_> = (50..100).map(|key| set.get(&key).into_policy().id()).collect();
    for key in 50..100 {
        set.get(&key).into_policy().stay(true);
    }
    for key in 100..KEYS {
        assert!(matches!(set.get(&key), Lookup::Created(_)));
        assert!(set.len() <= 10_000);
    }
    assert_eq!(set.len(), 10_000);
    let kept = held.iter().map(Policy::id).chain(open);
    for (key, id) in (0..).zip(kept) {
        assert_eq!(set.get(&key).into_policy().id(), id);
    }
    check(&set);
    let places: usize = (0..SHARDS).map(|shard| set.lock(shard).places()).sum();
    assert_eq!(places, 10_000, "an entry that goes leaves its place to the next");
}

#[test]
fn a_million_keys_grow_nothing_once_the_set_is_full() {
    let set = set::<u64>(DEFAULT_MAX_KEYS);
    for key in 0..20_000 {
        set.get(&key);
    }
    let counted = measure(|| {
        for key in 20_000..1_020_000 {
            set.get(&key);
        }
    });
    println!("figure: bytes kept after a million keys: {}", counted.bytes_current);
    assert_eq!(counted.bytes_current, 0);
}

/// The most questions that one new key costs.
fn questions(set: &KeyedSet<u64, Policy>, asked: &AtomicUsize, keys: std::ops::Range<u64>) -> usize {
    let costs = keys.map(|key| {
        let before = asked.load(SeqCst);
        set.get(&key);
        asked.load(SeqCst) - before
    });
    costs.max().unwrap()
}

#[test]
fn a_new_key_looks_at_a_bounded_number_of_entries() {
    for max_keys in [1_000, 100_000] {
        let (make, asked) = numbered();
        let set = KeyedSet::new(usize::try_from(max_keys).unwrap(), make);
        let next = 10 * max_keys;
        for key in 0..max_keys {
            set.get(&key);
        }
        assert_eq!(asked.load(SeqCst), 0, "nobody is asked while there is room");
        assert_eq!(questions(&set, &asked, next..next + 1_000), 1, "idle, each used once");

        let next = next + 1_000;
        for (key, _) in set.entries() {
            set.get(&key);
        }
        assert_eq!(
            questions(&set, &asked, next..next + 1),
            LOOKS + 1,
            "idle, all used again"
        );

        for (_, policy) in set.entries() {
            policy.stay(true);
        }
        assert_eq!(questions(&set, &asked, next + 1..next + 1_000), LOOKS, "none can go");
        assert!(is_overflow(&set.get(&next.wrapping_mul(2))));
        asked.store(0, SeqCst);
        for (key, _) in set.entries() {
            set.get(&key);
        }
        assert_eq!(asked.load(SeqCst), 0, "a lookup asks nobody");
    }
}

#[test]
fn the_only_one_that_can_go_is_found_in_turn() {
    const KEYS: usize = 1_000;
    let set = KeyedSet::with_shards(1, KEYS, numbered().0);
    for key in 0..KEYS {
        set.get(&key).into_policy().stay(true);
    }
    set.get(&(KEYS - 1)).into_policy().stay(false);
    let made = (KEYS..2 * KEYS).position(|key| matches!(set.get(&key), Lookup::Created(_)));
    assert_eq!(made, Some(KEYS.div_ceil(LOOKS) - 1));
}

/// What a history may do.
#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Hold(u8),
    /// The n-th handle that is held, counted around.
    Release(usize),
    Stay(u8, bool),
    Remove(u8),
    Peek(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || 0..14_u8;
    prop_oneof![
        8 => key().prop_map(Step::Get),
        3 => key().prop_map(Step::Hold),
        3 => any::<usize>().prop_map(Step::Release),
        2 => (key(), any::<bool>()).prop_map(|(key, stay)| Step::Stay(key, stay)),
        1 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::Peek),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    key: u8,
    id: usize,
    used: bool,
    must_stay: bool,
}

/// The same set as a line of keys, read in full for each question.
#[derive(Default)]
struct Reference {
    max_keys: usize,
    line: Vec<Known>,
    held: Vec<usize>,
    made: usize,
}

impl Reference {
    fn can_go(&self, known: &Known) -> bool {
        !known.must_stay && !self.held.contains(&known.id)
    }

    fn known(&mut self, key: u8) -> Option<&mut Known> {
        self.line.iter_mut().find(|known| known.key == key)
    }

    /// `gone` is the key that went, where the order of the line is not known.
    fn get(&mut self, key: u8, gone: Option<u8>) -> Lookup<usize> {
        if let Some(known) = self.known(key) {
            known.used = true;
            return Lookup::Found(known.id);
        }
        if self.line.len() == self.max_keys {
            let victim = match gone {
                Some(gone) => self.line.iter().position(|known| known.key == gone),
                None => self.next_to_go(),
            };
            let Some(victim) = victim else {
                return Lookup::Overflow(0);
            };
            assert!(self.can_go(&self.line[victim]));
            self.line.remove(victim);
        }
        self.made += 1;
        self.line.push(Known {
            key,
            id: self.made,
            used: false,
            must_stay: false,
        });
        Lookup::Created(self.made)
    }

    /// The first that can go and was not used since its last turn, at the front of the line once the others had
    /// theirs; else the first that can go.
    fn next_to_go(&mut self) -> Option<usize> {
        let can_go: Vec<_> = (0..self.line.len()).filter(|n| self.can_go(&self.line[*n])).collect();
        for n in &can_go {
            if !std::mem::take(&mut self.line[*n].used) {
                self.line.rotate_left(*n);
                return Some(0);
            }
        }
        can_go.first().copied()
    }
}

fn ids(lookup: Lookup<Policy>) -> Lookup<usize> {
    match lookup {
        Lookup::Found(policy) => Lookup::Found(policy.id()),
        Lookup::Created(policy) => Lookup::Created(policy.id()),
        Lookup::Overflow(policy) => Lookup::Overflow(policy.id()),
    }
}

fn keys(set: &KeyedSet<u8, Policy>) -> HashSet<u8> {
    set.entries().into_iter().map(|(key, _)| key).collect()
}

/// Runs a history on both. With one shard the line itself is known, and has to agree.
fn agree(shards: usize, max_keys: usize, history: Vec<Step>) {
    let set = KeyedSet::with_shards(shards, max_keys, numbered().0);
    let mut reference = Reference {
        max_keys,
        ..Reference::default()
    };
    let mut held = Vec::new();
    for step in history {
        match step {
            Step::Get(key) | Step::Hold(key) => {
                let before = keys(&set);
                let lookup = set.get(&key);
                let gone: Vec<_> = before.difference(&keys(&set)).copied().collect();
                assert!(gone.len() <= 1);
                // Without a key that went, the reference may not expect one.
                let gone = gone.first().copied().filter(|_| shards > 1);
                let expected = reference.get(key, gone);
                let policy = lookup.clone().into_policy();
                assert_eq!(ids(lookup), expected);
                if matches!(step, Step::Hold(_)) {
                    reference.held.push(policy.id());
                    held.push(policy);
                }
            }
            Step::Release(n) => {
                if !held.is_empty() {
                    reference.held.remove(n % held.len());
                    held.remove(n % held.len());
                }
            }
            Step::Stay(key, must_stay) => {
                let (policy, known) = (set.peek(&key), reference.known(key));
                assert_eq!(policy.is_some(), known.is_some());
                if let (Some(policy), Some(known)) = (policy, known) {
                    policy.stay(must_stay);
                    known.must_stay = must_stay;
                }
            }
            Step::Remove(key) => {
                let known = reference.line.iter().position(|known| known.key == key);
                let known = known.map(|n| reference.line.remove(n).id);
                assert_eq!(set.remove(&key).map(|policy| policy.id()), known);
            }
            Step::Peek(key) => {
                let known = reference.known(key).map(|known| known.id);
                assert_eq!(set.peek(&key).map(|policy| policy.id()), known);
            }
        }
        check(&set);
        assert_eq!(keys(&set), reference.line.iter().map(|known| known.key).collect());
        if shards == 1 {
            let shard = set.lock(0);
            let line = shard.line().into_iter().copied();
            assert!(line.eq(reference.line.iter().map(|known| known.key)));
        }
    }
}

fn any_history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..64)
}

proptest! {
    #![proptest_config(crate::histories::histories(5_000))]

    #[test]
    fn one_shard_agrees_with_a_line_that_is_read_in_full(max_keys in 0..8_usize, history in any_history()) {
        agree(1, max_keys, history);
    }

    #[test]
    fn many_shards_keep_the_same_bound_and_evict_only_what_can_go(max_keys in 0..8_usize, history in any_history()) {
        agree(SHARDS, max_keys, history);
    }
}

#[test]
fn as_many_keys_as_there_is_room_for_never_overflow_however_they_race() {
    const THREADS: usize = 4;
    for round in 0..300_usize {
        let max_keys = 1 + round % 3;
        let set = set::<usize>(max_keys);
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for n in 0..THREADS {
                let (set, start) = (&set, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..200 {
                        // Held until all are removed, so that nothing can be evicted.
                        let keys = (0..max_keys).map(|key| (key + n) % max_keys);
                        let held: Vec<_> = keys.clone().map(|key| set.get(&key)).collect();
                        assert!(!held.iter().any(is_overflow));
                        keys.for_each(|key| drop(set.remove(&key)));
                    }
                });
            }
        });
        assert_eq!(set.len(), 0);
        check(&set);
    }
}

#[test]
fn a_key_has_one_policy_while_somebody_uses_it() {
    const KEYS: usize = 12;
    let set = set::<usize>(5);
    // The policy of each key that is in use, and by how many.
    let in_use: Vec<_> = (0..KEYS).map(|_| Mutex::new((0, 0_u32))).collect();
    let evictions = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (set, in_use, evictions) = (&set, &in_use, &evictions);
            scope.spawn(move || {
                let mut random = crate::random::Random::stream(7, u64::try_from(thread).unwrap());
                let mut held = Vec::new();
                for _ in 0..50_000 {
                    #[allow(clippy::cast_possible_truncation, clippy::as_conversions, reason = "below KEYS")]
                    #[allow(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "below KEYS")]
                    let key = (random.unit() * KEYS as f64) as usize;
                    let policy = match set.get(&key) {
                        Lookup::Overflow(policy) => {
                            assert_eq!(policy.id(), 0);
                            continue;
                        }
                        Lookup::Created(policy) => {
                            evictions.fetch_add(1, SeqCst);
                            policy
                        }
                        Lookup::Found(policy) => policy,
                    };
                    let mut user = in_use[key].lock().unwrap();
                    assert!(
                        user.1 == 0 || user.0 == policy.id(),
                        "two policies of one key are in use"
                    );
                    *user = (policy.id(), user.1 + 1);
                    drop(user);
                    held.push((key, policy));
                    if held.len() > 1 {
                        let (key, policy) = held.remove(0);
                        in_use[key].lock().unwrap().1 -= 1;
                        drop(policy);
                    }
                }
                for (key, _) in &held {
                    in_use[*key].lock().unwrap().1 -= 1;
                }
            });
        }
    });
    check(&set);
    assert!(
        evictions.load(SeqCst) > 1_000,
        "too few keys went for this to say something"
    );
}

#[test]
fn threads_that_flood_a_set_never_take_it_over_its_bound() {
    let set = set::<u64>(100);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let set = &set;
            scope.spawn(move || {
                for n in 0..50_000 {
                    let lookup = set.get(&(thread << 32 | n));
                    assert!(set.len() <= 100);
                    assert!(!is_overflow(&lookup), "with four in use at most");
                }
            });
        }
    });
    assert_eq!(set.len(), 100);
    check(&set);
}

thread_local! {
    /// Which call of the program's code panics next.
    static PANICS_IN: Cell<&'static str> = const { Cell::new("") };
}

fn may_panic(what: &'static str) {
    if PANICS_IN.get() == what {
        PANICS_IN.set("");
        panic!("asked to panic in {what}");
    }
}

struct Brittle(u32);

impl Hash for Brittle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        may_panic("hash");
        self.0.hash(state);
    }
}

impl PartialEq for Brittle {
    fn eq(&self, other: &Self) -> bool {
        may_panic("eq");
        self.0 == other.0
    }
}

impl Eq for Brittle {}

impl Clone for Brittle {
    fn clone(&self) -> Self {
        may_panic("clone");
        Self(self.0)
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        may_panic("drop");
    }
}

#[test]
fn a_panic_in_the_programs_code_leaves_the_set_as_it_was() {
    let (make, _) = numbered();
    let set = KeyedSet::with_shards(1, 4, move || {
        may_panic("make");
        make()
    });
    for key in 0..4 {
        set.get(&Brittle(key)).into_policy().stay(key > 0);
    }
    for (what, key) in [("hash", 1), ("eq", 1), ("clone", 9), ("make", 9), ("drop", 9)] {
        let key = Brittle(key);
        PANICS_IN.set(what);
        let lookup = catch_unwind(AssertUnwindSafe(|| drop(set.get(&key))));
        assert_eq!(PANICS_IN.get(), "", "nobody called {what}");
        assert!(lookup.is_err(), "{what}");
        check(&set);
        for key in 1..4 {
            let found = set.get(&Brittle(key));
            assert!(matches!(found, Lookup::Found(_)), "{what}");
        }
        // The one that can go.
        let lookup = set.get(&Brittle(0));
        assert!(matches!(lookup, Lookup::Found(_) | Lookup::Created(_)), "{what}");
        assert_eq!(set.len(), 4, "{what}");
    }
}

#[test]
fn keys_that_contradict_themselves_stay_within_the_bound() {
    #[derive(Clone)]
    struct Liar;
    impl Hash for Liar {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Liar {
        fn eq(&self, _: &Self) -> bool {
            false
        }
    }
    impl Eq for Liar {}

    let set = set::<Liar>(10);
    for _ in 0..1_000 {
        assert!(matches!(set.get(&Liar), Lookup::Created(_)));
    }
    assert_eq!(set.len(), 10);
    check(&set);
}

/// Looks at every shard of its set when it is dropped.
#[derive(Clone)]
struct Nosy(Arc<Looks>);

struct Looks(Arc<OnceLock<Weak<KeyedSet<u32, Nosy>>>>);

fn look(set: &OnceLock<Weak<KeyedSet<u32, Nosy>>>) -> bool {
    let set = set.get().and_then(Weak::upgrade);
    set.is_some_and(|set| set.entries().len() == set.len())
}

impl Drop for Looks {
    fn drop(&mut self) {
        look(&self.0);
    }
}

impl Resident for Nosy {
    fn is_unused(&self) -> bool {
        is_only(&self.0)
    }

    fn must_stay(&self) -> bool {
        false
    }
}

#[test]
fn no_lock_is_held_while_a_policy_is_made_or_dropped() {
    let door = Arc::new(OnceLock::new());
    let (inside, looked) = (door.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = looked.clone();
    let set = Arc::new(KeyedSet::new(3, move || {
        if look(&inside) {
            counter.fetch_add(1, SeqCst);
        }
        Nosy(Arc::new(Looks(inside.clone())))
    }));
    door.set(Arc::downgrade(&set)).unwrap();
    for key in 0..100 {
        set.get(&key);
    }
    assert!(set.remove(&99).is_some());
    assert_eq!(looked.load(SeqCst), 100);
}
