//! What of a retry is plain data.

use std::borrow::Cow;
use std::time::Duration;

use super::budget::{DEFAULT_FLOOR, DEFAULT_RATIO};
use super::session::{DEFAULT_MAX_ATTEMPTS, DEFAULT_MAX_RETRY_AFTER, Limits};
use crate::rejected::Name;
use crate::{Backoff, ConfigError};

/// The base of the default backoff: 100 ms, about one round trip across an ocean.
pub const DEFAULT_BASE_DELAY: Duration = Duration::from_millis(100);

/// What of a [`Retry`](super::Retry) can be read from a file: see [`RetryBuilder::config`](super::RetryBuilder::config).
///
/// Each field is the setting of that name; what is left out of a file is the default. It is checked by
/// [`build`](super::RetryBuilder::build).
///
/// # Examples
///
/// ```
/// use steadfast::retry::{Retry, RetryConfig};
///
/// let config: RetryConfig = toml::from_str(
///     r#"
///     name = "ledger"
///     max_attempts = 5
///     max_elapsed = "2s"
///     backoff = { kind = "exponential", base = "20ms", max_delay = "1s" }
///     "#,
/// )?;
/// let retry = Retry::builder().config(config).build()?;
/// assert_eq!(retry.name(), "ledger");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RetryConfig {
    /// See [`RetryBuilder::name`](super::RetryBuilder::name). Default: `None`, the name that the builder has.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub name: Option<Cow<'static, str>>,
    /// See [`RetryBuilder::max_attempts`](super::RetryBuilder::max_attempts).
    pub max_attempts: u32,
    /// See [`RetryBuilder::max_elapsed`](super::RetryBuilder::max_elapsed).
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::config::duration::optional", skip_serializing_if = "Option::is_none")
    )]
    pub max_elapsed: Option<Duration>,
    /// See [`RetryBuilder::max_retry_after`](super::RetryBuilder::max_retry_after).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub max_retry_after: Duration,
    /// See [`RetryBuilder::seed`](super::RetryBuilder::seed).
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub seed: Option<u64>,
    /// See [`RetryBuilder::backoff`](super::RetryBuilder::backoff).
    pub backoff: Backoff,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            name: None,
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            max_elapsed: None,
            max_retry_after: DEFAULT_MAX_RETRY_AFTER,
            seed: None,
            backoff: Backoff::exponential(DEFAULT_BASE_DELAY),
        }
    }
}

impl RetryConfig {
    pub(crate) fn full_name(&self) -> Name {
        self.name.clone().map_or(Name::new("retry"), Name::from)
    }

    pub(crate) fn limits(&self) -> Result<Limits, ConfigError> {
        let name = self.full_name();
        if self.max_attempts == 0 {
            return Err(ConfigError::new(&name, "max_attempts", 0, "at least 1"));
        }
        if self.max_elapsed.is_some_and(|limit| limit.is_zero()) {
            return Err(ConfigError::new(&name, "max_elapsed", Duration::ZERO, "longer than 0"));
        }
        Ok(Limits::new(
            self.max_attempts,
            self.max_elapsed,
            self.max_retry_after,
            self.backoff.check(&name)?,
        ))
    }
}

/// What of a [`RetryBudget`](super::RetryBudget) can be read from a file: see
/// [`RetryBudgetBuilder::config`](super::RetryBudgetBuilder::config).
///
/// A budget has a table of its own, not one in each retry: it is shared, and who shares it is said in code.
///
/// # Examples
///
/// ```
/// use steadfast::retry::{Retry, RetryBudget, RetryBudgetConfig, RetryConfig};
///
/// #[derive(serde::Deserialize)]
/// struct Catalogue {
///     budget: RetryBudgetConfig,
///     reads: RetryConfig,
///     writes: RetryConfig,
/// }
///
/// let catalogue: Catalogue = toml::from_str(
///     r#"
///     budget = { ratio = 0.1 }
///     reads = { max_attempts = 5 }
///     writes = { max_attempts = 2 }
///     "#,
/// )?;
/// let budget = RetryBudget::builder().config(catalogue.budget).build()?;
/// let reads = Retry::builder().config(catalogue.reads).budget(&budget).build()?;
/// let writes = Retry::builder().config(catalogue.writes).budget(&budget).build()?;
/// # let _ = (reads, writes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct RetryBudgetConfig {
    /// See [`RetryBudgetBuilder::ratio`](super::RetryBudgetBuilder::ratio).
    pub ratio: f64,
    /// See [`RetryBudgetBuilder::floor`](super::RetryBudgetBuilder::floor).
    pub floor: f64,
}

impl Default for RetryBudgetConfig {
    fn default() -> Self {
        Self {
            ratio: DEFAULT_RATIO,
            floor: DEFAULT_FLOOR,
        }
    }
}
