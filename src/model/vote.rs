//! A vote as it counts.

use super::ValidatorRef;

/// What a validator says. The numbers are those of the proto's ValidatorDecision and of every byte
/// in a column.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[repr(u8)]
pub enum Decision {
    Approved = 1,
    Rejected = 2,
    Abstain = 3,
}

impl Decision {
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Decision> {
        match number {
            1 => Some(Decision::Approved),
            2 => Some(Decision::Rejected),
            3 => Some(Decision::Abstain),
            _ => None,
        }
    }
}

/// A vote that counted, as memory holds it (BASIC). `voted_at`, reason and signature are in the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StandingVote {
    pub validator: ValidatorRef,
    pub decision: Decision,
}
