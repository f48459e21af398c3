//! Who voted what, of one approval: exact up to 32,767 votes, and as small as the votes allow.
//!
//! | form | bytes | when |
//! |---|---|---|
//! | list | 4 a vote, scanned | up to 16 votes |
//! | hash | 4 a vote at 37 to 75 % full | more, of validators with far-apart numbers |
//! | bitmap | 2 bits a validator number | whenever it is no larger than the other two |
//!
//! An entry is `validator number << 2 | decision`. With 256 validators or fewer the bitmap is one
//! cache line. An approval that will need that line anyway (its Q votes as a list would not be
//! smaller) gets it with its first vote, and never moves again.

use super::blocks::{Block, Blocks};
use super::record::Hot;
use crate::model::{Decision, ValidatorRef};

const EMPTY: u8 = 0;
const LIST: u8 = 1;
const BITMAP: u8 = 2;
const HASH: u8 = 3;

const LIST_ENTRIES_MAX: usize = 16;
/// Room is made ahead of need up to one cache line.
const EAGER_CLASS_MAX: u8 = 2;
/// Validator numbers leave two bits for the decision.
pub const VALIDATORS_MAX: u32 = 1 << 30;

fn block(hot: &Hot) -> Block {
    Block { class: hot.votes_form >> 2, number: hot.votes }
}

fn set_block(hot: &mut Hot, form: u8, block: Block) {
    hot.votes_form = form | block.class << 2;
    hot.votes = block.number;
}

fn bitmap_class(validator: u32) -> u8 {
    Blocks::class_of(validator as usize / 4 + 1)
}

/// Where the search for a validator in a hash of so many words starts.
fn hash_start(validator: u32, words: usize) -> usize {
    // Fibonacci hashing: numbers are dense and handed out by this room, not chosen by clients.
    (validator.wrapping_mul(0x9E37_79B9) >> (32 - words.trailing_zeros())) as usize
}

#[inline(always)]
pub fn prefetch(blocks: &Blocks, hot: &Hot) {
    if hot.votes_form != EMPTY {
        blocks.prefetch(block(hot));
    }
}

/// The vote of this validator that stands.
#[inline(always)]
pub fn get(blocks: &Blocks, hot: &Hot, validator: ValidatorRef) -> Option<Decision> {
    let validator = validator.0;
    let entry = match hot.votes_form & 3 {
        EMPTY => 0,
        BITMAP => match blocks.words(block(hot)).get((validator / 16) as usize) {
            Some(word) => word >> (validator % 16 * 2) & 3,
            None => 0,
        },
        LIST => {
            let entries = &blocks.words(block(hot))[..hot.cast()];
            entries.iter().find(|entry| **entry >> 2 == validator).map_or(0, |entry| entry & 3)
        }
        _ => {
            let words = blocks.words(block(hot));
            let mut at = hash_start(validator, words.len());
            loop {
                let entry = words[at];
                if entry == 0 || entry >> 2 == validator {
                    break entry & 3;
                }
                at = (at + 1) & (words.len() - 1);
            }
        }
    };
    Decision::from_number(entry as u8)
}

/// Adds a first vote; the tally does not hold it yet. `validators` bounds the numbers in use.
#[inline(always)]
pub fn insert(blocks: &mut Blocks, hot: &mut Hot, validator: ValidatorRef, decision: Decision, validators: u32) {
    let validator = validator.0;
    if hot.votes_form & 3 == BITMAP {
        if let Some(word) = blocks.words_mut(block(hot)).get_mut((validator / 16) as usize) {
            *word |= (decision as u32) << (validator % 16 * 2);
            return;
        }
    }
    insert_slow(blocks, hot, validator << 2 | decision as u32, validators);
}

#[inline(never)]
fn insert_slow(blocks: &mut Blocks, hot: &mut Hot, entry: u32, validators: u32) {
    assert!(entry >> 2 < VALIDATORS_MAX && entry & 3 != 0);
    let count = hot.cast();
    match hot.votes_form & 3 {
        EMPTY => {
            let eager = bitmap_class(validators.saturating_sub(1).max(entry >> 2));
            if eager <= EAGER_CLASS_MAX && eager <= Blocks::class_of(4 * usize::from(hot.required)) {
                let taken = blocks.take(eager);
                set_block(hot, BITMAP, taken);
            } else if bitmap_class(entry >> 2) == 0 {
                let taken = blocks.take(0);
                set_block(hot, BITMAP, taken);
            } else {
                // Room for the votes that will come: a block outgrown is only of use to others.
                let likely = usize::from(hot.total.min(hot.required.saturating_add(1)));
                let taken = blocks.take(Blocks::class_of(4 * likely).min(EAGER_CLASS_MAX));
                set_block(hot, LIST, taken);
            }
            put(blocks.words_mut(block(hot)), hot.votes_form & 3, 0, entry);
        }
        LIST if count < Blocks::words_of(block(hot).class) => {
            put(blocks.words_mut(block(hot)), LIST, count, entry);
        }
        HASH if (count + 1) * 4 <= Blocks::words_of(block(hot).class) * 3 => {
            put(blocks.words_mut(block(hot)), HASH, count, entry);
        }
        _ => grow(blocks, hot, entry),
    }
}

/// Moves to the smallest form that holds one vote more.
fn grow(blocks: &mut Blocks, hot: &mut Hot, entry: u32) {
    let old = *hot;
    let count = old.cast() + 1;
    let mut highest = entry >> 2;
    for_each(blocks, &old, |validator, _| highest = highest.max(validator.0));
    let (other, other_class) = match count <= LIST_ENTRIES_MAX {
        true => (LIST, Blocks::class_of(4 * count)),
        false => (HASH, Blocks::class_of(4 * (4 * count).div_ceil(3))),
    };
    let bitmap = bitmap_class(highest);
    let (form, class) = if bitmap <= other_class { (BITMAP, bitmap) } else { (other, other_class) };
    let new = blocks.take(class);
    let mut at = 0;
    // The entries pass through a copy a piece at a time: two blocks of one class share a chunk.
    let old_words = Blocks::words_of(block(&old).class);
    let mut piece = [0u32; 64];
    for start in (0..old_words).step_by(piece.len()) {
        let length = piece.len().min(old_words - start);
        piece[..length].copy_from_slice(&blocks.words(block(&old))[start..start + length]);
        let words = blocks.words_mut(new);
        each_entry(old.votes_form & 3, start, &piece[..length], &mut |entry| {
            put(words, form, at, entry);
            at += 1;
        });
    }
    put(blocks.words_mut(new), form, at, entry);
    debug_assert_eq!(at + 1, count);
    blocks.give_back(block(&old));
    set_block(hot, form, new);
}

fn put(words: &mut [u32], form: u8, at: usize, entry: u32) {
    match form {
        LIST => words[at] = entry,
        BITMAP => words[(entry >> 6) as usize] |= (entry & 3) << ((entry >> 2) % 16 * 2),
        _ => {
            let mut at = hash_start(entry >> 2, words.len());
            while words[at] != 0 {
                at = (at + 1) & (words.len() - 1);
            }
            words[at] = entry;
        }
    }
}

/// Entries in a piece of a block that starts at word `start`. A list's free words are 0, as a hash's.
fn each_entry(form: u8, start: usize, words: &[u32], visit: &mut impl FnMut(u32)) {
    for (at, word) in words.iter().enumerate() {
        match form {
            BITMAP => {
                let mut rest = *word;
                while rest != 0 {
                    let pair = rest.trailing_zeros() / 2;
                    visit(((start + at) as u32 * 16 + pair) << 2 | rest >> (pair * 2) & 3);
                    rest &= !(3 << (pair * 2));
                }
            }
            _ if *word != 0 => visit(*word),
            _ => {}
        }
    }
}

/// Every vote, in no order.
pub fn for_each(blocks: &Blocks, hot: &Hot, mut visit: impl FnMut(ValidatorRef, Decision)) {
    if hot.votes_form == EMPTY {
        return;
    }
    each_entry(hot.votes_form & 3, 0, blocks.words(block(hot)), &mut |entry| {
        visit(ValidatorRef(entry >> 2), Decision::from_number(entry as u8 & 3).expect("entries hold a decision"));
    });
}

/// As they lie in memory, for a snapshot: whether a bitmap, and its words up to the last that is not 0.
pub fn words<'a>(blocks: &'a Blocks, hot: &Hot) -> (bool, &'a [u32]) {
    if hot.votes_form == EMPTY {
        return (false, &[]);
    }
    let words = blocks.words(block(hot));
    let length = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    (hot.votes_form & 3 == BITMAP, &words[..length])
}

/// Entries of words as [`words`] gives them.
pub fn entries(bitmap: bool, at: usize, word: u32, visit: &mut impl FnMut(u32)) {
    each_entry(if bitmap { BITMAP } else { LIST }, at, &[word], visit);
}

pub fn free(blocks: &mut Blocks, hot: &mut Hot) {
    if hot.votes_form != EMPTY {
        blocks.give_back(block(hot));
        hot.votes_form = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ApprovalId, ApprovalType, EventRef, Micros, Priority};
    use std::collections::BTreeMap;

    fn empty(required: u16) -> Hot {
        let quorum = (required, 32_767);
        let (kind, priority) = (ApprovalType::Other, Priority::Normal);
        Hot::opened(ApprovalId::default(), EventRef::NONE, Micros(0), quorum, kind, priority, 0, 0)
    }

    fn decision(of: u32) -> Decision {
        Decision::from_number((of % 3 + 1) as u8).expect("1 to 3")
    }

    /// Votes of `numbers`, checked against a map as they come; returns the forms passed through.
    fn check(required: u16, validators: u32, numbers: impl Iterator<Item = u32>) -> Vec<(u8, u8)> {
        let mut blocks = Blocks::new();
        let mut hot = empty(required);
        let mut model = BTreeMap::new();
        let mut forms = Vec::new();
        for number in numbers {
            assert_eq!(get(&blocks, &hot, ValidatorRef(number)), None);
            insert(&mut blocks, &mut hot, ValidatorRef(number), decision(number), validators);
            let mut tally = hot.tally();
            tally.approvals += 1;
            hot.set_tally(tally);
            model.insert(number, decision(number));
            if forms.last() != Some(&(hot.votes_form & 3, hot.votes_form >> 2)) {
                forms.push((hot.votes_form & 3, hot.votes_form >> 2));
                let mut seen = BTreeMap::new();
                for_each(&blocks, &hot, |validator, decision| {
                    assert!(seen.insert(validator.0, decision).is_none());
                });
                assert_eq!(seen, model);
            }
            assert_eq!(get(&blocks, &hot, ValidatorRef(number)), Some(decision(number)));
            assert_eq!(get(&blocks, &hot, ValidatorRef(number + 1)), model.get(&(number + 1)).copied());
        }
        for (number, decision) in &model {
            assert_eq!(get(&blocks, &hot, ValidatorRef(*number)), Some(*decision));
        }
        let (bitmap, words) = words(&blocks, &hot);
        let mut count = 0;
        words.iter().enumerate().for_each(|(at, word)| entries(bitmap, at, *word, &mut |_| count += 1));
        assert_eq!(count, model.len());
        free(&mut blocks, &mut hot);
        assert_eq!(get(&blocks, &hot, ValidatorRef(0)), None);
        forms
    }

    #[test]
    fn exact_for_dense_numbers_up_to_32_767() {
        // Two bits each all the way, from the first block to 8 KiB.
        let forms = check(1, 40_000, 0..32_767);
        assert_eq!(forms, (0..=9).map(|class| (BITMAP, class)).collect::<Vec<_>>());
    }

    #[test]
    fn exact_for_far_apart_numbers_up_to_32_767() {
        let step = (VALIDATORS_MAX - 1) / 32_767;
        let forms = check(32_767, VALIDATORS_MAX, (0..32_767).map(|at| VALIDATORS_MAX - 2 - at * step));
        let mut expected = vec![(LIST, 2)];
        // 17 votes need 23 words, that is 128 bytes; each class holds three quarters.
        expected.extend((3..=14).map(|class| (HASH, class)));
        assert_eq!(forms, expected);
    }

    #[test]
    fn moves_between_forms_as_the_numbers_ask() {
        // Sparse first, then dense below: list, hash, and a bitmap once it is no larger.
        let forms = check(3, 1 << 20, (0..20).map(|at| at * 400).chain((0..8_000).filter(|at| at % 400 != 0)));
        assert_eq!(forms[0], (BITMAP, 0));
        assert!(forms.contains(&(LIST, 1)) && forms.contains(&(HASH, 3)));
        assert_eq!(forms.last(), Some(&(BITMAP, 7)));
        // Dense first, then one far away: the bitmap gives way to a hash.
        let forms = check(300, 1 << 20, (0..60).chain([1 << 25]));
        assert_eq!(forms, [(BITMAP, 0), (HASH, 5)]);
    }

    #[test]
    fn two_hundred_and_fifty_six_validators_are_one_line_from_the_start() {
        assert_eq!(check(171, 256, (0..256).rev()), [(BITMAP, 2)]);
        // Where few votes will come, a list is smaller, and stays so.
        assert_eq!(check(4, 256, [250, 200, 100, 7, 9].into_iter()), [(LIST, 1)]);
        assert_eq!(check(3, 256, [250, 200, 100, 7, 9].into_iter()), [(LIST, 0), (LIST, 1)]);
        assert_eq!(check(4, 16, 0..5), [(BITMAP, 0)]);
    }
}
