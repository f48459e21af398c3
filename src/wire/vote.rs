//! A vote at the door: an ApprovalResponse, from its bytes or generated, judged by one function.

use super::hex::{parse_hex, parse_uuid};
use super::scan::{Broken, Scan, replace_text};
use super::v1;
use crate::model::{ApprovalId, ContentHash, Decision, LABEL_BYTES_MAX, Refusal, ValidatorId, VoteExtras};

pub(super) const REASON_BYTES_MAX: usize = 1_024;
pub(super) const SIGNATURE_BYTES_MAX: usize = 512;

/// A legal vote of a unary call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParsedVote {
    pub approval: ApprovalId,
    pub validator: ValidatorId,
    pub decision: Decision,
    pub extras: Option<Box<VoteExtras>>,
}

/// Judges one vote; the first field that is wrong, in the proto's order, refuses it.
pub fn parse_vote(response: &v1::ApprovalResponse) -> Result<ParsedVote, Refusal> {
    let fields = VoteFields {
        approval_id: response.approval_id.as_bytes(),
        validator_id: response.validator_id.as_bytes(),
        decision: response.decision,
        content_hash: response.content_hash.as_bytes(),
        reason: response.reason.as_bytes(),
        signature: &response.signature,
    };
    let approval = fields.approval()?;
    let validator = std::str::from_utf8(fields.validator_id).ok().and_then(ValidatorId::parse);
    let validator = validator.ok_or_else(refuse_validator)?;
    let (decision, extras) = fields.rest()?;
    Ok(ParsedVote { approval, validator, decision, extras })
}

/// An ApprovalResponse's fields, borrowed.
#[derive(Default)]
pub(super) struct VoteFields<'a> {
    pub approval_id: &'a [u8],
    pub validator_id: &'a [u8],
    pub decision: i32,
    pub content_hash: &'a [u8],
    pub reason: &'a [u8],
    pub signature: &'a [u8],
}

impl<'a> VoteFields<'a> {
    /// The last value of a field counts and unknown fields are skipped, as in any proto reader.
    pub fn scan(bytes: &'a [u8]) -> Result<VoteFields<'a>, Broken> {
        let mut fields = VoteFields::default();
        let mut scan = Scan::new(bytes);
        while let Some((number, value)) = scan.field()? {
            match number {
                1 => replace_text(&mut fields.approval_id, &bytes[value.bytes()?])?,
                2 => replace_text(&mut fields.validator_id, &bytes[value.bytes()?])?,
                3 => fields.decision = value.varint()? as i32,
                4 => replace_text(&mut fields.content_hash, &bytes[value.bytes()?])?,
                5 => replace_text(&mut fields.reason, &bytes[value.bytes()?])?,
                6 => fields.signature = &bytes[value.bytes()?],
                _ => {}
            }
        }
        Ok(fields)
    }

    pub fn approval(&self) -> Result<ApprovalId, Refusal> {
        match parse_uuid(self.approval_id) {
            Some(id) => Ok(ApprovalId(id)),
            None => Err(refuse_approval_id()),
        }
    }

    /// Everything behind the validator.
    pub fn rest(&self) -> Result<(Decision, Option<Box<VoteExtras>>), Refusal> {
        let decision = u8::try_from(self.decision).ok().and_then(Decision::from_number);
        let decision = decision.ok_or_else(refuse_decision)?;
        if self.content_hash.is_empty() && self.reason.is_empty() && self.signature.is_empty() {
            return Ok((decision, None));
        }
        let content_hash = match self.content_hash {
            b"" => None,
            hash => Some(parse_content_hash(hash)?),
        };
        if self.reason.len() > REASON_BYTES_MAX {
            return Err(Refusal::invalid("reason", "is longer than 1 KiB: shorten it"));
        }
        let reason = std::str::from_utf8(self.reason).ok().filter(|reason| !reason.contains('\0'));
        let reason = reason.ok_or_else(|| Refusal::invalid("reason", "must be UTF-8 text without U+0000"))?;
        if self.signature.len() > SIGNATURE_BYTES_MAX {
            return Err(Refusal::invalid("signature", "is longer than 512 bytes"));
        }
        Ok((
            decision,
            Some(Box::new(VoteExtras { content_hash, reason: reason.into(), signature: self.signature.into() })),
        ))
    }
}

#[cold]
pub(super) fn refuse_approval_id() -> Refusal {
    Refusal::invalid("approval_id", "must be a UUID")
}

#[cold]
pub(super) fn refuse_validator() -> Refusal {
    Refusal::invalid("validator_id", "must be 1 to 64 printable ASCII characters without spaces")
}

#[cold]
pub(super) fn refuse_decision() -> Refusal {
    Refusal::invalid("decision", "must be APPROVED, REJECTED or ABSTAIN")
}

/// A content hash that is not empty, as it is kept: a SHA-256, or the caller's own label.
pub(super) fn parse_content_hash(text: &[u8]) -> Result<ContentHash, Refusal> {
    if let Some(digits) = text.strip_prefix(b"sha256:") {
        let mut hash = [0u8; 32];
        return match digits.len() == 64 && parse_hex(digits, &mut hash) {
            true => Ok(ContentHash::Sha256(hash)),
            false => Err(Refusal::invalid("content_hash", "with the prefix `sha256:` takes exactly 64 hex digits")),
        };
    }
    let printable = text.len() <= LABEL_BYTES_MAX && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    match std::str::from_utf8(text) {
        Ok(label) if printable => Ok(ContentHash::Label(label.into())),
        _ => Err(Refusal::invalid("content_hash", "must be at most 255 printable ASCII characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn response() -> v1::ApprovalResponse {
        v1::ApprovalResponse {
            approval_id: ID.into(),
            validator_id: "val-1".into(),
            decision: 1,
            ..v1::ApprovalResponse::default()
        }
    }

    fn check(change: impl FnOnce(&mut v1::ApprovalResponse), field: &str) {
        let mut response = response();
        change(&mut response);
        match parse_vote(&response) {
            Ok(_) => assert_eq!(field, "", "{response:?} passes"),
            Err(Refusal::Invalid(invalid)) => assert_eq!(invalid.field, field, "{response:?}"),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_is_judged() {
        check(|_| {}, "");
        check(|r| r.approval_id = "{01890A5D-AC96-774B-BCCE-B302099A8057}".into(), "");
        check(|r| r.approval_id.clear(), "approval_id");
        check(|r| r.approval_id = "nonsense".into(), "approval_id");
        check(|r| r.validator_id.clear(), "validator_id");
        check(|r| r.validator_id = "v".repeat(64), "");
        check(|r| r.validator_id = "v".repeat(65), "validator_id");
        check(|r| r.validator_id = "a b".into(), "validator_id");
        check(|r| r.validator_id = "ü".into(), "validator_id");
        check(|r| r.validator_id = "a\u{7f}".into(), "validator_id");
        check(|r| r.decision = 0, "decision");
        check(|r| r.decision = 3, "");
        check(|r| r.decision = 4, "decision");
        check(|r| r.decision = 257, "decision");
        check(|r| r.decision = -1, "decision");
        check(|r| r.content_hash = "label with spaces".into(), "");
        check(|r| r.content_hash = "x".repeat(255), "");
        check(|r| r.content_hash = "x".repeat(256), "content_hash");
        check(|r| r.content_hash = "tab\t".into(), "content_hash");
        check(|r| r.content_hash = "é".into(), "content_hash");
        check(|r| r.content_hash = format!("sha256:{}", "aB".repeat(32)), "");
        check(|r| r.content_hash = format!("sha256:{}", "a".repeat(63)), "content_hash");
        check(|r| r.content_hash = format!("sha256:{}", "g".repeat(64)), "content_hash");
        check(|r| r.content_hash = "sha256:".into(), "content_hash");
        check(|r| r.reason = "ü".repeat(512), "");
        check(|r| r.reason = "x".repeat(1_025), "reason");
        check(|r| r.reason = "a\0b".into(), "reason");
        check(|r| r.signature = vec![0; 512].into(), "");
        check(|r| r.signature = vec![0; 513].into(), "signature");
    }

    #[test]
    fn two_spellings_are_one_validator_and_one_hash() {
        let mut response = response();
        response.validator_id = "01890A5D-AC96-774B-BCCE-B302099A8057".into();
        response.content_hash = format!("sha256:{}", "AB".repeat(32));
        let vote = parse_vote(&response).expect("legal");
        assert_eq!(vote.validator.as_str(), ID);
        assert_eq!(vote.extras.expect("extras").content_hash, Some(ContentHash::Sha256([0xAB; 32])));
        response.validator_id = "Val-1".into();
        assert_eq!(parse_vote(&response).expect("legal").validator.as_str(), "Val-1", "case counts");
    }
}
