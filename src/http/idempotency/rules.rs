//! Which requests are keyed, and what their responses mean.

use std::borrow::Cow;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode, request, response};

use super::super::not_executed::NotExecuted;
use super::problem::Problem;
use super::{Streaming, Tombstone, fingerprint, key};
use crate::Key;
use crate::idempotency::store::Mode;
use crate::idempotency::{Disposition, Fingerprint, Interruption, Policy, Recovery};
use crate::rejected::Reason;

type Scope = dyn Fn(&request::Parts, &[u8]) -> Option<Key> + Send + Sync;
type Select = dyn Fn(&request::Parts, &[u8]) -> Fingerprint + Send + Sync;
type Classify = dyn Fn(&response::Parts) -> Option<Disposition> + Send + Sync;
type Recover = dyn Fn(Interruption) -> Asked<Recovery<Response<Bytes>>> + Send + Sync;
type Rebuild = dyn Fn(Tombstone) -> Asked<Option<Response<Bytes>>> + Send + Sync;
/// The answer of a hook, to come.
type Asked<A> = Pin<Box<dyn Future<Output = A> + Send>>;

/// What frameworks answer before the handler runs: nothing was done.
const BEFORE_THE_HANDLER: [StatusCode; 11] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// What those that ask for another attempt say of this one: nothing.
const TRY_AGAIN: [StatusCode; 3] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_EARLY,
    StatusCode::TOO_MANY_REQUESTS,
];

/// The settings of the layer.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) policy: Arc<Policy>,
    pub(super) scope: Arc<Scope>,
    pub(super) methods: Vec<Method>,
    pub(super) optional: bool,
    pub(super) request_limit: usize,
    pub(super) fingerprint: Option<Arc<Select>>,
    pub(super) classify: Option<Arc<Classify>>,
    pub(super) recover: Option<Arc<Recover>>,
    pub(super) rebuild: Option<Arc<Rebuild>>,
    pub(super) store_server_errors: bool,
    pub(super) problem_types: Cow<'static, str>,
}

impl Rules {
    pub(super) fn applies_to(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// The key of a request; `None` for one that does not need any.
    pub(super) fn key(&self, head: &request::Parts) -> Result<Option<Key>, Problem> {
        let key = key::key(&head.headers);
        if self.optional && key == Ok(None) {
            return Ok(None);
        }
        // Who may not send a request is not told what is wrong with it.
        let scoped = (self.scope)(head, key.ok().flatten().unwrap_or_default()).ok_or(Problem::Unauthenticated)?;
        match key {
            Ok(Some(_)) => Ok(Some(scoped)),
            Ok(None) => Err(Problem::KeyMissing),
            Err(key::Malformed) => Err(Problem::KeyMalformed),
        }
    }

    pub(super) fn fingerprint(&self, head: &request::Parts, body: &[u8]) -> Fingerprint {
        match &self.fingerprint {
            Some(select) => select(head, body),
            None => fingerprint::of_request(head, body),
        }
    }

    /// What a response means for the record.
    pub(super) fn disposition(&self, head: &response::Parts) -> Disposition {
        if let Some(disposition) = self.classify.as_ref().and_then(|classify| classify(head)) {
            return disposition;
        }
        if head.extensions.get::<NotExecuted>().is_some() {
            return Disposition::Release;
        }
        let may_repeat = matches!(self.policy.mode, Mode::AtLeastOnce { .. });
        match head.status {
            status if BEFORE_THE_HANDLER.contains(&status) && may_repeat => Disposition::Release,
            status if TRY_AGAIN.contains(&status) => Disposition::Interrupt,
            status if status.as_u16() < 500 => Disposition::Store,
            status if status.is_server_error() && self.store_server_errors => Disposition::Store,
            _ => Disposition::Interrupt,
        }
    }

    /// What an error of the handler's means: something may have happened, unless a policy of ours refused.
    pub(super) fn disposition_of_error(error: &(dyn Error + 'static)) -> Disposition {
        match Reason::find(error) {
            Some(rejected) if !rejected.reached_inner() => Disposition::Release,
            _ => Disposition::Interrupt,
        }
    }
}

/// Whether a response is to reach the client while it is made: its body is not waited for.
pub(super) fn streams(head: &response::Parts) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    head.status.is_informational()
        || head.extensions.get::<Streaming>().is_some()
        || media_type.is_some_and(|media_type| media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_the_statuses_that_the_code_does() {
        let page = include_str!("../../../docs/idempotency_http.md");
        let list = |statuses: &[StatusCode]| {
            let statuses = statuses.iter().map(StatusCode::as_str);
            statuses.collect::<Vec<_>>().join(", ")
        };
        assert!(page.contains(&format!(
            "| {} | the key is free again | stored |",
            list(&BEFORE_THE_HANDLER)
        )));
        let again = list(&TRY_AGAIN);
        assert!(page.contains(&format!("| {again}, 500 and above | interrupted | interrupted |")));
    }
}
