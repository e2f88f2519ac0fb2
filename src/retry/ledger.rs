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
        (per_second > 0.0).then(|| Self {
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
