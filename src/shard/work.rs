//! What crosses a shard's ring, and what comes back.

use super::{Absence, StreamLedger};
use crate::engine::{Clock, Engine};
use crate::metrics::ShardMetrics;
use crate::model::{CommandSource, EventSink, OpenRequest, Refusal};
use std::sync::Arc;

/// One push to a shard.
pub enum Work {
    /// A run of a stream's votes: its item 0 is the stream's item `first_item`.
    Votes { stream: Arc<StreamLedger>, first_item: u64, end: u64, source: Box<dyn CommandSource> },
    /// A run of a stream's requests.
    Opens { stream: Arc<StreamLedger>, end: u64, requests: Vec<OpenItem> },
    /// A question to this shard alone: a unary call, a read, a slice for a watcher.
    Ask { ask: Ask, journal_bytes: usize },
}

/// A request of a stream, with its number there.
pub struct OpenItem {
    pub item: u64,
    pub request: OpenRequest,
    /// Proof that the id is free, where it may be known.
    pub absence: Option<Absence>,
}

/// Runs on the shard's thread, in a turn; what it returns runs after the commit of that turn, on the
/// front's runtime.
pub type Ask = Box<dyn FnOnce(&mut Turn<'_>) -> Answer + Send>;

/// Delivers an answer.
pub type Answer = Box<dyn FnOnce() + Send>;

/// What a question may use.
pub struct Turn<'a> {
    pub engine: &'a mut Engine,
    pub clock: Clock,
    /// Whether new approvals are taken now; why not, otherwise.
    pub opens: Result<(), Refusal>,
    /// Whether votes are taken now.
    pub votes: Result<(), Refusal>,
    /// The newest sequence appended, which is what the engine's state holds.
    pub sequence: u64,
    pub log_ordinal: u16,
    pub sink: &'a mut dyn EventSink,
    pub metrics: &'a ShardMetrics,
}
