//! What a finished attempt means, and who decides it.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::rejected::find;

/// What one finished attempt means, the same for every pattern.
///
/// | verdict | retry | circuit breaker | fallback | retry budget |
/// |---|---|---|---|---|
/// | `Success` | returns it | a success | no | earns |
/// | `Transient` | may retry | a failure | yes | a retry costs 1 |
/// | `Overloaded` | may retry | a failure | yes | a retry costs 2 |
/// | `Permanent` | returns it | a failure | yes | earns |
/// | `Ignored` | returns it | not counted | only if it is a [`Rejected`](crate::Rejected) | not counted |
///
/// A caller's mistake (HTTP 404, a failed validation) is `Success`: the dependency did its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The dependency did its job.
    Success,
    /// It failed, and may well succeed when tried again, after `retry_after` where the server named a time.
    Transient {
        /// How long from now a retry has to wait at least.
        retry_after: Option<Duration>,
    },
    /// It is overloaded: a retry has to wait, and weighs double on the retry budget.
    Overloaded {
        /// How long from now a retry has to wait at least.
        retry_after: Option<Duration>,
    },
    /// It failed, and will fail again.
    Permanent,
    /// The attempt says nothing about the dependency.
    Ignored,
}

impl Verdict {
    /// Transient, without a time.
    pub const TRANSIENT: Self = Self::Transient { retry_after: None };
    /// Overloaded, without a time.
    pub const OVERLOADED: Self = Self::Overloaded { retry_after: None };

    /// Whether another attempt makes sense.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Overloaded { .. })
    }

    /// Whether the dependency failed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Overloaded { .. } | Self::Permanent)
    }

    /// How long a retry has to wait at least, where that is known.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after } | Self::Overloaded { retry_after } => retry_after,
            Self::Success | Self::Permanent | Self::Ignored => None,
        }
    }

    /// The verdict as a label: `success`, `transient`, `overloaded`, `permanent` or `ignored`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient { .. } => "transient",
            Self::Overloaded { .. } => "overloaded",
            Self::Permanent => "permanent",
            Self::Ignored => "ignored",
        }
    }

    /// Has a retry wait for `floor` where the verdict names no time of its own.
    pub(crate) fn not_before(self, floor: Option<Duration>) -> Self {
        match self {
            Self::Transient { retry_after: None } => Self::Transient { retry_after: floor },
            Self::Overloaded { retry_after: None } => Self::Overloaded { retry_after: floor },
            decided => decided,
        }
    }
}

/// What is known about the effect of something that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "saga",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Effect {
    /// It has not happened, and will not.
    None,
    /// It may have happened, or may still: a lost connection says nothing about the request that it carried.
    Maybe,
}

/// Decides what a result means.
///
/// It sees the whole result, because a 503 response is an `Ok`. A [`Rejected`](crate::Rejected) inside the error is
/// judged before it is asked (a timeout is `Transient`, every other rejection `Ignored`), unless the policy was built
/// with `judge_rejections()`.
///
/// Most users never implement it: the builders take closures, and [`ByError`] is the default.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot judge a `Result<{T}, {E}>`",
    label = "the error type `{E}` needs another judgement",
    note = "errors that implement `std::error::Error` need nothing",
    note = "`anyhow::Error` and `Box<dyn Error + Send + Sync>`: add `.boxed_errors()` to the builder",
    note = "any other type: add `.any_error()` to the builder"
)]
pub trait Classify<T, E> {
    /// What `result` means.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;

    /// The error as a standard one, to find a rejection in it and to show it in events.
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        let _ = error;
        None
    }
}

/// Judges errors that implement [`std::error::Error`]: the default.
///
/// `Ok` is `Success`. In an `Err` the first `io::Error` is judged by its kind: `InvalidInput`, `InvalidData`,
/// `NotFound`, `PermissionDenied`, `AlreadyExists` and `Unsupported` are `Permanent`. Everything else is `Transient`.
///
/// An `io::Error` in a variant with `#[error(transparent)]` is not found: its type is hidden from the sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByError;

/// Judges `Box<dyn Error + Send + Sync>` and `anyhow::Error`, as [`ByError`] does what they hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoxedErrors;

/// Judges errors of any type: every `Err` is `Transient`.
///
/// It cannot look inside, so it finds no rejection either.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyError;

/// Small enough to be inlined where the type of `error` is known: an `io::Error` is then judged without a search.
#[inline]
fn by_io_kind(error: &(dyn Error + 'static)) -> Verdict {
    match error.downcast_ref::<io::Error>() {
        Some(error) => of_io_kind(error.kind()),
        None => by_nested_io_kind(error),
    }
}

fn by_nested_io_kind(error: &(dyn Error + 'static)) -> Verdict {
    find::<io::Error>(error).map_or(Verdict::TRANSIENT, |error| of_io_kind(error.kind()))
}

#[inline]
fn of_io_kind(kind: io::ErrorKind) -> Verdict {
    match kind {
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidData
        | io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::Unsupported => Verdict::Permanent,
        _ => Verdict::TRANSIENT,
    }
}

// The error to show is the one above, of what was asked for, and not that of a bound down here.
#[diagnostic::do_not_recommend]
impl<T, E: Error + 'static> Classify<T, E> for ByError {
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(error) => by_io_kind(error),
        }
    }

    #[inline]
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        Some(error)
    }
}

#[diagnostic::do_not_recommend]
impl<T, E: AsRef<dyn Error + Send + Sync>> Classify<T, E> for BoxedErrors {
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(error) => by_io_kind(error.as_ref()),
        }
    }

    #[inline]
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        Some(error.as_ref())
    }
}

impl<T, E> Classify<T, E> for AnyError {
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(_) => Verdict::TRANSIENT,
        }
    }
}

/// A classifier whose judgement of errors can be exchanged for `D`, while that of responses stays.
pub trait ExchangeErrors<D> {
    /// The classifier with `D`.
    type With;

    /// Judges errors by `errors`.
    fn exchange_errors(self, errors: D) -> Self::With;
}

macro_rules! judge_errors_only {
    ($($classifier:ident),+) => { $(
        impl<D> ExchangeErrors<D> for $classifier {
            type With = D;

            fn exchange_errors(self, errors: D) -> D {
                errors
            }
        }
    )+ };
}

judge_errors_only!(ByError, BoxedErrors, AnyError);
