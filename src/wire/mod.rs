//! The protos: generated messages, their conversion from and to the model, the hot decoder.
//!
//! Everything a client sends is judged here, once: what passes is legal, for the stores too. Hot
//! messages (votes in bulk, requests on a stream) are read straight from their bytes; whatever is
//! unusual in their shape goes through the generated code, so that the two never differ on a
//! message that protobuf accepts. Left to others: sockets, statuses (`grpc`), the rules (`engine`).

mod ack;
mod batch;
mod columns;
mod hex;
mod json;
mod open;
mod rows;
mod scan;
mod state;
mod time;
mod vote;

/// Messages and service of `proto/approvals.proto`.
#[allow(clippy::doc_lazy_continuation, clippy::large_enum_variant)]
pub mod v1 {
    tonic::include_proto!("aurigraph.approvals.v1");
}

/// The encoded `FileDescriptorSet` of the contract, for reflection and proto-JSON.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/assent.descriptor"));

pub use ack::{AckRefusal, encode_ack};
pub use batch::{RowRun, StreamItem, StreamParser, VoteBatch};
pub use hex::parse_uuid;
pub use json::EventJson;
pub use open::{parse_open, parse_open_bytes};
pub use state::{status_message, vote_message};
pub use time::{micros, timestamp};
pub use vote::{ParsedVote, parse_vote};
