//! The arithmetic of a retry budget: no clock, no policy.

use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// What a retry costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// After a failure: one retry.
    Failure,
    /// After an overload: two.
    Overload,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) ratio: f64,
    pub(crate) floor: f64,
}

/// Where a payment was drawn from, to be refunded there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drawn {
    Credit { second: u64, units: u64 },
    Floor { nanos: u64 },
}

/// Credit is counted in ten-thousandths of a retry.
const UNIT: f64 = 10_000.0;
/// What a retry costs, in units.
const PRICE: u64 = 10_000;
/// Credit lives in slots of one second; a slot's credit ends with the slot, 9 to 10 s after it was earned.
const SLOTS: u64 = 10;
/// The last moment that the floor can tell from the one before, in 292 years: what is added to it fits.
const MAX_NANOS: u64 = u64::MAX / 2;

/// The arithmetic, driven by the time since it was made.
///
/// **Earning** is on every caller's path and takes no lock: one word for each of the last ten seconds holds the number
/// of the second and what was earned in it, so a word that is ten seconds old is known as such and overwritten.
///
/// **Spending** happens only when a call has failed, and is serialised: whoever holds the lock compares what the ten
/// words say with what was spent in the same ten seconds. An amount that is spent in a second leaves the sum no
/// earlier than any credit it can have been covered by, so no ten seconds spend more than they earned.
///
/// **The floor** is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371): `drawn_until` is the
/// time up to which the floor has been used, and may run ahead of the clock by ten seconds.
///
/// All orderings are relaxed: each word is complete in itself, and no memory is published through it.
pub(crate) struct Ledger {
    /// Units that one call earns.
    earned: u64,
    floor: Option<Floor>,
    earnings: [AtomicU64; 10],
    spending: Mutex<Spending>,
}

/// In nanoseconds. The interval is rounded up, so that the rate is never exceeded, and the capacity with it, so that
/// ten seconds are worth what they should be.
#[derive(Clone, Copy)]
struct Floor {
    /// What one retry uses.
    interval: u64,
    /// How far use may run ahead of the clock: ten seconds.
    capacity: u64,
}

impl Floor {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::as_conversions,
        reason = "the range is checked by build()"
    )]
    fn new(per_second: f64) -> Option<Self> {
        let interval = (1e9 / per_second).ceil();
        (per_second > 0.0).then_some(Self {
            interval: interval as u64,
            capacity: (per_second * 10.0 * interval) as u64,
        })
    }
}

#[derive(Default)]
struct Spending {
    spent: [Slot; 10],
    /// The latest second of a withdrawal. A caller who read the clock long before it got the lock would otherwise see
    /// credit of which it is forgotten that it was spent.
    second: u64,
    drawn_until: u64,
}

/// One second, and the units that belong to it; packed into a word, 28 bits (eight years) and 36.
#[derive(Clone, Copy, Default)]
struct Slot {
    second: u64,
    units: u64,
}

impl Slot {
    const UNIT_BITS: u32 = 36;
    const MAX_UNITS: u64 = (1 << Self::UNIT_BITS) - 1;
    const MAX_SECOND: u64 = u64::MAX >> Self::UNIT_BITS;

    fn unpack(word: u64) -> Self {
        Self {
            second: word >> Self::UNIT_BITS,
            units: word & Self::MAX_UNITS,
        }
    }

    fn pack(self) -> u64 {
        self.second << Self::UNIT_BITS | self.units.min(Self::MAX_UNITS)
    }

    /// Adds `units` in `second`, forgetting an earlier second that had the same place.
    fn add(self, second: u64, units: u64) -> Self {
        let kept = if self.second >= second {
            self
        } else {
            Self { second, units: 0 }
        };
        Self {
            units: kept.units.saturating_add(units),
            ..kept
        }
    }

    /// The units, if `second` is among the ten seconds after this one began. A later slot's do not count: what is spent
    /// in `second` would be forgotten before they are.
    fn live(self, second: u64) -> u64 {
        if (self.second..self.second + SLOTS).contains(&second) {
            self.units
        } else {
            0
        }
    }
}

impl Ledger {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::as_conversions,
        reason = "the ranges are checked by build()"
    )]
    #[allow(clippy::cast_sign_loss, reason = "the ranges are checked by build()")]
    pub(crate) fn new(Rates { ratio, floor }: Rates) -> Self {
        Self {
            earned: (ratio * UNIT).round() as u64,
            floor: Floor::new(floor),
            earnings: Default::default(),
            spending: Mutex::default(),
        }
    }

    pub(crate) fn deposit(&self, now: Duration) {
        if self.earned == 0 {
            return;
        }
        let second = second_of(now);
        let add = |word| Some(Slot::unpack(word).add(second, self.earned).pack());
        // The closure never refuses.
        let _ = self.earnings[place(second)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(crate) fn withdraw(&self, cost: Cost, now: Duration) -> Option<Drawn> {
        let retries = match cost {
            Cost::Failure => 1,
            Cost::Overload => 2,
        };
        let units = retries * PRICE;
        let mut spending = self.lock();
        let second = second_of(now).max(spending.second);
        spending.second = second;
        if self.credit(&spending, second) >= units {
            let slot = &mut spending.spent[place(second)];
            *slot = slot.add(second, units);
            return Some(Drawn::Credit { second, units });
        }
        let Floor { interval, capacity } = self.floor?;
        let nanos = interval * retries;
        let now = nanos_of(now);
        let drawn_until = spending.drawn_until.max(now) + nanos;
        if drawn_until > now + capacity {
            return None;
        }
        spending.drawn_until = drawn_until;
        Some(Drawn::Floor { nanos })
    }

    /// Undoes a withdrawal. Credit whose time is over stays gone.
    pub(crate) fn refund(&self, drawn: Drawn) {
        let mut spending = self.lock();
        match drawn {
            Drawn::Credit { second, units } => {
                let slot = &mut spending.spent[place(second)];
                if slot.second == second {
                    slot.units -= units;
                }
            }
            Drawn::Floor { nanos } => spending.drawn_until = spending.drawn_until.saturating_sub(nanos),
        }
    }

    /// What was earned in the last ten seconds and is not spent.
    fn credit(&self, spending: &Spending, second: u64) -> u64 {
        let words = self
            .earnings
            .iter()
            .map(|word| Slot::unpack(word.load(Ordering::Relaxed)));
        let earned: u64 = words.map(|slot| slot.live(second)).sum();
        let spent: u64 = spending.spent.iter().map(|slot| slot.live(second)).sum();
        earned.saturating_sub(spent)
    }

    #[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "a figure for people")]
    pub(crate) fn available(&self, now: Duration) -> f64 {
        let spending = self.lock();
        let credit = self.credit(&spending, second_of(now).max(spending.second)) as f64 / UNIT;
        let ahead = spending.drawn_until.saturating_sub(nanos_of(now));
        let floor = self.floor.map_or(0.0, |Floor { interval, capacity }| {
            capacity.saturating_sub(ahead) as f64 / interval as f64
        });
        credit + floor
    }

    fn lock(&self) -> MutexGuard<'_, Spending> {
        // Nothing in the locked sections can panic half-way.
        self.spending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn second_of(now: Duration) -> u64 {
    now.as_secs().min(Slot::MAX_SECOND)
}

#[allow(clippy::cast_possible_truncation, clippy::as_conversions, reason = "less than ten")]
fn place(second: u64) -> usize {
    (second % SLOTS) as usize
}

fn nanos_of(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).map_or(MAX_NANOS, |nanos| nanos.min(MAX_NANOS))
}

#[cfg(test)]
#[allow(clippy::unchecked_time_subtraction, reason = "the times of these tests only grow")]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::retry::CREDIT_LIFETIME;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn ledger(ratio: f64, floor: f64) -> Ledger {
        Ledger::new(Rates { ratio, floor })
    }

    fn deposits(ledger: &Ledger, calls: u32, now: Duration) {
        for _ in 0..calls {
            ledger.deposit(now);
        }
    }

    /// Retries after failures that are paid for until there is nothing left, or there seems to be no end.
    fn drain(ledger: &Ledger, now: Duration) -> usize {
        drain_at(ledger, Cost::Failure, now)
    }

    fn drain_at(ledger: &Ledger, cost: Cost, now: Duration) -> usize {
        std::iter::from_fn(|| ledger.withdraw(cost, now))
            .take(1_000_000)
            .count()
    }

    #[allow(clippy::float_cmp, reason = "these sums are exact")]
    fn assert_available(ledger: &Ledger, now: Duration, retries: f64) {
        assert_eq!(ledger.available(now), retries);
    }

    #[test]
    fn the_lifetime_of_credit_is_the_published_one() {
        assert_eq!(Duration::from_secs(SLOTS), CREDIT_LIFETIME);
        let capacity = Floor::new(10.0).unwrap().capacity;
        assert_eq!(Duration::from_nanos(capacity), CREDIT_LIFETIME);
    }

    #[test]
    fn a_tenth_of_ten_thousand_calls_may_retry_and_none_after_ten_idle_seconds() {
        let ledger = ledger(0.1, 0.0);
        for second in 0..10 {
            deposits(&ledger, 1_000, second * S);
        }
        assert_available(&ledger, 9 * S, 1_000.0);
        assert_eq!(drain(&ledger, 9 * S), 1_000);

        deposits(&ledger, 10_000, 30 * S);
        assert_eq!(drain(&ledger, 40 * S), 0);
    }

    #[test]
    fn credit_ends_with_the_tenth_second_after_it_was_earned() {
        for late in [Duration::ZERO, 999 * MS] {
            let ledger = ledger(1.0, 0.0);
            ledger.deposit(5 * S + late);
            assert_available(&ledger, 15 * S - MS, 1.0);
            assert_available(&ledger, 15 * S, 0.0);
            assert_eq!(drain(&ledger, 15 * S), 0);
        }
    }

    #[test]
    fn a_fraction_of_a_retry_is_earned_exactly() {
        let ledger = ledger(0.000_1, 0.0);
        deposits(&ledger, 9_999, S);
        assert_eq!(drain(&ledger, S), 0);
        ledger.deposit(S);
        assert_eq!(drain(&ledger, S), 1);
    }

    #[test]
    fn an_overload_costs_two() {
        let earned = ledger(1.0, 0.0);
        deposits(&earned, 5, S);
        assert_eq!(drain_at(&earned, Cost::Overload, S), 2);
        assert_eq!(drain(&earned, S), 1);

        let granted = ledger(0.0, 0.5);
        assert_eq!(drain_at(&granted, Cost::Overload, S), 2);
        assert_eq!(drain(&granted, S), 1);
    }

    #[test]
    fn the_floor_refills_and_keeps_ten_seconds_at_most() {
        let ledger = ledger(0.0, 10.0);
        assert_eq!(drain(&ledger, Duration::ZERO), 100);
        assert_eq!(drain(&ledger, 99 * MS), 0);
        assert_eq!(drain(&ledger, 100 * MS), 1);
        assert_eq!(drain(&ledger, 1_100 * MS), 10);
        assert_eq!(drain(&ledger, 11_100 * MS), 100);
        assert_eq!(drain(&ledger, 3_600 * S), 100);
    }

    #[test]
    fn credit_is_spent_before_the_floor() {
        let ledger = ledger(1.0, 1.0);
        ledger.deposit(S);
        assert!(matches!(ledger.withdraw(Cost::Failure, S), Some(Drawn::Credit { .. })));
        assert!(matches!(ledger.withdraw(Cost::Failure, S), Some(Drawn::Floor { .. })));
    }

    #[test]
    fn a_refund_in_time_can_be_spent_again() {
        for ledger in [ledger(1.0, 0.0), ledger(0.0, 0.1)] {
            ledger.deposit(S);
            let drawn = ledger.withdraw(Cost::Failure, S).unwrap();
            assert!(ledger.withdraw(Cost::Failure, 2 * S).is_none());
            ledger.refund(drawn);
            assert_eq!(drain(&ledger, 2 * S), 1);
        }
    }

    #[test]
    fn a_refund_of_credit_that_expired_is_gone() {
        let ledger = ledger(1.0, 0.0);
        ledger.deposit(S);
        let drawn = ledger.withdraw(Cost::Failure, S).unwrap();
        ledger.deposit(11 * S);
        let later = ledger.withdraw(Cost::Failure, 11 * S).unwrap();
        ledger.refund(drawn);
        assert_eq!(drain(&ledger, 11 * S), 0);
        ledger.refund(later);
        assert_eq!(drain(&ledger, 11 * S), 1);
    }

    #[test]
    fn a_refund_never_fills_the_floor_above_ten_seconds() {
        let ledger = ledger(0.0, 1.0);
        let drawn: Vec<_> = std::iter::from_fn(|| ledger.withdraw(Cost::Failure, S)).collect();
        assert_eq!(drawn.len(), 10);
        for payment in drawn {
            ledger.refund(payment);
        }
        assert_eq!(drain(&ledger, 3_600 * S), 10);
    }

    #[test]
    fn years_of_idleness_change_nothing() {
        let ledger = ledger(0.5, 1.0);
        for year in [1, 2, 8] {
            let now = 365 * year * DAY;
            assert_available(&ledger, now, 10.0);
            deposits(&ledger, 4, now);
            assert_available(&ledger, now, 12.0);
            assert_eq!(drain(&ledger, now + 9 * S), 12);
            deposits(&ledger, 4, now + 10 * S);
            assert_available(&ledger, now + 30 * S, 10.0);
        }
    }

    #[test]
    fn past_the_last_second_that_fits_no_credit_is_spent_twice() {
        let ledger = ledger(1.0, 0.0);
        for now in [3_650 * DAY, 36_500 * DAY, Duration::MAX] {
            deposits(&ledger, 3, now);
            assert_eq!(drain(&ledger, now), 3);
            assert_eq!(drain(&ledger, now), 0);
        }
    }

    #[test]
    fn the_floor_outlives_the_clock() {
        for now in [Duration::from_nanos(u64::MAX), Duration::MAX] {
            let ledger = ledger(0.0, 1.0);
            assert_eq!(drain(&ledger, now), 10);
            assert_eq!(drain(&ledger, now), 0);
        }
    }

    #[test]
    fn a_ratio_of_zero_leaves_the_floor() {
        let ledger = ledger(0.0, 1.0);
        deposits(&ledger, 1_000, S);
        assert_eq!(drain(&ledger, S), 10);
    }

    #[test]
    fn a_floor_of_zero_leaves_what_was_earned() {
        let ledger = ledger(1.0, 0.0);
        assert_eq!(drain(&ledger, S), 0);
        ledger.deposit(S);
        assert_eq!(drain(&ledger, S), 1);
    }

    #[test]
    fn without_ratio_and_floor_nothing_is_ever_paid() {
        let ledger = ledger(0.0, 0.0);
        deposits(&ledger, 1_000, S);
        assert_eq!(drain(&ledger, S), 0);
        assert_available(&ledger, DAY, 0.0);
    }

    #[test]
    fn the_largest_floor_grants_ten_seconds_at_once() {
        let ledger = ledger(0.0, 1_000_000.0);
        assert_available(&ledger, S, 10_000_000.0);
        assert!(ledger.withdraw(Cost::Overload, S).is_some());
        assert_available(&ledger, S, 9_999_998.0);
    }

    #[test]
    fn the_smallest_floor_pays_for_an_overload() {
        let ledger = ledger(0.0, 0.2);
        assert_eq!(drain_at(&ledger, Cost::Overload, S), 1);
        assert_eq!(drain(&ledger, 6 * S - MS), 0);
        assert_eq!(drain(&ledger, 6 * S), 1);
    }

    #[test]
    fn a_floor_that_does_not_divide_a_second_is_granted_in_full_and_not_exceeded() {
        for (floor, at_once) in [(0.3, 3), (3.0, 30), (7.0, 70), (0.7, 7)] {
            assert_eq!(drain(&ledger(0.0, floor), S), at_once, "{floor}");
        }
        let fast = Floor::new(650_000.0).unwrap();
        assert!(1_000_000_000 / fast.interval < 650_000);
        assert_eq!(fast.capacity / fast.interval, 6_500_000);
    }

    #[test]
    fn more_than_a_word_of_credit_can_be_spent_in_one_second_but_once() {
        // A word holds 2^36 units, 6,871,947 retries: what is earned beyond that is lost.
        let ledger = ledger(100.0, 0.0);
        for second in 0..2 {
            deposits(&ledger, 70_000, second * S);
        }
        assert_eq!(
            ledger.credit(&ledger.lock(), 1),
            2 * Slot::MAX_UNITS,
            "what two seconds can hold"
        );
        ledger.lock().spent[1] = Slot {
            second: 1,
            units: Slot::MAX_UNITS,
        };
        let drawn = ledger.withdraw(Cost::Failure, S).unwrap();
        assert_eq!(ledger.credit(&ledger.lock(), 1), Slot::MAX_UNITS - PRICE);
        ledger.refund(drawn);
        assert_eq!(ledger.credit(&ledger.lock(), 1), Slot::MAX_UNITS);
    }

    #[test]
    fn a_late_clock_reading_does_not_bring_spent_credit_back() {
        let ledger = ledger(1.0, 0.0);
        ledger.deposit(4 * S);
        assert_eq!(drain(&ledger, 4 * S), 1);
        ledger.deposit(13 * S);
        assert_eq!(drain(&ledger, 14 * S), 1);
        // Read before the others, used after them.
        assert_eq!(drain(&ledger, 5 * S), 0);
    }

    #[test]
    fn a_late_clock_reading_does_not_spend_what_was_earned_after_it() {
        let ledger = ledger(1.0, 0.0);
        ledger.deposit(10 * S);
        assert_eq!(drain(&ledger, 9 * S), 0);
        assert_eq!(drain(&ledger, 10 * S), 1);
    }

    #[test]
    fn a_refund_survives_a_late_clock_reading() {
        let ledger = ledger(1.0, 0.0);
        deposits(&ledger, 2, 14 * S);
        ledger.withdraw(Cost::Failure, 14 * S).unwrap();
        let late = ledger.withdraw(Cost::Failure, 4 * S).unwrap();
        ledger.refund(late);
        assert_eq!(drain(&ledger, 14 * S), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deposit(u32),
        Withdraw(Cost),
        /// Of the n-th payment, counted around, that is not refunded.
        Refund(usize),
        Advance(Duration),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let pause = prop_oneof![
            4 => (0..2_500_u32).prop_map(|millis| millis * MS),
            2 => (1..14_u32).prop_map(|seconds| seconds * S),
            1 => Just(10 * S - Duration::from_nanos(1)),
            1 => (1..400_u32).prop_map(|days| days * DAY),
        ];
        prop_oneof![
            3 => (1..12_u32).prop_map(Step::Deposit),
            4 => prop_oneof![3 => Just(Cost::Failure), 1 => Just(Cost::Overload)].prop_map(Step::Withdraw),
            2 => any::<usize>().prop_map(Step::Refund),
            3 => pause.prop_map(Step::Advance),
        ]
    }

    fn any_history() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(any_step(), 1..48)
    }

    /// A ratio; a floor, the nanoseconds of it that a retry takes, and the most that is kept.
    type Setting = (f64, (f64, u64, u64));

    fn any_setting() -> impl Strategy<Value = Setting> {
        let ratio = prop_oneof![Just(0.0), Just(0.000_1), Just(0.2), Just(0.33), Just(1.0), Just(100.0)];
        let floor = prop_oneof![
            Just((0.0, u64::MAX, 0)),
            Just((0.2, 5_000_000_000, 10_000_000_000)),
            Just((0.3, 3_333_333_334, 10_000_000_002)),
            Just((3.0, 333_333_334, 10_000_000_020)),
            Just((1.0, 1_000_000_000, 10_000_000_000)),
        ];
        (ratio, floor)
    }

    fn retries(cost: Cost) -> u64 {
        match cost {
            Cost::Failure => 1,
            Cost::Overload => 2,
        }
    }

    /// The same ledger as a list of all that ever happened, read in full for each question.
    #[derive(Default)]
    struct Reference {
        earned: Vec<(Duration, u64)>,
        spent: Vec<(Duration, u64)>,
        /// Draws from the floor, and refunds as negative ones.
        floor: Vec<(Duration, i128)>,
    }

    enum Source {
        Credit(usize),
        Floor(u64),
    }

    impl Reference {
        fn credit(&self, now: Duration) -> u64 {
            let recent = |events: &[(Duration, u64)]| -> u64 {
                let live = events.iter().filter(|(at, _)| now.as_secs() - at.as_secs() < 10);
                live.map(|(_, units)| units).sum()
            };
            recent(&self.earned).saturating_sub(recent(&self.spent))
        }

        fn floor(&self, capacity: u64, now: Duration) -> i128 {
            let full = i128::from(capacity);
            let (mut tokens, mut last) = (full, Duration::ZERO);
            for (at, drawn) in self.floor.iter().copied().chain([(now, 0)]) {
                let passed = i128::try_from((at - last).as_nanos()).unwrap();
                tokens = ((tokens + passed).min(full) - drawn).min(full);
                last = at;
            }
            tokens
        }

        fn withdraw(&mut self, cost: Cost, (_, (_, interval, capacity)): Setting, now: Duration) -> Option<Source> {
            let units = retries(cost) * 10_000;
            if self.credit(now) >= units {
                self.spent.push((now, units));
                return Some(Source::Credit(self.spent.len() - 1));
            }
            let nanos = interval.saturating_mul(retries(cost));
            if self.floor(capacity, now) < i128::from(nanos) {
                return None;
            }
            self.floor.push((now, i128::from(nanos)));
            Some(Source::Floor(nanos))
        }

        fn refund(&mut self, source: &Source, now: Duration) {
            match source {
                Source::Credit(n) => self.spent[*n].1 = 0,
                Source::Floor(nanos) => self.floor.push((now, -i128::from(*nanos))),
            }
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::as_conversions,
        reason = "small numbers"
    )]
    fn earned_units((ratio, _): Setting) -> u64 {
        (ratio * 10_000.0).round() as u64
    }

    proptest! {
        #![proptest_config(crate::histories::histories(10_000))]

        #[test]
        fn the_ledger_agrees_with_a_list_of_all_that_happened(setting in any_setting(), history in any_history()) {
            let (ratio, (floor, _, capacity)) = setting;
            let ledger = ledger(ratio, floor);
            let mut reference = Reference::default();
            let mut payments = Vec::new();
            let mut now = Duration::ZERO;
            for step in history {
                match step {
                    Step::Advance(pause) => now += pause,
                    Step::Deposit(calls) => {
                        deposits(&ledger, calls, now);
                        reference.earned.push((now, u64::from(calls) * earned_units(setting)));
                    }
                    Step::Withdraw(cost) => match (ledger.withdraw(cost, now), reference.withdraw(cost, setting, now)) {
                        (None, None) => {}
                        (Some(drawn), Some(source)) => {
                            let from_credit = matches!(drawn, Drawn::Credit { .. });
                            prop_assert_eq!(from_credit, matches!(source, Source::Credit(_)));
                            payments.push((drawn, source));
                        }
                        (drawn, source) => prop_assert!(false, "{drawn:?}, but expected {:?}", source.is_some()),
                    },
                    Step::Refund(n) => if !payments.is_empty() {
                        let (drawn, source) = payments.swap_remove(n % payments.len());
                        ledger.refund(drawn);
                        reference.refund(&source, now);
                    },
                }
                let spending = ledger.lock();
                prop_assert_eq!(ledger.credit(&spending, now.as_secs()), reference.credit(now));
                let floor = i128::from(capacity) - i128::from(spending.drawn_until.saturating_sub(nanos_of(now)));
                prop_assert_eq!(floor, reference.floor(capacity, now));
            }
        }
    }

    /// Retries paid for and calls made, as they happened.
    #[derive(Default)]
    struct Tally {
        calls: Vec<(Duration, u64)>,
        /// Refunds are negative.
        paid: Vec<(Duration, f64)>,
    }

    #[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "small numbers")]
    impl Tally {
        fn calls_since(&self, from: Duration) -> f64 {
            let recent = self.calls.iter().filter(|(at, _)| *at >= from);
            recent.map(|(_, calls)| *calls).sum::<u64>() as f64
        }

        fn paid_since(&self, from: Duration) -> f64 {
            self.paid
                .iter()
                .filter(|(at, _)| *at >= from)
                .map(|(_, paid)| paid)
                .sum()
        }

        /// Whether, since `from`, no more was paid than the calls earned (those of the ten seconds before included)
        /// and the floor grants.
        fn is_within(&self, (ratio, (floor, ..)): Setting, from: Duration, now: Duration) -> bool {
            let earned = ratio * self.calls_since(from.saturating_sub(10 * S));
            let granted = floor * ((now - from).as_secs_f64() + 10.0);
            self.paid_since(from) <= (earned + granted) * (1.0 + 1e-12) + 1e-9
        }
    }

    proptest! {
        #![proptest_config(crate::histories::histories(2_000))]

        #[test]
        fn from_any_moment_on_no_more_is_paid_than_is_earned_and_granted(
            setting in any_setting(),
            history in any_history(),
        ) {
            let (ratio, (floor, ..)) = setting;
            let ledger = ledger(ratio, floor);
            let mut tally = Tally::default();
            let mut moments = vec![Duration::ZERO];
            let mut payments = Vec::new();
            let mut now = Duration::ZERO;
            for step in history {
                match step {
                    Step::Advance(pause) => {
                        now += pause;
                        moments.push(now);
                    }
                    Step::Deposit(calls) => {
                        deposits(&ledger, calls, now);
                        tally.calls.push((now, calls.into()));
                    }
                    Step::Withdraw(cost) => if let Some(drawn) = ledger.withdraw(cost, now) {
                        let price = f64::from(u32::try_from(retries(cost)).unwrap());
                        payments.push((drawn, price));
                        tally.paid.push((now, price));
                    },
                    Step::Refund(n) => if !payments.is_empty() {
                        let (drawn, price) = payments.swap_remove(n % payments.len());
                        ledger.refund(drawn);
                        tally.paid.push((now, -price));
                    },
                }
                for from in &moments {
                    prop_assert!(tally.is_within(setting, *from, now), "from {from:?} to {now:?}");
                }
            }
        }

    }

    proptest! {
        #![proptest_config(crate::histories::histories(10_000))]

        #[test]
        fn late_clock_readings_pay_no_more_than_is_earned_and_granted(
            setting in any_setting(),
            history in prop::collection::vec((any_step(), prop_oneof![Just(0), 0..20_000_u32]), 1..20),
        ) {
            let (ratio, (floor, ..)) = setting;
            let ledger = ledger(ratio, floor);
            let mut tally = Tally::default();
            let mut payments = Vec::new();
            let mut latest = Duration::ZERO;
            for (step, late) in history {
                let now = latest.saturating_sub(late * MS);
                match step {
                    Step::Advance(pause) => latest += pause,
                    Step::Deposit(calls) => {
                        deposits(&ledger, calls, now);
                        tally.calls.push((now, calls.into()));
                    }
                    Step::Withdraw(cost) => if let Some(drawn) = ledger.withdraw(cost, now) {
                        let price = f64::from(u32::try_from(retries(cost)).unwrap());
                        payments.push((drawn, price));
                        tally.paid.push((now, price));
                    },
                    Step::Refund(n) => if !payments.is_empty() {
                        let (drawn, price) = payments.swap_remove(n % payments.len());
                        ledger.refund(drawn);
                        tally.paid.push((now, -price));
                    },
                }
                prop_assert!(tally.is_within(setting, Duration::ZERO, latest));
            }
        }
    }

    const THREADS: u32 = 4;

    #[test]
    fn no_deposit_and_no_withdrawal_is_lost_or_doubled_under_contention() {
        const CALLS: u32 = 20_000;
        let ledger = ledger(0.1, 0.0);
        let barrier = Barrier::new(4);
        let work = || {
            barrier.wait();
            deposits(&ledger, CALLS, S);
            barrier.wait();
            drain(&ledger, S)
        };
        let paid: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(paid, 8_000);
    }

    #[test]
    fn threads_on_one_clock_stay_within_the_bound() {
        const CALLS: u32 = 20_000;
        let (ratio, floor) = (0.2, 10.0);
        let ledger = ledger(ratio, floor);
        let clock = AtomicU64::new(0);
        let work = || {
            let mut paid = 0_i64;
            let mut held = Vec::new();
            for call in 0..CALLS {
                // Together they pass about a minute: each slot is used again and again.
                let now = Duration::from_nanos(clock.fetch_add(800_000, Ordering::Relaxed));
                ledger.deposit(now);
                if let Some(drawn) = ledger.withdraw(Cost::Failure, now) {
                    paid += 1;
                    held.push(drawn);
                }
                if call % 7 == 0 {
                    if let Some(drawn) = held.pop() {
                        ledger.refund(drawn);
                        paid -= 1;
                    }
                }
            }
            paid
        };
        let paid: i64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let elapsed = Duration::from_nanos(clock.load(Ordering::Relaxed)).as_secs_f64();
        let bound = ratio * f64::from(CALLS * THREADS) + floor * (elapsed + 10.0);
        let paid = f64::from(i32::try_from(paid).unwrap());
        assert!(paid <= bound, "{paid} of {bound}");
        assert!(paid > 0.9 * ratio * f64::from(CALLS * THREADS), "{paid} of {bound}");
    }
}
