//! The core of a bulkhead: who may run, who waits, and who has to be told. No clock, no future, no events.

use std::num::NonZeroU32;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use super::queue::{Queue, Settled, Ticket};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// Set while nobody waits. As the highest bit, so that one comparison tells both that nobody waits and that enough is
/// free.
const QUIET: u64 = 1 << 63;
/// What the word holds when nothing is free: after the limit was lowered less than nothing can be.
const NOTHING: u64 = 1 << 32;

/// A fair, weighted semaphore with a bounded queue and a limit that can be changed.
///
/// # The word
///
/// What is free, which is the limit less the weights of all that run, and whether nobody waits. A call that finds
/// enough free and nobody waiting takes its permit by one compare-and-swap, and gives it back by one addition. The lock
/// is taken by who finds it full and may wait, by who finds somebody waiting, and for what is seldom asked.
///
/// # The states of a call
///
/// ```text
///           enough free, nobody waits
///  outside ───────────────────────────────────────────► running ──► gone
///     │ room in the queue                                  ▲ it looks
///     ├──────────► waiting ── it is first and fits ──► granted
///     │               ├────── the limit fell under its weight ──► refused
///     │ no room       └────── it leaves: timed out or dropped ──► gone
///     └──────────► gone
/// ```
///
/// Dropped while *waiting*, it leaves the line, and those behind it may move up. Dropped while *granted*, its permit goes
/// back as if it had run. Dropped while *refused*, its place is vacated. A wait that times out leaves in the same way,
/// and is told if its permit had come: then it runs.
///
/// # What keeps it true
///
/// 1. Whenever the lock is let go, `QUIET` is set exactly if the queue is empty, and the first in the queue does not fit
///    into what was free when `QUIET` or the word was last looked at under the lock.
/// 2. While `QUIET` is not set, only the holder of the lock takes: what is free can only grow under its hands.
/// 3. Who gives back adds first, and learns by the same operation whether somebody waits; who joins the queue clears
///    `QUIET` first, and learns by the same operation what is free. Both change one word, so one of them comes first:
///    either the joiner sees what was given back, or the giver sees that somebody waits, and then takes the lock
///    to hand it on. No wake-up is lost between them.
///
/// # Orderings
///
/// A permit is given back with release and taken with acquire, so that what was done under one permit is seen under the
/// next; all that lies between are read-modify-writes, which carry a release on. Under the lock the word is read with
/// acquire for the same reason: the permit is then handed over by the lock. The third point needs no ordering, only the
/// one order in which a single word changes. Wakers are cloned, woken and dropped outside the lock: they are the
/// executor's code.
#[derive(Debug)]
pub(crate) struct Semaphore {
    word: AtomicU64,
    /// The same as `Waiting::max_queued`, for who only wants to know whether there is a queue at all.
    max_queued: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    queue: Queue,
    limit: u32,
    max_queued: u32,
    max_wait: Option<Duration>,
}

/// What became of a call that did not find its permit at once.
#[derive(Debug)]
pub(crate) enum Entered {
    Admitted,
    /// It waits, and may do so for so long.
    Queued(Ticket, Duration),
    Full,
}

/// Settings and gauges of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) limit: u32,
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
    pub(crate) max_queued: u32,
    pub(crate) max_wait: Option<Duration>,
}

/// Whom to wake, once the lock is let go. Most often one.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
    /// Not to be woken, but to be dropped outside the lock as well.
    left: Option<Waker>,
}

impl Wakers {
    fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }
}

impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Waker>, std::vec::IntoIter<Waker>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

fn units(weight: NonZeroU32) -> u64 {
    weight.get().into()
}

/// Whether so much is free, by the word without `QUIET`.
fn fits(free: u64, weight: NonZeroU32) -> bool {
    free >= NOTHING + units(weight)
}

impl Semaphore {
    pub(crate) fn new(limit: u32, max_queued: u32, max_wait: Option<Duration>) -> Self {
        Self {
            word: AtomicU64::new(QUIET + NOTHING + u64::from(limit)),
            max_queued: AtomicU64::new(max_queued.into()),
            waiting: Mutex::new(Waiting {
                queue: Queue::default(),
                limit,
                max_queued,
                max_wait,
            }),
        }
    }

    /// Takes a permit, if there is one and nobody waits for it.
    ///
    /// False may also mean that somebody holds the lock: [`enter`](Self::enter) then knows.
    #[inline]
    pub(crate) fn try_acquire(&self, weight: NonZeroU32) -> bool {
        let weight = u64::from(weight.get());
        let mut word = self.word.load(Ordering::Relaxed);
        while word >= QUIET + NOTHING + weight {
            let taken = word - weight;
            match self
                .word
                .compare_exchange_weak(word, taken, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Whether the lightest call would be admitted right now.
    #[inline]
    pub(crate) fn admits(&self) -> bool {
        self.word.load(Ordering::Relaxed) > QUIET + NOTHING
    }

    /// Takes a permit, or a place in the queue where the call may wait.
    pub(crate) fn enter(&self, weight: NonZeroU32, may_wait: bool) -> Entered {
        let word = self.word.load(Ordering::Relaxed);
        let may_wait = may_wait && self.max_queued.load(Ordering::Relaxed) > 0;
        if !may_wait && word & QUIET != 0 && !fits(word & !QUIET, weight) {
            // Full at that moment, and nothing to change: many who are refused at once do not meet at the lock.
            return Entered::Full;
        }
        let mut waiting = self.lock();
        let free = self.word.fetch_and(!QUIET, Ordering::Acquire) & !QUIET;
        if waiting.queue.is_empty() && fits(free, weight) {
            self.word.fetch_sub(units(weight), Ordering::Acquire);
            self.word.fetch_or(QUIET, Ordering::Relaxed);
            return Entered::Admitted;
        }
        if may_wait && waiting.has_room(weight) {
            let ticket = waiting.queue.join(weight);
            return Entered::Queued(ticket, waiting.max_wait.unwrap_or(Duration::MAX));
        }
        if waiting.queue.is_empty() {
            self.word.fetch_or(QUIET, Ordering::Relaxed);
        }
        Entered::Full
    }

    /// What became of a waiter, or its ticket again: then `waker` is woken when it is settled, and the one in its place
    /// is left in `waker`, to be dropped when the ticket is in safety.
    pub(crate) fn poll(&self, ticket: Ticket, waker: &mut Option<Waker>) -> Result<Settled, Ticket> {
        self.lock().queue.poll(ticket, waker)
    }

    /// Gives a place in the queue back. If the permit had come, the caller has it.
    pub(crate) fn leave(&self, ticket: Ticket) -> (Option<Settled>, Wakers) {
        let mut wakers = Wakers::default();
        let mut waiting = self.lock();
        let (settled, left) = waiting.queue.leave(ticket);
        wakers.left = left;
        self.move_up(&mut waiting, &mut wakers);
        drop(waiting);
        (settled, wakers)
    }

    /// Gives a permit back. True: somebody waits, and [`hand_on`](Self::hand_on) has to be called.
    #[inline]
    #[must_use]
    pub(crate) fn release(&self, weight: NonZeroU32) -> bool {
        self.word.fetch_add(u64::from(weight.get()), Ordering::Release) & QUIET == 0
    }

    /// Grants what is free to those who wait.
    pub(crate) fn hand_on(&self) -> Wakers {
        let mut wakers = Wakers::default();
        self.move_up(&mut self.lock(), &mut wakers);
        wakers
    }

    /// Changes the limit. Nobody who runs is interrupted; 0 admits nobody, and refuses nobody who waits either.
    pub(crate) fn set_limit(&self, limit: u32) -> Wakers {
        let mut wakers = Wakers::default();
        let mut waiting = self.lock();
        let before = std::mem::replace(&mut waiting.limit, limit);
        if limit >= before {
            self.word.fetch_add((limit - before).into(), Ordering::Relaxed);
        } else {
            self.word.fetch_sub((before - limit).into(), Ordering::Relaxed);
        }
        if limit > 0 {
            waiting.queue.refuse_above(limit, |waker| wakers.push(waker));
        }
        self.move_up(&mut waiting, &mut wakers);
        drop(waiting);
        wakers
    }

    /// Changes the length of the queue. Who waits already stays. False, and unchanged, if there is to be a queue and no
    /// limit on the wait.
    pub(crate) fn set_max_queued(&self, max_queued: u32) -> bool {
        let mut waiting = self.lock();
        let allowed = max_queued == 0 || waiting.max_wait.is_some();
        if allowed {
            waiting.max_queued = max_queued;
            self.max_queued.store(max_queued.into(), Ordering::Relaxed);
        }
        allowed
    }

    /// Changes how long those may wait who come from now on.
    pub(crate) fn set_max_wait(&self, max_wait: Duration) {
        self.lock().max_wait = Some(max_wait);
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let waiting = self.lock();
        let free = self.word.load(Ordering::Relaxed) & !QUIET;
        let in_flight = NOTHING + u64::from(waiting.limit) - free;
        Gauges {
            limit: waiting.limit,
            // What runs was admitted under some limit, and that fits.
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            queued: waiting.queue.len(),
            max_queued: waiting.max_queued,
            max_wait: waiting.max_wait,
        }
    }

    fn move_up(&self, waiting: &mut Waiting, wakers: &mut Wakers) {
        let free = self.word.load(Ordering::Acquire) & !QUIET;
        let mut taken = 0;
        while let Some(weight) = waiting.queue.first() {
            if !fits(free - taken, weight) {
                break;
            }
            taken += units(weight);
            waiting
                .queue
                .grant_first()
                .into_iter()
                .for_each(|waker| wakers.push(waker));
        }
        self.word.fetch_sub(taken, Ordering::Relaxed);
        if waiting.queue.is_empty() {
            self.word.fetch_or(QUIET, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in the locked sections can panic half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether one more may wait, and could ever be admitted. A limit of 0 is a pause: it says nothing of the weights
    /// that will fit when it ends.
    fn has_room(&self, weight: NonZeroU32) -> bool {
        self.queue.len() < self.max_queued && (self.limit == 0 || weight.get() <= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn w(weight: u32) -> NonZeroU32 {
        NonZeroU32::new(weight).unwrap()
    }

    fn semaphore(limit: u32, max_queued: u32) -> Semaphore {
        Semaphore::new(limit, max_queued, Some(MS))
    }

    /// As every face enters.
    fn enter(semaphore: &Semaphore, weight: u32, may_wait: bool) -> Entered {
        if semaphore.try_acquire(w(weight)) {
            return Entered::Admitted;
        }
        semaphore.enter(w(weight), may_wait)
    }

    #[track_caller]
    fn queued(entered: Entered) -> Ticket {
        let Entered::Queued(ticket, _) = entered else {
            panic!("{entered:?}")
        };
        ticket
    }

    fn give_back(semaphore: &Semaphore, weight: u32) -> Wakers {
        if semaphore.release(w(weight)) {
            semaphore.hand_on()
        } else {
            Wakers::default()
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wake(wakers: Wakers) {
        wakers.into_iter().for_each(Waker::wake);
    }

    fn look(semaphore: &Semaphore, ticket: Ticket, waker: &Waker) -> Result<Settled, Ticket> {
        semaphore.poll(ticket, &mut Some(waker.clone()))
    }

    #[track_caller]
    fn waits(semaphore: &Semaphore, ticket: Ticket) -> Ticket {
        look(semaphore, ticket, Waker::noop()).unwrap_err()
    }

    #[test]
    fn two_run_the_third_is_refused_and_then_there_is_room_again() {
        let semaphore = semaphore(2, 0);
        assert!(matches!(enter(&semaphore, 1, true), Entered::Admitted));
        assert!(matches!(enter(&semaphore, 1, true), Entered::Admitted));
        assert!(matches!(enter(&semaphore, 1, true), Entered::Full));
        wake(give_back(&semaphore, 1));
        wake(give_back(&semaphore, 1));
        assert!(matches!(enter(&semaphore, 1, true), Entered::Admitted));
    }

    #[test]
    fn nobody_passes_a_heavier_one_that_came_first() {
        let semaphore = semaphore(3, 2);
        assert!(semaphore.try_acquire(w(2)));
        let heavy = queued(enter(&semaphore, 2, true));
        let light = queued(enter(&semaphore, 1, true));
        // One is free, and the light one would fit.
        let (heavy, light) = (waits(&semaphore, heavy), waits(&semaphore, light));
        assert!(!semaphore.try_acquire(w(1)));
        assert!(!semaphore.admits());
        wake(give_back(&semaphore, 2));
        assert_eq!(look(&semaphore, heavy, Waker::noop()).unwrap(), Settled::Granted);
        assert_eq!(look(&semaphore, light, Waker::noop()).unwrap(), Settled::Granted);
        assert_eq!(semaphore.gauges().in_flight, 3);
    }

    #[test]
    fn those_behind_a_heavy_one_move_up_when_it_leaves() {
        let semaphore = semaphore(3, 2);
        assert!(semaphore.try_acquire(w(2)));
        let heavy = queued(enter(&semaphore, 2, true));
        let light = queued(enter(&semaphore, 1, true));
        let (heard, waker) = waker();
        let light = look(&semaphore, light, &waker).unwrap_err();
        let (settled, wakers) = semaphore.leave(heavy);
        assert_eq!(settled, None);
        wake(wakers);
        assert_eq!(heard.0.load(Ordering::Relaxed), 1);
        assert_eq!(look(&semaphore, light, &waker).unwrap(), Settled::Granted);
    }

    #[test]
    fn a_limit_that_falls_below_the_weight_of_a_waiter_refuses_it_and_lets_those_behind_it_move_up() {
        let semaphore = semaphore(4, 2);
        assert!(semaphore.try_acquire(w(1)));
        let heavy = queued(enter(&semaphore, 4, true));
        let light = queued(enter(&semaphore, 1, true));
        wake(semaphore.set_limit(2));
        assert_eq!(look(&semaphore, heavy, Waker::noop()).unwrap(), Settled::Refused);
        assert_eq!(look(&semaphore, light, Waker::noop()).unwrap(), Settled::Granted);
    }

    #[test]
    fn a_pause_refuses_nobody_who_waits() {
        let semaphore = semaphore(2, 3);
        wake(semaphore.set_limit(0));
        let heavy = queued(enter(&semaphore, 9, true));
        let light = queued(enter(&semaphore, 2, true));
        let (heavy, light) = (waits(&semaphore, heavy), waits(&semaphore, light));
        wake(semaphore.set_limit(2));
        assert_eq!(look(&semaphore, heavy, Waker::noop()).unwrap(), Settled::Refused);
        assert_eq!(look(&semaphore, light, Waker::noop()).unwrap(), Settled::Granted);
    }

    #[test]
    fn a_lower_limit_drops_nobody_and_admits_nobody_until_fewer_run() {
        let semaphore = semaphore(5, 0);
        (0..5).for_each(|_| assert!(semaphore.try_acquire(w(1))));
        wake(semaphore.set_limit(2));
        for running in (2..=5).rev() {
            assert_eq!(semaphore.gauges().in_flight, running);
            assert!(matches!(enter(&semaphore, 1, true), Entered::Full));
            wake(give_back(&semaphore, 1));
        }
        assert!(matches!(enter(&semaphore, 1, true), Entered::Admitted));
        assert!(matches!(enter(&semaphore, 1, true), Entered::Full));
    }

    #[test]
    fn the_largest_limit_and_the_largest_weight_fit() {
        let semaphore = semaphore(u32::MAX, 1);
        assert!(semaphore.try_acquire(NonZeroU32::MAX));
        let gauges = semaphore.gauges();
        assert_eq!((gauges.limit, gauges.in_flight), (u32::MAX, u32::MAX));
        wake(semaphore.set_limit(0));
        assert_eq!(semaphore.gauges().in_flight, u32::MAX);
        wake(semaphore.set_limit(u32::MAX));
        let ticket = queued(enter(&semaphore, u32::MAX, true));
        wake(give_back(&semaphore, u32::MAX));
        assert_eq!(look(&semaphore, ticket, Waker::noop()).unwrap(), Settled::Granted);
    }

    #[test]
    fn whoever_leaves_with_a_permit_is_told() {
        let semaphore = semaphore(1, 1);
        assert!(semaphore.try_acquire(w(1)));
        let ticket = queued(enter(&semaphore, 1, true));
        wake(give_back(&semaphore, 1));
        let (settled, wakers) = semaphore.leave(ticket);
        wake(wakers);
        assert_eq!(settled, Some(Settled::Granted));
        assert_eq!(semaphore.gauges().in_flight, 1);
    }

    #[test]
    fn a_queue_without_a_limit_on_the_wait_is_not_set() {
        let semaphore = Semaphore::new(1, 0, None);
        assert!(!semaphore.set_max_queued(1));
        assert_eq!(semaphore.gauges().max_queued, 0);
        assert!(semaphore.set_max_queued(0));
        semaphore.set_max_wait(MS);
        assert!(semaphore.set_max_queued(1));
        assert_eq!(semaphore.gauges().max_queued, 1);
    }

    #[test]
    fn places_are_given_away_again() {
        let semaphore = semaphore(1, 3);
        assert!(semaphore.try_acquire(w(1)));
        for _ in 0..1_000 {
            let tickets: Vec<_> = (0..3).map(|_| queued(enter(&semaphore, 1, true))).collect();
            assert!(matches!(enter(&semaphore, 1, true), Entered::Full));
            for ticket in tickets {
                wake(semaphore.leave(ticket).1);
            }
        }
        let debug = format!("{semaphore:?}");
        assert_eq!(debug.matches("Place {").count(), 3, "{debug}");
    }

    fn waker() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u32, bool),
        /// Of the n-th that runs, waits, or waits and is settled, counted around.
        Release(usize),
        Poll(usize),
        Leave(usize),
        SetLimit(u32),
        SetMaxQueued(u32),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let weight = prop_oneof![6 => Just(1_u32), 3 => 2..5_u32, 1 => Just(u32::MAX)];
        let limit = prop_oneof![8 => 0..7_u32, 1 => Just(u32::MAX)];
        prop_oneof![
            8 => (weight, prop::bool::weighted(0.8)).prop_map(|(weight, may_wait)| Step::Enter(weight, may_wait)),
            5 => any::<usize>().prop_map(Step::Release),
            4 => any::<usize>().prop_map(Step::Poll),
            3 => any::<usize>().prop_map(Step::Leave),
            1 => limit.prop_map(Step::SetLimit),
            1 => (0..5_u32).prop_map(Step::SetMaxQueued),
        ]
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Answer {
        Admitted,
        Queued,
        Full,
    }

    /// The same semaphore as three lists, gone through from the front for each question.
    #[derive(Default)]
    struct Reference {
        limit: u32,
        max_queued: u32,
        running: Vec<u32>,
        /// In the order of arrival: number, weight, and what became of it.
        line: Vec<(u32, u32, Option<Settled>)>,
    }

    impl Reference {
        fn in_flight(&self) -> u64 {
            let granted = self
                .line
                .iter()
                .filter(|(_, _, settled)| *settled == Some(Settled::Granted));
            let granted = granted.map(|(_, weight, _)| weight);
            self.running
                .iter()
                .chain(granted)
                .map(|weight| u64::from(*weight))
                .sum()
        }

        fn queued(&self) -> usize {
            self.line.iter().filter(|(_, _, settled)| settled.is_none()).count()
        }

        fn fits(&self, weight: u32) -> bool {
            self.in_flight() + u64::from(weight) <= u64::from(self.limit)
        }

        fn enter(&mut self, number: u32, weight: u32, may_wait: bool) -> Answer {
            if self.queued() == 0 && self.fits(weight) {
                self.running.push(weight);
                return Answer::Admitted;
            }
            let could_ever = self.limit == 0 || weight <= self.limit;
            if may_wait && could_ever && self.queued() < usize::try_from(self.max_queued).unwrap() {
                self.line.push((number, weight, None));
                return Answer::Queued;
            }
            Answer::Full
        }

        /// Settles whoever can be settled; their numbers.
        fn settle(&mut self) -> BTreeSet<u32> {
            let mut settled = BTreeSet::new();
            for index in 0..self.line.len() {
                let (number, weight, state) = self.line[index];
                if state.is_none() && self.limit > 0 && weight > self.limit {
                    self.line[index].2 = Some(Settled::Refused);
                    settled.insert(number);
                }
            }
            while let Some(index) = self.line.iter().position(|(_, _, settled)| settled.is_none()) {
                let (number, weight, _) = self.line[index];
                if !self.fits(weight) {
                    break;
                }
                self.line[index].2 = Some(Settled::Granted);
                settled.insert(number);
            }
            settled
        }
    }

    /// A waiter of the real semaphore.
    struct Waiter {
        ticket: Ticket,
        wakes: Arc<Wakes>,
        polled: bool,
        /// How often it has to have been woken.
        woken: u32,
    }

    struct Pair {
        real: Semaphore,
        reference: Reference,
        /// In the order of the reference's line.
        waiters: Vec<Waiter>,
        entered: u32,
    }

    impl Pair {
        fn new(limit: u32, max_queued: u32) -> Self {
            Self {
                real: semaphore(limit, max_queued),
                reference: Reference {
                    limit,
                    max_queued,
                    ..Reference::default()
                },
                waiters: Vec::new(),
                entered: 0,
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Enter(weight, may_wait) => self.enter(weight, may_wait),
                Step::Release(n) => {
                    if !self.reference.running.is_empty() {
                        let weight = self.reference.running.remove(n % self.reference.running.len());
                        wake(give_back(&self.real, weight));
                    }
                }
                Step::Poll(n) => self.poll(n),
                Step::Leave(n) => self.leave(n),
                Step::SetLimit(limit) => {
                    self.reference.limit = limit;
                    wake(self.real.set_limit(limit));
                }
                Step::SetMaxQueued(max_queued) => {
                    self.reference.max_queued = max_queued;
                    assert!(self.real.set_max_queued(max_queued));
                }
            }
            self.check();
        }

        fn enter(&mut self, weight: u32, may_wait: bool) {
            self.entered += 1;
            let expected = self.reference.enter(self.entered, weight, may_wait);
            let answer = match enter(&self.real, weight, may_wait) {
                Entered::Admitted => Answer::Admitted,
                Entered::Full => Answer::Full,
                Entered::Queued(ticket, longest) => {
                    assert_eq!(longest, MS);
                    self.waiters.push(Waiter {
                        ticket,
                        wakes: Arc::default(),
                        polled: false,
                        woken: 0,
                    });
                    Answer::Queued
                }
            };
            assert_eq!(answer, expected);
        }

        fn poll(&mut self, n: usize) {
            if self.waiters.is_empty() {
                return;
            }
            let index = n % self.waiters.len();
            let Waiter { ticket, wakes, .. } = self.waiters.remove(index);
            let waker = Waker::from(Arc::clone(&wakes));
            let (number, weight, expected) = self.reference.line.remove(index);
            match look(&self.real, ticket, &waker) {
                Ok(settled) => {
                    assert_eq!(Some(settled), expected);
                    if settled == Settled::Granted {
                        self.reference.running.push(weight);
                    }
                }
                Err(ticket) => {
                    assert_eq!(expected, None);
                    self.reference.line.insert(index, (number, weight, None));
                    let waiter = Waiter {
                        ticket,
                        wakes,
                        polled: true,
                        woken: 0,
                    };
                    self.waiters.insert(index, waiter);
                }
            }
        }

        /// A wait that is dropped; every other one keeps the permit that had come, as one that times out.
        fn leave(&mut self, n: usize) {
            if self.waiters.is_empty() {
                return;
            }
            let index = n % self.waiters.len();
            let Waiter { ticket, .. } = self.waiters.remove(index);
            let (_, weight, expected) = self.reference.line.remove(index);
            let (settled, wakers) = self.real.leave(ticket);
            wake(wakers);
            assert_eq!(settled, expected);
            if settled == Some(Settled::Granted) {
                if n % 2 == 0 {
                    wake(give_back(&self.real, weight));
                } else {
                    self.reference.running.push(weight);
                }
            }
        }

        fn check(&mut self) {
            let settled = self.reference.settle();
            for ((number, _, _), waiter) in self.reference.line.iter().zip(&mut self.waiters) {
                let wakes = waiter.wakes.0.load(Ordering::Relaxed);
                if settled.contains(number) && waiter.polled {
                    waiter.woken += 1;
                }
                assert_eq!(wakes, waiter.woken, "wake-ups of {number}");
            }
            let gauges = self.real.gauges();
            assert_eq!(u64::from(gauges.in_flight), self.reference.in_flight());
            assert_eq!(usize::try_from(gauges.queued).unwrap(), self.reference.queued());
            assert_eq!(gauges.limit, self.reference.limit);
            assert_eq!(gauges.max_queued, self.reference.max_queued);
            let admits = self.reference.queued() == 0 && self.reference.fits(1);
            assert_eq!(self.real.admits(), admits);
        }

        /// Ends everything, and finds nothing left behind.
        fn end(mut self) {
            while !self.waiters.is_empty() {
                self.step(Step::Leave(0));
            }
            while !self.reference.running.is_empty() {
                self.step(Step::Release(0));
            }
            let gauges = self.real.gauges();
            assert_eq!((gauges.in_flight, gauges.queued), (0, 0));
            wake(self.real.set_limit(1));
            assert!(self.real.try_acquire(w(1)));
        }
    }

    proptest! {
        #![proptest_config(crate::histories::histories(20_000))]

        #[test]
        fn a_semaphore_does_what_three_lists_do(
            limit in 1..6_u32,
            max_queued in 0..5_u32,
            steps in prop::collection::vec(any_step(), 1..60),
        ) {
            let mut pair = Pair::new(limit, max_queued);
            for step in steps {
                pair.step(step);
            }
            pair.end();
        }
    }

    #[test]
    fn threads_never_run_more_than_the_limit_and_leave_nothing_behind() {
        let (semaphore, running, most) = (semaphore(3, 64), AtomicU32::new(0), AtomicU32::new(0));
        let work = || {
            for n in 0..2_000_u32 {
                let weight = 1 + n % 3;
                let admitted = match enter(&semaphore, weight, n % 4 > 0) {
                    Entered::Admitted => true,
                    Entered::Full => false,
                    Entered::Queued(mut ticket, _) => loop {
                        if n % 5 == 0 {
                            let (settled, wakers) = semaphore.leave(ticket);
                            wake(wakers);
                            break settled == Some(Settled::Granted);
                        }
                        match look(&semaphore, ticket, Waker::noop()) {
                            Ok(settled) => break settled == Settled::Granted,
                            Err(again) => ticket = again,
                        }
                        thread::yield_now();
                    },
                };
                if admitted {
                    most.fetch_max(running.fetch_add(weight, Ordering::SeqCst) + weight, Ordering::SeqCst);
                    running.fetch_sub(weight, Ordering::SeqCst);
                    wake(give_back(&semaphore, weight));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        let gauges = semaphore.gauges();
        assert_eq!((gauges.in_flight, gauges.queued), (0, 0));
        assert!(most.into_inner() <= 3);
        assert!(semaphore.admits());
    }
}
