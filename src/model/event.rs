//! Events: what the journal holds, and all that anyone downstream is told.
//!
//! An event is self-contained, because everything downstream is stateless and may lag: an opening
//! or deciding one carries what matching and telling need; a plain vote the tally after it. The
//! vote that decides carries the outcome: there is no second event to lose.
//! References (validator, requester, set) are defined in the same journal segment before first use.

use super::{
    ApprovalId, ApprovalType, ContentHash, Decision, EventRef, Micros, Outcome, Priority, RequesterRef, SetRef, Tally,
    ValidatorRef,
};

/// One change of one approval, borrowed from the command or from the journal's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub approval: ApprovalId,
    /// This approval's event before this one.
    pub previous: EventRef,
    pub kind: EventKind<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EventKind<'a> {
    Opened(Opened<'a>),
    Voted(Voted<'a>),
    Expired(Expired),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Opened<'a> {
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterRef,
    pub content_hash: ContentHash,
    pub required: u16,
    pub total: u16,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub eligible: Option<SetRef>,
    pub digest: [u8; 16],
    pub content: &'a [u8],
}

#[derive(Clone, Debug, PartialEq)]
pub struct Voted<'a> {
    pub validator: ValidatorRef,
    pub decision: Decision,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterRef,
    /// After this vote.
    pub tally: Tally,
    /// Empty for most votes.
    pub reason: &'a str,
    pub signature: &'a [u8],
    /// Present when this vote decides.
    pub decided: Option<Box<Decided>>,
}

/// The hot case of a [`Voted`]: no extras, decides nothing. Fixed in size, so that the loop over a
/// batch neither builds the large enum nor allocates; [`PlainVote::event`] is the same in full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlainVote {
    pub approval: ApprovalId,
    pub previous: EventRef,
    pub validator: ValidatorRef,
    pub decision: Decision,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterRef,
    /// After this vote.
    pub tally: Tally,
}

impl PlainVote {
    pub fn event(&self) -> Event<'static> {
        Event {
            approval: self.approval,
            previous: self.previous,
            kind: EventKind::Voted(Voted {
                validator: self.validator,
                decision: self.decision,
                approval_type: self.approval_type,
                priority: self.priority,
                requester: self.requester,
                tally: self.tally,
                reason: "",
                signature: &[],
                decided: None,
            }),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterRef,
    pub tally: Tally,
    pub decided: Box<Decided>,
}

/// What an event adds that ends the voting.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    pub outcome: Outcome,
    pub content_hash: ContentHash,
    pub required: u16,
    pub total: u16,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub finalized_at: Micros,
}
