//! What of a bulkhead is plain data.

use std::borrow::Cow;
use std::time::Duration;

use crate::ConfigError;
use crate::rejected::Name;

/// How many calls run at once by default: 64, about what the connections of one client to one dependency carry. With
/// calls of 50 ms that is 1,280 a second.
pub const DEFAULT_MAX_CONCURRENT: u32 = 64;

/// How many calls may wait by default: none. A queue turns overload into latency, so it has to be asked for.
pub const DEFAULT_MAX_QUEUED: u32 = 0;

/// What of a [`Bulkhead`](super::Bulkhead) can be read from a file: see
/// [`BulkheadBuilder::config`](super::BulkheadBuilder::config).
///
/// Each field is the setting of that name; what is left out of a file is the default. It is checked by
/// [`build`](super::BulkheadBuilder::build).
///
#[cfg_attr(feature = "serde", doc = "# Examples", doc = "", doc = "```")]
#[cfg_attr(
    feature = "serde",
    doc = "use steadfast::bulkhead::{Bulkhead, BulkheadConfig};

let config: BulkheadConfig = toml::from_str(
    r#\"
    max_concurrent = 16
    max_queued = 8
    max_wait = \"50ms\"
    \"#,
)?;
let lanes = Bulkhead::builder(\"payments\").config(config).build()?;
assert_eq!((lanes.name(), lanes.max_concurrent()), (\"payments\", 16));
# Ok::<(), Box<dyn std::error::Error>>(())"
)]
#[cfg_attr(feature = "serde", doc = "```")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// See [`Bulkhead::builder`](super::Bulkhead::builder). Default: `None`, the name that the builder has.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub name: Option<Cow<'static, str>>,
    /// See [`BulkheadBuilder::max_concurrent`](super::BulkheadBuilder::max_concurrent).
    pub max_concurrent: u32,
    /// See [`BulkheadBuilder::max_queued`](super::BulkheadBuilder::max_queued).
    pub max_queued: u32,
    /// See [`BulkheadBuilder::max_wait`](super::BulkheadBuilder::max_wait).
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::config::duration::optional", skip_serializing_if = "Option::is_none")
    )]
    pub max_wait: Option<Duration>,
}

impl Default for BulkheadConfig {
    fn default() -> Self {
        Self {
            name: None,
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            max_queued: DEFAULT_MAX_QUEUED,
            max_wait: None,
        }
    }
}

/// The limits of a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "the names of the setters")]
pub(crate) struct Limits {
    pub(crate) max_concurrent: u32,
    pub(crate) max_queued: u32,
    pub(crate) max_wait: Option<Duration>,
}

impl BulkheadConfig {
    pub(crate) fn full_name(&self) -> Name {
        self.name.clone().map_or(Name::new("bulkhead"), Name::from)
    }

    pub(crate) fn limits(&self) -> Result<Limits, ConfigError> {
        let name = &self.full_name();
        if self.max_concurrent == 0 {
            return Err(ConfigError::new(name, "max_concurrent", 0, "at least 1"));
        }
        match self.max_wait {
            None if self.max_queued > 0 => return Err(needs_max_wait(name, self.max_queued)),
            Some(max_wait) if self.max_queued == 0 => {
                let allowed = "left out where max_queued is 0";
                return Err(ConfigError::new(name, "max_wait", max_wait, allowed));
            }
            Some(max_wait) => check_max_wait(name, max_wait)?,
            None => {}
        }
        Ok(Limits {
            max_concurrent: self.max_concurrent,
            max_queued: self.max_queued,
            max_wait: self.max_wait,
        })
    }
}

pub(crate) fn needs_max_wait(name: &Name, max_queued: u32) -> ConfigError {
    ConfigError::new(name, "max_queued", max_queued, "0 where there is no max_wait")
}

pub(crate) fn check_max_wait(name: &Name, max_wait: Duration) -> Result<(), ConfigError> {
    if max_wait.is_zero() {
        return Err(ConfigError::new(name, "max_wait", max_wait, "longer than 0"));
    }
    Ok(())
}
