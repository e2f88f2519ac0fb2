//! Calls of the store: none takes longer than it may, and what may help is sent again.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::event::EventKind;
use super::policy::Policy;
use crate::curve::{Curve, Progress};
use crate::random::{Random, seed};
use crate::rejected::{Idempotency as Why, Name};
use crate::storage::{StorageError, StorageErrorKind};
use crate::{Backoff, ConfigError, Jitter, KeyId};

/// The pauses between two sendings of one request, and between two questions how far another process is.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a caller is told where the store did not do what it had to.
pub(crate) fn unavailable(error: &StorageError) -> Why {
    let reason = error.kind().reason();
    Why::StoreUnavailable { reason }
}

/// The schedule of these pauses.
pub(crate) fn pauses(policy: &Name) -> Result<Curve, ConfigError> {
    let growing = Backoff::exponential(FIRST_PAUSE).max_delay(LONGEST_PAUSE);
    growing.jitter(Jitter::Equal).check(policy)
}

/// One run through them.
pub(crate) struct Pauses<'a> {
    curve: &'a Curve,
    progress: Progress,
    random: Random,
}

impl<'a> Pauses<'a> {
    pub(crate) fn new(policy: &'a Policy) -> Self {
        Self {
            curve: &policy.pauses,
            progress: Progress::default(),
            random: Random::stream(seed(), 0),
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.curve.next(&mut self.progress, || self.random.unit());
        pause.unwrap_or(LONGEST_PAUSE)
    }
}

fn no_answer() -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, "the store did not answer in time")
}

impl Policy {
    /// One sending, within the time that a call may take.
    pub(crate) async fn one_call<T>(
        &self,
        call: &'static str,
        id: KeyId,
        request: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let limit = self.store_timeout;
        match timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.emit(id, EventKind::StoreFailed { call, error: &error });
                Err(error)
            }
            Err(_) => {
                self.emit(id, EventKind::StoreTimedOut { call, limit });
                Err(no_answer())
            }
        }
    }

    /// The same for a call that concerns no key, and that nobody but its caller hears of.
    pub(crate) async fn general_call<T>(
        &self,
        request: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let answer = timeout(self.store_timeout, request).await;
        answer.unwrap_or_else(|_| Err(no_answer()))
    }

    /// Sends a request until it is answered, refused for good, or `deadline` has passed. Each sending has the time that
    /// a call may take, and the first is made in any case.
    pub(crate) async fn insist<T, F>(
        &self,
        call: &'static str,
        id: KeyId,
        deadline: Instant,
        mut request: impl FnMut() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let mut pauses = Pauses::new(self);
        loop {
            match self.one_call(call, id, request()).await {
                Err(error) if error.is_retryable() => {
                    let pause = pauses.next();
                    if Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    sleep(pause).await;
                }
                answered => return answered,
            }
        }
    }
}
