//! The bytes: what is appended here is on disk before anybody hears of it, and is found again.
//!
//! The room knows nothing of votes: events are opaque bytes with a sequence, notes are opaque bytes without. It has
//! no runtime, but for the one storage that needs one. It imports no other room.
//!
//! ```text
//! Folder ── the lock, the meta file, generations of logs, prepared segments
//!   └─ Log ── appended by one thread: begin_batch, events, end_batch; begin_commit, finish_commit
//!        ├─ segment 1 │frame│frame│frame│…          LogReader reads them beside the writing
//!        ├─ segment 2 │frame│…│(zeros)              recover() reads them at start
//!        └─ snapshot                                SnapshotWriter writes it slice by slice
//! Storage ── the seam to the disk: plain calls, io_uring, or a disk of the tests that forgets
//! ```
//!
//! # The frame (format version 1, all numbers little-endian)
//!
//! One commit is one frame: one write, one checksum. It starts on a 4 KiB boundary of its segment.
//!
//! ```text
//!      0        4        8    10    12       16                24                32
//!      ├────────┼────────┼─────┼─────┼────────┼─────────────────┼─────────────────┤
//!      │checksum│ "asfr" │ ver │flags│ length │     log id      │   incarnation   │
//!   32 ├────────┴────────┼─────┴─────┴────────┼─────────────────┼────────┬────────┤
//!      │     segment     │    frame number    │ first sequence  │ events │batches │
//!   64 ├────────┬────────┼────────────────────┼─────────────────┴────────┴────────┤
//!      │previous│   0    │     durable to     │            0, for later           │
//!   96 ├────────┴────────┴────────────────────┴───────────────────────────────────┤
//!      │ batch │ batch │ …                                       zeros to 4 KiB   │
//!      └──────────────────────────────────────────────────────────────────────────┘
//!
//!      0  u32  checksum           crc32c of everything behind it, to `length`
//!      4   4   "asfr"
//!      8  u16  format version     1. These first 16 bytes keep their meaning in every version
//!     10  u16  flags              1 = cut, 2 = no batch before this frame in its segment
//!     12  u32  length             header and batches, without the padding
//!     16  u64  log id             random, 1 to 2^63 - 1
//!     24  u64  incarnation        of the segment file, as in its name: random, new with each life of the file
//!     32  u64  segment            ordinal in the log, from 1
//!     40  u64  frame number       in the log, from 1
//!     48  u64  first sequence     of the first event in it (if it has none: of the next event)
//!     56  u32  events
//!     60  u32  batches
//!     64  u32  previous checksum  of the frame before, across segments; 0 before the first
//!     68  u32  0
//!     72  u64  durable to         number of the last frame known to be durable when this one was written
//!     80  16   0                  for later
//!     96       batches, then zeros to the next 4 KiB boundary
//!
//!     batch
//!      0  u64  now                microseconds of UTC, the clock it was decided by
//!      8  u32  record bytes
//!     12  u32  events             notes are not counted
//!     16  u16  trace bytes
//!     18   6   0                  for later
//!     24       trace, then the records back to back: their owner's codec delimits them
//! ```
//!
//! # What rests on it
//!
//! - Bytes with another log id, incarnation or segment read as empty: files are used again without being erased.
//! - The first frame after a start is a **cut**: it is durable before anything is answered, and names (by first
//!   sequence, frame number and previous checksum) the last good frame. What else lies in the segment before is
//!   never read again, and its unused rest is given back to the disk.
//! - A segment with a successor ends where the successor's first frame says. The last one ends at its first bad
//!   frame: a **torn tail**, unless a whole frame of this incarnation behind it has a `durable to` that reaches the
//!   bad one's number. Then it is **damage**, and the folder is refused with file, offset and what to do.
//! - A last segment shorter than its name says, a gap in the ordinals, a log shorter than a snapshot or its seal
//!   knew, are damage too. (Cut at a frame's end, a file looks like a torn tail by its bytes: hence the size in
//!   the name.)
//! - A failed write or sync of a frame is final: the log refuses to go on, the node ends.
//! - Preparing that fails is no failed frame: see [`Room`].
//!
//! Snapshot layout: `snapshot.rs`. Meta layout: `meta.rs`. Segment names: `segment.rs`. What is assumed of a disk:
//! `storage.rs`.

mod buffer;
mod error;
mod folder;
mod frame;
mod log;
mod meta;
mod options;
mod pool;
mod posix;
mod reader;
mod recovery;
mod retention;
mod segment;
mod side;
mod snapshot;
mod storage;
mod uring;
mod verify;

pub use buffer::{AlignedBuf, BLOCK_BYTES, block_up};
pub use error::Error;
pub use folder::{Folder, PARTITIONS};
pub use frame::{
    BATCH_HEADER_BYTES, BatchView, Batches, FORMAT_VERSION, FRAME_HEADER_BYTES, Frame, FrameView, frame_batches,
};
pub use log::{Committed, Committing, Log, SEQUENCE_MAX};
pub use meta::{FolderMeta, GenerationMeta, LogMeta};
pub use options::Options;
pub use pool::Room;
pub use posix::{PosixFile, PosixStorage, PosixWriter};
pub use reader::LogReader;
pub use recovery::{Recovered, Replay, Torn, recover};
pub use retention::{Covered, release_before, release_covered};
pub use side::SideFiles;
pub use snapshot::{SLICE_BYTES_MAX, SliceView, SnapshotReader, SnapshotSummary, SnapshotWriter};
pub use storage::{Entry, Locked, LogWriter, Storage, ready};
pub use uring::{GlommioStorage, GlommioWriter};
pub use verify::{LogReport, Report, describe, verify, verify_on};
