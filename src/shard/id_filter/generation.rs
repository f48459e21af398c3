//! One generation of the filter: a Bloom filter in blocks of one cache line, so that an id costs one
//! miss whatever the size. Twelve bits an id and seven set in its line leave less than 1 % of false
//! positives when it is full (measured, in the tests). No id that was put in is ever denied.
//!
//! Lines lie in chunks of 256 KiB that come with their first id: nothing is allocated or cleared in
//! one piece that would stop a shard for a millisecond. One writer at a time (the filter's lock);
//! readers take no lock, and what they see of a generation that is being begun anew is explained in
//! `super`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Bits an id, when a generation is full.
const BITS_AN_ID: u64 = 12;
/// Bits that an id sets in its line, nine bits of hash each.
const BITS_SET: u32 = 7;
const WORDS: usize = 8;
pub(super) const LINE_BYTES: u64 = 64;
/// Lines of a chunk: 256 KiB.
pub(super) const CHUNK_LINES: u64 = 4_096;

/// 512 bits in one cache line.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

const _: () = assert!(size_of::<Line>() as u64 == LINE_BYTES);

struct Chunk {
    /// The generation that its bits are of; under any other number it reads as empty.
    of: AtomicU64,
    lines: Box<[Line]>,
}

pub(super) struct Generation {
    /// From 1; 0: not in use.
    pub number: AtomicU64,
    /// The latest time of a UUIDv7 in it, in milliseconds, plus one; 0: none is in it.
    pub latest: AtomicU64,
    /// Ids put in.
    pub ids: AtomicU64,
    lines: u64,
    chunks: Box<[OnceLock<Chunk>]>,
}

/// The line of a hash among so many, and the bits in it.
#[inline(always)]
fn place(hash: u64, lines: u64) -> (u64, u64) {
    let line = ((u128::from(hash) * u128::from(lines)) >> 64) as u64;
    // The line took the hash's top bits: these come from all of them (the finish of murmur3).
    let mut bits = (hash ^ hash >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    bits = (bits ^ bits >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    (line, bits ^ bits >> 33)
}

/// Word and mask of each bit that an id sets.
#[inline(always)]
fn bits_of(bits: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..BITS_SET).map(move |at| {
        let bit = bits >> (9 * at) & 511;
        ((bit >> 6) as usize, 1 << (bit & 63))
    })
}

const _: () = assert!(9 * BITS_SET <= 64);

impl Generation {
    /// Not in use, with room for this many lines.
    pub fn unused(lines: u64) -> Generation {
        let chunks = (0..lines.div_ceil(CHUNK_LINES)).map(|_| OnceLock::new()).collect();
        Generation { number: 0.into(), latest: 0.into(), ids: 0.into(), lines, chunks }
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Ids that it takes.
    pub fn ids_max(&self) -> u64 {
        (self.lines * LINE_BYTES * 8 / BITS_AN_ID).max(1)
    }

    pub fn is_full(&self) -> bool {
        self.ids.load(Ordering::Relaxed) >= self.ids_max()
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().filter_map(OnceLock::get).map(|chunk| chunk.lines.len() as u64 * LINE_BYTES).sum()
    }

    /// Whether an id of this hash, and of this time when it is a UUIDv7, may be in it.
    #[inline]
    pub fn holds(&self, hash: u64, time: Option<u64>) -> bool {
        let number = self.number.load(Ordering::Acquire);
        if number == 0 || time.is_some_and(|time| time >= self.latest.load(Ordering::Relaxed)) {
            return false;
        }
        let (line, bits) = place(hash, self.lines);
        let Some(chunk) = self.chunks[(line / CHUNK_LINES) as usize].get() else { return false };
        if chunk.of.load(Ordering::Acquire) != number {
            return false;
        }
        let Line(words) = &chunk.lines[(line % CHUNK_LINES) as usize];
        bits_of(bits).all(|(word, mask)| words[word].load(Ordering::Relaxed) & mask != 0)
    }

    /// Under the filter's lock. Answers whether a chunk had to be made ready for it.
    pub fn put(&self, hash: u64, time: Option<u64>) -> bool {
        if let Some(time) = time {
            // First, because it lets readers pass over the bits.
            self.latest.fetch_max(time + 1, Ordering::Relaxed);
        }
        let (line, bits) = place(hash, self.lines);
        let (chunk, made_ready) = self.chunk(line / CHUNK_LINES);
        let Line(words) = &chunk.lines[(line % CHUNK_LINES) as usize];
        let mut new = false;
        for (word, mask) in bits_of(bits) {
            new |= words[word].fetch_or(mask, Ordering::Relaxed) & mask == 0;
        }
        self.ids.fetch_add(u64::from(new), Ordering::Relaxed);
        made_ready
    }

    /// A chunk of this generation, cleared of an earlier one's bits; and whether that was to be done.
    fn chunk(&self, at: u64) -> (&Chunk, bool) {
        let number = self.number.load(Ordering::Relaxed);
        let lines = CHUNK_LINES.min(self.lines - at * CHUNK_LINES);
        let mut made_ready = false;
        let chunk = self.chunks[at as usize].get_or_init(|| {
            made_ready = true;
            Chunk { of: number.into(), lines: (0..lines).map(|_| Line::default()).collect() }
        });
        if chunk.of.load(Ordering::Relaxed) != number {
            made_ready = true;
            chunk.of.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            chunk.lines.iter().flat_map(|line| &line.0).for_each(|word| word.store(0, Ordering::Relaxed));
            chunk.of.store(number, Ordering::Release);
        }
        (chunk, made_ready)
    }

    /// Chunks with bits of this generation: number and bytes, little-endian words line by line.
    pub fn chunks<E>(&self, number: u64, mut each: impl FnMut(u32, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut bytes = Vec::new();
        for (at, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get().filter(|chunk| chunk.of.load(Ordering::Acquire) == number) else { continue };
            bytes.clear();
            for word in chunk.lines.iter().flat_map(|line| &line.0) {
                bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            each(at as u32, &bytes)?;
        }
        Ok(())
    }

    /// Takes a chunk back from bytes, before anybody reads; `None` when it is none of this generation's.
    pub fn restore(&self, at: u32, bytes: &[u8]) -> Option<()> {
        let (chunk, _) = ((at as usize) < self.chunks.len()).then(|| self.chunk(at.into()))?;
        let words = chunk.lines.iter().flat_map(|line| &line.0);
        if bytes.len() != chunk.lines.len() * LINE_BYTES as usize {
            return None;
        }
        for (word, bytes) in words.zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("eight bytes")), Ordering::Relaxed);
        }
        Some(())
    }
}
