//! How a policy is made.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::calls::pauses;
use super::codec::{Codec, Sealer};
use super::disposition::{DecideFn, Disposition};
use super::event::{Event, Listener};
use super::flight::Flights;
use super::policy::{Idempotency, Origins, Policy};
use super::store::{Durability, Mode, SharedStore, Store};
use crate::rejected::Name;
use crate::storage::Secret;
use crate::storage::lease::{DEFAULT_LEASE, MAX_LEASE, MIN_LEASE};
use crate::{AnyError, BoxedErrors, ByError, ConfigError};

/// How long an outcome is kept: a day, as clients have given up by then.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// The longest time that an outcome can be kept.
pub(crate) const MAX_RETENTION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// For how long a lease is renewed: a handler that hangs longer is taken for dead.
pub const DEFAULT_MAX_RENEWAL: Duration = Duration::from_secs(3600);
/// How long one call of the store may take.
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest outcome in bytes.
pub const DEFAULT_MAX_OUTCOME: usize = 1024 * 1024;
/// How many duplicates of one operation may wait in this process.
pub const DEFAULT_MAX_WAITERS: usize = 10_000;

/// What keys belong to where nothing else was said: part of their hashes.
const DEFAULT_NAMESPACE: &str = "default";

/// What a duplicate does while the operation is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Zero: it is refused at once.
    pub(crate) max: Duration,
    pub(crate) max_waiters: usize,
}

/// Makes an [`Idempotency`]; see [`Idempotency::at_least_once`].
#[must_use]
pub struct IdempotencyBuilder<D = ByError> {
    settings: Settings,
    decide: D,
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a setter of its own, and any two may be combined"
)]
struct Settings {
    store: SharedStore,
    at_most_once: bool,
    name: Option<Name>,
    namespace: Cow<'static, str>,
    secret: Option<Vec<u8>>,
    lease: Duration,
    max_renewal: Duration,
    retention: Duration,
    store_timeout: Option<Duration>,
    max_outcome: usize,
    wait: Wait,
    sealer: Option<Arc<dyn Sealer>>,
    fail_open: bool,
    cancel_on_lease_lost: bool,
    accept_relaxed: bool,
    listener: Option<Listener>,
}

impl IdempotencyBuilder {
    pub(crate) fn new(store: SharedStore, at_most_once: bool) -> Self {
        let settings = Settings {
            store,
            at_most_once,
            name: None,
            namespace: Cow::Borrowed(DEFAULT_NAMESPACE),
            secret: None,
            lease: DEFAULT_LEASE,
            max_renewal: DEFAULT_MAX_RENEWAL,
            retention: DEFAULT_RETENTION,
            store_timeout: None,
            max_outcome: DEFAULT_MAX_OUTCOME,
            wait: Wait {
                max: Duration::ZERO,
                max_waiters: DEFAULT_MAX_WAITERS,
            },
            sealer: None,
            fail_open: false,
            cancel_on_lease_lost: false,
            accept_relaxed: false,
            listener: None,
        };
        Self {
            settings,
            decide: ByError,
        }
    }

    /// For `anyhow::Error` and `Box<dyn Error + Send + Sync>`: looks for a rejection in what they hold.
    pub fn boxed_errors(self) -> IdempotencyBuilder<BoxedErrors> {
        self.with(BoxedErrors)
    }

    /// For errors of any type: every `Err` interrupts.
    pub fn any_error(self) -> IdempotencyBuilder<AnyError> {
        self.with(AnyError)
    }
}

impl<D> IdempotencyBuilder<D> {
    fn with<N>(self, decide: N) -> IdempotencyBuilder<N> {
        IdempotencyBuilder {
            settings: self.settings,
            decide,
        }
    }

    /// Decides what each result means for the record of its key. Default: an `Ok` is stored, an `Err` interrupts, and
    /// what a policy of this crate refused before it sent anything is released.
    ///
    /// The last speaks of the one call that was refused. Where an operation makes several, a later one may be refused
    /// after an earlier one has had its effect: have it [note](super::Attempt::save_checkpoint) the earlier one, or
    /// return an error that holds no [`Rejected`](crate::Rejected), or decide here.
    pub fn decide<T, E, F>(self, decide: F) -> IdempotencyBuilder<DecideFn<T, E, F>>
    where
        F: Fn(Result<&T, &E>) -> Disposition,
    {
        self.with(DecideFn::new(decide))
    }

    /// What the policy is called in events and errors. Default: its namespace, or `idempotency` without one.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.settings.name = Some(name.into().into());
        self
    }

    /// Sets the keys of this operation apart from those of others in the same store. Default: `default`.
    ///
    /// Part of the hash of every key: under another namespace, what was stored before is not found.
    pub fn namespace(mut self, namespace: impl Into<Cow<'static, str>>) -> Self {
        self.settings.namespace = namespace.into();
        self
    }

    /// Hashes keys by HMAC-SHA-256 with this secret, so that who reads the store cannot try keys out. At least 16 bytes.
    /// Default: SHA-256.
    ///
    /// Part of the hash of every key: with another secret, what was stored before is not found.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.settings.secret = Some(secret.into());
        self
    }

    /// How long a claim lasts without a sign of life; it is renewed each third of this. From 200 ms to
    /// a day. Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// For how long a lease is renewed, from the claim on; an operation that runs longer may be taken over. Not less
    /// than the lease. Default: 1 h.
    pub fn max_renewal(mut self, max_renewal: Duration) -> Self {
        self.settings.max_renewal = max_renewal;
        self
    }

    /// How long an outcome is kept and, under at least once, an interrupted record. More than 0, and at
    /// most 100 years. Default: 24 h.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.settings.retention = retention;
        self
    }

    /// How long one call of the store may take. More than 0, less than the lease. Default: 5 s, or a third of a lease
    /// below 15 s, so that a renewal without an answer leaves time for another.
    pub fn store_timeout(mut self, store_timeout: Duration) -> Self {
        self.settings.store_timeout = Some(store_timeout);
        self
    }

    /// The largest outcome that is stored, in bytes. At least 1. Default: 1 MiB.
    pub fn max_outcome(mut self, max_outcome: usize) -> Self {
        self.settings.max_outcome = max_outcome;
        self
    }

    /// Has a duplicate wait for the outcome, at most this long. Default: zero, it is refused as in progress.
    ///
    /// An operation that asks for its own key is refused at once; from another task than its own it waits in vain, so do
    /// not choose a time that is longer than a caller could bear.
    pub fn wait(mut self, max: Duration) -> Self {
        self.settings.wait.max = max;
        self
    }

    /// How many duplicates of one operation may wait in this process; further ones are refused as in progress.
    /// At least 1. Default: 10,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.settings.wait.max_waiters = max_waiters;
        self
    }

    /// Encrypts outcomes. Default: they are stored as JSON.
    pub fn sealer(mut self, sealer: impl Sealer + 'static) -> Self {
        self.settings.sealer = Some(Arc::new(sealer));
        self
    }

    /// Runs the operation without a record where the store cannot be asked. Default: it is refused.
    ///
    /// Whoever repeats it then has it run again, so not for at most once.
    pub fn fail_open(mut self) -> Self {
        self.settings.fail_open = true;
        self
    }

    /// Drops the operation once its lease is lost. Default: it goes on, and is told by its
    /// [`Attempt`](super::Attempt).
    pub fn cancel_on_lease_lost(mut self) -> Self {
        self.settings.cancel_on_lease_lost = true;
        self
    }

    /// Allows at most once on a store that can lose what it has acknowledged: after such a loss an operation may run
    /// again.
    pub fn accept_relaxed_durability(mut self) -> Self {
        self.settings.accept_relaxed = true;
        self
    }

    /// Hears of every claim, replay, conflict and end.
    ///
    /// Called on the task of the call, and on those of the policy that renew its lease and tell the store of its end. A panic in it is logged, and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.settings.listener = Some(Arc::new(listener));
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// When a setting is out of its range, and for at most once on a store that is not durable, unless that was
    /// accepted.
    pub fn build(self) -> Result<Idempotency<D>, ConfigError> {
        Ok(Idempotency::new(self.settings.check()?, self.decide))
    }
}

impl Settings {
    fn check(self) -> Result<Policy, ConfigError> {
        let name = self.name.clone().unwrap_or_else(|| {
            if self.namespace == DEFAULT_NAMESPACE {
                Name::new("idempotency")
            } else {
                self.namespace.clone().into()
            }
        });
        let wrong =
            |setting, value: &dyn fmt::Debug, allowed: &str| Err(ConfigError::new(&name, setting, value, allowed));
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) {
            return wrong("lease", &self.lease, "at least 200ms and at most a day");
        }
        if self.max_renewal < self.lease {
            return wrong("max_renewal", &self.max_renewal, "at least the lease");
        }
        if self.retention.is_zero() || self.retention > MAX_RETENTION {
            return wrong("retention", &self.retention, "more than 0 and at most 100 years");
        }
        let by_default = DEFAULT_STORE_TIMEOUT.min(self.lease / 3);
        let store_timeout = self.store_timeout.unwrap_or(by_default);
        if store_timeout.is_zero() || store_timeout >= self.lease {
            return wrong("store_timeout", &store_timeout, "more than 0 and less than the lease");
        }
        if self.max_outcome == 0 {
            return wrong("max_outcome", &self.max_outcome, "at least 1");
        }
        if self.wait.max_waiters == 0 {
            return wrong("max_waiters", &self.wait.max_waiters, "at least 1");
        }
        let secret = match &self.secret {
            None => None,
            Some(secret) if secret.len() >= Secret::MIN_LEN => Secret::new(secret),
            // Its length, and nothing else of it.
            Some(secret) => return wrong("secret", &format_args!("{} bytes", secret.len()), "at least 16 bytes"),
        };
        if self.at_most_once && self.fail_open {
            return wrong(
                "fail_open",
                &true,
                "left out for at most once: without a record an operation may run twice",
            );
        }
        let durability = self.store.durability();
        if self.at_most_once && durability != Durability::Durable && !self.accept_relaxed {
            let allowed = "Durable, unless accept_relaxed_durability() is said";
            return wrong("store", &durability, allowed);
        }
        let pauses = pauses(&name)?;
        let retention = self.retention;
        let mode = if self.at_most_once {
            Mode::AtMostOnce
        } else {
            Mode::AtLeastOnce { retention }
        };
        let codec = Codec {
            sealer: self.sealer,
            limit: self.max_outcome,
        };
        Ok(Policy {
            store: self.store,
            mode,
            name,
            origins: Origins::new(&self.namespace),
            namespace: self.namespace,
            secret,
            lease: self.lease,
            max_renewal: self.max_renewal,
            retention,
            store_timeout,
            codec,
            wait: self.wait,
            fail_open: self.fail_open,
            cancel_on_lease_lost: self.cancel_on_lease_lost,
            listener: self.listener,
            pauses,
            slots: Arc::default(),
            flights: Flights::default(),
            releases: Flights::default(),
        })
    }
}

impl<D: fmt::Debug> fmt::Debug for IdempotencyBuilder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyBuilder")
            .field("name", &self.settings.name)
            .field("namespace", &self.settings.namespace)
            .field("store", &self.settings.store)
            .field("decide", &self.decide)
            .finish_non_exhaustive()
    }
}
