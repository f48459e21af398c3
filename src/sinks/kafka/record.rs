//! An event as a record: the approval's id as key, the contract's `ApprovalEvent` as value, headers.
//!
//!     header           value
//!     deployment       UUID of the data folder's deployment, lower case, hyphenated
//!     log, sequence    decimal: with them a consumer knows an event that it has seen
//!     type             CREATED, UPDATED or FINALIZED
//!     content-type     application/x-protobuf;messageType=aurigraph.approvals.v1.ApprovalEvent
//!     schema-version   1

use crate::model::LogId;
use crate::shard::FeedEvent;
use crate::sinks::message::{event_message, event_type};
use crate::wire::v1::ApprovalEventType;
use prost::Message;
use rdkafka::message::{Header, OwnedHeaders};
use std::io::Write;

pub const CONTENT_TYPE: &str = "application/x-protobuf;messageType=aurigraph.approvals.v1.ApprovalEvent";
pub const SCHEMA_VERSION: &str = "1";

/// Writes one record after another into the same memory.
pub struct RecordWriter {
    deployment: String,
    log: String,
    sequence: Vec<u8>,
    key: [u8; 36],
    value: Vec<u8>,
}

impl RecordWriter {
    pub fn new(deployment: String) -> RecordWriter {
        RecordWriter { deployment, log: String::new(), sequence: Vec::new(), key: [0; 36], value: Vec::new() }
    }

    /// What follows is of this log.
    pub fn begin(&mut self, log: LogId) {
        self.log = log.0.to_string();
    }

    /// Key, value and headers of the event.
    pub fn write(&mut self, event: &FeedEvent, log: LogId) -> (&[u8], &[u8], OwnedHeaders) {
        uuid::Uuid::from_bytes(event.approval.0).hyphenated().encode_lower(&mut self.key);
        self.value.clear();
        event_message(event, log).encode(&mut self.value).expect("a vector takes any message");
        self.sequence.clear();
        write!(self.sequence, "{}", event.at.sequence()).expect("a vector takes any text");
        let word = match event_type(event) {
            ApprovalEventType::Created => "CREATED",
            ApprovalEventType::Updated => "UPDATED",
            ApprovalEventType::Finalized => "FINALIZED",
            ApprovalEventType::Unspecified => unreachable!("an event is one of three"),
        };
        let headers = OwnedHeaders::new_with_capacity(HEADERS)
            .insert(Header { key: "deployment", value: Some(&self.deployment) })
            .insert(Header { key: "log", value: Some(&self.log) })
            .insert(Header { key: "sequence", value: Some(&self.sequence) })
            .insert(Header { key: "type", value: Some(word) })
            .insert(Header { key: "content-type", value: Some(CONTENT_TYPE) })
            .insert(Header { key: "schema-version", value: Some(SCHEMA_VERSION) });
        (&self.key, &self.value, headers)
    }
}

const HEADERS: usize = 6;
