//! Records: how events, and the definitions of the references in them, become bytes and back.
//! Format version 1.
//!
//! A journal's batch is a run of records, back to back. Each delimits itself; integers are
//! little-endian; a definition has no sequence, an event has the next one. Checksums, padding and
//! the time of a batch belong to the frame around it (`journal`).
//!
//! ```text
//! byte 0, all records     kind (bits 0-3) | decision (bits 4-5) | priority (bits 6-7)
//!                         (decision 0 where there is no vote, both 0 in a definition)
//!
//! 1 plain vote, 40 bytes  0 kind…  1 type  2 approval id[16]  18 validator u32  22 requester u32
//!                         26 approvals u16  28 rejections u16  30 abstentions u16 (after the vote)
//!                         32 previous event u64
//! 2 vote with extras      as 1, then EXTRAS
//! 3 deciding vote         as 1, then DECIDED, then EXTRAS
//! 4 opened                0 kind…  1 type  2 approval id[16]  18 requester u32  22 required u16
//!                         24 total u16  26 created_at u64  34 expires_at u64
//!                         42 eligible set u32 (2^32 - 1: none)  46 previous event u64
//!                         54 digest[16]  70 HASH, then content length u32, content
//! 5 expired               0 kind…  1 type  2 approval id[16]  18 requester u32  22 tally 3 x u16
//!                         28 previous event u64  36 DECIDED
//! 6 define validator      0 kind  1 number u32  5 length u8 (1-64)  6 name
//! 7 define requester      0 kind  1 number u32  5 id[16]
//! 8 define set            0 kind  1 number u32  5 digest[32]  37 count u16 (1-32,767)
//!                         39 count x validator u32
//!
//! DECIDED                 outcome u8, required u16, total u16, created_at u64, expires_at u64,
//!                         finalized_at u64, HASH
//! HASH                    length u8; 0: SHA-256, 32 bytes; 1-255: a label of so many bytes
//! EXTRAS                  reason length u16 (0-1,024), signature length u16 (0-512), reason, signature
//! ```
//!
//! A record that does not keep these bounds is a [`CodecError`]; reading never panics.

use super::{
    ApprovalId, ApprovalType, CONTENT_BYTES_CEILING, ContentHash, Decided, Decision, Event, EventKind, EventRef,
    Expired, LABEL_BYTES_MAX, Micros, Opened, Outcome, PlainVote, Priority, RequesterId, RequesterRef, SetRef,
    TOTAL_VALIDATORS_MAX, Tally, ValidatorId, ValidatorRef, Voted,
};

/// Of every record layout in this file.
pub const FORMAT_VERSION: u8 = 1;
/// A reason is at most this long.
pub const REASON_BYTES_MAX: usize = 1_024;
/// A signature is at most this long.
pub const SIGNATURE_BYTES_MAX: usize = 512;

pub const PLAIN_VOTE_BYTES: usize = 40;
pub const DEFINE_REQUESTER_BYTES: usize = 21;
pub const DEFINE_VALIDATOR_BYTES_MAX: usize = 6 + ValidatorId::BYTES_MAX;
const HASH_BYTES_MAX: usize = 1 + LABEL_BYTES_MAX;
const DECIDED_BYTES_MAX: usize = 29 + HASH_BYTES_MAX;
const EXTRAS_BYTES_MAX: usize = 4 + REASON_BYTES_MAX + SIGNATURE_BYTES_MAX;
/// The largest record of a vote.
pub const VOTE_BYTES_MAX: usize = PLAIN_VOTE_BYTES + DECIDED_BYTES_MAX + EXTRAS_BYTES_MAX;
/// The largest record of an expiry.
pub const EXPIRED_BYTES_MAX: usize = 36 + DECIDED_BYTES_MAX;
/// The largest record of an opening, content apart.
pub const OPENED_BYTES_MAX: usize = 70 + HASH_BYTES_MAX + 4;

const PLAIN_VOTE: u8 = 1;
const VOTE_WITH_EXTRAS: u8 = 2;
const DECIDING_VOTE: u8 = 3;
const OPENED: u8 = 4;
const EXPIRED: u8 = 5;
const DEFINE_VALIDATOR: u8 = 6;
const DEFINE_REQUESTER: u8 = 7;
const DEFINE_SET: u8 = 8;

const NO_SET: u32 = u32::MAX;

/// Bytes of the definition of a set of so many members.
pub const fn define_set_bytes(members: usize) -> usize {
    39 + 4 * members
}

/// What stands in a run of records.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    Event(Event<'a>),
    DefineValidator { number: ValidatorRef, name: &'a str },
    DefineRequester { number: RequesterRef, id: RequesterId },
    DefineSet { number: SetRef, digest: [u8; 32], members: Members<'a> },
}

/// Members of a defined set, read from the record's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Members<'a>(&'a [u8]);

impl Members<'_> {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ValidatorRef> + '_ {
        self.0.chunks_exact(4).map(|four| ValidatorRef(u32::from_le_bytes(four.try_into().expect("chunks of 4"))))
    }
}

/// Bytes that are no record. Behind a good checksum this is a newer format or a fault in this
/// program, never a torn write: stop, and say where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CodecError {
    #[error("the bytes end within a record")]
    Truncated,
    #[error("unknown kind of record {0}: written by a newer version?")]
    UnknownKind(u8),
    #[error("a record's {0} is out of bounds")]
    Field(&'static str),
}

/// Writes a plain vote: a few stores.
#[inline(always)]
pub fn encode_vote_plain(vote: &PlainVote, out: &mut [u8; PLAIN_VOTE_BYTES]) {
    encode_vote_head(PLAIN_VOTE, vote, out);
}

#[inline(always)]
fn encode_vote_head(kind: u8, vote: &PlainVote, out: &mut [u8; PLAIN_VOTE_BYTES]) {
    out[0] = kind | (vote.decision as u8) << 4 | (vote.priority as u8) << 6;
    out[1] = vote.approval_type as u8;
    out[2..18].copy_from_slice(&vote.approval.0);
    out[18..22].copy_from_slice(&vote.validator.0.to_le_bytes());
    out[22..26].copy_from_slice(&vote.requester.0.to_le_bytes());
    out[26..28].copy_from_slice(&vote.tally.approvals.to_le_bytes());
    out[28..30].copy_from_slice(&vote.tally.rejections.to_le_bytes());
    out[30..32].copy_from_slice(&vote.tally.abstentions.to_le_bytes());
    out[32..40].copy_from_slice(&vote.previous.0.to_le_bytes());
}

/// Appends an event's record.
pub fn encode_event(event: &Event<'_>, out: &mut Vec<u8>) {
    match &event.kind {
        EventKind::Voted(voted) => encode_voted(event, voted, out),
        EventKind::Opened(opened) => {
            out.push(OPENED | (opened.priority as u8) << 6);
            out.push(opened.approval_type as u8);
            out.extend_from_slice(&event.approval.0);
            out.extend_from_slice(&opened.requester.0.to_le_bytes());
            out.extend_from_slice(&opened.required.to_le_bytes());
            out.extend_from_slice(&opened.total.to_le_bytes());
            out.extend_from_slice(&opened.created_at.0.to_le_bytes());
            out.extend_from_slice(&opened.expires_at.0.to_le_bytes());
            out.extend_from_slice(&opened.eligible.map_or(NO_SET, |set| set.0).to_le_bytes());
            out.extend_from_slice(&event.previous.0.to_le_bytes());
            out.extend_from_slice(&opened.digest);
            put_hash(&opened.content_hash, out);
            out.extend_from_slice(&(opened.content.len() as u32).to_le_bytes());
            out.extend_from_slice(opened.content);
        }
        EventKind::Expired(expired) => {
            out.push(EXPIRED | (expired.priority as u8) << 6);
            out.push(expired.approval_type as u8);
            out.extend_from_slice(&event.approval.0);
            out.extend_from_slice(&expired.requester.0.to_le_bytes());
            put_tally(expired.tally, out);
            out.extend_from_slice(&event.previous.0.to_le_bytes());
            put_decided(&expired.decided, out);
        }
    }
}

fn encode_voted(event: &Event<'_>, voted: &Voted<'_>, out: &mut Vec<u8>) {
    let extras = !voted.reason.is_empty() || !voted.signature.is_empty();
    let kind = match (&voted.decided, extras) {
        (Some(_), _) => DECIDING_VOTE,
        (None, true) => VOTE_WITH_EXTRAS,
        (None, false) => PLAIN_VOTE,
    };
    let mut head = [0; PLAIN_VOTE_BYTES];
    let plain = PlainVote {
        approval: event.approval,
        previous: event.previous,
        validator: voted.validator,
        decision: voted.decision,
        approval_type: voted.approval_type,
        priority: voted.priority,
        requester: voted.requester,
        tally: voted.tally,
    };
    encode_vote_head(kind, &plain, &mut head);
    out.extend_from_slice(&head);
    if let Some(decided) = &voted.decided {
        put_decided(decided, out);
    }
    if kind != PLAIN_VOTE {
        debug_assert!(voted.reason.len() <= REASON_BYTES_MAX && voted.signature.len() <= SIGNATURE_BYTES_MAX);
        out.extend_from_slice(&(voted.reason.len() as u16).to_le_bytes());
        out.extend_from_slice(&(voted.signature.len() as u16).to_le_bytes());
        out.extend_from_slice(voted.reason.as_bytes());
        out.extend_from_slice(voted.signature);
    }
}

/// Appends the definition of a validator's number.
pub fn encode_define_validator(number: ValidatorRef, name: &str, out: &mut Vec<u8>) {
    debug_assert!((1..=ValidatorId::BYTES_MAX).contains(&name.len()));
    out.push(DEFINE_VALIDATOR);
    out.extend_from_slice(&number.0.to_le_bytes());
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// Appends the definition of a requester's number.
pub fn encode_define_requester(number: RequesterRef, id: &RequesterId, out: &mut Vec<u8>) {
    out.push(DEFINE_REQUESTER);
    out.extend_from_slice(&number.0.to_le_bytes());
    out.extend_from_slice(&id.0);
}

/// Appends the definition of a set's number.
pub fn encode_define_set(number: SetRef, digest: &[u8; 32], members: &[ValidatorRef], out: &mut Vec<u8>) {
    debug_assert!((1..=usize::from(TOTAL_VALIDATORS_MAX)).contains(&members.len()));
    out.reserve(define_set_bytes(members.len()));
    out.push(DEFINE_SET);
    out.extend_from_slice(&number.0.to_le_bytes());
    out.extend_from_slice(digest);
    out.extend_from_slice(&(members.len() as u16).to_le_bytes());
    members.iter().for_each(|member| out.extend_from_slice(&member.0.to_le_bytes()));
}

fn put_tally(tally: Tally, out: &mut Vec<u8>) {
    out.extend_from_slice(&tally.approvals.to_le_bytes());
    out.extend_from_slice(&tally.rejections.to_le_bytes());
    out.extend_from_slice(&tally.abstentions.to_le_bytes());
}

fn put_decided(decided: &Decided, out: &mut Vec<u8>) {
    out.push(decided.outcome as u8);
    out.extend_from_slice(&decided.required.to_le_bytes());
    out.extend_from_slice(&decided.total.to_le_bytes());
    out.extend_from_slice(&decided.created_at.0.to_le_bytes());
    out.extend_from_slice(&decided.expires_at.0.to_le_bytes());
    out.extend_from_slice(&decided.finalized_at.0.to_le_bytes());
    put_hash(&decided.content_hash, out);
}

/// As HASH above; snapshots use it too.
pub(crate) fn put_hash(hash: &ContentHash, out: &mut Vec<u8>) {
    match hash {
        ContentHash::Sha256(bytes) => {
            out.push(0);
            out.extend_from_slice(bytes);
        }
        ContentHash::Label(label) => {
            debug_assert!((1..=LABEL_BYTES_MAX).contains(&label.len()));
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
    }
}

/// Reads the vote at the front of `bytes` if it is a plain one (else `None`: [`decode`] knows what
/// it is). The fast way of a replay: no enum, no allocation.
#[inline(always)]
pub fn decode_vote_plain(bytes: &[u8]) -> Option<PlainVote> {
    let head: &[u8; PLAIN_VOTE_BYTES] = bytes.first_chunk()?;
    if head[0] & 0x0F != PLAIN_VOTE {
        return None;
    }
    decode_vote_head(head).ok()
}

#[inline(always)]
fn decode_vote_head(head: &[u8; PLAIN_VOTE_BYTES]) -> Result<PlainVote, CodecError> {
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    Ok(PlainVote {
        approval: ApprovalId(head[2..18].try_into().expect("16 bytes")),
        previous: EventRef(u64::from_le_bytes(head[32..40].try_into().expect("8 bytes"))),
        validator: ValidatorRef(u32_at(18)),
        decision: Decision::from_number(head[0] >> 4 & 3).ok_or(CodecError::Field("decision"))?,
        approval_type: ApprovalType::from_number(head[1]).ok_or(CodecError::Field("approval type"))?,
        priority: Priority::from_number(head[0] >> 6).ok_or(CodecError::Field("priority"))?,
        requester: RequesterRef(u32_at(22)),
        tally: Tally { approvals: u16_at(26), rejections: u16_at(28), abstentions: u16_at(30) },
    })
}

/// Reads the record at the front of `bytes`, and says how long it is.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), CodecError> {
    let mut reader = Reader::new(bytes);
    let first = *bytes.first().ok_or(CodecError::Truncated)?;
    let kind = first & 0x0F;
    let is_vote = matches!(kind, PLAIN_VOTE | VOTE_WITH_EXTRAS | DECIDING_VOTE);
    if !is_vote && first >> 4 & 3 != 0 {
        return Err(CodecError::Field("decision"));
    }
    let record = match kind {
        PLAIN_VOTE | VOTE_WITH_EXTRAS | DECIDING_VOTE => Record::Event(decode_voted(kind, &mut reader)?),
        OPENED => Record::Event(decode_opened(&mut reader)?),
        EXPIRED => Record::Event(decode_expired(&mut reader)?),
        DEFINE_VALIDATOR | DEFINE_REQUESTER | DEFINE_SET if first != kind => return Err(CodecError::Field("priority")),
        DEFINE_VALIDATOR => {
            reader.u8()?;
            let number = ValidatorRef(reader.u32()?);
            let length = reader.u8()?;
            let name = reader.take(usize::from(length))?;
            if !ValidatorId::is_legal(name) {
                return Err(CodecError::Field("validator name"));
            }
            let name = std::str::from_utf8(name).map_err(|_| CodecError::Field("validator name"))?;
            Record::DefineValidator { number, name }
        }
        DEFINE_REQUESTER => {
            reader.u8()?;
            Record::DefineRequester { number: RequesterRef(reader.u32()?), id: RequesterId(reader.array()?) }
        }
        DEFINE_SET => {
            reader.u8()?;
            let number = SetRef(reader.u32()?);
            let digest = reader.array()?;
            let count = reader.u16()?;
            if !(1..=TOTAL_VALIDATORS_MAX).contains(&count) {
                return Err(CodecError::Field("count of members"));
            }
            Record::DefineSet { number, digest, members: Members(reader.take(4 * usize::from(count))?) }
        }
        unknown => return Err(CodecError::UnknownKind(unknown)),
    };
    Ok((record, reader.at))
}

fn decode_voted<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Event<'a>, CodecError> {
    let plain = decode_vote_head(&reader.array()?)?;
    let mut event = plain.event();
    let EventKind::Voted(voted) = &mut event.kind else { unreachable!("a plain vote is a vote") };
    if kind == DECIDING_VOTE {
        voted.decided = Some(Box::new(reader.decided()?));
    }
    // The borrow of reason and signature is the reader's from here on.
    let mut event: Event<'a> = event;
    if kind != PLAIN_VOTE {
        let (reason, signature) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        if reason > REASON_BYTES_MAX {
            return Err(CodecError::Field("reason"));
        }
        if signature > SIGNATURE_BYTES_MAX {
            return Err(CodecError::Field("signature"));
        }
        let reason = std::str::from_utf8(reader.take(reason)?).map_err(|_| CodecError::Field("reason"))?;
        let signature = reader.take(signature)?;
        if kind == VOTE_WITH_EXTRAS && reason.is_empty() && signature.is_empty() {
            return Err(CodecError::Field("extras"));
        }
        if let EventKind::Voted(voted) = &mut event.kind {
            voted.reason = reason;
            voted.signature = signature;
        }
    }
    Ok(event)
}

fn decode_opened<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, CodecError> {
    let priority = reader.priority()?;
    let approval_type = reader.approval_type()?;
    let approval = ApprovalId(reader.array()?);
    let requester = RequesterRef(reader.u32()?);
    let (required, total) = reader.quorum()?;
    let created_at = Micros(reader.u64()?);
    let expires_at = Micros(reader.u64()?);
    let eligible = Some(reader.u32()?).filter(|set| *set != NO_SET).map(SetRef);
    let previous = EventRef(reader.u64()?);
    let digest = reader.array()?;
    let content_hash = reader.hash()?;
    let length = reader.u32()? as usize;
    if length > CONTENT_BYTES_CEILING {
        return Err(CodecError::Field("content"));
    }
    let content = reader.take(length)?;
    let opened = Opened {
        approval_type,
        priority,
        requester,
        content_hash,
        required,
        total,
        created_at,
        expires_at,
        eligible,
        digest,
        content,
    };
    Ok(Event { approval, previous, kind: EventKind::Opened(opened) })
}

fn decode_expired<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, CodecError> {
    let priority = reader.priority()?;
    let approval_type = reader.approval_type()?;
    let approval = ApprovalId(reader.array()?);
    let requester = RequesterRef(reader.u32()?);
    let tally = reader.tally()?;
    let previous = EventRef(reader.u64()?);
    let decided = Box::new(reader.decided()?);
    let expired = Expired { approval_type, priority, requester, tally, decided };
    Ok(Event { approval, previous, kind: EventKind::Expired(expired) })
}

/// Reads integers and pieces from the front, and never past the end.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(length).ok_or(CodecError::Truncated)?;
        let piece = self.bytes.get(self.at..end).ok_or(CodecError::Truncated)?;
        self.at = end;
        Ok(piece)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn priority(&mut self) -> Result<Priority, CodecError> {
        Priority::from_number(self.u8()? >> 6).ok_or(CodecError::Field("priority"))
    }

    pub(crate) fn approval_type(&mut self) -> Result<ApprovalType, CodecError> {
        ApprovalType::from_number(self.u8()?).ok_or(CodecError::Field("approval type"))
    }

    /// Q and N.
    pub(crate) fn quorum(&mut self) -> Result<(u16, u16), CodecError> {
        let (required, total) = (self.u16()?, self.u16()?);
        match required >= 1 && required <= total && total <= TOTAL_VALIDATORS_MAX {
            true => Ok((required, total)),
            false => Err(CodecError::Field("quorum")),
        }
    }

    pub(crate) fn tally(&mut self) -> Result<Tally, CodecError> {
        Ok(Tally { approvals: self.u16()?, rejections: self.u16()?, abstentions: self.u16()? })
    }

    pub(crate) fn hash(&mut self) -> Result<ContentHash, CodecError> {
        let length = usize::from(self.u8()?);
        if length == 0 {
            return Ok(ContentHash::Sha256(self.array()?));
        }
        let label = self.take(length)?;
        if !label.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(CodecError::Field("content hash"));
        }
        let label = std::str::from_utf8(label).map_err(|_| CodecError::Field("content hash"))?;
        Ok(ContentHash::Label(label.into()))
    }

    fn decided(&mut self) -> Result<Decided, CodecError> {
        let outcome = match self.u8()? {
            2 => Outcome::Approved,
            3 => Outcome::Rejected,
            4 => Outcome::Expired,
            _ => return Err(CodecError::Field("outcome")),
        };
        let (required, total) = self.quorum()?;
        Ok(Decided {
            outcome,
            required,
            total,
            created_at: Micros(self.u64()?),
            expires_at: Micros(self.u64()?),
            finalized_at: Micros(self.u64()?),
            content_hash: self.hash()?,
        })
    }
}

const _: () = assert!(PLAIN_VOTE_BYTES == 2 + 16 + 4 + 4 + 6 + 8);
const _: () = assert!(VOTE_BYTES_MAX > EXPIRED_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decided(content_hash: ContentHash) -> Decided {
        Decided {
            outcome: Outcome::Rejected,
            content_hash,
            required: 2,
            total: 3,
            created_at: Micros(0x0102_0304),
            expires_at: Micros(0x0506_0708),
            finalized_at: Micros(0x090A_0B0C),
        }
    }

    fn plain() -> PlainVote {
        PlainVote {
            approval: ApprovalId(*b"0123456789abcdef"),
            previous: EventRef::new(2, 3),
            validator: ValidatorRef(0x11223344),
            decision: Decision::Rejected,
            approval_type: ApprovalType::Other,
            priority: Priority::Critical,
            requester: RequesterRef(0x55667788),
            tally: Tally { approvals: 1, rejections: 2, abstentions: 0x7FFF },
        }
    }

    fn voted(reason: &'static str, signature: &'static [u8], decided: Option<Decided>) -> Event<'static> {
        let mut event = plain().event();
        if let EventKind::Voted(voted) = &mut event.kind {
            (voted.reason, voted.signature, voted.decided) = (reason, signature, decided.map(Box::new));
        }
        event
    }

    /// One of each kind of event.
    fn events() -> Vec<Event<'static>> {
        let label = || ContentHash::Label("a label".into());
        let opened = Opened {
            approval_type: ApprovalType::LargeTransaction,
            priority: Priority::Normal,
            requester: RequesterRef(7),
            content_hash: label(),
            required: 2,
            total: 3,
            created_at: Micros(1),
            expires_at: Micros(2),
            eligible: Some(SetRef(9)),
            digest: [4; 16],
            content: b"content",
        };
        let expired = Expired {
            approval_type: ApprovalType::BridgeTransfer,
            priority: Priority::High,
            requester: RequesterRef(8),
            tally: Tally { approvals: 1, rejections: 0, abstentions: 1 },
            decided: Box::new(decided(ContentHash::Sha256([5; 32]))),
        };
        let approval = ApprovalId([6; 16]);
        vec![
            plain().event(),
            voted("why", b"sig", None),
            voted("", &[0; 512], Some(decided(label()))),
            voted("", b"", Some(decided(ContentHash::Sha256([5; 32])))),
            Event { approval, previous: EventRef::NONE, kind: EventKind::Opened(opened) },
            Event { approval, previous: EventRef::new(1, 1), kind: EventKind::Expired(expired) },
        ]
    }

    /// A run of every kind of record.
    fn run() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_define_validator(ValidatorRef(1), "alice", &mut bytes);
        encode_define_requester(RequesterRef(2), &RequesterId([9; 16]), &mut bytes);
        encode_define_set(SetRef(3), &[8; 32], &[ValidatorRef(1), ValidatorRef(5)], &mut bytes);
        events().iter().for_each(|event| encode_event(event, &mut bytes));
        bytes
    }

    #[test]
    fn a_plain_vote_is_these_forty_bytes() {
        let mut bytes = [0; PLAIN_VOTE_BYTES];
        encode_vote_plain(&plain(), &mut bytes);
        let expected = [
            &[0xE1, 9][..],
            b"0123456789abcdef",
            &[0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55],
            &[1, 0, 2, 0, 0xFF, 0x7F],
            &[3, 0, 0, 0, 0, 0, 2, 0],
        ];
        assert_eq!(bytes.as_slice(), expected.concat());
        assert_eq!(decode_vote_plain(&bytes), Some(plain()));
        let mut event = Vec::new();
        encode_event(&plain().event(), &mut event);
        assert_eq!(event, bytes);
    }

    /// Format version 1 stays as it is: the digest of one record of each kind.
    #[test]
    fn the_format_does_not_change_by_accident() {
        let bytes = run();
        assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (1_055, 2_041_830_927), "format version 1 has changed");
    }

    #[test]
    fn reads_what_it_wrote() {
        for event in events() {
            let mut bytes = Vec::new();
            encode_event(&event, &mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"what follows");
            assert_eq!(decode(&bytes), Ok((Record::Event(event), length)));
            for end in 0..length {
                assert_eq!(decode(&bytes[..end]).err(), Some(CodecError::Truncated), "cut at {end}");
            }
        }
    }

    #[test]
    fn the_largest_records_are_as_announced() {
        let label = || ContentHash::Label("x".repeat(LABEL_BYTES_MAX).into());
        let mut bytes = Vec::new();
        let reason: &'static str = "r".repeat(REASON_BYTES_MAX).leak();
        encode_event(&voted(reason, &[0; SIGNATURE_BYTES_MAX], Some(decided(label()))), &mut bytes);
        assert_eq!(bytes.len(), VOTE_BYTES_MAX);
        for event in &mut events()[4..] {
            let (content, expected) = match &mut event.kind {
                EventKind::Opened(opened) => {
                    opened.content_hash = label();
                    (opened.content.len(), OPENED_BYTES_MAX)
                }
                EventKind::Expired(expired) => {
                    expired.decided.content_hash = label();
                    (0, EXPIRED_BYTES_MAX)
                }
                EventKind::Voted(_) => unreachable!("the last two are no votes"),
            };
            let mut bytes = Vec::new();
            encode_event(event, &mut bytes);
            assert_eq!(bytes.len() - content, expected);
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let check = |change: &dyn Fn(&mut Vec<u8>), event: usize, expected: CodecError| {
            let mut bytes = Vec::new();
            encode_event(&events()[event], &mut bytes);
            change(&mut bytes);
            bytes.extend_from_slice(&[0; 4_096]);
            assert_eq!(decode(&bytes).err(), Some(expected));
        };
        check(&|bytes| bytes[0] = 0, 0, CodecError::UnknownKind(0));
        check(&|bytes| bytes[0] = 9, 0, CodecError::UnknownKind(9));
        check(&|bytes| bytes[0] = 1 | 1 << 6, 0, CodecError::Field("decision"));
        check(&|bytes| bytes[0] = 1 | 1 << 4, 0, CodecError::Field("priority"));
        check(&|bytes| bytes[1] = 10, 0, CodecError::Field("approval type"));
        check(&|bytes| bytes[41] = 5, 1, CodecError::Field("reason"));
        check(&|bytes| bytes[43] = 3, 1, CodecError::Field("signature"));
        check(&|bytes| bytes[44] = 0xFF, 1, CodecError::Field("reason"));
        check(&|bytes| bytes[40] = 1, 3, CodecError::Field("outcome"));
        check(&|bytes| bytes[41] = 0, 3, CodecError::Field("quorum"));
        check(&|bytes| bytes[44] = 0x80, 3, CodecError::Field("quorum"));
        check(&|bytes| bytes[71] = 7, 4, CodecError::Field("content hash"));
        check(&|bytes| bytes[81] = 0x10, 4, CodecError::Field("content"));
        let mut name = Vec::new();
        encode_define_validator(ValidatorRef(1), "a b", &mut name);
        assert_eq!(decode(&name).err(), Some(CodecError::Field("validator name")));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, length)) = decode(&bytes) {
                prop_assert!((1..=bytes.len()).contains(&length));
            }
        }

        #[test]
        fn damaged_records_never_panic(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = run();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut rest = bytes.as_slice();
            while let Ok((record, length)) = decode(rest) {
                prop_assert!(length <= rest.len());
                // What can be read can be written, and is the same again.
                let mut again = Vec::new();
                match record {
                    Record::Event(event) => encode_event(&event, &mut again),
                    Record::DefineValidator { number, name } => encode_define_validator(number, name, &mut again),
                    Record::DefineRequester { number, id } => encode_define_requester(number, &id, &mut again),
                    Record::DefineSet { number, digest, members } => {
                        encode_define_set(number, &digest, &members.iter().collect::<Vec<_>>(), &mut again);
                    }
                }
                prop_assert_eq!(&again, &rest[..length]);
                rest = &rest[length..];
            }
        }
    }
}
