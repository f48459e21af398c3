//! Memory in chunks of 2 MiB that never move: what grows by one chunk never stops a shard, and
//! numbers into it stay good. Huge pages under what votes touch, and under all that is large: a
//! vote reads three lines in three places, and a prefetch waits for the TLB like any other access.
//!
//! The first touch of a huge page clears it: 0.2 ms on bare metal, 1 ms on a virtual machine and
//! 5 ms where the host must find it first (measured). A [`Pool`] has chunks touched beforehand, by a
//! thread that is not a shard's.
//!
//! All the `unsafe` of this room is here: mapping, indexing within a chunk, the prefetch hint.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};

/// Also the size of a huge page on x86-64 and (4 KiB granule) AArch64.
pub const CHUNK_BYTES: usize = 2 << 20;

/// Values that may come into being as zeroed memory.
///
/// # Safety
/// All-zero bytes are a valid value, and the size divides [`CHUNK_BYTES`] as a power of two.
pub unsafe trait Plain: Copy {}

// Safety: integers.
unsafe impl Plain for u32 {}

/// 2 MiB of zeroed memory, aligned to its size.
struct Chunk(NonNull<u8>);

// Safety: a chunk owns its memory alone, like a Box<[u8]>.
unsafe impl Send for Chunk {}
// Safety: shared access only reads, like a Box<[u8]>.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn map(huge: bool) -> Chunk {
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

    /// Makes every page resident.
    fn touch(&mut self) {
        for page in (0..CHUNK_BYTES).step_by(4_096) {
            // Safety: within the chunk, which nobody else has; a volatile write of the zero that is there.
            unsafe { self.0.as_ptr().add(page).write_volatile(0) };
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Safety: the mapping of `map`, dropped once; what was in it is Plain and needs no dropping.
        unsafe { libc::munmap(self.0.as_ptr().cast(), CHUNK_BYTES) };
    }
}

/// Chunks made ready beforehand, so that an engine does not stop to clear them. Without a thread
/// that serves it a pool is empty, and engines map their chunks themselves.
pub struct Pool {
    spare: Mutex<Spare>,
    wanted: Condvar,
    target: usize,
}

struct Spare {
    chunks: Vec<Chunk>,
    closed: bool,
}

impl Pool {
    /// Keeps `target` chunks of 2 MiB ready; eight carry an engine through its busiest second.
    pub fn new(target: usize) -> Arc<Pool> {
        let spare = Mutex::new(Spare { chunks: Vec::with_capacity(target), closed: false });
        Arc::new(Pool { spare, wanted: Condvar::new(), target })
    }

    /// Fills the pool whenever it is not full, until it is closed: the body of a thread that is not a
    /// shard's. It sleeps while nothing is taken.
    pub fn serve(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        while !spare.closed {
            if spare.chunks.len() >= self.target {
                spare = self.wanted.wait(spare).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(spare);
            let mut chunk = Chunk::map(true);
            chunk.touch();
            spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.chunks.push(chunk);
        }
    }

    /// Ends [`Pool::serve`].
    pub fn close(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.wanted.notify_all();
    }

    /// Never waits: once in 2 MiB, and the other side holds the lock for a push.
    fn take(&self) -> Option<Chunk> {
        let chunk = match self.spare.try_lock() {
            Ok(mut spare) => spare.chunks.pop(),
            Err(TryLockError::Poisoned(spare)) => spare.into_inner().chunks.pop(),
            Err(TryLockError::WouldBlock) => None,
        };
        self.wanted.notify_one();
        chunk
    }
}

/// Which pages an array takes.
#[derive(Clone, Copy)]
pub enum Use {
    /// What every vote touches: huge ones from the first chunk on.
    Hot,
    /// The rest: huge ones behind the first chunk.
    Cold,
}

/// A growing array that never moves.
pub struct Chunks<T> {
    chunks: Vec<Chunk>,
    pool: Arc<Pool>,
    of: PhantomData<T>,
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

    pub fn new(use_of: Use, pool: &Arc<Pool>) -> Chunks<T> {
        let small = match use_of {
            Use::Hot => 0,
            Use::Cold => 1,
        };
        Chunks { chunks: Vec::new(), pool: pool.clone(), of: PhantomData, small }
    }

    /// Makes room for elements 0 to `length` - 1; new ones are zero.
    #[inline]
    pub fn ensure(&mut self, length: usize) {
        while self.chunks.len() * Self::PER_CHUNK < length {
            let huge = self.chunks.len() >= self.small;
            let ready = if huge { self.pool.take() } else { None };
            self.chunks.push(ready.unwrap_or_else(|| Chunk::map(huge)));
        }
    }

    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES
    }

    #[inline(always)]
    pub fn get(&self, at: usize) -> &T {
        let chunk = &self.chunks[at >> Self::SHIFT];
        // Safety: the masked offset lies within the chunk, which lives as long as self.
        unsafe { &*chunk.0.cast::<T>().as_ptr().add(at & Self::MASK) }
    }

    #[inline(always)]
    pub fn get_mut(&mut self, at: usize) -> &mut T {
        let chunk = &mut self.chunks[at >> Self::SHIFT];
        // Safety: as in `get`, and self is borrowed mutably.
        unsafe { &mut *chunk.0.cast::<T>().as_ptr().add(at & Self::MASK) }
    }

    /// `length` neighbours; they must lie within one chunk.
    #[inline(always)]
    pub fn slice(&self, at: usize, length: usize) -> &[T] {
        let chunk = &self.chunks[at >> Self::SHIFT];
        let offset = at & Self::MASK;
        assert!(offset + length <= Self::PER_CHUNK, "a slice lies within one chunk");
        // Safety: asserted to lie within the chunk, which lives as long as self.
        unsafe { std::slice::from_raw_parts(chunk.0.cast::<T>().as_ptr().add(offset), length) }
    }

    #[inline(always)]
    pub fn slice_mut(&mut self, at: usize, length: usize) -> &mut [T] {
        let chunk = &mut self.chunks[at >> Self::SHIFT];
        let offset = at & Self::MASK;
        assert!(offset + length <= Self::PER_CHUNK, "a slice lies within one chunk");
        // Safety: as in `slice`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(chunk.0.cast::<T>().as_ptr().add(offset), length) }
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
        let mut words = Chunks::<u32>::new(Use::Cold, &Pool::new(0));
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
    fn a_pool_has_chunks_ready_until_it_is_closed() {
        let pool = Pool::new(2);
        let server = std::thread::spawn({
            let pool = pool.clone();
            move || pool.serve()
        });
        let ready = || pool.spare.lock().expect("nobody panicked").chunks.len();
        while ready() < 2 {
            std::thread::yield_now();
        }
        let mut words = Chunks::<u32>::new(Use::Hot, &pool);
        words.ensure(1);
        assert_eq!(*words.get(0), 0);
        while ready() < 2 {
            std::thread::yield_now();
        }
        pool.close();
        server.join().expect("it ends");
        words.ensure(5 * Chunks::<u32>::PER_CHUNK);
        assert_eq!((ready(), words.bytes()), (0, 5 * CHUNK_BYTES), "an empty pool stops nobody");
    }

    #[test]
    #[should_panic(expected = "within one chunk")]
    fn a_slice_across_chunks_is_refused() {
        let mut words = Chunks::<u32>::new(Use::Cold, &Pool::new(0));
        words.ensure(2 * Chunks::<u32>::PER_CHUNK);
        words.slice(Chunks::<u32>::PER_CHUNK - 1, 2);
    }
}
