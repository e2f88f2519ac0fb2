//! The arithmetic of a retry budget.

use std::sync::Arc;
use std::time::Duration;

use crate::{both, explore};

const S: Duration = Duration::from_secs(1);

/// What the models need of a ledger, so that they run on the real one and on those with a seeded defect.
trait Ledger: 'static {
    type Payment: 'static;

    fn new(ratio: f64, floor: f64) -> Self;
    fn deposit(&self, now: Duration);
    fn withdraw(&self, now: Duration) -> Option<Self::Payment>;
    fn refund(&self, payment: Self::Payment);
    fn available(&self, now: Duration) -> f64;
}

macro_rules! ledger {
    ($module:path) => {
        const _: () = {
            use $module as source;

            impl Ledger for source::Ledger {
                type Payment = source::Drawn;

                fn new(ratio: f64, floor: f64) -> Self {
                    Self::new(source::Rates { ratio, floor })
                }

                fn deposit(&self, now: Duration) {
                    self.deposit(now);
                }

                fn withdraw(&self, now: Duration) -> Option<Self::Payment> {
                    self.withdraw(source::Cost::Failure, now)
                }

                fn refund(&self, payment: Self::Payment) {
                    self.refund(payment);
                }

                fn available(&self, now: Duration) -> f64 {
                    self.available(now)
                }
            }
        };
    };
}

ledger!(crate::ledger);

macro_rules! defects {
    ($($defect:ident)*) => {
        /// The seeded defects.
        pub const DEFECTS: &[&str] = &[$(stringify!($defect)),*];

        $(
            mod $defect {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($defect), ".rs"));
            }
            ledger!($defect);
        )*

        macro_rules! model {
            ($name:ident) => {
                pub fn $name(defect: Option<&str>) -> usize {
                    let name = stringify!($name);
                    match defect {
                        None => models::$name::<crate::ledger::Ledger>(name),
                        $(Some(stringify!($defect)) => models::$name::<$defect::Ledger>(name),)*
                        Some(unknown) => panic!("no such defect: {unknown}"),
                    }
                }
            };
        }
    };
}

defects! {
    deposit_by_load_and_store
    withdraw_checks_before_it_locks
    floor_is_drawn_after_the_lock
    refund_writes_back_what_it_read_before_the_lock
}

model!(concurrent_deposits_are_all_counted);
model!(deposits_that_begin_a_second_forget_only_what_is_old);
model!(one_credit_pays_for_one_retry);
model!(the_last_of_the_floor_pays_for_one_retry);
model!(a_withdrawal_beside_a_refund_is_not_forgotten);
model!(what_is_paid_beside_a_deposit_was_earned);

mod models {
    use super::*;

    pub(super) fn concurrent_deposits_are_all_counted<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(1.0, 0.0));
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            both(&gate, move || left.deposit(S), move || right.deposit(S));
            assert_eq!(ledger.available(S), 2.0);
        })
    }

    pub(super) fn deposits_that_begin_a_second_forget_only_what_is_old<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(1.0, 0.0));
            ledger.deposit(S);
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            both(&gate, move || left.deposit(11 * S), move || right.deposit(11 * S));
            assert_eq!(ledger.available(11 * S), 2.0);
        })
    }

    pub(super) fn one_credit_pays_for_one_retry<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(1.0, 0.0));
            ledger.deposit(S);
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            let paid = both(&gate, move || left.withdraw(S), move || right.withdraw(S));
            assert!(paid.0.is_some() != paid.1.is_some());
        })
    }

    pub(super) fn the_last_of_the_floor_pays_for_one_retry<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(0.0, 0.2));
            assert!(ledger.withdraw(S).is_some());
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            let paid = both(&gate, move || left.withdraw(S), move || right.withdraw(S));
            assert!(paid.0.is_some() != paid.1.is_some());
        })
    }

    pub(super) fn a_withdrawal_beside_a_refund_is_not_forgotten<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(1.0, 0.0));
            ledger.deposit(S);
            ledger.deposit(S);
            let payment = ledger.withdraw(S).unwrap();
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            let ((), paid) = both(&gate, move || left.refund(payment), move || right.withdraw(S));
            assert!(paid.is_some());
            assert_eq!(ledger.available(S), 1.0);
        })
    }

    pub(super) fn what_is_paid_beside_a_deposit_was_earned<L: Ledger>(name: &str) -> usize {
        explore(name, |gate| {
            let ledger = Arc::new(L::new(1.0, 0.0));
            ledger.deposit(S);
            let (left, right) = (Arc::clone(&ledger), Arc::clone(&ledger));
            let pay = move || [right.withdraw(S), right.withdraw(S)].iter().flatten().count();
            let ((), paid) = both(&gate, move || left.deposit(S), pay);
            assert!(paid == 1 || paid == 2);
            assert_eq!(ledger.available(S), if paid == 1 { 1.0 } else { 0.0 });
        })
    }
}
