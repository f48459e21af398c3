//! The archive gets every event once, as rows, whatever the store does: commits whose answer is lost, failures
//! before them, rows that it refuses; and goes on where it was.
//!
//! The store here is one in memory that keeps to the trait's word, and holds each row against what a database
//! would: no event twice, no gap, no vote without its approval, positions with the rows or not at all.

use crate::support::approvals::{Client, id, request};
use crate::support::{Node, PATIENCE};
use assent::engine::Limits;
use assent::journal::{self, PosixStorage};
use assent::metrics::{Identity, Metrics, SinkMetrics};
use assent::model::{ApprovalId, LogId, Position, ValidatorId};
use assent::shard::{self, Executor, ExecutorOptions, SnapshotOptions, Started};
use assent::sinks::{ArchiveSink, BatchLimits, Pump};
use assent::store::{Archived, ArchivedVote, Error, ListFilter, ListKey, Reject, Store, WriteBatch, Writer};
use assent::wire::v1::ValidatorDecision::{Approved, Rejected};
use futures_util::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a database would hold.
#[derive(Default)]
struct Tables {
    deployment: Option<[u8; 16]>,
    positions: BTreeMap<LogId, u64>,
    /// Outcome's version, where it is decided.
    approvals: BTreeMap<[u8; 16], Option<u32>>,
    /// By event.
    votes: BTreeMap<Position, (ApprovalId, u32)>,
    rejects: Vec<Reject>,
    decided_at_once: usize,
    calls: usize,
}

impl Tables {
    fn write(&mut self, batch: &WriteBatch) {
        let mut events: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
        let mut event = |at: Position| events.entry(at.log).or_default().push(at.sequence);
        for approval in &batch.approvals {
            event(approval.opened);
            let outcome = approval.outcome.map(|outcome| outcome.version);
            self.decided_at_once += usize::from(outcome.is_some());
            assert!(self.approvals.insert(approval.id.0, outcome).is_none(), "opened twice");
        }
        for vote in &batch.votes {
            event(vote.at);
            assert!(self.votes.insert(vote.at, (vote.approval, vote.version)).is_none(), "an event twice");
        }
        for outcome in &batch.outcomes {
            let decided = self.approvals.get_mut(&outcome.id.0).expect("opened before");
            assert!(decided.replace(outcome.version).is_none(), "decided twice");
            if !self.votes.contains_key(&outcome.decided) {
                event(outcome.decided);
            }
        }
        for after in &batch.after {
            let mut sequences = events.remove(&after.log).expect("only logs that moved");
            sequences.sort_unstable();
            let before = self.positions.insert(after.log, after.sequence).unwrap_or(0);
            assert!(sequences.into_iter().eq(before + 1..=after.sequence), "exactly the events up to the position");
        }
        assert!(events.is_empty(), "each with its position");
    }
}

struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    /// Commits fail at random, before or after.
    fails: bool,
    /// A vote of this validator is refused.
    poison: Option<&'static str>,
}

struct MemoryWriter {
    store: Arc<MemoryStore>,
    rng: SmallRng,
    is_usable: bool,
}

struct Handle(Arc<MemoryStore>);

impl Store for Handle {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn writer(&self) -> Result<Box<dyn Writer>, Error> {
        let mut tables = self.0.tables.lock().expect("no panic");
        tables.calls += 1;
        if self.0.fails && tables.calls.is_multiple_of(5) {
            return Err(Error::Unavailable("no connection".into()));
        }
        let rng = SmallRng::seed_from_u64(tables.calls as u64);
        Ok(Box::new(MemoryWriter { store: self.0.clone(), rng, is_usable: true }))
    }

    fn approvals(&self, _: Vec<ApprovalId>) -> BoxFuture<'_, Result<Vec<Option<Archived>>, Error>> {
        unreachable!("a sink does not read")
    }
    fn content(&self, _: ApprovalId) -> BoxFuture<'_, Result<Option<bytes::Bytes>, Error>> {
        unreachable!("a sink does not read")
    }
    fn votes(&self, _: ApprovalId, _: u32, _: usize) -> BoxFuture<'_, Result<Vec<ArchivedVote>, Error>> {
        unreachable!("a sink does not read")
    }
    fn vote(&self, _: ApprovalId, _: ValidatorId) -> BoxFuture<'_, Result<Option<ArchivedVote>, Error>> {
        unreachable!("a sink does not read")
    }
    fn eligible(
        &self,
        _: ApprovalId,
        _: Option<ValidatorId>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<ValidatorId>, Error>> {
        unreachable!("a sink does not read")
    }
    fn list(&self, _: ListFilter, _: Option<ListKey>, _: usize) -> BoxFuture<'_, Result<Vec<Archived>, Error>> {
        unreachable!("a sink does not read")
    }
}

impl MemoryWriter {
    fn outcome(&mut self, apply: impl FnOnce(&mut Tables)) -> Result<(), Error> {
        assert!(self.is_usable, "made anew after an error");
        let draw = if self.store.fails { self.rng.random_range(0..4) } else { 3 };
        if draw != 0 {
            apply(&mut self.store.tables.lock().expect("no panic"));
        }
        self.is_usable = draw > 1;
        match draw {
            0 => Err(Error::Unavailable("lost before the commit".into())),
            1 => Err(Error::Unavailable("the commit's answer is lost".into())),
            _ => Ok(()),
        }
    }
}

impl Writer for MemoryWriter {
    fn adopt(&mut self, deployment: [u8; 16]) -> Result<(), Error> {
        let mut tables = self.store.tables.lock().expect("no panic");
        match *tables.deployment.get_or_insert(deployment) == deployment {
            true => Ok(()),
            false => Err(Error::Stopped("another deployment's".into())),
        }
    }

    fn positions(&mut self) -> Result<Vec<Position>, Error> {
        let tables = self.store.tables.lock().expect("no panic");
        Ok(tables.positions.iter().map(|(log, sequence)| Position { log: *log, sequence: *sequence }).collect())
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), Error> {
        if let Some(poison) = self.store.poison
            && batch.votes.iter().any(|vote| &*vote.validator == poison)
        {
            self.is_usable = false;
            return Err(Error::Refused(format!("a vote of {poison}")));
        }
        self.outcome(|tables| tables.write(batch))
    }

    fn reject(&mut self, reject: &Reject, after: Position) -> Result<(), Error> {
        assert_eq!(reject.at, after);
        self.outcome(|tables| {
            let before = tables.positions.insert(after.log, after.sequence).unwrap_or(0);
            assert_eq!(before + 1, after.sequence);
            tables.rejects.push(reject.clone());
        })
    }
}

fn start(data: &Path, shards: usize) -> (Started, Arc<SinkMetrics>) {
    let options = shard::Options {
        data: data.into(),
        shards,
        executor: Executor::Plain,
        executor_options: ExecutorOptions::default(),
        pin: false,
        ring_capacity: 64,
        limits: Limits {
            approvals_max: 10_000,
            validators_max: 10_000,
            eligible_sets_max: 10,
            eligible_set_bytes_max: 1 << 20,
            content_bytes_max: 64 << 10,
            lifetime_default_us: 86_400_000_000,
            lifetime_max_us: 86_400_000_000,
        },
        snapshot: SnapshotOptions::default(),
        journal: journal::Options::default(),
        accept_clock: false,
        decided_keep: std::time::Duration::from_secs(60),
        id_filter_bytes: 1 << 20,
    };
    let identity = Identity { version: "0", durability: "journal", shards, started_at_seconds: 0.0 };
    let metrics = Metrics::new(identity);
    let started = shard::start(PosixStorage, &options, metrics.shards()).expect("the folder is sound");
    (started, metrics.add_sink("archive"))
}

/// Feeds the store until it has everything, and ends.
fn feed(data: &Path, shards: usize, store: MemoryStore) -> Arc<SinkMetrics> {
    let (mut started, metrics) = start(data, shards);
    started.archive.turn_on();
    let tables = store.tables.clone();
    let limits = BatchLimits { events_max: 37, bytes_max: 1 << 20, linger: Duration::from_millis(1) };
    let sink = ArchiveSink::new(Arc::new(Handle(Arc::new(store))), started.deployment, limits);
    let marks = Some(started.archive.clone());
    let mut pump = Pump::start(Box::new(sink), started.logs.clone(), &[], marks, metrics.clone()).expect("threads");
    let deadline = Instant::now() + PATIENCE;
    let is_done = |tables: &Tables| {
        started.logs.all().all(|log| tables.positions.get(&log.id).copied().unwrap_or(0) == log.durable())
    };
    while !is_done(&tables.lock().expect("no panic")) {
        assert!(Instant::now() < deadline, "it does not get there");
        // Nobody waits for the next try in a test.
        pump.resume();
        std::thread::sleep(Duration::from_millis(2));
    }
    // The mark follows the commit.
    let current = started.logs.generations().last().expect("one").clone();
    for (index, log) in current.iter().enumerate() {
        while started.archive.through(index) < log.durable() {
            assert!(Instant::now() < deadline, "the mark does not follow");
            pump.resume();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    pump.stop();
    assert!(pump.ended(Instant::now() + Duration::from_secs(5)));
    started.finish().expect("the shards end");
    metrics
}

/// A folder with 200 approvals of three votes, decided by the second; number 0 has one of `mallory` too.
async fn folder_with_history(shards: &str) -> Node {
    let mut node = Node::start(&["--shards", shards]);
    let mut client = Client::of(&node).await;
    client.open(request(0, 3, 5)).await.expect("opened");
    client.vote(0, "mallory", Rejected, "").await.expect("counted");
    for number in 1..200 {
        client.open(request(number, 2, 3)).await.expect("opened");
        for validator in ["alice", "bob"] {
            client.vote(number, validator, Approved, "as agreed").await.expect("counted");
        }
    }
    client.vote(0, "trent", Approved, "").await.expect("counted");
    node.stop();
    node
}

fn store(fails: bool, poison: Option<&'static str>) -> (MemoryStore, Arc<Mutex<Tables>>) {
    let tables = Arc::new(Mutex::new(Tables::default()));
    (MemoryStore { tables: tables.clone(), fails, poison }, tables)
}

#[tokio::test]
async fn every_event_is_written_once_though_commits_fail_before_and_after() {
    let node = folder_with_history("2").await;
    let (memory, tables) = store(true, None);
    let metrics = feed(&node.data(), 2, memory);
    {
        let tables = tables.lock().expect("no panic");
        assert_eq!((tables.approvals.len(), tables.votes.len()), (200, 400));
        assert_eq!(tables.approvals.values().filter(|decided| **decided == Some(3)).count(), 199);
        assert!(tables.decided_at_once > 100, "opened and decided in a batch is one row: {}", tables.decided_at_once);
        assert!(metrics.retries.get() > 0, "it did fail");
    }
    // Again, with other shards: from its positions on, where there is nothing.
    let again = MemoryStore { tables: tables.clone(), fails: true, poison: None };
    feed(&node.data(), 3, again);
    assert_eq!(tables.lock().expect("no panic").votes.len(), 400);
}

#[tokio::test]
async fn what_is_refused_for_its_content_is_put_aside_alone() {
    let node = folder_with_history("1").await;
    let (memory, tables) = store(false, Some("mallory"));
    let metrics = feed(&node.data(), 1, memory);
    let tables = tables.lock().expect("no panic");
    assert_eq!((tables.approvals.len(), tables.votes.len(), tables.rejects.len()), (200, 399, 1));
    assert_eq!(metrics.rejects.get(), 1);
    let reject = &tables.rejects[0];
    assert_eq!((reject.at.sequence, reject.approval.to_string()), (2, id(0)));
    let event = String::from_utf8(reject.event.clone()).expect("JSON");
    assert!(event.contains("mallory") && reject.reason.contains("a vote of mallory"), "{event} {}", reject.reason);
}

#[tokio::test]
async fn a_store_that_is_ahead_or_of_another_folder_stops_the_sink() {
    let node = folder_with_history("1").await;
    let check = |position: fn(Position) -> Position, expected: &str| {
        let (memory, tables) = store(false, None);
        let (mut started, metrics) = start(&node.data(), 1);
        let log = started.logs.generations()[0][0].clone();
        let found = position(Position { log: log.id, sequence: log.durable() });
        tables.lock().expect("no panic").positions.insert(found.log, found.sequence);
        let limits = BatchLimits { events_max: 37, bytes_max: 1 << 20, linger: Duration::ZERO };
        let sink = ArchiveSink::new(Arc::new(Handle(Arc::new(memory))), started.deployment, limits);
        let marks = started.archive.clone();
        let pump = Pump::start(Box::new(sink), started.logs.clone(), &[], Some(marks), metrics).expect("threads");
        let deadline = Instant::now() + PATIENCE;
        while !pump.stopped().is_some_and(|why| why.contains(expected)) {
            assert!(Instant::now() < deadline, "{:?}", pump.stopped());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(started.archive.through(0), 0, "nothing is taken for archived");
        started.finish().expect("the shards end");
    };
    check(|at| Position { sequence: at.sequence + 1, ..at }, "was rolled back");
    check(|at| Position { log: LogId(at.log.0 ^ 1), ..at }, "another folder");
}
