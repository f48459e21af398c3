//! An event as destinations are told of it: the contract's ApprovalEvent.

use crate::model::{Decided, LogId, Status};
use crate::shard::{FeedEvent, FeedKind};
use crate::wire::{timestamp, v1, vote_message};

/// The event of this log: an opening or deciding one with everything, a plain vote with id, type, priority,
/// requester and tally.
pub fn event_message(event: &FeedEvent, log: LogId) -> v1::ApprovalEvent {
    let sequence = event.at.sequence();
    let mut approval = v1::ApprovalStatusMessage {
        approval_id: event.approval.to_string(),
        status: event.outcome().map_or(Status::Pending, |outcome| outcome.status()) as i32,
        approval_type: event.approval_type as i32,
        priority: event.priority as i32,
        requester_id: event.requester.to_string(),
        approvals: event.tally.approvals.into(),
        rejections: event.tally.rejections.into(),
        abstentions: event.tally.abstentions.into(),
        version: event.version(),
        log: log.0,
        sequence,
        ..v1::ApprovalStatusMessage::default()
    };
    let mut vote = None;
    let event_type = match &event.kind {
        FeedKind::Opened { content_hash, required, total, created_at, expires_at, details } => {
            approval.content_hash = content_hash.to_string();
            approval.required_approvals = (*required).into();
            approval.total_validators = (*total).into();
            approval.created_at = Some(timestamp(*created_at));
            approval.expires_at = Some(timestamp(*expires_at));
            if let Some(details) = details {
                approval.content = details.content.clone();
                if let Some(set) = &details.eligible {
                    approval.eligible_count = set.members.len() as u32;
                    approval.eligible_digest = set.digest.to_vec().into();
                }
            }
            v1::ApprovalEventType::Created
        }
        FeedKind::Voted { validator, decision, reason, signature, decided } => {
            vote = Some(vote_message(validator, *decision, reason, signature, Some(event.time), sequence));
            match decided {
                None => v1::ApprovalEventType::Updated,
                Some(decided) => finalized(&mut approval, decided),
            }
        }
        FeedKind::Expired { decided } => finalized(&mut approval, decided),
    };
    let time = Some(timestamp(event.time));
    v1::ApprovalEvent { log: log.0, sequence, event_type: event_type as i32, time, approval: Some(approval), vote }
}

fn finalized(approval: &mut v1::ApprovalStatusMessage, decided: &Decided) -> v1::ApprovalEventType {
    approval.content_hash = decided.content_hash.to_string();
    approval.required_approvals = decided.required.into();
    approval.total_validators = decided.total.into();
    approval.created_at = Some(timestamp(decided.created_at));
    approval.expires_at = Some(timestamp(decided.expires_at));
    approval.finalized_at = Some(timestamp(decided.finalized_at));
    v1::ApprovalEventType::Finalized
}
