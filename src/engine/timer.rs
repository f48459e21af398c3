//! When approvals expire: a hierarchical wheel (Varghese and Lauck 1987), eleven levels of 64 slots,
//! the lowest of one microsecond, so that it is exact and needs no rounding. A record's links lie
//! beside it; entering and leaving cost the same however many are pending, and moving down a level
//! happens at most once a level, in slices as small as the caller likes.
//!
//! A record stands at the level of the highest six bits in which its time differs from `elapsed`.
//! Hence every slot's start lies at or behind `elapsed`'s own slot, and a slot that is being
//! emptied in slices stays the earliest of all until it is empty.

use super::memory::{Chunks, Plain, Pool, Use};
use std::sync::Arc;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 64usize.div_ceil(BITS as usize);
pub const NONE: u32 = u32::MAX;
/// In `previous`: the first of this slot's list.
const HEAD: u32 = 1 << 31;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Link {
    pub next: u32,
    pub previous: u32,
}

const _: () = assert!(size_of::<Link>() == 8);
// Safety: integers, 8 bytes.
unsafe impl Plain for Link {}

pub struct Timers {
    links: Chunks<Link>,
    heads: Box<[u32; LEVELS * SLOTS]>,
    occupied: [u64; LEVELS],
    /// Everything before this has been handed out, in microseconds.
    elapsed: u64,
    count: usize,
}

impl Timers {
    pub fn new(pool: &Arc<Pool>) -> Timers {
        let heads = Box::new([NONE; LEVELS * SLOTS]);
        Timers { links: Chunks::new(Use::Cold, pool), heads, occupied: [0; LEVELS], elapsed: 0, count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// A record that is not in the wheel may use its links for something else.
    pub fn links(&self) -> &Chunks<Link> {
        &self.links
    }

    pub fn links_mut(&mut self) -> &mut Chunks<Link> {
        &mut self.links
    }

    /// Enters a record that is not in the wheel.
    pub fn insert(&mut self, record: u32, expires_at: u64) {
        self.links.ensure(record as usize + 1);
        self.count += 1;
        self.link(record, expires_at);
    }

    fn link(&mut self, record: u32, expires_at: u64) {
        let when = expires_at.max(self.elapsed);
        let level = ((63 - (when ^ self.elapsed | 1).leading_zeros()) / BITS) as usize;
        let slot = (when >> (level as u32 * BITS)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let next = self.heads[place];
        *self.links.get_mut(record as usize) = Link { next, previous: HEAD | place as u32 };
        if next != NONE {
            self.links.get_mut(next as usize).previous = record;
        }
        self.heads[place] = record;
        self.occupied[level] |= 1 << slot;
    }

    /// Takes out a record that is in the wheel.
    pub fn remove(&mut self, record: u32) {
        self.count -= 1;
        self.unlink(record);
    }

    fn unlink(&mut self, record: u32) {
        let Link { next, previous } = *self.links.get(record as usize);
        if next != NONE {
            self.links.get_mut(next as usize).previous = previous;
        }
        if previous & HEAD == 0 {
            self.links.get_mut(previous as usize).next = next;
            return;
        }
        let place = (previous & !HEAD) as usize;
        debug_assert_eq!(self.heads[place], record);
        self.heads[place] = next;
        if next == NONE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }

    /// The earliest slot: (level, slot, its start). At equal starts the highest level, which holds
    /// what must still come down.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let mut best: Option<(usize, usize, u64)> = None;
        for level in 0..LEVELS {
            let occupied = self.occupied[level];
            if occupied == 0 {
                continue;
            }
            let shift = level as u32 * BITS;
            let current = (self.elapsed >> shift) as usize % SLOTS;
            let ahead = occupied.rotate_right(current as u32).trailing_zeros() as usize;
            let slot = current + ahead;
            debug_assert!(slot < SLOTS, "nothing lies behind the hand");
            let above = self.elapsed.checked_shr(shift + BITS).unwrap_or(0).checked_shl(shift + BITS).unwrap_or(0);
            let start = above | (slot as u64) << shift;
            if best.is_none_or(|(_, _, earliest)| start <= earliest) {
                best = Some((level, slot, start));
            }
        }
        best
    }

    /// When there is work again: never later than the first expiry; earlier when a slot must be
    /// moved down (a handful of times in an approval's life).
    pub fn next_deadline(&self) -> Option<u64> {
        self.earliest().map(|(_, _, start)| start)
    }

    /// Takes out records that expire at or before `now`, in no order, in at most `max` steps (a
    /// record taken out or moved down). There is more to do while the next deadline is not ahead.
    pub fn take_due(&mut self, now: u64, max: usize, expires_at: impl Fn(u32) -> u64, due: &mut Vec<u32>) {
        let mut steps = 0;
        loop {
            let Some((level, slot, start)) = self.earliest().filter(|(_, _, start)| *start <= now) else {
                self.elapsed = self.elapsed.max(now);
                return;
            };
            self.elapsed = self.elapsed.max(start);
            let width = 1u64 << (level as u32 * BITS);
            let all_due = start.saturating_add(width - 1) <= now;
            let place = level * SLOTS + slot;
            while self.heads[place] != NONE {
                if steps == max {
                    return;
                }
                steps += 1;
                let record = self.heads[place];
                self.unlink(record);
                match all_due || expires_at(record) <= now {
                    true => {
                        self.count -= 1;
                        due.push(record);
                    }
                    false => self.link(record, expires_at(record)),
                }
            }
        }
    }

    /// Moves the hand towards `now` as far as nothing is due (a replay knows the time only from
    /// its events): records that enter later then start at a low level.
    pub fn settle(&mut self, now: u64) {
        let free = self.earliest().map_or(now, |(_, _, start)| start.min(now));
        self.elapsed = self.elapsed.max(free);
    }

    pub fn bytes(&self) -> usize {
        self.links.bytes() + LEVELS * SLOTS * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        Turn(u64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let ahead = prop_oneof![0..100u64, 0..100_000u64, 0..3_000_000_000_000u64, Just(u64::MAX / 2)];
        let step = prop_oneof![
            4 => ahead.clone().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Remove),
            2 => (ahead, 1..20usize).prop_map(|(by, max)| Step::Turn(by % 4_000_000_000_000, max)),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn hands_out_exactly_what_is_due(start in prop_oneof![Just(0u64), Just(1_700_000_000_000_000)], steps in steps()) {
            let mut timers = Timers::new(&Pool::new(0));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let (mut now, mut next) = (start, 0u32);
            for step in steps {
                match step {
                    Step::Insert(ahead) => {
                        model.insert(next, now + ahead);
                        timers.insert(next, now + ahead);
                        next += 1;
                    }
                    Step::Remove(which) => {
                        if let Some(record) = model.keys().nth(which % model.len().max(1)).copied() {
                            model.remove(&record);
                            timers.remove(record);
                        }
                    }
                    Step::Turn(by, max) => {
                        now += by;
                        let mut turns = 0;
                        while timers.next_deadline().is_some_and(|deadline| deadline <= now) {
                            let mut due = Vec::new();
                            timers.take_due(now, max, |record| model[&record], &mut due);
                            prop_assert!(due.len() <= max);
                            for record in due {
                                let at = model.remove(&record);
                                prop_assert!(at.is_some_and(|at| at <= now), "{at:?} at {now}");
                            }
                            turns += 1;
                            prop_assert!(turns < 10_000, "it comes to an end");
                        }
                        prop_assert!(model.values().all(|at| *at > now));
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                if let Some(first) = model.values().min() {
                    prop_assert!(timers.next_deadline().is_some_and(|deadline| deadline <= *first));
                }
            }
        }
    }
}
