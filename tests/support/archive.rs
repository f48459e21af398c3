//! An archive in memory: [`assent::store`]'s traits as they are documented, over ordered maps, for tests of
//! the front that need what a database does and not the database. It keeps what is written to it, gives
//! votes as they were cast and validators by name, and can be taken down.
//!
//! [`follow`] writes into it, through its writer, all that a data folder's logs hold.

use assent::journal::LogMeta;
use assent::model::{
    ApprovalId, ApprovalState, ContentHash, EligibleSet, EventRef, LogId, Outcome, Position, Status, Tally, ValidatorId,
};
use assent::shard::{FeedEvent, FeedKind, Past, Started};
use assent::store::{
    Archived, ArchivedVote, Error, ListFilter, ListKey, NewApproval, NewOutcome, NewVote, Reject, Store, WriteBatch,
    Writer,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Cheap to clone: the same archive.
#[derive(Clone, Default)]
pub struct MemoryArchive {
    rows: Arc<Mutex<Rows>>,
    is_down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Rows {
    deployment: Option<[u8; 16]>,
    approvals: BTreeMap<ApprovalId, Row>,
    positions: HashMap<LogId, u64>,
    rejects: Vec<Reject>,
}

struct Row {
    opening: NewApproval,
    outcome: Option<NewOutcome>,
    votes: Vec<NewVote>,
}

impl Row {
    fn archived(&self) -> Archived {
        let opening = &self.opening;
        let mut tally = Tally::default();
        for vote in &self.votes {
            match vote.decision {
                assent::model::Decision::Approved => tally.approvals += 1,
                assent::model::Decision::Rejected => tally.rejections += 1,
                assent::model::Decision::Abstain => tally.abstentions += 1,
            }
        }
        let last = self.votes.last();
        let (version, at) = match (&self.outcome, last) {
            (Some(outcome), _) => (outcome.version, outcome.decided),
            (None, Some(vote)) => (vote.version, vote.at),
            (None, None) => (1, opening.opened),
        };
        Archived {
            state: ApprovalState {
                id: opening.id,
                status: self.outcome.map_or(Status::Pending, |decided| decided.outcome.status()),
                approval_type: opening.approval_type,
                priority: opening.priority,
                requester: opening.requester,
                content_hash: opening.content_hash.clone(),
                required: opening.required,
                total: opening.total,
                tally: self.outcome.map_or(tally, |decided| decided.tally),
                created_at: opening.created_at,
                expires_at: opening.expires_at,
                finalized_at: self.outcome.map(|decided| decided.finalized_at),
                version,
                last_event: EventRef::new(0, at.sequence),
                eligible_count: opening.eligible.as_ref().map_or(0, |set| set.members.len() as u16),
                eligible_digest: opening.eligible.as_ref().map(|set| set.digest),
            },
            log: at.log,
            digest: opening.digest,
        }
    }

    fn matches(&self, filter: &ListFilter) -> bool {
        let state = self.archived().state;
        filter.status.is_none_or(|wanted| wanted == state.status)
            && filter.approval_type.is_none_or(|wanted| wanted == state.approval_type)
            && filter.priority.is_none_or(|wanted| wanted == state.priority)
            && filter.requester.is_none_or(|wanted| wanted == state.requester)
            && filter.created.from.is_none_or(|from| state.created_at >= from)
            && filter.created.to.is_none_or(|to| state.created_at < to)
            && filter
                .validator
                .as_ref()
                .is_none_or(|name| self.votes.iter().any(|vote| *vote.validator == *name.as_str()))
    }
}

fn archived_vote(vote: &NewVote) -> ArchivedVote {
    ArchivedVote {
        validator: ValidatorId::parse(&vote.validator).expect("it passed the door"),
        decision: vote.decision,
        reason: vote.reason.clone(),
        signature: vote.signature.clone(),
        voted_at: vote.voted_at,
        version: vote.version,
        at: vote.at,
    }
}

impl MemoryArchive {
    /// From here on it does not answer, or does again.
    pub fn set_down(&self, down: bool) {
        self.is_down.store(down, Ordering::SeqCst);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn read<T: Send + 'static>(&self, read: impl FnOnce(&Rows) -> T) -> BoxFuture<'static, Result<T, Error>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = match self.is_down.load(Ordering::SeqCst) {
            true => Err(Error::Unavailable("the test took it down".into())),
            false => Ok(read(&self.rows.lock().expect("nobody panics with it"))),
        };
        ready(answer).boxed()
    }
}

impl Store for MemoryArchive {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn approvals(&self, ids: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>> {
        self.read(|rows| ids.iter().map(|id| rows.approvals.get(id).map(Row::archived)).collect())
    }

    fn content(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        self.read(|rows| rows.approvals.get(&id).map(|row| row.opening.content.clone()))
    }

    fn votes(&self, id: ApprovalId, after: u32, max: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>> {
        self.read(|rows| {
            let votes = rows.approvals.get(&id).into_iter().flat_map(|row| &row.votes);
            votes.filter(|vote| vote.version > after).take(max).map(archived_vote).collect()
        })
    }

    fn vote(&self, id: ApprovalId, validator: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>> {
        self.read(|rows| {
            let mut votes = rows.approvals.get(&id).into_iter().flat_map(|row| &row.votes);
            votes.find(|vote| *vote.validator == *validator.as_str()).map(archived_vote)
        })
    }

    fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>> {
        self.read(|rows| {
            let set: Option<&Arc<EligibleSet>> = rows.approvals.get(&id).and_then(|row| row.opening.eligible.as_ref());
            let members = set.into_iter().flat_map(|set| &set.members);
            members.filter(|name| after.as_ref().is_none_or(|after| *name > after)).take(max).cloned().collect()
        })
    }

    fn list(
        &self,
        filter: ListFilter,
        after: Option<ListKey>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Archived>, Error>> {
        self.read(|rows| {
            let key = |row: &&Row| (row.opening.created_at, row.opening.id);
            let behind = |row: &&Row| after.is_none_or(|after| key(row) < (after.created_at, after.id));
            let mut found: Vec<_> = rows.approvals.values().filter(|row| row.matches(&filter)).filter(behind).collect();
            found.sort_by_key(|row| Reverse(key(row)));
            found.into_iter().take(max).map(Row::archived).collect()
        })
    }
}

impl Writer for MemoryArchive {
    fn adopt(&mut self, deployment: [u8; 16]) -> Result<(), Error> {
        let mut rows = self.rows.lock().expect("nobody panics with it");
        match *rows.deployment.get_or_insert(deployment) == deployment {
            true => Ok(()),
            false => Err(Error::Stopped("it is another deployment's".into())),
        }
    }

    fn positions(&mut self) -> Result<Vec<Position>, Error> {
        let rows = self.rows.lock().expect("nobody panics with it");
        Ok(rows.positions.iter().map(|(log, sequence)| Position { log: *log, sequence: *sequence }).collect())
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Error> {
        let mut rows = self.rows.lock().expect("nobody panics with it");
        for opening in &batch.approvals {
            let row = Row { opening: opening.clone(), outcome: opening.outcome, votes: Vec::new() };
            assert!(rows.approvals.insert(opening.id, row).is_none(), "an approval is opened once");
        }
        for vote in &batch.votes {
            let row = rows.approvals.get_mut(&vote.approval).expect("opened before it is voted on");
            assert!(row.votes.iter().all(|other| other.validator != vote.validator && other.version < vote.version));
            row.votes.push(vote.clone());
        }
        for outcome in &batch.outcomes {
            let row = rows.approvals.get_mut(&outcome.id).expect("opened before it is decided");
            assert!(row.outcome.replace(*outcome).is_none(), "an approval is decided once");
        }
        for after in &batch.after {
            rows.positions.insert(after.log, after.sequence);
        }
        Ok(())
    }

    fn reject(&mut self, reject: &Reject, after: Position) -> Result<(), Error> {
        let mut rows = self.rows.lock().expect("nobody panics with it");
        rows.rejects.push(reject.clone());
        rows.positions.insert(after.log, after.sequence);
        Ok(())
    }
}

/// Writes into the archive what the logs of a new folder hold and it does not have yet.
pub fn follow(data: &Path, started: &Started, archive: &MemoryArchive) {
    let mut writer = archive.writer().expect("it has one");
    writer.adopt(started.deployment).expect("it is this folder's");
    let written = writer.positions().expect("it answers");
    for (shard, end) in started.feed.positions().into_iter().enumerate() {
        let from = written.iter().find(|position| position.log == end.log).map_or(0, |position| position.sequence);
        let partitions = started.shards.partitions(shard);
        let log = LogMeta {
            generation: 1,
            ordinal: shard as u16,
            id: end.log.0,
            partitions: partitions.start as u16..partitions.end as u16,
            sealed: None,
            starts_from_snapshot: false,
        };
        let mut past = Past::open_complete(data, &log, from + 1).expect("the log is there");
        let mut events = Vec::new();
        while past.read(end.sequence, &mut events).expect("it is whole") {}
        let mut batch = WriteBatch { after: vec![end], ..WriteBatch::default() };
        events.iter().for_each(|event| add(&mut batch, event, end.log));
        writer.write(&batch).expect("it takes everything");
    }
}

fn add(batch: &mut WriteBatch, event: &FeedEvent, log: LogId) {
    let at = Position { log, sequence: event.at.sequence() };
    let mut decide = |outcome: Outcome, finalized_at| {
        batch.outcomes.push(NewOutcome {
            id: event.approval,
            outcome,
            tally: event.tally,
            finalized_at,
            version: event.version(),
            decided: at,
        });
    };
    match &event.kind {
        FeedKind::Opened { content_hash, required, total, created_at, expires_at, details } => {
            let details = details.as_ref().expect("a complete reader gives them");
            batch.approvals.push(NewApproval {
                id: event.approval,
                approval_type: event.approval_type,
                priority: event.priority,
                requester: event.requester,
                content: details.content.clone(),
                content_hash: ContentHash::clone(content_hash),
                required: *required,
                total: *total,
                created_at: *created_at,
                expires_at: *expires_at,
                digest: details.digest,
                eligible: details.eligible.clone(),
                opened: at,
                outcome: None,
            });
        }
        FeedKind::Voted { validator, decision, reason, signature, decided } => {
            if let Some(decided) = decided {
                decide(decided.outcome, decided.finalized_at);
            }
            batch.votes.push(NewVote {
                approval: event.approval,
                validator: validator.clone(),
                decision: *decision,
                reason: reason.clone(),
                signature: signature.clone(),
                voted_at: event.time,
                version: event.version(),
                at,
            });
        }
        FeedKind::Expired { decided } => decide(decided.outcome, decided.finalized_at),
    }
}
