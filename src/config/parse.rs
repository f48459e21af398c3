//! From text to a checked value, and what is said when it is not one.

use super::{ArchiveKind, Durability, Io, Kind};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A value within its setting's bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(u64),
    Switch(bool),
    Path(PathBuf),
    Address(SocketAddr),
    /// One of the choices, as the table spells it.
    Choice(&'static str),
    Text(String),
}

/// Where a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The flag's name without dashes.
    Flag(String),
    Environment(String),
    File {
        path: PathBuf,
        key: String,
    },
    /// No single one: settings that do not agree with each other.
    Together,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "flag --{name}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File { path, key } => write!(f, "file {}, key {key}", path.display()),
            Source::Together => f.write_str("settings together"),
        }
    }
}

/// A setting that cannot be used. The node does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{setting}: {text:?} ({source_of}) {must}")]
    Bad { setting: &'static str, text: String, source_of: Source, must: String },
    #[error("unknown setting {name} ({source_of}); `assent settings` lists all of them")]
    Unknown { name: String, source_of: Source },
    #[error("{setting}: {message}")]
    Clash { setting: &'static str, message: String },
    #[error("configuration file {}: {message}", path.display())]
    File { path: PathBuf, message: String },
}

impl Error {
    pub(super) fn bad(setting: &'static str, text: &str, source_of: Source, must: String) -> Error {
        Error::Bad { setting, text: text.into(), source_of, must }
    }

    pub(super) fn unknown(name: &str, source_of: Source) -> Error {
        Error::Unknown { name: name.into(), source_of }
    }

    pub(super) fn clash(setting: &'static str, message: String) -> Error {
        Error::Clash { setting, message }
    }
}

impl Kind {
    /// The value, or what it must be: a phrase that starts with "must".
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Kind::Number { min, max } | Kind::Seconds { min, max } => {
                let number = text.replace('_', "").parse().ok().filter(|number| (min..=max).contains(&number));
                number.map(Value::Number).ok_or_else(|| format!("must be a whole number, {}", self.bound()))
            }
            Kind::Bytes { min, max } => {
                let number = bytes(text).filter(|number| (min..=max).contains(&number));
                number.map(Value::Number).ok_or_else(|| {
                    format!("must be a number of bytes, {} (KiB, MiB and GiB are understood)", self.bound())
                })
            }
            Kind::PowerOfTwo { min, max } => {
                let number = text.replace('_', "").parse().ok();
                let number = number.filter(|number: &u64| (min..=max).contains(&number) && number.is_power_of_two());
                number.map(Value::Number).ok_or_else(|| format!("must be a {}", self.bound()))
            }
            Kind::Switch => match text {
                "true" | "1" | "yes" | "on" => Ok(Value::Switch(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Switch(false)),
                _ => Err("must be true or false".into()),
            },
            Kind::Path => match text {
                "" => Err("must be a path".into()),
                path => Ok(Value::Path(path.into())),
            },
            Kind::Address => text
                .parse()
                .map(Value::Address)
                .map_err(|_| "must be an address and a port, as in 127.0.0.1:9004 or [::1]:9004".into()),
            Kind::Choice(choices) => {
                let found = choices.iter().find(|choice| **choice == text);
                found.map(|choice| Value::Choice(choice)).ok_or_else(|| format!("must be {}", self.bound()))
            }
            Kind::Hosts => text_if(text, text.split(',').all(is_host))
                .ok_or_else(|| "must be hosts with their ports, as in kafka-1:9092,kafka-2:9092".into()),
            Kind::TopicPart => text_if(text, is_topic_part(text)).ok_or_else(|| format!("must be {}", self.bound())),
            Kind::Text => text_if(text, text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control))
                .ok_or_else(|| format!("must be {}", self.bound())),
        }
    }

    /// For people: `1 to 32`, `auto, uring or posix`.
    pub fn bound(&self) -> String {
        match self {
            Kind::Number { min, max } | Kind::Seconds { min, max } => {
                format!("{} to {}", grouped(*min), grouped(*max))
            }
            Kind::PowerOfTwo { min, max } => format!("power of two, {} to {}", grouped(*min), grouped(*max)),
            Kind::Bytes { min, max } => format!("{} to {}", show_bytes(*min), show_bytes(*max)),
            Kind::Switch => "true or false".into(),
            Kind::Path => "a path".into(),
            Kind::Address => "address:port".into(),
            Kind::Choice(choices) => match choices {
                [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => choices.join(", "),
            },
            Kind::Hosts => "host:port,…".into(),
            Kind::TopicPart => format!("1 to {TOPIC_PART_BYTES_MAX} letters, digits, `.`, `_` and `-`"),
            Kind::Text => format!("1 to {TEXT_BYTES_MAX} bytes of text"),
        }
    }
}

const TEXT_BYTES_MAX: usize = 1_024;
/// A topic's name takes 249 bytes, and ours 30 of them.
const TOPIC_PART_BYTES_MAX: usize = 100;

fn text_if(text: &str, good: bool) -> Option<Value> {
    (good && !text.is_empty()).then(|| Value::Text(text.into()))
}

/// `name:9092`, `10.0.0.1:9092`, `[::1]:9092`.
fn is_host(text: &str) -> bool {
    let Some((host, port)) = text.trim().rsplit_once(':') else { return false };
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
    !host.is_empty() && host.chars().all(legal) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_topic_part(text: &str) -> bool {
    text.len() <= TOPIC_PART_BYTES_MAX && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// `65536`, `64KiB`, `64 KiB`, `1GiB`.
fn bytes(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Whole units where that loses nothing.
pub(super) fn show_bytes(count: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if count >= 1 << shift && count.is_multiple_of(1 << shift) {
            return format!("{} {unit}", count >> shift);
        }
    }
    grouped(count)
}

/// 16384 as 16,384.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A TOML file as (`section.key`, value as text). Names are checked by the caller.
pub(super) fn read_file(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let fail = |message: String| Error::File { path: path.into(), message };
    let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    let mut found = Vec::new();
    flatten("", &table, &mut found).map_err(fail)?;
    Ok(found)
}

fn flatten(prefix: &str, table: &toml::Table, found: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&key, inner, found)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(on) => on.to_string(),
            other => return Err(format!("{key}: a {} is no value of any setting", other.type_str())),
        };
        found.push((key, text));
    }
    Ok(())
}

/// What the table's setters write into: each field takes the kind of value that its row names.
pub(super) trait Field {
    fn put(&mut self, value: Value);
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn put(&mut self, value: Value) {
                let Value::Number(number) = value else { unreachable!("the table gives this field a number") };
                *self = number.try_into().expect("the row's bound fits its field");
            }
        }
    )*};
}
number_fields!(u32, u64, usize);

impl Field for bool {
    fn put(&mut self, value: Value) {
        let Value::Switch(on) = value else { unreachable!("the table gives this field a switch") };
        *self = on;
    }
}

impl Field for PathBuf {
    fn put(&mut self, value: Value) {
        let Value::Path(path) = value else { unreachable!("the table gives this field a path") };
        *self = path;
    }
}

impl Field for Option<PathBuf> {
    fn put(&mut self, value: Value) {
        let Value::Path(path) = value else { unreachable!("the table gives this field a path") };
        *self = Some(path);
    }
}

impl Field for String {
    fn put(&mut self, value: Value) {
        let Value::Text(text) = value else { unreachable!("the table gives this field a text") };
        *self = text;
    }
}

impl Field for Option<String> {
    fn put(&mut self, value: Value) {
        let Value::Text(text) = value else { unreachable!("the table gives this field a text") };
        *self = Some(text);
    }
}

impl Field for &'static str {
    fn put(&mut self, value: Value) {
        let Value::Choice(name) = value else { unreachable!("the table gives this field a choice") };
        *self = name;
    }
}

impl Field for SocketAddr {
    fn put(&mut self, value: Value) {
        let Value::Address(address) = value else { unreachable!("the table gives this field an address") };
        *self = address;
    }
}

impl Field for Durability {
    fn put(&mut self, value: Value) {
        let Value::Choice(name) = value else { unreachable!("the table gives this field a choice") };
        *self = if name == "memory" { Durability::Memory } else { Durability::Journal };
    }
}

impl Field for ArchiveKind {
    fn put(&mut self, value: Value) {
        let Value::Choice(name) = value else { unreachable!("the table gives this field a choice") };
        *self = match name {
            "none" => ArchiveKind::None,
            "sqlite" => ArchiveKind::Sqlite,
            "postgres" => ArchiveKind::Postgres,
            _ => ArchiveKind::Auto,
        };
    }
}

impl Field for Io {
    fn put(&mut self, value: Value) {
        let Value::Choice(name) = value else { unreachable!("the table gives this field a choice") };
        *self = match name {
            "uring" => Io::Uring,
            "posix" => Io::Posix,
            _ => Io::Auto,
        };
    }
}

impl Field for tracing::Level {
    fn put(&mut self, value: Value) {
        let Value::Choice(name) = value else { unreachable!("the table gives this field a choice") };
        *self = name.parse().expect("the choices are tracing's levels");
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, grouped, is_host, show_bytes};

    #[test]
    fn sizes_and_hosts_are_read_and_shown() {
        for (text, count) in [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("64 KiB", 65_536), ("2_048", 2_048)] {
            assert_eq!(bytes(text), Some(count), "{text}");
        }
        for text in ["", "KiB", "64kb", "1.5MiB", "-1", "99999999999TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        for text in ["a:1", "a-1.b:9092", "10.0.0.1:1", "[::1]:9092"] {
            assert!(is_host(text), "{text}");
        }
        for text in ["", "a", "a:", ":1", "a:0", "a:70000", "a b:1", "http://a:1"] {
            assert!(!is_host(text), "{text}");
        }
        assert_eq!(show_bytes(65_536), "64 KiB");
        assert_eq!(show_bytes(65_537), "65,537");
        assert_eq!(grouped(1_048_576), "1,048,576");
    }
}
