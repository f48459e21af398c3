//! Where things are: from 64 bits of hash to a number. A table a partition, each growing on its
//! own, so that no growth moves more than a thousandth of what is known.
//!
//! A line is 64 bytes: eight tags (32 bits of the hash) and eight numbers, filled from the front.
//! An entry's home is the line at `tag * lines >> 32` (any count of lines will do, so a table
//! grows by half and stays at 58 to 87 % full); a full line overflows into the next. Homes rise
//! with tags, whatever the size: a scan that remembers a tag survives growth.
//! Tables are made of segments of 32 lines out of shared chunks: what one gives back, another
//! takes, and all of it lies under huge pages.

use super::memory::{Chunks, Plain};

const ENTRIES: usize = 8;
const SEGMENT_LINES: u32 = 32;
const NO_LINE: u32 = u32::MAX;

/// Numbers are stored plus one: 0 is an empty entry.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    tags: [u32; ENTRIES],
    numbers: [u32; ENTRIES],
}

const _: () = assert!(size_of::<Line>() == 64);
// Safety: integers, 64 bytes.
unsafe impl Plain for Line {}

impl Line {
    const EMPTY: Line = Line { tags: [0; ENTRIES], numbers: [0; ENTRIES] };

    fn filled(&self) -> usize {
        self.numbers.iter().filter(|number| **number != 0).count()
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.numbers[ENTRIES - 1] != 0
    }

    /// One bit an entry of this tag (empty ones may be among them).
    #[inline(always)]
    fn matches(&self, tag: u32) -> u32 {
        let mut mask = 0;
        for at in 0..ENTRIES {
            mask |= u32::from(self.tags[at] == tag) << at;
        }
        mask
    }
}

#[derive(Default)]
struct Table {
    segments: Vec<u32>,
    lines: u32,
    count: u32,
}

/// A place to look, found without touching the line itself.
#[derive(Clone, Copy)]
pub struct Place {
    line: u32,
    tag: u32,
}

impl Place {
    pub const NONE: Place = Place { line: NO_LINE, tag: 0 };
}

pub struct Index {
    lines: Chunks<Line>,
    segments_used: u32,
    segments_free: Vec<u32>,
    tables: Box<[Table]>,
    partition_bits: u32,
}

impl Index {
    /// 2^`partition_bits` tables, named by the top bits of the hash.
    pub fn new(partition_bits: u32) -> Index {
        assert!((1..=16).contains(&partition_bits));
        let tables = (0..1 << partition_bits).map(|_| Table::default()).collect();
        Index { lines: Chunks::hot(), segments_used: 0, segments_free: Vec::new(), tables, partition_bits }
    }

    #[inline(always)]
    fn split(&self, hash: u64) -> (usize, u32) {
        ((hash >> (64 - self.partition_bits)) as usize, (hash << self.partition_bits >> 32) as u32)
    }

    #[inline(always)]
    fn home(tag: u32, lines: u32) -> u32 {
        (u64::from(tag) * u64::from(lines) >> 32) as u32
    }

    /// The `line`-th line of a table, by its number in the chunks.
    #[inline(always)]
    fn place(table: &Table, line: u32) -> usize {
        (table.segments[(line / SEGMENT_LINES) as usize] * SEGMENT_LINES + line % SEGMENT_LINES) as usize
    }

    /// The first line to look at; [`Index::prefetch`] it, then [`Index::probe`].
    #[inline(always)]
    pub fn locate(&self, hash: u64) -> Place {
        let (partition, tag) = self.split(hash);
        let table = &self.tables[partition];
        if table.lines == 0 {
            return Place::NONE;
        }
        Place { line: Index::place(table, Index::home(tag, table.lines)) as u32, tag }
    }

    #[inline(always)]
    pub fn prefetch(&self, place: Place) {
        if place.line != NO_LINE {
            self.lines.prefetch(place.line as usize);
        }
    }

    /// The first number of this tag: most likely the right one, to be prefetched.
    #[inline(always)]
    pub fn probe(&self, place: Place, hash: u64) -> Option<u32> {
        if place.line == NO_LINE {
            return None;
        }
        let line = self.lines.get(place.line as usize);
        let mask = line.matches(place.tag);
        match mask {
            0 if line.is_full() => self.find_tag(hash),
            0 => None,
            _ => line.numbers[mask.trailing_zeros() as usize].checked_sub(1),
        }
    }

    /// One in fifty has left its home line.
    #[cold]
    fn find_tag(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The number under this hash that `is_it` knows.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (partition, tag) = self.split(hash);
        let table = &self.tables[partition];
        if table.lines == 0 {
            return None;
        }
        let mut at = Index::home(tag, table.lines);
        loop {
            let line = self.lines.get(Index::place(table, at));
            let mut mask = line.matches(tag);
            while mask != 0 {
                let number = line.numbers[mask.trailing_zeros() as usize];
                if number != 0 && is_it(number - 1) {
                    return Some(number - 1);
                }
                mask &= mask - 1;
            }
            if !line.is_full() {
                return None;
            }
            at = Index::next(at, table.lines);
        }
    }

    #[inline(always)]
    fn next(line: u32, lines: u32) -> u32 {
        if line + 1 == lines { 0 } else { line + 1 }
    }

    /// Adds a number that is not there yet.
    pub fn insert(&mut self, hash: u64, number: u32) {
        assert!(number < u32::MAX);
        let (partition, tag) = self.split(hash);
        let table = &self.tables[partition];
        // Seven of eight entries, at most: chains stay short, and one line is never full.
        if u64::from(table.count) * 8 >= u64::from(table.lines) * 7 * ENTRIES as u64 {
            self.grow(partition);
        }
        Index::put(&mut self.lines, &self.tables[partition], tag, number + 1);
        self.tables[partition].count += 1;
    }

    fn put(lines: &mut Chunks<Line>, table: &Table, tag: u32, stored: u32) {
        let mut at = Index::home(tag, table.lines);
        loop {
            let line = lines.get_mut(Index::place(table, at));
            if !line.is_full() {
                let entry = line.filled();
                line.tags[entry] = tag;
                line.numbers[entry] = stored;
                return;
            }
            at = Index::next(at, table.lines);
        }
    }

    fn grow(&mut self, partition: usize) {
        let old = std::mem::take(&mut self.tables[partition]);
        let segments = (old.segments.len() + 1).max(old.segments.len() * 3 / 2);
        let mut table = Table { segments: Vec::with_capacity(segments), lines: 0, count: old.count };
        for _ in 0..segments {
            let segment = self.take_segment();
            table.segments.push(segment);
        }
        table.lines = segments as u32 * SEGMENT_LINES;
        for at in 0..old.lines {
            let line = *self.lines.get(Index::place(&old, at));
            for entry in 0..line.filled() {
                Index::put(&mut self.lines, &table, line.tags[entry], line.numbers[entry]);
            }
        }
        self.segments_free.extend_from_slice(&old.segments);
        self.tables[partition] = table;
    }

    fn take_segment(&mut self) -> u32 {
        if let Some(segment) = self.segments_free.pop() {
            self.lines.slice_mut((segment * SEGMENT_LINES) as usize, SEGMENT_LINES as usize).fill(Line::EMPTY);
            return segment;
        }
        let segment = self.segments_used;
        self.segments_used += 1;
        self.lines.ensure((self.segments_used * SEGMENT_LINES) as usize);
        segment
    }

    /// Takes out a number that is there.
    pub fn remove(&mut self, hash: u64, number: u32) {
        let (partition, tag) = self.split(hash);
        let table = &self.tables[partition];
        let lines = table.lines;
        let mut hole = Index::home(tag, lines);
        let was_full = loop {
            let line = self.lines.get_mut(Index::place(table, hole));
            let full = line.is_full();
            if let Some(entry) = line.numbers.iter().position(|stored| *stored == number + 1) {
                Index::take_out(line, entry);
                break full;
            }
            assert!(full, "a number to remove is in the index");
            hole = Index::next(hole, lines);
        };
        // What overflowed past the hole comes back to it, or a later look would stop at the hole.
        let mut at = hole;
        let mut more = was_full;
        while more {
            at = Index::next(at, lines);
            let line = self.lines.get_mut(Index::place(table, at));
            more = line.is_full();
            let past = |from: u32, to: u32| (to + lines - from) % lines;
            let overflowed =
                (0..line.filled()).find(|entry| past(Index::home(line.tags[*entry], lines), at) >= past(hole, at));
            if let Some(entry) = overflowed {
                let (tag, stored) = (line.tags[entry], line.numbers[entry]);
                Index::take_out(line, entry);
                let target = self.lines.get_mut(Index::place(table, hole));
                let free = target.filled();
                target.tags[free] = tag;
                target.numbers[free] = stored;
                hole = at;
            }
        }
        self.tables[partition].count -= 1;
    }

    /// The last entry of the line takes the place of the one removed.
    fn take_out(line: &mut Line, entry: usize) {
        let last = line.filled() - 1;
        line.tags[entry] = line.tags[last];
        line.numbers[entry] = line.numbers[last];
        line.tags[last] = 0;
        line.numbers[last] = 0;
    }

    pub fn count(&self, partition: usize) -> usize {
        self.tables[partition].count as usize
    }

    /// Visits at least `max` numbers of a partition (a few more, to end at a line), behind the
    /// point where an earlier scan ended (0: the start). Returns where to go on, `None` at the end.
    /// Whatever is there throughout is visited exactly once, growth in between or not.
    pub fn scan(&self, partition: usize, from: u64, max: usize, mut visit: impl FnMut(u32)) -> Option<u64> {
        let table = &self.tables[partition];
        if table.lines == 0 || from >= 1 << 32 {
            return None;
        }
        let mut visited = 0;
        let start = Index::home(from as u32, table.lines);
        for home in start..table.lines {
            let mut at = home;
            loop {
                let line = self.lines.get(Index::place(table, at));
                for entry in 0..line.filled() {
                    let tag = line.tags[entry];
                    if Index::home(tag, table.lines) == home && u64::from(tag) >= from {
                        visit(line.numbers[entry] - 1);
                        visited += 1;
                    }
                }
                if !line.is_full() {
                    break;
                }
                at = Index::next(at, table.lines);
            }
            if visited >= max && home + 1 < table.lines {
                return Some((u64::from(home + 1) << 32).div_ceil(u64::from(table.lines)));
            }
        }
        None
    }

    pub fn bytes(&self) -> usize {
        self.lines.bytes() + self.tables.iter().map(|table| 32 + table.segments.capacity() * 4).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    /// A generator good enough for tests, with its seed in sight (splitmix64).
    struct Dice(u64);
    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ z >> 31
        }
    }

    #[test]
    fn finds_what_was_inserted_and_not_removed() {
        let mut dice = Dice(1);
        let mut index = Index::new(1);
        let mut model: HashMap<u32, u64> = HashMap::new();
        for number in 0..60_000u32 {
            // Hashes crowd in few homes: overflow, wrap-around and equal tags all happen.
            let hash = match number % 3 {
                0 => dice.roll(),
                1 => dice.roll() & 0x8000_0000_0000_FFFF | 0x7FFF_0000_0000_0000 * (dice.roll() & 1),
                _ => dice.roll() >> 12 << 42,
            };
            index.insert(hash, number);
            model.insert(number, hash);
            if dice.roll() % 3 == 0 {
                let victim = (dice.roll() % u64::from(number + 1)) as u32;
                if let Some(hash) = model.remove(&victim) {
                    index.remove(hash, victim);
                }
            }
        }
        for (number, hash) in &model {
            assert_eq!(index.find(*hash, |found| found == *number), Some(*number));
        }
        assert_eq!(index.count(0) + index.count(1), model.len());
        for number in 0..60_000 {
            if !model.contains_key(&number) {
                for partition in 0..2u64 {
                    let mut seen = false;
                    index.scan(partition as usize, 0, usize::MAX, |found| seen |= found == number);
                    assert!(!seen);
                }
                break;
            }
        }
        for (number, hash) in model.drain() {
            index.remove(hash, number);
        }
        assert_eq!(index.count(0) + index.count(1), 0);
    }

    #[test]
    fn a_scan_survives_growth() {
        let mut dice = Dice(2);
        let mut index = Index::new(1);
        let mut early = HashSet::new();
        for number in 0..5_000 {
            index.insert(dice.roll() >> 1, number);
            early.insert(number);
        }
        let mut seen = HashMap::new();
        let (mut from, mut next_number) = (0, 5_000);
        loop {
            let next = index.scan(0, from, 64, |number| *seen.entry(number).or_insert(0) += 1);
            for _ in 0..200 {
                index.insert(dice.roll() >> 1, next_number);
                next_number += 1;
            }
            match next {
                Some(next) => {
                    assert!(next > from);
                    from = next;
                }
                None => break,
            }
        }
        assert!(next_number > 10_000, "it grew meanwhile");
        assert!(early.iter().all(|number| seen.get(number) == Some(&1)));
        assert!(seen.values().all(|times| *times == 1));
    }

    #[test]
    fn stays_tight() {
        let mut dice = Dice(3);
        let mut index = Index::new(6);
        for number in 0..200_000 {
            index.insert(dice.roll(), number);
        }
        let slots: usize = index.tables.iter().map(|table| table.lines as usize * ENTRIES).sum();
        assert!(slots * 8 <= 200_000 * 14, "{slots} entries for 200,000");
    }
}
