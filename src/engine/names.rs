//! Names and their numbers: validators, requesters, eligible sets. Each is stored once, counted by
//! what holds it (accepted votes and sets hold validators, approvals hold requesters and sets),
//! and goes when nothing does; its number is then used again.
//!
//! Each remembers the journal segment in which it was last defined, so that a segment defines it
//! once, before its first use there.

use super::blocks::{Block, Blocks};
use super::memory::{Chunks, Plain, bytes_of, bytes_of_mut};
use super::table::Index;
use crate::model::{ApprovalId, PartitionKey, RequesterId, ValidatorId, ValidatorRef};

/// Not yet defined in any segment.
pub const NEVER: u64 = u64::MAX;
/// 64 tables each: a growth moves a sixty-fourth of the names.
const PARTITION_BITS: u32 = 6;
/// Bitmaps of sets are at most this many times as large as their lists of members.
const SET_BITMAP_FACTOR: usize = 2;

#[derive(Clone, Copy)]
#[repr(C)]
struct Validator {
    defined_in: u64,
    holders: u64,
    /// Number of the text's block; while free, the next free number plus one.
    text: u32,
    /// 0: free.
    length: u8,
    spare: [u8; 11],
}

const _: () = assert!(size_of::<Validator>() == 32);
// Safety: integers, 32 bytes.
unsafe impl Plain for Validator {}

pub struct Validators {
    key: PartitionKey,
    index: Index,
    entries: Chunks<Validator>,
    texts: Blocks,
    used: u32,
    free: u32,
    count: u32,
}

impl Validators {
    pub fn new(key: PartitionKey) -> Validators {
        let index = Index::new(PARTITION_BITS);
        Validators { key, index, entries: Chunks::cold(), texts: Blocks::new(), used: 0, free: 0, count: 0 }
    }

    /// How many distinct names are known.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bounds every number given out so far.
    #[inline(always)]
    pub fn numbers(&self) -> u32 {
        self.used
    }

    /// Keyed: nobody can choose names that meet.
    fn hash(&self, name: &[u8]) -> u64 {
        name.chunks(16).fold(name.len() as u64, |hash, chunk| {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            self.key.hash(&ApprovalId((u128::from_le_bytes(block) ^ u128::from(hash)).to_le_bytes()))
        })
    }

    fn block(&self, entry: &Validator) -> Block {
        Block { class: Blocks::class_of(usize::from(entry.length)), number: entry.text }
    }

    pub fn find(&self, name: &str) -> Option<ValidatorRef> {
        let hash = self.hash(name.as_bytes());
        self.index.find(hash, |number| self.name(ValidatorRef(number)) == name).map(ValidatorRef)
    }

    pub fn name(&self, number: ValidatorRef) -> &str {
        let entry = self.entries.get(number.0 as usize);
        let bytes = &bytes_of(self.texts.words(self.block(entry)))[..usize::from(entry.length)];
        std::str::from_utf8(bytes).expect("names are ASCII")
    }

    /// The name's number, drawn if it has none; it goes with its last holder.
    pub fn intern(&mut self, name: &str) -> ValidatorRef {
        debug_assert!((1..=ValidatorId::BYTES_MAX).contains(&name.len()));
        let hash = self.hash(name.as_bytes());
        if let Some(number) = self.index.find(hash, |number| self.name(ValidatorRef(number)) == name) {
            return ValidatorRef(number);
        }
        let number = if self.free != 0 {
            let number = self.free - 1;
            self.free = self.entries.get(number as usize).text;
            number
        } else {
            self.used += 1;
            assert!(self.used <= super::votes::VALIDATORS_MAX, "limits keep names below 2^30");
            self.entries.ensure(self.used as usize);
            self.used - 1
        };
        let text = self.texts.take(Blocks::class_of(name.len()));
        bytes_of_mut(self.texts.words_mut(text))[..name.len()].copy_from_slice(name.as_bytes());
        *self.entries.get_mut(number as usize) =
            Validator { defined_in: NEVER, holders: 0, text: text.number, length: name.len() as u8, spare: [0; 11] };
        self.index.insert(hash, number);
        self.count += 1;
        ValidatorRef(number)
    }

    #[inline(always)]
    pub fn hold(&mut self, number: ValidatorRef) {
        self.entries.get_mut(number.0 as usize).holders += 1;
    }

    pub fn release(&mut self, number: ValidatorRef) {
        let entry = self.entries.get_mut(number.0 as usize);
        assert!(entry.holders > 0, "what is released was held");
        entry.holders -= 1;
        self.drop_unheld(number);
    }

    /// Lets a number go that was drawn and then not held.
    pub fn drop_unheld(&mut self, number: ValidatorRef) {
        let entry = *self.entries.get(number.0 as usize);
        if entry.holders > 0 || entry.length == 0 {
            return;
        }
        let hash = self.hash(self.name(number).as_bytes());
        self.index.remove(hash, number.0);
        self.texts.give_back(self.block(&entry));
        *self.entries.get_mut(number.0 as usize) =
            Validator { defined_in: NEVER, holders: 0, text: self.free, length: 0, spare: [0; 11] };
        self.free = number.0 + 1;
        self.count -= 1;
    }

    /// Whether it must be defined in this segment first; from now on it is.
    #[inline(always)]
    pub fn define_in(&mut self, number: ValidatorRef, segment: u64) -> bool {
        let entry = self.entries.get_mut(number.0 as usize);
        std::mem::replace(&mut entry.defined_in, segment) != segment
    }

    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.entries.bytes() + self.texts.bytes()
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Requester {
    id: RequesterId,
    defined_in: u64,
    /// While free, the next free number plus one.
    holders_or_next: u32,
    in_use: u32,
}

const _: () = assert!(size_of::<Requester>() == 32);
// Safety: integers and arrays of them, 32 bytes.
unsafe impl Plain for Requester {}

pub struct Requesters {
    key: PartitionKey,
    index: Index,
    entries: Chunks<Requester>,
    used: u32,
    free: u32,
    count: u32,
}

impl Requesters {
    pub fn new(key: PartitionKey) -> Requesters {
        Requesters { key, index: Index::new(PARTITION_BITS), entries: Chunks::cold(), used: 0, free: 0, count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn numbers(&self) -> u32 {
        self.used
    }

    #[inline(always)]
    pub fn id(&self, number: u32) -> RequesterId {
        self.entries.get(number as usize).id
    }

    #[inline(always)]
    pub fn prefetch(&self, number: u32) {
        self.entries.prefetch(number as usize);
    }

    pub fn intern(&mut self, id: &RequesterId) -> u32 {
        let hash = self.key.hash(&ApprovalId(id.0));
        if let Some(number) = self.index.find(hash, |number| self.id(number) == *id) {
            return number;
        }
        let number = if self.free != 0 {
            let number = self.free - 1;
            self.free = self.entries.get(number as usize).holders_or_next;
            number
        } else {
            self.used += 1;
            self.entries.ensure(self.used as usize);
            self.used - 1
        };
        *self.entries.get_mut(number as usize) =
            Requester { id: *id, defined_in: NEVER, holders_or_next: 0, in_use: 1 };
        self.index.insert(hash, number);
        self.count += 1;
        number
    }

    pub fn hold(&mut self, number: u32) {
        self.entries.get_mut(number as usize).holders_or_next += 1;
    }

    pub fn release(&mut self, number: u32) {
        let entry = self.entries.get_mut(number as usize);
        assert!(entry.in_use == 1 && entry.holders_or_next > 0, "what is released was held");
        entry.holders_or_next -= 1;
        if entry.holders_or_next > 0 {
            return;
        }
        entry.in_use = 0;
        entry.holders_or_next = self.free;
        let id = entry.id;
        self.free = number + 1;
        self.count -= 1;
        self.index.remove(self.key.hash(&ApprovalId(id.0)), number);
    }

    pub fn define_in(&mut self, number: u32, segment: u64) -> bool {
        let entry = self.entries.get_mut(number as usize);
        std::mem::replace(&mut entry.defined_in, segment) != segment
    }

    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.entries.bytes()
    }
}

/// A set of validators who alone may vote.
pub struct Set {
    pub digest: [u8; 32],
    /// Ascending by number.
    pub members: Box<[ValidatorRef]>,
    /// One bit a number up to the highest, where that is small enough; else empty.
    bitmap: Box<[u64]>,
    holders: u32,
    defined_in: u64,
}

impl Set {
    pub fn contains(&self, validator: ValidatorRef) -> bool {
        if self.bitmap.is_empty() {
            return self.members.binary_search(&validator).is_ok();
        }
        self.bitmap.get(validator.0 as usize / 64).is_some_and(|word| word >> (validator.0 % 64) & 1 == 1)
    }

    /// What a set of so many members may take, at most.
    pub const fn bytes_max(members: usize) -> usize {
        size_of::<Set>() + 16 + members * 4 * (1 + SET_BITMAP_FACTOR)
    }

    fn bytes(&self) -> usize {
        size_of::<Set>() + 16 + self.members.len() * 4 + self.bitmap.len() * 8
    }
}

/// Few and large, next to the others; boxed, so that the list of them grows cheaply.
pub struct Sets {
    key: PartitionKey,
    index: Index,
    #[allow(clippy::vec_box, reason = "growing the list must not move the sets")]
    sets: Vec<Option<Box<Set>>>,
    free: Vec<u32>,
    bytes: usize,
}

impl Sets {
    pub fn new(key: PartitionKey) -> Sets {
        Sets { key, index: Index::new(PARTITION_BITS), sets: Vec::new(), free: Vec::new(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.sets.len() - self.free.len()
    }

    /// Held by sets: members and bitmaps.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn numbers(&self) -> u32 {
        self.sets.len() as u32
    }

    #[inline]
    pub fn get(&self, number: u32) -> &Set {
        self.sets[number as usize].as_ref().expect("a held set is there")
    }

    fn hash(&self, digest: &[u8; 32]) -> u64 {
        self.key.hash(&ApprovalId(digest[..16].try_into().expect("16 of 32 bytes")))
    }

    pub fn find(&self, digest: &[u8; 32]) -> Option<u32> {
        self.index.find(self.hash(digest), |number| self.get(number).digest == *digest)
    }

    /// Stores a set that is not known, and holds its members.
    pub fn add(&mut self, digest: [u8; 32], mut members: Vec<ValidatorRef>, validators: &mut Validators) -> u32 {
        members.sort_unstable();
        members.iter().for_each(|member| validators.hold(*member));
        let highest = members.last().map_or(0, |member| member.0 as usize);
        let mut bitmap = Vec::new();
        if highest / 8 + 8 <= members.len() * 4 * SET_BITMAP_FACTOR {
            bitmap.resize(highest / 64 + 1, 0u64);
            members.iter().for_each(|member| bitmap[member.0 as usize / 64] |= 1 << (member.0 % 64));
        }
        let set = Box::new(Set {
            digest,
            members: members.into_boxed_slice(),
            bitmap: bitmap.into_boxed_slice(),
            holders: 0,
            defined_in: NEVER,
        });
        self.bytes += set.bytes();
        let number = self.free.pop().unwrap_or(self.sets.len() as u32);
        if number as usize == self.sets.len() {
            self.sets.push(None);
        }
        self.sets[number as usize] = Some(set);
        self.index.insert(self.hash(&digest), number);
        number
    }

    pub fn hold(&mut self, number: u32) {
        self.sets[number as usize].as_mut().expect("a held set is there").holders += 1;
    }

    pub fn release(&mut self, number: u32, validators: &mut Validators) {
        let set = self.sets[number as usize].as_mut().expect("a held set is there");
        assert!(set.holders > 0, "what is released was held");
        set.holders -= 1;
        if set.holders > 0 {
            return;
        }
        let set = self.sets[number as usize].take().expect("it was there just now");
        self.bytes -= set.bytes();
        self.index.remove(self.hash(&set.digest), number);
        self.free.push(number);
        set.members.iter().for_each(|member| validators.release(*member));
    }

    pub fn define_in(&mut self, number: u32, segment: u64) -> bool {
        let set = self.sets[number as usize].as_mut().expect("a held set is there");
        std::mem::replace(&mut set.defined_in, segment) != segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PartitionKey {
        PartitionKey::new(*b"a secret of ours")
    }

    #[test]
    fn a_name_is_stored_once_and_goes_with_its_last_holder() {
        let mut validators = Validators::new(key());
        let names: Vec<String> = (0..2_000).map(|at| format!("{at:0width$}", width = 4 + at % 60)).collect();
        let numbers: Vec<_> = names.iter().map(|name| validators.intern(name)).collect();
        for (name, number) in names.iter().zip(&numbers) {
            assert_eq!(validators.intern(name), *number);
            assert_eq!(validators.name(*number), name);
            validators.hold(*number);
            validators.hold(*number);
        }
        assert_eq!(validators.len(), 2_000);
        validators.release(numbers[7]);
        assert_eq!(validators.find(&names[7]), Some(numbers[7]));
        validators.release(numbers[7]);
        assert_eq!(validators.find(&names[7]), None);
        assert_eq!(validators.intern("another"), numbers[7], "the number is used again");
        assert!(validators.define_in(numbers[7], 5) && !validators.define_in(numbers[7], 5));
        validators.drop_unheld(numbers[7]);
        assert_eq!(validators.len(), 1_999);
    }

    #[test]
    fn sets_hold_their_members() {
        let mut validators = Validators::new(key());
        let mut sets = Sets::new(key());
        let far: Vec<_> = (0..5_000).map(|at| validators.intern(&format!("v{at}"))).collect();
        for spread in [1, 700] {
            let members: Vec<_> = far.iter().step_by(spread).take(7).copied().collect();
            let set = sets.add([spread as u8; 32], members.clone(), &mut validators);
            sets.hold(set);
            assert_eq!(sets.find(&[spread as u8; 32]), Some(set));
            for number in &far {
                assert_eq!(sets.get(set).contains(*number), members.contains(number));
            }
            assert!(sets.bytes() <= Set::bytes_max(7));
            let names: Vec<_> = members.iter().map(|member| validators.name(*member).to_owned()).collect();
            sets.release(set, &mut validators);
            assert_eq!((sets.len(), sets.bytes(), sets.find(&[spread as u8; 32])), (0, 0, None));
            assert!(names.iter().all(|name| validators.find(name).is_none()));
            (0..5_000).for_each(|at| _ = validators.intern(&format!("v{at}")));
        }
    }

    #[test]
    fn requesters_come_and_go() {
        let mut requesters = Requesters::new(key());
        let id = |at: u8| RequesterId([at; 16]);
        let numbers: Vec<_> = (0..100).map(|at| requesters.intern(&id(at))).collect();
        numbers.iter().for_each(|number| requesters.hold(*number));
        requesters.release(numbers[3]);
        assert_eq!(requesters.len(), 99);
        assert_eq!(requesters.intern(&id(200)), numbers[3]);
        assert_eq!(requesters.id(numbers[4]), id(4));
    }
}
