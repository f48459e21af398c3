//! Rows as binary COPY takes them (PostgreSQL's documentation, COPY, "Binary Format").
//!
//! A header, then for each row its number of columns (16 bits) and for each column its length (32
//! bits, -1: NULL) and bytes, then -1. Encoded by hand into one buffer that goes out in pieces of
//! [`PIECE_BYTES`], so that the server reads while we encode and a large batch needs no large buffer.

use super::timestamp::Timestamp;
use crate::model::{ContentHash, Micros, Position, Status};
use crate::store::{NewApproval, NewVote, names};
use bytes::{BufMut, BytesMut};

/// A piece is sent once it has reached this; one row more at most.
pub(super) const PIECE_BYTES: usize = 128 << 10;

pub(super) const COPY_APPROVALS: &str = "COPY approval_requests (approval_id, approval_type, priority, requester_id, \
     content, content_hash, required_approvals, total_validators, status, created_at, expires_at, finalized_at, \
     approvals, rejections, abstentions, version, request_digest, eligible_count, eligible_digest, log_id, sequence, \
     decided_log_id, decided_sequence) FROM STDIN (FORMAT binary)";
const APPROVAL_COLUMNS: i16 = 23;

pub(super) const COPY_VOTES: &str = "COPY approval_responses (approval_id, validator_id, decision, reason, \
     created_at, version, signature, log_id, sequence) FROM STDIN (FORMAT binary)";
const VOTE_COLUMNS: i16 = 9;

pub(super) fn header(out: &mut BytesMut) {
    out.put_slice(b"PGCOPY\n\xFF\r\n\0");
    // No flags, no extension.
    out.put_u64(0);
}

pub(super) fn trailer(out: &mut BytesMut) {
    out.put_i16(-1);
}

pub(super) fn approval(row: &NewApproval, out: &mut BytesMut) {
    out.put_i16(APPROVAL_COLUMNS);
    bytes(&row.id.0, out);
    bytes(names::approval_type(row.approval_type).as_bytes(), out);
    bytes(names::priority(row.priority).as_bytes(), out);
    bytes(&row.requester.0, out);
    bytes(&row.content, out);
    hash(&row.content_hash, out);
    int2(row.required, out);
    int2(row.total, out);
    let status = row.outcome.map_or(Status::Pending, |outcome| outcome.outcome.status());
    bytes(names::status(status).as_bytes(), out);
    time(row.created_at, out);
    time(row.expires_at, out);
    match &row.outcome {
        Some(outcome) => time(outcome.finalized_at, out),
        None => null(out),
    }
    let tally = row.outcome.map(|outcome| outcome.tally).unwrap_or_default();
    int4(tally.approvals.into(), out);
    int4(tally.rejections.into(), out);
    int4(tally.abstentions.into(), out);
    int4(row.outcome.map_or(1, |outcome| outcome.version), out);
    bytes(&row.digest, out);
    match &row.eligible {
        Some(set) => {
            int2(set.members.len() as u16, out);
            bytes(&set.digest, out);
        }
        None => {
            int2(0, out);
            null(out);
        }
    }
    position(row.opened, out);
    match &row.outcome {
        Some(outcome) => position(outcome.decided, out),
        None => {
            null(out);
            null(out);
        }
    }
}

pub(super) fn vote(row: &NewVote, out: &mut BytesMut) {
    out.put_i16(VOTE_COLUMNS);
    bytes(&row.approval.0, out);
    bytes(row.validator.as_bytes(), out);
    bytes(names::decision(row.decision).as_bytes(), out);
    bytes_or_null(row.reason.as_bytes(), out);
    time(row.voted_at, out);
    int4(row.version, out);
    bytes_or_null(&row.signature, out);
    position(row.at, out);
}

fn null(out: &mut BytesMut) {
    out.put_i32(-1);
}

/// BYTEA, UUID and text alike.
fn bytes(value: &[u8], out: &mut BytesMut) {
    out.put_u32(value.len() as u32);
    out.put_slice(value);
}

fn bytes_or_null(value: &[u8], out: &mut BytesMut) {
    if value.is_empty() { null(out) } else { bytes(value, out) }
}

fn int2(value: u16, out: &mut BytesMut) {
    debug_assert!(value <= crate::model::TOTAL_VALIDATORS_MAX, "it fits SMALLINT");
    out.put_u32(2);
    out.put_u16(value);
}

fn int4(value: u32, out: &mut BytesMut) {
    debug_assert!(i32::try_from(value).is_ok(), "versions count events of one approval");
    out.put_u32(4);
    out.put_u32(value);
}

fn position(value: Position, out: &mut BytesMut) {
    out.put_u32(8);
    out.put_u64(value.log.0);
    out.put_u32(8);
    out.put_u64(value.sequence);
}

fn time(value: Micros, out: &mut BytesMut) {
    out.put_u32(8);
    out.put_i64(Timestamp::from(value).0);
}

/// As its `Display`, without a String a row.
fn hash(value: &ContentHash, out: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match value {
        ContentHash::Label(label) => bytes(label.as_bytes(), out),
        ContentHash::Sha256(digest) => {
            out.put_u32(7 + 64);
            out.put_slice(b"sha256:");
            for byte in digest {
                out.put_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
}
