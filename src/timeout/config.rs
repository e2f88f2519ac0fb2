//! What of a timeout is plain data.

use std::borrow::Cow;
use std::time::Duration;

/// What of a [`Timeout`](super::Timeout) can be read from a file: see
/// [`Timeout::from_config`](super::Timeout::from_config).
///
/// # Examples
///
/// ```
/// use steadfast::timeout::{Timeout, TimeoutConfig};
///
/// let config: TimeoutConfig = toml::from_str(r#"limit = "250ms""#)?;
/// let timeout = Timeout::from_config(config);
/// assert_eq!(timeout.limit().as_millis(), 250);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// See [`Timeout::name`](super::Timeout::name). Default: `None`, the name that the policy has.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub name: Option<Cow<'static, str>>,
    /// See [`Timeout::new`](super::Timeout::new). It has no default.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub limit: Duration,
}

impl TimeoutConfig {
    /// A limit, and the rest as by default.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { name: None, limit }
    }
}
