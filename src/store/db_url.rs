//! `DB_URL`: which PostgreSQL, as whom, and how far its certificate is trusted.
//!
//! `[jdbc:]postgres[ql]://[user[:password]@]host[:port][,host[:port]…][/database][?name=value&…]`, every
//! part percent-decoded, as libpq reads it. Parameters: `user`, `password`, `ssl`, `sslmode`,
//! `sslrootcert`, `connect_timeout` (seconds), `application_name`, `options`, `target_session_attrs`,
//! and `host`, `port`, `dbname` where the URL itself has none. Parsed by ourselves, because
//! tokio-postgres knows neither `ssl=true` nor `sslmode=verify-full` nor `sslrootcert`.
//!
//! Nothing here ever shows the password, and no error repeats a part of the URL that may hold a piece
//! of it (a `/` or `@` that was not percent-encoded cuts a password in two).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HOSTS_MAX: usize = 16;

/// A URL that says what it should not, or not what it should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("DB_URL: {field}: {message}")]
pub struct DbUrlError {
    /// The part or parameter: `scheme`, `host`, `port`, `sslmode`, ….
    pub field: String,
    pub message: String,
}

fn wrong<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, DbUrlError> {
    Err(DbUrlError { field: field.into(), message: message.into() })
}

/// How far the connection and the server are trusted; as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SslMode {
    /// Plain text.
    Disable,
    /// TLS where the server has it, unverified. `allow` is taken for this: it never asks for less.
    Prefer,
    /// TLS, unverified; with `sslrootcert` as [`SslMode::VerifyCa`].
    Require,
    /// TLS, and a certificate that `sslrootcert` vouches for.
    VerifyCa,
    /// … and that is made out to the host of the URL.
    VerifyFull,
}

impl SslMode {
    pub const fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// A password, which shows itself to nobody.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(String);

impl Password {
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A database to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DbUrl {
    /// Names, addresses (IPv6 without brackets) or folders of Unix sockets, tried in this order.
    pub hosts: Vec<(String, u16)>,
    pub user: String,
    pub password: Option<Password>,
    pub database: String,
    pub ssl_mode: SslMode,
    /// A PEM file with the authorities that vouch for the server.
    pub ssl_root_cert: Option<PathBuf>,
    pub connect_timeout: Duration,
    pub application_name: String,
    /// Of the server, as on its command line: `-c search_path=approvals`.
    pub options: Option<String>,
    /// Only a server that takes writes will do.
    pub read_write: bool,
}

impl DbUrl {
    /// `pguser` and `pgpassword` (the variables PGUSER and PGPASSWORD) serve where the URL has none.
    pub fn parse(url: &str, pguser: Option<&str>, pgpassword: Option<&str>) -> Result<DbUrl, DbUrlError> {
        let url = url.trim();
        let rest = url.strip_prefix("jdbc:").unwrap_or(url);
        let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|scheme| rest.strip_prefix(scheme)) else {
            return wrong("scheme", "must be postgres:// or postgresql:// (with or without a leading jdbc:)");
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let mut given = Given::parameters(query)?;
        if let Some(credentials) = credentials {
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            if !user.is_empty() {
                given.set("user", decode("user", user)?)?;
            }
            if let Some(password) = password {
                given.set("password", decode("password", password)?)?;
            }
        }
        if !path.is_empty() {
            given.set("dbname", decode("dbname", path)?)?;
        }
        let hosts = hosts_of(hosts, &mut given)?;
        let Some(user) = given.take("user").or_else(|| pguser.map(String::from)).filter(|user| !user.is_empty()) else {
            return wrong("user", "is missing: name it in the URL, as a parameter, or in PGUSER");
        };
        let password = given.take("password").or_else(|| pgpassword.map(String::from)).map(Password);
        let ssl_mode = ssl_mode(&mut given)?;
        let ssl_root_cert = given.take("sslrootcert").filter(|path| !path.is_empty()).map(PathBuf::from);
        if matches!(ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull) && ssl_root_cert.is_none() {
            let message = format!("is missing: sslmode={} needs a PEM file with the authority", ssl_mode.name());
            return wrong("sslrootcert", message);
        }
        let connect_timeout = match given.take("connect_timeout") {
            None => CONNECT_TIMEOUT,
            Some(text) => match text.parse::<u32>() {
                Ok(seconds) if (1..=3_600).contains(&seconds) => Duration::from_secs(seconds.into()),
                _ => return wrong("connect_timeout", "must be whole seconds from 1 to 3600"),
            },
        };
        let read_write = match given.take("target_session_attrs").as_deref() {
            None => hosts.len() > 1,
            Some("any") => false,
            Some("read-write") => true,
            Some(_) => return wrong("target_session_attrs", "must be any or read-write"),
        };
        Ok(DbUrl {
            database: given.take("dbname").filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone()),
            application_name: given.take("application_name").unwrap_or_else(|| "assent".into()),
            options: given.take("options").filter(|options| !options.is_empty()),
            hosts,
            user,
            password,
            ssl_mode,
            ssl_root_cert,
            connect_timeout,
            read_write,
        })
    }
}

impl FromStr for DbUrl {
    type Err = DbUrlError;

    /// Without PGUSER and PGPASSWORD.
    fn from_str(url: &str) -> Result<DbUrl, DbUrlError> {
        DbUrl::parse(url, None, None)
    }
}

impl fmt::Display for DbUrl {
    /// For logs: where and as whom; never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        write!(f, "/{}?sslmode={}", self.database, self.ssl_mode.name())
    }
}

/// What the URL gives, each at most once.
struct Given(Vec<(&'static str, String)>);

const PARAMETERS: [&str; 13] = [
    "user",
    "password",
    "host",
    "port",
    "dbname",
    "ssl",
    "sslmode",
    "sslrootcert",
    "connect_timeout",
    "application_name",
    "options",
    "target_session_attrs",
    "ApplicationName",
];

impl Given {
    fn parameters(query: &str) -> Result<Given, DbUrlError> {
        let mut given = Given(Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A name that no parameter could have may be a piece of a password with a bare `?` or `&`.
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
                return wrong("parameters", "one has no proper name (in a password, ? is written %3F and & %26)");
            }
            let Some(known) = PARAMETERS.iter().find(|known| **known == name) else {
                return wrong(name, "is no parameter that is known here");
            };
            // JDBC's spelling.
            let known = if *known == "ApplicationName" { "application_name" } else { known };
            given.set(known, decode(known, value)?)?;
        }
        Ok(given)
    }

    fn set(&mut self, name: &'static str, value: String) -> Result<(), DbUrlError> {
        if self.0.iter().any(|(there, _)| *there == name) {
            return wrong(name, "is given twice");
        }
        self.0.push((name, value));
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(there, _)| *there == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// From the authority, or from the parameters when it is empty.
fn hosts_of(authority: &str, given: &mut Given) -> Result<Vec<(String, u16)>, DbUrlError> {
    let (host, ports) = (given.take("host"), given.take("port"));
    if !authority.is_empty() {
        if host.is_some() || ports.is_some() {
            return wrong("host", "is given twice: in the URL, and as host or port");
        }
        let hosts: Result<Vec<_>, _> = authority.split(',').map(host_and_port).collect();
        return bounded(hosts?);
    }
    let Some(host) = host else { return wrong("host", "is missing") };
    let ports = ports.unwrap_or_default();
    let ports: Vec<&str> = if ports.is_empty() { Vec::new() } else { ports.split(',').collect() };
    let names: Vec<&str> = host.split(',').collect();
    if ports.len() > 1 && ports.len() != names.len() {
        return wrong("port", "must be one, or as many as there are hosts");
    }
    let hosts = names.iter().enumerate().map(|(at, name)| {
        let port = ports.get(at).or(ports.first()).map_or(Ok(PORT), |text| port(text))?;
        checked_host(name).map(|name| (name, port))
    });
    bounded(hosts.collect::<Result<_, _>>()?)
}

fn bounded(hosts: Vec<(String, u16)>) -> Result<Vec<(String, u16)>, DbUrlError> {
    if hosts.len() > HOSTS_MAX { wrong("host", format!("at most {HOSTS_MAX} hosts")) } else { Ok(hosts) }
}

fn host_and_port(text: &str) -> Result<(String, u16), DbUrlError> {
    let (host, port_text) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, tail)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (address, tail),
            _ => return wrong("host", "brackets must hold an IPv6 address"),
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port_text.strip_prefix(':') {
        Some("") => PORT,
        Some(text) => port(text)?,
        None if port_text.is_empty() => PORT,
        None => return wrong("port", "must follow the host behind a colon"),
    };
    Ok((checked_host(&decode("host", host)?)?, port))
}

fn checked_host(name: &str) -> Result<String, DbUrlError> {
    let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#' | b'[' | b']' | b',');
    if name.is_empty() || !name.bytes().all(legal) {
        return wrong("host", "must be a name, an address or the folder of a Unix socket");
    }
    Ok(name.into())
}

/// Never repeats the text: it may be a piece of a password.
fn port(text: &str) -> Result<u16, DbUrlError> {
    match text.parse() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => wrong("port", "must be a number from 1 to 65535 (in a password, / is written %2F and @ %40)"),
    }
}

fn ssl_mode(given: &mut Given) -> Result<SslMode, DbUrlError> {
    let ssl = match given.take("ssl").as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return wrong("ssl", "must be true or false"),
    };
    let mode = match given.take("sslmode").as_deref() {
        // As libpq reads JDBC's URLs.
        None => return Ok(ssl.map_or(SslMode::Prefer, |ssl| if ssl { SslMode::Require } else { SslMode::Disable })),
        Some("disable") => SslMode::Disable,
        Some("allow" | "prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => return wrong("sslmode", "must be disable, allow, prefer, require, verify-ca or verify-full"),
    };
    match ssl {
        Some(true) if matches!(mode, SslMode::Disable | SslMode::Prefer) => wrong("ssl", "true contradicts sslmode"),
        Some(false) if mode != SslMode::Disable => wrong("ssl", "false contradicts sslmode"),
        _ => Ok(mode),
    }
}

/// Percent-decoded UTF-8 without NUL. `+` is itself.
fn decode(field: &'static str, text: &str) -> Result<String, DbUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return wrong(field, "% must be followed by two hex digits (a percent sign is written %25)"),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => wrong(field, "must be UTF-8 without U+0000"),
    }
}
