//! Messages by hand, straight into the buffer that goes to the socket: no String, no Vec, no
//! second copy a vote. `message` builds the same with generated code; a test holds them equal.

use super::mixed::Drawn;
use super::scheme::{EXPIRY_SECONDS, Id, Scheme, VALIDATOR_BYTES};
use super::track::Slice;
use std::time::{SystemTime, UNIX_EPOCH};

/// An `ApprovalResponse` without its tag and length: id, validator, decision.
const VOTE_BYTES: usize = (2 + 36) + (2 + VALIDATOR_BYTES) + 2;
const _: () = assert!(VOTE_BYTES < 128, "a vote's length takes one byte");
/// A row of a batch: the vote behind its tag and length.
const ROW_BYTES: usize = 2 + VOTE_BYTES;
/// gRPC's own prefix of a message: compressed (no), length.
const PREFIX_BYTES: usize = 5;

const fn tag(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}
const VARINT: u8 = 0;
const LEN: u8 = 2;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

const fn field_bytes(length: usize) -> usize {
    1 + varint_bytes(length as u64) + length
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    length_field(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

fn length_field(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(tag(field, LEN));
    varint(out, length as u64);
}

fn prefix(out: &mut Vec<u8>, length: usize) {
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).expect("messages are below 4 GiB").to_be_bytes());
}

/// Everything of a row but id and decision.
fn row_template(name: &[u8; VALIDATOR_BYTES]) -> [u8; ROW_BYTES] {
    let mut row = [0; ROW_BYTES];
    row[0] = tag(1, LEN);
    row[1] = VOTE_BYTES as u8;
    row[2] = tag(1, LEN);
    row[3] = 36;
    row[40] = tag(2, LEN);
    row[41] = VALIDATOR_BYTES as u8;
    row[42..42 + VALIDATOR_BYTES].copy_from_slice(name);
    row[ROW_BYTES - 2] = tag(3, VARINT);
    row
}

#[inline(always)]
fn fill_row(row: &mut [u8; ROW_BYTES], id: Id, decision: u8) {
    row[4..40].copy_from_slice(&id.text());
    row[ROW_BYTES - 1] = decision;
}

/// One gRPC message: an `ApprovalStreamRequest` with the slice's votes as rows.
pub fn rows(out: &mut Vec<u8>, scheme: &Scheme, slice: &Slice) {
    let batch = slice.count as usize * ROW_BYTES;
    out.reserve(PREFIX_BYTES + field_bytes(batch));
    prefix(out, field_bytes(batch));
    length_field(out, 3, batch);
    let validator = &scheme.validators[usize::from(slice.validator())];
    let mut row = row_template(&validator.name);
    slice.for_each_number(scheme, |number| {
        let id = scheme.ids.id(number);
        fill_row(&mut row, id, scheme.decision(validator, id));
        out.extend_from_slice(&row);
    });
}

/// One gRPC message: an `ApprovalStreamRequest` with the slice's votes as columns.
pub fn columns(out: &mut Vec<u8>, scheme: &Scheme, slice: &Slice) {
    let count = slice.count as usize;
    let columns = field_bytes(count * 16) + field_bytes(count) + field_bytes(VALIDATOR_BYTES);
    let batch = field_bytes(columns);
    out.reserve(PREFIX_BYTES + field_bytes(batch));
    prefix(out, field_bytes(batch));
    length_field(out, 3, batch);
    length_field(out, 2, columns);
    let validator = &scheme.validators[usize::from(slice.validator())];
    bytes_field(out, 3, &validator.name);
    length_field(out, 1, count * 16);
    let ids = out.len();
    out.resize(ids + count * 16, 0);
    length_field(out, 2, count);
    let decisions = out.len();
    out.resize(decisions + count, 0);
    let (head, decisions) = out.split_at_mut(decisions);
    let mut cells = head[ids..ids + count * 16].as_chunks_mut::<16>().0.iter_mut().zip(decisions);
    slice.for_each_number(scheme, |number| {
        let id = scheme.ids.id(number);
        let (cell, decision) = cells.next().expect("a cell for each vote");
        *cell = id.bytes();
        *decision = scheme.decision(validator, id);
    });
}

/// One gRPC message: an `ApprovalStreamRequest` with drawn votes as rows.
pub fn drawn_rows(out: &mut Vec<u8>, scheme: &Scheme, votes: &[Drawn]) {
    let batch = votes.len() * ROW_BYTES;
    out.reserve(PREFIX_BYTES + field_bytes(batch));
    prefix(out, field_bytes(batch));
    length_field(out, 3, batch);
    votes.iter().for_each(|vote| out.extend_from_slice(&drawn_row(scheme, vote)));
}

/// A gRPC message a drawn vote: `ApprovalStreamRequest`s that hold one each.
pub fn drawn_on_stream(out: &mut Vec<u8>, scheme: &Scheme, votes: &[Drawn]) {
    for vote in votes {
        let mut row = drawn_row(scheme, vote);
        row[0] = tag(2, LEN);
        prefix(out, ROW_BYTES);
        out.extend_from_slice(&row);
    }
}

fn drawn_row(scheme: &Scheme, vote: &Drawn) -> [u8; ROW_BYTES] {
    let validator = &scheme.validators[usize::from(vote.validator)];
    let mut row = row_template(&validator.name);
    let id = scheme.ids.id(vote.number);
    fill_row(&mut row, id, scheme.decision(validator, id));
    row
}

/// A gRPC message a vote: `ApprovalStreamRequest`s that hold one vote each.
pub fn votes_on_stream(out: &mut Vec<u8>, scheme: &Scheme, slice: &Slice) {
    let validator = &scheme.validators[usize::from(slice.validator())];
    let mut row = row_template(&validator.name);
    // As in a batch, but under the stream's own field.
    row[0] = tag(2, LEN);
    slice.for_each_number(scheme, |number| {
        let id = scheme.ids.id(number);
        fill_row(&mut row, id, scheme.decision(validator, id));
        prefix(out, ROW_BYTES);
        out.extend_from_slice(&row);
    });
}

/// A gRPC message a vote: the `ApprovalResponse`s of `batchSubmitResponses`.
pub fn votes_in_call(out: &mut Vec<u8>, scheme: &Scheme, slice: &Slice) {
    let validator = &scheme.validators[usize::from(slice.validator())];
    let mut row = row_template(&validator.name);
    slice.for_each_number(scheme, |number| {
        let id = scheme.ids.id(number);
        fill_row(&mut row, id, scheme.decision(validator, id));
        prefix(out, VOTE_BYTES);
        out.extend_from_slice(&row[2..]);
    });
}

/// One `ApprovalResponse` without gRPC's prefix, for a unary call.
pub fn vote(out: &mut Vec<u8>, scheme: &Scheme, validator: u16, number: u64) {
    let validator = &scheme.validators[usize::from(validator)];
    let mut row = row_template(&validator.name);
    let id = scheme.ids.id(number);
    fill_row(&mut row, id, scheme.decision(validator, id));
    out.extend_from_slice(&row[2..]);
}

/// A gRPC message an approval: `ApprovalStreamRequest`s that open one each.
pub fn opens(out: &mut Vec<u8>, scheme: &Scheme, slice: &Slice) {
    let content = scheme.content_bytes;
    let mut tail = Vec::with_capacity(8);
    tail.push(tag(7, VARINT));
    varint(&mut tail, scheme.required.into());
    tail.push(tag(8, VARINT));
    varint(&mut tail, scheme.total().into());
    let plain = field_bytes(36) + 2 + 2 + field_bytes(36) + field_bytes_unless_empty(content) + tail.len();
    let expiry = if scheme.expiring { expires_at() } else { Vec::new() };
    slice.for_each_number(scheme, |number| {
        let id = scheme.ids.id(number);
        let expiry = if scheme.expires(id) { &expiry[..] } else { &[] };
        let request = plain + expiry.len();
        prefix(out, field_bytes(request));
        length_field(out, 1, request);
        bytes_field(out, 1, &id.text());
        out.extend_from_slice(&[tag(2, VARINT), approval_type(id), tag(3, VARINT), priority(id)]);
        bytes_field(out, 4, &scheme.requester);
        if content > 0 {
            length_field(out, 5, content);
            let (pad, own) = scheme.content(id);
            let at = out.len();
            out.extend_from_slice(pad);
            let own = &own[..content.min(16)];
            out[at..at + own.len()].copy_from_slice(own);
        }
        out.extend_from_slice(&tail);
        out.extend_from_slice(expiry);
    });
}

/// The field `expires_at`, in whole seconds.
fn expires_at() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut timestamp = vec![tag(1, VARINT)];
    varint(&mut timestamp, now + EXPIRY_SECONDS);
    let mut field = Vec::with_capacity(8);
    bytes_field(&mut field, 10, &timestamp);
    field
}

/// proto3 leaves empty fields out.
const fn field_bytes_unless_empty(length: usize) -> usize {
    if length == 0 { 0 } else { field_bytes(length) }
}

/// Any of the contract's three types.
pub fn approval_type(id: Id) -> u8 {
    1 + (id.mixed % 3) as u8
}

/// Mostly NORMAL, one in eight HIGH, one in sixteen CRITICAL.
pub fn priority(id: Id) -> u8 {
    match id.mixed >> 60 {
        0 => 3,
        1 | 2 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{message, scheme::Mix, track::TrackKind};
    use crate::wire::v1;
    use proptest::prelude::*;
    use prost::Message;

    fn messages<M: Message + Default>(mut bytes: &[u8]) -> Vec<M> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes[0], 0, "not compressed");
            let length = u32::from_be_bytes(bytes[1..5].try_into().expect("4 bytes")) as usize;
            messages.push(M::decode(&bytes[5..5 + length]).expect("decodes"));
            bytes = &bytes[5 + length..];
        }
        messages
    }

    #[test]
    fn drawn_votes_are_those_of_their_validators_and_some_approvals_expire() {
        let scheme = Scheme::new(9, 0, 0, 7, 3, 20, Mix::DEFAULT).with_expiries(true);
        let votes: Vec<_> = (0..50).map(|at| Drawn { number: at * 7, validator: (at % 7) as u16 }).collect();
        let expected: Vec<_> = votes.iter().map(|vote| message::vote(&scheme, vote.validator, vote.number)).collect();
        let mut out = Vec::new();
        drawn_rows(&mut out, &scheme, &votes);
        let batch = v1::ApprovalBatch { responses: expected, columns: None };
        let item = |item| v1::ApprovalStreamRequest { item: Some(item), ..Default::default() };
        let rows = item(v1::approval_stream_request::Item::Batch(batch));
        assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), vec![rows]);

        out.clear();
        drawn_on_stream(&mut out, &scheme, &votes);
        let expected = votes.iter().map(|vote| message::vote_on_stream(&scheme, vote.validator, vote.number));
        assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), expected.collect::<Vec<_>>());

        out.clear();
        opens(&mut out, &scheme, &Slice { track: 0, kind: TrackKind::Open, block: 1, start: 0, count: 1_000 });
        let mut expiring = 0;
        for (number, found) in (1u64 << 32..).zip(messages::<v1::ApprovalStreamRequest>(&out)) {
            let mut expected = message::open(&scheme, number);
            let (
                Some(v1::approval_stream_request::Item::Request(found)),
                Some(v1::approval_stream_request::Item::Request(plain)),
            ) = (found.item, &mut expected.item)
            else {
                panic!("opens")
            };
            assert_eq!(found.expires_at.is_some(), scheme.expires(scheme.ids.id(number)));
            expiring += usize::from(found.expires_at.is_some());
            plain.expires_at = found.expires_at;
            assert_eq!(&found, plain);
        }
        assert!((10..60).contains(&expiring), "{expiring} of 1,000 expire");
    }

    proptest! {
        #[test]
        fn hand_made_equals_generated(
            seed: u64, instance: u16, count in 1u32..300, start in 0u64..1_000, validator in 0u16..7,
            content in prop_oneof![Just(0usize), 1usize..400], shuffled: bool, required in 1u16..=7,
        ) {
            let scheme = Scheme::new(seed, instance, 2_000, 7, required, content, Mix { approve: 50, reject: 30, abstain: 20 });
            let votes = Slice { track: 0, kind: TrackKind::Vote { validator, shuffled }, block: 0, start, count };
            let opens_slice = Slice { track: 0, kind: TrackKind::Open, block: 3, start, count };

            let mut out = Vec::new();
            rows(&mut out, &scheme, &votes);
            prop_assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), vec![message::rows(&scheme, &votes)]);

            out.clear();
            columns(&mut out, &scheme, &votes);
            prop_assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), vec![message::columns(&scheme, &votes)]);

            out.clear();
            votes_on_stream(&mut out, &scheme, &votes);
            let expected: Vec<_> = votes.numbers(&scheme).map(|n| message::vote_on_stream(&scheme, validator, n)).collect();
            prop_assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), expected);

            out.clear();
            votes_in_call(&mut out, &scheme, &votes);
            let expected: Vec<_> = votes.numbers(&scheme).map(|n| message::vote(&scheme, validator, n)).collect();
            prop_assert_eq!(messages::<v1::ApprovalResponse>(&out), expected.clone());

            out.clear();
            vote(&mut out, &scheme, validator, votes.numbers(&scheme).next().expect("at least one"));
            prop_assert_eq!(v1::ApprovalResponse::decode(&out[..]).expect("decodes"), expected[0].clone());

            out.clear();
            opens(&mut out, &scheme, &opens_slice);
            let expected: Vec<_> = opens_slice.numbers(&scheme).map(|n| message::open(&scheme, n)).collect();
            prop_assert_eq!(messages::<v1::ApprovalStreamRequest>(&out), expected);
        }
    }
}
