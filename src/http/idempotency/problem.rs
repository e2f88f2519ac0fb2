//! What a client is told when its request is refused: `application/problem+json`, RFC 9457.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body;
use serde::Serialize;

use super::super::not_executed::NotExecuted;
use super::super::retry_after::whole_seconds;
use super::body::ResponseBody;
use crate::{Rejected, RejectedKind};

/// What the types of problems begin with: the page that explains them.
pub const DEFAULT_PROBLEM_TYPES: &str = "https://docs.rs/steadfast/latest/steadfast/http/idempotency/#";

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    KeyMissing,
    KeyMalformed,
    BodyIncomplete,
    Unauthenticated,
    BodyTooLarge,
    InProgress { retry_after: Duration },
    OutcomeUnknown,
    KeyCancelled,
    NotReplayable,
    KeyReused,
    StoreUnavailable { retry_after: Duration },
    NotStorable,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl From<&Rejected> for Problem {
    fn from(rejected: &Rejected) -> Self {
        let retry_after = rejected.retry_after().unwrap_or_default();
        match rejected.kind() {
            RejectedKind::InProgress => Self::InProgress { retry_after },
            RejectedKind::OutcomeUnknown => Self::OutcomeUnknown,
            RejectedKind::KeyCancelled => Self::KeyCancelled,
            RejectedKind::NotReplayable => Self::NotReplayable,
            RejectedKind::KeyMismatch | RejectedKind::NoFingerprint => Self::KeyReused,
            RejectedKind::NotStorable => Self::NotStorable,
            RejectedKind::StoreUnavailable
            | RejectedKind::TimedOut
            | RejectedKind::CircuitOpen
            | RejectedKind::BulkheadFull
            | RejectedKind::QueueTimedOut => Self::StoreUnavailable { retry_after },
        }
    }
}

impl Problem {
    /// Status, last part of the type, title, and what the client can do.
    fn text(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::KeyMissing => (
                StatusCode::BAD_REQUEST,
                "key-missing",
                "The request has no Idempotency-Key",
                "Send one that names this operation, the same in every repetition of it.",
            ),
            Self::KeyMalformed => (
                StatusCode::BAD_REQUEST,
                "key-malformed",
                "The Idempotency-Key is malformed",
                "Send the header once, with 1 to 255 printable ASCII characters, without spaces, quotes and backslashes.",
            ),
            Self::BodyIncomplete => (
                StatusCode::BAD_REQUEST,
                "body-incomplete",
                "The request body ended early",
                "Nothing was done. Send the whole request with the same key.",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "The request belongs to nobody",
                "Keys belong to whoever sends them: authenticate first.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The request body is too large",
                "Nothing was done.",
            ),
            Self::InProgress { .. } => (
                StatusCode::CONFLICT,
                "in-progress",
                "The operation is in progress",
                "Send the same request again later, to get its outcome.",
            ),
            Self::OutcomeUnknown => (
                StatusCode::CONFLICT,
                "outcome-unknown",
                "The outcome of the operation is unknown",
                "It was interrupted and may have had its effect. It is not run again under this key.",
            ),
            Self::KeyCancelled => (
                StatusCode::CONFLICT,
                "key-cancelled",
                "The Idempotency-Key was cancelled",
                "Nothing will be done under it any more.",
            ),
            Self::NotReplayable => (
                StatusCode::CONFLICT,
                "outcome-not-replayable",
                "The outcome of the operation cannot be replayed",
                "It was carried out, and is not run again under this key; its response was not kept.",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The Idempotency-Key belongs to another request",
                "A new request needs a new key.",
            ),
            Self::StoreUnavailable { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store-unavailable",
                "The operation cannot be started at the moment",
                "Nothing was done. Send the same request again later.",
            ),
            Self::NotStorable => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "outcome-not-storable",
                "The outcome of the operation cannot be stored",
                "It was carried out.",
            ),
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::InProgress { retry_after } | Self::StoreUnavailable { retry_after } => Some(retry_after),
            _ => None,
        }
    }

    /// Whether the handler may have been called for this very request.
    fn reached_handler(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::NotStorable)
    }

    pub(super) fn response<B: Body>(self, types: &str) -> Response<ResponseBody<B>> {
        let (status, slug, title, detail) = self.text();
        let document = Document {
            r#type: &format!("{types}{slug}"),
            title,
            status: status.as_u16(),
            detail,
        };
        // Four strings and a number always have a JSON form; without it the status still says what matters.
        let document = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(ResponseBody::from(Bytes::from(document)));
        *response.status_mut() = status;
        if !self.reached_handler() {
            // For a layer around this one, with keys of its own.
            response.extensions_mut().insert(NotExecuted);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(retry_after) = self.retry_after() {
            headers.insert(RETRY_AFTER, whole_seconds(retry_after).max(1).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn each_problem_has_its_status_and_its_type_and_those_that_may_pass_say_when() {
        let wait = Duration::from_millis(1_500);
        for (problem, status, slug, retry_after) in [
            (Problem::KeyMissing, 400, "key-missing", None),
            (Problem::KeyMalformed, 400, "key-malformed", None),
            (Problem::BodyIncomplete, 400, "body-incomplete", None),
            (Problem::Unauthenticated, 401, "unauthenticated", None),
            (Problem::InProgress { retry_after: wait }, 409, "in-progress", Some("2")),
            (Problem::OutcomeUnknown, 409, "outcome-unknown", None),
            (Problem::KeyCancelled, 409, "key-cancelled", None),
            (Problem::NotReplayable, 409, "outcome-not-replayable", None),
            (Problem::BodyTooLarge, 413, "body-too-large", None),
            (Problem::KeyReused, 422, "key-reused", None),
            (Problem::NotStorable, 500, "outcome-not-storable", None),
            (
                Problem::StoreUnavailable {
                    retry_after: Duration::ZERO,
                },
                503,
                "store-unavailable",
                Some("1"),
            ),
        ] {
            // The type of a problem is an address on that page.
            let page = include_str!("../../../docs/idempotency_http.md");
            assert!(
                page.contains(&format!("| {status} | <span id=\"{slug}\">`{slug}`</span> |")),
                "{slug}"
            );
            let response: Response<ResponseBody<Full<Bytes>>> = problem.response("urn:");
            assert_eq!(response.status(), status, "{slug}");
            let header = response.headers().get(RETRY_AFTER);
            assert_eq!(header.map(|value| value.to_str().unwrap()), retry_after, "{slug}");
            let (chunks, _) = response.body().known().unwrap();
            let document: serde_json::Value = serde_json::from_slice(&chunks[0]).unwrap();
            assert_eq!(document["type"], format!("urn:{slug}"));
            assert_eq!(document["status"], status);
        }
    }

    #[test]
    fn what_the_handler_never_saw_says_so() {
        let says_so = |problem: Problem| {
            let response: Response<ResponseBody<Full<Bytes>>> = problem.response("");
            response.extensions().get::<NotExecuted>().is_some()
        };
        assert!(says_so(Problem::KeyReused) && says_so(Problem::NotReplayable));
        assert!(!says_so(Problem::OutcomeUnknown) && !says_so(Problem::NotStorable));
    }
}
