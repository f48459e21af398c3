//! A partition as bytes and back: a slice of a snapshot. Self-contained, with its own names, so
//! that any engine can take it in, whatever numbers it gives. Format version 1, little-endian:
//!
//! ```text
//! 0 version u8   1 partition u32   5 length of RECORDS u64   13 counts u32: records,
//! 17 validators   21 requesters   25 sets
//! 29 RECORDS
//!    VALIDATORS  number u32, length u8, name
//!    REQUESTERS  number u32, id[16]
//!    SETS        number u32, digest[32], count u16, count x validator number u32
//!
//! a RECORD       id[16], digest[16], type u8, status u8, priority u8, required u16, total u16,
//!                tally 3 x u16, requester u32, set u32 (2^32 - 1: none), created_at u64,
//!                expires_at u64, finalized_at u64 (0 while pending), last event u64,
//!                HASH (as in model::codec), form u8 (0 entries, 1 bitmap), count u32, count words u32
//! ```
//! Votes as words: an entry is `validator number << 2 | decision` (0: none), a bitmap has two bits a
//! number. The caller adds the sequence at which the slice is true, and a checksum.

use super::names::Validators;
use super::record::{Cold, Hot, NO_SET};
use super::{Engine, votes};
use crate::model::codec::{CodecError, Reader, put_hash};
use crate::model::{
    ApprovalId, EventRef, Micros, Opened, PARTITIONS, PartitionKey, Priority, RequesterId, RequesterRef, SetRef,
    Status, TOTAL_VALIDATORS_MAX, Tally, ValidatorId, ValidatorRef,
};
use std::collections::HashMap;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 29;
/// A record up to its HASH.
const RECORD_HEAD_BYTES: usize = 16 + 16 + 3 + 5 * 2 + 2 * 4 + 4 * 8;

/// Bytes that are no slice of a snapshot. The engine has taken in a part: throw it away, and start
/// from an older snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot version {0} is not known here: written by a newer version?")]
    Version(u8),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a snapshot's {0} does not fit the rest of it")]
    Inconsistent(&'static str),
}

/// From numbers in a log or slice to this engine's. Numbers are dense as a rule, so they index an
/// array; a number out of all proportion (only damage or years of growth make one) goes to a map.
#[derive(Default)]
pub(super) struct Numbers {
    dense: Vec<u32>,
    sparse: HashMap<u32, u32>,
}

const DENSE_MAX: u32 = 1 << 24;
const UNKNOWN: u32 = u32::MAX;

impl Numbers {
    /// Answers what the number stood for before.
    pub(super) fn set(&mut self, number: u32, ours: u32) -> Option<u32> {
        if number >= DENSE_MAX {
            return self.sparse.insert(number, ours);
        }
        if self.dense.len() <= number as usize {
            self.dense.resize(number as usize + 1, UNKNOWN);
        }
        Some(std::mem::replace(&mut self.dense[number as usize], ours)).filter(|before| *before != UNKNOWN)
    }

    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> Option<u32> {
        match self.dense.get(number as usize) {
            Some(ours) => Some(*ours).filter(|ours| *ours != UNKNOWN),
            None => self.sparse.get(&number).copied(),
        }
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.dense.drain(..).filter(|ours| *ours != UNKNOWN).chain(self.sparse.drain().map(|(_, ours)| ours))
    }
}

/// Which numbers a slice mentions.
struct Seen(Vec<u64>);

impl Seen {
    fn new(numbers: u32) -> Seen {
        Seen(vec![0; numbers as usize / 64 + 1])
    }

    fn add(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.checked_sub(1)?;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

impl Engine {
    /// Appends a partition's slice. Changes nothing.
    pub fn write_partition(&self, partition: u32, out: &mut Vec<u8>) {
        let mut records = Vec::with_capacity(self.partition_len(partition));
        self.index.scan(partition as usize, 0, usize::MAX, |record| records.push(record));
        let mut validators = Seen::new(self.validators.numbers());
        let mut requesters = Seen::new(self.requesters.numbers());
        let mut sets = Seen::new(self.sets.numbers());

        let start = out.len();
        out.resize(start + HEADER_BYTES, 0);
        const AHEAD: usize = 8;
        for (at, record) in records.iter().enumerate() {
            if let Some(far) = records.get(at + 2 * AHEAD) {
                self.records.prefetch_hot(*far);
                self.records.prefetch_cold(*far);
            }
            if let Some(near) = records.get(at + AHEAD) {
                votes::prefetch(&self.blocks, self.records.hot(*near));
            }
            let hot = self.records.hot(*record);
            requesters.add(hot.requester);
            if hot.set != NO_SET {
                sets.add(hot.set);
            }
            self.write_record(*record, &mut validators, out);
        }
        let records_bytes = out.len() - start - HEADER_BYTES;

        let mut counts = [records.len() as u32, 0, 0, 0];
        let mut set_part = Vec::new();
        for number in sets.iter() {
            counts[3] += 1;
            let set = self.sets.get(number);
            set_part.extend_from_slice(&number.to_le_bytes());
            set_part.extend_from_slice(&set.digest);
            set_part.extend_from_slice(&(set.members.len() as u16).to_le_bytes());
            for member in &set.members {
                validators.add(member.0);
                set_part.extend_from_slice(&member.0.to_le_bytes());
            }
        }
        for number in validators.iter() {
            counts[1] += 1;
            let name = self.validators.name(ValidatorRef(number));
            out.extend_from_slice(&number.to_le_bytes());
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        for number in requesters.iter() {
            counts[2] += 1;
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&self.requesters.id(number).0);
        }
        out.extend_from_slice(&set_part);

        let header = &mut out[start..start + HEADER_BYTES];
        header[0] = VERSION;
        header[1..5].copy_from_slice(&partition.to_le_bytes());
        header[5..13].copy_from_slice(&(records_bytes as u64).to_le_bytes());
        for (at, count) in counts.iter().enumerate() {
            header[13 + 4 * at..17 + 4 * at].copy_from_slice(&count.to_le_bytes());
        }
    }

    fn write_record(&self, record: u32, validators: &mut Seen, out: &mut Vec<u8>) {
        let (hot, cold) = (self.records.hot(record), self.records.cold(record));
        let tally = hot.tally();
        // In one piece: ten thousand records fit the millisecond that a slice may take.
        let mut head = [0; RECORD_HEAD_BYTES];
        let mut at = 0;
        let mut put = |piece: &[u8]| {
            head[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        };
        put(&hot.id.0);
        put(&cold.digest);
        put(&[hot.approval_type() as u8, hot.status() as u8, hot.priority() as u8]);
        for small in [hot.required, hot.total, tally.approvals, tally.rejections, tally.abstentions] {
            put(&small.to_le_bytes());
        }
        put(&hot.requester.to_le_bytes());
        put(&hot.set.to_le_bytes());
        for long in [cold.created_at.0, hot.expires_at.0, cold.finalized_at.0, hot.last_event.0] {
            put(&long.to_le_bytes());
        }
        assert_eq!(at, RECORD_HEAD_BYTES);
        out.extend_from_slice(&head);
        put_hash(&self.content_hash(record), out);
        let (bitmap, words) = votes::words(&self.blocks, hot);
        out.push(u8::from(bitmap));
        out.extend_from_slice(&(words.len() as u32).to_le_bytes());
        for (at, word) in words.iter().enumerate() {
            out.extend_from_slice(&word.to_le_bytes());
            votes::entries(bitmap, at, *word, &mut |entry| validators.add(entry >> 2));
        }
    }

    /// Takes in a slice that [`Engine::write_partition`] of any engine wrote; answers its partition.
    pub fn read_partition(&mut self, bytes: &[u8]) -> Result<u32, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let partition = reader.u32()?;
        let records_bytes = usize::try_from(reader.u64()?).map_err(|_| CodecError::Truncated)?;
        let [records, validators, requesters, sets] = [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
        if partition >= PARTITIONS {
            return Err(SnapshotError::Inconsistent("partition"));
        }
        let mut record_reader = Reader::new(reader.take(records_bytes)?);

        // Held while the slice is read, so that nothing goes before its first use.
        let mut slice = Slice::default();
        for _ in 0..validators {
            let number = reader.u32()?;
            let length = usize::from(reader.u8()?);
            let name = reader.take(length)?;
            if !ValidatorId::is_legal(name) {
                return Err(SnapshotError::Inconsistent("validator name"));
            }
            let name = std::str::from_utf8(name).map_err(|_| SnapshotError::Inconsistent("validator name"))?;
            let ours = self.validators.intern(name);
            self.validators.hold(ours);
            slice.validators.set(number, ours.0);
        }
        for _ in 0..requesters {
            let number = reader.u32()?;
            let ours = self.requesters.intern(&RequesterId(reader.array()?));
            self.requesters.hold(ours);
            slice.requesters.set(number, ours);
        }
        for _ in 0..sets {
            let number = reader.u32()?;
            let ours = read_set(self, &mut reader, &slice.validators)?;
            self.sets.hold(ours);
            slice.sets.set(number, ours);
        }
        for _ in 0..records {
            self.read_record(partition, &mut record_reader, &slice)?;
        }
        if !reader.is_empty() || !record_reader.is_empty() {
            return Err(SnapshotError::Inconsistent("length"));
        }
        slice.sets.drain().for_each(|set| self.sets.release(set, &mut self.validators));
        slice.requesters.drain().for_each(|requester| self.requesters.release(requester));
        slice.validators.drain().for_each(|validator| self.validators.release(ValidatorRef(validator)));
        Ok(partition)
    }

    fn read_record(&mut self, partition: u32, reader: &mut Reader<'_>, slice: &Slice) -> Result<(), SnapshotError> {
        use SnapshotError::Inconsistent;
        let id = ApprovalId(reader.array()?);
        let hash = self.key.hash(&id);
        if PartitionKey::partition(hash) != partition || self.find_hashed(hash, &id).is_some() {
            return Err(Inconsistent("approval id"));
        }
        let digest = reader.array()?;
        let approval_type = reader.approval_type()?;
        let status = Status::from_number(reader.u8()?).ok_or(Inconsistent("status"))?;
        let priority = Priority::from_number(reader.u8()?).ok_or(Inconsistent("priority"))?;
        let (required, total) = reader.quorum()?;
        let tally = reader.tally()?;
        if tally.cast() > u32::from(total) {
            return Err(Inconsistent("tally"));
        }
        let requester = slice.requesters.get(reader.u32()?).ok_or(Inconsistent("requester"))?;
        let eligible = match reader.u32()? {
            NO_SET => None,
            set => Some(SetRef(slice.sets.get(set).ok_or(Inconsistent("eligible set"))?)),
        };
        let created_at = Micros(reader.u64()?);
        let expires_at = Micros(reader.u64()?);
        let finalized_at = Micros(reader.u64()?);
        let last_event = EventRef(reader.u64()?);
        let content_hash = reader.hash()?;
        let opened = Opened {
            approval_type,
            priority,
            requester: RequesterRef(requester),
            content_hash,
            required,
            total,
            created_at,
            expires_at,
            eligible,
            digest,
            content: &[],
        };
        let record = self.apply_opened(hash, &id, &opened, last_event);
        self.read_votes(record, tally, reader, &slice.validators)?;
        if let Some(outcome) = status.outcome() {
            self.timers.remove(record);
            self.apply_outcome(record, outcome, finalized_at);
        }
        Ok(())
    }

    fn read_votes(
        &mut self,
        record: u32,
        tally: Tally,
        reader: &mut Reader<'_>,
        numbers: &Numbers,
    ) -> Result<(), SnapshotError> {
        let bitmap = reader.u8()? == 1;
        let count = reader.u32()? as usize;
        let words = reader.take(count.checked_mul(4).ok_or(CodecError::Truncated)?)?;
        let mut counted = Tally::default();
        let mut fits = true;
        let most = self.validators.numbers();
        let (blocks, hot, validators) = (&mut self.blocks, self.records.hot_mut(record), &mut self.validators);
        for (at, word) in words.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes(word.try_into().expect("chunks of 4"));
            votes::entries(bitmap, at, word, &mut |entry| {
                fits &= insert_entry(entry, numbers, &mut counted, most, blocks, hot, validators).is_some();
            });
        }
        match fits && counted == tally {
            true => Ok(()),
            false => Err(SnapshotError::Inconsistent("votes")),
        }
    }
}

/// `None` when the entry is no first vote of a known validator.
fn insert_entry(
    entry: u32,
    numbers: &Numbers,
    counted: &mut Tally,
    most: u32,
    blocks: &mut super::Blocks,
    hot: &mut Hot,
    validators: &mut Validators,
) -> Option<()> {
    let validator = ValidatorRef(numbers.get(entry >> 2)?);
    let decision = crate::model::Decision::from_number(entry as u8 & 3)?;
    if votes::get(blocks, hot, validator).is_some() || counted.cast() >= u32::from(TOTAL_VALIDATORS_MAX) {
        return None;
    }
    votes::insert(blocks, hot, validator, decision, most);
    *counted = super::decide::tally_after(*counted, decision);
    hot.set_tally(*counted);
    validators.hold(validator);
    Some(())
}

/// A slice's numbers, as this engine's.
#[derive(Default)]
struct Slice {
    validators: Numbers,
    requesters: Numbers,
    sets: Numbers,
}

fn read_set(engine: &mut Engine, reader: &mut Reader<'_>, validators: &Numbers) -> Result<u32, SnapshotError> {
    let digest: [u8; 32] = reader.array()?;
    let count = reader.u16()?;
    let mut members = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let ours = validators.get(reader.u32()?).ok_or(SnapshotError::Inconsistent("eligible set"))?;
        members.push(ValidatorRef(ours));
    }
    engine.known_set(digest, members).ok_or(SnapshotError::Inconsistent("eligible set"))
}

impl Engine {
    /// The set of this digest, added if it is not there; `None` when the members cannot be one.
    pub(super) fn known_set(&mut self, digest: [u8; 32], members: Vec<ValidatorRef>) -> Option<u32> {
        if let Some(number) = self.sets.find(&digest) {
            return Some(number);
        }
        let mut sorted = members.clone();
        sorted.sort_unstable();
        let distinct = sorted.windows(2).all(|pair| pair[0] != pair[1]);
        if !distinct || members.is_empty() || members.len() > usize::from(TOTAL_VALIDATORS_MAX) {
            return None;
        }
        Some(self.sets.add(digest, sorted, &mut self.validators))
    }
}

const _: () = assert!(size_of::<Cold>() == 64, "version 1 holds every field of Hot and Cold");
