//! Commands: what clients ask of a shard. Votes are the hot kind and come in batches that decode
//! themselves on the shard's thread, where that is cheapest, without the shard knowing protobuf.

use super::{
    ApprovalId, ContentHash, Decision, Event, EventRef, Outcome, PlainVote, Refusal, RequesterId, RequesterRef, SetRef,
    ValidatorRef,
};

/// The rare parts of a vote: most have none, and then pay nothing for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VoteExtras {
    pub content_hash: Option<ContentHash>,
    /// At most 1 KiB, no U+0000.
    pub reason: Box<str>,
    /// At most 512 bytes.
    pub signature: Box<[u8]>,
}

/// One vote of a batch, borrowed from the batch's bytes.
#[derive(Debug)]
pub struct VoteCommand<'a> {
    pub approval: ApprovalId,
    /// A legal validator name, in the spelling that counts (a hyphenated UUID in lower case).
    pub validator: &'a str,
    pub decision: Decision,
    pub extras: Option<Box<VoteExtras>>,
    /// The item's number within its source, from 0.
    pub item: u32,
}

/// A batch of votes that decodes itself a slice at a time.
pub trait CommandSource: Send {
    /// Votes in the batch, bad ones included; known before decoding, for bounds and accounting.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends up to `max` further votes to `into`; items that are not legal go to `bad` with
    /// their number instead. Returns false when nothing is left after this.
    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, bad: &mut Vec<(u32, Refusal)>) -> bool;
}

/// What became of a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoteAnswer {
    /// It counted; with the outcome if it decided.
    Accepted(Option<Outcome>),
    /// It stood already, and says the same.
    Repeat,
    Refused(Refusal),
}

/// Where the engine's events, definitions and answers go.
pub trait EventSink {
    /// The journal segment that the next event lands in: a reference is defined once in each. No two
    /// segments of a process have the same number, be they of one log or of several.
    fn segment(&self) -> u64;
    fn define_validator(&mut self, number: ValidatorRef, name: &str);
    fn define_requester(&mut self, number: RequesterRef, id: &RequesterId);
    /// The members are defined before.
    fn define_set(&mut self, number: SetRef, digest: &[u8; 32], members: &[ValidatorRef]);
    /// Takes an event; answers with the position that it now has.
    fn append(&mut self, event: &Event<'_>) -> EventRef;

    /// Takes a plain vote, as `append` would its event. A sink that writes bytes overrides this
    /// with one copy of forty of them.
    #[inline]
    fn append_vote(&mut self, vote: &PlainVote) -> EventRef {
        self.append(&vote.event())
    }
}

impl<T: EventSink + ?Sized> EventSink for &mut T {
    fn segment(&self) -> u64 {
        (**self).segment()
    }
    fn define_validator(&mut self, number: ValidatorRef, name: &str) {
        (**self).define_validator(number, name);
    }
    fn define_requester(&mut self, number: RequesterRef, id: &RequesterId) {
        (**self).define_requester(number, id);
    }
    fn define_set(&mut self, number: SetRef, digest: &[u8; 32], members: &[ValidatorRef]) {
        (**self).define_set(number, digest, members);
    }
    fn append(&mut self, event: &Event<'_>) -> EventRef {
        (**self).append(event)
    }
    fn append_vote(&mut self, vote: &PlainVote) -> EventRef {
        (**self).append_vote(vote)
    }
}

/// An [`EventSink`] that also takes the answers of a batch of votes.
pub trait VoteSink: EventSink {
    fn answer(&mut self, item: u32, answer: VoteAnswer);

    /// What a vote is told whose approval is not in memory.
    fn absent(&self, _approval: &ApprovalId) -> Refusal {
        Refusal::NotFound
    }
}
