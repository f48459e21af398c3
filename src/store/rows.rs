//! What goes into the store, and what comes out of it.

use crate::model::{
    ApprovalId, ApprovalState, ApprovalType, ContentHash, Decision, EligibleSet, LogId, Micros, Outcome, Position,
    Priority, RequesterId, Status, Tally, ValidatorId,
};
use bytes::Bytes;
use std::sync::Arc;

/// A transaction's rows. An approval opened and decided in the same batch is one row written once:
/// its outcome stands in `approvals`, not in `outcomes`.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub approvals: Vec<NewApproval>,
    pub votes: Vec<NewVote>,
    /// Of approvals opened in an earlier batch.
    pub outcomes: Vec<NewOutcome>,
    /// Where each log stands after this batch; only logs that moved.
    pub after: Vec<Position>,
}

/// A row of `approval_requests`.
#[derive(Clone, Debug)]
pub struct NewApproval {
    pub id: ApprovalId,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterId,
    pub content: Bytes,
    pub content_hash: ContentHash,
    pub required: u16,
    pub total: u16,
    pub created_at: Micros,
    pub expires_at: Micros,
    /// Of the request as sent: tells a repeat from another request with the same id.
    pub digest: [u8; 16],
    pub eligible: Option<Arc<EligibleSet>>,
    /// Its opening.
    pub opened: Position,
    pub outcome: Option<NewOutcome>,
}

/// How an approval was decided.
#[derive(Clone, Copy, Debug)]
pub struct NewOutcome {
    pub id: ApprovalId,
    pub outcome: Outcome,
    pub tally: Tally,
    pub finalized_at: Micros,
    /// Of the approval after the deciding event.
    pub version: u32,
    /// The deciding event.
    pub decided: Position,
}

/// A row of `approval_responses`.
#[derive(Clone, Debug)]
pub struct NewVote {
    pub approval: ApprovalId,
    pub validator: Arc<str>,
    pub decision: Decision,
    pub reason: Box<str>,
    pub signature: Box<[u8]>,
    pub voted_at: Micros,
    /// Of the approval after this vote: unique and rising within an approval.
    pub version: u32,
    pub at: Position,
}

/// An event that the database would not take.
#[derive(Clone, Debug)]
pub struct Reject {
    pub at: Position,
    pub approval: ApprovalId,
    /// The event as JSON or bytes: enough to enter it by hand.
    pub event: Vec<u8>,
    pub reason: String,
}

/// An approval as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Archived {
    /// As memory held it. `last_event` has the sequence, and 0 for the log's ordinal: the log is beside it.
    pub state: ApprovalState,
    pub log: LogId,
    pub digest: [u8; 16],
}

/// A vote as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedVote {
    pub validator: ValidatorId,
    pub decision: Decision,
    pub reason: Box<str>,
    pub signature: Box<[u8]>,
    pub voted_at: Micros,
    pub version: u32,
    pub at: Position,
}

/// What a list selects; `None`: any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListFilter {
    pub status: Option<Status>,
    pub approval_type: Option<ApprovalType>,
    pub priority: Option<Priority>,
    pub requester: Option<RequesterId>,
    /// Who has voted on it.
    pub validator: Option<ValidatorId>,
    pub created: TimeRange,
}

/// From (inclusive) and to (exclusive).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TimeRange {
    pub from: Option<Micros>,
    pub to: Option<Micros>,
}

/// Where a page of a list ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListKey {
    pub created_at: Micros,
    pub id: ApprovalId,
}
