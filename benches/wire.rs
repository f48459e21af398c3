//! What the door costs: votes in rows and columns, requests, acknowledgements, with the generated
//! code (prost) beside. Times are for a whole batch; divide by its size (in the name).

use assent::model::{CommandSource, VoteCommand};
use assent::wire::{AckRefusal, RowRun, StreamItem, StreamParser, encode_ack, parse_open_bytes, parse_vote, v1};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VOTES: usize = 4_096;

fn id(number: usize) -> uuid::Uuid {
    uuid::Uuid::from_u64_pair((number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15), number as u64)
}

fn message(item: v1::approval_stream_request::Item) -> Bytes {
    v1::ApprovalStreamRequest { item: Some(item), validator_id: String::new() }.encode_to_vec().into()
}

fn rows(validators: usize) -> Bytes {
    let responses = (0..VOTES).map(|number| v1::ApprovalResponse {
        approval_id: id(number).to_string(),
        validator_id: id(number % validators + 7).to_string(),
        decision: 1,
        ..v1::ApprovalResponse::default()
    });
    message(v1::approval_stream_request::Item::Batch(v1::ApprovalBatch {
        responses: responses.collect(),
        columns: None,
    }))
}

fn columns(validators: usize) -> Bytes {
    let table = validators > 1;
    let columns = v1::VoteColumns {
        approval_ids: (0..VOTES).flat_map(|number| id(number).into_bytes()).collect::<Vec<_>>().into(),
        decisions: vec![1; VOTES].into(),
        validator_id: if table { String::new() } else { "validator-17".into() },
        validators: if table { (0..validators).map(|number| format!("validator-{number}")).collect() } else { vec![] },
        validator_indexes: match table {
            true => {
                (0..VOTES).flat_map(|number| ((number % validators) as u16).to_le_bytes()).collect::<Vec<_>>().into()
            }
            false => Bytes::new(),
        },
    };
    message(v1::approval_stream_request::Item::Batch(v1::ApprovalBatch { responses: vec![], columns: Some(columns) }))
}

/// Envelope, and every vote in slices of 256, as a shard takes them.
fn decode(message: &Bytes) -> u64 {
    let StreamItem::Votes(votes) = StreamParser::new(16_384).parse(message).expect("a batch") else {
        panic!("a batch")
    };
    drain(votes.into_source())
}

fn drain(mut source: Box<dyn CommandSource>) -> u64 {
    let mut sum = 0;
    let mut spare: Vec<VoteCommand<'static>> = Vec::with_capacity(256);
    let mut bad = Vec::new();
    loop {
        let mut votes: Vec<VoteCommand<'_>> = std::mem::take(&mut spare);
        let more = source.fill(256, &mut votes, &mut bad);
        for vote in &votes {
            sum += u64::from(vote.approval.0[0]) + vote.validator.len() as u64 + vote.decision as u64;
        }
        votes.clear();
        // An empty vector has no lifetime to keep: the same allocation goes round.
        spare = votes.into_iter().map(|_| unreachable!("empty")).collect();
        if !more {
            return sum + bad.len() as u64;
        }
    }
}

fn votes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("votes");
    group.throughput(Throughput::Elements(VOTES as u64));
    for (name, message) in [
        ("rows, one validator", rows(1)),
        ("rows, 256 validators", rows(256)),
        ("columns, one validator", columns(1)),
        ("columns, table of 256", columns(256)),
    ] {
        group.bench_function(name, |bench| bench.iter(|| decode(black_box(&message))));
    }
    let message = rows(1);
    group.bench_function("rows, envelope only", |bench| {
        bench.iter(|| match StreamParser::new(16_384).parse(black_box(&message)) {
            Ok(StreamItem::Votes(votes)) => votes.len(),
            _ => panic!("a batch"),
        })
    });
    group.bench_function("rows, split over two shards", |bench| {
        bench.iter(|| match StreamParser::new(16_384).parse(black_box(&message)) {
            Ok(StreamItem::Votes(votes)) => votes.split(2, |id| usize::from(id.0[0] & 1)).len(),
            _ => panic!("a batch"),
        })
    });
    group.bench_function("rows by prost, decoded", |bench| {
        bench.iter(|| v1::ApprovalStreamRequest::decode(black_box(message.clone())).expect("a message"))
    });
    group.bench_function("rows by prost, decoded and parsed", |bench| {
        bench.iter(|| {
            let decoded = v1::ApprovalStreamRequest::decode(black_box(message.clone())).expect("a message");
            let Some(v1::approval_stream_request::Item::Batch(batch)) = decoded.item else { panic!("a batch") };
            batch.responses.iter().filter(|response| parse_vote(response).is_ok()).count()
        })
    });
    let single = v1::ApprovalResponse {
        approval_id: id(5).to_string(),
        validator_id: id(6).to_string(),
        decision: 1,
        ..v1::ApprovalResponse::default()
    }
    .encode_to_vec();
    group.bench_function("single messages, gathered and decoded", |bench| {
        let mut run = RowRun::default();
        bench.iter(|| {
            (0..VOTES).for_each(|_| run.push(black_box(&single)));
            drain(run.take().into_source())
        })
    });
    group.finish();
}

fn opens(criterion: &mut Criterion) {
    let request = v1::ApprovalRequest {
        approval_id: id(5).to_string(),
        approval_type: 1,
        priority: 1,
        requester_id: id(6).to_string(),
        content: vec![7; 256].into(),
        required_approvals: 3,
        total_validators: 5,
        ..v1::ApprovalRequest::default()
    };
    let bytes = Bytes::from(request.encode_to_vec());
    let mut group = criterion.benchmark_group("opens");
    group.throughput(Throughput::Elements(1));
    group.bench_function("256-byte content", |bench| {
        bench.iter(|| parse_open_bytes(black_box(&bytes), 65_536).expect("legal"))
    });
    group.finish();
}

fn acks(criterion: &mut Criterion) {
    let refusals: Vec<_> = (0..1_000).map(|number| AckRefusal { index: number * 4, code: 9, reason: 4 }).collect();
    let mut group = criterion.benchmark_group("acks");
    let mut bytes = Vec::with_capacity(20_000);
    for (name, refusals) in [("no refusal", &refusals[..0]), ("1,000 refusals", &refusals[..])] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                bytes.clear();
                encode_ack(&mut bytes, black_box(1_000_000), black_box(refusals));
                bytes.len()
            })
        });
    }
    group.finish();
}

criterion_group!(benches, votes, opens, acks);
criterion_main!(benches);
