//! What crosses a shard's ring, and what comes back.

use super::{IdFilter, StreamLedger};
use crate::engine::{Clock, Engine};
use crate::metrics::ShardMetrics;
use crate::model::{CommandSource, EventSink, OpenRequest, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// For an id that [`Shards::known`](super::Shards::known) could not call new.
    pub absence: Option<Absence>,
}

/// A proof that the archive was asked for an id and did not have it. It expires before anything
/// that is opened after the look-up could be decided, archived and forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Absence {
    looked_up_at: Instant,
}

impl Absence {
    /// How long a proof holds. What is decided stays in memory longer than this after it is archived.
    pub const HOLDS: Duration = Duration::from_secs(10);

    /// Of a look-up that begins now: taken before the question goes out.
    pub fn now() -> Absence {
        Absence { looked_up_at: Instant::now() }
    }

    /// Of a look-up that began then.
    pub fn at(looked_up_at: Instant) -> Absence {
        Absence { looked_up_at }
    }

    pub fn is_fresh(&self) -> bool {
        self.looked_up_at.elapsed() < Absence::HOLDS
    }
}

/// Runs on the shard's thread, in a turn; what it returns runs after the commit of that turn, on the
/// front's runtime or, of a commit with few, on the shard's thread: it only wakes.
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
    /// Of ids that memory may have forgotten.
    pub ids: &'a IdFilter,
    pub sink: &'a mut dyn EventSink,
    pub metrics: &'a ShardMetrics,
}
