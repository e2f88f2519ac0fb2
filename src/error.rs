//! The errors around a rejection: of an inner call that cannot hold one, and of a builder.

use std::fmt;

use crate::rejected::{Name, Rejected};

/// A foreign error, or a rejection: for inner error types that cannot hold a [`Rejected`].
///
/// Wrap once, innermost, with `.map_err(Error::Inner)`; every policy above then works with `Error<E>`. `Display` and
/// `source()` are those of what it holds.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use steadfast::{Error, timeout::Timeout};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let timeout = Timeout::new(Duration::from_secs(1));
/// let read = async { "7".parse::<u32>().map_err(Error::Inner) };
/// assert_eq!(timeout.call(read).await.unwrap(), 7);
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error<E> {
    /// A policy refused.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The inner call failed.
    #[error(transparent)]
    Inner(E),
}

impl<E> Error<E> {
    /// The inner error, if the call failed by itself.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(_) => None,
        }
    }
}

/// A builder was given a value that it cannot work with.
///
/// It names the policy, the setting, the value, and what is allowed.
///
/// # Examples
///
/// ```
/// use steadfast::retry::Retry;
///
/// let error = Retry::builder().name("payments").max_attempts(0).build().unwrap_err();
/// assert_eq!(error.setting(), "max_attempts");
/// assert_eq!(error.to_string(), "policy `payments`: max_attempts cannot be 0: it has to be at least 1");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("policy `{}`: {setting} cannot be {value}: it has to be {allowed}", policy.as_str())]
pub struct ConfigError {
    policy: Name,
    setting: &'static str,
    value: String,
    allowed: String,
}

impl ConfigError {
    pub(crate) fn new(
        policy: &Name,
        setting: &'static str,
        value: impl fmt::Debug,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            policy: policy.clone(),
            setting,
            value: format!("{value:?}"),
            allowed: allowed.into(),
        }
    }

    /// The name of the policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.policy.as_str()
    }

    /// The setting, as its setter is called.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// The value that was given.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is allowed instead.
    #[must_use]
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}
