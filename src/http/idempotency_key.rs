//! The client's side of idempotency: one key for all attempts of a request.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tower_layer::Layer;
use tower_service::Service;

use crate::random::unique;

/// The header that names one operation, however often it is sent.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Gives each POST and PATCH an `Idempotency-Key`, so that [`retry`](super::retry) may send it again.
///
/// Its place is **outside** of the retry: all attempts of one request then carry one key, a random UUID. A request that
/// has a key keeps it: whoever starts over after a crash has to bring the key along.
///
/// It is for servers that know the header. Others ignore it, and a request that is sent to them twice is done twice.
///
/// # Examples
///
/// ```
/// use steadfast::http;
/// use tower::ServiceBuilder;
///
/// # fn main() -> Result<(), steadfast::ConfigError> {
/// let client = ServiceBuilder::new()
///     .layer(http::idempotency_key())
///     .layer(http::retry().build()?)
///     .service(reqwest::Client::new());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn idempotency_key() -> IdempotencyKeyLayer {
    IdempotencyKeyLayer(())
}

/// A layer that adds an `Idempotency-Key`; made by [`idempotency_key`].
#[derive(Clone, Debug)]
pub struct IdempotencyKeyLayer(());

/// A client whose POST and PATCH requests have an `Idempotency-Key`.
#[derive(Clone, Debug)]
pub struct IdempotencyKeyService<S> {
    inner: S,
}

/// A request whose headers can be changed: `http::Request`, and with its feature `reqwest::Request`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no HTTP request that can be given a header",
    label = "not `http::Request`, nor that of a client whose feature is enabled",
    note = "for `reqwest` enable the feature `reqwest-0_13` or `reqwest-0_12` of steadfast, the one of your version"
)]
pub trait HasHeaders {
    /// Its method.
    fn method(&self) -> &Method;

    /// Its headers.
    fn headers_mut(&mut self) -> &mut HeaderMap;
}

impl<B> HasHeaders for Request<B> {
    fn method(&self) -> &Method {
        Request::method(self)
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        Request::headers_mut(self)
    }
}

impl<S> Layer<S> for IdempotencyKeyLayer {
    type Service = IdempotencyKeyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyKeyService { inner }
    }
}

impl<S, Req> Service<Req> for IdempotencyKeyService<S>
where
    S: Service<Req>,
    Req: HasHeaders,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> S::Future {
        if matches!(*request.method(), Method::POST | Method::PATCH) {
            let headers = request.headers_mut();
            if let (false, Some(key)) = (headers.contains_key(IDEMPOTENCY_KEY), random_key(unique())) {
                // Without room for it the request has no key, and so is not retried.
                let _ = headers.try_insert(IDEMPOTENCY_KEY, key);
            }
        }
        self.inner.call(request)
    }
}

/// A UUID of version 4 (RFC 9562) from random bytes.
fn random_key(mut random: [u8; 16]) -> Option<HeaderValue> {
    random[6] = random[6] & 0x0F | 0x40;
    random[8] = random[8] & 0x3F | 0x80;
    let mut text = [b'-'; 36];
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 0x0F]);
    let places = (0..text.len()).filter(|at| !matches!(at, 8 | 13 | 18 | 23));
    for (at, digit) in places.zip(digits) {
        text[at] = b"0123456789abcdef"[usize::from(digit)];
    }
    HeaderValue::from_bytes(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_uuid_of_version_four() {
        let key = |byte| random_key([byte; 16]).expect("it is a header value");
        assert_eq!(key(0x00), "00000000-0000-4000-8000-000000000000");
        assert_eq!(key(0xFF), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let counted = std::array::from_fn(|at| u8::try_from(at * 17).expect("a byte"));
        assert_eq!(
            random_key(counted).expect("it is a header value"),
            "00112233-4455-4677-8899-aabbccddeeff"
        );
    }
}
