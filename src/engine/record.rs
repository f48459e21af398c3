//! What memory holds of an approval: a hot line that every vote touches, and a cold one for its
//! opening, its end and its readers. Numbers of records are stable; freed ones are used again.

use super::blocks::Block;
use super::memory::{Chunks, Plain};
use crate::model::{ApprovalId, ApprovalType, EventRef, Micros, Priority, Status, Tally};

/// No eligible set.
pub const NO_SET: u32 = u32::MAX;
/// Numbers stay below this: the timers need a bit.
pub const RECORDS_MAX: u32 = 1 << 31;

/// All that a vote reads and writes, in one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Hot {
    pub id: ApprovalId,
    pub last_event: EventRef,
    pub expires_at: Micros,
    tally: [u16; 3],
    pub required: u16,
    pub total: u16,
    approval_type: u8,
    /// Status in the low half (0: a free record), priority in the high half.
    state: u8,
    pub votes: u32,
    pub requester: u32,
    pub set: u32,
    /// Segment in which the requester is known to be defined, plus one, cut to 32 bits: most
    /// votes then need not look at the requester at all.
    pub requester_defined: u32,
    /// How the votes are kept (`votes`): form in the low two bits, class of their block above.
    pub votes_form: u8,
    /// Class of the label's block plus one, 0: the hash is a SHA-256.
    pub label_class: u8,
    spare: [u8; 2],
}

const _: () = assert!(size_of::<Hot>() == 64);
// Safety: integers and arrays of them, 64 bytes.
unsafe impl Plain for Hot {}

/// What a vote need not touch.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Cold {
    pub digest: [u8; 16],
    /// SHA-256; or, for a label, its block's number (4 bytes) and its length (1 byte).
    pub hash: [u8; 32],
    pub created_at: Micros,
    /// 0 while pending.
    pub finalized_at: Micros,
}

const _: () = assert!(size_of::<Cold>() == 64);
// Safety: integers and arrays of them, 64 bytes.
unsafe impl Plain for Cold {}

impl Hot {
    #[allow(clippy::too_many_arguments)]
    pub fn opened(
        id: ApprovalId,
        at: EventRef,
        expires_at: Micros,
        (required, total): (u16, u16),
        approval_type: ApprovalType,
        priority: Priority,
        requester: u32,
        set: u32,
    ) -> Hot {
        Hot {
            id,
            last_event: at,
            expires_at,
            tally: [0; 3],
            required,
            total,
            approval_type: approval_type as u8,
            state: Status::Pending as u8 | (priority as u8) << 4,
            votes: 0,
            requester,
            set,
            requester_defined: 0,
            votes_form: 0,
            label_class: 0,
            spare: [0; 2],
        }
    }

    #[inline(always)]
    pub fn status(&self) -> Status {
        Status::from_number(self.state & 15).expect("a record in use has a status")
    }

    #[inline(always)]
    pub fn is_pending(&self) -> bool {
        self.state & 15 == Status::Pending as u8
    }

    #[inline(always)]
    pub fn set_status(&mut self, status: Status) {
        self.state = self.state & 0xF0 | status as u8;
    }

    #[inline(always)]
    pub fn priority(&self) -> Priority {
        Priority::from_number(self.state >> 4).expect("a record in use has a priority")
    }

    #[inline(always)]
    pub fn approval_type(&self) -> ApprovalType {
        ApprovalType::from_number(self.approval_type).expect("a record in use has a type")
    }

    #[inline(always)]
    pub fn tally(&self) -> Tally {
        Tally { approvals: self.tally[0], rejections: self.tally[1], abstentions: self.tally[2] }
    }

    #[inline(always)]
    pub fn set_tally(&mut self, tally: Tally) {
        self.tally = [tally.approvals, tally.rejections, tally.abstentions];
    }

    /// Votes cast.
    #[inline(always)]
    pub fn cast(&self) -> usize {
        self.tally().cast() as usize
    }

    /// 1 when opened, one more with each event: a vote each, and the expiry.
    pub fn version(&self) -> u32 {
        1 + self.tally().cast() + u32::from(self.status() == Status::Expired)
    }
}

impl Cold {
    pub fn label(&self, label_class: u8) -> (Block, usize) {
        let number = u32::from_le_bytes(self.hash[..4].try_into().expect("4 bytes"));
        (Block { class: label_class - 1, number }, usize::from(self.hash[4]))
    }

    pub fn label_hash(block: Block, length: usize) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&block.number.to_le_bytes());
        hash[4] = length as u8;
        hash
    }
}

pub struct Records {
    hot: Chunks<Hot>,
    cold: Chunks<Cold>,
    used: u32,
    /// First freed record plus one, linked through `votes`; 0: none.
    free: u32,
}

impl Records {
    pub const fn new() -> Records {
        Records { hot: Chunks::hot(), cold: Chunks::cold(), used: 0, free: 0 }
    }

    pub fn take(&mut self, hot: Hot, cold: Cold) -> u32 {
        let number = if self.free != 0 {
            let number = self.free - 1;
            self.free = self.hot.get(number as usize).votes;
            number
        } else {
            let number = self.used;
            assert!(number < RECORDS_MAX, "limits keep records below 2^31");
            self.used += 1;
            self.hot.ensure(self.used as usize);
            self.cold.ensure(self.used as usize);
            number
        };
        *self.hot.get_mut(number as usize) = hot;
        *self.cold.get_mut(number as usize) = cold;
        number
    }

    pub fn give_back(&mut self, record: u32) {
        let hot = self.hot.get_mut(record as usize);
        assert!(hot.state != 0, "a record is freed once");
        hot.state = 0;
        hot.votes = self.free;
        self.free = record + 1;
    }

    #[inline(always)]
    pub fn hot(&self, record: u32) -> &Hot {
        self.hot.get(record as usize)
    }

    #[inline(always)]
    pub fn hot_mut(&mut self, record: u32) -> &mut Hot {
        self.hot.get_mut(record as usize)
    }

    pub fn cold(&self, record: u32) -> &Cold {
        self.cold.get(record as usize)
    }

    pub fn cold_mut(&mut self, record: u32) -> &mut Cold {
        self.cold.get_mut(record as usize)
    }

    #[inline(always)]
    pub fn prefetch_hot(&self, record: u32) {
        self.hot.prefetch(record as usize);
    }

    pub fn prefetch_cold(&self, record: u32) {
        self.cold.prefetch(record as usize);
    }

    pub fn bytes(&self) -> usize {
        self.hot.bytes() + self.cold.bytes()
    }
}

/// What `requester_defined` holds for this segment: never 0, and alike only for segments 2^32 - 1 apart.
#[inline(always)]
pub const fn segment_mark(segment: u64) -> u32 {
    (segment % (u32::MAX as u64)) as u32 + 1
}
