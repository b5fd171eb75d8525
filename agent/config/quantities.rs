//! Amounts as people write them: a time, a rate, a number of things.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::values::{BadValue, refuse};

/// Declares an amount: text outside, checked when it is made. Its bounds and its text are still to be said, and what it
/// is, if that is more than one number.
macro_rules! amount {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($inner);

        amount!($name, $format);
    };
    ($name:ident, $format:literal) => {
        impl TryFrom<String> for $name {
            type Error = BadValue;
            fn try_from(text: String) -> Result<Self, BadValue> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // People write plain numbers here; the check hands both on as text.
                json_schema!({ "type": ["string", "integer"], "format": $format })
            }
        }
    };
}

/// The units in which people write an amount, the smallest first: what they write behind the number, and how many it is.
type Units = [(&'static str, u32); 3];

/// The number as it is written, and the unit behind it; nothing if that is none of these.
fn split<'t>(text: &'t str, units: &Units) -> Option<(&'t str, u32)> {
    units.iter().rev().find_map(|(unit, each)| Some((text.strip_suffix(unit)?, *each)))
}

/// Writes an amount in the largest unit of which it is a whole number.
fn write(f: &mut fmt::Formatter<'_>, amount: u64, units: &Units) -> fmt::Result {
    let [smallest, ..] = units;
    let whole = |(_, each): &&(&str, u32)| amount.is_multiple_of(u64::from(*each));
    let (unit, each) = units.iter().rev().find(whole).unwrap_or(smallest);
    write!(f, "{}{unit}", amount / u64::from(*each))
}

/// Declares a time between two numbers of seconds: an [`amount!`], and all that there is to it.
macro_rules! time {
    ($(#[$doc:meta])* $name:ident, $format:literal, $units:expr, $least:literal..=$most:literal, $wanted:literal) => {
        amount! {
            $(#[$doc])*
            $name(u32), $format
        }

        impl $name {
            const UNITS: Units = $units;

            /// The same as the standard library has it.
            pub const fn duration(self) -> Duration {
                Duration::from_secs(self.0 as u64)
            }
        }

        impl FromStr for $name {
            type Err = BadValue;
            fn from_str(text: &str) -> Result<Self, BadValue> {
                let Some((number, unit)) = split(text, &Self::UNITS) else {
                    let [(a, _), (b, _), (c, _)] = Self::UNITS;
                    return Err(refuse(text, $wanted, format!("it does not end with {a}, {b} or {c}")));
                };
                let Some(number) = digits(number) else {
                    return Err(refuse(text, $wanted, format!("{number:?} is no number")));
                };
                match number.checked_mul(unit.into()).and_then(|seconds| u32::try_from(seconds).ok()) {
                    Some(seconds @ $least..=$most) => Ok(Self(seconds)),
                    _ => Err(refuse(text, $wanted, format!("it is not between {} and {}", Self($least), Self($most)))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, self.0.into(), &Self::UNITS)
            }
        }
    };
}

time! {
    /// A time of 1 second to 24 hours: `45s`, `10m`, `2h`.
    Span, "span", [("s", 1), ("m", 60), ("h", 3600)], 1..=86_400, "a time such as 45s, 10m or 2h"
}
time! {
    /// How long something may be used: 10 minutes to 30 days, as `45m`, `24h` or `7d`.
    Life, "life", [("m", 60), ("h", 3600), ("d", 86_400)], 600..=2_592_000, "a time such as 45m, 24h or 7d"
}

impl Span {
    /// A span of the program's own.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds)
    }
}

amount! {
    /// Bytes per second, at least 1: `500`, `64k`, `2M` (thousands and millions).
    Rate(u64), "rate"
}

impl Rate {
    const UNITS: Units = [("", 1), ("k", 1_000), ("M", 1_000_000)];

    /// A rate of the program's own.
    pub const fn bytes_per_second(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes that makes in a time.
    pub fn over(self, time: Duration) -> u64 {
        self.0.saturating_mul(time.as_secs())
    }
}

impl FromStr for Rate {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a rate in bytes per second such as 500, 64k or 2M";
        let (number, unit) = split(text, &Self::UNITS).unwrap_or((text, 1));
        match digits(number).and_then(|n| n.checked_mul(unit.into())) {
            Some(0) => Err(refuse(text, WANTED, "nothing is slower")),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(refuse(text, WANTED, format!("{number:?} is no number"))),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &Self::UNITS)
    }
}

/// Declares a whole number between two: an [`amount!`], and all that there is to it.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, $range:pat, $wanted:literal) => {
        amount! {
            $(#[$doc])*
            $name($inner), $format
        }

        impl $name {
            /// A number of the program's own.
            pub const fn of(number: $inner) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = BadValue;
            fn from_str(text: &str) -> Result<Self, BadValue> {
                match digits(text).and_then(|n| <$inner>::try_from(n).ok()) {
                    Some(number @ $range) => Ok(Self(number)),
                    _ => Err(refuse(text, $wanted, "it is larger, 0, or no number")),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A TCP port: 1 to 65535.
    Port(u16), "port", 1.., "a port, from 1 to 65535"
}
number! {
    /// How many things are done at the same time: 1 to 16.
    Parallel(u8), "parallel", 1..=16, "a number from 1 to 16"
}
number! {
    /// How many are kept: 1 to 1000.
    Keep(u16), "keep", 1..=1000, "a number from 1 to 1000"
}

amount! {
    /// How often something is done, at the same times of every day: `30m`, `6h`, `24h`.
    Every(Span), "every"
}

impl Every {
    /// The shortest, in seconds.
    const SHORTEST: u32 = 300;

    /// Hours of the program's own.
    pub const fn hours(hours: u32) -> Self {
        Self(Span::from_secs(hours * 3600))
    }

    /// The time between two.
    pub const fn duration(self) -> Duration {
        self.0.duration()
    }

    /// The same as systemd writes it (systemd.time(7), calendar events).
    pub fn calendar(self) -> String {
        match self.0.0 {
            86_400 => "*-*-* 00:00:00".to_owned(),
            3600 => "*-*-* *:00:00".to_owned(),
            n if n % 3600 == 0 => format!("*-*-* 00/{}:00:00", n / 3600),
            n => format!("*-*-* *:00/{}:00", n / 60),
        }
    }
}

impl FromStr for Every {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a time that divides an hour or a day, such as 30m, 1h or 6h";
        let span: Span = text.parse()?;
        match span.0 {
            n if n < Self::SHORTEST => Err(refuse(text, WANTED, "it is less than 5m")),
            n if n % 60 == 0 && 3600 % n == 0 || n % 3600 == 0 && 86_400 % n == 0 => Ok(Self(span)),
            _ => Err(refuse(text, WANTED, "its times would not be the same every day")),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number without sign, which `u64::from_str` would take.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A resource limit as systemd writes it: a number, `soft:hard`, or `infinity` (systemd.exec(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    /// What a process gets.
    pub soft: u64,
    /// How far it may raise that itself. [`Limit::INFINITY`] is "no limit".
    pub hard: u64,
}

amount!(Limit, "limit");

impl Limit {
    /// "No limit", as systemd shows it over D-Bus and `RLIM_INFINITY` in the kernel.
    pub const INFINITY: u64 = u64::MAX;
}

impl FromStr for Limit {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Self, BadValue> {
        const WANTED: &str = "a limit: a number, soft:hard, or infinity";
        let one = |part: &str| match part {
            "infinity" => Ok(Limit::INFINITY),
            number => number.parse::<u64>().map_err(|_| refuse(text, WANTED, format!("{number:?} is no number"))),
        };
        let (soft, hard) = match text.split_once(':') {
            Some((soft, hard)) => (one(soft)?, one(hard)?),
            None => (one(text)?, one(text)?),
        };
        if soft > hard {
            return Err(refuse(text, WANTED, "the soft limit is above the hard one"));
        }
        Ok(Self { soft, hard })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |value: u64| if value == Self::INFINITY { "infinity".to_owned() } else { value.to_string() };
        if self.soft == self.hard {
            f.write_str(&one(self.soft))
        } else {
            write!(f, "{}:{}", one(self.soft), one(self.hard))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn amounts_read_back(seconds in 1_u32..=86_400, minutes in 10_u32..=43_200, bytes in 1_u64.., number in 1_u8..=16) {
            prop_assert_eq!(Span(seconds).to_string().parse(), Ok(Span(seconds)));
            prop_assert_eq!(Life(minutes * 60).to_string().parse(), Ok(Life(minutes * 60)));
            prop_assert_eq!(Rate(bytes).to_string().parse(), Ok(Rate(bytes)));
            prop_assert_eq!(Parallel(number).to_string().parse(), Ok(Parallel(number)));
            prop_assert_eq!(Keep(number.into()).to_string().parse(), Ok(Keep(number.into())));
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_what_is_wanted() {
        fn refusal<T: FromStr<Err = BadValue> + fmt::Debug>(text: &str) -> String {
            text.parse::<T>().expect_err(text).to_string()
        }
        for (told, text, why) in [
            (refusal::<Span>(""), "", "it does not end with s, m or h"),
            (refusal::<Span>("7d"), "7d", "it does not end with s, m or h"),
            (refusal::<Span>("-1s"), "-1s", "\"-1\" is no number"),
            (refusal::<Span>("0s"), "0s", "it is not between 1s and 24h"),
            (refusal::<Span>("1441m"), "1441m", "it is not between 1s and 24h"),
        ] {
            assert_eq!(told, format!("{text:?} is not a time such as 45s, 10m or 2h: {why}"));
        }
        for (told, text, why) in [
            (refusal::<Life>("600s"), "600s", "it does not end with m, h or d"),
            (refusal::<Life>("m"), "m", "\"\" is no number"),
            (refusal::<Life>("9m"), "9m", "it is not between 10m and 30d"),
            (refusal::<Life>("31d"), "31d", "it is not between 10m and 30d"),
            (refusal::<Life>("5124095576030431h"), "5124095576030431h", "it is not between 10m and 30d"),
        ] {
            assert_eq!(told, format!("{text:?} is not a time such as 45m, 24h or 7d: {why}"));
        }
        for (told, text, why) in [
            (refusal::<Rate>("0k"), "0k", "nothing is slower"),
            (refusal::<Rate>("1G"), "1G", "\"1G\" is no number"),
            (refusal::<Rate>("M"), "M", "\"\" is no number"),
            (refusal::<Rate>(""), "", "\"\" is no number"),
        ] {
            assert_eq!(told, format!("{text:?} is not a rate in bytes per second such as 500, 64k or 2M: {why}"));
        }
        assert_eq!("2M".parse(), Ok(Rate(2_000_000)));
        assert_eq!(Rate(64_000).to_string(), "64k");
    }

    #[test]
    fn what_is_done_every_so_often_is_done_at_the_same_times_of_every_day() {
        for (text, calendar) in [
            ("5m", "*-*-* *:00/5:00"),
            ("300s", "*-*-* *:00/5:00"),
            ("30m", "*-*-* *:00/30:00"),
            ("1h", "*-*-* *:00:00"),
            ("60m", "*-*-* *:00:00"),
            ("6h", "*-*-* 00/6:00:00"),
            ("24h", "*-*-* 00:00:00"),
        ] {
            let every: Every = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(every.calendar(), calendar, "{text}");
            assert_eq!(every.to_string().parse(), Ok(every), "{text}");
        }
        for (text, why) in [
            ("4m", "less than 5m"),
            ("1s", "less than 5m"),
            ("7m", "not be the same every day"),
            ("90m", "not be the same every day"),
            ("5h", "not be the same every day"),
            ("301s", "not be the same every day"),
            ("48h", "not between 1s and 24h"),
            ("daily", "does not end with"),
        ] {
            let error = text.parse::<Every>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
