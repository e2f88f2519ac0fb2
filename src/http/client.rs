//! The clients whose own types are known: `reqwest`, with a feature for each of its versions.

use std::error::Error;

use http::StatusCode;

/// What the error of a known client says.
#[cfg_attr(not(any(feature = "reqwest-0_12", feature = "reqwest-0_13")), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// A response was turned into an error.
    Status(StatusCode),
    /// There was no request to send.
    NotBuilt,
    /// The next attempt would end the same way.
    Final,
    /// Anything else.
    Passing,
}

/// Looks for the error of a known client in `error`.
#[cfg_attr(
    not(any(feature = "reqwest-0_12", feature = "reqwest-0_13")),
    allow(unused_variables)
)]
pub(crate) fn client_error(error: &(dyn Error + 'static)) -> Option<ClientError> {
    let found = None;
    #[cfg(feature = "reqwest-0_12")]
    let found = found.or_else(|| v0_12::client_error(error));
    #[cfg(feature = "reqwest-0_13")]
    let found = found.or_else(|| v0_13::client_error(error));
    found
}

#[cfg(any(feature = "reqwest-0_12", feature = "reqwest-0_13"))]
macro_rules! known_client {
    ($version:ident, $reqwest:ident) => {
        mod $version {
            use std::error::Error;

            use http::{HeaderMap, Method, StatusCode};
            use $reqwest::{Request, Response};

            use super::ClientError;
            use crate::http::head::{HttpRequest, HttpResponse, RequestHead, Sendable};
            use crate::http::idempotency_key::HasHeaders;
            use crate::rejected::find;

            pub(super) fn client_error(error: &(dyn Error + 'static)) -> Option<ClientError> {
                let error = find::<$reqwest::Error>(error)?;
                // A connection that is lost within the answer is a decode error too.
                let is_decode = || error.is_decode() && !error.is_timeout() && find::<hyper::Error>(error).is_none();
                Some(match error.status() {
                    Some(status) => ClientError::Status(status),
                    None if error.is_builder() => ClientError::NotBuilt,
                    None if error.is_redirect() || is_decode() => ClientError::Final,
                    None => ClientError::Passing,
                })
            }

            impl HttpRequest for Request {
                type Sent = Self;

                fn into_sent(self, _: usize) -> Self {
                    self
                }
            }

            /// Its body is in memory, or it is a stream and cannot be copied: the limit does not matter.
            impl Sendable for Request {
                fn head(&self) -> RequestHead<'_> {
                    RequestHead {
                        method: self.method(),
                        path: self.url().path(),
                        headers: self.headers(),
                    }
                }

                fn copy(&self) -> Option<Self> {
                    self.try_clone()
                }

                fn can_be_sent(&self) -> bool {
                    true
                }
            }

            #[cfg(any(feature = "circuit-breaker", feature = "bulkhead"))]
            impl crate::http::HasAuthority for Request {
                fn scheme(&self) -> Option<&str> {
                    Some(self.url().scheme())
                }

                fn host(&self) -> Option<&str> {
                    self.url().host_str()
                }

                fn port(&self) -> Option<u16> {
                    self.url().port()
                }
            }

            impl HasHeaders for Request {
                fn method(&self) -> &Method {
                    Request::method(self)
                }

                fn headers_mut(&mut self) -> &mut HeaderMap {
                    Request::headers_mut(self)
                }
            }

            impl HttpResponse for Response {
                fn status(&self) -> StatusCode {
                    Response::status(self)
                }

                fn headers(&self) -> &HeaderMap {
                    Response::headers(self)
                }
            }
        }
    };
}

#[cfg(feature = "reqwest-0_12")]
known_client!(v0_12, reqwest_0_12);
#[cfg(feature = "reqwest-0_13")]
known_client!(v0_13, reqwest);
