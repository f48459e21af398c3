//! An approval: the request that opens it, and the state that memory holds of it.

use super::{ApprovalId, EventRef, Micros, RequesterId, ValidatorId};
use bytes::Bytes;
use std::sync::Arc;

/// N is at most this: it fits SMALLINT.
pub const TOTAL_VALIDATORS_MAX: u16 = 32_767;
/// No setting raises the limit on content above this.
pub const CONTENT_BYTES_CEILING: usize = 1 << 20;
/// A content hash is at most this many printable ASCII characters.
pub const LABEL_BYTES_MAX: usize = 255;

/// What is being asked; numbers as in the proto.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum ApprovalType {
    LargeTransaction = 1,
    ContractDeployment = 2,
    ParameterChange = 3,
    ContractUpgrade = 4,
    ValidatorChange = 5,
    TokenIssuance = 6,
    BridgeTransfer = 7,
    EmergencyAction = 8,
    Other = 9,
}

impl ApprovalType {
    pub const fn from_number(number: u8) -> Option<ApprovalType> {
        Some(match number {
            1 => ApprovalType::LargeTransaction,
            2 => ApprovalType::ContractDeployment,
            3 => ApprovalType::ParameterChange,
            4 => ApprovalType::ContractUpgrade,
            5 => ApprovalType::ValidatorChange,
            6 => ApprovalType::TokenIssuance,
            7 => ApprovalType::BridgeTransfer,
            8 => ApprovalType::EmergencyAction,
            9 => ApprovalType::Other,
            _ => return None,
        })
    }
}

/// How urgent; numbers as in the proto.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(u8)]
pub enum Priority {
    Normal = 1,
    High = 2,
    Critical = 3,
}

impl Priority {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Priority> {
        match number {
            1 => Some(Priority::Normal),
            2 => Some(Priority::High),
            3 => Some(Priority::Critical),
            _ => None,
        }
    }
}

/// Where it stands; numbers as in the proto.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum Status {
    Pending = 1,
    Approved = 2,
    Rejected = 3,
    Expired = 4,
}

impl Status {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Status> {
        match number {
            1 => Some(Status::Pending),
            2 => Some(Status::Approved),
            3 => Some(Status::Rejected),
            4 => Some(Status::Expired),
            _ => None,
        }
    }

    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Status::Pending => None,
            Status::Approved => Some(Outcome::Approved),
            Status::Rejected => Some(Outcome::Rejected),
            Status::Expired => Some(Outcome::Expired),
        }
    }
}

/// How it was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum Outcome {
    Approved = 2,
    Rejected = 3,
    Expired = 4,
}

impl Outcome {
    pub const fn status(self) -> Status {
        match self {
            Outcome::Approved => Status::Approved,
            Outcome::Rejected => Status::Rejected,
            Outcome::Expired => Status::Expired,
        }
    }
}

/// What is approved, by name: a checked SHA-256, or the caller's own label.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum ContentHash {
    Sha256([u8; 32]),
    Label(Box<str>),
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ContentHash::Label(label) => f.write_str(label),
            ContentHash::Sha256(bytes) => {
                // In one piece: every unary answer carries it, and a formatted byte costs as much as a vote.
                let mut text = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
                for (digits, byte) in text[7..].chunks_exact_mut(2).zip(bytes) {
                    digits[0] = HEX_DIGITS[usize::from(byte >> 4)];
                    digits[1] = HEX_DIGITS[usize::from(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).expect("digits and a name"))
            }
        }
    }
}

/// Votes cast so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub approvals: u16,
    pub rejections: u16,
    pub abstentions: u16,
}

impl Tally {
    pub const fn cast(self) -> u32 {
        self.approvals as u32 + self.rejections as u32 + self.abstentions as u32
    }
}

/// Who may vote, when that is named: sorted, without duplicates, 1 to 32,767 of them. Shared by all
/// approvals that name the same set.
#[derive(Debug, Eq, PartialEq)]
pub struct EligibleSet {
    pub members: Vec<ValidatorId>,
    /// SHA-256 over each member, sorted, as one length byte and its bytes.
    pub digest: [u8; 32],
}

/// A question, parsed and normalised. `engine` judges the rest: whether the id is free, whether
/// `expires_at` lies ahead, whether a limit is reached.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    pub id: ApprovalId,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterId,
    pub content: Bytes,
    pub content_hash: ContentHash,
    /// Q, 1 to N.
    pub required: u16,
    /// N, 1 to 32,767.
    pub total: u16,
    /// `None`: the default lifetime applies.
    pub expires_at: Option<Micros>,
    pub eligible: Option<Arc<EligibleSet>>,
    /// First 16 bytes of SHA-256 over the request as sent (rules: the same request repeats).
    pub digest: [u8; 16],
}

/// An approval as memory holds it (BASIC), at the event `last_event`. Owned: it leaves the shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalState {
    pub id: ApprovalId,
    pub status: Status,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterId,
    pub content_hash: ContentHash,
    pub required: u16,
    pub total: u16,
    pub tally: Tally,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub finalized_at: Option<Micros>,
    /// 1 when opened, one more with each event.
    pub version: u32,
    pub last_event: EventRef,
    pub eligible_count: u16,
    pub eligible_digest: Option<[u8; 32]>,
}
