//! What a response means, by its head.

use std::error::Error;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::client::{ClientError, client_error};
use super::head::HttpResponse;
use super::retry_after::retry_after;
#[cfg(feature = "fallback")]
use crate::fallback::{Fallback, FallbackBuilder};
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
/// Errors are judged by `C`. Those of `reqwest` (with its feature) are known: one that could not build the request says
/// nothing of the server and is `Ignored`, one that could not decode the response or follow the redirects is
/// `Permanent`, one made by `error_for_status` is judged as its status.
///
/// # Examples
///
/// ```
/// use http::{Response, StatusCode};
/// use steadfast::{Classify, Verdict, http::ByStatus};
///
/// let judge = ByStatus::default().treat(StatusCode::CONFLICT, Verdict::TRANSIENT);
/// let mut response = Response::new(());
/// *response.status_mut() = StatusCode::CONFLICT;
/// assert_eq!(judge.classify(Ok::<_, &std::io::Error>(&response)), Verdict::TRANSIENT);
/// ```
#[derive(Clone, Debug)]
pub struct ByStatus<C = ByError> {
    exceptions: Vec<(StatusCode, Verdict)>,
    errors: C,
}

/// Judges errors by [`ByError`]. Not for any other `C`: which one is meant could not be inferred.
impl Default for ByStatus {
    fn default() -> Self {
        Self::with_errors(ByError)
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

    fn judge_error<T, E>(&self, error: &E) -> Verdict
    where
        C: Classify<T, E>,
    {
        match self.errors.as_error(error).and_then(client_error) {
            Some(ClientError::Status(status)) => self.judge(status, None),
            Some(ClientError::NotBuilt) => Verdict::Ignored,
            Some(ClientError::Final) => Verdict::Permanent,
            Some(ClientError::Passing) => Verdict::TRANSIENT,
            None => self.errors.classify(Err(error)),
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

/// A fallback for HTTP: it answers for errors, and for responses that are failures [by status](ByStatus) too.
///
/// # Examples
///
/// ```
/// use ::http::{Response, StatusCode};
/// use steadfast::http;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let fallback = http::fallback().from_outcome(|_| async { Ok(Response::new("yesterday's news")) });
/// let mut overloaded = Response::new("");
/// *overloaded.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
/// let answer = fallback.call(async { Ok::<_, std::io::Error>(overloaded) }).await?;
/// assert_eq!(answer.body(), &"yesterday's news");
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "fallback")]
pub fn fallback() -> FallbackBuilder<ByStatus> {
    Fallback::builder().classifier(ByStatus::default())
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
            Err(error) => self.judge_error(error),
        }
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.errors.as_error(error)
    }
}

/// Judges errors as [`ByStatus`] does, and any `Ok` as a success: for calls that read the body as well, and whose answer is
/// no longer a response.
///
/// A status is judged where it is an error of the call: `reqwest`'s `error_for_status()?`. That does not keep the headers:
/// a `Retry-After` is not seen.
///
/// # Examples
///
/// ```no_run
/// use steadfast::{Rejected, http};
///
/// #[derive(Debug, thiserror::Error)]
/// enum ApiError {
///     #[error("http: {0}")]
///     Http(#[from] reqwest::Error),
///     #[error(transparent)]
///     Rejected(#[from] Rejected),
/// }
///
/// async fn books(client: &reqwest::Client) -> Result<String, ApiError> {
///     let response = client.get("http://localhost:8080/books").send().await?;
///     Ok(response.error_for_status()?.text().await?)
/// }
///
/// # async fn example(client: reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let retry = http::retry().any_response().build()?;
/// let breaker = http::circuit_breaker("catalogue").any_response().build()?;
/// let books = retry.call(|| breaker.call(books(&client))).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ByErrorStatus<C = ByError> {
    by_status: ByStatus<C>,
}

/// Judges errors by [`ByError`], where they carry no status.
impl Default for ByErrorStatus {
    fn default() -> Self {
        Self::over(ByStatus::default())
    }
}

impl<C> ByErrorStatus<C> {
    /// Judges errors by `by_status`.
    pub fn over(by_status: ByStatus<C>) -> Self {
        Self { by_status }
    }
}

impl<T, E, C> Classify<T, E> for ByErrorStatus<C>
where
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(error) => self.by_status.judge_error(error),
        }
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.by_status.errors.as_error(error)
    }
}

impl<C, D> ExchangeErrors<D> for ByErrorStatus<C> {
    type With = ByErrorStatus<D>;

    fn exchange_errors(self, errors: D) -> ByErrorStatus<D> {
        ByErrorStatus::over(self.by_status.exchange_errors(errors))
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
/// at once sends it in the head. Its `grpc-retry-pushback-ms` (gRFC A6) is followed as `Retry-After` is; one that is
/// negative or cannot be read forbids the retry.
#[derive(Clone, Debug)]
pub struct ByGrpcStatus<C = ByError> {
    by_status: ByStatus<C>,
}

/// Judges errors by [`ByError`].
impl Default for ByGrpcStatus {
    fn default() -> Self {
        Self::over(ByStatus::default())
    }
}

impl<C> ByGrpcStatus<C> {
    /// Judges errors, and every HTTP status but 200, by `by_status`.
    pub fn over(by_status: ByStatus<C>) -> Self {
        Self { by_status }
    }
}

impl<T, E, C> Classify<T, E> for ByGrpcStatus<C>
where
    T: HttpResponse,
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(response) if response.status() == StatusCode::OK => by_grpc_status(response.headers()),
            result => self.by_status.classify(result),
        }
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.by_status.as_error(error)
    }
}

impl<C, D> ExchangeErrors<D> for ByGrpcStatus<C> {
    type With = ByGrpcStatus<D>;

    fn exchange_errors(self, errors: D) -> ByGrpcStatus<D> {
        ByGrpcStatus::over(self.by_status.exchange_errors(errors))
    }
}

const PUSHBACK: &str = "grpc-retry-pushback-ms";

fn by_grpc_status(headers: &HeaderMap) -> Verdict {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let retry_after = number(PUSHBACK)
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis);
    let forbidden = headers.contains_key(PUSHBACK) && retry_after.is_none();
    match number("grpc-status") {
        Some(8 | 14 | 4 | 10) if forbidden => Verdict::Permanent,
        Some(8) => Verdict::Overloaded { retry_after },
        Some(14 | 4 | 10) => Verdict::Transient { retry_after },
        Some(2 | 13 | 15) => Verdict::Permanent,
        Some(1) => Verdict::Ignored,
        _ => Verdict::Success,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::Response;

    use super::*;
    use crate::{BoxedErrors, Rejected};

    type BoxError = Box<dyn Error + Send + Sync>;

    const SECOND: Duration = Duration::from_secs(1);

    fn response(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        response
    }

    fn judge(judge: &impl Classify<Response<()>, io::Error>, response: &Response<()>) -> Verdict {
        judge.classify(Ok(response))
    }

    fn grpc(headers: &[(&'static str, &str)]) -> Verdict {
        judge(&ByGrpcStatus::default(), &response(200, headers))
    }

    #[test]
    fn every_status_has_its_verdict() {
        for status in 100..=599 {
            let expected = match status {
                429 | 503 => Verdict::OVERLOADED,
                408 | 500 | 502 | 504 => Verdict::TRANSIENT,
                501 | 505..=599 => Verdict::Permanent,
                _ => Verdict::Success,
            };
            assert_eq!(
                judge(&ByStatus::default(), &response(status, &[])),
                expected,
                "{status}"
            );
        }
        for status in [600, 999] {
            assert_eq!(judge(&ByStatus::default(), &response(status, &[])), Verdict::Success);
        }
    }

    #[test]
    fn what_is_retried_follows_retry_after_and_the_rest_does_not() {
        for status in 100..=599 {
            let plain = judge(&ByStatus::default(), &response(status, &[]));
            let hinted = judge(&ByStatus::default(), &response(status, &[("retry-after", "1")]));
            let expected = match plain {
                Verdict::Transient { .. } => Verdict::Transient {
                    retry_after: Some(SECOND),
                },
                Verdict::Overloaded { .. } => Verdict::Overloaded {
                    retry_after: Some(SECOND),
                },
                decided => decided,
            };
            assert_eq!(hinted, expected, "{status}");
        }
        let nonsense = response(503, &[("retry-after", "soon")]);
        assert_eq!(judge(&ByStatus::default(), &nonsense), Verdict::OVERLOADED);
    }

    #[test]
    fn an_exception_holds_for_its_status_and_the_last_one_counts() {
        let by_status = ByStatus::default()
            .treat(StatusCode::CONFLICT, Verdict::Permanent)
            .treat(StatusCode::CONFLICT, Verdict::TRANSIENT)
            .treat(StatusCode::SERVICE_UNAVAILABLE, Verdict::Success);
        let hint = [("retry-after", "1")];
        assert_eq!(judge(&by_status, &response(409, &[])), Verdict::TRANSIENT);
        assert_eq!(judge(&by_status, &response(409, &hint)).retry_after(), Some(SECOND));
        assert_eq!(judge(&by_status, &response(503, &hint)), Verdict::Success);
        assert_eq!(judge(&by_status, &response(500, &[])), Verdict::TRANSIENT);
    }

    #[test]
    fn an_exception_that_names_a_time_keeps_it() {
        let verdict = Verdict::Overloaded {
            retry_after: Some(5 * SECOND),
        };
        let by_status = ByStatus::default().treat(StatusCode::CONFLICT, verdict);
        assert_eq!(judge(&by_status, &response(409, &[("retry-after", "1")])), verdict);
    }

    #[test]
    fn errors_are_judged_by_the_inner_classifier_and_exceptions_survive_its_exchange() {
        let judges = ByStatus::default().treat(StatusCode::CONFLICT, Verdict::TRANSIENT);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(judges.classify(Err::<&Response<()>, _>(&denied)), Verdict::Permanent);

        let judges = judges.exchange_errors(BoxedErrors);
        let (conflict, boxed) = (response(409, &[]), BoxError::from(denied));
        assert_eq!(judges.classify(Ok::<_, &BoxError>(&conflict)), Verdict::TRANSIENT);
        assert_eq!(judges.classify(Err::<&Response<()>, _>(&boxed)), Verdict::Permanent);
        let rejected: BoxError = Rejected::bulkhead_full("x").into();
        let seen = Classify::<Response<()>, _>::as_error(&judges, &rejected).unwrap();
        assert!(Rejected::find(seen).is_some());
    }

    #[test]
    fn every_grpc_status_has_its_verdict() {
        for (code, expected) in [
            (0, Verdict::Success),
            (1, Verdict::Ignored),
            (2, Verdict::Permanent),
            (3, Verdict::Success),
            (4, Verdict::TRANSIENT),
            (5, Verdict::Success),
            (6, Verdict::Success),
            (7, Verdict::Success),
            (8, Verdict::OVERLOADED),
            (9, Verdict::Success),
            (10, Verdict::TRANSIENT),
            (11, Verdict::Success),
            (12, Verdict::Success),
            (13, Verdict::Permanent),
            (14, Verdict::TRANSIENT),
            (15, Verdict::Permanent),
            (16, Verdict::Success),
            (17, Verdict::Success),
            (-1, Verdict::Success),
        ] {
            assert_eq!(grpc(&[("grpc-status", &code.to_string())]), expected, "{code}");
        }
        assert_eq!(grpc(&[]), Verdict::Success);
        for nonsense in ["", "unavailable", "14.0", "99999999999999999999"] {
            assert_eq!(grpc(&[("grpc-status", nonsense)]), Verdict::Success, "{nonsense:?}");
        }
    }

    #[test]
    fn an_http_status_in_front_of_grpc_is_judged_as_one() {
        let unavailable = [("grpc-status", "14"), ("retry-after", "1")];
        for (status, expected) in [
            (
                503,
                Verdict::Overloaded {
                    retry_after: Some(SECOND),
                },
            ),
            (
                502,
                Verdict::Transient {
                    retry_after: Some(SECOND),
                },
            ),
            (404, Verdict::Success),
            (501, Verdict::Permanent),
        ] {
            assert_eq!(
                judge(&ByGrpcStatus::default(), &response(status, &unavailable)),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn grpc_keeps_what_was_set_for_the_statuses_of_http() {
        let judge = ByGrpcStatus::over(ByStatus::default().treat(StatusCode::IM_A_TEAPOT, Verdict::OVERLOADED));
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        assert_eq!(judge.classify(Ok::<_, &io::Error>(&response)), Verdict::OVERLOADED);
    }

    #[test]
    fn grpc_pushback_names_the_time() {
        let retry_after = Some(Duration::from_millis(250));
        let pushed = |status| grpc(&[("grpc-status", status), ("grpc-retry-pushback-ms", "250")]);
        for status in ["4", "10", "14"] {
            assert_eq!(pushed(status), Verdict::Transient { retry_after }, "{status}");
        }
        assert_eq!(pushed("8"), Verdict::Overloaded { retry_after });
        assert_eq!(pushed("0"), Verdict::Success);
        assert_eq!(pushed("13"), Verdict::Permanent);
        assert_eq!(pushed("1"), Verdict::Ignored);
    }

    #[test]
    fn grpc_pushback_that_is_negative_or_cannot_be_read_forbids_the_retry() {
        for value in ["-1", "-9223372036854775808", "", "soon", "1.5", "99999999999999999999"] {
            for status in ["4", "8", "10", "14"] {
                let verdict = grpc(&[("grpc-status", status), ("grpc-retry-pushback-ms", value)]);
                assert_eq!(verdict, Verdict::Permanent, "{status}, {value:?}");
            }
            let fine = grpc(&[("grpc-status", "0"), ("grpc-retry-pushback-ms", value)]);
            assert_eq!(fine, Verdict::Success);
        }
    }
}
