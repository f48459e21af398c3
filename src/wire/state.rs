//! From the model to answers.

use super::time::timestamp;
use super::v1;
use crate::model::{ApprovalState, Decision, LogId, Micros};

/// The BASIC view without votes: what streams, repeats and answers to votes carry.
pub fn status_message(state: &ApprovalState, log: LogId) -> v1::ApprovalStatusMessage {
    v1::ApprovalStatusMessage {
        approval_id: state.id.to_string(),
        status: state.status as i32,
        approval_type: state.approval_type as i32,
        priority: state.priority as i32,
        requester_id: state.requester.to_string(),
        content_hash: state.content_hash.to_string(),
        required_approvals: state.required.into(),
        total_validators: state.total.into(),
        approvals: state.tally.approvals.into(),
        rejections: state.tally.rejections.into(),
        abstentions: state.tally.abstentions.into(),
        created_at: Some(timestamp(state.created_at)),
        expires_at: Some(timestamp(state.expires_at)),
        finalized_at: state.finalized_at.map(timestamp),
        version: state.version,
        log: log.0,
        sequence: state.last_event.sequence(),
        eligible_count: state.eligible_count.into(),
        eligible_digest: state.eligible_digest.map(|digest| digest.to_vec().into()).unwrap_or_default(),
        ..v1::ApprovalStatusMessage::default()
    }
}

/// A vote as an answer or a change shows it.
pub fn vote_message(
    validator: &str,
    decision: Decision,
    reason: &str,
    signature: &[u8],
    voted_at: Option<Micros>,
    sequence: u64,
) -> v1::ValidatorVote {
    v1::ValidatorVote {
        validator_id: validator.into(),
        decision: decision as i32,
        reason: reason.into(),
        signature: signature.to_vec().into(),
        voted_at: voted_at.map(timestamp),
        sequence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ApprovalType, Outcome, Priority, Reason, Status};

    #[test]
    fn the_models_numbers_are_the_protos() {
        for number in 0..=255u8 {
            let proto = i32::from(number);
            let named = |is: Result<bool, prost::UnknownEnumValue>| is.unwrap_or(false);
            assert_eq!(
                ApprovalType::from_number(number).is_some(),
                named(v1::ApprovalType::try_from(proto).map(|it| it != v1::ApprovalType::Unspecified))
            );
            assert_eq!(
                Priority::from_number(number).is_some(),
                named(v1::ApprovalPriority::try_from(proto).map(|it| it != v1::ApprovalPriority::Unspecified))
            );
            assert_eq!(
                Status::from_number(number).is_some(),
                named(v1::ApprovalStatus::try_from(proto).map(|it| it != v1::ApprovalStatus::Unspecified))
            );
            assert_eq!(
                Decision::from_number(number).is_some(),
                named(v1::ValidatorDecision::try_from(proto).map(|it| it != v1::ValidatorDecision::Unspecified))
            );
        }
        for reason in Reason::ALL {
            let proto = v1::RefusalReason::try_from(i32::from(reason.number())).expect("a number of the proto");
            assert_eq!(proto.as_str_name(), format!("REFUSAL_REASON_{}", reason.name()));
        }
        assert_eq!(Outcome::Approved.status() as i32, v1::ApprovalStatus::Approved as i32);
        assert_eq!(Outcome::Rejected.status() as i32, v1::ApprovalStatus::Rejected as i32);
        assert_eq!(Outcome::Expired.status() as i32, v1::ApprovalStatus::Expired as i32);
        assert_eq!(ApprovalType::EmergencyAction as i32, v1::ApprovalType::EmergencyAction as i32);
        assert_eq!(Priority::Critical as i32, v1::ApprovalPriority::Critical as i32);
        assert_eq!(Decision::Abstain as i32, v1::ValidatorDecision::Abstain as i32);
    }
}
