//! Which host a request is for, as a key.

use std::io::Write;
use std::str;

use http::Request;

use crate::keyed::KeyOf;

/// A request that says whom it is for: `http::Request`, and with its feature `reqwest::Request`.
pub trait HasAuthority {
    /// The scheme of its URI.
    fn scheme(&self) -> Option<&str>;

    /// The host of its URI.
    fn host(&self) -> Option<&str>;

    /// The port of its URI, if it is written there.
    fn port(&self) -> Option<u16>;
}

impl<B> HasAuthority for Request<B> {
    fn scheme(&self) -> Option<&str> {
        self.uri().scheme_str()
    }

    fn host(&self) -> Option<&str> {
        self.uri().host()
    }

    fn port(&self) -> Option<u16> {
        self.uri().port_u16()
    }
}

/// Host and port of a request's URI, one text for all ways to write them: the key of [`layer_by_authority`].
///
/// The host is in lower case, and the port of `http`, `https`, `ws` and `wss` is there even where the URI leaves it out:
/// `HTTP://API.example/x` is `api.example:80`. User and password are not part of it. A URI without a host, as a server
/// sees it, is the empty text: all such requests have one key. The `Host` header is not looked at, as the client can write
/// anything there.
///
/// [`layer_by_authority`]: https://docs.rs/steadfast/latest/steadfast/circuit_breaker/struct.CircuitBreakers.html#method.layer_by_authority
///
/// # Examples
///
/// ```
/// let request = http::Request::get("https://API.example/orders").body(())?;
/// assert_eq!(steadfast::http::authority(&request), "api.example:443");
/// # Ok::<(), http::Error>(())
/// ```
#[must_use]
pub fn authority(request: &impl HasAuthority) -> String {
    ByAuthority.with_key(request, str::to_owned)
}

/// The key function of layers by authority.
#[derive(Clone, Copy, Debug)]
pub struct ByAuthority;

/// The longest name of DNS with brackets, a colon and a port. Longer ones are allocated.
const ON_STACK: usize = 253 + 2 + 6;

impl<Req: HasAuthority> KeyOf<Req> for ByAuthority {
    type Key = str;

    #[inline]
    fn with_key<R>(&self, request: &Req, look_up: impl FnOnce(&str) -> R) -> R {
        let Some(host) = request.host() else {
            return look_up("");
        };
        let port = request.port().or_else(|| default_port(request.scheme()?));
        let mut buffer = [0; ON_STACK];
        match write(&mut buffer, host, port) {
            Some(text) => look_up(text),
            None => look_up(&text(&host.to_ascii_lowercase(), port)),
        }
    }
}

fn text(host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The same in `buffer`, in lower case; `None` where it does not fit.
fn write<'b>(buffer: &'b mut [u8; ON_STACK], host: &str, port: Option<u16>) -> Option<&'b str> {
    let mut rest = &mut buffer[..];
    rest.write_all(host.as_bytes()).ok()?;
    if let Some(port) = port {
        write!(rest, ":{port}").ok()?;
    }
    let written = ON_STACK - rest.len();
    let text = str::from_utf8_mut(buffer.get_mut(..written)?).ok()?;
    text.make_ascii_lowercase();
    Some(text)
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("http") || is("ws") {
        Some(80)
    } else if is("https") || is("wss") {
        Some(443)
    } else {
        None
    }
}
