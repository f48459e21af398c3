//! `message serialisation` (claimed: below 0.1 ms, 70 % smaller than JSON): time of the generated code
//! for each message, and its size beside the same message in protobuf's own JSON.
//!
//! JSON stands for the message as it is, field by field; for columns also the same votes as rows of
//! JSON, which is what an HTTP client would send. Not measured: JSON's time, compression, gRPC's 5
//! bytes a message, the node's own decoder (`wire`).

use super::Plan;
use super::clients::{columns, request, rows, validator, vote};
use assent::wire::DESCRIPTOR;
use criterion::Criterion;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use std::hint::black_box;

const VOTES: u64 = 1_000;

pub fn all(criterion: &mut Criterion, plan: &Plan) {
    if !plan.wants("message serialisation") {
        return;
    }
    let (by_rows, by_columns) =
        (rows(0..VOTES, &validator(7)), columns((0..VOTES as u32).map(u64::from), &validator(7)));
    one(criterion, plan, "vote", "ApprovalResponse", &vote(7, validator(7)));
    one(criterion, plan, "request, 256-byte content", "ApprovalRequest", &request(7, 3, 5));
    let json = one(criterion, plan, "1,000 votes in rows", "ApprovalBatch", &by_rows);
    one(criterion, plan, "1,000 votes in columns", "ApprovalBatch", &by_columns);
    if plan.measured {
        say("1,000 votes in columns, against the same votes as rows of JSON", by_columns.encoded_len(), json);
    }
}

/// Times encoding and decoding, prints the sizes; gives the bytes in JSON.
fn one<M>(criterion: &mut Criterion, plan: &Plan, name: &str, message_type: &str, message: &M) -> usize
where
    M: Message + Default + PartialEq,
{
    let bytes = message.encode_to_vec();
    assert!(M::decode(&bytes[..]).as_ref() == Ok(message), "{name} comes back as it was");
    let mut group = criterion.benchmark_group("message serialisation");
    group.bench_function(format!("{name}, encode"), |bench| bench.iter(|| black_box(message).encode_to_vec()));
    group.bench_function(format!("{name}, decode"), |bench| {
        bench.iter(|| M::decode(black_box(&bytes[..])).expect("a message"))
    });
    group.finish();
    let pool = DescriptorPool::decode(DESCRIPTOR).expect("the contract");
    let descriptor =
        pool.get_message_by_name(&format!("aurigraph.approvals.v1.{message_type}")).expect("a message of the contract");
    let dynamic = DynamicMessage::decode(descriptor, &bytes[..]).expect("the same message");
    let json = serde_json::to_vec(&dynamic).expect("every message has a JSON form").len();
    if plan.measured {
        say(name, bytes.len(), json);
    }
    json
}

fn say(what: &str, bytes: usize, json: usize) {
    let smaller = 100.0 * (1.0 - bytes as f64 / json as f64);
    println!("message serialisation: {what}: {bytes} bytes, JSON {json}: {smaller:.0} % smaller (claimed: 70 %)");
}
