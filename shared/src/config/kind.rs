//! What a setting's value may be, and how its text is read and printed.
//!
//! The grammar is PgBouncer's (C `strtol` with base 0 for whole numbers, decimal seconds for times, 0 and 1 for switches), except that a
//! value out of range is an error here and is never cut or wrapped. SHOW CONFIG prints whole numbers with `%d` and times with `%g`.

use std::{fmt::Write, time::Duration};

/// The longest time a setting takes: a hundred years.
const MAX_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// The type of a setting with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On or off, written as a number: 0 is off.
    Switch,
    /// A whole number of `unit` (empty: a bare number), both bounds included.
    Int {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
        /// What is counted.
        unit: &'static str,
    },
    /// A file mode, usually written in octal.
    Mode,
    /// A time in seconds, fractions allowed.
    Seconds,
    /// Any text.
    Text,
    /// Text that is never shown again.
    Secret,
    /// Words separated by commas.
    Words,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// A value as messages quote it: not, if it is a secret.
    pub fn shown<'a>(&self, value: &'a str) -> &'a str {
        if *self == Self::Secret { "****" } else { value }
    }

    /// What a value must be, for error messages and the reference: "a whole number from 1 to 65535".
    pub fn describe(&self) -> String {
        match self {
            Self::Switch => "0 or 1".into(),
            Self::Int { min, max, .. } if *max >= i64::from(i32::MAX) => format!("a whole number, {min} or more"),
            Self::Int { min, max, .. } => format!("a whole number from {min} to {max}"),
            Self::Mode => "a file mode such as 0770".into(),
            Self::Seconds => "a number of seconds".into(),
            Self::Text | Self::Secret => "text".into(),
            Self::Words => "words separated by commas".into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// Reads a whole number as C's `strtol` with base 0 does: `0x10`, `010` (octal), a sign, leading blanks. `None` for anything behind
/// it, an empty text, or a number that does not fit.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// Reads decimal seconds, kept to the microsecond. `None` for a sign, a unit, or more than a hundred years.
pub(super) fn parse_seconds(text: &str) -> Option<Duration> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    (seconds <= MAX_SECONDS as f64).then(|| Duration::from_micros((seconds * 1e6).round() as u64))
}

/// Reads a time with a unit (`100ms`, `10s`, `5min`, `1h`, `7d`) or bare decimal seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let microseconds: f64 = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" | "" => 1e6,
        "min" => 60e6,
        "h" => 3600e6,
        "d" => 86400e6,
        _ => return None,
    };
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * microseconds;
    (value <= MAX_SECONDS as f64 * 1e6).then(|| Duration::from_micros(value.round() as u64))
}

/// Prints a time as the TOML sample does: the largest unit that needs no fraction.
pub(super) fn print_duration(time: Duration) -> String {
    let us = time.as_micros();
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1000, "ms")];
    match units.into_iter().find(|(size, _)| us.is_multiple_of(*size)) {
        _ if us == 0 => "0s".into(),
        Some((size, unit)) => format!("{}{unit}", us / size),
        None => format!("{us}us"),
    }
}

/// Seconds as C prints them with `%g`: six significant digits, no trailing zeros.
pub(super) fn print_seconds(time: Duration) -> String {
    print_g(time.as_secs_f64())
}

/// C's `%g`.
fn print_g(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| {
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.').to_owned() } else { digits.to_owned() }
    };
    if (-4..6).contains(&exponent) {
        return trim(&format!("{value:.*}", (5 - exponent) as usize));
    }
    let mut out = trim(mantissa);
    let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()); // writing to a String does not fail
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_strtol_does() {
        for (text, value) in [("10", 10), ("0x10", 16), ("010", 8), ("-5", -5), (" 7", 7), ("0", 0), ("+3", 3), ("0777", 511)] {
            assert_eq!(parse_int(text), Some(value), "{text}");
        }
        for text in ["", "10s", "1.5", "on", "08", "--1", "1 ", "0x", "-", "99999999999999999999"] {
            assert_eq!(parse_int(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_take_fractions_and_nothing_else() {
        assert_eq!(parse_seconds("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_seconds(".25"), Some(Duration::from_millis(250)));
        assert_eq!(parse_seconds("0"), Some(Duration::ZERO));
        for text in ["", "-1", "10s", "1min", "1.2.3", ".", "1e3", "9999999999"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn times_with_units_come_back_as_written() {
        for text in ["100ms", "10s", "5min", "1h", "7d", "250us", "0s"] {
            assert_eq!(parse_duration(text).map(print_duration).as_deref(), Some(text));
        }
        assert_eq!(parse_duration("1.5 s"), Some(Duration::from_millis(1500)));
        for text in ["", "s", "-1s", "5m", "1 s 2", "inf"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_print_as_percent_g() {
        for (value, text) in [
            (3600.0, "3600"),
            (1.5, "1.5"),
            (1e6, "1e+06"),
            (0.0, "0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.7, "123457"),
        ] {
            assert_eq!(print_g(value), text);
        }
    }
}
