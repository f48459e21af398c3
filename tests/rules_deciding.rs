//! An approval is decided at the very vote that makes Q certain or impossible, not one later.

use crate::support::recorder::Recorder;
use assent::engine::{Clock, Engine, Limits};
use assent::model::*;

const NOW: Clock = Clock::at(Micros(1_000_000));

pub fn request(number: u64, required: u16, total: u16) -> OpenRequest {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    OpenRequest {
        id: ApprovalId(id),
        approval_type: ApprovalType::LargeTransaction,
        priority: Priority::High,
        requester: RequesterId([9; 16]),
        content: Default::default(),
        content_hash: ContentHash::Sha256([0; 32]),
        required,
        total,
        expires_at: None,
        eligible: None,
        digest: id,
    }
}

pub fn vote<'a>(id: ApprovalId, validator: &'a str, decision: Decision) -> VoteCommand<'a> {
    VoteCommand { approval: id, validator, decision, extras: None, item: 0 }
}

pub fn engine() -> Engine {
    Engine::new(PartitionKey::new([1; 16]), Limits::for_memory(1 << 30))
}

/// Every order of every mix of votes for N up to 6 and every Q: after each vote the status is what
/// trying out all that could still come says.
#[test]
fn decides_exactly_when_the_outcome_is_certain() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let decisions = [Decision::Approved, Decision::Rejected, Decision::Abstain];
    let (mut engine, mut sink, mut number) = (engine(), Recorder::new(1), 0);
    for total in 1..=6u16 {
        for required in 1..=total {
            for mut mix in 0..3u32.pow(u32::from(total)) {
                number += 1;
                let request = request(number, required, total);
                engine.open(&request, NOW, Ok(()), &mut sink).expect("a free id");
                let mut approvals = 0;
                for cast in 0..total {
                    let decision = decisions[mix as usize % 3];
                    mix /= 3;
                    approvals += u16::from(decision == Decision::Approved);
                    let (answer, state) =
                        engine.vote(&vote(request.id, names[usize::from(cast)], decision), NOW, &mut sink);
                    let left = total - cast - 1;
                    let expected = match approvals {
                        _ if approvals == required => Status::Approved,
                        _ if approvals + left < required => Status::Rejected,
                        _ => Status::Pending,
                    };
                    let state = state.expect("it is in memory");
                    assert_eq!(answer, VoteAnswer::Accepted(expected.outcome()));
                    assert_eq!(state.status, expected, "Q {required}, N {total}: {:?}", state.tally);
                    assert_eq!(state.finalized_at.is_some(), expected != Status::Pending);
                    if let Some(outcome) = expected.outcome() {
                        let late = vote(request.id, "z", Decision::Approved);
                        let refused = VoteAnswer::Refused(Refusal::ApprovalDecided(outcome));
                        assert_eq!(engine.vote(&late, NOW, &mut sink).0, refused);
                        let again = vote(request.id, names[0], engine.has_voted(&request.id, names[0]).expect("voted"));
                        assert_eq!(engine.vote(&again, NOW, &mut sink).0, VoteAnswer::Repeat);
                        break;
                    }
                }
                assert_ne!(engine.state(&request.id).expect("it is in memory").status, Status::Pending);
            }
        }
    }
}

/// 32,767 validators, one vote each, in a batch: exact to the last.
#[test]
fn counts_the_largest_approval_exactly() {
    let (mut engine, mut sink) = (engine(), Recorder::new(1));
    let request = request(1, TOTAL_VALIDATORS_MAX, TOTAL_VALIDATORS_MAX);
    engine.open(&request, NOW, Ok(()), &mut sink).expect("a free id");
    let names: Vec<String> = (0..TOTAL_VALIDATORS_MAX).map(|at| format!("validator-{at}")).collect();
    let mut batch: Vec<_> = names.iter().map(|name| vote(request.id, name, Decision::Approved)).collect();
    engine.votes(&mut batch, NOW, &mut sink);
    let last = sink.answers.pop().expect("an answer a vote").1;
    assert_eq!(last, VoteAnswer::Accepted(Some(Outcome::Approved)));
    assert!(sink.answers.iter().all(|(_, answer)| *answer == VoteAnswer::Accepted(None)));
    assert_eq!(sink.answers.len(), names.len() - 1);
    let mut page = engine.votes_page(&request.id, None, 1_000).expect("it is in memory");
    let mut seen = Vec::new();
    loop {
        seen.extend(page.items.iter().map(|(name, _)| name.as_str().to_string()));
        let Some(after) = page.next else { break };
        page = engine.votes_page(&request.id, Some(&after), 1_000).expect("it is in memory");
    }
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(seen, sorted, "each once, in the order of names");
}
