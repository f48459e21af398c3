//! Identities: of approvals, validators, requesters and sets, and of events within logs.

use std::fmt;

/// An approval's UUID, 16 bytes in RFC 9562 order.
#[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash, Default)]
#[repr(transparent)]
pub struct ApprovalId(pub [u8; 16]);

/// A requester's UUID, 16 bytes in RFC 9562 order.
#[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash, Default)]
#[repr(transparent)]
pub struct RequesterId(pub [u8; 16]);

fn fmt_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; 36];
    f.write_str(uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut text))
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_uuid(&self.0, f)
    }
}
impl fmt::Debug for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_uuid(&self.0, f)
    }
}
impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_uuid(&self.0, f)
    }
}
impl fmt::Debug for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_uuid(&self.0, f)
    }
}

/// A validator's name: 1 to 64 printable ASCII characters without spaces; a hyphenated UUID is in
/// lower case.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ValidatorId(Box<str>);

impl ValidatorId {
    pub const BYTES_MAX: usize = 64;

    /// `None` when the name is not legal.
    pub fn parse(name: &str) -> Option<ValidatorId> {
        if !ValidatorId::is_legal(name.as_bytes()) {
            return None;
        }
        let mut owned: Box<str> = name.into();
        if ValidatorId::is_hyphenated_uuid(name.as_bytes()) {
            owned.make_ascii_lowercase();
        }
        Some(ValidatorId(owned))
    }

    /// Whether these bytes are a legal name, in whatever case.
    pub fn is_legal(name: &[u8]) -> bool {
        (1..=ValidatorId::BYTES_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
    }

    /// Such a name stands for the same validator in lower and upper case.
    pub fn is_hyphenated_uuid(name: &[u8]) -> bool {
        name.len() == 36
            && name.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ValidatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A validator's number in one shard, defined in each journal segment before its first use there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ValidatorRef(pub u32);

/// A requester's number in one shard, defined as a validator's is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RequesterRef(pub u32);

/// An eligible set's number in one shard, defined as a validator's is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct SetRef(pub u32);

/// A log's name in the world: random, 1 to 2^63 - 1, drawn when the log is made, never used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct LogId(pub u64);

/// Where an event stands: in which log, at which sequence (gapless from 1, below 2^48).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Position {
    pub log: LogId,
    pub sequence: u64,
}

/// An event within one data folder, in one word: 16 bits ordinal of the log in the folder, 48 bits
/// sequence. 0: none. An approval's events form a chain of these, newest first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
#[repr(transparent)]
pub struct EventRef(pub u64);

impl EventRef {
    pub const NONE: EventRef = EventRef(0);
    pub const SEQUENCE_MAX: u64 = (1 << 48) - 1;

    pub const fn new(log_ordinal: u16, sequence: u64) -> EventRef {
        debug_assert!(sequence <= EventRef::SEQUENCE_MAX);
        EventRef((log_ordinal as u64) << 48 | sequence)
    }
    pub const fn log_ordinal(self) -> u16 {
        (self.0 >> 48) as u16
    }
    pub const fn sequence(self) -> u64 {
        self.0 & EventRef::SEQUENCE_MAX
    }
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Partitions of a data folder, fixed for its life: shards own ranges of them.
pub const PARTITIONS: u32 = 1_024;

/// The folder's secret: without it nobody can choose ids that meet in one partition or bucket.
#[derive(Clone, Copy)]
pub struct PartitionKey([u64; 2]);

impl PartitionKey {
    pub fn new(secret: [u8; 16]) -> PartitionKey {
        let half = |at: usize| u64::from_le_bytes(secret[at..at + 8].try_into().expect("8 of 16 bytes"));
        PartitionKey([half(0), half(8)])
    }

    /// 64 well-mixed bits. The top ten name the partition; the rest serve the tables within it.
    /// Part of format version 1: the same id and key must hash alike for ever.
    #[inline(always)]
    pub fn hash(&self, id: &ApprovalId) -> u64 {
        let a = u64::from_le_bytes(id.0[..8].try_into().expect("8 of 16 bytes"));
        let b = u64::from_le_bytes(id.0[8..].try_into().expect("8 of 16 bytes"));
        // Two rounds of folded multiplication (as in wyhash): one alone leaves ids that differ in
        // few bits, as UUIDv7s drawn together do, close to each other.
        let first = fold(a ^ self.0[0], b ^ self.0[1] ^ 0x9E37_79B9_7F4A_7C15);
        fold(first ^ self.0[1], (a.rotate_left(32) ^ b) ^ 0xD6E8_FEB8_6659_FD93)
    }

    #[inline(always)]
    pub fn partition(hash: u64) -> u32 {
        (hash >> 54) as u32
    }
}

const _: () = assert!(PARTITIONS == 1 << (64 - 54));

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}
