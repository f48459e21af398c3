//! What the Kafka sink needs to know, and the names that follow from it.

use rdkafka::ClientConfig;
use std::fmt;
use std::time::Duration;

/// Where events go, how much at a time, and how long an answer may take.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, with commas between.
    pub brokers: String,
    /// Whose events these are: each record says so.
    pub deployment: [u8; 16],
    /// In front of every topic's name: separates deployments on one cluster. May be empty.
    pub topic_prefix: String,
    /// Partitions of the topic of events; None: as it has them, [`PARTITIONS_WHEN_MADE`] when it is made.
    pub partitions: Option<u32>,
    /// Copies of each partition when a topic is made; None: the broker's own default.
    pub replication: Option<u32>,
    /// `none`, `gzip`, `snappy` or `lz4`.
    pub compression: String,
    /// Bound on what waits in the client, in bytes.
    pub queue_bytes_max: usize,
    /// Bound on the events of one transaction.
    pub transaction_events_max: usize,
    /// How long a transaction that is not full waits for more.
    pub linger: Duration,
    /// How long a transaction may take before the broker gives it up.
    pub transaction_timeout: Duration,
    /// How long connecting, looking at topics or reading the position may take.
    pub answer_timeout: Duration,
    /// Further properties of librdkafka, security included: as the operator gave them.
    pub properties: Vec<(String, String)>,
}

/// Partitions of the topic of events when nobody says.
pub const PARTITIONS_WHEN_MADE: u32 = 6;

/// The largest record: content of 1 MiB and the names of 32,767 eligible validators (2.1 MiB) fit.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// What the sink's guarantees rest on: no free property may change them.
const OWN_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("transactional.id", "the deployment"),
    ("transaction.timeout.ms", "kafka.transaction_timeout_seconds"),
    ("message.timeout.ms", "kafka.transaction_timeout_seconds"),
    ("delivery.timeout.ms", "kafka.transaction_timeout_seconds"),
    ("enable.idempotence", "exactly once"),
    ("enable.gapless.guarantee", "exactly once"),
    ("acks", "exactly once"),
    ("request.required.acks", "exactly once"),
    ("retries", "exactly once"),
    ("message.send.max.retries", "exactly once"),
    ("isolation.level", "exactly once"),
    ("partitioner", "the key's place (murmur2_random)"),
    ("compression.type", "kafka.compression"),
    ("compression.codec", "kafka.compression"),
    ("queue.buffering.max.kbytes", "kafka.queue_bytes_max"),
    ("queue.buffering.max.messages", "kafka.queue_bytes_max"),
    ("message.max.bytes", "the largest record"),
    ("delivery.report.only.error", "how failures are seen"),
    ("group.id", "how the position is read"),
    ("enable.partition.eof", "how the position is read"),
    ("enable.auto.commit", "how the position is read"),
    ("auto.offset.reset", "how the position is read"),
];

/// Who decides a property that no operator may set; None: it is free.
pub fn decided_by(property: &str) -> Option<&'static str> {
    OWN_PROPERTIES.iter().find(|(name, _)| *name == property).map(|(_, by)| *by)
}

/// Without the free properties: a password may be among them.
impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("events_topic", &self.events_topic())
            .field("deployment", &self.deployment_text())
            .finish_non_exhaustive()
    }
}

impl KafkaOptions {
    /// The topic of events, keyed by approval.
    pub fn events_topic(&self) -> String {
        format!("{}approval-events", self.topic_prefix)
    }

    /// The compacted topic with the position of each log.
    pub fn cursor_topic(&self) -> String {
        format!("{}approval-events-cursor", self.topic_prefix)
    }

    /// As records name it.
    pub fn deployment_text(&self) -> String {
        uuid::Uuid::from_bytes(self.deployment).to_string()
    }

    /// One for each data folder: whoever starts with it fences who had it before.
    pub fn transactional_id(&self) -> String {
        format!("{}assent-{}", self.topic_prefix, self.deployment_text())
    }

    /// What every client of the sink shares.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        if !self.properties.iter().any(|(name, _)| name == "client.id") {
            config.set("client.id", "assent");
        }
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("transactional.id", self.transactional_id())
            .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string());
        self.writing(&mut config);
        config
    }

    /// What whoever writes shares.
    pub(super) fn writing(&self, config: &mut ClientConfig) {
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", &self.compression)
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            // Bounded by bytes alone: 0 lifts the bound on their number.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", (self.queue_bytes_max >> 10).to_string())
            .set("delivery.report.only.error", "true");
    }
}
