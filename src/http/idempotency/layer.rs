//! The layer, and its settings.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, request, response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ResponseBody;
use super::future::{ResponseFuture, perform};
use super::once::encode_whole;
use super::problem::DEFAULT_PROBLEM_TYPES;
use super::rules::Rules;
use super::tombstone::Tombstone;
use crate::idempotency::store::Resolved;
use crate::idempotency::{Disposition, Fingerprint, Idempotency, Interruption, Recovery};
use crate::storage::StorageError;
use crate::{Key, KeyId};

/// The longest request body, in bytes: it is in memory until the handler has it.
pub const DEFAULT_REQUEST_LIMIT: usize = 1024 * 1024;

/// One effect per `Idempotency-Key`: a layer for HTTP servers.
///
/// `scope` says whose key it is, by the head of the request: the tenant, the user, the account. Two scopes never meet,
/// whatever keys they send. Where it finds nobody, the request is refused with 401.
///
/// See the [module](super) for what it does, for its place among other layers, and for an example.
pub fn idempotency<D, F, S>(policy: &Idempotency<D>, scope: F) -> IdempotencyLayer
where
    F: Fn(&request::Parts) -> Option<S> + Send + Sync + 'static,
    S: AsRef<[u8]>,
{
    IdempotencyLayer {
        rules: Arc::new(Rules {
            policy: Arc::clone(&policy.policy),
            scope: Arc::new(move |head, key| Some(Key::new(scope(head)?, key))),
            methods: vec![Method::POST, Method::PATCH],
            optional: false,
            request_limit: DEFAULT_REQUEST_LIMIT,
            fingerprint: None,
            classify: None,
            recover: None,
            rebuild: None,
            store_server_errors: false,
            problem_types: Cow::Borrowed(DEFAULT_PROBLEM_TYPES),
        }),
    }
}

/// The layer; made by [`http::idempotency`](idempotency()).
#[derive(Clone)]
#[must_use]
pub struct IdempotencyLayer {
    pub(super) rules: Arc<Rules>,
}

impl IdempotencyLayer {
    fn with(mut self, set: impl FnOnce(&mut Rules)) -> Self {
        set(Arc::make_mut(&mut self.rules));
        self
    }

    /// Which methods are under a key; the requests of others pass. Default: POST and PATCH.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with(|rules| rules.methods = methods.into_iter().collect())
    }

    /// Lets a request without the header pass. Default: it is refused with 400.
    pub fn optional(self) -> Self {
        self.with(|rules| rules.optional = true)
    }

    /// The longest request body in bytes; a longer one is refused with 413. Default: 1 MiB.
    pub fn request_limit(self, bytes: usize) -> Self {
        self.with(|rules| rules.request_limit = bytes)
    }

    /// What tells two requests under one key apart. Default: method, path, query, content type and body, byte for byte.
    ///
    /// For clients that write the same request in another way when they repeat it: another order of fields, a multipart
    /// boundary.
    pub fn fingerprint(self, select: impl Fn(&request::Parts, &[u8]) -> Fingerprint + Send + Sync + 'static) -> Self {
        self.with(|rules| rules.fingerprint = Some(Arc::new(select)))
    }

    /// Says what a response means for the record of its key; where it says `None`, the status does.
    pub fn classify(self, classify: impl Fn(&response::Parts) -> Option<Disposition> + Send + Sync + 'static) -> Self {
        self.with(|rules| rules.classify = Some(Arc::new(classify)))
    }

    /// Finds out what became of a request that was interrupted, before a client hears that nobody knows: for at most once.
    ///
    /// The response that it has found is stored, and replayed from now on. Of several requests in this process one asks,
    /// and the others hear what came of it.
    pub fn recover<Ask>(self, hook: impl Fn(Interruption) -> Ask + Send + Sync + 'static) -> Self
    where
        Ask: Future<Output = Recovery<Response<Bytes>>> + Send + 'static,
    {
        self.with(|rules| rules.recover = Some(Arc::new(move |interruption| Box::pin(hook(interruption)))))
    }

    /// Makes a response whose replay was not stored, before a client hears so; `None` leaves it at that.
    ///
    /// The handler is not called again. What `hook` makes is marked as a replay, and not stored: each repetition has it
    /// made, so it should read and not act. A handler that is to have it found keeps its result under
    /// [`Attempt::derived_key`](crate::idempotency::Attempt::derived_key), which the [`Tombstone`] has as well.
    pub fn rebuild<Made>(self, hook: impl Fn(Tombstone) -> Made + Send + Sync + 'static) -> Self
    where
        Made: Future<Output = Option<Response<Bytes>>> + Send + 'static,
    {
        self.with(|rules| rules.rebuild = Some(Arc::new(move |tombstone| Box::pin(hook(tombstone)))))
    }

    /// Stores and replays responses of 500 and above. Default: they interrupt.
    pub fn store_server_errors(self) -> Self {
        self.with(|rules| rules.store_server_errors = true)
    }

    /// What the `type` of a problem begins with. Default: [`DEFAULT_PROBLEM_TYPES`].
    pub fn problem_types(self, prefix: impl Into<Cow<'static, str>>) -> Self {
        self.with(|rules| rules.problem_types = prefix.into())
    }
}

impl IdempotencyLayer {
    /// An interrupted request was carried out, with this response: it is replayed from now on. The id is the one that
    /// [`list_interrupted`](Idempotency::list_interrupted) and the logs show.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Refused`](crate::storage::StorageErrorKind::Refused) when the response is too large or cannot
    /// be encrypted.
    pub async fn resolve_completed(&self, id: KeyId, response: Response<Bytes>) -> Result<Resolved, StorageError> {
        let outcome = encode_whole(&self.rules, id, &response);
        self.rules.policy.resolve_completed(id, outcome).await
    }

    /// What was resolved has another response, or was no response: as [`correct`](Idempotency::correct) of the policy.
    ///
    /// # Errors
    ///
    /// As for [`resolve_completed`](Self::resolve_completed).
    pub async fn correct(&self, id: KeyId, response: Response<Bytes>) -> Result<Resolved, StorageError> {
        let outcome = encode_whole(&self.rules, id, &response);
        self.rules.policy.correct(id, outcome).await
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            inner,
            rules: Arc::clone(&self.rules),
        }
    }
}

/// A server under an [`IdempotencyLayer`].
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Error + Send + 'static, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Send> + From<Bytes> + Send + 'static,
    R: Body<Data = Bytes, Error: Send> + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.rules.applies_to(request.method()) {
            return ResponseFuture::passed(self.inner.call(request));
        }
        let (head, body) = request.into_parts();
        let key = match self.rules.key(&head) {
            Ok(Some(key)) => Ok(key),
            Ok(None) => return ResponseFuture::passed(self.inner.call(Request::from_parts(head, body))),
            Err(problem) => Err(problem),
        };
        // The handle goes on with a fresh clone: it is not to keep what it got for a call that is not made by it.
        let fresh = self.inner.clone();
        let readied = mem::replace(&mut self.inner, fresh);
        match key {
            Ok(key) => ResponseFuture::keyed(perform(Arc::clone(&self.rules), readied, key, head, body)),
            Err(problem) => ResponseFuture::keyed(ready(Ok(problem.response(&self.rules.problem_types)))),
        }
    }
}

impl fmt::Debug for IdempotencyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer").field("rules", &self.rules).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("policy", &self.policy.name)
            .field("methods", &self.methods)
            .field("optional", &self.optional)
            .field("request_limit", &self.request_limit)
            .field("store_server_errors", &self.store_server_errors)
            .finish_non_exhaustive()
    }
}
