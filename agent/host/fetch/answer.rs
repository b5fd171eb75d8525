//! What a mirror says of the bytes that it sends. Pure: foreign text in, what it means out.

use std::time::{Duration, SystemTime};

/// The longest validator that is worth keeping: servers' own are far shorter.
const LONGEST_VALIDATOR: usize = 200;

/// Which part of a file an answer holds (`Content-Range`, RFC 9110 section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Its first byte.
    pub from: u64,
    /// The size of the whole file, if the server says it.
    pub total: Option<u64>,
}

/// Reads `bytes 5-9/10`; nothing if it is no such thing.
pub fn content_range(text: &str) -> Option<ContentRange> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, last) = range.trim().split_once('-')?;
    let (from, last) = (number(from)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    // Asked for everything from a byte on, only an answer that goes to the end is one.
    let whole = total.is_none_or(|total| last.checked_add(1) == Some(total));
    (from <= last && whole).then_some(ContentRange { from, total })
}

/// For how long a server asks to be left alone: seconds, or until a date (RFC 9110 section 10.2.3).
pub fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match number(text) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        // A date that is over asks for nothing.
        None => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

/// What to name the file by in `If-Range`: its strong `ETag`, else its `Last-Modified` date.
pub fn validator<'a>(etag: Option<&'a str>, last_modified: Option<&'a str>) -> Option<&'a str> {
    let etag = etag.map(str::trim).filter(|etag| etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"'));
    let date = last_modified.map(str::trim).filter(|date| httpdate::parse_http_date(date).is_ok());
    etag.or(date).filter(|text| text.len() <= LONGEST_VALIDATOR && text.bytes().all(|b| (b' '..=b'~').contains(&b)))
}

/// Digits only: `u64::from_str` would take a sign too.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (text, want) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/1", Some((0, Some(1)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 5-8/10", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("items 5-9/10", None),
            ("bytes +5-9/10", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("bytes 0-18446744073709551616/*", None),
            ("", None),
        ] {
            assert_eq!(content_range(text).map(|range| (range.from, range.total)), want, "{text:?}");
        }
    }

    #[test]
    fn retry_afters() {
        let now = httpdate::parse_http_date("Fri, 20 Nov 2026 10:00:00 GMT").expect("a date");
        for (text, want) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Fri, 20 Nov 2026 10:01:30 GMT", Some(90)),
            ("Fri, 20 Nov 2026 09:00:00 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(retry_after(text, now).map(|time| time.as_secs()), want, "{text:?}");
        }
    }

    #[test]
    fn validators() {
        let date = "Fri, 20 Nov 2026 10:00:00 GMT";
        for (etag, modified, want) in [
            (Some("\"a\""), Some(date), Some("\"a\"")),
            (Some("W/\"a\""), Some(date), Some(date)),
            (Some("\""), None, None),
            (None, Some("yesterday"), None),
            (Some("\"\u{7f}\""), None, None),
        ] {
            assert_eq!(validator(etag, modified), want, "{etag:?} {modified:?}");
        }
    }
}
