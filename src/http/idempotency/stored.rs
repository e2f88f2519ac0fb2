//! How a response is stored.
//!
//! ```text
//! byte 0         version: 1
//! byte 1         1 with the body, 0 without it: a tombstone
//! bytes 2, 3     status
//! fields         the headers
//! fields         the trailers
//! the rest       the body
//!
//! fields: their number, then for each the length of its name, the name, the length of its value, the value
//! ```
//!
//! Numbers are big-endian; the status has two bytes, all others four.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;

use super::body::ResponseBody;

const VERSION: u8 = 1;
const TOMBSTONE: u8 = 0;
const WHOLE: u8 = 1;

/// Says of a response that it was given before.
pub(super) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers that are about the connection and not about the response (RFC 9110, section 7.6.1), about the time at which
/// it was sent, or about the session of whoever was answered first.
const NOT_STORED: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    header::SET_COOKIE,
    IDEMPOTENT_REPLAYED,
];

/// A response as it was stored.
pub(super) struct Stored {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` for a tombstone.
    pub(super) body: Option<(Bytes, Option<HeaderMap>)>,
}

/// A response without its body.
pub(super) struct Head(Vec<u8>);

impl Head {
    /// What comes before the trailers.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        let mut head = Self::bare(status);
        let named: Vec<HeaderName> = named_by_connection(headers).collect();
        let stored = headers
            .iter()
            .filter(|(name, _)| !NOT_STORED.contains(name) && !named.contains(name));
        write_fields(&mut head.0, stored);
        head
    }

    /// The same without headers: what is left of one that is too long.
    pub(super) fn without_headers(status: StatusCode) -> Self {
        let mut head = Self::bare(status);
        write_fields(&mut head.0, [].into_iter());
        head
    }

    fn bare(status: StatusCode) -> Self {
        let mut head = vec![VERSION, TOMBSTONE];
        head.extend(status.as_u16().to_be_bytes());
        Self(head)
    }

    /// What is left of `limit` bytes for the body, if it has no trailers.
    pub(super) fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.0.len() + size_of::<u32>())
    }

    /// Writes a tombstone to the end of `outcome`.
    pub(super) fn write(&self, outcome: &mut Vec<u8>) {
        outcome.extend(&self.0);
        write_fields(outcome, [].into_iter());
    }

    /// Writes the whole response to the end of `outcome`.
    pub(super) fn write_with(&self, chunks: &VecDeque<Bytes>, trailers: Option<&HeaderMap>, outcome: &mut Vec<u8>) {
        let length: usize = chunks.iter().map(Bytes::len).sum();
        outcome.reserve(self.0.len() + size_of::<u32>() + length);
        outcome.extend([VERSION, WHOLE]);
        outcome.extend(&self.0[2..]);
        match trailers {
            Some(trailers) => write_fields(outcome, trailers.iter()),
            None => write_fields(outcome, [].into_iter()),
        }
        for chunk in chunks {
            outcome.extend_from_slice(chunk);
        }
    }
}

impl Stored {
    /// Reads what [`Head`] wrote; `None` for anything else.
    pub(super) fn read(mut outcome: Bytes) -> Option<Self> {
        let start = take(&mut outcome, 4)?;
        let [version, kind, status @ ..] = *start.first_chunk::<4>()?;
        let status = StatusCode::from_u16(u16::from_be_bytes(status)).ok()?;
        let headers = read_fields(&mut outcome)?;
        let trailers = read_fields(&mut outcome)?;
        let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        let body = match (version, kind) {
            (VERSION, TOMBSTONE) => None,
            (VERSION, WHOLE) => Some((outcome, trailers)),
            _ => return None,
        };
        Some(Self { status, headers, body })
    }

    /// The response, marked as a replay, with the body that was stored.
    pub(super) fn replay<B: Body>(
        status: StatusCode,
        headers: HeaderMap,
        (body, trailers): (Bytes, Option<HeaderMap>),
    ) -> Response<ResponseBody<B>> {
        let mut response = Response::new(ResponseBody::whole(body, trailers));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        mark_replayed(response.headers_mut());
        response
    }
}

/// Says in `headers` that this response was given before.
pub(super) fn mark_replayed(headers: &mut HeaderMap) {
    // Without room for it the response is as good without.
    let _ = headers.try_insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
}

/// The headers that `Connection` names are about the connection as well.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    let values = headers.get_all(header::CONNECTION).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

fn write_fields<'a>(outcome: &mut Vec<u8>, fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) {
    let start = outcome.len();
    outcome.extend(0_u32.to_be_bytes());
    let mut count = 0_u32;
    for (name, value) in fields {
        count += 1;
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            outcome.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            outcome.extend(part);
        }
    }
    outcome[start..start + size_of::<u32>()].copy_from_slice(&count.to_be_bytes());
}

fn read_fields(outcome: &mut Bytes) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for _ in 0..number(outcome)? {
        let name = HeaderName::from_bytes(&part(outcome)?).ok()?;
        let value = HeaderValue::from_maybe_shared(part(outcome)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

fn part(outcome: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(number(outcome)?).ok()?;
    take(outcome, length)
}

fn number(outcome: &mut Bytes) -> Option<u32> {
    let bytes = take(outcome, size_of::<u32>())?;
    Some(u32::from_be_bytes(bytes.as_ref().try_into().ok()?))
}

fn take(outcome: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= outcome.len()).then(|| outcome.split_to(length))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    type Replay = Response<ResponseBody<Full<Bytes>>>;

    fn chunks(body: &[&'static [u8]]) -> VecDeque<Bytes> {
        body.iter().map(|chunk| Bytes::from_static(chunk)).collect()
    }

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let fields = fields.iter();
        let fields =
            fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()));
        fields.collect()
    }

    fn whole(head: &Head, body: &VecDeque<Bytes>, trailers: Option<&HeaderMap>) -> Vec<u8> {
        let mut outcome = Vec::new();
        head.write_with(body, trailers, &mut outcome);
        outcome
    }

    fn tombstone(head: &Head) -> Vec<u8> {
        let mut outcome = Vec::new();
        head.write(&mut outcome);
        outcome
    }

    #[test]
    fn a_stored_response_is_the_published_one() {
        let mut fields = headers(&[("etag", b"\xE9")]);
        fields.append("link", HeaderValue::from_static("<a>"));
        fields.append("link", HeaderValue::from_static("<b>"));
        let trailers = headers(&[("digest", b"x")]);
        let head = Head::of(StatusCode::CREATED, &fields);
        let outcome = whole(&head, &chunks(&[b"he", b"llo"]), Some(&trailers));
        let published = b"\x01\x01\x00\xC9\
            \x00\x00\x00\x03\
            \x00\x00\x00\x04etag\x00\x00\x00\x01\xE9\
            \x00\x00\x00\x04link\x00\x00\x00\x03<a>\
            \x00\x00\x00\x04link\x00\x00\x00\x03<b>\
            \x00\x00\x00\x01\
            \x00\x00\x00\x06digest\x00\x00\x00\x01x\
            hello";
        assert_eq!(outcome, published);
        let stored = Stored::read(Bytes::from(outcome)).unwrap();
        assert_eq!((stored.status, &stored.headers), (StatusCode::CREATED, &fields));
        assert_eq!(stored.body, Some((Bytes::from_static(b"hello"), Some(trailers))));
    }

    #[test]
    fn a_tombstone_is_the_published_one_and_has_no_replay() {
        let outcome = tombstone(&Head::of(StatusCode::OK, &headers(&[("etag", b"1")])));
        let published = b"\x01\x00\x00\xC8\
            \x00\x00\x00\x01\x00\x00\x00\x04etag\x00\x00\x00\x011\
            \x00\x00\x00\x00";
        assert_eq!(outcome, published);
        let stored = Stored::read(Bytes::from(outcome)).unwrap();
        assert_eq!(stored.headers.len(), 1);
        assert!(stored.body.is_none());
        assert_eq!(
            tombstone(&Head::without_headers(StatusCode::OK)),
            b"\x01\x00\x00\xC8\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn what_belongs_to_the_connection_the_time_or_the_session_is_not_stored() {
        let fields = headers(&[
            ("connection", b"X-Hop, close,"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("proxy-connection", b"close"),
            ("proxy-authenticate", b"Basic"),
            ("te", b"trailers"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"h2c"),
            ("date", b"Fri, 20 Nov 2026 12:00:00 GMT"),
            ("set-cookie", b"session=secret"),
            ("idempotent-replayed", b"no"),
            ("content-type", b"text/plain"),
        ]);
        let outcome = whole(&Head::of(StatusCode::OK, &fields), &chunks(&[]), None);
        let stored = Stored::read(Bytes::from(outcome)).unwrap();
        let replay: Replay = Stored::replay(stored.status, stored.headers, stored.body.unwrap());
        let expected = headers(&[("content-type", b"text/plain"), ("idempotent-replayed", b"true")]);
        assert_eq!(replay.headers(), &expected);
    }

    #[test]
    fn the_room_for_a_body_is_exactly_what_fits() {
        let head = Head::of(StatusCode::OK, &headers(&[("etag", b"1")]));
        let room = head.room(100);
        let body = [Bytes::from(vec![7; room])].into_iter().collect();
        assert_eq!(whole(&head, &body, None).len(), 100);
        assert_eq!(head.room(3), 0);
    }

    #[test]
    fn nothing_that_was_cut_off_is_read() {
        let outcome = whole(
            &Head::of(StatusCode::OK, &headers(&[("etag", b"1")])),
            &chunks(&[]),
            None,
        );
        for end in 0..outcome.len() {
            assert!(Stored::read(Bytes::copy_from_slice(&outcome[..end])).is_none(), "{end}");
        }
        for (at, wrong) in [(0, 2), (1, 2), (2, 0xFF), (12, b' ')] {
            let mut outcome = outcome.clone();
            outcome[at] = wrong;
            assert!(Stored::read(Bytes::from(outcome)).is_none(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let with_a_version = [[1, 1, 0, 200].as_slice(), &bytes].concat();
            for bytes in [bytes, with_a_version] {
                let _ = Stored::read(Bytes::from(bytes));
            }
        }
    }
}
