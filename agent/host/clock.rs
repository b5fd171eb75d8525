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

/// A time as [`text`] writes it; nothing if it is none, or is before 1970.
pub fn parse(text: &str) -> Option<SystemTime> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok())?
    };
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    // The days before that year in the calendar's cycle of 400 years, then those before that month.
    let before = |year: u64| year * 365 + year / 4 - year / 100 + year / 400;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = before(year.checked_sub(1)?).checked_sub(before(1969))?;
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let earlier: u64 = months.iter().take(usize::try_from(month.checked_sub(1)?).ok()?).sum();
    let seconds = (days + earlier + day.checked_sub(1)?) * 86_400 + hour * 3600 + minute * 60 + second;
    // What is no date, or not written so, comes out as another one.
    (text_of(seconds) == text).then(|| UNIX_EPOCH + std::time::Duration::from_secs(seconds))
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
    fn only_what_is_written_so_is_a_time() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T12:00:00",
            "2026-11-22T12:00:00+01:00",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22 12:00:00Z",
            "1969-12-31T23:59:59Z",
            "0000-00-00T00:00:00Z",
            "2026-11-22T12:00:0éZ",
        ] {
            assert_eq!(super::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_second_there_is_has_a_text() {
        assert_eq!(super::text_of(u64::MAX), "584554051223-11-09T07:00:15Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0_u64..253_402_300_800) {
            let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            prop_assert_eq!(super::parse(&super::text(at)), Some(at));
        }

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
