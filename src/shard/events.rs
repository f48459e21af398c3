//! Events as followers see them: owned, with every reference resolved.
//!
//! A batch's records are read in order; definitions seen on the way fill the reader's tables. A
//! reader that starts in the middle of a segment learns of references that it cannot resolve, asks
//! for them (the shard, or the segment's beginning) and reads the batch again.

use crate::journal::BatchView;
use crate::model::codec::{CodecError, Record, decode};
use crate::model::{
    ApprovalId, ApprovalType, ContentHash, Decided, Decision, EligibleSet, EventKind, EventRef, Micros, Opened,
    Outcome, Priority, RequesterId, Tally, ValidatorId,
};
use bytes::Bytes;
use std::sync::Arc;

/// One event, for everyone who is told.
#[derive(Clone, Debug)]
pub struct FeedEvent {
    pub at: EventRef,
    /// When its batch was decided.
    pub time: Micros,
    pub approval: ApprovalId,
    pub previous: EventRef,
    pub approval_type: ApprovalType,
    pub priority: Priority,
    pub requester: RequesterId,
    pub tally: Tally,
    pub kind: FeedKind,
}

#[derive(Clone, Debug)]
pub enum FeedKind {
    Opened {
        content_hash: ContentHash,
        required: u16,
        total: u16,
        created_at: Micros,
        expires_at: Micros,
        /// From a complete reader only.
        details: Option<Box<OpeningDetails>>,
    },
    Voted {
        validator: Arc<str>,
        decision: Decision,
        reason: Box<str>,
        signature: Box<[u8]>,
        decided: Option<Box<Decided>>,
    },
    Expired {
        decided: Box<Decided>,
    },
}

/// What only those who keep openings need of one.
#[derive(Clone, Debug)]
pub struct OpeningDetails {
    pub content: Bytes,
    /// Of the request as sent.
    pub digest: [u8; 16],
    pub eligible: Option<Arc<EligibleSet>>,
}

impl FeedEvent {
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.kind {
            FeedKind::Opened { .. } => None,
            FeedKind::Voted { decided, .. } => decided.as_ref().map(|decided| decided.outcome),
            FeedKind::Expired { decided } => Some(decided.outcome),
        }
    }

    /// 1 for the opening, one more with each event of this approval.
    pub fn version(&self) -> u32 {
        1 + self.tally.cast() + u32::from(matches!(self.kind, FeedKind::Expired { .. }))
    }
}

/// A reference whose definition this reader has not seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unknown {
    Validator(u32),
    Requester(u32),
    Set(u32),
}

/// Why a batch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("the journal holds a record that this version cannot read: {0}")]
    Codec(#[from] CodecError),
    #[error("{} references are defined before the point where reading began", .0.len())]
    Unknown(Vec<Unknown>),
}

/// Reads one log's batches in order.
pub struct EventReader {
    log_ordinal: u16,
    is_complete: bool,
    validators: Vec<Option<Arc<str>>>,
    requesters: Vec<Option<RequesterId>>,
    /// Of a complete reader.
    sets: Vec<Option<Arc<EligibleSet>>>,
}

impl EventReader {
    pub fn new(log_ordinal: u16) -> EventReader {
        EventReader {
            log_ordinal,
            is_complete: false,
            validators: Vec::new(),
            requesters: Vec::new(),
            sets: Vec::new(),
        }
    }

    /// A reader whose openings carry their details.
    pub fn complete(log_ordinal: u16) -> EventReader {
        EventReader { is_complete: true, ..EventReader::new(log_ordinal) }
    }

    /// A segment begins: what was defined before means nothing in it.
    pub fn restart(&mut self) {
        self.validators.clear();
        self.requesters.clear();
        self.sets.clear();
    }

    pub fn define_validator(&mut self, number: u32, name: Arc<str>) {
        put(&mut self.validators, number, name);
    }

    pub fn define_requester(&mut self, number: u32, id: RequesterId) {
        put(&mut self.requesters, number, id);
    }

    /// Takes note of the definitions of a batch, and of nothing else.
    pub fn definitions(&mut self, batch: &BatchView<'_>) -> Result<(), EventError> {
        let mut rest = batch.payload;
        while !rest.is_empty() {
            let (record, length) = decode(rest)?;
            self.note(&record);
            rest = &rest[length..];
        }
        Ok(())
    }

    fn note(&mut self, record: &Record<'_>) {
        match record {
            Record::DefineValidator { number, name } => self.define_validator(number.0, Arc::from(*name)),
            Record::DefineRequester { number, id } => self.define_requester(number.0, *id),
            Record::DefineSet { number, digest, members } if self.is_complete => {
                // Members are defined before the set, in the same segment. One that is not is missed by its
                // first use: the set then stays unknown.
                let names = members.iter().map(|member| get(&self.validators, member.0).map(AsRef::as_ref));
                let members = names.map(|name| name.and_then(ValidatorId::parse)).collect::<Option<Vec<_>>>();
                if let Some(mut members) = members {
                    members.sort_unstable();
                    put(&mut self.sets, number.0, Arc::new(EligibleSet { members, digest: *digest }));
                }
            }
            Record::DefineSet { .. } | Record::Event(_) => {}
        }
    }

    /// The batch's events with a sequence of at least `from`, in order. With unknown references
    /// nothing is given, and all of them are named.
    pub fn events(&mut self, batch: &BatchView<'_>, from: u64, into: &mut Vec<FeedEvent>) -> Result<(), EventError> {
        let kept = into.len();
        let mut unknown = Vec::new();
        let mut sequence = batch.first_sequence;
        let mut rest = batch.payload;
        while !rest.is_empty() {
            let (record, length) = decode(rest)?;
            rest = &rest[length..];
            self.note(&record);
            let Record::Event(event) = record else { continue };
            sequence += 1;
            if sequence - 1 < from {
                continue;
            }
            let at = EventRef::new(self.log_ordinal, sequence - 1);
            let (approval_type, priority, requester, tally, kind) = match event.kind {
                EventKind::Opened(opened) => {
                    let details = match self.details(&opened) {
                        Ok(details) => details,
                        Err(set) => {
                            unknown.push(set);
                            continue;
                        }
                    };
                    (
                        opened.approval_type,
                        opened.priority,
                        opened.requester,
                        Tally::default(),
                        FeedKind::Opened {
                            content_hash: opened.content_hash,
                            required: opened.required,
                            total: opened.total,
                            created_at: opened.created_at,
                            expires_at: opened.expires_at,
                            details,
                        },
                    )
                }
                EventKind::Voted(voted) => {
                    let Some(validator) = get(&self.validators, voted.validator.0).cloned() else {
                        unknown.push(Unknown::Validator(voted.validator.0));
                        continue;
                    };
                    (
                        voted.approval_type,
                        voted.priority,
                        voted.requester,
                        voted.tally,
                        FeedKind::Voted {
                            validator,
                            decision: voted.decision,
                            reason: voted.reason.into(),
                            signature: voted.signature.into(),
                            decided: voted.decided,
                        },
                    )
                }
                EventKind::Expired(expired) => (
                    expired.approval_type,
                    expired.priority,
                    expired.requester,
                    expired.tally,
                    FeedKind::Expired { decided: expired.decided },
                ),
            };
            let Some(requester) = get(&self.requesters, requester.0).copied() else {
                unknown.push(Unknown::Requester(requester.0));
                continue;
            };
            into.push(FeedEvent {
                at,
                time: Micros(batch.now_micros),
                approval: event.approval,
                previous: event.previous,
                approval_type,
                priority,
                requester,
                tally,
                kind,
            });
        }
        if unknown.is_empty() {
            return Ok(());
        }
        into.truncate(kept);
        Err(EventError::Unknown(unknown))
    }
}

impl EventReader {
    fn details(&self, opened: &Opened<'_>) -> Result<Option<Box<OpeningDetails>>, Unknown> {
        if !self.is_complete {
            return Ok(None);
        }
        let eligible = match opened.eligible {
            None => None,
            Some(set) => Some(get(&self.sets, set.0).cloned().ok_or(Unknown::Set(set.0))?),
        };
        let content = Bytes::copy_from_slice(opened.content);
        Ok(Some(Box::new(OpeningDetails { content, digest: opened.digest, eligible })))
    }
}

fn get<T>(table: &[Option<T>], number: u32) -> Option<&T> {
    table.get(number as usize).and_then(Option::as_ref)
}

fn put<T>(table: &mut Vec<Option<T>>, number: u32, value: T) {
    let at = number as usize;
    if at >= table.len() {
        table.resize_with(at + 1, || None);
    }
    table[at] = Some(value);
}
