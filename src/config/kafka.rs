//! Settings of Kafka, and what the sink is told of them.

use super::Error;
use crate::sinks::kafka::{KafkaOptions, decided_by};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// In front of a property of librdkafka in the file: `[kafka.properties]`.
pub(super) const PROPERTIES: &str = "kafka.properties.";

/// Kafka; on when brokers are given.
#[derive(Clone, Debug, Default)]
pub struct Kafka {
    pub brokers: Option<String>,
    pub topic_prefix: String,
    /// 0: as the topic has them.
    pub partitions: u32,
    /// 0: the broker's default.
    pub replication: u32,
    pub compression: &'static str,
    pub queue_bytes_max: usize,
    pub transaction_events_max: usize,
    pub linger_millis: u64,
    pub transaction_timeout_seconds: u64,
    pub answer_timeout_seconds: u64,
    /// As librdkafka spells it: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security: &'static str,
    pub tls_ca: Option<PathBuf>,
    pub sasl_mechanism: &'static str,
    pub sasl_username: Option<String>,
    pub sasl_password_file: Option<PathBuf>,
    /// Any other property of librdkafka, passed through.
    pub properties: BTreeMap<String, String>,
}

/// Properties that have settings of their own.
const HAVE_SETTINGS: &[(&str, &str)] = &[
    ("security.protocol", "kafka.security"),
    ("ssl.ca.location", "kafka.tls_ca"),
    ("sasl.mechanism", "kafka.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.sasl_mechanism"),
    ("sasl.username", "kafka.sasl_username"),
    ("sasl.password", "kafka.sasl_password_file"),
];

impl Kafka {
    /// What its settings demand of each other, of the build, and of the free properties.
    pub(super) fn check(&self) -> Result<(), Error> {
        let clash = |key, message: String| Err(Error::clash(key, message));
        for name in self.properties.keys() {
            if let Some(by) = decided_by(name) {
                return clash("kafka.properties", format!("{name} cannot be set: it follows from {by}"));
            }
            if let Some((_, setting)) = HAVE_SETTINGS.iter().find(|(property, _)| property == name) {
                return clash("kafka.properties", format!("{name} has a setting of its own: {setting}"));
            }
        }
        if cfg!(not(feature = "kafka-tls")) {
            let without = "this build has no TLS to Kafka; build it with `cargo build --release --features kafka-tls`";
            if self.security.ends_with("ssl") {
                return clash("kafka.security", format!("{}: {without}", self.security));
            }
            if self.sasl_mechanism.starts_with("SCRAM") {
                return clash("kafka.sasl_mechanism", format!("{}: {without}", self.sasl_mechanism));
            }
        }
        if self.is_sasl() {
            for (key, given) in [
                ("kafka.sasl_username", self.sasl_username.is_some()),
                ("kafka.sasl_password_file", self.sasl_password_file.is_some()),
            ] {
                if !given {
                    return clash(key, format!("kafka.security = {} needs it", self.security));
                }
            }
        }
        Ok(())
    }

    /// What the sink of this deployment needs; None when Kafka is off. Reads the password's file.
    pub fn options(&self, deployment: [u8; 16]) -> Result<Option<KafkaOptions>, Error> {
        let Some(brokers) = &self.brokers else { return Ok(None) };
        let mut properties: Vec<(String, String)> = self.properties.clone().into_iter().collect();
        let mut set = |name: &str, value: String| properties.push((name.into(), value));
        set("security.protocol", self.security.into());
        if let Some(path) = &self.tls_ca {
            set("ssl.ca.location", path.to_string_lossy().into());
        }
        if let (true, Some(path)) = (self.is_sasl(), &self.sasl_password_file) {
            let password = std::fs::read_to_string(path).map_err(|error| {
                Error::clash("kafka.sasl_password_file", format!("{} cannot be read: {error}", path.display()))
            })?;
            set("sasl.mechanisms", self.sasl_mechanism.into());
            set("sasl.username", self.sasl_username.clone().unwrap_or_default());
            set("sasl.password", password.trim_end_matches(['\r', '\n']).into());
        }
        Ok(Some(KafkaOptions {
            brokers: brokers.clone(),
            deployment,
            topic_prefix: self.topic_prefix.clone(),
            partitions: (self.partitions > 0).then_some(self.partitions),
            replication: (self.replication > 0).then_some(self.replication),
            compression: self.compression.into(),
            queue_bytes_max: self.queue_bytes_max,
            transaction_events_max: self.transaction_events_max,
            linger: Duration::from_millis(self.linger_millis),
            transaction_timeout: Duration::from_secs(self.transaction_timeout_seconds),
            answer_timeout: Duration::from_secs(self.answer_timeout_seconds),
            properties,
        }))
    }

    fn is_sasl(&self) -> bool {
        self.security.starts_with("sasl")
    }
}
