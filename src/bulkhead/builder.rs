//! The builder of the policy, and its defaults.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::policy::{Bulkhead, Listener};
use crate::ConfigError;
use crate::rejected::Name;

/// How many calls run at once by default: 64, about what the connections of one client to one dependency carry. With
/// calls of 50 ms that is 1,280 a second.
pub const DEFAULT_MAX_CONCURRENT: u32 = 64;

/// How many calls may wait by default: none. A queue turns overload into latency, so it has to be asked for.
pub const DEFAULT_MAX_QUEUED: u32 = 0;

impl Bulkhead {
    /// A builder with the defaults, of a bulkhead of that name.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> BulkheadBuilder {
        BulkheadBuilder {
            name: name.into().into(),
            settings: Settings::default(),
            listener: None,
        }
    }
}

/// Builds a [`Bulkhead`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct BulkheadBuilder {
    name: Name,
    settings: Settings,
    listener: Option<Listener>,
}

#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "the names of the setters")]
pub(crate) struct Settings {
    pub(crate) max_concurrent: u32,
    pub(crate) max_queued: u32,
    pub(crate) max_wait: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            max_queued: DEFAULT_MAX_QUEUED,
            max_wait: None,
        }
    }
}

impl Settings {
    fn check(&self, name: &Name) -> Result<(), ConfigError> {
        if self.max_concurrent == 0 {
            return Err(ConfigError::new(name, "max_concurrent", 0, "at least 1"));
        }
        match self.max_wait {
            None if self.max_queued > 0 => Err(needs_max_wait(name, self.max_queued)),
            Some(max_wait) if self.max_queued == 0 => {
                let allowed = "left out where max_queued is 0";
                Err(ConfigError::new(name, "max_wait", max_wait, allowed))
            }
            Some(max_wait) => check_max_wait(name, max_wait),
            None => Ok(()),
        }
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

impl BulkheadBuilder {
    /// How many calls may run at once, or how much they may weigh together: at least 1. Default: 64.
    pub fn max_concurrent(mut self, max_concurrent: u32) -> Self {
        self.settings.max_concurrent = max_concurrent;
        self
    }

    /// How many calls may wait for a permit; more than 0 needs a [`max_wait`](Self::max_wait). Default: 0.
    pub fn max_queued(mut self, max_queued: u32) -> Self {
        self.settings.max_queued = max_queued;
        self
    }

    /// How long a call may wait for its permit: more than 0, and only together with a
    /// [`max_queued`](Self::max_queued).
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = Some(max_wait);
        self
    }

    /// Hears of every call that is rejected, waits, ends or is dropped, and of every change of the limit.
    ///
    /// Called outside of any lock, on the task of the call: it may ask the bulkhead. A panic in it is logged, and
    /// otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Checks the settings and makes the policy.
    ///
    /// # Errors
    ///
    /// A setting outside its range, with that range: no permits at all, a queue without a limit on the wait, or the other
    /// way round.
    pub fn build(self) -> Result<Bulkhead, ConfigError> {
        self.settings.check(&self.name)?;
        Ok(Bulkhead::new(self.name, self.settings, self.listener))
    }
}

impl fmt::Debug for BulkheadBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
