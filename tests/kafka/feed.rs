//! A log that a test can make from any point on: sequence n is always the same event.

use assent::model::{
    ApprovalId, ApprovalType, ContentHash, Decided, Decision, EligibleSet, EventRef, LogId, Micros, Outcome, Priority,
    RequesterId, Tally, ValidatorId,
};
use assent::shard::{FeedEvent, FeedKind, OpeningDetails};
use assent::sinks::{Batch, Run};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Approvals of which a log speaks in turn, so that each has many events.
const APPROVALS: u64 = 97;

pub fn batch(log: LogId, sequences: RangeInclusive<u64>) -> Batch {
    Batch { runs: vec![run(log, sequences)] }
}

pub fn run(log: LogId, sequences: RangeInclusive<u64>) -> Run {
    Run { log, events: sequences.map(vote).collect() }
}

/// A plain vote: most of what a node publishes.
pub fn vote(sequence: u64) -> FeedEvent {
    event(
        sequence,
        FeedKind::Voted {
            validator: Arc::from("validator-17"),
            decision: Decision::Approved,
            reason: Box::default(),
            signature: Box::default(),
            decided: None,
        },
    )
}

/// An opening with content and two eligible validators.
pub fn opening(sequence: u64, content: Vec<u8>) -> FeedEvent {
    let members = ["alice", "bob"].map(|name| ValidatorId::parse(name).expect("a legal name")).to_vec();
    let details = OpeningDetails {
        content: content.into(),
        digest: [1; 16],
        eligible: Some(Arc::new(EligibleSet { members, digest: [2; 32] })),
    };
    let kind = FeedKind::Opened {
        content_hash: ContentHash::Label("a-label".into()),
        required: 1,
        total: 2,
        created_at: Micros(1_000_000),
        expires_at: Micros(9_000_000),
        details: Some(Box::new(details)),
    };
    FeedEvent { tally: Tally::default(), ..event(sequence, kind) }
}

pub fn expiry(sequence: u64) -> FeedEvent {
    let decided = Decided {
        outcome: Outcome::Expired,
        content_hash: ContentHash::Sha256([3; 32]),
        required: 1,
        total: 2,
        created_at: Micros(1_000_000),
        expires_at: Micros(9_000_000),
        finalized_at: Micros(9_000_000),
    };
    event(sequence, FeedKind::Expired { decided: Box::new(decided) })
}

fn event(sequence: u64, kind: FeedKind) -> FeedEvent {
    let mut id = [0xA5; 16];
    id[8..].copy_from_slice(&(sequence % APPROVALS).to_be_bytes());
    FeedEvent {
        at: EventRef::new(1, sequence),
        time: Micros(1_700_000_000_000_000 + sequence),
        approval: ApprovalId(id),
        previous: EventRef::NONE,
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::High,
        requester: RequesterId([9; 16]),
        tally: Tally { approvals: 1, rejections: 0, abstentions: 0 },
        kind,
    }
}
