//! listApprovals: what the archive holds, newest first, as memory now knows it.
//!
//! Its page token: base64 (URL-safe) of
//! `version 1 | digest of the filter 16 | created_at 8 | approval 16 | crc32c 4`, little-endian: it means
//! the same after a restart, and in another node's hands.

use super::filter::Filter;
use super::front::Deps;
use super::read::STATUSES_BYTES_MAX;
use super::status::{self, DOMAIN, invalid_field};
use crate::model::{ApprovalId, Micros, Status as ApprovalStatus, ValidatorId};
use crate::store::{ListFilter, ListKey, TimeRange};
use crate::wire::{micros, status_message, v1};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;
const VERSION: u8 = 1;
const TOKEN_BYTES: usize = 1 + 16 + 8 + 16 + 4;

pub(super) async fn list(deps: &Deps, request: v1::ListApprovalsRequest) -> Result<v1::ListApprovalsResponse, Status> {
    let (filter, digest) = filter(&request)?;
    let max = match request.page_size as usize {
        0 => PAGE_DEFAULT,
        size @ 1..=PAGE_MAX => size,
        _ => return Err(invalid_field("page_size", "must be 1 to 1,000, or 0 for 100")),
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(parse(token, &digest)?),
    };
    let archive = deps.archive.as_ref().ok_or_else(no_archive)?;
    let refused = |refusal| status::status(&refusal);
    let wanted = filter.status;
    let mut found = archive.list(filter, after, max + 1).await.map_err(refused)?;
    let mut more = found.len() > max;
    found.truncate(max);
    let ids = found.iter().map(|found| found.state.id).collect();
    let current = deps.shards.statuses(ids).await.map_err(refused)?;
    let mut answer = v1::ListApprovalsResponse::default();
    let (mut bytes, mut last) = (0, None);
    for (found, current) in found.into_iter().zip(current) {
        let key = ListKey { created_at: found.state.created_at, id: found.state.id };
        let (state, log) = match current {
            // The archive follows: what is in memory is never behind it.
            Some(state) => {
                let log = deps.shards.log_of(state.last_event);
                (state, log)
            }
            None => (found.state, found.log),
        };
        // Decided since the archive was written.
        if wanted.is_none_or(|wanted| wanted == state.status) {
            let message = status_message(&state, log);
            // Five bytes of framing.
            bytes += 5 + message.encoded_len();
            if bytes > STATUSES_BYTES_MAX - 1_024 {
                more = true;
                break;
            }
            answer.approvals.push(message);
        }
        last = Some(key);
    }
    if let Some(last) = last.filter(|_| more) {
        answer.next_page_token = token(&digest, last);
    }
    Ok(answer)
}

fn no_archive() -> Status {
    let message = "this node keeps no archive, which is what lists are read from: start it with one \
                   (DB_URL=postgres://…, or the SQLite file in its data folder)";
    let details = ErrorDetails::with_error_info("NO_ARCHIVE", DOMAIN, HashMap::new());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// The filter, and what tells it from another one in a page token.
fn filter(request: &v1::ListApprovalsRequest) -> Result<(ListFilter, [u8; 16]), Status> {
    // Type, priority and requester are judged as in every other filter.
    let common = Filter::of_watch(&v1::ApprovalRequest {
        approval_type: request.approval_type,
        priority: request.priority,
        requester_id: request.requester_id.clone(),
        ..v1::ApprovalRequest::default()
    })?;
    let status = match request.status {
        0 => None,
        number => Some(
            u8::try_from(number)
                .ok()
                .and_then(ApprovalStatus::from_number)
                .ok_or_else(|| invalid_field("status", "is no status: leave it out for any"))?,
        ),
    };
    let validator = match request.validator_id.as_str() {
        "" => None,
        name => Some(ValidatorId::parse(name).ok_or_else(|| {
            invalid_field("validator_id", "must be 1 to 64 printable ASCII characters without spaces")
        })?),
    };
    let time = |field: &'static str, time: &Option<Timestamp>| match time {
        None => Ok(None),
        Some(time) => micros(time)
            .map(Some)
            .ok_or_else(|| invalid_field(field, "must lie between 1970 and 9999, with nanos below one second")),
    };
    let created =
        TimeRange { from: time("created_from", &request.created_from)?, to: time("created_to", &request.created_to)? };
    if let (Some(from), Some(to)) = (created.from, created.to)
        && from >= to
    {
        return Err(invalid_field("created_to", "must lie behind created_from"));
    }
    let mut digest = Sha256::new();
    digest.update(common.digest);
    digest.update([request.status as u8, validator.as_ref().map_or(0, |name| name.as_str().len() as u8)]);
    digest.update(validator.as_ref().map_or("", ValidatorId::as_str));
    for end in [created.from, created.to] {
        digest.update([u8::from(end.is_some())]);
        digest.update(end.unwrap_or_default().0.to_le_bytes());
    }
    let filter = ListFilter {
        status,
        approval_type: common.state.approval_type,
        priority: common.state.priority,
        requester: common.state.requester,
        validator,
        created,
    };
    Ok((filter, digest.finalize()[..16].try_into().expect("16 of 32 bytes")))
}

fn token(digest: &[u8; 16], last: ListKey) -> String {
    let mut token = Vec::with_capacity(TOKEN_BYTES);
    token.push(VERSION);
    token.extend_from_slice(digest);
    token.extend_from_slice(&last.created_at.0.to_le_bytes());
    token.extend_from_slice(&last.id.0);
    token.extend_from_slice(&crc32c::crc32c(&token).to_le_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

fn parse(token: &str, digest: &[u8; 16]) -> Result<ListKey, Status> {
    let damaged = || invalid_field("page_token", "is no page token of a list, or a damaged one: start over");
    let bytes: [u8; TOKEN_BYTES] =
        URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
    let (body, checksum) = bytes.split_last_chunk::<4>().expect("longer than four bytes");
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) || body[0] != VERSION {
        return Err(damaged());
    }
    if body[1..17] != *digest {
        return Err(invalid_field("page_token", "is of another filter: start over, or give the same filter"));
    }
    let created_at = Micros(u64::from_le_bytes(body[17..25].try_into().expect("eight bytes")));
    Ok(ListKey { created_at, id: ApprovalId(body[25..41].try_into().expect("sixteen bytes")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_with_its_filter_only() {
        let key = ListKey { created_at: Micros(7), id: ApprovalId([3; 16]) };
        let digest_of = |request: &v1::ListApprovalsRequest| filter(request).expect("legal").1;
        let requests = [
            v1::ListApprovalsRequest::default(),
            v1::ListApprovalsRequest { status: 1, ..Default::default() },
            v1::ListApprovalsRequest { approval_type: 1, ..Default::default() },
            v1::ListApprovalsRequest { priority: 1, ..Default::default() },
            v1::ListApprovalsRequest { validator_id: "a".into(), ..Default::default() },
            v1::ListApprovalsRequest { created_from: Some(Timestamp::default()), ..Default::default() },
            v1::ListApprovalsRequest { created_to: Some(Timestamp { seconds: 1, nanos: 0 }), ..Default::default() },
        ];
        for (at, one) in requests.iter().enumerate() {
            let text = token(&digest_of(one), key);
            for (other_at, other) in requests.iter().enumerate() {
                let read = parse(&text, &digest_of(other));
                assert_eq!(read.is_ok(), at == other_at);
                assert!(read.is_err() || read.is_ok_and(|read| read == key));
            }
            assert!(parse(&text[1..], &digest_of(one)).is_err());
        }
        // The size of a page is no part of the filter.
        let sized = v1::ListApprovalsRequest { page_size: 7, ..Default::default() };
        assert_eq!(digest_of(&sized), digest_of(&requests[0]));
    }
}
