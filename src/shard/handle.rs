//! What fronts hold: the shards by verbs, whatever their number and threads.

use super::core::FRAME_BYTES_MAX;
use super::gate::Gate;
use super::{Absence, Answer, Ask, FullReader, IdFilter, Known, StreamLedger, Turn, Work};
use crate::engine::{self, Approval};
use crate::model::{
    ApprovalId, ApprovalState, ApprovalType, Decision, EventRef, LogId, Micros, OpenRequest, PARTITIONS, PartitionKey,
    Priority, Refusal, RequesterId, Status, ValidatorId, VoteAnswer, VoteCommand, VoteExtras,
};
use crate::queue::{Ring, Vigil, Wait, reply};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
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

/// One line of a page of votes. The last four are there only in the FULL view.
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
    /// More votes follow behind this one.
    pub next: Option<ValidatorId>,
}

/// What a watch or a list selects; `None`: any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateFilter {
    pub approval: Option<ApprovalId>,
    pub approval_type: Option<ApprovalType>,
    pub requester: Option<RequesterId>,
    pub priority: Option<Priority>,
}

impl StateFilter {
    pub fn matches(
        &self,
        id: &ApprovalId,
        approval_type: ApprovalType,
        requester: &RequesterId,
        priority: Priority,
    ) -> bool {
        self.approval.is_none_or(|wanted| wanted == *id)
            && self.approval_type.is_none_or(|wanted| wanted == approval_type)
            && self.priority.is_none_or(|wanted| wanted == priority)
            && self.requester.is_none_or(|wanted| wanted == *requester)
    }

    fn matches_approval(&self, approval: &Approval<'_>) -> bool {
        self.matches(&approval.id(), approval.approval_type(), &approval.requester(), approval.priority())
    }

    pub fn matches_state(&self, state: &ApprovalState) -> bool {
        self.matches(&state.id, state.approval_type, &state.requester, state.priority)
    }
}

/// One log of the data folder, sealed ones included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogName {
    pub ordinal: u16,
    pub id: LogId,
}

/// Cheap to clone; every front has one.
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    key: PartitionKey,
    rings: Vec<Arc<Ring<Work>>>,
    /// Which shard owns a partition.
    owner: Vec<u16>,
    partitions: Vec<Range<u32>>,
    logs: Vec<LogName>,
    gate: Arc<Gate>,
    full: FullReader,
    ids: Arc<IdFilter>,
    /// What one question may need of the journal: a frame of its own.
    batch_bytes_max: usize,
    vigil: Arc<Vigil>,
}

/// Touching an overdue approval makes its event: so many fit the smallest frame.
const STATUSES_AT_ONCE: usize = 128;
const _: () = assert!(STATUSES_AT_ONCE * engine::EXPIRY_BYTES_MAX < 60 << 10);

/// Approvals that one slice of a listing looks at, so that no slice holds a shard for long.
const SLICE_APPROVALS: usize = 4_096;

impl Shards {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        key: PartitionKey,
        rings: Vec<Arc<Ring<Work>>>,
        partitions: Vec<Range<u32>>,
        logs: Vec<LogName>,
        gate: Arc<Gate>,
        full: FullReader,
        ids: Arc<IdFilter>,
        batch_bytes_max: usize,
        vigil: Arc<Vigil>,
    ) -> Shards {
        let mut owner = vec![0; PARTITIONS as usize];
        for (shard, range) in partitions.iter().enumerate() {
            owner[range.start as usize..range.end as usize].fill(shard as u16);
        }
        Shards {
            inner: Arc::new(Inner { key, rings, owner, partitions, logs, gate, full, ids, batch_bytes_max, vigil }),
        }
    }

    pub fn count(&self) -> usize {
        self.inner.rings.len()
    }

    /// Which shard owns this approval.
    #[inline]
    pub fn shard_of(&self, id: &ApprovalId) -> usize {
        if self.inner.rings.len() == 1 {
            return 0;
        }
        usize::from(self.inner.owner[PartitionKey::partition(self.inner.key.hash(id)) as usize])
    }

    /// Which partition of the folder holds this approval.
    pub fn partition_of(&self, id: &ApprovalId) -> u32 {
        PartitionKey::partition(self.inner.key.hash(id))
    }

    /// The partitions of one shard.
    pub fn partitions(&self, shard: usize) -> Range<u32> {
        self.inner.partitions[shard].clone()
    }

    /// Whether an id may have been used before, in memory or out of it: whether its opening needs a
    /// look-up in the archive. Lock-free, and a word for the front only: the shard looks again in
    /// its turn.
    pub fn known(&self, id: &ApprovalId) -> Known {
        self.inner.ids.known(id)
    }

    /// Overloaded when the ring is full; NoSpace, ClockJump, LimitReached and so on as the rules say;
    /// LookUpFirst when the id may have been used and there is no fresh proof of its absence in the
    /// archive: look it up, and ask again with one.
    pub async fn open(&self, request: OpenRequest, absence: Option<Absence>) -> Result<Opened, Refusal> {
        let shard = self.shard_of(&request.id);
        let journal_bytes = engine::opening_bytes_max(&request);
        if journal_bytes > self.inner.batch_bytes_max {
            return Err(Refusal::LimitReached(FRAME_BYTES_MAX));
        }
        self.ask(shard, journal_bytes, move |turn| {
            let allowed = turn.opens.clone().and_then(|()| turn.ids.admits(&request.id, absence));
            let opened = turn.engine.open(&request, turn.clock, allowed, &mut turn.sink);
            match &opened {
                Ok((_, false)) => turn.metrics.requests_opened.increment(),
                Ok((_, true)) => turn.metrics.request_repeats.increment(),
                Err(refusal) => turn.metrics.requests_refused.add(refusal.reason().number(), 1),
            }
            opened.map(|(state, repeat)| Opened { state, repeat })
        })
        .await?
    }

    /// NotFound or ApprovalClosed: not in memory. Whoever asks may know better, and counts it.
    pub async fn vote(&self, vote: OwnedVote) -> Result<Voted, Refusal> {
        let shard = self.shard_of(&vote.approval);
        self.ask(shard, engine::VOTE_BYTES_MAX, move |turn| {
            if let Err(refusal) = turn.votes.clone() {
                turn.metrics.votes_refused.add(refusal.reason().number(), 1);
                return Err(refusal);
            }
            let command = VoteCommand {
                approval: vote.approval,
                validator: vote.validator.as_str(),
                decision: vote.decision,
                extras: vote.extras,
                item: 0,
            };
            let (answer, state) = turn.engine.vote(&command, turn.clock, &mut turn.sink);
            let repeat = match answer {
                VoteAnswer::Accepted(_) => {
                    turn.metrics.votes_accepted.increment();
                    false
                }
                VoteAnswer::Repeat => {
                    turn.metrics.vote_repeats.increment();
                    true
                }
                // The front asks the archive, and counts what comes of it.
                VoteAnswer::Refused(Refusal::NotFound) => return Err(turn.ids.absent(&vote.approval)),
                VoteAnswer::Refused(refusal) => {
                    turn.metrics.votes_refused.add(refusal.reason().number(), 1);
                    return Err(refusal);
                }
            };
            Ok(Voted { state: state.ok_or(Refusal::NotFound)?, repeat })
        })
        .await?
    }

    /// At most `max` votes behind `after`, in the order of their validators' names.
    pub async fn status(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> Result<StatusAnswer, Refusal> {
        self.ask(self.shard_of(&id), engine::VOTE_BYTES_MAX, move |turn| {
            let state = touched(turn, &id).ok_or(Refusal::NotFound)?;
            let page = turn.engine.votes_page(&id, after.as_ref(), max).expect("an approval that was just touched");
            let line = |(validator, decision): (ValidatorId, Decision)| VoteLine {
                validator: validator.as_str().into(),
                decision,
                reason: Box::default(),
                signature: Box::default(),
                voted_at: None,
                sequence: 0,
            };
            Ok(StatusAnswer { state, votes: page.items.into_iter().map(line).collect(), next: page.next })
        })
        .await?
    }

    /// In the order asked for; `None` for an unknown id.
    pub async fn statuses(&self, ids: Vec<ApprovalId>) -> Result<Vec<Option<ApprovalState>>, Refusal> {
        let mut states = vec![None; ids.len()];
        let mut asked = Vec::new();
        for shard in 0..self.count() {
            let mine: Vec<(usize, ApprovalId)> =
                ids.iter().copied().enumerate().filter(|(_, id)| self.shard_of(id) == shard).collect();
            for some in mine.chunks(STATUSES_AT_ONCE) {
                let some = some.to_vec();
                asked.push(self.ask(shard, some.len() * engine::EXPIRY_BYTES_MAX, move |turn| {
                    some.into_iter().map(|(at, id)| (at, touched(turn, &id))).collect::<Vec<_>>()
                }));
            }
        }
        for found in futures_util::future::join_all(asked).await {
            for (at, state) in found? {
                states[at] = state;
            }
        }
        Ok(states)
    }

    /// FULL's additions: content, and reason, signature, time and sequence of the votes in `lines`,
    /// read from the journal on a thread of its own. Err: why they are not to be had.
    pub async fn full(&self, state: &ApprovalState, lines: &mut [VoteLine]) -> Result<bytes::Bytes, String> {
        self.inner.full.read(state, lines).await
    }

    /// At most `max` eligible validators behind `after`, in the order of their names, and the last of
    /// them when more follow; `None` when anyone may vote, or it is not in memory.
    pub async fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> Result<Option<(Vec<ValidatorId>, Option<ValidatorId>)>, Refusal> {
        self.ask(self.shard_of(&id), 0, move |turn| {
            turn.engine.eligible_page(&id, after.as_ref(), max).map(|page| (page.items, page.next))
        })
        .await
    }

    /// Ids of everything pending that matches, CRITICAL before HIGH before NORMAL, oldest first
    /// (created_at, then id) within each; `awaiting`: only what this validator may vote on and has
    /// not. Looked at slice by slice: an approval opened meanwhile may or may not be among them.
    pub async fn pending(
        &self,
        filter: StateFilter,
        awaiting: Option<ValidatorId>,
    ) -> Result<Vec<ApprovalId>, Refusal> {
        let mut keys: Vec<(Reverse<Priority>, Micros, ApprovalId)> = Vec::new();
        for shard in 0..self.count() {
            for partition in self.partitions(shard) {
                let mut from = Some(0);
                while let Some(start) = from {
                    let (filter, awaiting) = (filter.clone(), awaiting.clone());
                    let (mut some, next) = self
                        .ask(shard, 0, move |turn| pending_slice(turn, partition, start, &filter, awaiting.as_ref()))
                        .await?;
                    keys.append(&mut some);
                    from = next;
                }
            }
        }
        keys.sort_unstable();
        Ok(keys.into_iter().map(|key| key.2).collect())
    }

    /// States of one partition, at most [`SLICE_APPROVALS`] looked at; with the sequence at which
    /// they are true and where to go on.
    pub async fn partition_states(
        &self,
        partition: u32,
        from: u64,
        filter: StateFilter,
    ) -> Result<(Vec<ApprovalState>, u64, Option<u64>), Refusal> {
        let shard = usize::from(self.inner.owner[partition as usize]);
        self.ask(shard, 0, move |turn| {
            let mut states = Vec::new();
            let next = turn.engine.partition_states(
                partition,
                from,
                SLICE_APPROVALS,
                |approval| filter.matches_approval(approval),
                &mut states,
            );
            (states, turn.sequence, next)
        })
        .await
    }

    /// A stream's ledger, for pushes by this handle.
    pub fn ledger(&self) -> Arc<StreamLedger> {
        Arc::new(StreamLedger::new(self.count()))
    }

    /// A wait for a shard's answer begins.
    pub fn begin_wait(&self) -> Wait {
        self.inner.vigil.begin()
    }

    /// Pushes what `work` holds to `shard`; a full ring leaves it there and wakes the task later
    /// (flow control). `StreamLedger::sending` comes before the first try.
    pub fn poll_push(&self, context: &mut Context<'_>, shard: usize, work: &mut Option<Work>) -> Poll<()> {
        self.inner.rings[shard].poll_push(context, work)
    }

    /// The log that an event's reference names.
    pub fn log_of(&self, event: EventRef) -> LogId {
        self.inner.logs.iter().find(|log| log.ordinal == event.log_ordinal()).map_or(LogId(0), |log| log.id)
    }

    /// The log of this generation that holds a partition.
    pub fn log_of_partition(&self, partition: u32) -> LogId {
        let current = &self.inner.logs[self.inner.logs.len() - self.count()..];
        current[usize::from(self.inner.owner[partition as usize])].id
    }

    /// Whether the node is on its way down.
    pub fn is_stopping(&self) -> bool {
        self.inner.gate.is_stopping()
    }

    /// One question to one shard, answered after the commit of its turn.
    pub async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        journal_bytes: usize,
        question: impl FnOnce(&mut Turn<'_>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        if self.inner.gate.is_shard_gone() {
            return Err(Refusal::Stopping);
        }
        let wait = self.begin_wait();
        let (slot, answer) = reply();
        let ask: Ask = Box::new(move |turn: &mut Turn<'_>| -> Answer {
            let outcome = question(turn);
            Box::new(move || slot.answer(outcome))
        });
        self.inner.rings[shard].push(Work::Ask { ask, journal_bytes }).map_err(|_full| Refusal::Overloaded)?;
        // A shard that ended meanwhile may have emptied its ring before this came: nobody would ever answer.
        fence(Ordering::SeqCst);
        if self.inner.gate.is_shard_gone() {
            return Err(Refusal::Stopping);
        }
        // A shard that ended drops the slot: whether it was done is unknown, and the node goes down.
        answer.wait_awake(wait).await.ok_or(Refusal::Stopping)
    }
}

/// Keys of one slice's pending approvals that match and are not overdue, and where to go on.
type PendingSlice = (Vec<(Reverse<Priority>, Micros, ApprovalId)>, Option<u64>);

fn pending_slice(
    turn: &Turn<'_>,
    partition: u32,
    from: u64,
    filter: &StateFilter,
    awaiting: Option<&ValidatorId>,
) -> PendingSlice {
    let (engine, clock) = (&turn.engine, turn.clock);
    let validator = awaiting.map(|name| engine.validator(name.as_str()));
    let mut keys = Vec::new();
    let next = engine.partition_approvals(partition, from, SLICE_APPROVALS, |approval| {
        let wanted = approval.status() == Status::Pending
            && !(clock.expire && clock.now >= approval.expires_at())
            && filter.matches_approval(approval)
            && validator.is_none_or(|validator| approval.awaits(validator));
        if wanted {
            keys.push((Reverse(approval.priority()), approval.created_at(), approval.id()));
        }
    });
    (keys, next)
}

/// A read's view: an overdue approval is made Expired first.
fn touched(turn: &mut Turn<'_>, id: &ApprovalId) -> Option<ApprovalState> {
    turn.engine.touch(id, turn.clock, &mut turn.sink);
    turn.engine.state(id)
}
