//! Memory in chunks of 2 MiB that never move: what grows by one chunk never stops a shard, and
//! numbers into it stay good. Huge pages under what votes touch, and under all that is large: a
//! vote reads three lines in three places, and a prefetch waits for the TLB like any other access.
//!
//! All the `unsafe` of this room is here: mapping, indexing within a chunk, the prefetch hint.

use std::ptr::NonNull;

/// Also the size of a huge page on x86-64 and (4 KiB granule) AArch64.
pub const CHUNK_BYTES: usize = 2 << 20;

/// Values that may come into being as zeroed memory.
///
/// # Safety
/// All-zero bytes are a valid value, and the size divides [`CHUNK_BYTES`] as a power of two.
pub unsafe trait Plain: Copy {}

// Safety: integers.
unsafe impl Plain for u32 {}

/// 2 MiB of zeroed, aligned memory as an array of `T`.
struct Chunk<T>(NonNull<T>);

// Safety: a chunk owns its memory alone, like a Box<[T]>.
unsafe impl<T: Send> Send for Chunk<T> {}
// Safety: shared access only reads, like a Box<[T]>.
unsafe impl<T: Sync> Sync for Chunk<T> {}

impl<T: Plain> Chunk<T> {
    fn map(huge: bool) -> Chunk<T> {
        // Twice the size holds an aligned chunk; the rest goes back at once.
        // Safety: a fresh anonymous mapping, of which nothing is used before it is checked.
        let wide = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * CHUNK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        // As with any failed allocation in Rust: the process cannot go on.
        assert!(wide != libc::MAP_FAILED, "no memory for a chunk of {CHUNK_BYTES} bytes");
        let before = wide.align_offset(CHUNK_BYTES);
        let after = CHUNK_BYTES - before;
        // Safety: before + CHUNK_BYTES + after is the mapping made above; the ends are whole pages
        // (both addresses are) and never used again. Advice may be ignored, and changes no content.
        unsafe {
            let start = wide.byte_add(before);
            if before > 0 {
                libc::munmap(wide, before);
            }
            if after > 0 {
                libc::munmap(start.byte_add(CHUNK_BYTES), after);
            }
            if huge {
                libc::madvise(start, CHUNK_BYTES, libc::MADV_HUGEPAGE);
            }
            Chunk(NonNull::new_unchecked(start.cast()))
        }
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        // Safety: the mapping of `map`, dropped once; T is Plain, so nothing in it needs dropping.
        unsafe { libc::munmap(self.0.as_ptr().cast(), CHUNK_BYTES) };
    }
}

/// A growing array that never moves.
pub struct Chunks<T> {
    chunks: Vec<Chunk<T>>,
    /// So many chunks take small pages, as they are touched: a small node stays small.
    small: usize,
}

impl<T: Plain> Chunks<T> {
    /// Elements of a chunk.
    pub const PER_CHUNK: usize = {
        assert!(size_of::<T>().is_power_of_two() && size_of::<T>() <= CHUNK_BYTES);
        CHUNK_BYTES / size_of::<T>()
    };
    const SHIFT: u32 = Self::PER_CHUNK.trailing_zeros();
    const MASK: usize = Self::PER_CHUNK - 1;

    /// For what every vote touches: huge pages from the first chunk on.
    pub const fn hot() -> Chunks<T> {
        Chunks { chunks: Vec::new(), small: 0 }
    }

    /// For the rest: huge pages behind the first chunk.
    pub const fn cold() -> Chunks<T> {
        Chunks { chunks: Vec::new(), small: 1 }
    }

    /// Makes room for elements 0 to `length` - 1; new ones are zero.
    #[inline]
    pub fn ensure(&mut self, length: usize) {
        while self.chunks.len() * Self::PER_CHUNK < length {
            self.chunks.push(Chunk::map(self.chunks.len() >= self.small));
        }
    }

    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES
    }

    #[inline(always)]
    pub fn get(&self, at: usize) -> &T {
        let chunk = &self.chunks[at >> Self::SHIFT];
        // Safety: the masked offset lies within the chunk, which lives as long as self.
        unsafe { &*chunk.0.as_ptr().add(at & Self::MASK) }
    }

    #[inline(always)]
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        let chunk = &mut self.chunks[at >> Self::SHIFT];
        // Safety: as in `get`, and self is borrowed mutably.
        unsafe { &mut *chunk.0.as_ptr().add(at & Self::MASK) }
    }

    /// `length` neighbours; they must lie within one chunk.
    #[inline(always)]
    pub fn slice(&self, at: usize, length: usize) -> &[T] {
        let chunk = &self.chunks[at >> Self::SHIFT];
        let offset = at & Self::MASK;
        assert!(offset + length <= Self::PER_CHUNK, "a slice lies within one chunk");
        // Safety: asserted to lie within the chunk, which lives as long as self.
        unsafe { std::slice::from_raw_parts(chunk.0.as_ptr().add(offset), length) }
    }

    #[inline(always)]
    pub fn slice_mut(&mut self, at: usize, length: usize) -> &mut [T] {
        let chunk = &mut self.chunks[at >> Self::SHIFT];
        let offset = at & Self::MASK;
        assert!(offset + length <= Self::PER_CHUNK, "a slice lies within one chunk");
        // Safety: as in `slice`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(chunk.0.as_ptr().add(offset), length) }
    }

    #[inline(always)]
    pub fn prefetch(&self, at: usize) {
        prefetch(self.get(at));
    }
}

/// Asks for a line that will be needed soon.
#[inline(always)]
fn prefetch<T>(line: &T) {
    #[cfg(target_arch = "x86_64")]
    // Safety: a hint; it reads nothing as far as the program can tell, and any address is allowed.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Words as the bytes they are made of.
pub fn bytes_of(words: &[u32]) -> &[u8] {
    // Safety: any byte of a u32 is a valid u8, alignment only loosens, the length is the same in bytes.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Words as the bytes they are made of.
pub fn bytes_of_mut(words: &mut [u32]) -> &mut [u8] {
    // Safety: as in `bytes_of`; any four bytes are a valid u32.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_start_zeroed_and_stay_where_they_are() {
        let mut words = Chunks::<u32>::cold();
        let per = Chunks::<u32>::PER_CHUNK;
        words.ensure(1);
        *words.get_mut(per - 1) = 7;
        let address = std::ptr::from_ref(words.get(0)) as usize;
        assert_eq!(address % CHUNK_BYTES, 0, "aligned for huge pages");
        words.ensure(6 * per);
        assert_eq!(words.bytes(), 6 * CHUNK_BYTES);
        assert_eq!(std::ptr::from_ref(words.get(0)) as usize, address);
        assert_eq!(*words.get(per - 1), 7);
        assert_eq!(*words.get(6 * per - 1), 0);
        words.slice_mut(5 * per, 4).copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(bytes_of(words.slice(5 * per, 2)), 0x0000_0002_0000_0001u64.to_le_bytes());
    }

    #[test]
    #[should_panic(expected = "within one chunk")]
    fn a_slice_across_chunks_is_refused() {
        let mut words = Chunks::<u32>::cold();
        words.ensure(2 * Chunks::<u32>::PER_CHUNK);
        words.slice(Chunks::<u32>::PER_CHUNK - 1, 2);
    }
}
