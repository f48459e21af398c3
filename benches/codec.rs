//! What a record costs: an event into the journal's bytes and back, for each shape that a batch holds.
//! One core, one record at a time, in a cache that is warm.
//!
//! Not measured: the frame around records and its checksum (`journal`), deciding (`engine`), and the
//! cache misses of a long replay (`engine -- report`, `perf/run recover`). What is encoded is decoded
//! and compared once before anything is timed.

use assent::model::codec::{self, PLAIN_VOTE_BYTES, Record};
use assent::model::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Records in one pass, so that the timer's own cost vanishes.
const RECORDS: usize = 1_000;
const NOW: Micros = Micros(1_700_000_000_000_000);

fn plain(number: u64) -> PlainVote {
    PlainVote {
        approval: ApprovalId(u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()),
        previous: EventRef::new(1, number + 1),
        validator: ValidatorRef(number as u32 % 256),
        decision: Decision::Approved,
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::Normal,
        requester: RequesterRef(3),
        tally: Tally { approvals: 2, rejections: 1, abstentions: 0 },
    }
}

fn opened(content: &[u8]) -> Event<'_> {
    let opened = Opened {
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::Normal,
        requester: RequesterRef(3),
        content_hash: ContentHash::Sha256([3; 32]),
        required: 3,
        total: 5,
        created_at: NOW,
        expires_at: NOW.plus(86_400 * Micros::SECOND),
        eligible: None,
        digest: [9; 16],
        content,
    };
    Event { approval: ApprovalId([5; 16]), previous: EventRef::NONE, kind: EventKind::Opened(opened) }
}

fn decided() -> Box<Decided> {
    Box::new(Decided {
        outcome: Outcome::Approved,
        content_hash: ContentHash::Sha256([3; 32]),
        required: 3,
        total: 5,
        created_at: NOW,
        expires_at: NOW.plus(86_400 * Micros::SECOND),
        finalized_at: NOW.plus(7),
    })
}

fn voted(change: impl FnOnce(&mut Voted<'static>)) -> Event<'static> {
    let mut event = plain(7).event();
    let EventKind::Voted(voted) = &mut event.kind else { unreachable!("a plain vote is a vote") };
    change(voted);
    event
}

fn plain_votes(criterion: &mut Criterion) {
    let votes: Vec<PlainVote> = (0..RECORDS as u64).map(plain).collect();
    let mut bytes = vec![0; RECORDS * PLAIN_VOTE_BYTES];
    let encode = |bytes: &mut [u8]| {
        for (vote, record) in votes.iter().zip(bytes.as_chunks_mut().0) {
            codec::encode_vote_plain(vote, record);
        }
    };
    encode(&mut bytes);
    for (vote, record) in votes.iter().zip(bytes.chunks_exact(PLAIN_VOTE_BYTES)) {
        assert_eq!(codec::decode_vote_plain(record).as_ref(), Some(vote));
    }
    let mut group = criterion.benchmark_group("plain vote, 40 bytes");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("decode", |bench| {
        bench.iter(|| {
            let records = black_box(&bytes).chunks_exact(PLAIN_VOTE_BYTES);
            let sum = |sum, record| {
                let vote = codec::decode_vote_plain(record).expect("a plain vote");
                sum + u64::from(vote.validator.0) + u64::from(vote.approval.0[0]) + vote.previous.0
            };
            records.fold(0, sum)
        })
    });
    group.bench_function("decode, any record", |bench| bench.iter(|| walk(black_box(&bytes))));
    group.bench_function("encode", |bench| {
        bench.iter(|| {
            encode(black_box(&mut bytes));
            bytes[0]
        })
    });
    group.finish();
}

/// Decodes records to the end of the bytes; gives their number.
fn walk(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let (record, length) = codec::decode(&bytes[at..]).expect("a record");
        black_box(&record);
        at += length;
        count += 1;
    }
    count
}

fn events(criterion: &mut Criterion) {
    let content = [7; 256];
    let shapes = [
        ("opened, 256-byte content", opened(&content)),
        ("deciding vote", voted(|voted| voted.decided = Some(decided()))),
        (
            "vote with reason and signature",
            voted(|voted| {
                voted.reason = "balance and counterparty were checked";
                voted.signature = &[8; 64];
            }),
        ),
    ];
    for (name, event) in &shapes {
        let mut one = Vec::new();
        codec::encode_event(event, &mut one);
        assert_eq!(codec::decode(&one), Ok((Record::Event(event.clone()), one.len())), "{name}");
        let bytes = one.repeat(RECORDS);
        assert_eq!(walk(&bytes), RECORDS);
        let mut group = criterion.benchmark_group(format!("{name}, {} bytes", one.len()));
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function("decode", |bench| bench.iter(|| walk(black_box(&bytes))));
        let mut out = Vec::with_capacity(bytes.len());
        group.bench_function("encode", |bench| {
            bench.iter(|| {
                out.clear();
                (0..RECORDS).for_each(|_| codec::encode_event(black_box(event), &mut out));
                out.len()
            })
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = plain_votes, events
}
criterion_main!(benches);
