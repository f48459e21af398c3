//! Small blocks of memory by number: 16, 32, 64, … bytes up to 256 KiB, each size in chunks of its
//! own, freed blocks in a list through their first word. Sets of votes, labels and names live here:
//! four bytes name a block, and nothing is allocated from the system for a vote.

use super::memory::Chunks;

/// Block sizes: 16 bytes times 2^class.
pub const CLASSES: usize = 15;
const WORDS_SHIFT: u32 = 2;

/// A block: its class is kept by whoever holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    pub class: u8,
    pub number: u32,
}

struct Class {
    words: Chunks<u32>,
    used: u32,
    /// First freed block plus one; 0: none.
    free: u32,
}

pub struct Blocks {
    classes: [Class; CLASSES],
}

impl Blocks {
    pub fn new() -> Blocks {
        Blocks { classes: std::array::from_fn(|_| Class { words: Chunks::hot(), used: 0, free: 0 }) }
    }

    /// The smallest class that holds so many bytes.
    pub const fn class_of(bytes: usize) -> u8 {
        let units = bytes.div_ceil(16);
        let class = if units <= 1 { 0 } else { usize::BITS - (units - 1).leading_zeros() };
        class as u8
    }

    pub const fn words_of(class: u8) -> usize {
        1 << (WORDS_SHIFT + class as u32)
    }

    /// A zeroed block.
    pub fn take(&mut self, class: u8) -> Block {
        let words = Blocks::words_of(class);
        let this = &mut self.classes[usize::from(class)];
        if this.free != 0 {
            let number = this.free - 1;
            let block = this.words.slice_mut(number as usize * words, words);
            this.free = block[0];
            block.fill(0);
            return Block { class, number };
        }
        let number = this.used;
        this.used += 1;
        this.words.ensure(this.used as usize * words);
        Block { class, number }
    }

    pub fn give_back(&mut self, block: Block) {
        let this = &mut self.classes[usize::from(block.class)];
        let words = Blocks::words_of(block.class);
        this.words.slice_mut(block.number as usize * words, words)[0] = this.free;
        this.free = block.number + 1;
    }

    #[inline(always)]
    pub fn words(&self, block: Block) -> &[u32] {
        let words = Blocks::words_of(block.class);
        self.classes[usize::from(block.class)].words.slice(block.number as usize * words, words)
    }

    #[inline(always)]
    pub fn words_mut(&mut self, block: Block) -> &mut [u32] {
        let words = Blocks::words_of(block.class);
        self.classes[usize::from(block.class)].words.slice_mut(block.number as usize * words, words)
    }

    #[inline(always)]
    pub fn prefetch(&self, block: Block) {
        let words = Blocks::words_of(block.class);
        self.classes[usize::from(block.class)].words.prefetch(block.number as usize * words);
    }

    pub fn bytes(&self) -> usize {
        self.classes.iter().map(|class| class.words.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_next_power_of_two() {
        let cases = [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (64, 2), (65, 3), (262_144, 14)];
        for (bytes, class) in cases {
            assert_eq!(Blocks::class_of(bytes), class, "{bytes} bytes");
        }
        assert_eq!(Blocks::words_of(14) * 4, 256 << 10);
    }

    #[test]
    fn a_freed_block_comes_back_zeroed() {
        let mut blocks = Blocks::new();
        let (a, b) = (blocks.take(1), blocks.take(1));
        blocks.words_mut(a).fill(9);
        blocks.words_mut(b).fill(8);
        blocks.give_back(a);
        blocks.give_back(b);
        assert_eq!(blocks.take(1), b);
        assert_eq!(blocks.take(1), a);
        assert!(blocks.words(a).iter().chain(blocks.words(b)).all(|word| *word == 0));
        assert_eq!(blocks.take(1).number, 2);
    }
}
