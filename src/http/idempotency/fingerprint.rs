//! What tells two HTTP requests under one key apart.

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use crate::idempotency::Fingerprint;

/// The fingerprint of method, path, query, content type and body, byte for byte.
pub(super) fn of_request(head: &Parts, body: &[u8]) -> Fingerprint {
    let content_type = head.headers.get(CONTENT_TYPE);
    Fingerprint::of_parts(&[
        head.method.as_str().as_bytes(),
        head.uri.path().as_bytes(),
        head.uri.query().unwrap_or_default().as_bytes(),
        content_type.map(HeaderValue::as_bytes).unwrap_or_default(),
        body,
    ])
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn fingerprint(method: &str, uri: &str, content_type: &str, body: &str) -> Fingerprint {
        let request = Request::builder().method(method).uri(uri);
        let (head, ()) = request
            .header(CONTENT_TYPE, content_type)
            .body(())
            .unwrap()
            .into_parts();
        of_request(&head, body.as_bytes())
    }

    #[test]
    fn every_part_of_a_request_counts_and_its_host_and_other_headers_do_not() {
        let one = fingerprint("POST", "/pay?a=1", "text/plain", "10");
        assert_eq!(one, fingerprint("POST", "http://host/pay?a=1", "text/plain", "10"));
        for other in [
            fingerprint("PATCH", "/pay?a=1", "text/plain", "10"),
            fingerprint("POST", "/pays?a=1", "text/plain", "10"),
            fingerprint("POST", "/pay?a=2", "text/plain", "10"),
            fingerprint("POST", "/pay?a=1", "text/html", "10"),
            fingerprint("POST", "/pay?a=1", "text/plain", "11"),
            fingerprint("POST", "/pay", "a=1text/plain", "10"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn the_fingerprint_of_a_request_is_the_published_one() {
        let bytes = *fingerprint("POST", "/pay?a=1", "text/plain", "10").as_bytes();
        let mut hex = String::new();
        crate::storage::write_hex(&bytes, &mut hex).unwrap();
        assert_eq!(
            hex,
            "0139539fe2ef98769f9db869dacd29349e0ff517084123a3a0bd54882dec6a603f"
        );
    }
}
