//! What one node does with a million approvals pending: `memory` on the way there, then `votes`,
//! `approval throughput` and `capacity`.
//!
//! Votes: N = 256, Q = 171, each validator once on each approval in a shuffled order, batches of 8,000
//! over two streams. Approvals: Q = 3 of N = 5, 256-byte content, opened and then all five votes, of
//! which the last two come late and are refused: what is counted is approvals decided.

use super::Plan;
use super::clients::{Added, CONTENT_BYTES, Grpc, Stream, check_added, columns, connect, counters, request, rows};
use super::clients::{runtime, validator};
use super::support::Node;
use assent::wire::v1;
use assent::wire::v1::approval_stream_request::Item;
use criterion::{Criterion, Throughput};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Votes in a batch. It divides the approvals of a field.
const BATCH: u64 = 8_000;
const STREAMS: u64 = 2;
const REQUIRED: u32 = 171;
/// Votes on each approval before a new field is opened: one more would decide.
const VOTES_EACH: u64 = REQUIRED as u64 - 1;
/// Approvals opened together in a life cycle.
const GROUP: u64 = 1_000;
/// Votes on each of them, and how many decide.
const CYCLE: (u64, u64) = (5, 3);
/// No common factor with a million: a shuffled order without a table.
const STRIDE: u64 = 611_953;

pub fn all(criterion: &mut Criterion, plan: &Plan) {
    if !["memory", "votes", "approval throughput", "capacity"].iter().any(|section| plan.wants(section)) {
        return;
    }
    let mut load = Load::start(plan);
    load.memory(plan);
    let mut group = criterion.benchmark_group("votes");
    group.throughput(Throughput::Elements(BATCH));
    for layout in [Layout::Rows, Layout::Columns] {
        group.bench_function(format!("{layout:?}, 1 M pending").to_lowercase(), |bench| {
            bench.iter_custom(|batches| load.vote(layout, batches));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("approval throughput");
    group.throughput(Throughput::Elements(GROUP));
    group.bench_function("opened", |bench| bench.iter_custom(|groups| load.open_groups(groups)));
    group.bench_function("opened and decided, 5 votes each", |bench| bench.iter_custom(|groups| load.decide(groups)));
    group.finish();
    if plan.wants("capacity") {
        load.capacity(plan);
    }
    load.node.stop();
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
}

/// Approvals that stay pending, and where their voting stands.
#[derive(Clone)]
struct Field {
    first: u64,
    approvals: u64,
}

impl Field {
    /// The batch of this index: who votes, on what.
    fn batch(&self, layout: Layout, index: u64) -> v1::ApprovalBatch {
        let each = self.approvals / BATCH;
        let (voter, first) = (index / each, index % each * BATCH);
        // Another start in the order for each validator.
        let numbers =
            (0..BATCH as usize).map(|at| self.first + ((first + at as u64) * STRIDE + voter * 7_919) % self.approvals);
        match layout {
            Layout::Rows => rows(numbers, &validator(voter)),
            Layout::Columns => columns(numbers, &validator(voter)),
        }
    }

    fn batches(&self) -> u64 {
        self.approvals / BATCH * VOTES_EACH
    }
}

/// A node, streams to it, and what was opened there.
struct Load {
    node: Node,
    runtime: Runtime,
    grpc: Grpc,
    streams: Vec<Stream>,
    field: Field,
    voted: u64,
    opened: u64,
}

impl Load {
    fn start(plan: &Plan) -> Load {
        let (node, runtime) = (Node::start(&["--archive=none"]), runtime());
        let (grpc, streams) = runtime.block_on(async {
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(Stream::open(&node.endpoint()).await);
            }
            (connect(&node.endpoint()).await, streams)
        });
        let field = Field { first: 0, approvals: plan.size(1_000_000, BATCH) };
        Load { node, runtime, grpc, streams, field, voted: 0, opened: 0 }
    }

    /// Runs `jobs` jobs on all streams, each job once; the time until all is acknowledged. The node's
    /// counters must have grown by `expected`.
    fn run(&mut self, jobs: u64, expected: Added, job: impl Job) -> Duration {
        let (streams, grpc) = (std::mem::take(&mut self.streams), &mut self.grpc);
        let late: u64 = streams.iter().map(|stream| stream.late).sum();
        let (took, streams) = self.runtime.block_on(async {
            let before = counters(grpc).await;
            let (next, job) = (Arc::new(AtomicU64::new(0)), Arc::new(job));
            let start = Instant::now();
            let tasks: Vec<_> = streams
                .into_iter()
                .map(|mut stream| {
                    let (next, job) = (next.clone(), job.clone());
                    tokio::spawn(async move {
                        loop {
                            let index = next.fetch_add(1, Ordering::Relaxed);
                            if index >= jobs {
                                break;
                            }
                            for (item, items) in job.messages(index) {
                                stream.send(item, items).await;
                            }
                        }
                        stream.settle().await;
                        stream
                    })
                })
                .collect();
            let mut streams = Vec::new();
            for task in tasks {
                streams.push(task.await.expect("everything sent is acknowledged"));
            }
            let took = start.elapsed();
            check_added(grpc, &before, expected).await;
            (took, streams)
        });
        self.streams = streams;
        let late = self.streams.iter().map(|stream| stream.late).sum::<u64>() - late;
        assert_eq!(late, expected.late, "refusals that the streams were told of");
        took
    }

    /// Opens approvals behind those that are open.
    fn open(&mut self, approvals: u64, required: u32, total: u32) -> Duration {
        let first = self.opened;
        self.opened += approvals;
        let expected = Added { requests: approvals, ..Added::default() };
        self.run(approvals.div_ceil(GROUP), expected, move |group: u64| {
            let numbers = first + group * GROUP..(first + (group + 1) * GROUP).min(first + approvals);
            opening(numbers, required, total).collect()
        })
    }

    fn open_groups(&mut self, groups: u64) -> Duration {
        self.open(groups * GROUP, CYCLE.1 as u32, CYCLE.0 as u32)
    }

    fn vote(&mut self, layout: Layout, batches: u64) -> Duration {
        let mut took = Duration::ZERO;
        let mut left = batches;
        while left > 0 {
            if self.voted == self.field.batches() {
                self.field.first = self.opened;
                self.open(self.field.approvals, REQUIRED, 256);
                self.voted = 0;
            }
            let (first, count) = (self.voted, left.min(self.field.batches() - self.voted));
            let expected = Added { votes: count * BATCH, ..Added::default() };
            let field = self.field.clone();
            took +=
                self.run(count, expected, move |index| vec![(Item::Batch(field.batch(layout, first + index)), BATCH)]);
            self.voted += count;
            left -= count;
        }
        took
    }

    fn decide(&mut self, groups: u64) -> Duration {
        let (first, count) = (self.opened, groups * GROUP);
        self.opened += count;
        let (votes, needed) = CYCLE;
        let expected =
            Added { requests: count, votes: needed * count, approved: count, late: (votes - needed) * count };
        self.run(groups, expected, move |group: u64| {
            let numbers = first + group * GROUP..first + (group + 1) * GROUP;
            let mut messages: Vec<_> = opening(numbers.clone(), needed as u32, votes as u32).collect();
            messages.extend((0..votes).map(|voter| (Item::Batch(rows(numbers.clone(), &validator(voter))), GROUP)));
            messages
        })
    }

    /// Resident memory, by the node's own word, before and after approvals were opened.
    fn memory(&mut self, plan: &Plan) {
        let resident = |load: &mut Load| load.runtime.block_on(counters(&mut load.grpc)).rss_bytes as i64;
        let start = resident(self);
        let approvals = self.field.approvals;
        for (count, name) in [(GROUP, "1,000"), (approvals - GROUP, "1,000,000")] {
            self.open(count, REQUIRED, 256);
            if plan.measured && plan.wants("memory") {
                let grown = resident(self) - start;
                println!(
                    "memory: {name} pending approvals, {CONTENT_BYTES}-byte content on disk: resident {:.1} MiB more \
                     than the {:.1} MiB of the empty node, {} bytes an approval (buffers of the openings included)",
                    grown as f64 / f64::from(1 << 20),
                    start as f64 / f64::from(1 << 20),
                    grown / self.opened as i64,
                );
            }
        }
    }

    /// The rate of one node over some seconds of each kind of load: measured, nothing multiplied.
    fn capacity(&mut self, plan: &Plan) {
        let window = Duration::from_millis(plan.size(4_000, 1));
        let kinds: [(&str, u64, Run); 4] = [
            ("votes in rows", 250 * BATCH, |load| load.vote(Layout::Rows, 250)),
            ("votes in columns", 500 * BATCH, |load| load.vote(Layout::Columns, 500)),
            ("approvals opened", 200 * GROUP, |load| load.open_groups(200)),
            ("approvals opened and decided", 100 * GROUP, |load| load.decide(100)),
        ];
        for (what, count, run) in kinds {
            let (mut took, mut done) = (Duration::ZERO, 0);
            while took < window {
                took += run(self);
                done += count;
            }
            if plan.measured {
                println!(
                    "capacity: one node, {:.1} s: {:.0} {what} a second, durable and acknowledged \
                     (claimed: 118,320 a second on a node; 2 M by multiplying)",
                    took.as_secs_f64(),
                    done as f64 / took.as_secs_f64()
                );
            }
        }
    }
}

/// Runs a fixed amount of one kind of load.
type Run = fn(&mut Load) -> Duration;

/// Messages of the job of an index, each with its number of items, built while the load runs.
trait Job: Send + Sync + 'static {
    fn messages(&self, index: u64) -> Vec<(Item, u64)>;
}

impl<F: Fn(u64) -> Vec<(Item, u64)> + Send + Sync + 'static> Job for F {
    fn messages(&self, index: u64) -> Vec<(Item, u64)> {
        self(index)
    }
}

fn opening(numbers: std::ops::Range<u64>, required: u32, total: u32) -> impl Iterator<Item = (Item, u64)> {
    numbers.map(move |number| (Item::Request(request(number, required, total)), 1))
}
