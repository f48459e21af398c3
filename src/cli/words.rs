//! Values as people write them on a command line: names of enums, times, bytes.

use crate::wire::v1;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An enum's value by its name: `large-transaction` is APPROVAL_TYPE_LARGE_TRANSACTION.
#[derive(Clone, Debug)]
pub struct Named<E> {
    pub number: i32,
    of: std::marker::PhantomData<E>,
}

/// The enums that are named on the command line.
pub trait Words: Into<i32> {
    const PREFIX: &'static str;
    fn from_name(name: &str) -> Option<i32>;
}

macro_rules! words {
    ($($of:ident $prefix:literal),*) => {$(
        impl Words for v1::$of {
            const PREFIX: &'static str = $prefix;
            fn from_name(name: &str) -> Option<i32> {
                v1::$of::from_str_name(name).map(Into::into)
            }
        }
    )*};
}
words!(
    ApprovalType "APPROVAL_TYPE_", ApprovalPriority "APPROVAL_PRIORITY_", ApprovalStatus "APPROVAL_STATUS_",
    ValidatorDecision "VALIDATOR_DECISION_"
);

impl<E: Words> FromStr for Named<E> {
    type Err = String;

    fn from_str(text: &str) -> Result<Named<E>, String> {
        let name = format!("{}{}", E::PREFIX, text.to_ascii_uppercase().replace('-', "_"));
        match E::from_name(&name) {
            Some(number) if number != 0 => Ok(Named { number, of: std::marker::PhantomData }),
            _ => Err("is none of the names in --help".into()),
        }
    }
}

pub fn parse_base64(text: &str) -> Result<Bytes, String> {
    BASE64_STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("not base64: {error}"))
}

/// `90s`, `15m`, `24h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let usage = || "expected a number and s, m, h or d: 90s, 15m, 24h, 7d".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => return Err(usage()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| usage())?;
    count.checked_mul(unit).map(Duration::from_secs).ok_or_else(usage)
}

/// `2026-01-31T12:00:00Z`, or a time so long ago: `24h`.
pub fn parse_time(text: &str) -> Result<prost_types::Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration(text).map_err(|_| "expected 2026-01-31T12:00:00Z, or so long ago: 24h".to_owned())?;
    let time = SystemTime::now().checked_sub(ago).filter(|time| *time >= UNIX_EPOCH);
    time.map(Into::into).ok_or_else(|| "lies before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_protos() {
        let number = |text: &str| text.parse::<Named<v1::ApprovalType>>().map(|named| named.number);
        assert_eq!(number("large-transaction"), Ok(1));
        assert_eq!(number("CONTRACT_UPGRADE"), Ok(4));
        assert!(number("unspecified").is_err() && number("large").is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "7", "d", "-1h", "1.5h", "99999999999999999999d", "7w", "7é"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let at = parse_time("2024-02-29T00:00:00Z").expect("RFC 3339");
        assert_eq!((at.seconds, at.nanos), (1_709_164_800, 0));
        let (day, now) = (parse_time("1d").expect("ago"), parse_time("0s").expect("now"));
        assert!((86_400..86_402).contains(&(now.seconds - day.seconds)));
        for wrong in ["", "yesterday", "9999999d", "2024-13-01T00:00:00Z"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
