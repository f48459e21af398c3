//! The archive in PostgreSQL: everything that is PostgreSQL's own. What every store promises is in the
//! stores' common suite.

mod connecting;
mod errors;
mod loss;
mod schema;
mod writing;

use assent::model::{
    ApprovalId, ApprovalType, ContentHash, Decision, EligibleSet, LogId, Micros, Outcome, Position, Priority,
    RequesterId, Tally, ValidatorId,
};
use assent::store::{NewApproval, NewOutcome, NewVote, Store, WriteBatch, Writer};
use std::sync::Arc;

pub const DEPLOYMENT: [u8; 16] = [7; 16];
pub const LOG: LogId = LogId(0x7FFF_FFFF_FFFF_FF01);

pub fn at(sequence: u64) -> Position {
    Position { log: LOG, sequence }
}

pub fn approval_id(number: u64) -> ApprovalId {
    // Spread as random ones are.
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id[8..].copy_from_slice(&number.rotate_left(17).to_be_bytes());
    ApprovalId(id)
}

pub fn set(names: &[&str]) -> Arc<EligibleSet> {
    let members = names.iter().map(|name| ValidatorId::parse(name).expect("a legal name")).collect();
    Arc::new(EligibleSet { members, digest: [names.len() as u8; 32] })
}

/// Pending, opened at this sequence.
pub fn opened(number: u64, sequence: u64) -> NewApproval {
    NewApproval {
        id: approval_id(number),
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::Critical,
        requester: RequesterId([9; 16]),
        content: vec![number as u8; 256].into(),
        content_hash: ContentHash::Sha256([number as u8; 32]),
        required: 3,
        total: 5,
        created_at: Micros(1_800_000_000_000_000 + number),
        expires_at: Micros(1_800_000_600_000_000 + number),
        digest: [number as u8; 16],
        eligible: None,
        opened: at(sequence),
        outcome: None,
    }
}

pub fn vote(number: u64, validator: u64, sequence: u64) -> NewVote {
    NewVote {
        approval: approval_id(number),
        validator: format!("validator-{validator:02}").into(),
        decision: Decision::Approved,
        reason: "".into(),
        signature: Box::default(),
        voted_at: Micros(1_800_000_001_000_000 + sequence),
        version: 2 + validator as u32,
        at: at(sequence),
    }
}

pub fn outcome(number: u64, sequence: u64) -> NewOutcome {
    NewOutcome {
        id: approval_id(number),
        outcome: Outcome::Approved,
        tally: Tally { approvals: 3, rejections: 0, abstentions: 0 },
        finalized_at: Micros(1_800_000_002_000_000 + sequence),
        version: 4,
        decided: at(sequence),
    }
}

/// Approvals `from..to`, each with its opening and three votes, the last of which decides it. Sequences
/// are 4 an approval, from 1.
pub fn decided(from: u64, to: u64) -> WriteBatch {
    let mut batch = WriteBatch { after: vec![at(to * 4)], ..WriteBatch::default() };
    for number in from..to {
        let mut approval = opened(number, number * 4 + 1);
        approval.outcome = Some(outcome(number, number * 4 + 4));
        batch.approvals.push(approval);
        batch.votes.extend((0..3).map(|validator| vote(number, validator, number * 4 + 2 + validator)));
    }
    batch
}

pub fn writer(store: &dyn Store) -> Box<dyn Writer> {
    let mut writer = store.writer().expect("a writer");
    writer.adopt(DEPLOYMENT).expect("the database is ours");
    writer
}
