//! The builder of the policy.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::BulkheadConfig;
use super::event::Event;
use super::keyed::BulkheadsBuilder;
use super::policy::{Bulkhead, Listener, Plan, Usual};
use crate::ConfigError;

impl Bulkhead {
    /// A builder with the defaults, of a bulkhead of that name.
    pub fn builder(name: impl Into<Cow<'static, str>>) -> BulkheadBuilder {
        BulkheadBuilder {
            config: BulkheadConfig {
                name: Some(name.into()),
                ..BulkheadConfig::default()
            },
            listener: None,
        }
    }
}

/// Builds a [`Bulkhead`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct BulkheadBuilder {
    config: BulkheadConfig,
    listener: Option<Listener>,
}

impl BulkheadBuilder {
    /// Takes every setting that a [`BulkheadConfig`] has from `config`; the name only where it has one. The listener
    /// stays.
    pub fn config(mut self, config: BulkheadConfig) -> Self {
        let name = config.name.or(self.config.name);
        self.config = BulkheadConfig { name, ..config };
        self
    }

    /// How many calls may run at once, or how much they may weigh together: at least 1. Default: 64.
    pub fn max_concurrent(mut self, max_concurrent: u32) -> Self {
        self.config.max_concurrent = max_concurrent;
        self
    }

    /// How many calls may wait for a permit; more than 0 needs a [`max_wait`](Self::max_wait). Default: 0.
    pub fn max_queued(mut self, max_queued: u32) -> Self {
        self.config.max_queued = max_queued;
        self
    }

    /// How long a call may wait for its permit: more than 0, and only together with a
    /// [`max_queued`](Self::max_queued).
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.config.max_wait = Some(max_wait);
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
        Ok(Bulkhead::new(&self.plan()?))
    }

    /// A set of bulkheads with these settings, one for each key.
    pub fn keyed<K>(self) -> BulkheadsBuilder<K> {
        BulkheadsBuilder::new(self)
    }

    pub(crate) fn plan(self) -> Result<Plan, ConfigError> {
        Ok(Plan {
            usual: Arc::new(Usual::new(self.config.limits()?)),
            name: self.config.full_name(),
            listener: self.listener,
            #[cfg(feature = "metrics")]
            meters: Arc::new(super::event::BulkheadMeters::new()),
        })
    }
}

impl fmt::Debug for BulkheadBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
