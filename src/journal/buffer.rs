//! Memory that O_DIRECT accepts: starts on a block boundary, has a length in whole blocks.
//!
//! The standard library has no safe way to ask for aligned bytes that may also be sliced, so the one type here
//! owns its allocation. Nothing else in the room touches raw memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The unit of the disk as this room sees it: frames start and end on it, direct writes are whole ones.
pub const BLOCK_BYTES: usize = 4096;

/// Rounds up to whole blocks.
pub const fn block_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// A zeroed byte buffer of fixed size, aligned to [`BLOCK_BYTES`]. Dereferences to `[u8]`.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its bytes alone, like a Box<[u8]>; nothing in it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference gives only `&[u8]`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes`, rounded up to whole blocks (at least one). Large ones come from the
    /// kernel untouched, so memory is used only as far as it is written.
    pub fn zeroed(bytes: usize) -> AlignedBuf {
        let layout = Self::layout(bytes.max(1).next_multiple_of(BLOCK_BYTES));
        // SAFETY: the layout has a size of at least one block, never zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        AlignedBuf { start, len: layout.size() }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK_BYTES).expect("a buffer is far smaller than the address space")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised (zeroed, then only overwritten) bytes that live as long as self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_whole_blocks() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buf = AlignedBuf::zeroed(bytes);
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buf.len() % BLOCK_BYTES, 0);
            assert!(buf.len() >= bytes);
            assert!(buf.iter().all(|byte| *byte == 0));
            buf[0] = 1;
        }
        assert_eq!(block_up(0), 0);
        assert_eq!(block_up(1), 4096);
        assert_eq!(block_up(8192), 8192);
    }
}
