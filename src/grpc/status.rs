//! The one table from a refusal to a gRPC status: code, message, details.
//!
//! A message says what is so and what to do. Details: BadRequest names the field of
//! INVALID_ARGUMENT, ErrorInfo (domain `assent`) the reason of everything, RetryInfo the delay where
//! a later try may succeed.

use crate::model::{Decision, Invalid, Outcome, Reason, Refusal};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub const DOMAIN: &str = "assent";

/// The code of a reason; streams give it as a number beside each refused item.
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument => Code::InvalidArgument,
        Reason::NotFound | Reason::ApprovalClosed => Code::NotFound,
        Reason::ApprovalDecided | Reason::ContentHashMismatch => Code::FailedPrecondition,
        Reason::VoteStands | Reason::IdTaken => Code::AlreadyExists,
        Reason::NotEligible => Code::PermissionDenied,
        Reason::LimitReached | Reason::NoSpace | Reason::Overloaded => Code::ResourceExhausted,
        Reason::ClockJump | Reason::Stopping | Reason::LookUpFirst | Reason::ArchiveUnavailable => Code::Unavailable,
    }
}

/// After which time a later try may succeed.
const fn retry_after(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::Overloaded | Reason::LookUpFirst => Some(Duration::from_millis(50)),
        // Room is looked for every second; a place comes with the next approval that is archived.
        Reason::NoSpace | Reason::LimitReached | Reason::Stopping | Reason::ArchiveUnavailable => {
            Some(Duration::from_secs(1))
        }
        // Until an operator accepts the clock.
        Reason::ClockJump => Some(Duration::from_secs(10)),
        _ => None,
    }
}

/// What a unary call answers.
pub fn status(refusal: &Refusal) -> Status {
    let reason = refusal.reason();
    let mut facts = HashMap::new();
    let mut fact = |key: &str, value: &str| facts.insert(key.to_string(), value.to_string());
    let message = match refusal {
        Refusal::Invalid(invalid) => return invalid_argument(invalid),
        Refusal::NotFound => "no such approval: check approval_id, or open it first".into(),
        Refusal::ApprovalClosed => {
            "the approval is no longer in memory, if it ever was: ask getApprovalStatus for certainty".into()
        }
        Refusal::ApprovalDecided(outcome) => {
            fact("outcome", outcome_name(*outcome));
            format!("the approval is decided: {}. Nothing is left to vote on", outcome_name(*outcome))
        }
        Refusal::VoteStands(decision) => {
            fact("standing_decision", decision_name(*decision));
            format!("this validator's vote stands: {}. A vote is cast once", decision_name(*decision))
        }
        Refusal::NotEligible => "the approval names its validators, and this one is not among them".into(),
        Refusal::ContentHashMismatch => {
            "the vote names another content_hash than the approval has: read the approval again".into()
        }
        Refusal::IdTaken => "approval_id is taken by a different request: draw another id".into(),
        Refusal::LimitReached(limit) => {
            fact("limit", limit);
            format!("the limit {limit} is reached: try again later, or raise the setting")
        }
        Refusal::SinkBehind(sink) => {
            fact("limit", "sink_lag_bytes_max");
            fact("sink", sink);
            format!(
                "the sink {sink} is as far behind as the limit sink_lag_bytes_max allows: new approvals wait until it \
                 catches up, votes go on"
            )
        }
        Refusal::NoSpace => "no room is left, on the disk or under folder_bytes_max: try again once there is".into(),
        Refusal::ClockJump => "the clock is in doubt: new approvals wait until an operator accepts it".into(),
        Refusal::Overloaded => "the queue is full: try again after the delay".into(),
        Refusal::Stopping => "the node is stopping: try again, on another node or when it is back".into(),
        Refusal::LookUpFirst => "approval_id may be known, and the archive was not asked in time: try again".into(),
        Refusal::ArchiveUnavailable(why) => format!("{why}; what is no longer in memory waits for the archive"),
    };
    let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, facts);
    if let Some(delay) = retry_after(reason) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code(reason), message, details)
}

/// A field that does not hold what it must.
pub fn invalid_argument(invalid: &Invalid) -> Status {
    let mut details = ErrorDetails::with_bad_request_violation(invalid.field.clone(), invalid.message.clone());
    details.set_error_info(Reason::InvalidArgument.name(), DOMAIN, HashMap::new());
    let message = format!("{} {}", invalid.field, invalid.message);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

pub(super) fn invalid_field(field: &'static str, message: impl Into<String>) -> Status {
    invalid_argument(&Invalid { field: field.into(), message: message.into().into() })
}

/// The deadline came first: what was asked may or may not have happened.
pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the deadline came before the answer: what was asked is unknown, repeat it")
}

/// A shard went away in the middle.
pub(super) fn lost() -> Status {
    Status::unavailable("the node is going down: what was not acknowledged is unknown, repeat it")
}

/// A message that could not be read. tonic's own answer to one over the limit is OUT_OF_RANGE (which
/// elsewhere means a resume token), compressed RESOURCE_EXHAUSTED; neither names the limit.
pub(super) fn unread(status: Status) -> Status {
    match is_too_long(&status) {
        true => limit_reached("message_bytes_max"),
        false => status,
    }
}

pub(super) fn is_too_long(status: &Status) -> bool {
    matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) && status.details().is_empty()
}

pub(super) fn limit_reached(limit: &'static str) -> Status {
    status(&Refusal::LimitReached(limit))
}

pub const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Approved => "APPROVED",
        Outcome::Rejected => "REJECTED",
        Outcome::Expired => "EXPIRED",
    }
}

pub const fn decision_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Approved => "APPROVED",
        Decision::Rejected => "REJECTED",
        Decision::Abstain => "ABSTAIN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(refusal: Refusal, code: Code, reason: &str, fact: Option<(&str, &str)>, retries: bool) {
        let status = status(&refusal);
        assert_eq!(status.code(), code, "{refusal:?}");
        assert_eq!(super::code(refusal.reason()), code, "streams give the same code");
        let details = status.get_error_details();
        let info = details.error_info().expect("ErrorInfo");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("assent", reason));
        if let Some((key, value)) = fact {
            assert_eq!(info.metadata.get(key).map(String::as_str), Some(value), "{refusal:?}");
        }
        assert_eq!(details.retry_info().is_some(), retries, "{refusal:?}");
        assert!(!status.message().is_empty());
    }

    #[test]
    fn every_refusal_has_its_code_reason_and_details() {
        let outcome = Refusal::ApprovalDecided(Outcome::Rejected);
        let stands = Refusal::VoteStands(Decision::Abstain);
        check(Refusal::NotFound, Code::NotFound, "NOT_FOUND", None, false);
        check(Refusal::ApprovalClosed, Code::NotFound, "APPROVAL_CLOSED", None, false);
        check(outcome, Code::FailedPrecondition, "APPROVAL_DECIDED", Some(("outcome", "REJECTED")), false);
        check(stands, Code::AlreadyExists, "VOTE_STANDS", Some(("standing_decision", "ABSTAIN")), false);
        check(Refusal::NotEligible, Code::PermissionDenied, "NOT_ELIGIBLE", None, false);
        check(Refusal::ContentHashMismatch, Code::FailedPrecondition, "CONTENT_HASH_MISMATCH", None, false);
        check(Refusal::IdTaken, Code::AlreadyExists, "ID_TAKEN", None, false);
        let limit = Some(("limit", "approvals_max"));
        check(Refusal::LimitReached("approvals_max"), Code::ResourceExhausted, "LIMIT_REACHED", limit, true);
        check(Refusal::NoSpace, Code::ResourceExhausted, "NO_SPACE", None, true);
        check(Refusal::ClockJump, Code::Unavailable, "CLOCK_JUMP", None, true);
        check(Refusal::Overloaded, Code::ResourceExhausted, "OVERLOADED", None, true);
        check(Refusal::Stopping, Code::Unavailable, "STOPPING", None, true);
        check(Refusal::LookUpFirst, Code::Unavailable, "LOOK_UP_FIRST", None, true);
        let archive = Refusal::ArchiveUnavailable("the archive is not to be had: a timeout".into());
        check(archive, Code::Unavailable, "ARCHIVE_UNAVAILABLE", None, true);
        check(Refusal::invalid("content", "is too long"), Code::InvalidArgument, "INVALID_ARGUMENT", None, false);
    }

    #[test]
    fn an_invalid_field_is_named() {
        let status = status(&Refusal::invalid("eligible_validators[3]", "is no name"));
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("BadRequest").field_violations;
        assert_eq!(violations[0].field, "eligible_validators[3]");
        assert_eq!(violations[0].description, "is no name");
    }
}
