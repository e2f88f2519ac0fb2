//! How many retries all callers together may make.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Guard;
use crate::rejected::{ConfigError, Name};

/// Retries earned by one first attempt: 0.2, so that an outage adds at most a fifth to the load.
pub const DEFAULT_RATIO: f64 = 0.2;

/// Retries per second that need not be earned: 10, so that a quiet client may retry as well.
pub const DEFAULT_FLOOR: f64 = 10.0;

/// How long earned credit, or an unused floor, is kept: 10 s.
pub const CREDIT_LIFETIME: Duration = Duration::from_secs(10);

/// A limit on the retries of everyone who shares it.
///
/// When a dependency fails, every caller wants to retry, and the retries keep it down. A budget lets a share of the
/// calls retry and no more: each first attempt earns `ratio` of a retry, a retry costs 1, after an overload 2. Credit
/// that is not used within 10 s is gone. A `floor` of retries per second is granted on top, for clients with little
/// traffic.
///
/// Over any run of the program the retries stay within `ratio × calls + floor × (seconds + 10)`. An empty budget never
/// replaces the error of a call: the retry just ends.
///
/// A clone is the same budget. The idea is that of Finagle's `RetryBudget`.
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | `ratio` | 0.2 retries a call |
/// | `floor` | 10 retries a second |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::retry::{Retry, RetryBudget};
///
/// let budget = RetryBudget::builder().ratio(0.1).build()?;
/// let reads = Retry::exponential(Duration::from_millis(20)).budget(&budget).build()?;
/// let writes = Retry::exponential(Duration::from_millis(50)).budget(&budget).build()?;
/// # let _ = (reads, writes);
/// # Ok::<(), steadfast::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    /// The clock's zero.
    created: Instant,
    ledger: Ledger,
}

impl RetryBudget {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder {
            ratio: DEFAULT_RATIO,
            floor: DEFAULT_FLOOR,
        }
    }

    /// How many retries could be made right now.
    #[must_use]
    pub fn available(&self) -> f64 {
        self.shared.ledger.available(self.now())
    }

    pub(crate) fn deposit(&self) {
        self.shared.ledger.deposit(self.now());
    }

    /// Pays for one retry; dropping the payment before it was spent refunds it.
    pub(crate) fn withdraw(&self, cost: Cost) -> Option<Payment> {
        let drawn = self.shared.ledger.withdraw(cost, self.now())?;
        Some(Guard::new((self.clone(), drawn), |(budget, drawn)| {
            budget.shared.ledger.refund(drawn);
        }))
    }

    fn now(&self) -> Duration {
        self.shared.created.elapsed()
    }
}

pub(crate) type Payment = Guard<(RetryBudget, Drawn)>;

impl Default for RetryBudget {
    fn default() -> Self {
        Self::with(Rates {
            ratio: DEFAULT_RATIO,
            floor: DEFAULT_FLOOR,
        })
    }
}

impl RetryBudget {
    fn with(rates: Rates) -> Self {
        Self {
            shared: Arc::new(Shared {
                created: Instant::now(),
                ledger: Ledger::new(rates),
            }),
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("available", &self.available())
            .finish()
    }
}

/// Builds a [`RetryBudget`].
#[derive(Clone, Copy, Debug)]
pub struct RetryBudgetBuilder {
    ratio: f64,
    floor: f64,
}

impl RetryBudgetBuilder {
    /// Retries earned by each first attempt: 0.0, or from 0.0001 to 100.0, in steps of 0.0001.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Retries per second that need not be earned: 0.0, or from 0.001 to 1,000,000.0.
    #[must_use]
    pub fn floor(mut self, per_second: f64) -> Self {
        self.floor = per_second;
        self
    }

    /// Checks the settings and makes the budget.
    ///
    /// # Errors
    ///
    /// A setting outside its range, with that range.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        let Self { ratio, floor } = self;
        let policy = Name::new("retry budget");
        if !(ratio == 0.0 || (0.000_1..=100.0).contains(&ratio)) {
            return Err(ConfigError::new(
                &policy,
                "ratio",
                ratio,
                "0.0, or from 0.0001 to 100.0",
            ));
        }
        if !(floor == 0.0 || (0.001..=1_000_000.0).contains(&floor)) {
            return Err(ConfigError::new(
                &policy,
                "floor",
                floor,
                "0.0, or from 0.001 to 1000000.0",
            ));
        }
        Ok(RetryBudget::with(Rates { ratio, floor }))
    }
}

/// What a retry costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// After a failure: one retry.
    Failure,
    /// After an overload: two.
    Overload,
}

#[derive(Clone, Copy, Debug)]
struct Rates {
    ratio: f64,
    floor: f64,
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
struct Ledger {
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
    fn new(Rates { ratio, floor }: Rates) -> Self {
        Self {
            earned: (ratio * UNIT).round() as u64,
            interval: (floor > 0.0).then(|| (1e9 / floor).round() as u64),
            earnings: Default::default(),
            spending: Mutex::default(),
        }
    }

    fn deposit(&self, now: Duration) {
        if self.earned == 0 {
            return;
        }
        let second = second_of(now);
        let add = |word| Some(Slot::unpack(word).add(second, self.earned).pack());
        // The closure never refuses.
        let _ = self.earnings[place(second)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn withdraw(&self, cost: Cost, now: Duration) -> Option<Drawn> {
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
    fn refund(&self, drawn: Drawn) {
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
    fn available(&self, now: Duration) -> f64 {
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
