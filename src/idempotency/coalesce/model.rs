//! The slots against a slow, obvious model, and under real threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;

use super::*;
use crate::random::Random;

fn id(key: u8) -> KeyId {
    KeyId::from_bytes([key; 32])
}

fn fingerprint(request: u8) -> Fingerprint {
    Fingerprint::of_parts(&[&[request]])
}

/// What a waiter hears; of an outcome its attempt, which tells one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Outcome(u32),
    Rejected,
    InProgress,
    Lead,
}

/// One key, as it should be.
#[derive(Default)]
struct Model {
    slot: Option<ModelSlot>,
    /// What was said to waiters that have not looked.
    said: HashMap<u64, Heard>,
}

struct ModelSlot {
    request: u8,
    running: bool,
    failed_runs: u8,
    /// Waiters, and whether each is brief.
    line: Vec<(u64, bool)>,
}

impl Model {
    fn say_to_all(&mut self, word: Heard) {
        if let Some(slot) = self.slot.take() {
            self.said
                .extend(slot.line.into_iter().map(|(waiter, _)| (waiter, word)));
        }
    }

    fn pass_on(&mut self) {
        let Some(slot) = &mut self.slot else { return };
        slot.failed_runs += u8::from(slot.running);
        slot.running = false;
        if slot.failed_runs == 4 || slot.line.is_empty() {
            self.say_to_all(Heard::InProgress);
        } else {
            let (next, _) = slot.line.remove(0);
            self.said.insert(next, Heard::Lead);
        }
    }

    fn running(&mut self) {
        let Some(slot) = &mut self.slot else { return };
        slot.running = true;
        let brief = slot.line.iter().filter(|(_, brief)| *brief);
        self.said.extend(brief.map(|(waiter, _)| (*waiter, Heard::InProgress)));
        slot.line.retain(|(_, brief)| !brief);
    }

    fn leave(&mut self, waiter: u64) {
        if let Some(slot) = &mut self.slot {
            slot.line.retain(|(waiting, _)| *waiting != waiter);
        }
        if self.said.remove(&waiter) == Some(Heard::Lead) {
            self.pass_on();
        }
    }
}

const MAX_WAITERS: usize = 4;

/// The slots and the model, side by side.
struct Pair {
    slots: Arc<Slots>,
    model: Model,
    leads: Vec<Lead>,
    waiters: Vec<(u64, Waiter)>,
    next: u64,
}

impl Pair {
    fn enter(&mut self, request: u8, brief: bool) {
        let seat = self.slots.enter(id(1), fingerprint(request), brief, MAX_WAITERS);
        let number = self.next;
        self.next += 1;
        let expected = match &mut self.model.slot {
            None => {
                self.model.slot = Some(ModelSlot {
                    request,
                    running: false,
                    failed_runs: 0,
                    line: Vec::new(),
                });
                "lead"
            }
            Some(slot) if slot.request != request => "alone",
            Some(slot) if (brief && slot.running) || slot.line.len() >= MAX_WAITERS => "in progress",
            Some(slot) => {
                slot.line.push((number, brief));
                "wait"
            }
        };
        let found = match seat {
            Seat::Lead(lead) => {
                self.leads.push(lead);
                "lead"
            }
            Seat::Alone => "alone",
            Seat::InProgress => "in progress",
            Seat::Wait(waiter) => {
                self.waiters.push((number, waiter));
                "wait"
            }
        };
        assert_eq!(found, expected);
    }

    fn look(&mut self, at: usize) {
        let (number, waiter) = &mut self.waiters[at];
        let word = waiter.word().now_or_never();
        let heard = word.as_ref().map(|word| match word {
            Word::Outcome { attempt, .. } => Heard::Outcome(*attempt),
            Word::Rejected(_) => Heard::Rejected,
            Word::InProgress => Heard::InProgress,
            Word::Lead(_) => Heard::Lead,
        });
        assert_eq!(heard, self.model.said.remove(number));
        if let Some(Word::Lead(lead)) = word {
            self.leads.push(lead);
        }
        if heard.is_some() {
            self.waiters.swap_remove(at);
        }
    }

    fn leave(&mut self, at: usize) {
        let (number, waiter) = self.waiters.swap_remove(at);
        drop(waiter);
        self.model.leave(number);
    }

    fn end(&mut self, how: u64, attempt: u32) {
        let Some(mut lead) = self.leads.pop() else { return };
        match how {
            0 => {
                lead.outcome(&Bytes::new(), true, attempt);
                self.model.say_to_all(Heard::Outcome(attempt));
            }
            1 => {
                lead.rejected(Why::KeyMismatch);
                self.model.say_to_all(Heard::Rejected);
            }
            2 => {
                drop(lead);
                self.model.pass_on();
            }
            _ => {
                lead.running();
                self.model.running();
                self.leads.push(lead);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.slots.len(), usize::from(self.model.slot.is_some()));
        let unclaimed = self.model.said.values().filter(|word| **word == Heard::Lead).count();
        let leads = self.leads.len() + unclaimed;
        assert_eq!(leads, self.slots.len(), "one lead for each slot, and no other");
    }
}

#[test]
fn ten_thousand_random_histories_are_those_of_the_model() {
    for history in 0..10_000 {
        let mut random = Random::stream(7, history);
        let mut pair = Pair {
            slots: Arc::default(),
            model: Model::default(),
            leads: Vec::new(),
            waiters: Vec::new(),
            next: 0,
        };
        for step in 0..60 {
            let waiters = u64::try_from(pair.waiters.len()).expect("a few");
            let at = usize::try_from(random.below(waiters.max(1))).expect("a few");
            match random.below(12) {
                0..=3 => pair.enter(u8::from(random.below(8) == 0), random.below(3) == 0),
                4..=5 if waiters > 0 => pair.look(at),
                6 if waiters > 0 => pair.leave(at),
                7..=11 => pair.end(random.below(8), step),
                _ => {}
            }
            pair.check();
        }
        // Whoever is left leaves, or hears something once nobody leads.
        while !pair.leads.is_empty() || !pair.waiters.is_empty() {
            while !pair.leads.is_empty() {
                pair.end(2, 0);
            }
            for at in (0..pair.waiters.len()).rev() {
                pair.look(at);
            }
            pair.check();
        }
        assert_eq!(pair.slots.len(), 0, "history {history}");
    }
}

/// What a thread does with a seat: at most one lead per key at any time, and every word arrives.
fn play(slots: &Arc<Slots>, leads: &[AtomicBool; 3], random: &mut Random, ends: &AtomicU64) {
    let key = random.below(3);
    let at = usize::try_from(key).expect("one of three");
    let id = id(u8::try_from(key).expect("one of three"));
    let brief = random.below(4) == 0;
    let mut lead = match slots.enter(id, fingerprint(0), brief, 6) {
        Seat::Alone => unreachable!("the requests are the same"),
        Seat::InProgress => return,
        Seat::Lead(lead) => lead,
        Seat::Wait(mut waiter) => {
            if random.below(3) == 0 {
                for _ in 0..random.below(3) {
                    match waiter.word().now_or_never() {
                        None => thread::yield_now(),
                        Some(Word::Lead(lead)) => {
                            assert!(!leads[at].swap(true, Ordering::SeqCst), "two leads");
                            leads[at].store(false, Ordering::SeqCst);
                            drop(lead);
                            return;
                        }
                        Some(Word::Outcome { .. } | Word::Rejected(_) | Word::InProgress) => return,
                    }
                }
                return;
            }
            match block_on(waiter.word()) {
                Word::Lead(lead) => lead,
                Word::Outcome { .. } | Word::Rejected(_) | Word::InProgress => return,
            }
        }
    };
    assert!(!leads[at].swap(true, Ordering::SeqCst), "two leads");
    if random.below(2) == 0 {
        lead.running();
    }
    for _ in 0..random.below(20) {
        thread::yield_now();
    }
    leads[at].store(false, Ordering::SeqCst);
    ends.fetch_add(1, Ordering::Relaxed);
    match random.below(4) {
        0 => lead.outcome(&Bytes::new(), true, 1),
        1 => lead.rejected(Why::KeyMismatch),
        _ => drop(lead),
    }
}

#[test]
fn no_word_is_lost_between_threads_and_one_leads_at_a_time() {
    const THREADS: u64 = 8;
    let slots = Arc::new(Slots::default());
    let leads: Arc<[AtomicBool; 3]> = Arc::default();
    let ends = Arc::new(AtomicU64::new(0));
    let (done, is_done) = mpsc::channel();
    for player in 0..THREADS {
        let (slots, leads, ends, done) = (Arc::clone(&slots), Arc::clone(&leads), Arc::clone(&ends), done.clone());
        thread::spawn(move || {
            let mut random = Random::stream(11, player);
            for _ in 0..20_000 {
                play(&slots, &leads, &mut random, &ends);
            }
            done.send(()).expect("the test waits");
        });
    }
    drop(done);
    for _ in 0..THREADS {
        // A thread that waits for a word that nobody says, or has failed, never gets here.
        let ended = is_done.recv_timeout(Duration::from_secs(60));
        ended.expect("every thread has come to its end");
    }
    assert_eq!(slots.len(), 0);
    assert!(ends.load(Ordering::Relaxed) > 1_000);
}
