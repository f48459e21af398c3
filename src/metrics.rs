//! Every metric's name, labels and help in one table, and the instruments behind it.
//!
//! Rooms write: a shard its own [`ShardMetrics`] (no line is shared between shards; it adds once a
//! batch, never once a vote), the gRPC front its [`FrontMetrics`]. Fronts read: [`Metrics::render`]
//! is Prometheus text, [`Metrics::totals`] what checkHealth and streamMetrics say. Both come from
//! [`table::METRICS`]. Left to others: when a thing counts.

mod instrument;
mod process;
pub mod table;

pub use instrument::{Counter, Distribution, Gauge, Held, Histogram, StripedHistogram};
pub use process::Process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Refusal reasons by number, as in the proto's RefusalReason; 0 is none.
pub const REASONS: [&str; 16] = [
    "UNSPECIFIED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "APPROVAL_CLOSED",
    "APPROVAL_DECIDED",
    "VOTE_STANDS",
    "NOT_ELIGIBLE",
    "CONTENT_HASH_MISMATCH",
    "ID_TAKEN",
    "LIMIT_REACHED",
    "NO_SPACE",
    "CLOCK_JUMP",
    "OVERLOADED",
    "STOPPING",
    "LOOK_UP_FIRST",
    "ARCHIVE_UNAVAILABLE",
];

/// Outcomes by their place in [`ShardMetrics::decided`].
pub const OUTCOMES: [&str; 3] = ["APPROVED", "REJECTED", "EXPIRED"];

/// google.rpc.Code by number.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The calls of ApprovalGrpcService, in the proto's order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(usize)]
pub enum Method {
    SubmitApprovalRequest,
    GetApprovalStatus,
    GetApprovalStatuses,
    SubmitValidatorResponse,
    WatchApprovalUpdates,
    StreamPendingApprovals,
    BatchSubmitResponses,
    BidirectionalApprovalStream,
    CheckHealth,
    StreamMetrics,
    ListApprovals,
}

impl Method {
    /// By number.
    pub const ALL: [Method; METHODS.len()] = [
        Method::SubmitApprovalRequest,
        Method::GetApprovalStatus,
        Method::GetApprovalStatuses,
        Method::SubmitValidatorResponse,
        Method::WatchApprovalUpdates,
        Method::StreamPendingApprovals,
        Method::BatchSubmitResponses,
        Method::BidirectionalApprovalStream,
        Method::CheckHealth,
        Method::StreamMetrics,
        Method::ListApprovals,
    ];
}

/// Names of [`Method`], by its number.
pub const METHODS: [&str; 11] = [
    "SubmitApprovalRequest",
    "GetApprovalStatus",
    "GetApprovalStatuses",
    "SubmitValidatorResponse",
    "WatchApprovalUpdates",
    "StreamPendingApprovals",
    "BatchSubmitResponses",
    "BidirectionalApprovalStream",
    "CheckHealth",
    "StreamMetrics",
    "ListApprovals",
];

/// Counts by refusal reason.
#[derive(Debug, Default)]
pub struct ByReason([Counter; REASONS.len()]);

impl ByReason {
    /// `number` as in the proto's RefusalReason (`Reason::number()`).
    #[inline]
    pub fn add(&self, number: u8, count: u64) {
        self.0[usize::from(number)].add(count);
    }

    pub fn get(&self, number: usize) -> u64 {
        self.0[number].get()
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// What one shard counts. Only its own thread writes; aligned so that no line is shared.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// First requests that opened an approval.
    pub requests_opened: Counter,
    pub request_repeats: Counter,
    pub requests_refused: ByReason,
    /// First votes that counted.
    pub votes_accepted: Counter,
    pub vote_repeats: Counter,
    pub votes_refused: ByReason,
    /// In the order of [`OUTCOMES`]: approved, rejected, expired.
    pub decided: [Counter; OUTCOMES.len()],
    /// Status and pending reads answered.
    pub reads: Counter,
    pub events: Counter,
    pub recovered_events: Gauge,
    pub recovery_micros: Gauge,

    pub commits: Counter,
    pub commit_bytes: Counter,
    /// Nanoseconds from the write handed to the disk to the sync done.
    pub commit_seconds: Histogram,
    /// Events of one commit.
    pub commit_events: Histogram,
    /// Thread CPU time of one turn of the loop, in nanoseconds: what a shard stops for.
    pub turn_cpu_seconds: Histogram,
    /// The same turn by the wall.
    pub turn_wall_seconds: Histogram,
    /// Decided and archived approvals that left memory.
    pub evicted: Counter,
    /// The node's, shared by its shards.
    pub id_filter: Arc<IdFilterMetrics>,
    pub snapshots: Counter,
    pub snapshot_sequence: Gauge,

    /// Pushes that found the ring full.
    pub ring_full: Counter,
    /// Times that the sleeping shard was woken.
    pub wakeups: Counter,
    /// Times that the watchdog had to wake it.
    pub watchdog: Counter,

    pub pending: Gauge,
    pub in_memory: Gauge,
    pub validators: Gauge,
    pub eligible_sets: Gauge,
    pub eligible_bytes: Gauge,
    pub journal_bytes: Gauge,
    pub journal_segments: Gauge,
    /// `published <= durable <= appended`.
    pub appended_sequence: Gauge,
    pub durable_sequence: Gauge,
    pub published_sequence: Gauge,
}

/// The filter of ids known before.
#[derive(Debug, Default)]
pub struct IdFilterMetrics {
    /// Memory allocated for it.
    pub bytes: Gauge,
    /// Ids in it.
    pub ids: Gauge,
    /// Generations dropped because the memory was used up.
    pub dropped: Counter,
}

/// What the gRPC front counts.
#[derive(Debug, Default)]
pub struct FrontMetrics {
    calls: [[Counter; CODES.len()]; METHODS.len()],
    /// Unary calls, from the request read to the answer ready, in nanoseconds.
    pub unary_seconds: StripedHistogram,
    /// Requests and votes that no shard answered: refused at the door, or by what the archive holds.
    pub requests_refused: ByReason,
    pub votes_refused: ByReason,
    /// Repeats of what only the archive still holds.
    pub request_repeats: Counter,
    pub vote_repeats: Counter,
    /// Questions put to the archive for calls and streams.
    pub look_ups: Counter,
    pub connections: Gauge,
    pub connections_refused: Counter,
    /// Bidirectional and batch streams open.
    pub streams: Gauge,
    /// Watches, follows and subscriptions open.
    pub watchers: Gauge,
    /// Watchers closed because they did not keep up.
    pub watchers_closed: Counter,
    /// Messages of state and change sent to watchers.
    pub updates_sent: Counter,
}

impl FrontMetrics {
    /// A call that ended; `code` is a google.rpc.Code.
    #[inline]
    pub fn call_ended(&self, method: Method, code: u32) {
        let code = (code as usize).min(CODES.len() - 1);
        self.calls[method as usize][code].increment();
    }

    pub fn calls(&self, method: usize, code: usize) -> u64 {
        self.calls[method][code].get()
    }
}

/// What the HTTP window counts.
#[derive(Debug, Default)]
pub struct WindowMetrics {
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub requests: Counter,
}

/// What one sink counts.
#[derive(Debug)]
pub struct SinkMetrics {
    pub name: &'static str,
    pub events: Counter,
    pub batches: Counter,
    pub retries: Counter,
    pub rejects: Counter,
    /// By its place in [`SINK_STATES`].
    pub state: Gauge,
    pub lag_events: Gauge,
    pub lag_bytes: Gauge,
    pub lag_millis: Gauge,
}

/// States of a sink, by number.
pub const SINK_STATES: [&str; 5] = ["starting", "up", "lagging", "down", "stopped"];

/// What a metric's labels say of the whole node.
#[derive(Clone, Debug)]
pub struct Identity {
    pub version: &'static str,
    /// `journal` or `memory`.
    pub durability: &'static str,
    pub shards: usize,
    /// Seconds since 1970, read by whoever starts the node.
    pub started_at_seconds: f64,
}

/// Every instrument of a node. One a process, shared.
#[derive(Debug)]
pub struct Metrics {
    pub identity: Identity,
    started: Instant,
    shards: Vec<Arc<ShardMetrics>>,
    pub id_filter: Arc<IdFilterMetrics>,
    pub front: FrontMetrics,
    pub window: WindowMetrics,
    sinks: Mutex<Vec<Arc<SinkMetrics>>>,
}

/// The node's sums, as in the proto's ServiceMetrics.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests answered: opened, repeated or refused.
    pub requests_submitted: u64,
    /// Votes answered: accepted, repeated or refused.
    pub responses_received: u64,
    pub events_emitted: u64,
    /// Pending approvals.
    pub active_approvals: u64,
    pub average_latency_ms: f64,
    pub approved: u64,
    pub rejected: u64,
    pub expired: u64,
    /// By reason's number: requests and votes together.
    pub refused: [u64; REASONS.len()],
    pub requests_opened: u64,
    pub votes_accepted: u64,
    /// Requests and votes together.
    pub repeats: u64,
    pub approvals_in_memory: u64,
    pub validators_known: u64,
    pub watchers: u64,
    pub journal_bytes: u64,
    /// Of the slowest shard.
    pub recovery_seconds: f64,
    pub uptime_seconds: f64,
    pub process: Process,
}

impl Metrics {
    pub fn new(identity: Identity) -> Arc<Metrics> {
        let id_filter = Arc::<IdFilterMetrics>::default();
        let shard = || ShardMetrics { id_filter: id_filter.clone(), ..ShardMetrics::default() };
        let shards = (0..identity.shards).map(|_| Arc::new(shard())).collect();
        let started = Instant::now();
        Arc::new(Metrics {
            identity,
            started,
            shards,
            id_filter,
            front: FrontMetrics::default(),
            window: WindowMetrics::default(),
            sinks: Mutex::default(),
        })
    }

    /// A new sink's own instruments.
    pub fn add_sink(&self, name: &'static str) -> Arc<SinkMetrics> {
        let sink = Arc::new(SinkMetrics {
            name,
            events: Counter::new(),
            batches: Counter::new(),
            retries: Counter::new(),
            rejects: Counter::new(),
            state: Gauge::new(),
            lag_events: Gauge::new(),
            lag_bytes: Gauge::new(),
            lag_millis: Gauge::new(),
        });
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).push(sink.clone());
        sink
    }

    pub fn sinks(&self) -> Vec<Arc<SinkMetrics>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A shard's own instruments, to be moved to its thread.
    pub fn shard(&self, index: usize) -> Arc<ShardMetrics> {
        Arc::clone(&self.shards[index])
    }

    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    /// Sums over shards and front. Reads /proc: for people and scrapers, not for a hot path.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            average_latency_ms: self.front.unary_seconds.read().mean() / 1e6,
            watchers: self.front.watchers.get(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            process: Process::read(),
            ..Totals::default()
        };
        let mut refuse = |requests: &ByReason, votes: &ByReason| {
            (0..REASONS.len()).for_each(|reason| totals.refused[reason] += requests.get(reason) + votes.get(reason));
            totals.requests_submitted += requests.total();
            totals.responses_received += votes.total();
        };
        refuse(&self.front.requests_refused, &self.front.votes_refused);
        let (requests, votes) = (self.front.request_repeats.get(), self.front.vote_repeats.get());
        self.shards.iter().for_each(|shard| refuse(&shard.requests_refused, &shard.votes_refused));
        totals.requests_submitted += requests;
        totals.responses_received += votes;
        totals.repeats += requests + votes;
        for shard in &self.shards {
            totals.requests_submitted += shard.requests_opened.get() + shard.request_repeats.get();
            totals.responses_received += shard.votes_accepted.get() + shard.vote_repeats.get();
            totals.requests_opened += shard.requests_opened.get();
            totals.votes_accepted += shard.votes_accepted.get();
            totals.repeats += shard.request_repeats.get() + shard.vote_repeats.get();
            totals.events_emitted += shard.events.get();
            totals.active_approvals += shard.pending.get();
            totals.approvals_in_memory += shard.in_memory.get();
            totals.validators_known += shard.validators.get();
            totals.journal_bytes += shard.journal_bytes.get();
            totals.recovery_seconds = totals.recovery_seconds.max(shard.recovery_micros.get() as f64 / 1e6);
            totals.approved += shard.decided[0].get();
            totals.rejected += shard.decided[1].get();
            totals.expired += shard.decided[2].get();
        }
        totals
    }

    /// Prometheus text, version 0.0.4.
    pub fn render(&self) -> String {
        table::render(self)
    }
}
