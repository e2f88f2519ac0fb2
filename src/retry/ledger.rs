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
const LIFETIME_NANOS: u64 = 10_000_000_000;

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
    /// Nanoseconds of floor that one retry uses; `None` without a floor.
    interval: Option<u64>,
    earnings: [AtomicU64; 10],
    spending: Mutex<Spending>,
}

#[derive(Default)]
struct Spending {
    spent: [Slot; 10],
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
        self.second << Self::UNIT_BITS | self.units
    }

    /// Adds `units` in `second`, forgetting an earlier second that had the same place.
    fn add(self, second: u64, units: u64) -> Self {
        let kept = if self.second >= second {
            self
        } else {
            Self { second, units: 0 }
        };
        Self {
            units: kept.units.saturating_add(units).min(Self::MAX_UNITS),
            ..kept
        }
    }

    /// The units, if `second` is among the ten seconds after this one began.
    fn live(self, second: u64) -> u64 {
        if self.second + SLOTS > second { self.units } else { 0 }
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
            interval: (floor > 0.0).then(|| (1e9 / floor).round() as u64),
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
        let second = second_of(now);
        let units = retries * PRICE;
        let mut spending = self.lock();
        if self.credit(&spending, second) >= units {
            let slot = &mut spending.spent[place(second)];
            *slot = slot.add(second, units);
            return Some(Drawn::Credit { second, units });
        }
        let nanos = self.interval? * retries;
        let now = nanos_of(now);
        let drawn_until = spending.drawn_until.max(now).saturating_add(nanos);
        if drawn_until > now.saturating_add(LIFETIME_NANOS) {
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
        let credit = self.credit(&spending, second_of(now)) as f64 / UNIT;
        let ahead = spending.drawn_until.saturating_sub(nanos_of(now));
        let floor = self.interval.map_or(0.0, |interval| {
            LIFETIME_NANOS.saturating_sub(ahead) as f64 / interval as f64
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
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
