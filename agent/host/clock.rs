//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, by the machine's clock.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since the epoch.
pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A time as RFC 3339 in UTC, to the second.
pub fn text(at: SystemTime) -> String {
    text_of(seconds(at))
}

/// Seconds since the epoch as RFC 3339 in UTC.
pub fn text_of(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day counted from 1970-01-01, by the calendar's cycle of 400 years: whatever a file claims the
/// time to be, the answer takes no longer.
fn civil(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 400 * 365 + 97;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970 + days / CYCLE * 400, days % CYCLE);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::asn1::Asn1Time;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_795_219_200, "2026-11-21T00:00:00Z"),
        ] {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(super::text(at), want, "{seconds}");
        }
    }

    #[test]
    fn the_last_second_there_is_has_a_text() {
        assert_eq!(super::text_of(u64::MAX), "584554051223-11-09T07:00:15Z");
    }

    proptest! {
        /// Up to the year 9999, where both formats end.
        #[test]
        fn openssl_reads_the_same_time_back(seconds in 0_u64..253_402_300_800) {
            let text = super::text(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
            let compact: String = text.chars().filter(char::is_ascii_alphanumeric).filter(|c| *c != 'T').collect();
            let read = Asn1Time::from_str_x509(&compact).or_else(|_| Asn1Time::from_str(&compact)).expect("a time");
            let start = Asn1Time::from_unix(0).expect("a time");
            let span = start.diff(&read).expect("a span");
            prop_assert_eq!(i64::from(span.days) * 86_400 + i64::from(span.secs), i64::try_from(seconds).expect("small"));
        }
    }
}
