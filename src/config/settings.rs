//! The one table of settings.

use super::parse::{Field, Value, grouped, show_bytes};
use super::{Config, Machine};

/// A setting: how it is spelled, what it may be, what it is when nobody says.
pub struct Setting {
    /// In the file: `section.key`, or `key` at its top.
    pub key: &'static str,
    /// On the command line, without dashes. The variable is `ASSENT_` and this in capitals.
    pub flag: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub help: &'static str,
    /// In the first screen of `assent serve --help`; the rest is in `assent settings`.
    pub common: bool,
    pub(super) put: fn(&mut Config, Value),
}

/// What values a setting takes, bounds included.
pub enum Kind {
    Number {
        min: u64,
        max: u64,
    },
    PowerOfTwo {
        min: u64,
        max: u64,
    },
    Seconds {
        min: u64,
        max: u64,
    },
    Bytes {
        min: u64,
        max: u64,
    },
    Switch,
    Path,
    Address,
    Choice(&'static [&'static str]),
    /// `host:port`, with commas between.
    Hosts,
    /// What may be part of a topic's name.
    TopicPart,
    /// A line of printable text.
    Text,
}

/// What a setting is when nobody says.
pub enum Default {
    Fixed(&'static str),
    /// Derived from the machine; with the rule in words.
    Derived(fn(&Machine) -> u64, &'static str),
    Unset,
}

impl Default {
    pub fn text(&self, machine: &Machine) -> Option<String> {
        match self {
            Default::Fixed(text) => Some((*text).into()),
            Default::Derived(rule, _) => Some(rule(machine).to_string()),
            Default::Unset => None,
        }
    }
}

impl Setting {
    /// `ASSENT_TLS_CERT` for `--tls-cert`.
    pub fn variable(&self) -> String {
        format!("ASSENT_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// The default for people.
    pub fn default_shown(&self) -> String {
        match (&self.default, &self.kind) {
            (Default::Unset, _) => "none".into(),
            (Default::Derived(_, rule), _) => (*rule).into(),
            (Default::Fixed(text), Kind::Bytes { .. }) => text.parse().map_or_else(|_| (*text).into(), show_bytes),
            (Default::Fixed(text), Kind::Number { .. } | Kind::Seconds { .. } | Kind::PowerOfTwo { .. }) => {
                text.parse().map_or_else(|_| (*text).into(), grouped)
            }
            (Default::Fixed(text), _) => (*text).into(),
        }
    }
}

/// The setting of this flag.
pub fn find(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag == flag)
}

/// The README's table.
pub fn markdown() -> String {
    let mut text = String::from("| flag | in the file | default | may be | what it does |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        text += &format!(
            "| `--{}` | `{}` | {} | {} | {} |\n",
            setting.flag,
            setting.key,
            setting.default_shown(),
            setting.kind.bound(),
            setting.help
        );
    }
    text
}

const DAY: u64 = 86_400;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

macro_rules! setting {
    ($key:literal, $flag:literal, $kind:expr, $default:expr, $help:literal, $($field:ident).+) => {
        setting!($key, $flag, $kind, $default, $help, $($field).+, false)
    };
    ($key:literal, $flag:literal, $kind:expr, $default:expr, $help:literal, $($field:ident).+, $common:literal) => {
        Setting {
            key: $key,
            flag: $flag,
            kind: $kind,
            default: $default,
            help: $help,
            common: $common,
            put: |config, value| config.$($field).+.put(value),
        }
    };
}

use Default::{Derived, Fixed, Unset};
use Kind::{Address, Bytes, Choice, Hosts, Number, Path, PowerOfTwo, Seconds, Switch, Text, TopicPart};

/// Every setting, in the order of the README's table.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    // The node.
    setting!("data", "data", Path, Fixed("data"),
        "Folder of the journal; made when it is not there. One node at a time.", data_dir, true),
    setting!("grpc.addr", "grpc", Address, Fixed("127.0.0.1:9004"),
        "Where gRPC listens. Port 0: a free one.", grpc_addr, true),
    setting!("http.addr", "http", Address, Fixed("127.0.0.1:9003"),
        "Where /healthz, /readyz and /metrics are. Port 0: a free one.", http_addr, true),
    setting!("durability", "durability", Choice(&["journal", "memory"]), Fixed("journal"),
        "journal: an answer leaves after it is on disk. memory: nothing survives the process.", durability, true),
    setting!("io", "io", Choice(&["auto", "uring", "posix"]), Fixed("auto"),
        "How the journal reaches the disk; auto takes what measured best and is to be had.", io, true),
    setting!("accept_clock", "accept-clock", Switch, Fixed("false"),
        "Accept the wall clock as it is after a CLOCK_JUMP; give it for one start.", accept_clock, true),
    setting!("shutdown_seconds", "shutdown-seconds", Seconds { min: 1, max: 600 }, Fixed("8"),
        "Longest time for what is in flight after SIGTERM.", shutdown_seconds),
    setting!("log_level", "log-level", Choice(&["error", "warn", "info", "debug", "trace"]), Fixed("info"),
        "Least level of the lines written to stderr.", log_level),
    setting!("ready_file", "ready-file", Path, Unset,
        "Written once the node serves: JSON with the addresses and the process id.", ready_file),

    // Shards.
    setting!("shard.count", "shards", Number { min: 1, max: 32 }, Fixed("1"),
        "Threads that own approvals, each with its own journal. May change between two starts.", shard.count, true),
    setting!("shard.pin", "pin", Switch, Fixed("false"),
        "Bind each shard's thread to a core.", shard.pin),
    setting!("shard.spin_micros", "spin-micros", Number { min: 0, max: 1_000 }, Fixed("200"),
        "How long a lone caller's shard stays awake for its next call, while waits are short; 0: sleeps.", shard.spin_micros),
    setting!("shard.ring_slots", "ring-slots", PowerOfTwo { min: 16, max: 1 << 20 }, Fixed("8192"),
        "Messages that wait for one shard; beyond that: OVERLOADED, or flow control on streams.", shard.ring_slots),

    // Limits.
    setting!("limits.approvals_max", "approvals-max", Number { min: 1, max: 1_000_000_000 },
        Derived(|machine| (machine.memory_bytes / KIB).clamp(10_000, 500_000_000), "one a KiB of memory"),
        "Approvals in memory: pending, and decided but not yet archived.", limits.approvals_max),
    setting!("limits.validators_max", "validators-max", Number { min: 1, max: 16_777_216 },
        Derived(|machine| (machine.memory_bytes / (4 * KIB)).clamp(65_536, 4_194_304), "one each 4 KiB of memory, at most 4,194,304"),
        "Distinct validator names held by votes and sets.", limits.validators_max),
    setting!("limits.eligible_sets_max", "eligible-sets-max", Number { min: 1, max: 16_777_216 }, Fixed("65536"),
        "Distinct sets of eligible validators.", limits.eligible_sets_max),
    setting!("limits.eligible_bytes_max", "eligible-bytes-max", Bytes { min: 64 * KIB, max: 64 * GIB },
        Derived(|machine| (machine.memory_bytes / 64).clamp(16 * MIB, GIB), "1/64 of memory, 16 MiB to 1 GiB"),
        "Bytes of all those sets together.", limits.eligible_bytes_max),
    setting!("limits.content_bytes_max", "content-bytes-max", Bytes { min: 0, max: MIB }, Fixed("65536"),
        "Content of one approval.", limits.content_bytes_max),
    setting!("limits.lifetime_default_seconds", "lifetime-default-seconds", Seconds { min: 1, max: 3_660 * DAY }, Fixed("86400"),
        "Lifetime of an approval that names no expires_at.", limits.lifetime_default_seconds),
    setting!("limits.lifetime_max_seconds", "lifetime-max-seconds", Seconds { min: 1, max: 3_660 * DAY }, Fixed("2592000"),
        "Longest lifetime that an approval may ask for.", limits.lifetime_max_seconds),
    setting!("limits.decided_keep_seconds", "decided-keep-seconds", Seconds { min: 60, max: DAY }, Fixed("60"),
        "How long a decided approval stays in memory after the archive has it.", limits.decided_keep_seconds),
    setting!("limits.id_filter_bytes", "id-filter-bytes", Bytes { min: 2 * MIB, max: 64 * GIB }, Fixed("536870912"),
        "Memory for the filter of ids that left memory, 12 bits each; beyond it older ones are looked up.", limits.id_filter_bytes),
    setting!("limits.watchers_max", "watchers-max", Number { min: 1, max: 1_000_000 },
        Derived(|machine| (machine.memory_bytes / (16 * MIB)).clamp(64, 10_000), "one each 16 MiB of memory, 64 to 10,000"),
        "Watches and subscriptions at a time.", limits.watchers_max),
    setting!("limits.watcher_buffer_bytes", "watcher-buffer-bytes", Bytes { min: 64 * KIB, max: GIB }, Fixed("1048576"),
        "What waits for one watcher before it is closed as too slow.", limits.watcher_buffer_bytes),
    setting!("limits.pending_streams_max", "pending-streams-max", Number { min: 1, max: 100_000 }, Fixed("64"),
        "streamPendingApprovals at a time.", limits.pending_streams_max),
    setting!("limits.batch_items_max", "batch-items-max", Number { min: 1, max: 65_536 }, Fixed("16384"),
        "Votes in one ApprovalBatch.", limits.batch_items_max),
    setting!("limits.unacknowledged_max", "unacknowledged-max", Number { min: 1, max: 16_777_216 }, Fixed("262144"),
        "Items in flight on one stream; beyond that the server stops reading.", limits.unacknowledged_max),
    setting!("limits.message_bytes_max", "message-bytes-max", Bytes { min: 64 * KIB, max: 64 * MIB }, Fixed("4194304"),
        "One gRPC message, decompressed.", limits.message_bytes_max),
    setting!("limits.connections_max", "connections-max", Number { min: 1, max: 1_000_000 }, Fixed("2048"),
        "gRPC connections at a time.", limits.connections_max),
    setting!("limits.streams_per_connection_max", "streams-per-connection-max", Number { min: 1, max: 65_536 }, Fixed("1024"),
        "Calls at a time on one connection.", limits.streams_per_connection_max),
    setting!("limits.subscriptions_per_stream_max", "subscriptions-per-stream-max", Number { min: 1, max: 1_024 }, Fixed("16"),
        "Subscriptions on one bidirectional stream.", limits.subscriptions_per_stream_max),

    // Journal.
    setting!("journal.segment_bytes", "segment-bytes", Bytes { min: MIB, max: 16 * GIB }, Fixed("268435456"),
        "One journal file, in whole blocks of 4 KiB; the first ones after a start are smaller.", journal.segment_bytes),
    setting!("journal.pool_segments", "pool-segments", Number { min: 1, max: 64 }, Fixed("2"),
        "Files prepared ahead, for all shards together.", journal.pool_segments),
    setting!("journal.frame_bytes_max", "frame-bytes-max", Bytes { min: 64 * KIB, max: 64 * MIB }, Fixed("4194304"),
        "Largest commit, in whole blocks of 4 KiB: one write, one sync.", journal.frame_bytes_max),
    setting!("journal.folder_bytes_max", "folder-bytes-max", Bytes { min: 0, max: 1 << 50 }, Fixed("0"),
        "The data folder; at it new work is refused with NO_SPACE. 0: the disk is the bound.", journal.folder_bytes_max),
    setting!("journal.reserve_bytes", "reserve-bytes", Bytes { min: MIB, max: 1 << 40 }, Fixed("67108864"),
        "Room kept for expiry, shutdown and the snapshot that frees space.", journal.reserve_bytes),
    setting!("journal.keep_seconds", "journal-keep-seconds", Seconds { min: 0, max: 3_660 * DAY }, Fixed("3600"),
        "Segments are kept this long …", journal.keep_seconds),
    setting!("journal.keep_bytes", "journal-keep-bytes", Bytes { min: 0, max: 1 << 50 }, Fixed("4294967296"),
        "… or up to this size, whichever ends first; then until a snapshot and every sink are past them.", journal.keep_bytes),
    setting!("journal.snapshot_events", "snapshot-events", Number { min: 1_000, max: 1_000_000_000_000 }, Fixed("20000000"),
        "A snapshot starts when this many events …", journal.snapshot_events),
    setting!("journal.snapshot_bytes", "snapshot-bytes", Bytes { min: MIB, max: 1 << 50 }, Fixed("2147483648"),
        "… or this many bytes follow the last one.", journal.snapshot_bytes),

    // The archive and other sinks.
    setting!("archive.kind", "archive", Choice(&["auto", "none", "sqlite", "postgres"]), Fixed("auto"),
        "What keeps history for queries. auto: PostgreSQL where DB_URL is set, otherwise SQLite.", archive.kind, true),
    setting!("archive.batch_events_max", "archive-batch-events-max", Number { min: 1, max: 1 << 20 }, Fixed("16384"),
        "Events in one transaction …", archive.batch_events_max),
    setting!("archive.batch_bytes_max", "archive-batch-bytes-max", Bytes { min: 4 * KIB, max: GIB }, Fixed("8388608"),
        "… or about so many bytes.", archive.batch_bytes_max),
    setting!("archive.linger_millis", "archive-linger-millis", Number { min: 0, max: 10_000 }, Fixed("20"),
        "How long a transaction that is not full waits for more.", archive.linger_millis),
    setting!("sinks.lag_bytes_max", "sink-lag-bytes-max", Bytes { min: 0, max: 1 << 50 }, Fixed("34359738368"),
        "Journal that a sink may lack before new approvals are refused; 0: the folder is the bound.", sinks.lag_bytes_max),
    setting!("sinks.file.dir", "file-sink-dir", Path, Unset,
        "Folder for events as lines of JSON, each once and in each log's order; none without it.", sinks.file.dir),
    setting!("sinks.file.rotate_bytes", "file-sink-rotate-bytes", Bytes { min: 4 * KIB, max: 1 << 40 }, Fixed("268435456"),
        "The next file of events begins at this size.", sinks.file.rotate_bytes),
    setting!("sinks.file.keep", "file-sink-keep", Number { min: 0, max: 1_000_000_000 }, Fixed("0"),
        "Files of events that are kept, the one in use included. 0: all.", sinks.file.keep),

    // gRPC.
    setting!("grpc.worker_threads", "grpc-worker-threads", Number { min: 1, max: 256 },
        Derived(|machine| (machine.cores as u64).clamp(1, 256), "one a core"),
        "Threads that read and write connections.", grpc.worker_threads),
    setting!("grpc.stream_window_bytes", "stream-window-bytes", Bytes { min: 64 * KIB, max: GIB }, Fixed("4194304"),
        "HTTP/2 window of a call.", grpc.stream_window_bytes),
    setting!("grpc.connection_window_bytes", "connection-window-bytes", Bytes { min: 64 * KIB, max: GIB }, Fixed("8388608"),
        "HTTP/2 window of a connection.", grpc.connection_window_bytes),
    setting!("grpc.frame_bytes", "http2-frame-bytes", Bytes { min: 16 * KIB, max: 16 * MIB - 1 }, Fixed("1048576"),
        "Largest HTTP/2 frame taken.", grpc.frame_bytes),
    setting!("grpc.keepalive_interval_seconds", "keepalive-interval-seconds", Seconds { min: 1, max: DAY }, Fixed("30"),
        "A silent connection is asked after this time.", grpc.keepalive_interval_seconds),
    setting!("grpc.keepalive_timeout_seconds", "keepalive-timeout-seconds", Seconds { min: 1, max: DAY }, Fixed("10"),
        "A connection that does not answer is closed after this time.", grpc.keepalive_timeout_seconds),

    // HTTP.
    setting!("http.connections_max", "http-connections-max", Number { min: 1, max: 65_536 }, Fixed("256"),
        "HTTP connections at a time.", http.connections_max),
    setting!("http.header_timeout_seconds", "http-header-timeout-seconds", Seconds { min: 1, max: 600 }, Fixed("5"),
        "A connection that has not sent its request's head by then is closed.", http.header_timeout_seconds),

    // TLS.
    setting!("tls.cert", "tls-cert", Path, Unset,
        "PEM certificate chain of both ports (TLS 1.3).", tls.cert, true),
    setting!("tls.key", "tls-key", Path, Unset,
        "PEM private key of the certificate.", tls.key, true),
    setting!("tls.client_ca", "tls-client-ca", Path, Unset,
        "PEM certificates of who may sign clients; when given, clients must show one (mutual TLS).", tls.client_ca, true),

    // Kafka.
    setting!("kafka.brokers", "kafka-brokers", Hosts, Unset,
        "Kafka's brokers; events go to approval-events. KAFKA_BROKERS says the same.", kafka.brokers, true),
    setting!("kafka.topic_prefix", "kafka-topic-prefix", TopicPart, Unset,
        "In front of every topic's name: separates deployments on one cluster.", kafka.topic_prefix),
    setting!("kafka.partitions", "kafka-partitions", Number { min: 0, max: 10_000 }, Fixed("0"),
        "Partitions of approval-events. 0: as it has them, 6 when it is made.", kafka.partitions),
    setting!("kafka.replication", "kafka-replication", Number { min: 0, max: 100 }, Fixed("0"),
        "Copies of each partition when a topic is made. 0: the broker's default.", kafka.replication),
    setting!("kafka.compression", "kafka-compression", Choice(&["none", "gzip", "snappy", "lz4"]), Fixed("lz4"),
        "How records are compressed.", kafka.compression),
    setting!("kafka.queue_bytes_max", "kafka-queue-bytes-max", Bytes { min: 16 * MIB, max: 2 * GIB - MIB }, Fixed("134217728"),
        "Keys and values that wait in the client.", kafka.queue_bytes_max),
    setting!("kafka.transaction_events_max", "kafka-transaction-events-max", Number { min: 1, max: 1_000_000 }, Fixed("100000"),
        "Events in one transaction.", kafka.transaction_events_max),
    setting!("kafka.linger_millis", "kafka-linger-millis", Number { min: 0, max: 60_000 }, Fixed("20"),
        "How long a transaction that is not full waits for more.", kafka.linger_millis),
    setting!("kafka.transaction_timeout_seconds", "kafka-transaction-timeout-seconds", Seconds { min: 1, max: 900 }, Fixed("60"),
        "A transaction that takes longer is given up and sent again.", kafka.transaction_timeout_seconds),
    setting!("kafka.answer_timeout_seconds", "kafka-answer-timeout-seconds", Seconds { min: 1, max: 600 }, Fixed("10"),
        "Longest wait for a broker, for topics and for the position.", kafka.answer_timeout_seconds),
    setting!("kafka.security", "kafka-security", Choice(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]), Fixed("plaintext"),
        "How brokers are spoken to; ssl needs a build with the feature kafka-tls.", kafka.security),
    setting!("kafka.tls_ca", "kafka-tls-ca", Path, Unset,
        "PEM certificates of who may sign brokers.", kafka.tls_ca),
    setting!("kafka.sasl_mechanism", "kafka-sasl-mechanism", Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]), Fixed("PLAIN"),
        "How this node proves who it is; SCRAM needs a build with the feature kafka-tls.", kafka.sasl_mechanism),
    setting!("kafka.sasl_username", "kafka-sasl-username", Text, Unset,
        "Who this node is to the brokers.", kafka.sasl_username),
    setting!("kafka.sasl_password_file", "kafka-sasl-password-file", Path, Unset,
        "File with the password, and nothing else but a line's end.", kafka.sasl_password_file),
];
