//! A request at the door: an ApprovalRequest, from its bytes or generated, judged by one function.
//!
//! Whether `expires_at` lies ahead, whether the id is free and whether a limit is reached is judged
//! by `engine`, after it knows whether this is a repeat.

use super::hex::parse_uuid;
use super::scan::{Broken, Scan, replace_text};
use super::vote::{parse_content_hash, refuse_approval_id};
use super::{time, v1};
use crate::model::{
    ApprovalId, ApprovalType, ContentHash, EligibleSet, Micros, OpenRequest, Priority, Refusal, RequesterId,
    TOTAL_VALIDATORS_MAX, ValidatorId,
};
use bytes::Bytes;
use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Of the digest that tells a repeat from another request.
const DIGEST_VERSION: u8 = 1;

/// Judges a request. With an empty id `drawn` is taken, and without one it is refused.
pub fn parse_open(
    request: &v1::ApprovalRequest,
    drawn: Option<ApprovalId>,
    content_bytes_max: usize,
) -> Result<OpenRequest, Refusal> {
    let fields = OpenFields {
        approval_id: request.approval_id.as_bytes(),
        approval_type: request.approval_type,
        priority: request.priority,
        requester_id: request.requester_id.as_bytes(),
        content: request.content.clone(),
        content_hash: request.content_hash.as_bytes(),
        required: request.required_approvals,
        total: request.total_validators,
        has_created_at: request.created_at.is_some(),
        expires_at: request.expires_at,
        eligible: request.eligible_validators.iter().map(String::as_bytes).collect(),
        has_watch: request.watch.is_some(),
    };
    fields.judge(drawn, content_bytes_max)
}

/// The same for a request of a stream, straight from its bytes: no string is made, and the content
/// stays where it is.
pub fn parse_open_bytes(request: &Bytes, content_bytes_max: usize) -> Result<OpenRequest, Refusal> {
    match OpenFields::scan(request) {
        Ok(fields) => fields.judge(None, content_bytes_max),
        Err(Broken) => Err(Refusal::invalid("request", "is not an ApprovalRequest")),
    }
}

#[derive(Default)]
struct OpenFields<'a> {
    approval_id: &'a [u8],
    approval_type: i32,
    priority: i32,
    requester_id: &'a [u8],
    content: Bytes,
    content_hash: &'a [u8],
    required: u32,
    total: u32,
    has_created_at: bool,
    expires_at: Option<Timestamp>,
    eligible: Vec<&'a [u8]>,
    has_watch: bool,
}

impl<'a> OpenFields<'a> {
    fn scan(bytes: &'a Bytes) -> Result<OpenFields<'a>, Broken> {
        let mut fields = OpenFields::default();
        let mut content = 0..0;
        let mut scan = Scan::new(bytes);
        while let Some((number, value)) = scan.field()? {
            match number {
                1 => replace_text(&mut fields.approval_id, &bytes[value.bytes()?])?,
                2 => fields.approval_type = value.varint()? as i32,
                3 => fields.priority = value.varint()? as i32,
                4 => replace_text(&mut fields.requester_id, &bytes[value.bytes()?])?,
                5 => content = value.bytes()?,
                6 => replace_text(&mut fields.content_hash, &bytes[value.bytes()?])?,
                7 => fields.required = value.varint()? as u32,
                8 => fields.total = value.varint()? as u32,
                9 => {
                    value.bytes()?;
                    fields.has_created_at = true;
                }
                10 => merge_timestamp(fields.expires_at.get_or_insert_default(), &bytes[value.bytes()?])?,
                11 => fields.eligible.push(&bytes[value.bytes()?]),
                12 => {
                    value.bytes()?;
                    fields.has_watch = true;
                }
                _ => {}
            }
        }
        fields.content = bytes.slice(content);
        Ok(fields)
    }

    fn judge(self, drawn: Option<ApprovalId>, content_bytes_max: usize) -> Result<OpenRequest, Refusal> {
        let id = match (self.approval_id, drawn) {
            (b"", Some(drawn)) => drawn,
            (b"", None) => return Err(Refusal::invalid("approval_id", "is required on a stream: draw a UUIDv7")),
            (text, _) => ApprovalId(parse_uuid(text).ok_or_else(refuse_approval_id)?),
        };
        let approval_type = u8::try_from(self.approval_type).ok().and_then(ApprovalType::from_number);
        let approval_type =
            approval_type.ok_or_else(|| Refusal::invalid("approval_type", "must name what is being asked"))?;
        let priority = match self.priority {
            0 => None,
            number => Some(u8::try_from(number).ok().and_then(Priority::from_number).ok_or_else(|| {
                Refusal::invalid("priority", "must be NORMAL, HIGH or CRITICAL, or left out for NORMAL")
            })?),
        };
        let requester = parse_uuid(self.requester_id).ok_or_else(|| Refusal::invalid("requester_id", "must be a UUID"));
        let requester = RequesterId(requester?);
        if self.content.len() > content_bytes_max {
            let message = format!("has {} bytes, the limit is {content_bytes_max}", self.content.len());
            return Err(Refusal::invalid("content", message));
        }
        let content_sha: [u8; 32] = Sha256::digest(&self.content).into();
        let sent_hash = match self.content_hash {
            b"" => None,
            text => Some(parse_content_hash(text)?),
        };
        if let Some(ContentHash::Sha256(claimed)) = &sent_hash
            && *claimed != content_sha
        {
            return Err(Refusal::invalid("content_hash", "is not the SHA-256 of the content"));
        }
        let eligible = match self.eligible.is_empty() {
            true => None,
            false => Some(Arc::new(eligible_set(&self.eligible)?)),
        };
        let total = judge_total(self.total, eligible.as_deref())?;
        if self.required == 0 || self.required > u32::from(total) {
            let message = format!("must be 1 to total_validators, which is {total}");
            return Err(Refusal::invalid("required_approvals", message));
        }
        if self.has_created_at {
            return Err(Refusal::invalid("created_at", "is set by the server: leave it out"));
        }
        let expires_at = match &self.expires_at {
            None => None,
            Some(time) => Some(time::micros(time).ok_or_else(|| {
                Refusal::invalid("expires_at", "must lie between 1970 and 9999, with nanos below one second")
            })?),
        };
        if self.has_watch {
            return Err(Refusal::invalid("watch", "is read by watches only: leave it out"));
        }
        let digest = Sent {
            approval_type,
            priority,
            requester,
            content_sha: (!self.content.is_empty()).then_some(&content_sha),
            content_hash: sent_hash.as_ref(),
            required: self.required,
            total: self.total,
            expires_at,
            eligible: eligible.as_deref(),
        }
        .digest();
        Ok(OpenRequest {
            id,
            approval_type,
            priority: priority.unwrap_or(Priority::Normal),
            requester,
            content: self.content,
            content_hash: sent_hash.unwrap_or(ContentHash::Sha256(content_sha)),
            required: self.required as u16,
            total,
            expires_at,
            eligible,
            digest,
        })
    }
}

fn merge_timestamp(time: &mut Timestamp, bytes: &[u8]) -> Result<(), Broken> {
    let mut scan = Scan::new(bytes);
    while let Some((number, value)) = scan.field()? {
        match number {
            1 => time.seconds = value.varint()? as i64,
            2 => time.nanos = value.varint()? as i32,
            _ => {}
        }
    }
    Ok(())
}

fn judge_total(sent: u32, eligible: Option<&EligibleSet>) -> Result<u16, Refusal> {
    match eligible {
        Some(set) if sent != 0 && sent as usize != set.members.len() => {
            let message = format!("must be 0 or the {} of eligible_validators", set.members.len());
            Err(Refusal::invalid("total_validators", message))
        }
        Some(set) => Ok(set.members.len() as u16),
        None => match u16::try_from(sent) {
            Ok(total @ 1..=TOTAL_VALIDATORS_MAX) => Ok(total),
            _ => Err(Refusal::invalid("total_validators", "must be 1 to 32,767, or 0 with eligible_validators")),
        },
    }
}

fn eligible_set(names: &[&[u8]]) -> Result<EligibleSet, Refusal> {
    if names.len() > usize::from(TOTAL_VALIDATORS_MAX) {
        return Err(Refusal::invalid("eligible_validators", "names more than 32,767 validators"));
    }
    let mut members = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let member = std::str::from_utf8(name).ok().and_then(ValidatorId::parse).ok_or_else(|| {
            let message = "must be 1 to 64 printable ASCII characters without spaces";
            Refusal::invalid(format!("eligible_validators[{at}]"), message)
        })?;
        members.push(member);
    }
    members.sort_unstable();
    if let Some(pair) = members.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Refusal::invalid("eligible_validators", format!("names {} twice", pair[0])));
    }
    let mut digest = Sha256::new();
    for member in &members {
        digest.update([member.as_str().len() as u8]);
        digest.update(member.as_str());
    }
    Ok(EligibleSet { digest: digest.finalize().into(), members })
}

/// What the client sent, normalised, before defaults: the request that a repeat must equal.
struct Sent<'a> {
    approval_type: ApprovalType,
    priority: Option<Priority>,
    requester: RequesterId,
    content_sha: Option<&'a [u8; 32]>,
    content_hash: Option<&'a ContentHash>,
    required: u32,
    total: u32,
    expires_at: Option<Micros>,
    eligible: Option<&'a EligibleSet>,
}

impl Sent<'_> {
    /// The first 16 bytes of SHA-256 over a version byte and, in field-number order, tag (a byte),
    /// length (four, little-endian) and value of each field; unset is length 0. Numbers are
    /// little-endian, the requester 16 bytes, the content its SHA-256, the content hash its text,
    /// eligible validators sorted, each as one length byte and its bytes. Part of format version 1.
    fn digest(&self) -> [u8; 16] {
        let mut buffer = [0u8; 512];
        let mut at = 1;
        buffer[0] = DIGEST_VERSION;
        let mut field = |tag: u8, value: &[u8]| {
            buffer[at] = tag;
            buffer[at + 1..at + 5].copy_from_slice(&(value.len() as u32).to_le_bytes());
            buffer[at + 5..at + 5 + value.len()].copy_from_slice(value);
            at += 5 + value.len();
        };
        let number = |number: u32| number.to_le_bytes();
        let some = |set: bool, value: usize| if set { value } else { 0 };
        field(2, &[self.approval_type as u8]);
        field(3, self.priority.map(|priority| [priority as u8]).as_ref().map_or(&[], <[u8; 1]>::as_slice));
        field(4, &self.requester.0);
        field(5, self.content_sha.map_or(&[], <[u8; 32]>::as_slice));
        match self.content_hash {
            None => field(6, &[]),
            Some(ContentHash::Label(label)) => field(6, label.as_bytes()),
            Some(ContentHash::Sha256(hash)) => {
                let mut text = *b"sha256:................................................................";
                for (pair, byte) in text[7..].chunks_exact_mut(2).zip(hash) {
                    pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                field(6, &text);
            }
        }
        field(7, &number(self.required)[..some(self.required != 0, 4)]);
        field(8, &number(self.total)[..some(self.total != 0, 4)]);
        field(10, self.expires_at.map(|time| time.0.to_le_bytes()).as_ref().map_or(&[], <[u8; 8]>::as_slice));
        let mut digest = Sha256::new();
        match self.eligible {
            None => {
                field(11, &[]);
                digest.update(&buffer[..at]);
            }
            Some(set) => {
                digest.update(&buffer[..at]);
                let length: usize = set.members.iter().map(|member| 1 + member.as_str().len()).sum();
                digest.update([11]);
                digest.update((length as u32).to_le_bytes());
                for member in &set.members {
                    digest.update([member.as_str().len() as u8]);
                    digest.update(member.as_str());
                }
            }
        }
        digest.finalize()[..16].try_into().expect("16 of 32 bytes")
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
