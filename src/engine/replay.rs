//! Replay: what a log holds, applied. Decode and apply, nothing else; the same prefetching as for
//! votes, over a window of decoded records.
//!
//! A log's numbers of names are its own: definitions map them to the engine's. A name defined is
//! held until the segment ends, so that its number stays good meanwhile.

use super::snapshot::Numbers;
use super::{Engine, table::Place, votes};
use crate::model::codec::{self, CodecError, Record};
use crate::model::{
    ApprovalId, Event, EventKind, EventRef, PartitionKey, PlainVote, RequesterRef, SetRef, ValidatorRef,
};

/// A log that does not fit itself: damage that no checksum caught, or a fault in this program. The
/// engine has taken in a part: throw it away, and say where.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReplayError {
    #[error("sequence {sequence}: {error}")]
    Codec { sequence: u64, error: CodecError },
    #[error("sequence {sequence}: uses a {what} that its segment does not define")]
    Undefined { sequence: u64, what: &'static str },
    #[error("sequence {sequence}: approval {approval} {what}")]
    Inconsistent { sequence: u64, approval: ApprovalId, what: &'static str },
}

const PROBE_LAG: usize = 16;
const RECORD_LAG: usize = PROBE_LAG + 12;
const APPLY_LAG: usize = RECORD_LAG + 8;
const RING: usize = 64;
const NO_RECORD: u32 = u32::MAX;
const _: () = assert!(APPLY_LAG < RING && RING.is_power_of_two());

/// An event with the engine's numbers.
enum Decoded<'a> {
    Vote(PlainVote),
    Event(Event<'a>),
}

struct Slot<'a> {
    decoded: Option<Decoded<'a>>,
    hash: u64,
    sequence: u64,
    place: Place,
    record: u32,
}

/// Replays one log into an engine, frame by frame.
pub struct Replayer {
    log_ordinal: u16,
    validators: Numbers,
    requesters: Numbers,
    sets: Numbers,
    /// Numbers that were defined anew: let go when nothing in the window uses them any more.
    replaced: Vec<(Kind, u32)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Validator,
    Requester,
    Set,
}

impl Replayer {
    /// For the log of this ordinal in its folder.
    pub fn new(log_ordinal: u16) -> Replayer {
        let (validators, requesters, sets) = Default::default();
        Replayer { log_ordinal, validators, requesters, sets, replaced: Vec::new() }
    }

    /// A segment begins: it defines its numbers itself. Call it at the end of the log too.
    pub fn segment_started(&mut self, engine: &mut Engine) {
        self.sets.drain().for_each(|set| engine.sets.release(set, &mut engine.validators));
        self.requesters.drain().for_each(|requester| engine.requesters.release(requester));
        self.validators.drain().for_each(|validator| engine.validators.release(ValidatorRef(validator)));
    }

    /// Applies a frame's records; its first event has `first_sequence`. `skip` answers, for a
    /// partition, up to which sequence of this log its slice of the snapshot holds everything (0:
    /// nothing); an engine that owns a part of the partitions skips the others with `u64::MAX`.
    /// Answers how many events the frame held.
    pub fn apply_batch(
        &mut self,
        engine: &mut Engine,
        first_sequence: u64,
        payload: &[u8],
        skip: impl Fn(u32) -> u64,
    ) -> Result<u64, ReplayError> {
        let mut ring: [Slot<'_>; RING] = std::array::from_fn(|_| Slot {
            decoded: None,
            hash: 0,
            sequence: 0,
            place: Place::NONE,
            record: NO_RECORD,
        });
        let mut rest = payload;
        let mut sequence = first_sequence;
        let mut taken = usize::MAX;
        let mut step = 0;
        while taken == usize::MAX || step < taken + APPLY_LAG {
            if taken == usize::MAX {
                match self.next(engine, &mut rest, &mut sequence, &skip)? {
                    Some(slot) => {
                        engine.index.prefetch(slot.place);
                        ring[step % RING] = slot;
                    }
                    None => taken = step,
                }
            }
            let at = step.wrapping_sub(PROBE_LAG);
            if at < taken && at <= step {
                let slot = &mut ring[at % RING];
                slot.record = engine.index.probe(slot.place, slot.hash).unwrap_or(NO_RECORD);
                if slot.record != NO_RECORD {
                    engine.records.prefetch_hot(slot.record);
                }
            }
            let at = step.wrapping_sub(RECORD_LAG);
            if at < taken && at <= step {
                let slot = &ring[at % RING];
                if slot.record != NO_RECORD {
                    votes::prefetch(&engine.blocks, engine.records.hot(slot.record));
                }
            }
            let at = step.wrapping_sub(APPLY_LAG);
            if at < taken && at <= step {
                self.apply(engine, &mut ring[at % RING])?;
            }
            step += 1;
        }
        for (kind, number) in self.replaced.drain(..) {
            match kind {
                Kind::Validator => engine.validators.release(ValidatorRef(number)),
                Kind::Requester => engine.requesters.release(number),
                Kind::Set => engine.sets.release(number, &mut engine.validators),
            }
        }
        let latest = engine.latest.0;
        engine.timers.settle(latest);
        Ok(sequence - first_sequence)
    }

    /// Decodes up to the next event that is not skipped, taking definitions on the way.
    #[inline(always)]
    fn next<'a>(
        &mut self,
        engine: &mut Engine,
        rest: &mut &'a [u8],
        sequence: &mut u64,
        skip: &impl Fn(u32) -> u64,
    ) -> Result<Option<Slot<'a>>, ReplayError> {
        while !rest.is_empty() {
            let (mut decoded, approval) = if let Some(vote) = codec::decode_vote_plain(rest) {
                *rest = &rest[codec::PLAIN_VOTE_BYTES..];
                (Decoded::Vote(vote), vote.approval)
            } else {
                let (record, length) =
                    codec::decode(rest).map_err(|error| ReplayError::Codec { sequence: *sequence, error })?;
                *rest = &rest[length..];
                match record {
                    Record::Event(event) => {
                        let approval = event.approval;
                        (Decoded::Event(event), approval)
                    }
                    definition => {
                        self.define(engine, definition, *sequence)?;
                        continue;
                    }
                }
            };
            let own = *sequence;
            *sequence += 1;
            let hash = engine.key.hash(&approval);
            if own <= skip(PartitionKey::partition(hash)) {
                continue;
            }
            self.translate(&mut decoded).map_err(|what| ReplayError::Undefined { sequence: own, what })?;
            let place = engine.index.locate(hash);
            return Ok(Some(Slot { decoded: Some(decoded), hash, sequence: own, place, record: NO_RECORD }));
        }
        Ok(None)
    }

    #[inline(never)]
    fn define(&mut self, engine: &mut Engine, definition: Record<'_>, sequence: u64) -> Result<(), ReplayError> {
        let undefined = |what| ReplayError::Undefined { sequence, what };
        match definition {
            Record::Event(_) => unreachable!("an event defines nothing"),
            Record::DefineValidator { number, name } => {
                let ours = engine.validators.intern(name);
                engine.validators.hold(ours);
                let before = self.validators.set(number.0, ours.0);
                self.replaced.extend(before.map(|before| (Kind::Validator, before)));
            }
            Record::DefineRequester { number, id } => {
                let ours = engine.requesters.intern(&id);
                engine.requesters.hold(ours);
                let before = self.requesters.set(number.0, ours);
                self.replaced.extend(before.map(|before| (Kind::Requester, before)));
            }
            Record::DefineSet { number, digest, members } => {
                let members = members.iter().map(|member| self.validators.get(member.0).map(ValidatorRef));
                let members = members.collect::<Option<Vec<_>>>().ok_or(undefined("validator"))?;
                let ours = engine.known_set(digest, members).ok_or(undefined("set"))?;
                engine.sets.hold(ours);
                let before = self.sets.set(number.0, ours);
                self.replaced.extend(before.map(|before| (Kind::Set, before)));
            }
        }
        Ok(())
    }

    /// Puts the engine's numbers in place of the log's.
    #[inline(always)]
    fn translate(&self, decoded: &mut Decoded<'_>) -> Result<(), &'static str> {
        let validator = |log: ValidatorRef| self.validators.get(log.0).map(ValidatorRef).ok_or("validator");
        let requester = |log: RequesterRef| self.requesters.get(log.0).map(RequesterRef).ok_or("requester");
        match decoded {
            Decoded::Vote(vote) => vote.validator = validator(vote.validator)?,
            Decoded::Event(event) => match &mut event.kind {
                EventKind::Voted(voted) => voted.validator = validator(voted.validator)?,
                EventKind::Expired(_) => {}
                EventKind::Opened(opened) => {
                    opened.requester = requester(opened.requester)?;
                    if let Some(set) = opened.eligible {
                        opened.eligible = Some(SetRef(self.sets.get(set.0).ok_or("set")?));
                    }
                }
            },
        }
        Ok(())
    }

    #[inline(always)]
    fn apply(&self, engine: &mut Engine, slot: &mut Slot<'_>) -> Result<(), ReplayError> {
        let at = EventRef::new(self.log_ordinal, slot.sequence);
        let decoded = slot.decoded.take().expect("a slot is applied once");
        let (approval, previous) = match &decoded {
            Decoded::Vote(vote) => (vote.approval, vote.previous),
            Decoded::Event(event) => (event.approval, event.previous),
        };
        let inconsistent = |what| Err(ReplayError::Inconsistent { sequence: slot.sequence, approval, what });
        let mut record = slot.record;
        if record == NO_RECORD || engine.records.hot(record).id != approval {
            record = engine.find_hashed(slot.hash, &approval).unwrap_or(NO_RECORD);
        }
        if let Decoded::Event(Event { kind: EventKind::Opened(opened), .. }) = &decoded {
            if record != NO_RECORD {
                return inconsistent("is opened twice");
            }
            engine.apply_opened(slot.hash, &approval, opened, at);
            return Ok(());
        }
        if record == NO_RECORD {
            return inconsistent("was never opened");
        }
        let hot = engine.records.hot(record);
        if hot.last_event != previous {
            return inconsistent("misses an event before this one");
        }
        if !hot.is_pending() {
            return inconsistent("was decided before");
        }
        let (validator, tally) = match &decoded {
            Decoded::Vote(vote) => (Some(vote.validator), vote.tally),
            Decoded::Event(Event { kind: EventKind::Voted(voted), .. }) => (Some(voted.validator), voted.tally),
            Decoded::Event(Event { kind: EventKind::Expired(expired), .. }) => (None, expired.tally),
            Decoded::Event(_) => unreachable!("an opening was applied above"),
        };
        let cast = hot.tally().cast() + u32::from(validator.is_some());
        if tally.cast() != cast || cast > u32::from(hot.total) {
            return inconsistent("has another tally");
        }
        if validator.is_some_and(|validator| votes::get(&engine.blocks, hot, validator).is_some()) {
            return inconsistent("has this validator's vote already");
        }
        match &decoded {
            Decoded::Vote(vote) => engine.apply_vote(record, vote.validator, vote.decision, vote.tally, at),
            Decoded::Event(event) => engine.apply_found(record, event, at),
        }
        Ok(())
    }
}
