//! How a policy is made.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::codec::{Codec, Sealer};
use super::disposition::{DecideFn, Disposition};
use super::event::Event;
use super::policy::{Idempotency, Policy};
use super::store::{Durability, Mode, SharedStore, Store};
use crate::rejected::Name;
use crate::storage::Secret;
use crate::storage::lease::{DEFAULT_LEASE, MIN_LEASE};
use crate::{AnyError, BoxedErrors, ByError, ConfigError};

/// How long an outcome is kept: a day, as clients have given up by then.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// For how long a lease is renewed: a handler that hangs longer is taken for dead.
pub const DEFAULT_MAX_RENEWAL: Duration = Duration::from_secs(3600);
/// How long one call of the store may take.
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest outcome in bytes.
pub const DEFAULT_MAX_OUTCOME: usize = 1024 * 1024;
/// How many duplicates of one operation may wait in this process.
pub const DEFAULT_MAX_WAITERS: usize = 10_000;

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
    store: SharedStore,
    at_most_once: bool,
    name: Name,
    namespace: Cow<'static, str>,
    secret: Option<Vec<u8>>,
    lease: Duration,
    max_renewal: Duration,
    retention: Duration,
    store_timeout: Duration,
    max_outcome: usize,
    wait: Wait,
    sealer: Option<Arc<dyn Sealer>>,
    fail_open: bool,
    cancel_on_lease_lost: bool,
    accept_relaxed: bool,
    listener: Option<super::event::Listener>,
    decide: D,
}

impl IdempotencyBuilder {
    pub(crate) fn new(store: SharedStore, at_most_once: bool) -> Self {
        Self {
            store,
            at_most_once,
            name: Name::new("idempotency"),
            namespace: Cow::Borrowed("default"),
            secret: None,
            lease: DEFAULT_LEASE,
            max_renewal: DEFAULT_MAX_RENEWAL,
            retention: DEFAULT_RETENTION,
            store_timeout: DEFAULT_STORE_TIMEOUT,
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
            store: self.store,
            at_most_once: self.at_most_once,
            name: self.name,
            namespace: self.namespace,
            secret: self.secret,
            lease: self.lease,
            max_renewal: self.max_renewal,
            retention: self.retention,
            store_timeout: self.store_timeout,
            max_outcome: self.max_outcome,
            wait: self.wait,
            sealer: self.sealer,
            fail_open: self.fail_open,
            cancel_on_lease_lost: self.cancel_on_lease_lost,
            accept_relaxed: self.accept_relaxed,
            listener: self.listener,
            decide,
        }
    }

    /// Decides what each result means for the record of its key. Default: an `Ok` is stored, an `Err` interrupts, and
    /// what a policy of this crate refused before it sent anything is released.
    pub fn decide<T, E, F>(self, decide: F) -> IdempotencyBuilder<DecideFn<T, E, F>>
    where
        F: Fn(Result<&T, &E>) -> Disposition,
    {
        self.with(DecideFn::new(decide))
    }

    /// What the policy is called in events and errors. Default: `idempotency`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into().into();
        self
    }

    /// Sets the keys of this operation apart from those of others in the same store. Default: `default`.
    ///
    /// Part of the hash of every key: under another namespace, what was stored before is not found.
    pub fn namespace(mut self, namespace: impl Into<Cow<'static, str>>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Hashes keys by HMAC-SHA-256 with this secret, so that who reads the store cannot try keys out. At least 16 bytes.
    /// Default: SHA-256.
    ///
    /// Part of the hash of every key: with another secret, what was stored before is not found.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// How long a claim lasts without a sign of life; it is renewed each third of this. At least 200 ms.
    /// Default: 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// For how long a lease is renewed, from the claim on; an operation that runs longer may be taken over. Not less
    /// than the lease. Default: 1 h.
    pub fn max_renewal(mut self, max_renewal: Duration) -> Self {
        self.max_renewal = max_renewal;
        self
    }

    /// How long an outcome is kept and, under at least once, an interrupted record. More than 0. Default: 24 h.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long one call of the store may take. More than 0, less than the lease. Default: 5 s, or half of a lease
    /// that is not longer than that.
    pub fn store_timeout(mut self, store_timeout: Duration) -> Self {
        self.store_timeout = store_timeout;
        self
    }

    /// The largest outcome that is stored, in bytes. At least 1. Default: 1 MiB.
    pub fn max_outcome(mut self, max_outcome: usize) -> Self {
        self.max_outcome = max_outcome;
        self
    }

    /// Has a duplicate wait for the outcome, at most this long. Default: zero, it is refused as in progress.
    pub fn wait(mut self, max: Duration) -> Self {
        self.wait.max = max;
        self
    }

    /// How many duplicates of one operation may wait in this process; further ones are refused as in progress.
    /// At least 1. Default: 10,000.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.wait.max_waiters = max_waiters;
        self
    }

    /// Encrypts outcomes. Default: they are stored as JSON.
    pub fn sealer(mut self, sealer: impl Sealer + 'static) -> Self {
        self.sealer = Some(Arc::new(sealer));
        self
    }

    /// Runs the operation without a record where the store cannot be asked. Default: it is refused.
    ///
    /// Whoever repeats it then has it run again.
    pub fn fail_open(mut self) -> Self {
        self.fail_open = true;
        self
    }

    /// Drops the operation once its lease is lost. Default: it goes on, and is told by its
    /// [`Attempt`](super::Attempt).
    pub fn cancel_on_lease_lost(mut self) -> Self {
        self.cancel_on_lease_lost = true;
        self
    }

    /// Allows at most once on a store that can lose what it has acknowledged: after such a loss an operation may run
    /// again.
    pub fn accept_relaxed_durability(mut self) -> Self {
        self.accept_relaxed = true;
        self
    }

    /// Hears of every claim, replay, conflict and end.
    ///
    /// Called on the task of the call. A panic in it is logged, and otherwise ignored.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// When a setting is out of its range, and for at most once on a store that is not durable, unless that was
    /// accepted.
    pub fn build(self) -> Result<Idempotency<D>, ConfigError> {
        let wrong = |setting, value: &dyn std::fmt::Debug, allowed: &str| {
            Err(ConfigError::new(&self.name, setting, value, allowed))
        };
        if self.lease < MIN_LEASE {
            return wrong("lease", &self.lease, "at least 200ms");
        }
        if self.max_renewal < self.lease {
            return wrong("max_renewal", &self.max_renewal, "at least the lease");
        }
        if self.retention.is_zero() {
            return wrong("retention", &self.retention, "more than 0");
        }
        let store_timeout = match self.store_timeout {
            DEFAULT_STORE_TIMEOUT if self.lease <= DEFAULT_STORE_TIMEOUT => self.lease / 2,
            timeout => timeout,
        };
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
        let durability = self.store.durability();
        if self.at_most_once && durability != Durability::Durable && !self.accept_relaxed {
            let allowed = "Durable, unless accept_relaxed_durability() is said";
            return wrong("store", &durability, allowed);
        }
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
        let policy = Policy {
            store: self.store,
            mode,
            name: self.name,
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
        };
        Ok(Idempotency::new(policy, self.decide))
    }
}
