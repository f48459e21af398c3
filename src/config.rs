//! Settings: from flags, environment and file, checked once before anything starts.
//!
//! [`SETTINGS`] is the one table: name, flag, default, bound and help of every setting. It drives
//! the flags of `assent serve`, the parsing here and the README's table. The first source that
//! names a setting wins: flag, environment (`ASSENT_…`), file (`--config`), default. An unknown
//! name is an error, and every error names the setting and where its value came from.
//! Left to others: what a setting does.

mod kafka;
mod machine;
mod parse;
mod settings;

pub use kafka::Kafka;
pub use machine::Machine;
pub use parse::{Error, Source, Value};
pub use settings::{Default, Kind, SETTINGS, Setting, find, markdown};

use crate::store::db_url::DbUrl;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a vote is before it is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// On disk.
    #[default]
    Journal,
    /// In memory only: nothing survives the process.
    Memory,
}

impl Durability {
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Journal => "journal",
            Durability::Memory => "memory",
        }
    }
}

/// How the journal reaches the disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Io {
    /// What measures best here and is to be had.
    #[default]
    Auto,
    /// io_uring; an error at start where the kernel does not allow it.
    Uring,
    /// pwrite and fdatasync.
    Posix,
}

impl Io {
    pub const fn name(self) -> &'static str {
        match self {
            Io::Auto => "auto",
            Io::Uring => "uring",
            Io::Posix => "posix",
        }
    }
}

/// Everything that can be set, one part a room.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub grpc_addr: SocketAddr,
    pub http_addr: SocketAddr,
    pub durability: Durability,
    pub io: Io,
    pub shard: Shard,
    pub limits: Limits,
    pub journal: Journal,
    pub archive: Archive,
    pub sinks: Sinks,
    /// `DB_URL`: from the environment alone, so that it stands in no file and no list of processes.
    pub db_url: Option<DbUrl>,
    pub grpc: Grpc,
    pub http: Http,
    pub tls: Tls,
    pub kafka: Kafka,
    /// Start although the wall clock jumped or the journal ends ahead of it.
    pub accept_clock: bool,
    pub shutdown_seconds: u64,
    pub log_level: tracing::Level,
    /// Written (by rename) once the node serves.
    pub ready_file: Option<PathBuf>,
    /// What an operator should read at every start: sentences, each naming its setting.
    pub warnings: Vec<String>,
}

/// The shard threads.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    pub count: usize,
    /// Bind each shard's thread to a core.
    pub pin: bool,
    pub spin_micros: u64,
    /// Pushes that wait in one shard's ring; a power of two.
    pub ring_slots: usize,
}

/// Bounds on what clients can make the node hold.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub approvals_max: usize,
    pub validators_max: usize,
    pub eligible_sets_max: usize,
    pub eligible_bytes_max: usize,
    pub content_bytes_max: usize,
    pub decided_keep_seconds: u64,
    pub id_filter_bytes: u64,
    pub lifetime_default_seconds: u64,
    pub lifetime_max_seconds: u64,
    pub watchers_max: usize,
    pub watcher_buffer_bytes: usize,
    pub pending_streams_max: usize,
    pub batch_items_max: usize,
    pub unacknowledged_max: usize,
    pub message_bytes_max: usize,
    pub connections_max: usize,
    pub streams_per_connection_max: usize,
    pub subscriptions_per_stream_max: usize,
}

/// The journal's files.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub segment_bytes: u64,
    pub pool_segments: usize,
    pub frame_bytes_max: usize,
    /// 0: bounded by the disk alone.
    pub folder_bytes_max: u64,
    pub reserve_bytes: u64,
    pub keep_seconds: u64,
    pub keep_bytes: u64,
    pub snapshot_events: u64,
    pub snapshot_bytes: u64,
}

impl Journal {
    /// What the segments in use and those prepared ahead take, before anything is kept.
    pub fn segments_bytes_min(&self, shards: usize) -> u64 {
        self.segment_bytes * (self.pool_segments + shards) as u64
    }
}

/// Where what happened is kept for queries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ArchiveKind {
    /// PostgreSQL where `DB_URL` names one, otherwise SQLite.
    #[default]
    Auto,
    None,
    Sqlite,
    Postgres,
}

/// The archive.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    pub kind: ArchiveKind,
    pub batch_events_max: usize,
    pub batch_bytes_max: usize,
    pub linger_millis: u64,
}

/// All sinks, and the simple ones.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// 0: bounded by the folder alone.
    pub lag_bytes_max: u64,
    pub file: FileSink,
}

/// Events as files.
#[derive(Clone, Debug, Default)]
pub struct FileSink {
    /// On when it is given.
    pub dir: Option<PathBuf>,
    pub rotate_bytes: u64,
    /// 0: all.
    pub keep: u64,
}

/// The gRPC front's runtime and HTTP/2.
#[derive(Clone, Debug, Default)]
pub struct Grpc {
    pub worker_threads: usize,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub frame_bytes: u32,
    pub keepalive_interval_seconds: u64,
    pub keepalive_timeout_seconds: u64,
}

/// The HTTP window.
#[derive(Clone, Debug, Default)]
pub struct Http {
    pub connections_max: usize,
    pub header_timeout_seconds: u64,
}

/// TLS of both ports; on when the certificate and the key are given.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    pub fn enabled(&self) -> bool {
        self.cert.is_some()
    }
}

/// Where values may come from. A plain value, so that tests need no process of their own.
#[derive(Clone, Debug)]
pub struct Sources {
    /// (flag without dashes, value) as given on the command line.
    pub flags: Vec<(String, String)>,
    /// The whole environment: only `ASSENT_…`, `KAFKA_BROKERS` and `DB_URL` are read.
    pub environment: Vec<(String, String)>,
    /// `--config`; `ASSENT_CONFIG` when it is not given.
    pub file: Option<PathBuf>,
    /// What defaults are derived from.
    pub machine: Machine,
}

impl Sources {
    /// The process's own environment and machine, with these flags.
    pub fn of_process(flags: Vec<(String, String)>, file: Option<PathBuf>) -> Sources {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect();
        Sources { flags, environment, file, machine: Machine::detect() }
    }
}

/// `ASSENT_…` variables that are no settings: the file's name, and what client commands read.
const CLIENT_VARIABLES: [&str; 2] = ["ASSENT_CONFIG", "ASSENT_ENDPOINT"];

impl Config {
    /// The settings of a machine on which nothing was set.
    pub fn defaults(machine: &Machine) -> Config {
        let mut config = Config::blank();
        for setting in SETTINGS {
            if let Some(text) = setting.default.text(machine) {
                let value = setting.kind.parse(&text).expect("a default lies within its own bound");
                (setting.put)(&mut config, value);
            }
        }
        config
    }

    /// Reads every source, the weakest first, and checks what settings demand of each other.
    pub fn load(sources: &Sources) -> Result<Config, Error> {
        let mut config = Config::defaults(&sources.machine);
        let variable = |name: &str| {
            let found = sources.environment.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };

        if let Some(path) = sources.file.clone().or_else(|| variable("ASSENT_CONFIG").map(PathBuf::from)) {
            for (key, text) in parse::read_file(&path)? {
                let source = Source::File { path: path.clone(), key: key.clone() };
                if let Some(property) = key.strip_prefix(kafka::PROPERTIES) {
                    config.kafka.properties.insert(property.into(), text);
                    continue;
                }
                let setting = SETTINGS.iter().find(|setting| setting.key == key);
                config.set(setting.ok_or_else(|| Error::unknown(&key, source.clone()))?, &text, source)?;
            }
        }
        // The name that everybody gives it; ASSENT_KAFKA_BROKERS wins over it, as any setting of ours would.
        if let Some(text) = variable("KAFKA_BROKERS") {
            let setting = find("kafka-brokers").expect("it is in the table");
            config.set(setting, text, Source::Environment("KAFKA_BROKERS".into()))?;
        }
        for (name, text) in &sources.environment {
            if !name.starts_with("ASSENT_") || CLIENT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let source = Source::Environment(name.clone());
            let setting = SETTINGS.iter().find(|setting| setting.variable() == *name);
            config.set(setting.ok_or_else(|| Error::unknown(name, source.clone()))?, text, source)?;
        }
        for (flag, text) in &sources.flags {
            let source = Source::Flag(flag.clone());
            let setting = SETTINGS.iter().find(|setting| setting.flag == flag);
            config.set(setting.ok_or_else(|| Error::unknown(flag, source.clone()))?, text, source)?;
        }

        let db_url = variable("DB_URL").map(|url| DbUrl::parse(url, variable("PGUSER"), variable("PGPASSWORD")));
        config.db_url = db_url.transpose().map_err(|error| Error::clash("DB_URL", error.to_string()))?;

        config.check()?;
        config.warnings = config.collect_warnings();
        Ok(config)
    }

    fn set(&mut self, setting: &Setting, text: &str, source: Source) -> Result<(), Error> {
        let value = setting.kind.parse(text).map_err(|must| Error::bad(setting.key, text, source, must))?;
        (setting.put)(self, value);
        Ok(())
    }

    /// What settings demand of each other; each alone was checked against its own bound.
    fn check(&self) -> Result<(), Error> {
        let (limits, journal) = (&self.limits, &self.journal);
        let clash = |key, message: String| Err(Error::clash(key, message));
        if limits.lifetime_default_seconds > limits.lifetime_max_seconds {
            return clash(
                "limits.lifetime_default_seconds",
                format!(
                    "{} is longer than limits.lifetime_max_seconds ({})",
                    limits.lifetime_default_seconds, limits.lifetime_max_seconds
                ),
            );
        }
        // A request with the longest content and its other fields must fit a message, and a frame.
        let request_bytes = limits.content_bytes_max + REQUEST_OVERHEAD_BYTES;
        if limits.message_bytes_max < request_bytes {
            return clash(
                "limits.message_bytes_max",
                format!("must be at least {request_bytes}: limits.content_bytes_max and {REQUEST_OVERHEAD_BYTES}"),
            );
        }
        if journal.frame_bytes_max < request_bytes {
            return clash(
                "journal.frame_bytes_max",
                format!("must be at least {request_bytes}: limits.content_bytes_max and {REQUEST_OVERHEAD_BYTES}"),
            );
        }
        for (key, bytes) in [
            ("journal.frame_bytes_max", journal.frame_bytes_max as u64),
            ("journal.segment_bytes", journal.segment_bytes),
        ] {
            if !bytes.is_multiple_of(BLOCK_BYTES) {
                return clash(key, format!("{bytes} is not a whole number of blocks of {BLOCK_BYTES} bytes"));
            }
        }
        if journal.segment_bytes < 2 * journal.frame_bytes_max as u64 + BLOCK_BYTES {
            return clash(
                "journal.segment_bytes",
                format!("must hold two frames of journal.frame_bytes_max ({}) and a block", journal.frame_bytes_max),
            );
        }
        let floor = journal.segments_bytes_min(self.shard.count);
        if journal.folder_bytes_max != 0 && journal.folder_bytes_max < floor + journal.reserve_bytes {
            return clash(
                "journal.folder_bytes_max",
                format!(
                    "must be 0 (the disk is the bound) or at least {}: one segment for each of {} shard(s), those \
                     prepared ahead, and journal.reserve_bytes",
                    floor + journal.reserve_bytes,
                    self.shard.count
                ),
            );
        }
        if limits.unacknowledged_max < limits.batch_items_max {
            return clash(
                "limits.unacknowledged_max",
                format!("must be at least limits.batch_items_max ({})", limits.batch_items_max),
            );
        }
        if self.durability == Durability::Memory {
            if self.sinks.file.dir.is_some() {
                return clash("sinks.file.dir", NO_JOURNAL.into());
            }
            if matches!(self.archive.kind, ArchiveKind::Sqlite | ArchiveKind::Postgres) {
                return clash("archive.kind", NO_JOURNAL.into());
            }
        }
        if self.archive.kind == ArchiveKind::Postgres && self.db_url.is_none() {
            return clash("archive.kind", "--archive postgres needs the address in the environment, as DB_URL".into());
        }
        match (&self.tls.cert, &self.tls.key, &self.tls.client_ca) {
            (Some(_), None, _) => return clash("tls.key", "--tls-cert needs --tls-key beside it".into()),
            (None, Some(_), _) => return clash("tls.cert", "--tls-key needs --tls-cert beside it".into()),
            (None, None, Some(_)) => {
                return clash("tls.client_ca", "--tls-client-ca needs --tls-cert and --tls-key beside it".into());
            }
            _ => {}
        }
        self.kafka.check()?;
        if self.grpc_addr == self.http_addr && self.grpc_addr.port() != 0 {
            return clash("http.addr", format!("gRPC and HTTP cannot both listen on {}", self.http_addr));
        }
        Ok(())
    }

    fn collect_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.durability == Durability::Memory {
            warnings.push(
                "--durability memory: nothing is written to disk, and every approval and vote is lost when this \
                 process ends; for comparison only"
                    .into(),
            );
        }
        for (name, address) in [("--grpc", self.grpc_addr), ("--http", self.http_addr)] {
            if !address.ip().is_loopback() && !self.tls.enabled() {
                warnings.push(format!(
                    "{name} {address} is reachable from other machines without TLS: whoever reaches it acts as \
                     anyone; give --tls-cert and --tls-key (and --tls-client-ca), or bind 127.0.0.1"
                ));
            }
        }
        if self.accept_clock {
            warnings.push(
                "--accept-clock: the wall clock is taken as it is; remove the flag once this start is done".into(),
            );
        }
        warnings
    }

    /// Before the table filled it.
    fn blank() -> Config {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Config {
            data_dir: PathBuf::new(),
            grpc_addr: nowhere,
            http_addr: nowhere,
            durability: Durability::Journal,
            io: Io::Auto,
            shard: Shard::default(),
            limits: Limits::default(),
            journal: Journal::default(),
            archive: Archive::default(),
            sinks: Sinks::default(),
            db_url: None,
            grpc: Grpc::default(),
            http: Http::default(),
            tls: Tls::default(),
            kafka: Kafka::default(),
            accept_clock: false,
            shutdown_seconds: 0,
            log_level: tracing::Level::INFO,
            ready_file: None,
            warnings: Vec::new(),
        }
    }
}

/// Why sinks and memory do not go together.
const NO_JOURNAL: &str = "--durability memory keeps no journal, and sinks are fed from it";

/// What the journal writes in.
const BLOCK_BYTES: u64 = 4_096;

/// Room that a request has beside its content, at the least: its other fields, and about 900
/// eligible validators (32,767 of the longest names take 2.1 MiB, which the default message holds).
pub const REQUEST_OVERHEAD_BYTES: usize = 64 << 10;
