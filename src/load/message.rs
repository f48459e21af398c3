//! The same messages as in `encode`, built as an ordinary client does: generated types, a String an
//! id and a name. `--client generated` sends these.

use super::encode::{approval_type, priority};
use super::scheme::Scheme;
use super::track::Slice;
use crate::wire::v1::{self, approval_stream_request::Item};
use bytes::Bytes;

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).expect("ids and names are ASCII").to_owned()
}

pub fn vote(scheme: &Scheme, validator: u16, number: u64) -> v1::ApprovalResponse {
    let validator = &scheme.validators[usize::from(validator)];
    let id = scheme.ids.id(number);
    v1::ApprovalResponse {
        approval_id: text(&id.text()),
        validator_id: text(&validator.name),
        decision: scheme.decision(validator, id).into(),
        ..Default::default()
    }
}

fn on_stream(item: Item) -> v1::ApprovalStreamRequest {
    v1::ApprovalStreamRequest { item: Some(item), ..Default::default() }
}

pub fn vote_on_stream(scheme: &Scheme, validator: u16, number: u64) -> v1::ApprovalStreamRequest {
    on_stream(Item::Response(vote(scheme, validator, number)))
}

pub fn rows(scheme: &Scheme, slice: &Slice) -> v1::ApprovalStreamRequest {
    let responses = slice.numbers(scheme).map(|number| vote(scheme, slice.validator(), number)).collect();
    on_stream(Item::Batch(v1::ApprovalBatch { responses, columns: None }))
}

pub fn columns(scheme: &Scheme, slice: &Slice) -> v1::ApprovalStreamRequest {
    let validator = &scheme.validators[usize::from(slice.validator())];
    let mut ids = Vec::with_capacity(slice.count as usize * 16);
    let mut decisions = Vec::with_capacity(slice.count as usize);
    for number in slice.numbers(scheme) {
        let id = scheme.ids.id(number);
        ids.extend_from_slice(&id.bytes());
        decisions.push(scheme.decision(validator, id));
    }
    let columns = v1::VoteColumns {
        approval_ids: Bytes::from(ids),
        decisions: Bytes::from(decisions),
        validator_id: text(&validator.name),
        ..Default::default()
    };
    on_stream(Item::Batch(v1::ApprovalBatch { responses: Vec::new(), columns: Some(columns) }))
}

pub fn open(scheme: &Scheme, number: u64) -> v1::ApprovalStreamRequest {
    let id = scheme.ids.id(number);
    let (pad, own) = scheme.content(id);
    let mut content = pad.to_vec();
    let own = &own[..content.len().min(16)];
    content[..own.len()].copy_from_slice(own);
    on_stream(Item::Request(v1::ApprovalRequest {
        approval_id: text(&id.text()),
        approval_type: approval_type(id).into(),
        priority: priority(id).into(),
        requester_id: text(&scheme.requester),
        content: content.into(),
        required_approvals: scheme.required.into(),
        total_validators: scheme.total().into(),
        ..Default::default()
    }))
}
