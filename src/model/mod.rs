//! The words of the field: what an approval, a vote, a command, an event and a refusal are.
//!
//! Everything here is plain data that passed the door (`wire` parses, this room proves): after
//! construction every value is legal, for the stores too, and nothing downstream validates again.
//! Left to others: protobuf (`wire`), the rules (`engine`), clocks (`shard`).

mod approval;
pub mod codec;
mod command;
mod event;
mod ids;
mod refusal;
mod time;
mod vote;

pub use approval::{
    ApprovalState, ApprovalType, CONTENT_BYTES_CEILING, ContentHash, EligibleSet, LABEL_BYTES_MAX, OpenRequest,
    Outcome, Priority, Status, TOTAL_VALIDATORS_MAX, Tally,
};
pub use command::{CommandSource, EventSink, VoteAnswer, VoteCommand, VoteExtras, VoteSink};
pub use event::{Decided, Event, EventKind, Expired, Opened, PlainVote, Voted};
pub use ids::{
    ApprovalId, EventRef, LogId, PARTITIONS, PartitionKey, Position, RequesterId, RequesterRef, SetRef, ValidatorId,
    ValidatorRef,
};
pub use refusal::{Invalid, Reason, Refusal};
pub use time::Micros;
pub use vote::{Decision, StandingVote};
