//! The `Retry-After` header.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How long the server asks its client to wait, by the `Retry-After` header of RFC 9110, section 10.2.3.
///
/// Seconds or an HTTP date. A date is taken relative to the response's own `Date`, so that the two clocks need not
/// agree, and to the system's clock where there is none; a date that has passed is zero. More seconds than fit are
/// `u64::MAX` of them. What cannot be read is `None`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, header::RETRY_AFTER};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(RETRY_AFTER, "120".parse().unwrap());
/// assert_eq!(steadfast::http::retry_after(&headers), Some(Duration::from_secs(120)));
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    #[allow(clippy::disallowed_methods, reason = "HTTP dates are about the wall clock")]
    parse(value, date, SystemTime::now)
}

fn parse(value: &str, date: Option<&str>, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let from = date
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(now);
    Some(until.duration_since(from).unwrap_or_default())
}

/// Rounded up: a client that comes back a moment too early is refused again.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Fri, 20 Nov 2026 12:00:00 GMT";

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).unwrap()
    }

    #[test]
    fn seconds() {
        assert_eq!(parse("0", None, noon), Some(Duration::ZERO));
        assert_eq!(parse(" 120 ", None, noon), Some(Duration::from_secs(120)));
        assert_eq!(
            parse("99999999999999999999999", None, noon),
            Some(Duration::from_secs(u64::MAX))
        );
    }

    #[test]
    fn a_date_in_each_of_the_three_formats() {
        for date in [
            "Fri, 20 Nov 2026 12:00:07 GMT",
            "Friday, 20-Nov-26 12:00:07 GMT",
            "Fri Nov 20 12:00:07 2026",
        ] {
            assert_eq!(parse(date, None, noon), Some(Duration::from_secs(7)), "{date}");
        }
    }

    #[test]
    fn a_date_is_relative_to_the_servers_own() {
        let skewed = || noon() + Duration::from_secs(3600);
        assert_eq!(
            parse("Fri, 20 Nov 2026 12:00:07 GMT", Some(NOON), skewed),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            parse("Fri, 20 Nov 2026 13:00:07 GMT", Some("nonsense"), skewed),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn a_date_that_has_passed_is_zero() {
        assert_eq!(parse("Fri, 20 Nov 2026 11:59:59 GMT", None, noon), Some(Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for value in [
            "",
            " ",
            "-1",
            "+3",
            "1.5",
            "soon",
            "120s",
            "Fri, 99 Nov 2026 12:00:07 GMT",
        ] {
            assert_eq!(parse(value, None, noon), None, "{value:?}");
        }
    }
}
