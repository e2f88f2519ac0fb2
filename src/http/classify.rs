//! What a response means, by its head.

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::client::{ClientError, client_error};
use super::head::HttpResponse;
use super::retry_after::retry_after;
use crate::{ByError, Classify, ExchangeErrors, Verdict};

/// Judges HTTP responses by status, and reads their `Retry-After`.
///
/// | status | verdict |
/// |---|---|
/// | 429, 503 | `Overloaded` |
/// | 408, 500, 502, 504 | `Transient` |
/// | other 5xx | `Permanent` |
/// | the rest | `Success`: what is wrong with a 404 is the request |
///
/// Errors are judged by `C`. Those of `reqwest` (with its feature) are known: one that could not build the request,
/// decode the response or follow the redirects is `Permanent`, one made by `error_for_status` is judged as its status.
///
/// # Examples
///
/// ```
/// use http::{Response, StatusCode};
/// use steadfast::{Classify, Verdict, http::ByStatus};
///
/// let judge = ByStatus::new().treat(StatusCode::CONFLICT, Verdict::TRANSIENT);
/// let mut response = Response::new(());
/// *response.status_mut() = StatusCode::CONFLICT;
/// assert_eq!(judge.classify(Ok::<_, &std::io::Error>(&response)), Verdict::TRANSIENT);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ByStatus<C = ByError> {
    exceptions: Vec<(StatusCode, Verdict)>,
    errors: C,
}

impl ByStatus {
    /// Judges errors by [`ByError`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<C> ByStatus<C> {
    /// Judges errors by `errors`.
    pub fn with_errors(errors: C) -> Self {
        Self {
            exceptions: Vec::new(),
            errors,
        }
    }

    /// Judges `status` as `verdict`. Where that is one that is retried and names no time, `Retry-After` does.
    #[must_use]
    pub fn treat(mut self, status: StatusCode, verdict: Verdict) -> Self {
        self.exceptions.retain(|(known, _)| *known != status);
        self.exceptions.push((status, verdict));
        self
    }

    fn judge(&self, status: StatusCode, headers: Option<&HeaderMap>) -> Verdict {
        let exception = self.exceptions.iter().find(|(known, _)| *known == status);
        let verdict = exception.map_or_else(|| by_status(status), |(_, verdict)| *verdict);
        let hint = || headers.and_then(retry_after);
        match verdict {
            Verdict::Overloaded { retry_after: None } => Verdict::Overloaded { retry_after: hint() },
            Verdict::Transient { retry_after: None } => Verdict::Transient { retry_after: hint() },
            decided => decided,
        }
    }
}

impl<C, D> ExchangeErrors<D> for ByStatus<C> {
    type With = ByStatus<D>;

    fn exchange_errors(self, errors: D) -> ByStatus<D> {
        ByStatus {
            exceptions: self.exceptions,
            errors,
        }
    }
}

fn by_status(status: StatusCode) -> Verdict {
    match status.as_u16() {
        429 | 503 => Verdict::OVERLOADED,
        408 | 500 | 502 | 504 => Verdict::TRANSIENT,
        500..=599 => Verdict::Permanent,
        _ => Verdict::Success,
    }
}

impl<T, E, C> Classify<T, E> for ByStatus<C>
where
    T: HttpResponse,
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(response) => self.judge(response.status(), Some(response.headers())),
            Err(error) => match self.errors.as_error(error).and_then(client_error) {
                Some(ClientError::Status(status)) => self.judge(status, None),
                Some(ClientError::Final) => Verdict::Permanent,
                Some(ClientError::NotConnected | ClientError::Passing) => Verdict::TRANSIENT,
                None => self.errors.classify(result),
            },
        }
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.errors.as_error(error)
    }
}

/// Judges gRPC responses by the `grpc-status` in their head.
///
/// | status | verdict |
/// |---|---|
/// | 8 resource exhausted | `Overloaded` |
/// | 14 unavailable, 4 deadline exceeded, 10 aborted | `Transient` |
/// | 2 unknown, 13 internal, 15 data loss | `Permanent` |
/// | 1 cancelled | `Ignored` |
/// | the rest | `Success`: what is wrong is the request |
///
/// An HTTP status other than 200 comes from something in between, and is judged as [`ByStatus`] does. A status that is
/// sent in the trailers, after the body, is not seen: that is where a streaming response has it. A server that fails
/// at once sends it in the head. Its `grpc-retry-pushback-ms` (gRFC A6) is followed as `Retry-After` is; a negative
/// one forbids the retry.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByGrpcStatus<C = ByError> {
    errors: C,
}

impl ByGrpcStatus {
    /// Judges errors by [`ByError`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<C> ByGrpcStatus<C> {
    /// Judges errors by `errors`.
    pub fn with_errors(errors: C) -> Self {
        Self { errors }
    }
}

impl<T, E, C> Classify<T, E> for ByGrpcStatus<C>
where
    T: HttpResponse,
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(response) if response.status() != StatusCode::OK => {
                ByStatus::with_errors(()).judge(response.status(), Some(response.headers()))
            }
            Ok(response) => by_grpc_status(response.headers()),
            Err(_) => self.errors.classify(result),
        }
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.errors.as_error(error)
    }
}

impl<C, D> ExchangeErrors<D> for ByGrpcStatus<C> {
    type With = ByGrpcStatus<D>;

    fn exchange_errors(self, errors: D) -> ByGrpcStatus<D> {
        ByGrpcStatus { errors }
    }
}

fn by_grpc_status(headers: &HeaderMap) -> Verdict {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let pushback = number("grpc-retry-pushback-ms");
    let retry_after = pushback
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis);
    let forbidden = pushback.is_some() && retry_after.is_none();
    match number("grpc-status") {
        Some(8 | 14 | 4 | 10) if forbidden => Verdict::Permanent,
        Some(8) => Verdict::Overloaded { retry_after },
        Some(14 | 4 | 10) => Verdict::Transient { retry_after },
        Some(2 | 13 | 15) => Verdict::Permanent,
        Some(1) => Verdict::Ignored,
        _ => Verdict::Success,
    }
}
