//! Tracks: what was sent, in the order in which it was sent, and what came back.
//!
//! A track is a sequence of positions of one kind: opening the approvals of a block, or one
//! validator's votes on a block. Work is taken from its front in slices, so that `sent` is one
//! number; what was answered is all of it but the few that are listed as unknown (never answered)
//! or refused. Which approval a position means follows from the scheme: nothing is kept a vote.

use super::scheme::Scheme;

/// Offsets of approvals within a block.
pub const OFFSET_BITS: u32 = 32;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrackKind {
    /// Position p opens the block's approval p.
    Open,
    /// Position p is the validator's vote on the block's approval p, or, shuffled, on the one that
    /// its own order has there.
    Vote { validator: u16, shuffled: bool },
    /// Position p is the block's vote p as drawn from a pool of that many approvals (`mixed`): whose
    /// and on what, only drawing them in order tells.
    Drawn { pool: u32 },
}

/// Consecutive positions of one track: a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slice {
    /// Which of the lane's tracks.
    pub track: u32,
    pub kind: TrackKind,
    pub block: u16,
    pub start: u64,
    pub count: u32,
}

/// The number of a block's approval.
#[inline(always)]
pub const fn number(block: u16, offset: u64) -> u64 {
    (block as u64) << OFFSET_BITS | offset
}

const DRAWN: &str = "a drawn vote's approval does not follow from its position";

impl Slice {
    pub fn validator(&self) -> u16 {
        match self.kind {
            TrackKind::Vote { validator, .. } => validator,
            TrackKind::Open | TrackKind::Drawn { .. } => unreachable!("only slices of one validator's votes have it"),
        }
    }

    /// Calls `f` with each approval's number, the order decided once.
    #[inline(always)]
    pub fn for_each_number(&self, scheme: &Scheme, mut f: impl FnMut(u64)) {
        let positions = self.start..self.start + u64::from(self.count);
        match self.kind {
            TrackKind::Vote { validator, shuffled: true } => {
                let shuffle = scheme.validators[usize::from(validator)].shuffle;
                positions.for_each(|position| f(number(self.block, shuffle.at(position))));
            }
            TrackKind::Open | TrackKind::Vote { .. } => positions.for_each(|position| f(number(self.block, position))),
            TrackKind::Drawn { .. } => unreachable!("{DRAWN}"),
        }
    }

    pub fn numbers<'a>(&'a self, scheme: &'a Scheme) -> impl Iterator<Item = u64> + 'a {
        (self.start..self.start + u64::from(self.count)).map(move |position| self.number(scheme, position))
    }

    /// The approval at a position.
    pub fn number(&self, scheme: &Scheme, position: u64) -> u64 {
        match self.kind {
            TrackKind::Vote { validator, shuffled: true } => number(self.block, scheme.shuffled(validator, position)),
            TrackKind::Open | TrackKind::Vote { .. } => number(self.block, position),
            TrackKind::Drawn { .. } => unreachable!("{DRAWN}"),
        }
    }
}

/// Positions `from..to` of which `from..sent` were sent.
#[derive(Clone, Debug)]
pub struct Track {
    pub kind: TrackKind,
    pub block: u16,
    pub from: u64,
    pub sent: u64,
    pub to: u64,
    /// Sent and never answered: they may count or not.
    pub unknown: Positions,
    /// Answered with a refusal: they must not count.
    pub refused: Positions,
}

/// What is known of a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Unsent,
    Unknown,
    Refused,
    Acknowledged,
}

impl Track {
    pub fn new(kind: TrackKind, block: u16, from: u64, to: u64) -> Track {
        Track { kind, block, from, sent: from, to, unknown: Positions::default(), refused: Positions::default() }
    }

    /// The next positions, at most `max`; `None` when all are sent.
    pub fn take(&mut self, track: u32, max: u32) -> Option<Slice> {
        let count = u64::from(max).min(self.to - self.sent) as u32;
        if count == 0 {
            return None;
        }
        let slice = Slice { track, kind: self.kind, block: self.block, start: self.sent, count };
        self.sent += u64::from(count);
        Some(slice)
    }

    pub fn is_open(&self) -> bool {
        self.kind == TrackKind::Open
    }

    pub fn fate(&self, position: u64) -> Fate {
        if !(self.from..self.sent).contains(&position) {
            Fate::Unsent
        } else if self.unknown.contains(position) {
            Fate::Unknown
        } else if self.refused.contains(position) {
            Fate::Refused
        } else {
            Fate::Acknowledged
        }
    }

    /// Sent, answered, not refused.
    pub fn acknowledged(&self) -> u64 {
        self.sent - self.from - self.unknown.len() - self.refused.len()
    }

    /// All that was sent, as one slice a chunk of at most 2^31.
    pub fn sent_slices(&self) -> impl Iterator<Item = Slice> + '_ {
        (self.from..self.sent).step_by(1 << 31).map(|start| Slice {
            track: 0,
            kind: self.kind,
            block: self.block,
            start,
            count: (self.sent - start).min(1 << 31) as u32,
        })
    }
}

const CHUNK_BITS: u32 = 16;
const CHUNK_WORDS: usize = (1 << CHUNK_BITS) / 64;

/// A set of positions: bitmaps of 65,536, made where something is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Positions {
    chunks: std::collections::BTreeMap<u64, Box<[u64; CHUNK_WORDS]>>,
    count: u64,
}

impl Positions {
    /// Returns whether it is new.
    pub fn insert(&mut self, position: u64) -> bool {
        let chunk = self.chunks.entry(position >> CHUNK_BITS).or_insert_with(|| Box::new([0; CHUNK_WORDS]));
        let (word, bit) = (position as usize % (1 << CHUNK_BITS) / 64, 1 << (position % 64));
        let new = chunk[word] & bit == 0;
        chunk[word] |= bit;
        self.count += u64::from(new);
        new
    }

    pub fn contains(&self, position: u64) -> bool {
        self.chunks
            .get(&(position >> CHUNK_BITS))
            .is_some_and(|chunk| chunk[position as usize % (1 << CHUNK_BITS) / 64] & 1 << (position % 64) != 0)
    }

    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.iter().flat_map(|(chunk, words)| {
            words.iter().enumerate().flat_map(move |(at, word)| {
                let base = (chunk << CHUNK_BITS) + at as u64 * 64;
                let mut left = *word;
                std::iter::from_fn(move || {
                    let bit = (left != 0).then(|| left.trailing_zeros())?;
                    left &= left - 1;
                    Some(base + u64::from(bit))
                })
            })
        })
    }

    /// Runs of consecutive positions as LEB128: gap from the end of the last run, length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut end = 0;
        let mut positions = self.iter().peekable();
        while let Some(start) = positions.next() {
            let mut next = start + 1;
            while positions.next_if_eq(&next).is_some() {
                next += 1;
            }
            leb128(&mut out, start - end);
            leb128(&mut out, next - start);
            end = next;
        }
        out
    }

    /// `None` when these are not bytes of `to_bytes`, or go to 2^48 or above.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Positions> {
        let mut positions = Positions::default();
        let mut end = 0u64;
        while !bytes.is_empty() {
            let start = end.checked_add(read_leb128(&mut bytes)?)?;
            end = start.checked_add(read_leb128(&mut bytes)?)?;
            if end > 1 << 48 {
                return None;
            }
            (start..end).for_each(|position| {
                positions.insert(position);
            });
        }
        Some(positions)
    }
}

fn leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn positions_are_a_set(values in proptest::collection::vec(prop_oneof![0u64..300, 65_000u64..66_000, 0u64..1 << 40], 0..400)) {
            let mut positions = Positions::default();
            let mut expected = BTreeSet::new();
            for value in values {
                prop_assert_eq!(positions.insert(value), expected.insert(value));
            }
            prop_assert_eq!(positions.len(), expected.len() as u64);
            prop_assert!(positions.iter().eq(expected.iter().copied()));
            prop_assert!(expected.iter().all(|value| positions.contains(*value)));
            prop_assert_eq!(Positions::from_bytes(&positions.to_bytes()), Some(positions));
        }

        #[test]
        fn any_bytes_are_positions_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            // Long runs are legal but slow to make: only the error paths matter here.
            if bytes.len() < 4 {
                let _ = Positions::from_bytes(&bytes);
            }
        }
    }

    #[test]
    fn fates() {
        let mut track = Track::new(TrackKind::Open, 0, 10, 100);
        assert_eq!(track.take(0, 20).map(|slice| (slice.start, slice.count)), Some((10, 20)));
        track.refused.insert(12);
        track.unknown.insert(29);
        let fates = [9, 10, 12, 29, 30].map(|position| track.fate(position));
        assert_eq!(fates, [Fate::Unsent, Fate::Acknowledged, Fate::Refused, Fate::Unknown, Fate::Unsent]);
        assert_eq!(track.acknowledged(), 18);
        assert_eq!(track.take(0, 1_000).map(|slice| slice.count), Some(70));
        assert_eq!(track.take(0, 1), None);
    }
}
