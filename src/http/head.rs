//! The heads of requests and responses, whichever client they belong to.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;

use super::body::ReplayBody;

/// What the rules of a retry see of a request.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The method.
    #[must_use]
    pub fn method(self) -> &'a Method {
        self.method
    }

    /// The path of the URI; of a gRPC call `/package.Service/Method`.
    #[must_use]
    pub fn path(self) -> &'a str {
        self.path
    }

    /// The headers.
    #[must_use]
    pub fn headers(self) -> &'a HeaderMap {
        self.headers
    }
}

impl fmt::Debug for RequestHead<'_> {
    /// Without the headers, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A request that [`retry`](super::retry) can keep: `http::Request`, and with its feature `reqwest::Request`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no HTTP request that can be kept",
    label = "not `http::Request`, nor that of a client whose feature is enabled",
    note = "for `reqwest` enable the feature `reqwest-0_13` or `reqwest-0_12` of steadfast, the one of your version"
)]
pub trait HttpRequest {
    /// What is sent.
    type Sent: Sendable;

    /// Makes the request ready to be kept, its body up to `body_limit` bytes.
    fn into_sent(self, body_limit: usize) -> Self::Sent;
}

/// A request on its way, which can be copied while its body is known.
pub trait Sendable: Sized {
    /// Its head.
    fn head(&self) -> RequestHead<'_>;

    /// A copy, if the body can be sent again as far as is known.
    fn copy(&self) -> Option<Self>;

    /// Whether a copy that was kept still has its whole body.
    fn can_be_sent(&self) -> bool;
}

impl<B> HttpRequest for Request<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    type Sent = Request<ReplayBody<B>>;

    fn into_sent(self, body_limit: usize) -> Self::Sent {
        self.map(|body| ReplayBody::new(body, body_limit))
    }
}

impl<B> Sendable for Request<ReplayBody<B>> {
    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method(),
            path: self.uri().path(),
            headers: self.headers(),
        }
    }

    fn copy(&self) -> Option<Self> {
        let body = self.body().copy()?;
        let mut copy = Request::new(body);
        copy.method_mut().clone_from(self.method());
        copy.uri_mut().clone_from(self.uri());
        *copy.version_mut() = self.version();
        copy.headers_mut().clone_from(self.headers());
        copy.extensions_mut().clone_from(self.extensions());
        Some(copy)
    }

    fn can_be_sent(&self) -> bool {
        self.body().can_be_sent()
    }
}

/// A response whose head can be judged: `http::Response`, and with its feature `reqwest::Response`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no HTTP response that can be judged by its status",
    label = "not `http::Response`, nor that of a client whose feature is enabled",
    note = "for `reqwest` enable the feature `reqwest-0_13` or `reqwest-0_12` of steadfast, the one of your version",
    note = "where the operation reads the body as well: `error_for_status()?` in it, and `.any_response()` in the builder"
)]
pub trait HttpResponse {
    /// Its status.
    fn status(&self) -> StatusCode;

    /// Its headers.
    fn headers(&self) -> &HeaderMap;
}

impl<B> HttpResponse for Response<B> {
    fn status(&self) -> StatusCode {
        Response::status(self)
    }

    fn headers(&self) -> &HeaderMap {
        Response::headers(self)
    }
}
