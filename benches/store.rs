//! What the archive takes: events a second of `Writer::write`, alone on the machine, every commit synced.
//!
//! An approval is four events (Q = 3 of N = 5: the opening with 256 bytes of content, three votes, the
//! last of which decides). `whole`: opened and decided in one batch, one row written once. `late`: decided
//! in the next batch, so that its row is read, changed and written again. Ids are UUIDv7s, as the server
//! draws them, or random ones, which touch another page each. The file grows through a run, as in life.
//! Not measured: the pump (`node`), readers beside the writer.

use assent::model::{
    ApprovalId, ApprovalType, ContentHash, Decision, LogId, Micros, Outcome, Position, Priority, RequesterId, Tally,
};
use assent::store::sqlite::{Options, Sqlite};
use assent::store::{NewApproval, NewOutcome, NewVote, Store, WriteBatch, Writer};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const EVENTS_AN_APPROVAL: usize = 4;

/// A database that has just been made.
fn database() -> (TempDir, Box<dyn Writer>) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build's folder can be written");
    let store = Sqlite::open(Options::new(folder.path())).expect("a new archive");
    let mut writer = store.writer().expect("its writer");
    writer.adopt([7; 16]).expect("it is nobody's");
    (folder, writer)
}

#[derive(Clone, Copy)]
enum Ids {
    Ordered,
    Random,
}

struct Generator {
    ids: Ids,
    late: bool,
    approvals: u64,
    sequence: u64,
    content: Bytes,
    validators: Vec<Arc<str>>,
    /// Of the batch before.
    waiting: Vec<NewOutcome>,
}

impl Generator {
    fn new(ids: Ids, late: bool) -> Generator {
        let validators = (0..5).map(|number| format!("validator-{number}").into()).collect();
        let content = Bytes::from(vec![0x5A; 256]);
        Generator { ids, late, approvals: 0, sequence: 0, content, validators, waiting: Vec::new() }
    }

    fn next(&mut self) -> Position {
        self.sequence += 1;
        Position { log: LogId(9), sequence: self.sequence }
    }

    fn id(&self, number: u64) -> ApprovalId {
        let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (high, low) = match self.ids {
            Ids::Ordered => (0x0190_a5d0_0000_7000 + (number << 16), scattered),
            Ids::Random => (scattered, scattered.rotate_left(29)),
        };
        ApprovalId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    fn batch(&mut self, events: usize) -> WriteBatch {
        let mut batch = WriteBatch { outcomes: std::mem::take(&mut self.waiting), ..WriteBatch::default() };
        for _ in 0..events / EVENTS_AN_APPROVAL {
            self.approval(&mut batch);
        }
        batch.after.push(Position { log: LogId(9), sequence: self.sequence });
        batch
    }

    fn approval(&mut self, batch: &mut WriteBatch) {
        self.approvals += 1;
        let id = self.id(self.approvals);
        let now = Micros(1_790_000_000_000_000 + self.approvals);
        let opened = self.next();
        for at in 0..3 {
            batch.votes.push(NewVote {
                approval: id,
                validator: self.validators[(self.approvals as usize + at) % 5].clone(),
                decision: Decision::Approved,
                reason: "".into(),
                signature: Box::new([]),
                voted_at: now,
                version: 2 + at as u32,
                at: self.next(),
            });
        }
        let outcome = NewOutcome {
            id,
            outcome: Outcome::Approved,
            tally: Tally { approvals: 3, ..Tally::default() },
            finalized_at: now,
            version: 4,
            decided: Position { log: LogId(9), sequence: self.sequence },
        };
        if self.late {
            self.waiting.push(outcome);
        }
        batch.approvals.push(NewApproval {
            id,
            approval_type: ApprovalType::LargeTransaction,
            priority: Priority::Normal,
            requester: RequesterId([3; 16]),
            content: self.content.clone(),
            content_hash: ContentHash::Sha256([0xAB; 32]),
            required: 3,
            total: 5,
            created_at: now,
            expires_at: now.plus(Micros::SECOND),
            digest: [4; 16],
            eligible: None,
            opened,
            outcome: (!self.late).then_some(outcome),
        });
    }
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sqlite");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));
    for (name, ids, late) in [
        ("whole", Ids::Ordered, false),
        ("late", Ids::Ordered, true),
        ("whole, random ids", Ids::Random, false),
        ("late, random ids", Ids::Random, true),
    ] {
        for events in [1_000, 10_000, 50_000] {
            group.throughput(Throughput::Elements(events as u64));
            group.bench_function(BenchmarkId::new(name, events), |bench| {
                let (_folder, mut writer) = database();
                let mut generator = Generator::new(ids, late);
                bench.iter_custom(|batches| {
                    let mut took = Duration::ZERO;
                    for _ in 0..batches {
                        let batch = generator.batch(events);
                        let start = Instant::now();
                        writer.write(&batch).expect("it is taken");
                        took += start.elapsed();
                    }
                    took
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, write);
criterion_main!(benches);
