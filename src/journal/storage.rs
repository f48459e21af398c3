//! The seam to the disk. Everything this room knows of a disk goes through these two traits, so that the same
//! journal runs on plain calls, on io_uring, and on a disk that forgets what was not synced (tests).
//!
//! What is assumed of a disk, and of nothing more:
//! - a write that was not synced may be there in part after a crash, in any mixture of its 512-byte sectors;
//! - a synced write is there, whole, until something damages it; damage is found by checksum;
//! - a name (create, rename, remove) is there after a crash only once its directory was synced; a rename is
//!   seen either wholly or not at all;
//! - after a failed sync nothing may be assumed about what it covered, so it is never tried twice.

use super::buffer::AlignedBuf;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A disk. Cold operations are plain blocking calls, made before a shard starts or on helper threads; the hot
/// write of a frame goes through a [`LogWriter`].
pub trait Storage: Clone + Send + Sync + 'static {
    /// An open segment, snapshot or meta file.
    type File: Send;
    /// What holds the lock of a folder; dropping it gives the folder free.
    type Lock: Send + Sync;
    /// The hot path's end, made for each log on the shard's own thread (it need not be `Send`).
    type Writer: LogWriter;

    /// Creates `path` (which must not exist) with `len` bytes of room that read as zeros, open for reading and
    /// writing. The room is taken now: a full disk answers here, not in the middle of a frame.
    fn create(&self, path: &Path, len: u64) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Bytes in the file.
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads at `offset` until `into` is full or the file ends; gives the bytes read.
    fn read_at(&self, file: &Self::File, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, past the end too.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes everything written to this file durable, its length included.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Renames, replacing what has the new name. Durable once both directories are synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Creates a directory and its parents; one that exists is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file of a folder for this process, or says who has it. `note` is written into the file.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Locked<Self::Lock>>;
    /// A writer for one log, made on the thread that will use it.
    fn writer(&self) -> io::Result<Self::Writer>;
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its full path.
    pub path: PathBuf,
    /// Bytes in it; 0 for a directory.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

impl Entry {
    /// The last part of the path; empty for names that are not UTF-8, which are never ours.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or("")
    }
}

/// What came of asking for a lock.
pub enum Locked<L> {
    /// It is ours until this is dropped.
    Held(L),
    /// Somebody else has it; this is the note they left.
    By(String),
}

/// The hot write of frames: one at a time, begun and then finished, so that the shard can decide the next batch
/// while one is on its way.
///
/// Every `begin` is followed by exactly one `finish`, awaited to its end, before the next `begin` or `open`.
#[allow(async_fn_in_trait)] // statically dispatched on the shard's own thread: no Send bound is wanted
pub trait LogWriter {
    /// Switches to this segment file, which exists with all its room.
    fn open(&mut self, path: &Path) -> io::Result<()>;
    /// Takes the first `len` bytes of `buf` (whole blocks) to be written at `offset` (on a block boundary).
    /// With `overlap` the write may go on elsewhere at once; without, it may wait for `finish`.
    fn begin(&mut self, offset: u64, buf: AlignedBuf, len: usize, overlap: bool);
    /// Whether `finish` has nothing to wait for from others. A write that only `finish` itself will do is "done"
    /// in this sense: there is no gain in doing other things first.
    fn is_done(&self) -> bool;
    /// Gives the buffer back and whether it is durable. An error is final: the journal never tries it again.
    async fn finish(&mut self) -> (AlignedBuf, io::Result<()>);
}

/// Runs a future that is ready when first polled: the writers that block in their one poll (plain calls, tests).
/// Panics if it is not, which says that an asynchronous writer was used outside its executor.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("this storage's writer needs its own executor"),
    }
}
