//! What fronts hold: the shards by verbs, whatever their number and threads.

use super::{StreamLedger, Work};
use crate::model::{
    ApprovalId, ApprovalState, ContentHash, Decision, EventRef, LogId, Micros, OpenRequest, Outcome, PartitionKey,
    Priority, Refusal, ValidatorId, VoteExtras,
};
use crate::queue::Ring;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A vote of a unary call.
#[derive(Clone, Debug)]
pub struct OwnedVote {
    pub approval: ApprovalId,
    pub validator: ValidatorId,
    pub decision: Decision,
    pub extras: Option<Box<VoteExtras>>,
}

/// An approval is open, by this call or by an equal one before it.
#[derive(Clone, Debug)]
pub struct Opened {
    pub state: ApprovalState,
    pub repeat: bool,
}

/// A vote stands, by this call or by an equal one before it.
#[derive(Clone, Debug)]
pub struct Voted {
    pub state: ApprovalState,
    pub repeat: bool,
}

/// Where a page of votes (or of eligible validators) begins: behind this many of them, in the order of the shard's numbers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct VotesAfter(pub Option<u32>);

/// One line of a page of votes. The last three are there only in the FULL view.
#[derive(Clone, Debug)]
pub struct VoteLine {
    pub validator: Arc<str>,
    pub decision: Decision,
    pub reason: Box<str>,
    pub signature: Box<[u8]>,
    pub voted_at: Option<Micros>,
    pub sequence: u64,
}

/// An approval with a page of its votes.
#[derive(Clone, Debug)]
pub struct StatusAnswer {
    pub state: ApprovalState,
    pub votes: Vec<VoteLine>,
    /// More votes follow behind this.
    pub next: Option<VotesAfter>,
}

#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    key: PartitionKey,
    rings: Vec<Ring<Work>>,
}

impl Shards {
    pub fn count(&self) -> usize {
        self.inner.rings.len()
    }

    /// Which shard owns this approval.
    #[inline]
    pub fn shard_of(&self, id: &ApprovalId) -> usize {
        let _ = id;
        unreachable!("filled by the shard room")
    }

    /// Overloaded when the ring is full; NoSpace, ClockJump, LimitReached and so on as the rules say.
    pub async fn open(&self, request: OpenRequest) -> Result<Opened, Refusal> {
        let _ = request;
        unreachable!("filled by the shard room")
    }

    pub async fn vote(&self, vote: OwnedVote) -> Result<Voted, Refusal> {
        let _ = vote;
        unreachable!("filled by the shard room")
    }

    /// At most `max` votes behind `after`.
    pub async fn status(&self, id: ApprovalId, after: VotesAfter, max: usize) -> Result<StatusAnswer, Refusal> {
        let _ = (id, after, max);
        unreachable!("filled by the shard room")
    }

    /// In the order asked for; `None` for an unknown id.
    pub async fn statuses(&self, ids: Vec<ApprovalId>) -> Result<Vec<Option<ApprovalState>>, Refusal> {
        let _ = ids;
        unreachable!("filled by the shard room")
    }

    /// FULL's additions: content, and reason, signature, time and sequence of the votes in `lines`, read from the
    /// journal on a thread of its own. Err: why they are not to be had.
    pub async fn full(&self, id: ApprovalId, lines: &mut [VoteLine]) -> Result<bytes::Bytes, String> {
        let _ = (id, lines);
        unreachable!("filled by the shard room")
    }

    /// Eligible validators of an approval, sorted by name, paged.
    pub async fn eligible(&self, id: ApprovalId, skip: usize, max: usize) -> Result<Vec<Arc<str>>, Refusal> {
        let _ = (id, skip, max);
        unreachable!("filled by the shard room")
    }

    /// Ids of everything pending that matches, CRITICAL before HIGH before NORMAL, oldest first
    /// (created_at, then id) within each; `awaiting`: only what this validator may vote on and has not.
    pub async fn pending(
        &self,
        filter: StateFilter,
        awaiting: Option<ValidatorId>,
    ) -> Result<Vec<ApprovalId>, Refusal> {
        let _ = (filter, awaiting);
        unreachable!("filled by the shard room")
    }

    /// A stream's ledger, for pushes by this handle.
    pub fn ledger(&self) -> Arc<StreamLedger> {
        Arc::new(StreamLedger::new(self.count()))
    }

    /// Pushes what `work` holds to `shard`; a full ring leaves it there and wakes the task later
    /// (flow control). `StreamLedger::sending` comes before the first try.
    pub fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()> {
        self.inner.rings[shard].poll_push(context, work)
    }

    /// The log that an event's reference names (ordinals are those of the data folder).
    pub fn log_of(&self, event: EventRef) -> LogId {
        let _ = event;
        unreachable!("filled by the shard room")
    }
}

/// What a watch or a list selects; `None`: any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateFilter {
    pub approval: Option<ApprovalId>,
    pub approval_type: Option<crate::model::ApprovalType>,
    pub requester: Option<crate::model::RequesterId>,
    pub priority: Option<Priority>,
}

#[allow(unused)]
fn _shapes(_: ContentHash, _: Outcome) {}
