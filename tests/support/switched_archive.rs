//! An archive in SQLite that counts what it is asked and can be taken down, for tests of the front.
//!
//! [`follow`] writes into it, through its writer, all that a data folder's logs hold.

use assent::journal::LogMeta;
use assent::model::{ApprovalId, ContentHash, LogId, Outcome, Position, ValidatorId};
use assent::shard::{FeedEvent, FeedKind, Past, Started};
use assent::store::sqlite::{Options, Sqlite};
use assent::store::{
    Archived, ArchivedVote, Error, ListFilter, ListKey, NewApproval, NewOutcome, NewVote, Store, WriteBatch, Writer,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

/// Cheap to clone: the same archive.
#[derive(Clone)]
pub struct SwitchedArchive {
    // Before its folder: it is closed first.
    store: Arc<Sqlite>,
    is_down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _folder: Arc<TempDir>,
}

impl SwitchedArchive {
    /// In a file of its own.
    pub fn new() -> SwitchedArchive {
        let folder = crate::support::folder();
        let store = Arc::new(Sqlite::open(Options::new(folder.path())).expect("a new file"));
        SwitchedArchive { store, is_down: Arc::default(), asked: Arc::default(), _folder: Arc::new(folder) }
    }

    /// From here on it does not answer, or does again.
    pub fn set_down(&self, down: bool) {
        self.is_down.store(down, Ordering::SeqCst);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&'a Sqlite) -> BoxFuture<'a, Result<T, Error>>,
    ) -> BoxFuture<'a, Result<T, Error>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.is_down.load(Ordering::SeqCst) {
            true => ready(Err(Error::Unavailable("the test took it down".into()))).boxed(),
            false => read(&self.store),
        }
    }
}

impl Store for SwitchedArchive {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Error> {
        self.store.writer()
    }

    fn approvals(&self, ids: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>> {
        self.read(|store| store.approvals(ids))
    }

    fn content(&self, id: ApprovalId) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        self.read(|store| store.content(id))
    }

    fn votes(&self, id: ApprovalId, after: u32, max: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>> {
        self.read(|store| store.votes(id, after, max))
    }

    fn vote(&self, id: ApprovalId, validator: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>> {
        self.read(|store| store.vote(id, validator))
    }

    fn eligible(
        &self,
        id: ApprovalId,
        after: Option<ValidatorId>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>> {
        self.read(|store| store.eligible(id, after, max))
    }

    fn list(
        &self,
        filter: ListFilter,
        after: Option<ListKey>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<Archived>, Error>> {
        self.read(|store| store.list(filter, after, max))
    }
}

/// Writes into the archive what the logs of a new folder hold and it does not have yet.
pub fn follow(data: &Path, started: &Started, archive: &SwitchedArchive) {
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
