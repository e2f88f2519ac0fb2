//! Duplicates in one process: one leads, the others wait for it.
//!
//! ```text
//!              enter, first           running             finish
//!   (no slot) --------------> asking ----------> running ----------> (no slot, every waiter has the word)
//!                               ^                   |
//!                               | a waiter leads    | dropped, without a word
//!                               +-------------------+   (after three runs: the rest hear "in progress")
//! ```
//!
//! The lead is a guard: whoever drops it, in whatever way, hands it to the waiter that has waited longest. It travels to
//! that waiter inside the channel, so one that leaves before it has looked drops it there, and it goes on to the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::fingerprint::Fingerprint;
use crate::KeyId;
use crate::rejected::Idempotency as Why;

/// How many operations may end without an outcome before the waiters are sent away.
const MAX_RUNS: u8 = 4;

/// The slots of every operation under way in this process.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<HashMap<KeyId, Slot>>,
    /// The next waiter's. Of no slot: a waiter that has had its word may leave when another slot has its place.
    tickets: AtomicU64,
}

struct Slot {
    fingerprint: Fingerprint,
    running: bool,
    /// Runs that ended without an outcome.
    failed_runs: u8,
    /// By ticket, so in the order of their arrival.
    waiters: BTreeMap<u64, Waiting>,
}

struct Waiting {
    word: oneshot::Sender<Word>,
    /// It only waits to hear what the store has, and not for an operation.
    brief: bool,
}

/// How the wait ended.
pub(crate) enum Word {
    /// There is an outcome, framed.
    Outcome {
        outcome: Bytes,
        /// Whether the store has it.
        recorded: bool,
        attempt: u32,
    },
    /// The store refused.
    Rejected(Why),
    /// The operation is running, and goes on.
    InProgress,
    /// The one before had no outcome: it is this waiter's turn to ask the store.
    Lead(Lead),
}

/// What an arrival is.
pub(crate) enum Seat {
    /// The one that asks the store.
    Lead(Lead),
    /// One that waits for the word.
    Wait(Waiter),
    /// One too many, or one that does not wait.
    InProgress,
    /// Another request under the same key: the store decides between them.
    Alone,
}

impl Slots {
    /// Finds a seat. `brief`: waits for the store's answer to the lead at most, not for an operation.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: KeyId,
        fingerprint: Fingerprint,
        brief: bool,
        max_waiters: usize,
    ) -> Seat {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(&id) else {
            slots.insert(id, Slot::new(fingerprint));
            return Seat::Lead(Lead::new(self, id));
        };
        if slot.fingerprint != fingerprint {
            return Seat::Alone;
        }
        if (brief && slot.running) || slot.waiters.len() >= max_waiters {
            return Seat::InProgress;
        }
        let (sender, word) = oneshot::channel();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        slot.waiters.insert(ticket, Waiting { word: sender, brief });
        Seat::Wait(Waiter {
            slots: Arc::clone(self),
            id,
            ticket,
            word,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Slot>> {
        // No step under the lock can panic half way.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Slot {
    fn new(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            running: false,
            failed_runs: 0,
            waiters: BTreeMap::new(),
        }
    }
}

/// The right, and the duty, to ask the store and to say what came of it.
pub(crate) struct Lead {
    /// `None` once it has been given up.
    slots: Option<Arc<Slots>>,
    id: KeyId,
}

impl Lead {
    fn new(slots: &Arc<Slots>, id: KeyId) -> Self {
        Self {
            slots: Some(Arc::clone(slots)),
            id,
        }
    }

    /// The key is claimed: who waits for that only is told.
    pub(crate) fn running(&mut self) {
        let mut brief = Vec::new();
        if let Some(slots) = &self.slots {
            if let Some(slot) = slots.lock().get_mut(&self.id) {
                slot.running = true;
                let tickets: Vec<u64> = slot
                    .waiters
                    .iter()
                    .filter(|(_, waiting)| waiting.brief)
                    .map(|(ticket, _)| *ticket)
                    .collect();
                brief.extend(tickets.iter().filter_map(|ticket| slot.waiters.remove(ticket)));
            }
        }
        for waiting in brief {
            let _ = waiting.word.send(Word::InProgress);
        }
    }

    /// Tells everybody the outcome.
    pub(crate) fn outcome(mut self, outcome: &Bytes, recorded: bool, attempt: u32) {
        let word = || Word::Outcome {
            outcome: outcome.clone(),
            recorded,
            attempt,
        };
        self.finish(word);
    }

    /// Tells everybody what the store said.
    pub(crate) fn rejected(mut self, why: Why) {
        self.finish(|| Word::Rejected(why));
    }

    fn finish(&mut self, word: impl Fn() -> Word) {
        let Some(slots) = self.slots.take() else { return };
        let slot = slots.lock().remove(&self.id);
        for waiting in slot.into_iter().flat_map(|slot| slot.waiters.into_values()) {
            let _ = waiting.word.send(word());
        }
    }

    /// Hands the lead on.
    fn pass_on(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        let mut slot_map = slots.lock();
        if let Some(slot) = slot_map.get_mut(&self.id) {
            slot.failed_runs += u8::from(slot.running);
            slot.running = false;
        }
        loop {
            let Some(slot) = slot_map.get_mut(&self.id) else { return };
            let next = if slot.failed_runs < MAX_RUNS {
                slot.waiters.pop_first()
            } else {
                None
            };
            let Some((_, next)) = next else {
                let slot = slot_map.remove(&self.id);
                drop(slot_map);
                for waiting in slot.into_iter().flat_map(|slot| slot.waiters.into_values()) {
                    let _ = waiting.word.send(Word::InProgress);
                }
                return;
            };
            // Not under the lock: a receiver that leaves at this moment drops the lead, which takes it.
            drop(slot_map);
            let Err(Word::Lead(mut unclaimed)) = next.word.send(Word::Lead(Self::new(&slots, self.id))) else {
                return;
            };
            unclaimed.slots = None;
            slot_map = slots.lock();
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.pass_on();
    }
}

/// A place in the line behind the lead; left when it is dropped.
pub(crate) struct Waiter {
    slots: Arc<Slots>,
    id: KeyId,
    ticket: u64,
    word: oneshot::Receiver<Word>,
}

impl Waiter {
    /// The word. It is lost with the future: but for the lead, which then goes on to the next.
    pub(crate) async fn word(&mut self) -> Word {
        // A sender is dropped without a word by nobody.
        (&mut self.word).await.unwrap_or(Word::InProgress)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut slots = self.slots.lock();
        let left = slots
            .get_mut(&self.id)
            .and_then(|slot| slot.waiters.remove(&self.ticket));
        // Its channel may hold a lead, whose end takes the lock.
        drop(slots);
        drop(left);
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn id() -> KeyId {
        KeyId::from_bytes([1; 32])
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint::of_parts(&[b"request"])
    }

    fn enter(slots: &Arc<Slots>) -> Seat {
        slots.enter(id(), fingerprint(), false, 10)
    }

    fn lead(slots: &Arc<Slots>) -> Lead {
        match enter(slots) {
            Seat::Lead(lead) => lead,
            _ => unreachable!("nobody was there"),
        }
    }

    fn waiter(slots: &Arc<Slots>) -> Waiter {
        match enter(slots) {
            Seat::Wait(waiter) => waiter,
            _ => unreachable!("somebody leads"),
        }
    }

    /// The word, if it is there: `outcome`, `in progress`, `rejected`, `lead`; the lead is kept in `kept`.
    fn word(waiter: &mut Waiter, kept: &mut Vec<Lead>) -> Option<&'static str> {
        Some(match waiter.word().now_or_never()? {
            Word::Outcome { .. } => "outcome",
            Word::Rejected(_) => "rejected",
            Word::InProgress => "in progress",
            Word::Lead(lead) => {
                kept.push(lead);
                "lead"
            }
        })
    }

    #[test]
    fn everybody_hears_the_outcome_and_nothing_is_left() {
        let slots = Arc::new(Slots::default());
        let mut leader = lead(&slots);
        let mut waiters = [waiter(&slots), waiter(&slots)];
        leader.running();
        leader.outcome(&Bytes::from_static(b"42"), true, 1);
        for waiter in &mut waiters {
            assert_eq!(word(waiter, &mut Vec::new()), Some("outcome"));
        }
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_lead_that_is_dropped_goes_to_the_waiter_that_came_first() {
        let slots = Arc::new(Slots::default());
        let leader = lead(&slots);
        let (mut first, mut second) = (waiter(&slots), waiter(&slots));
        let mut kept = Vec::new();
        drop(leader);
        assert_eq!(word(&mut second, &mut kept), None);
        assert_eq!(word(&mut first, &mut kept), Some("lead"));
        drop(kept);
        let mut kept = Vec::new();
        assert_eq!(word(&mut second, &mut kept), Some("lead"));
        drop(kept);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_lead_that_its_waiter_never_looked_at_goes_on_to_the_next() {
        let slots = Arc::new(Slots::default());
        let leader = lead(&slots);
        let (first, mut second) = (waiter(&slots), waiter(&slots));
        drop(leader);
        drop(first);
        let mut kept = Vec::new();
        assert_eq!(word(&mut second, &mut kept), Some("lead"));
    }

    #[test]
    fn a_waiter_that_leaves_as_the_lead_comes_to_it_is_passed_over_once() {
        let slots = Arc::new(Slots::default());
        let leader = lead(&slots);
        let (mut first, mut second, mut third) = (waiter(&slots), waiter(&slots), waiter(&slots));
        // As far as its drop has come when another thread has taken it out of the line already.
        first.word.close();
        drop(leader);
        let mut kept = Vec::new();
        assert_eq!(word(&mut second, &mut kept), Some("lead"));
        assert_eq!(word(&mut third, &mut kept), None);
        drop((first, kept));
        assert_eq!(word(&mut third, &mut Vec::new()), Some("lead"));
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_waiter_that_left_is_passed_over_and_takes_no_place() {
        let slots = Arc::new(Slots::default());
        let leader = lead(&slots);
        let many: Vec<_> = (0..10).map(|_| waiter(&slots)).collect();
        assert!(matches!(enter(&slots), Seat::InProgress));
        drop(many);
        let mut last = waiter(&slots);
        drop(leader);
        assert_eq!(word(&mut last, &mut Vec::new()), Some("lead"));
        drop(last);
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn after_four_runs_without_an_outcome_the_rest_are_sent_away() {
        let slots = Arc::new(Slots::default());
        let mut leader = lead(&slots);
        let mut waiters: Vec<_> = (0..6).map(|_| waiter(&slots)).collect();
        for waiter in &mut waiters[..3] {
            leader.running();
            drop(leader);
            let mut kept = Vec::new();
            assert_eq!(word(waiter, &mut kept), Some("lead"));
            leader = kept.remove(0);
        }
        leader.running();
        drop(leader);
        for waiter in &mut waiters[3..] {
            assert_eq!(word(waiter, &mut Vec::new()), Some("in progress"));
        }
        assert_eq!(slots.len(), 0);
    }

    #[test]
    fn a_lead_that_only_asked_costs_no_run() {
        let slots = Arc::new(Slots::default());
        let mut leader = lead(&slots);
        let mut waiters: Vec<_> = (0..9).map(|_| waiter(&slots)).collect();
        for waiter in &mut waiters {
            drop(leader);
            let mut kept = Vec::new();
            assert_eq!(word(waiter, &mut kept), Some("lead"));
            leader = kept.remove(0);
        }
    }

    #[test]
    fn who_waits_briefly_hears_that_it_runs_and_afterwards_is_not_let_in() {
        let slots = Arc::new(Slots::default());
        let mut leader = lead(&slots);
        let Seat::Wait(mut brief) = slots.enter(id(), fingerprint(), true, 10) else {
            unreachable!("the lead is asking");
        };
        let mut patient = waiter(&slots);
        leader.running();
        assert_eq!(word(&mut brief, &mut Vec::new()), Some("in progress"));
        assert_eq!(word(&mut patient, &mut Vec::new()), None);
        assert!(matches!(slots.enter(id(), fingerprint(), true, 10), Seat::InProgress));
    }

    #[test]
    fn a_waiter_that_leaves_after_its_word_takes_nothing_from_the_next_line() {
        let slots = Arc::new(Slots::default());
        let (leader, first) = (lead(&slots), waiter(&slots));
        leader.rejected(Why::KeyMismatch);
        let (leader, mut second) = (lead(&slots), waiter(&slots));
        drop(first);
        leader.rejected(Why::KeyMismatch);
        assert_eq!(word(&mut second, &mut Vec::new()), Some("rejected"));
    }

    #[test]
    fn another_request_under_the_key_is_on_its_own() {
        let slots = Arc::new(Slots::default());
        let _leader = lead(&slots);
        let other = Fingerprint::of_parts(&[b"another"]);
        assert!(matches!(slots.enter(id(), other, false, 10), Seat::Alone));
    }
}
