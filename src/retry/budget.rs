//! How many retries all callers together may make.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::RetryBudgetConfig;
pub(crate) use super::ledger::Cost;
use super::ledger::{Drawn, Ledger, Rates};
use crate::error::ConfigError;
use crate::guard::Guard;
use crate::rejected::Name;

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
        RetryBudgetBuilder::default()
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
        Self::with(RetryBudgetConfig::default())
    }
}

impl RetryBudget {
    fn with(RetryBudgetConfig { ratio, floor }: RetryBudgetConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                created: Instant::now(),
                ledger: Ledger::new(Rates { ratio, floor }),
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
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryBudgetBuilder {
    config: RetryBudgetConfig,
}

impl RetryBudgetBuilder {
    /// Takes every setting from `config`.
    #[must_use]
    pub fn config(mut self, config: RetryBudgetConfig) -> Self {
        self.config = config;
        self
    }

    /// Retries earned by each first attempt: 0.0, or from 0.0001 to 100.0, in steps of 0.0001.
    #[must_use]
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.config.ratio = ratio;
        self
    }

    /// Retries per second that need not be earned: 0.0, or from 0.2 to 1,000,000.0.
    ///
    /// With less, the ten seconds that are kept would never pay for a retry after an overload.
    #[must_use]
    pub fn floor(mut self, per_second: f64) -> Self {
        self.config.floor = per_second;
        self
    }

    /// Checks the settings and makes the budget.
    ///
    /// # Errors
    ///
    /// A setting outside its range, with that range.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        let RetryBudgetConfig { ratio, floor } = self.config;
        let policy = Name::new("retry budget");
        if !(ratio == 0.0 || (0.000_1..=100.0).contains(&ratio)) {
            return Err(ConfigError::new(
                &policy,
                "ratio",
                ratio,
                "0.0, or from 0.0001 to 100.0",
            ));
        }
        if !(floor == 0.0 || (0.2..=1_000_000.0).contains(&floor)) {
            return Err(ConfigError::new(
                &policy,
                "floor",
                floor,
                "0.0, or from 0.2 to 1000000.0",
            ));
        }
        Ok(RetryBudget::with(self.config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn budget(ratio: f64, floor: f64) -> RetryBudget {
        RetryBudget::builder().ratio(ratio).floor(floor).build().unwrap()
    }

    fn payments(budget: &RetryBudget) -> Vec<Payment> {
        std::iter::from_fn(|| budget.withdraw(Cost::Failure))
            .take(1_000)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_that_is_dropped_is_refunded_and_one_that_was_used_is_not() {
        let budget = budget(0.0, 1.0);
        drop(payments(&budget));
        let paid = payments(&budget);
        assert_eq!(paid.len(), 10);
        paid.into_iter().for_each(Guard::disarm);
        assert_eq!(payments(&budget).len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clone_is_the_same_budget() {
        let budget = budget(1.0, 0.0);
        budget.clone().deposit();
        let _paid = budget.withdraw(Cost::Failure).unwrap();
        assert!(budget.clone().withdraw(Cost::Failure).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_lives_by_the_clock_of_tokio() {
        let budget = budget(1.0, 0.0);
        budget.deposit();
        tokio::time::advance(9 * S).await;
        assert!(budget.withdraw(Cost::Failure).is_some());
        tokio::time::advance(S).await;
        assert!(budget.withdraw(Cost::Failure).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_available_can_be_paid() {
        let budget = budget(0.5, 2.0);
        (0..3).for_each(|_| budget.deposit());
        assert_eq!(format!("{budget:?}"), "RetryBudget { available: 21.5 }");
        assert_eq!(payments(&budget).len(), 21);
    }
}
