//! What is decided and archived leaves memory, and its id is never taken twice: not after a kill, not
//! with another number of shards, not when the filter's memory is used up.
//!
//! `MEMORY_APPROVALS=10000000` drives that many through `memory_stays_flat`, which prints figures.

use assent::engine::Limits;
use assent::journal::{self, Folder, PosixStorage, release_before};
use assent::metrics::{Identity, Metrics};
use assent::model::*;
use assent::shard::{
    self, Absence, Executor, Known, OpenItem, OwnedVote, SnapshotOptions, Started, StreamLedger, Work,
};
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn journal_options() -> journal::Options {
    journal::Options {
        segment_bytes: 4 << 20,
        pool_segments: 2,
        frame_bytes_max: 1 << 20,
        folder_bytes_max: None,
        reserve_bytes: 4 << 10,
        background: true,
    }
}

#[derive(Clone, Copy)]
struct Settings {
    shards: usize,
    keep: Duration,
    filter_bytes: u64,
    snapshot_events: u64,
}

const SETTINGS: Settings = Settings { shards: 1, keep: Duration::ZERO, filter_bytes: 1 << 20, snapshot_events: 150 };

/// Running shards whose archive is the test's word.
struct Node {
    started: Started,
    metrics: Arc<Metrics>,
    runtime: Runtime,
    /// The newest event of each approval that was archived, or will be.
    newest: Vec<(ApprovalId, EventRef)>,
}

impl Node {
    fn start(dir: &Path, settings: Settings) -> Node {
        let shards = settings.shards;
        let options = shard::Options {
            data: dir.into(),
            shards,
            executor: Executor::Plain,
            executor_options: Default::default(),
            pin: false,
            ring_capacity: 1_024,
            limits: Limits::for_memory(1 << 30),
            decided_keep: settings.keep,
            id_filter_bytes: settings.filter_bytes,
            snapshot: SnapshotOptions { tail_events_max: settings.snapshot_events, tail_bytes_max: 1 << 40 },
            journal: journal_options(),
            accept_clock: false,
        };
        let identity = Identity { version: "test", durability: "journal", shards, started_at_seconds: 0.0 };
        let metrics = Metrics::new(identity);
        let started = shard::start(PosixStorage, &options, metrics.shards()).expect("shards");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let answers = started.answers.clone();
        runtime.spawn(async move {
            while let Some(batch) = answers.receive().await {
                batch.into_iter().for_each(|answer| answer());
            }
        });
        Node { started, metrics, runtime, newest: Vec::new() }
    }

    fn open(&self, id: ApprovalId, absence: Option<Absence>) -> Result<bool, Refusal> {
        self.runtime.block_on(self.started.shards.open(request(id), absence)).map(|opened| opened.repeat)
    }

    fn vote(&self, id: ApprovalId) -> Result<ApprovalState, Refusal> {
        let validator = ValidatorId::parse("v").expect("legal");
        let vote = OwnedVote { approval: id, validator, decision: Decision::Approved, extras: None };
        self.runtime.block_on(self.started.shards.vote(vote)).map(|voted| voted.state)
    }

    fn decide(&mut self, id: ApprovalId) {
        assert_eq!(self.open(id, None), Ok(false));
        let state = self.vote(id).expect("it counts");
        assert_eq!(state.status, Status::Approved);
        self.newest.push((id, state.last_event));
    }

    /// The archive has everything durable.
    fn archive_all(&self) {
        self.started.archive.turn_on();
        for shard in 0..self.started.shards.count() {
            let log = self.started.shards.log_of_partition(self.started.shards.partitions(shard).start);
            let sequence = self.metrics.shard(shard).durable_sequence.get();
            self.started.archive.archived(Position { log, sequence });
        }
    }

    fn in_memory(&self) -> u64 {
        self.metrics.shards().iter().map(|shard| shard.in_memory.get()).sum()
    }

    fn wait_until_forgotten(&self) {
        let began = Instant::now();
        while self.in_memory() > 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "{} are left", self.in_memory());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every road says the same of an id that was used and forgotten.
    fn check_forgotten(&self, id: ApprovalId) {
        assert_eq!(self.started.shards.known(&id), Known::Maybe);
        assert_eq!(self.open(id, None), Err(Refusal::LookUpFirst));
        let long_ago = Instant::now().checked_sub(Absence::HOLDS).expect("the machine has been up for a while");
        assert_eq!(self.open(id, Some(Absence::at(long_ago))), Err(Refusal::LookUpFirst));
        assert_eq!(self.vote(id), Err(Refusal::ApprovalClosed));
        let status = self.runtime.block_on(self.started.shards.status(id, None, 1));
        assert_eq!(status.err(), Some(Refusal::NotFound));
    }

    /// Whether it is in memory; no answer ever takes the id anew.
    fn is_there(&self, id: ApprovalId) -> bool {
        match self.open(id, None) {
            Ok(repeat) => {
                assert!(repeat, "{id} was taken twice");
                assert_eq!(self.vote(id).expect("a repeat").status, Status::Approved);
                true
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::LookUpFirst);
                self.check_forgotten(id);
                false
            }
        }
    }

    fn finish(mut self) {
        self.started.finish().expect("shards end");
    }
}

fn request(id: ApprovalId) -> OpenRequest {
    OpenRequest {
        id,
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::High,
        requester: RequesterId([3; 16]),
        content: vec![1; 16].into(),
        content_hash: ContentHash::Sha256([4; 32]),
        required: 1,
        total: 1,
        expires_at: None,
        eligible: None,
        digest: id.0,
    }
}

/// A UUID of version 4.
fn v4(number: u64) -> ApprovalId {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = *uuid::Uuid::from_u64_pair(mixed, mixed ^ number).as_bytes();
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    ApprovalId(bytes)
}

/// A UUID of version 7, of this millisecond.
fn v7(millis: u64, number: u64) -> ApprovalId {
    let random = v4(number).0[6..].try_into().expect("10 of 16 bytes");
    ApprovalId(*uuid::Builder::from_unix_timestamp_millis(millis, &random).as_uuid().as_bytes())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

#[test]
fn forgotten_ids_stay_known_through_kills_and_changes_of_shards() {
    let root = tempfile::tempdir().expect("a directory");
    let mut used = Vec::new();
    let mut snapshots = 0;
    for (life, shards) in [1, 2, 4, 1, 1].into_iter().enumerate() {
        let dir = root.path().join(life.to_string());
        let mut node = Node::start(&dir, Settings { shards, ..SETTINGS });
        let came_back = used.iter().filter(|id| node.is_there(**id)).count();
        let stranger = v4(u64::MAX - life as u64);
        assert_eq!((node.started.shards.known(&stranger), node.vote(stranger)), (Known::New, Err(Refusal::NotFound)));
        let number = life as u64 * 1_000;
        for at in number..number + 150 {
            let id = if at % 2 == 0 { v4(at) } else { v7(1_700_000_000_000 + at, at) };
            node.decide(id);
            used.push(id);
        }
        // Decided is not enough, nor is a mark without an archive behind it.
        assert_eq!(node.in_memory(), 150 + came_back as u64);
        node.archive_all();
        node.wait_until_forgotten();
        used.iter().for_each(|id| node.check_forgotten(*id));
        // Another stretch, so that a snapshot comes behind what was forgotten; one stays undecided.
        for at in number + 150..number + 300 {
            node.decide(v4(at));
            used.push(v4(at));
        }
        let open = v4(number + 999);
        assert_eq!(node.open(open, None), Ok(false));
        node.archive_all();
        while node.in_memory() > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(node.vote(open).expect("what is pending stays").status, Status::Approved);
        used.push(open);
        snapshots += std::fs::read_dir(dir.join("id-filter")).map_or(0, |files| files.count());
        println!("life {life}, {shards} shard(s): {came_back} of {} came back", used.len() - 301);
        // A kill: the next life begins with the files as they are now.
        std::thread::sleep(Duration::from_millis(300));
        copy(&dir, &root.path().join((life + 1).to_string()));
        node.finish();
    }
    assert!(snapshots > 0, "a filter was kept on the way");
}

#[test]
fn what_a_snapshot_covers_and_segments_no_longer_hold_stays_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(dir.path(), Settings { snapshot_events: 1_000, ..SETTINGS });
    let used: Vec<_> = (0..20_000).map(v4).collect();
    for id in &used {
        node.decide(*id);
        if node.newest.len().is_multiple_of(500) {
            node.archive_all();
        }
    }
    node.archive_all();
    node.wait_until_forgotten();
    node.finish();
    let folder = Folder::open(PosixStorage, dir.path(), journal_options()).expect("a folder");
    let log = folder.meta().current().expect("a generation").logs[0].clone();
    let released = release_before(&folder, &log, u64::MAX).expect("released");
    assert!(released > 0, "some segments are covered");
    drop(folder);
    let node = Node::start(dir.path(), SETTINGS);
    let there = used.iter().filter(|id| node.is_there(**id)).count();
    println!("{released} segments given back, {there} of {} came back", used.len());
    assert!(there < used.len());
    node.finish();
}

#[test]
fn a_filter_that_is_gone_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(dir.path(), SETTINGS);
    for number in 0..1_000 {
        node.decide(v4(number));
        node.archive_all();
    }
    node.finish();
    let kept = dir.path().join("id-filter");
    assert!(kept.exists(), "snapshots came after something was forgotten");
    std::fs::remove_dir_all(&kept).expect("removed");
    let folder = Folder::open(PosixStorage, dir.path(), journal_options()).expect("a folder");
    drop(folder);
    let refused = std::panic::catch_unwind(|| Node::start(dir.path(), SETTINGS)).err().expect("it does not start");
    let message = refused.downcast_ref::<String>().expect("a message");
    assert!(message.contains("restore id-filter"), "{message}");
}

#[test]
fn dropped_generations_mean_look_ups_but_for_later_uuid7() {
    let dir = tempfile::tempdir().expect("a directory");
    // 42 ids a generation, eight of them.
    let settings = Settings { filter_bytes: 512, snapshot_events: 100, ..SETTINGS };
    let node = Node::start(dir.path(), settings);
    let time = 1_700_000_000_000;
    let mut used = Vec::new();
    for number in 0..600u64 {
        // Proofs, as a front brings them once ids must be looked up.
        let id = if number % 2 == 0 { v4(number) } else { v7(time + number, number) };
        assert_eq!(node.open(id, Some(Absence::now())), Ok(false));
        node.vote(id).expect("it counts");
        used.push(id);
        node.archive_all();
    }
    node.wait_until_forgotten();
    assert!(node.metrics.id_filter.dropped.get() > 3);
    let check = |node: &Node| {
        used.iter().for_each(|id| {
            node.is_there(*id);
        });
        let never = v4(1_000_000);
        assert_eq!(node.started.shards.known(&never), Known::Maybe, "older ids are beyond the filter");
        assert_eq!(node.open(never, None), Err(Refusal::LookUpFirst));
        assert_eq!(node.open(v7(time, 5_000), None), Err(Refusal::LookUpFirst), "a UUIDv7 from before");
        assert_eq!(node.started.shards.known(&v7(time + 1_000_000, 5_001)), Known::New);
    };
    check(&node);
    assert_eq!(node.open(v4(2_000_000), Some(Absence::now())), Ok(false), "looked up, and not there");
    assert_eq!(node.open(v7(time + 1_000_000, 5_002), None), Ok(false), "no look-up");
    node.finish();
    let node = Node::start(dir.path(), settings);
    check(&node);
    assert_eq!(node.open(v4(2_000_000), None), Ok(true), "it is in memory");
    node.finish();
}

#[test]
fn what_is_decided_stays_for_a_while_after_the_archive_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep = Duration::from_millis(600);
    let mut node = Node::start(dir.path(), Settings { keep, ..SETTINGS });
    node.decide(v4(1));
    let stranger = v4(2);
    assert_eq!(node.open(stranger, None), Ok(false));
    std::thread::sleep(2 * keep);
    assert_eq!(node.in_memory(), 2, "nothing is forgotten without an archive");
    node.started.archive.turn_on();
    std::thread::sleep(2 * keep);
    assert_eq!(node.in_memory(), 2, "nor what the archive does not have");
    let archived = Instant::now();
    node.archive_all();
    while node.in_memory() > 1 {
        assert!(archived.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(archived.elapsed() >= keep, "{:?}", archived.elapsed());
    assert_eq!(node.metrics.shard(0).evicted.get(), 1);
    node.finish();
}

/// Votes of one validator, one an approval.
struct Votes {
    ids: Vec<ApprovalId>,
    done: usize,
}

impl CommandSource for Votes {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, _: &mut Vec<(u32, Refusal)>) -> bool {
        let end = self.ids.len().min(self.done.saturating_add(max));
        for item in self.done..end {
            let decision = Decision::Approved;
            into.push(VoteCommand {
                approval: self.ids[item],
                validator: "v",
                decision,
                extras: None,
                item: item as u32,
            });
        }
        self.done = end;
        end < self.ids.len()
    }
}

/// A stream to one shard.
struct Stream {
    ledger: Arc<StreamLedger>,
    items: u64,
}

impl Stream {
    fn push(&mut self, node: &Node, items: usize, work: impl FnOnce(Arc<StreamLedger>, u64, u64) -> Work) {
        let (first, end) = (self.items, self.items + items as u64);
        self.items = end;
        self.ledger.sending(0, end);
        let mut work = Some(work(self.ledger.clone(), first, end));
        node.runtime.block_on(poll_fn(|context| node.started.shards.poll_push(context, 0, &mut work)));
    }

    fn opens(&mut self, node: &Node, ids: &[ApprovalId]) {
        self.push(node, ids.len(), |stream, first, end| {
            let item = |(at, id): (usize, &ApprovalId)| OpenItem {
                item: first + at as u64,
                request: request(*id),
                absence: None,
            };
            Work::Opens { stream, end, requests: ids.iter().enumerate().map(item).collect() }
        });
    }

    fn votes(&mut self, node: &Node, ids: Vec<ApprovalId>) {
        self.push(node, ids.len(), |stream, first_item, end| Work::Votes {
            stream,
            first_item,
            end,
            source: Box::new(Votes { ids, done: 0 }),
        });
    }

    fn wait(&self, unacknowledged: u64) {
        while self.ledger.acked_through(self.items) + unacknowledged < self.items {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

#[test]
fn streams_are_told_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::start(dir.path(), SETTINGS);
    node.decide(v4(1));
    node.archive_all();
    node.wait_until_forgotten();
    let mut stream = Stream { ledger: Arc::new(StreamLedger::new(1)), items: 0 };
    stream.votes(&node, vec![v4(1), v4(2)]);
    stream.opens(&node, &[v4(1), v4(2)]);
    stream.wait(0);
    let mut refusals = Vec::new();
    stream.ledger.take_refusals(&mut refusals);
    let refused: Vec<_> = refusals.iter().map(|refusal| (refusal.item, refusal.reason())).collect();
    assert_eq!(refused, [(0, Reason::ApprovalClosed), (1, Reason::NotFound), (2, Reason::LookUpFirst)]);
    node.finish();
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    4_096 * pages.split(' ').nth(1).expect("resident").parse::<u64>().expect("a number")
}

#[test]
fn memory_stays_flat() {
    let total: u64 = std::env::var("MEMORY_APPROVALS").map_or(200_000, |value| value.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings { filter_bytes: 64 << 20, snapshot_events: 5_000_000, ..SETTINGS };
    let node = Node::start(dir.path(), settings);
    let mut stream = Stream { ledger: Arc::new(StreamLedger::new(1)), items: 0 };
    let (began, mut most) = (Instant::now(), 0);
    let before = resident_bytes();
    for first in (0..total).step_by(1_000) {
        let ids: Vec<_> = (first..total.min(first + 1_000)).map(v4).collect();
        stream.opens(&node, &ids);
        stream.votes(&node, ids);
        stream.wait(8_000);
        node.archive_all();
        most = most.max(node.in_memory());
        if first % (total / 10).max(1_000) == 0 {
            println!(
                "{first}: {:.0} MiB resident, {} in memory, filter {} ids in {:.1} MiB",
                (resident_bytes().saturating_sub(before)) as f64 / 1048576.0,
                node.in_memory(),
                node.metrics.id_filter.ids.get(),
                node.metrics.id_filter.bytes.get() as f64 / 1048576.0
            );
        }
    }
    stream.wait(0);
    node.archive_all();
    node.wait_until_forgotten();
    let totals = stream.ledger.totals();
    // A false positive is refused, as it would be looked up first: its vote is refused too.
    assert_eq!(totals.accepted + totals.refused, 2 * total);
    assert!(totals.refused <= 2 * total / 50, "{totals:?}");
    assert_eq!(node.metrics.shard(0).evicted.get(), totals.decided);
    let turns = node.metrics.shard(0).turn_cpu_seconds.read();
    println!(
        "{total} opened, decided and forgotten in {:.1} s; at most {most} in memory; {} refused as perhaps known; a turn took {:.0} us at 99.9 %",
        began.elapsed().as_secs_f64(),
        totals.refused / 2,
        turns.quantile(0.999) as f64 / 1_000.0
    );
    assert!(most < 100_000, "{most}");
    node.finish();
}
