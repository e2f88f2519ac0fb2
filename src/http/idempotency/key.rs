//! What an `Idempotency-Key` has to look like.

use http::HeaderMap;

use super::super::idempotency_key::IDEMPOTENCY_KEY;

/// The longest key: 255 characters.
const MAX_LEN: usize = 255;

/// The header is there, and is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The key of a request, if it has one.
///
/// Quoted as the IETF draft has it, or bare as most clients send it: the same key. A second header is no second key but
/// a doubt about the first. Spaces, quotes and backslashes have no place in a key, so that nobody has to unescape one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&[u8]>, Malformed> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let ([b'"', key @ .., b'"'] | key) = value.as_bytes();
    let is_allowed = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if values.next().is_none() && (1..=MAX_LEN).contains(&key.len()) && key.iter().all(is_allowed) {
        Ok(Some(key))
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        values.map(|value| (IDEMPOTENCY_KEY, value)).collect()
    }

    #[test]
    fn a_key_is_the_same_with_quotes_and_without() {
        for key_of in [b"order-1234;,~!".as_slice(), b"\"order-1234;,~!\""] {
            assert_eq!(key(&headers(&[key_of])), Ok(Some(b"order-1234;,~!".as_slice())));
        }
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_key_has_1_to_255_characters_not_counting_quotes() {
        let longest = [b'k'; 255];
        let quoted = [b"\"", longest.as_slice(), b"\""].concat();
        assert_eq!(key(&headers(&[&longest])), Ok(Some(longest.as_slice())));
        assert_eq!(key(&headers(&[&quoted])), Ok(Some(longest.as_slice())));
        assert_eq!(key(&headers(&[&[b'k'; 256]])), Err(Malformed));
        assert_eq!(key(&headers(&[b""])), Err(Malformed));
        assert_eq!(key(&headers(&[b"\"\""])), Err(Malformed));
    }

    #[test]
    fn only_printable_ascii_without_space_quote_and_backslash_is_a_key() {
        for byte in (0..=u8::MAX).filter(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7F)) {
            let is_key = (0x21..=0x7E).contains(&byte) && byte != b'"' && byte != b'\\';
            assert_eq!(key(&headers(&[&[b'a', byte, b'b']])).is_ok(), is_key, "{byte:#x}");
        }
        for odd in [b"\"".as_slice(), b"\"a", b"a\"", b"\"a\"b\""] {
            assert_eq!(key(&headers(&[odd])), Err(Malformed), "{odd:?}");
        }
    }

    #[test]
    fn two_headers_are_no_key_even_if_they_agree() {
        assert_eq!(key(&headers(&[b"a", b"a"])), Err(Malformed));
    }
}
