//! Refusals: answers, not errors. Each says which rule applied; `grpc` maps it to a status.

use super::{Decision, Outcome};
use std::borrow::Cow;

/// Why something was refused; numbers as in the proto's RefusalReason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum Reason {
    InvalidArgument = 1,
    NotFound = 2,
    ApprovalClosed = 3,
    ApprovalDecided = 4,
    VoteStands = 5,
    NotEligible = 6,
    ContentHashMismatch = 7,
    IdTaken = 8,
    LimitReached = 9,
    NoSpace = 10,
    ClockJump = 11,
    Overloaded = 12,
    Stopping = 13,
    LookUpFirst = 14,
    ArchiveUnavailable = 15,
}

impl Reason {
    pub const ALL: [Reason; 15] = [
        Reason::InvalidArgument,
        Reason::NotFound,
        Reason::ApprovalClosed,
        Reason::ApprovalDecided,
        Reason::VoteStands,
        Reason::NotEligible,
        Reason::ContentHashMismatch,
        Reason::IdTaken,
        Reason::LimitReached,
        Reason::NoSpace,
        Reason::ClockJump,
        Reason::Overloaded,
        Reason::Stopping,
        Reason::LookUpFirst,
        Reason::ArchiveUnavailable,
    ];

    /// As in ErrorInfo, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::InvalidArgument => "INVALID_ARGUMENT",
            Reason::NotFound => "NOT_FOUND",
            Reason::ApprovalClosed => "APPROVAL_CLOSED",
            Reason::ApprovalDecided => "APPROVAL_DECIDED",
            Reason::VoteStands => "VOTE_STANDS",
            Reason::NotEligible => "NOT_ELIGIBLE",
            Reason::ContentHashMismatch => "CONTENT_HASH_MISMATCH",
            Reason::IdTaken => "ID_TAKEN",
            Reason::LimitReached => "LIMIT_REACHED",
            Reason::NoSpace => "NO_SPACE",
            Reason::ClockJump => "CLOCK_JUMP",
            Reason::Overloaded => "OVERLOADED",
            Reason::Stopping => "STOPPING",
            Reason::LookUpFirst => "LOOK_UP_FIRST",
            Reason::ArchiveUnavailable => "ARCHIVE_UNAVAILABLE",
        }
    }

    /// The number in a list of refusals, from 1.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A field that does not hold what it must.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// As the proto names it: `content_hash`, `eligible_validators[3]`.
    pub field: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

/// A refusal with what its message needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    Invalid(Box<Invalid>),
    NotFound,
    ApprovalClosed,
    ApprovalDecided(Outcome),
    /// The vote that stands.
    VoteStands(Decision),
    NotEligible,
    ContentHashMismatch,
    IdTaken,
    /// The setting that names the limit.
    LimitReached(&'static str),
    /// A sink with this name is as far behind as the setting allows.
    SinkBehind(&'static str),
    /// On the disk, or under the folder's limit.
    NoSpace,
    ClockJump,
    Overloaded,
    Stopping,
    /// The id may be known, and nothing proves that it is free.
    LookUpFirst,
    /// Only the archive knows, and it does not answer: why, without a password.
    ArchiveUnavailable(Box<str>),
}

impl Refusal {
    pub fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::Invalid(Box::new(Invalid { field: field.into(), message: message.into() }))
    }

    pub const fn reason(&self) -> Reason {
        match self {
            Refusal::Invalid(_) => Reason::InvalidArgument,
            Refusal::NotFound => Reason::NotFound,
            Refusal::ApprovalClosed => Reason::ApprovalClosed,
            Refusal::ApprovalDecided(_) => Reason::ApprovalDecided,
            Refusal::VoteStands(_) => Reason::VoteStands,
            Refusal::NotEligible => Reason::NotEligible,
            Refusal::ContentHashMismatch => Reason::ContentHashMismatch,
            Refusal::IdTaken => Reason::IdTaken,
            Refusal::LimitReached(_) | Refusal::SinkBehind(_) => Reason::LimitReached,
            Refusal::NoSpace => Reason::NoSpace,
            Refusal::ClockJump => Reason::ClockJump,
            Refusal::Overloaded => Reason::Overloaded,
            Refusal::Stopping => Reason::Stopping,
            Refusal::LookUpFirst => Reason::LookUpFirst,
            Refusal::ArchiveUnavailable(_) => Reason::ArchiveUnavailable,
        }
    }
}
