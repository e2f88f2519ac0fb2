//! How an engine is made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::definition::Saga;
use super::super::journal::{DefinitionId, Journal};
use super::core::{Core, Drive, Settings};
use super::registered::Registered;
use super::{SagaData, SagaEngine, worker};
use crate::ConfigError;
use crate::rejected::Name;
use crate::storage::Durability;
use crate::storage::lease::{DEFAULT_LEASE, MAX_LEASE, MIN_LEASE};

/// How often an engine looks for sagas that are due.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many sagas an engine drives at a time.
pub const DEFAULT_MAX_CONCURRENT: usize = 64;
/// How many sagas may wait for one of those places.
pub const DEFAULT_MAX_PENDING: usize = 10_000;
/// How often in a row a saga's owner may be lost without a result.
pub const DEFAULT_MAX_RECOVERIES: u32 = 10;
/// How many bytes a context may have, as JSON.
pub const DEFAULT_MAX_CONTEXT: usize = 1024 * 1024;

/// Makes a [`SagaEngine`]; see [`SagaEngine::builder`].
#[must_use]
pub struct SagaEngineBuilder {
    name: Name,
    journal: Arc<dyn Journal>,
    settings: Settings,
    registered: Vec<(DefinitionId, Arc<dyn Drive>)>,
    accept_relaxed: bool,
    /// A step that needs a transaction of another journal.
    misfit: Option<String>,
}

impl SagaEngineBuilder {
    pub(super) fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            name: "saga engine".into(),
            journal,
            settings: Settings {
                lease: DEFAULT_LEASE,
                poll_interval: DEFAULT_POLL_INTERVAL,
                max_concurrent: DEFAULT_MAX_CONCURRENT,
                max_pending: DEFAULT_MAX_PENDING,
                max_recoveries: DEFAULT_MAX_RECOVERIES,
                max_context: DEFAULT_MAX_CONTEXT,
            },
            registered: Vec::new(),
            accept_relaxed: false,
            misfit: None,
        }
    }

    /// Drives sagas of this definition. Several versions of one name may be registered, so that those under way are
    /// driven by the version that they were started from.
    pub fn register<C: SagaData, D: Send + Sync + 'static>(mut self, saga: &Saga<C, D>) -> Self {
        let misfit = saga.0.code.iter().find(|step| {
            let local = step.code.local.as_ref();
            local.is_some_and(|local| !local.fits(&*self.journal))
        });
        self.misfit = self.misfit.or(misfit.map(|step| step.name.as_ref().to_owned()));
        let registered = Arc::new(Registered::new(Arc::clone(&saga.0)));
        for definition in registered.definitions() {
            let drive: Arc<dyn Drive> = Arc::<Registered<C, D>>::clone(&registered);
            self.registered.push((definition, drive));
        }
        self
    }

    /// How long a saga belongs to this engine without a sign of life: for so long nobody takes it over after a crash. It
    /// is renewed every third of it. 200 ms to 24 h. Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How often sagas are looked for that are due: parked ones, and those whose owner is gone. 1 ms to 1 h. Default: 1 s.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// How many sagas are driven here at a time. With 0, the engine only starts sagas, and others drive them. Default: 64.
    pub fn max_concurrent(mut self, max: usize) -> Self {
        self.settings.max_concurrent = max;
        self
    }

    /// How many sagas started here may wait for one of those places; then [`SagaEngine::start`] refuses. Default: 10,000.
    pub fn max_pending(mut self, max: usize) -> Self {
        self.settings.max_pending = max;
        self
    }

    /// How often in a row a saga's owner may be lost without a result: then it is taken to be what kills them, and is
    /// laid to rest as [stuck](super::super::Obstacle::CrashLoop). Default: 10.
    pub fn max_recoveries(mut self, max: u32) -> Self {
        self.settings.max_recoveries = max;
        self
    }

    /// Allows a journal that can lose what it has acknowledged with the power: a saga that had turned back may then go
    /// forward again, over steps that are undone. Default: such a journal is refused.
    pub fn accept_relaxed_durability(mut self) -> Self {
        self.accept_relaxed = true;
        self
    }

    /// How many bytes a context may have, as JSON: with a larger one no saga is started, and no further step run. It is
    /// written with every step, so keep it small; from 256 KiB on there is a warning. Default: 1 MiB.
    pub fn max_context(mut self, bytes: usize) -> Self {
        self.settings.max_context = bytes;
        self
    }

    /// The engine. It claims at once what is due, on tasks of the runtime it is built in.
    ///
    /// # Errors
    ///
    /// When two definitions would drive the same sagas, the journal can lose what it has acknowledged, or a setting is out
    /// of its range.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub fn build(self) -> Result<SagaEngine, ConfigError> {
        let wrong =
            |setting, value: &dyn fmt::Debug, allowed: &str| Err(ConfigError::new(&self.name, setting, value, allowed));
        let Settings {
            lease,
            poll_interval,
            max_concurrent,
            ..
        } = self.settings;
        if !(MIN_LEASE..=MAX_LEASE).contains(&lease) {
            return wrong("lease", &lease, "from 200 ms to 24 h");
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&poll_interval) {
            return wrong("poll_interval", &poll_interval, "from 1 ms to 1 h");
        }
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if max_concurrent > most {
            return wrong("max_concurrent", &max_concurrent, &format!("at most {most}"));
        }
        let durability = self.journal.durability();
        if durability == Durability::Relaxed && !self.accept_relaxed {
            let allowed = "Durable, unless accept_relaxed_durability() is said";
            return wrong("journal", &durability, allowed);
        }
        if let Some(step) = &self.misfit {
            let allowed = "one that runs in transactions of the engine's own journal";
            return wrong("step", step, allowed);
        }
        let mut registry = BTreeMap::new();
        for (definition, drive) in self.registered {
            let DefinitionId { name, version, .. } = definition.clone();
            if registry.insert(definition, drive).is_some() {
                let allowed = "registered once, and upcast or declared compatible by one definition only";
                return Err(ConfigError::new(
                    &self.name,
                    "definition",
                    format!("{name} version {version}"),
                    allowed,
                ));
            }
        }
        let core = Arc::new(Core::new(self.journal, self.settings, registry));
        core.runtime.spawn(worker::recover(Arc::clone(&core)));
        core.runtime.spawn(worker::renew(Arc::clone(&core)));
        Ok(SagaEngine::of(core))
    }
}

impl fmt::Debug for SagaEngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definitions: Vec<_> = self.registered.iter().map(|(definition, _)| definition).collect();
        f.debug_struct("SagaEngineBuilder")
            .field("journal", &self.journal)
            .field("settings", &self.settings)
            .field("definitions", &definitions)
            .finish_non_exhaustive()
    }
}
