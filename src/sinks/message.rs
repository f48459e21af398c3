//! An event as sinks publish it: a `FeedEvent` becomes the contract's `ApprovalEvent`.
//!
//! An opening or deciding event carries everything that it knows (an opening its content too; of its
//! eligible validators count and digest, because 32,767 names are more than a broker takes as one
//! record), a plain vote the id, type, priority, requester and the tally after it.
//! Left to others: bytes on a wire, keys and headers (each sink).

use crate::model::{Decided, LogId, Status};
use crate::shard::{FeedEvent, FeedKind};
use crate::wire::{timestamp, v1, vote_message};

/// The event of this log as everyone downstream is told.
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
    match &event.kind {
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
        }
        FeedKind::Voted { validator, decision, reason, signature, decided } => {
            vote = Some(vote_message(validator, *decision, reason, signature, Some(event.time), sequence));
            if let Some(decided) = decided {
                finalize(&mut approval, decided);
            }
        }
        FeedKind::Expired { decided } => finalize(&mut approval, decided),
    }
    v1::ApprovalEvent {
        log: log.0,
        sequence,
        event_type: event_type(event) as i32,
        time: Some(timestamp(event.time)),
        approval: Some(approval),
        vote,
    }
}

/// What happened, in the contract's word.
pub fn event_type(event: &FeedEvent) -> v1::ApprovalEventType {
    match (&event.kind, event.outcome()) {
        (FeedKind::Opened { .. }, _) => v1::ApprovalEventType::Created,
        (_, None) => v1::ApprovalEventType::Updated,
        (_, Some(_)) => v1::ApprovalEventType::Finalized,
    }
}

fn finalize(approval: &mut v1::ApprovalStatusMessage, decided: &Decided) {
    approval.content_hash = decided.content_hash.to_string();
    approval.required_approvals = decided.required.into();
    approval.total_validators = decided.total.into();
    approval.created_at = Some(timestamp(decided.created_at));
    approval.expires_at = Some(timestamp(decided.expires_at));
    approval.finalized_at = Some(timestamp(decided.finalized_at));
}
