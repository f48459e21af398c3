//! The bytes: what is appended here is on disk before anybody hears of it, and is found again.

mod buffer;
mod posix;
mod storage;
mod uring;

pub use buffer::{AlignedBuf, BLOCK_BYTES, block_up};
pub use posix::{PosixFile, PosixStorage, PosixWriter};
pub use storage::{Entry, Locked, LogWriter, Storage, ready};
pub use uring::{GlommioStorage, GlommioWriter};
