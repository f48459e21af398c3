//! The rules of an approval: pure, synchronous, deterministic. `decide` reads, `apply` writes and
//! cannot fail; commands do both and hand the event to an [`EventSink`] in between. Replay is
//! decode and apply. Time enters with the command ([`Clock`]); there is no I/O, clock, randomness
//! or thread here. Left to others: what is legal (`wire`), bytes on disk (`journal`), who is told
//! when (`shard`).
//!
//! # Bytes of a pending approval (Q = 4, N = 16, five votes; content is on disk)
//!
//! | what | bytes | where |
//! |---|---|---|
//! | hot line: id, tally, quorum, times, references | 64 | `record` |
//! | cold line: request digest, content hash, times | 64 | `record` |
//! | timer links; once decided, its place in line | 8 | `timer`, `line` |
//! | index entry, 8 bytes at 58 to 87 % full | 9 to 14 | `table` |
//! | votes: bitmap (validator numbers below 64) / list of 5 to 8 | 16 / 32 | `votes` |
//! | **together** | **161 to 182** | measured, with the slack of chunks: 167 to 187 at 1 M and 10 M |
//!
//! Beside it, once for all that share it: a validator 44 to 110 bytes, a requester 41 to 46, an
//! eligible set 4 to 12 a member and about 120. A label instead of a SHA-256 takes 16 to 256 more.
//! All of it lies in chunks of 2 MiB (`memory`) that never move: nothing grows by copying, except an
//! index table, which holds a thousandth of the approvals of a folder.
//!
//! # Bounds
//!
//! [`Limits`] bound what openings may add. Votes on open approvals go on past the limit on names:
//! distinct names stay below that limit plus the sum of N over the approvals in memory, and in
//! practice far below. Nothing else grows with what strangers send: a refused vote leaves no trace.

mod apply;
mod batch;
mod blocks;
mod commands;
mod decide;
mod evict;
mod line;
mod memory;
mod names;
mod read;
mod record;
mod replay;
mod snapshot;
mod table;
mod timer;
mod votes;

pub use commands::{EXPIRY_BYTES_MAX, VOTE_BYTES_MAX, opening_bytes_max};
pub use decide::VoteDecision;
pub use memory::Pool;
pub use read::{Approval, Page};
pub use replay::{ReplayError, Replayer};
pub use snapshot::SnapshotError;

use crate::model::{ApprovalId, EventSink, Micros, Outcome, PARTITIONS, PartitionKey};
use blocks::Blocks;
use line::Line;
use memory::Use;
use names::{Requesters, Sets, Validators};
use record::Records;
use std::sync::Arc;
use table::Index;
use timer::Timers;

/// The time a command is judged by, read once a batch by the caller; it never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: Micros,
    /// False while the clock is in doubt: nothing expires, on touch either.
    pub expire: bool,
}

impl Clock {
    pub const fn at(now: Micros) -> Clock {
        Clock { now, expire: true }
    }
}

/// What openings may add, for one engine (a node's settings divided by its shards).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Approvals in memory: pending, decided, not yet archived.
    pub approvals_max: usize,
    /// Distinct validator names held by votes and sets.
    pub validators_max: usize,
    /// Distinct eligible sets.
    pub eligible_sets_max: usize,
    /// Memory for them, their members' names apart.
    pub eligible_set_bytes_max: usize,
    pub content_bytes_max: usize,
    /// Without an `expires_at`.
    pub lifetime_default_us: u64,
    pub lifetime_max_us: u64,
}

impl Limits {
    /// The settings' names, as refusals give them.
    pub const APPROVALS_MAX: &'static str = "approvals_max";
    pub const VALIDATORS_MAX: &'static str = "validators_max";
    pub const ELIGIBLE_SETS_MAX: &'static str = "eligible_sets_max";
    pub const ELIGIBLE_SET_BYTES_MAX: &'static str = "eligible_bytes_max";

    /// Defaults for an engine that may use about so many bytes: half for approvals at 256 bytes
    /// each, an eighth for names at 128, an eighth for sets; the rest is room for large votes.
    pub fn for_memory(bytes: usize) -> Limits {
        Limits {
            approvals_max: (bytes / 2 / 256).clamp(10_000, record::RECORDS_MAX as usize / 2),
            validators_max: (bytes / 8 / 128).clamp(100_000, votes::VALIDATORS_MAX as usize / 16),
            eligible_sets_max: (bytes / 8 / 4_096).clamp(1_000, 1 << 20),
            eligible_set_bytes_max: (bytes / 8).max(16 << 20),
            content_bytes_max: 64 << 10,
            lifetime_default_us: 24 * 3_600 * Micros::SECOND,
            lifetime_max_us: 30 * 24 * 3_600 * Micros::SECOND,
        }
    }
}

/// How much is in memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    pub approvals: usize,
    pub pending: usize,
    pub approved: usize,
    pub rejected: usize,
    pub expired: usize,
    pub validators: usize,
    pub requesters: usize,
    pub eligible_sets: usize,
    pub eligible_set_bytes: usize,
    /// Chunks taken from the system, in bytes; what is resident is at most this, and a little.
    pub bytes: usize,
}

/// The approvals of a shard and the rules that change them.
///
/// Commands: [`Engine::votes`], [`Engine::vote`], [`Engine::open`], [`Engine::touch`],
/// [`Engine::expire_due`]. Reads: [`Engine::state`] and the pages, which show what is, so
/// [`Engine::touch`] first. Recovery: [`Engine::read_partition`], then a [`Replayer`] for each log.
pub struct Engine {
    key: PartitionKey,
    limits: Limits,
    index: Index,
    records: Records,
    /// Votes and labels.
    blocks: Blocks,
    timers: Timers,
    /// What is decided, in the order of the decisions.
    decided: Line,
    validators: Validators,
    requesters: Requesters,
    sets: Sets,
    approved: usize,
    rejected: usize,
    expired: usize,
    /// The latest time that a command or event brought.
    latest: Micros,
    /// Room for what a turn of the timers hands out.
    due: Vec<u32>,
}

impl Engine {
    /// An engine that maps its own memory: for tests, and where a millisecond does not matter.
    pub fn new(key: PartitionKey, limits: Limits) -> Engine {
        Engine::with_pool(key, limits, &Pool::new(0))
    }

    /// An engine that takes its memory from a pool, while that has some.
    pub fn with_pool(key: PartitionKey, limits: Limits, pool: &Arc<Pool>) -> Engine {
        Engine {
            key,
            limits,
            index: Index::new(PARTITIONS.trailing_zeros(), Use::Hot, pool),
            records: Records::new(pool),
            blocks: Blocks::new(Use::Hot, pool),
            timers: Timers::new(pool),
            decided: Line::EMPTY,
            validators: Validators::new(key, pool),
            requesters: Requesters::new(key, pool),
            sets: Sets::new(key, pool),
            approved: 0,
            rejected: 0,
            expired: 0,
            latest: Micros(0),
            due: Vec::new(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The latest time that a command or a replayed opening or decision brought: the clock must
    /// not go behind it.
    pub fn latest(&self) -> Micros {
        self.latest
    }

    /// Cheap: asked for in every turn.
    pub fn counters(&self) -> Counters {
        let pending = self.timers.len();
        Counters {
            approvals: pending + self.approved + self.rejected + self.expired,
            pending,
            approved: self.approved,
            rejected: self.rejected,
            expired: self.expired,
            validators: self.validators.len(),
            requesters: self.requesters.len(),
            eligible_sets: self.sets.len(),
            eligible_set_bytes: self.sets.bytes(),
            bytes: self.records.bytes()
                + self.blocks.bytes()
                + self.timers.bytes()
                + self.index.bytes()
                + self.validators.bytes()
                + self.requesters.bytes(),
        }
    }

    /// Approvals of a partition (0 to 1,023).
    pub fn partition_len(&self, partition: u32) -> usize {
        self.index.count(partition as usize)
    }

    fn counter(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Approved => &mut self.approved,
            Outcome::Rejected => &mut self.rejected,
            Outcome::Expired => &mut self.expired,
        }
    }

    fn find(&self, id: &ApprovalId) -> Option<u32> {
        self.find_hashed(self.key.hash(id), id)
    }

    #[inline]
    fn find_hashed(&self, hash: u64, id: &ApprovalId) -> Option<u32> {
        self.index.find(hash, |record| self.records.hot(record).id == *id)
    }

    fn step(&mut self, clock: Clock) {
        assert!(clock.now >= self.latest, "time went back from {} to {}", self.latest, clock.now);
        self.latest = clock.now;
    }

    /// Defines the requester of a record in this segment, unless it is.
    #[inline(always)]
    fn define_requester<S: EventSink>(&mut self, record: u32, segment: u64, sink: &mut S) {
        let hot = self.records.hot_mut(record);
        let mark = record::segment_mark(segment);
        if hot.requester_defined != mark {
            hot.requester_defined = mark;
            let requester = hot.requester;
            self.define_requester_slow(requester, segment, sink);
        }
    }

    fn define_requester_slow<S: EventSink>(&mut self, requester: u32, segment: u64, sink: &mut S) {
        if self.requesters.define_in(requester, segment) {
            sink.define_requester(crate::model::RequesterRef(requester), &self.requesters.id(requester));
        }
    }
}
