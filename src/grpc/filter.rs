//! An ApprovalRequest, or a request for pending ones, as a filter.

use super::status::invalid_field;
use crate::model::{ApprovalId, ApprovalType, Priority, RequesterId, ValidatorId};
use crate::shard::StateFilter;
use crate::wire::{parse_uuid, v1};
use sha2::{Digest, Sha256};
use tonic::Status;

/// A filter, and what tells it from another one in a resume token.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub state: StateFilter,
    pub awaiting: Option<ValidatorId>,
    pub digest: [u8; 16],
}

impl Filter {
    /// Of a watch: approval_id, approval_type, requester_id and priority count, created_at and watch
    /// are left to others; any other field that is set is refused, because it would silently not filter.
    pub fn of_watch(request: &v1::ApprovalRequest) -> Result<Filter, Status> {
        let beside: [(&'static str, bool); 6] = [
            ("content", !request.content.is_empty()),
            ("content_hash", !request.content_hash.is_empty()),
            ("required_approvals", request.required_approvals != 0),
            ("total_validators", request.total_validators != 0),
            ("expires_at", request.expires_at.is_some()),
            ("eligible_validators", !request.eligible_validators.is_empty()),
        ];
        if let Some((field, _)) = beside.into_iter().find(|(_, set)| *set) {
            return Err(invalid_field(field, "is not part of a filter: leave it out"));
        }
        let approval = match request.approval_id.as_str() {
            "" => None,
            text => Some(parse_uuid(text.as_bytes()).ok_or_else(|| invalid_field("approval_id", "must be a UUID"))?),
        };
        Filter::new(approval.map(ApprovalId), request.approval_type, request.priority, &request.requester_id, None)
    }

    pub fn of_pending(request: &v1::StreamPendingApprovalsRequest) -> Result<Filter, Status> {
        let awaiting = match request.awaiting_validator.as_str() {
            "" => None,
            name => Some(ValidatorId::parse(name).ok_or_else(|| {
                invalid_field("awaiting_validator", "must be 1 to 64 printable ASCII characters without spaces")
            })?),
        };
        Filter::new(None, request.approval_type, request.priority, &request.requester_id, awaiting)
    }

    fn new(
        approval: Option<ApprovalId>,
        approval_type: i32,
        priority: i32,
        requester: &str,
        awaiting: Option<ValidatorId>,
    ) -> Result<Filter, Status> {
        let number = |number: i32| u8::try_from(number).ok();
        let approval_type = match approval_type {
            0 => None,
            other => Some(
                number(other)
                    .and_then(ApprovalType::from_number)
                    .ok_or_else(|| invalid_field("approval_type", "is no type: leave it out for any"))?,
            ),
        };
        let priority = match priority {
            0 => None,
            other => Some(
                number(other)
                    .and_then(Priority::from_number)
                    .ok_or_else(|| invalid_field("priority", "is no priority: leave it out for any"))?,
            ),
        };
        let requester = match requester {
            "" => None,
            text => Some(RequesterId(
                parse_uuid(text.as_bytes()).ok_or_else(|| invalid_field("requester_id", "must be a UUID"))?,
            )),
        };
        let state = StateFilter { approval, approval_type, requester, priority };
        Ok(Filter { digest: digest(&state, awaiting.as_ref()), state, awaiting })
    }
}

/// The first 16 bytes of SHA-256 over each part as one length byte and its bytes, 0 for any.
fn digest(filter: &StateFilter, awaiting: Option<&ValidatorId>) -> [u8; 16] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update([bytes.len() as u8]);
        digest.update(bytes);
    };
    part(filter.approval.as_ref().map_or(&[], |id| &id.0[..]));
    part(filter.approval_type.map(|it| [it as u8]).as_ref().map_or(&[], |it| &it[..]));
    part(filter.requester.as_ref().map_or(&[], |id| &id.0[..]));
    part(filter.priority.map(|it| [it as u8]).as_ref().map_or(&[], |it| &it[..]));
    part(awaiting.map_or(&[], |name| name.as_str().as_bytes()));
    digest.finalize()[..16].try_into().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    fn check(change: impl FnOnce(&mut v1::ApprovalRequest), field: &str) {
        let mut request = v1::ApprovalRequest::default();
        change(&mut request);
        match Filter::of_watch(&request) {
            Ok(_) => assert_eq!(field, "", "{request:?} passes"),
            Err(status) => {
                assert_eq!(status.get_error_details().bad_request().expect("field").field_violations[0].field, field);
            }
        }
    }

    #[test]
    fn only_what_filters_may_be_set() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        check(|_| {}, "");
        check(|r| r.approval_id = id.into(), "");
        check(|r| r.approval_id = "7".into(), "approval_id");
        check(|r| r.approval_type = 9, "");
        check(|r| r.approval_type = 10, "approval_type");
        check(|r| r.priority = 3, "");
        check(|r| r.priority = 4, "priority");
        check(|r| r.requester_id = id.into(), "");
        check(|r| r.requester_id = "me".into(), "requester_id");
        check(|r| r.created_at = Some(prost_types::Timestamp::default()), "");
        check(|r| r.watch = Some(v1::WatchOptions::default()), "");
        check(|r| r.content = vec![1].into(), "content");
        check(|r| r.content_hash = "x".into(), "content_hash");
        check(|r| r.required_approvals = 1, "required_approvals");
        check(|r| r.total_validators = 1, "total_validators");
        check(|r| r.expires_at = Some(prost_types::Timestamp::default()), "expires_at");
        check(|r| r.eligible_validators = vec!["a".into()], "eligible_validators");
    }

    #[test]
    fn the_digest_tells_filters_apart_and_spellings_together() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let digest = |approval_id: &str, requester_id: &str, approval_type, priority| {
            let request = v1::ApprovalRequest {
                approval_id: approval_id.into(),
                requester_id: requester_id.into(),
                approval_type,
                priority,
                ..v1::ApprovalRequest::default()
            };
            Filter::of_watch(&request).expect("legal").digest
        };
        let all = [
            digest("", "", 0, 0),
            digest(id, "", 0, 0),
            digest("", id, 0, 0),
            digest("", "", 1, 0),
            digest("", "", 0, 1),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(digest(&id.to_uppercase(), "", 0, 0), digest(&format!("{{{id}}}"), "", 0, 0));
    }
}
