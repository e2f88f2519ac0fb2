//! The semaphore of a bulkhead.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::cell::UnsafeCell;

use crate::queue::{self, Settled, Ticket};
use crate::{both, explore};

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// What the models need of a semaphore, so that they run on the real one and on those with a seeded defect.
trait Semaphore: 'static {
    fn new(limit: u32, max_queued: u32) -> Self;
    fn try_acquire(&self) -> bool;
    fn enter(&self, may_wait: bool) -> Entered;
    fn look(&self, ticket: Ticket, waker: &Waker) -> Result<Settled, Ticket>;
    /// Whether the permit had come.
    fn leave(&self, ticket: Ticket) -> bool;
    fn give_back(&self);
    fn set_limit(&self, limit: u32);
    fn in_flight(&self) -> u32;
    fn queued(&self) -> u32;
}

enum Entered {
    Admitted,
    Queued(Ticket),
    Full,
}

macro_rules! semaphore {
    ($module:path) => {
        const _: () = {
            use $module as source;

            impl Semaphore for source::Semaphore {
                fn new(limit: u32, max_queued: u32) -> Self {
                    Self::new(limit, max_queued, Some(Duration::MAX))
                }

                fn try_acquire(&self) -> bool {
                    self.try_acquire(ONE)
                }

                fn enter(&self, may_wait: bool) -> Entered {
                    if self.try_acquire(ONE) {
                        return Entered::Admitted;
                    }
                    match self.enter(ONE, may_wait) {
                        source::Entered::Admitted => Entered::Admitted,
                        source::Entered::Queued(ticket, _) => Entered::Queued(ticket),
                        source::Entered::Full => Entered::Full,
                    }
                }

                fn look(&self, ticket: Ticket, waker: &Waker) -> Result<Settled, Ticket> {
                    self.poll(ticket, &mut Some(waker.clone()))
                }

                fn leave(&self, ticket: Ticket) -> bool {
                    let (settled, wakers) = self.leave(ticket);
                    wakers.into_iter().for_each(Waker::wake);
                    settled == Some(Settled::Granted)
                }

                fn give_back(&self) {
                    if self.release(ONE) {
                        self.hand_on().into_iter().for_each(Waker::wake);
                    }
                }

                fn set_limit(&self, limit: u32) {
                    self.set_limit(limit).into_iter().for_each(Waker::wake);
                }

                fn in_flight(&self) -> u32 {
                    self.gauges().in_flight
                }

                fn queued(&self) -> u32 {
                    self.gauges().queued
                }
            }
        };
    };
}

semaphore!(crate::semaphore);

macro_rules! defects {
    ($($defect:ident)*) => {
        /// The seeded defects.
        pub const DEFECTS: &[&str] = &[$(stringify!($defect)),*];

        $(
            mod $defect {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($defect), ".rs"));
            }
            semaphore!($defect);
        )*

        macro_rules! model {
            ($name:ident) => {
                pub fn $name(defect: Option<&str>) -> usize {
                    let name = stringify!($name);
                    match defect {
                        None => models::$name::<crate::semaphore::Semaphore>(name),
                        $(Some(stringify!($defect)) => models::$name::<$defect::Semaphore>(name),)*
                        Some(unknown) => panic!("no such defect: {unknown}"),
                    }
                }
            };
        }
    };
}

defects! {
    who_joins_looks_before_it_is_seen
    who_gives_back_looks_before_it_adds
    a_permit_is_given_back_relaxed
    a_newcomer_passes_who_waits
    who_leaves_forgets_the_permit_that_came
    who_moves_up_writes_back_what_it_read
    a_raised_limit_admits_nobody
    a_refusal_hides_who_waits
    a_permit_is_taken_by_load_and_store
}

model!(a_release_beside_a_newcomer_reaches_it);
model!(a_permit_that_comes_to_a_waiter_that_leaves_goes_to_the_next);
model!(a_raised_limit_beside_a_release_admits_both_who_wait);
model!(the_end_of_a_pause_beside_a_newcomer_admits_it);
model!(a_lowered_limit_beside_a_release_keeps_the_count);
model!(the_last_permit_is_taken_once);
model!(nobody_passes_a_waiter);
model!(a_refusal_beside_a_release_costs_no_waiter_its_turn);
model!(what_was_done_under_one_permit_is_seen_under_the_next);

/// A waker that counts, and is no step of a model.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One that waits, and has been polled if it still does.
struct Waiter {
    ticket: Result<Settled, Ticket>,
    wakes: Arc<Wakes>,
}

impl Waiter {
    fn new(semaphore: &impl Semaphore, ticket: Ticket) -> Self {
        let wakes = Arc::new(Wakes::default());
        let ticket = semaphore.look(ticket, &Waker::from(Arc::clone(&wakes)));
        Self { ticket, wakes }
    }

    fn enter(semaphore: &impl Semaphore) -> Self {
        let Entered::Queued(ticket) = semaphore.enter(true) else {
            panic!("there is a queue")
        };
        Self::new(semaphore, ticket)
    }

    /// Whether it has its permit; if it had to be told, it was, once.
    fn got_its_permit(self, semaphore: &impl Semaphore) -> bool {
        let wakes = self.wakes.0.load(Ordering::Relaxed);
        match self.ticket {
            Ok(settled) => settled == Settled::Granted,
            Err(ticket) => match semaphore.look(ticket, Waker::noop()) {
                Ok(settled) => {
                    assert_eq!(wakes, 1);
                    settled == Settled::Granted
                }
                Err(_) => {
                    assert_eq!(wakes, 0);
                    false
                }
            },
        }
    }
}

mod models {
    use super::*;

    fn full<S: Semaphore>(limit: u32, max_queued: u32) -> Arc<S> {
        let semaphore = S::new(limit, max_queued);
        (0..limit).for_each(|_| assert!(semaphore.try_acquire()));
        Arc::new(semaphore)
    }

    pub(super) fn a_release_beside_a_newcomer_reaches_it<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(1, 1);
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let newcomer = move || match right.enter(true) {
                Entered::Admitted => None,
                Entered::Queued(ticket) => Some(Waiter::new(&*right, ticket)),
                Entered::Full => panic!("there is room"),
            };
            let ((), waiter) = both(&gate, move || left.give_back(), newcomer);
            assert!(waiter.is_none_or(|waiter| waiter.got_its_permit(&*semaphore)));
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (1, 0));
        })
    }

    pub(super) fn a_permit_that_comes_to_a_waiter_that_leaves_goes_to_the_next<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(1, 2);
            let (first, second) = (Waiter::enter(&*semaphore), Waiter::enter(&*semaphore));
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let leave = move || {
                if right.leave(first.ticket.unwrap_err()) {
                    right.give_back();
                }
            };
            both(&gate, move || left.give_back(), leave);
            assert!(second.got_its_permit(&*semaphore));
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (1, 0));
        })
    }

    pub(super) fn a_raised_limit_beside_a_release_admits_both_who_wait<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(1, 2);
            let waiters = [Waiter::enter(&*semaphore), Waiter::enter(&*semaphore)];
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            both(&gate, move || left.set_limit(2), move || right.give_back());
            for waiter in waiters {
                assert!(waiter.got_its_permit(&*semaphore));
            }
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (2, 0));
        })
    }

    pub(super) fn the_end_of_a_pause_beside_a_newcomer_admits_it<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(0, 1);
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let newcomer = move || match right.enter(true) {
                Entered::Admitted => None,
                Entered::Queued(ticket) => Some(Waiter::new(&*right, ticket)),
                Entered::Full => panic!("there is room"),
            };
            let ((), waiter) = both(&gate, move || left.set_limit(1), newcomer);
            assert!(waiter.is_none_or(|waiter| waiter.got_its_permit(&*semaphore)));
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (1, 0));
        })
    }

    pub(super) fn a_lowered_limit_beside_a_release_keeps_the_count<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(2, 1);
            let waiter = Waiter::enter(&*semaphore);
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            both(&gate, move || left.set_limit(1), move || right.give_back());
            // One of the two still runs, and the waiter beside it, if the release was the first.
            let in_flight = semaphore.in_flight();
            assert!(in_flight == 1 || in_flight == 2);
            assert_eq!(semaphore.queued(), 2 - in_flight);
            semaphore.give_back();
            assert!(waiter.got_its_permit(&*semaphore));
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (1, 0));
            assert!(!semaphore.try_acquire());
        })
    }

    pub(super) fn the_last_permit_is_taken_once<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = Arc::new(S::new(1, 0));
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let take = |semaphore: Arc<S>| move || matches!(semaphore.enter(true), Entered::Admitted);
            let taken = both(&gate, take(left), take(right));
            assert!(taken.0 != taken.1);
            assert_eq!(semaphore.in_flight(), 1);
        })
    }

    pub(super) fn nobody_passes_a_waiter<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(1, 1);
            let waiter = Waiter::enter(&*semaphore);
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let ((), passed) = both(&gate, move || left.give_back(), move || right.try_acquire());
            assert!(!passed);
            assert!(waiter.got_its_permit(&*semaphore));
        })
    }

    pub(super) fn a_refusal_beside_a_release_costs_no_waiter_its_turn<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let semaphore = full::<S>(1, 1);
            let waiter = Waiter::enter(&*semaphore);
            let (left, right) = (Arc::clone(&semaphore), Arc::clone(&semaphore));
            let newcomer = move || match right.enter(true) {
                Entered::Admitted => panic!("somebody waits"),
                Entered::Queued(ticket) => assert!(!right.leave(ticket)),
                Entered::Full => {}
            };
            both(&gate, move || left.give_back(), newcomer);
            assert!(waiter.got_its_permit(&*semaphore));
            semaphore.give_back();
            assert!(semaphore.try_acquire());
        })
    }

    /// What a permit protects.
    struct Protected<S> {
        semaphore: S,
        cell: UnsafeCell<u32>,
    }

    pub(super) fn what_was_done_under_one_permit_is_seen_under_the_next<S: Semaphore>(name: &str) -> usize {
        explore(name, |gate| {
            let protected = Arc::new(Protected {
                semaphore: S::new(1, 1),
                cell: UnsafeCell::new(0),
            });
            let work = |shared: Arc<Protected<S>>| {
                move || {
                    let Protected { semaphore, cell } = &*shared;
                    let granted = match semaphore.enter(true) {
                        Entered::Admitted => true,
                        Entered::Full => false,
                        Entered::Queued(ticket) => match semaphore.look(ticket, Waker::noop()) {
                            Ok(settled) => settled == Settled::Granted,
                            Err(ticket) => semaphore.leave(ticket),
                        },
                    };
                    if granted {
                        // loom reports an access that does not happen after the one before.
                        cell.with_mut(|_| ());
                        semaphore.give_back();
                    }
                }
            };
            both(&gate, work(Arc::clone(&protected)), work(Arc::clone(&protected)));
            let Protected { semaphore, .. } = &*protected;
            assert_eq!((semaphore.in_flight(), semaphore.queued()), (0, 0));
            assert!(semaphore.try_acquire());
        })
    }
}
