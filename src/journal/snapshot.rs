//! Snapshots: the state of a log in slices, each true at a sequence of its own.
//!
//!     file   snapshot-<number>                a header, slices, a footer; number from 1 in its log
//!
//!     header  0  u32  checksum                crc32c of the rest of the header
//!             4   4   "assn"
//!             8  u16  format version 1
//!            10  u16  0
//!            12  u32  0
//!            16  u64  log id
//!            24  u64  number
//!     slice   0  u32  checksum                crc32c of the rest of the slice, its bytes included
//!             4  u32  kind                    1 = slice, 2 = footer
//!             8  u32  key                     what it is the state of (the owner's word; 0 in the footer)
//!            12  u32  length                  of its bytes
//!            16  u64  sequence                true at this sequence (0 in the footer)
//!            24  bytes
//!     footer as a slice; its bytes: u64 slices, u64 bytes of the file before it, u64 smallest sequence,
//!             u64 largest sequence
//!
//! Files of the folder beside its logs (`side`) have the same layout, with another name and in place of the log's id
//! one of the folder's.
//!
//! A file under its final name was whole and durable when it got it. The newest sound one is used; the one before
//! is kept, because a disk that damaged one file may have spared the other.

use super::buffer::{AlignedBuf, BLOCK_BYTES};
use super::error::{Doing, Error};
use super::folder::{Folder, log_dir};
use super::frame::FORMAT_VERSION;
use super::meta::LogMeta;
use super::pool::{Shared, is_full, limit_reached};
use super::storage::Storage;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"assn";
/// What a log's snapshots are called.
pub(super) const SNAPSHOT: &str = "snapshot";
const HEADER_BYTES: usize = 32;
const SLICE_HEADER_BYTES: usize = 24;
const FOOTER_BYTES: usize = 32;
const KIND_SLICE: u32 = 1;
const KIND_FOOTER: u32 = 2;
/// One write. Large enough for the disk, small enough that a frame queued behind it waits 1 or 2 ms.
const CHUNK_BYTES: usize = 1 << 20;
/// Synced so often that no sync has much to do: a large one would hold up the frames of the same disk.
const SYNC_EVERY_BYTES: u64 = 8 << 20;
/// Bytes of one slice at most; a slice is read into memory whole.
pub const SLICE_BYTES_MAX: usize = 256 << 20;

/// One slice of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceView<'a> {
    /// What it is the state of.
    pub key: u32,
    /// The sequence at which it is true.
    pub sequence: u64,
    /// The state.
    pub bytes: &'a [u8],
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotSummary {
    /// Its number in the log.
    pub number: u64,
    /// Slices in it.
    pub slices: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The smallest sequence of its slices: replay starts behind it. 0 if there are none.
    pub smallest_sequence: u64,
    /// The largest: the journal was durable up to here.
    pub largest_sequence: u64,
}

/// Writes a snapshot by blocking calls, on a thread of its own. Dropped before `finish`, it leaves nothing.
pub struct SnapshotWriter<S: Storage> {
    shared: Arc<Shared<S>>,
    dir: PathBuf,
    prefix: &'static str,
    unfinished: PathBuf,
    file: S::File,
    chunk: AlignedBuf,
    chunk_len: usize,
    written: u64,
    synced: u64,
    /// Bytes that this writer has counted as used.
    counted: u64,
    summary: SnapshotSummary,
    finished: bool,
}

impl<S: Storage> SnapshotWriter<S> {
    /// Begins a snapshot of a log, which may be one of a generation that is only prepared.
    pub fn new(folder: &Folder<S>, log: &LogMeta) -> Result<SnapshotWriter<S>, Error> {
        let shared = folder.shared().clone();
        let dir = log_dir(folder.dir(), log.ordinal);
        let number = list(&shared.storage, &dir, SNAPSHOT)?.last().map_or(1, |(number, _, _)| number + 1);
        SnapshotWriter::begin(shared, dir, SNAPSHOT, number, log.id)
    }

    pub(super) fn begin(
        shared: Arc<Shared<S>>,
        dir: PathBuf,
        prefix: &'static str,
        number: u64,
        owner: u64,
    ) -> Result<SnapshotWriter<S>, Error> {
        let unfinished = dir.join(format!("{prefix}-{number:010}.tmp"));
        // One that was given up with the process; there is one writer a log.
        let _ = shared.storage.remove(&unfinished);
        let file = shared.storage.create(&unfinished, 0).doing("create", &unfinished)?;
        let mut writer = SnapshotWriter {
            shared,
            dir,
            prefix,
            unfinished,
            file,
            chunk: AlignedBuf::zeroed(CHUNK_BYTES),
            chunk_len: 0,
            written: 0,
            synced: 0,
            counted: 0,
            summary: SnapshotSummary { number, ..SnapshotSummary::default() },
            finished: false,
        };
        let mut header = [0; HEADER_BYTES];
        header[4..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&owner.to_le_bytes());
        header[24..32].copy_from_slice(&number.to_le_bytes());
        let checksum = crc32c::crc32c(&header[4..]);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds the state of `key` as it was at `sequence`. Write one for every key, the empty ones too: the snapshot's
    /// smallest sequence is where replay begins.
    pub fn slice(&mut self, key: u32, sequence: u64, bytes: &[u8]) -> Result<(), Error> {
        assert!(bytes.len() <= SLICE_BYTES_MAX, "the owner keeps slices small");
        let summary = &mut self.summary;
        summary.smallest_sequence =
            if summary.slices == 0 { sequence } else { summary.smallest_sequence.min(sequence) };
        summary.largest_sequence = summary.largest_sequence.max(sequence);
        summary.slices += 1;
        self.entry(KIND_SLICE, key, sequence, bytes)
    }

    /// The largest sequence of the slices so far: `finish` must wait until the log is durable to it.
    pub fn largest_sequence(&self) -> u64 {
        self.summary.largest_sequence
    }

    /// Makes the snapshot whole, durable and the newest of its log, then removes all older ones but one (of side
    /// files none: which are needed is their owner's to say).
    /// `durable` is the log's mark: a snapshot must never know more than the frames on disk.
    pub fn finish(mut self, durable: u64) -> Result<SnapshotSummary, Error> {
        assert!(self.summary.largest_sequence <= durable, "a snapshot holds only what is durable");
        let mut footer = [0; FOOTER_BYTES];
        footer[0..8].copy_from_slice(&self.summary.slices.to_le_bytes());
        footer[8..16].copy_from_slice(&(self.written + self.chunk_len as u64).to_le_bytes());
        footer[16..24].copy_from_slice(&self.summary.smallest_sequence.to_le_bytes());
        footer[24..32].copy_from_slice(&self.summary.largest_sequence.to_le_bytes());
        self.entry(KIND_FOOTER, 0, 0, &footer)?;
        self.flush()?;
        let storage = &self.shared.storage;
        storage.sync(&self.file).doing("sync", &self.unfinished)?;
        let path = self.dir.join(format!("{}-{:010}", self.prefix, self.summary.number));
        storage.rename(&self.unfinished, &path).doing("rename", &self.unfinished)?;
        self.finished = true;
        storage.sync_dir(&self.dir).doing("sync", &self.dir)?;
        self.summary.bytes = self.written;
        if self.prefix != SNAPSHOT {
            return Ok(self.summary);
        }
        self.shared.snapshot_is(self.written);
        let mut older = list(storage, &self.dir, SNAPSHOT)?;
        older.retain(|(number, _, _)| *number < self.summary.number);
        older.pop();
        for (_, path, bytes) in older {
            storage.remove(&path).doing("remove", &path)?;
            self.shared.used_less(bytes);
        }
        Ok(self.summary)
    }

    fn entry(&mut self, kind: u32, key: u32, sequence: u64, bytes: &[u8]) -> Result<(), Error> {
        let mut header = [0; SLICE_HEADER_BYTES];
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..12].copy_from_slice(&key.to_le_bytes());
        header[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[16..24].copy_from_slice(&sequence.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), bytes);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        self.put(&header)?;
        self.put(bytes)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let len = bytes.len().min(CHUNK_BYTES - self.chunk_len);
            self.chunk[self.chunk_len..self.chunk_len + len].copy_from_slice(&bytes[..len]);
            self.chunk_len += len;
            bytes = &bytes[len..];
            if self.chunk_len == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let len = std::mem::take(&mut self.chunk_len);
        let chunk = &self.chunk[..len];
        self.shared.take_room_for_snapshot(len as u64).doing("write", &self.unfinished)?;
        self.counted += len as u64;
        let storage = &self.shared.storage;
        match storage.write_at(&self.file, self.written, chunk) {
            // The reserve is there for this: the snapshot is what frees room.
            Err(error) if is_full(&error) && self.shared.give_up_reserve() => {
                storage.write_at(&self.file, self.written, chunk)
            }
            written => written,
        }
        .doing("write", &self.unfinished)?;
        self.written += len as u64;
        if self.written - self.synced >= SYNC_EVERY_BYTES {
            storage.sync(&self.file).doing("sync", &self.unfinished)?;
            self.synced = self.written;
        }
        Ok(())
    }
}

impl<S: Storage> Drop for SnapshotWriter<S> {
    fn drop(&mut self) {
        if !self.finished {
            // If even this fails, opening the folder removes it.
            let _ = self.shared.storage.remove(&self.unfinished);
            self.shared.used_less(self.counted);
        }
    }
}

impl<S: Storage> Shared<S> {
    fn take_room_for_snapshot(&self, bytes: u64) -> io::Result<()> {
        if !(self.has_room(bytes) || self.give_up_reserve() && self.has_room(bytes)) {
            return Err(limit_reached());
        }
        self.used_more(bytes);
        Ok(())
    }
}

/// The snapshots of a log (or the files of another prefix), oldest first: number, path, bytes.
pub(super) fn list<S: Storage>(storage: &S, dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf, u64)>, Error> {
    let entries = storage.list(dir).doing("list the snapshots in", dir)?;
    let mut found: Vec<(u64, PathBuf, u64)> = entries
        .into_iter()
        .filter_map(|entry| {
            let number = entry.name().strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()?;
            Some((number, entry.path, entry.bytes))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Bytes of the newest snapshot of a log; 0 if it has none, or no directory.
pub(super) fn newest_bytes<S: Storage>(storage: &S, dir: &Path) -> Result<u64, Error> {
    match storage.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        _ => Ok(list(storage, dir, SNAPSHOT)?.last().map_or(0, |(_, _, bytes)| *bytes)),
    }
}

/// Reads one snapshot. Opening verifies all of it, so that no half of a damaged one is ever handed out.
pub struct SnapshotReader<S: Storage> {
    scan: Scan<S>,
    summary: SnapshotSummary,
}

impl<S: Storage> SnapshotReader<S> {
    /// Opens and verifies the snapshot file at `path` of the log with this id.
    pub fn open(storage: &S, path: &Path, log_id: u64) -> Result<SnapshotReader<S>, Error> {
        let mut scan = Scan::open(storage, path)?;
        let number = scan.header(log_id)?;
        let mut seen = SnapshotSummary { number, ..SnapshotSummary::default() };
        let summary = loop {
            let before = scan.offset;
            let (kind, slice) = scan.entry()?;
            if kind == KIND_FOOTER {
                let word = |at: usize| u64::from_le_bytes(slice.bytes[at..at + 8].try_into().expect("eight bytes"));
                if slice.bytes.len() != FOOTER_BYTES
                    || (word(0), word(8), word(16), word(24))
                        != (seen.slices, before, seen.smallest_sequence, seen.largest_sequence)
                {
                    return Err(Error::damaged(path, before, "the footer does not match the slices"));
                }
                seen.bytes = scan.offset;
                break seen;
            }
            let smallest = if seen.slices == 0 { slice.sequence } else { seen.smallest_sequence.min(slice.sequence) };
            seen.smallest_sequence = smallest;
            seen.largest_sequence = seen.largest_sequence.max(slice.sequence);
            seen.slices += 1;
        };
        scan.rewind();
        Ok(SnapshotReader { scan, summary })
    }

    /// What it says of itself.
    pub fn summary(&self) -> SnapshotSummary {
        self.summary
    }

    /// The next slice; None at the end.
    pub fn next_slice(&mut self) -> Result<Option<SliceView<'_>>, Error> {
        let (kind, slice) = self.scan.entry()?;
        Ok((kind == KIND_SLICE).then_some(slice))
    }

    /// Where the slice last handed out begins, in bytes: for messages.
    pub fn entry_offset(&self) -> u64 {
        self.scan.entry_offset
    }
}

/// A snapshot file read in order.
struct Scan<S: Storage> {
    storage: S,
    path: PathBuf,
    file: S::File,
    len: u64,
    offset: u64,
    entry_offset: u64,
    window: Vec<u8>,
    window_offset: u64,
}

impl<S: Storage> Scan<S> {
    fn open(storage: &S, path: &Path) -> Result<Scan<S>, Error> {
        let file = storage.open(path).doing("open", path)?;
        let len = storage.len(&file).doing("read", path)?;
        Ok(Scan {
            storage: storage.clone(),
            path: path.to_path_buf(),
            file,
            len,
            offset: 0,
            entry_offset: 0,
            window: Vec::new(),
            window_offset: 0,
        })
    }

    fn rewind(&mut self) {
        self.offset = HEADER_BYTES as u64;
    }

    /// The next `len` bytes, or damage if the file ends before.
    fn take(&mut self, len: usize) -> Result<&[u8], Error> {
        if self.offset + len as u64 > self.len {
            return Err(Error::damaged(&self.path, self.offset, "the file ends in the middle of a slice"));
        }
        let in_window = self.offset >= self.window_offset
            && self.offset + len as u64 <= self.window_offset + self.window.len() as u64;
        if !in_window {
            let ahead = len.max(2 * CHUNK_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
            self.window.resize(ahead.min(self.len - self.offset) as usize, 0);
            self.window_offset = self.offset;
            let read = self.storage.read_at(&self.file, self.offset, &mut self.window).doing("read", &self.path)?;
            if read < self.window.len() {
                return Err(Error::damaged(&self.path, self.offset, "the file became shorter while it was read"));
            }
        }
        let at = (self.offset - self.window_offset) as usize;
        self.offset += len as u64;
        Ok(&self.window[at..at + len])
    }

    fn header(&mut self, log_id: u64) -> Result<u64, Error> {
        let path = self.path.clone();
        let header: [u8; HEADER_BYTES] = self.take(HEADER_BYTES)?.try_into().expect("the header's bytes");
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let checksum = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        if header[4..8] != MAGIC || crc32c::crc32c(&header[4..]) != checksum {
            return Err(Error::damaged(&path, 0, "this is not the beginning of a snapshot"));
        }
        let version = u16::from_le_bytes(header[8..10].try_into().expect("two bytes"));
        if version != FORMAT_VERSION {
            return Err(Error::WrongVersion { file: path, found: version, supported: FORMAT_VERSION });
        }
        if word(16) != log_id {
            return Err(Error::damaged(&path, 16, "it belongs to another log or folder"));
        }
        Ok(word(24))
    }

    fn entry(&mut self) -> Result<(u32, SliceView<'_>), Error> {
        let at = self.offset;
        self.entry_offset = at;
        let header: [u8; SLICE_HEADER_BYTES] = self.take(SLICE_HEADER_BYTES)?.try_into().expect("the header's bytes");
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let (checksum, kind, key, length) = (word(0), word(4), word(8), word(12) as usize);
        let sequence = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        let path = self.path.clone();
        // Checked before the bytes are read, so that a damaged length cannot make us allocate for it.
        if length > SLICE_BYTES_MAX || !matches!(kind, KIND_SLICE | KIND_FOOTER) {
            return Err(Error::damaged(&path, at, "the header of a slice makes no sense"));
        }
        let bytes = self.take(length)?;
        if crc32c::crc32c_append(crc32c::crc32c(&header[4..]), bytes) != checksum {
            return Err(Error::damaged(&path, at, "the checksum of a slice does not match"));
        }
        Ok((kind, SliceView { key, sequence, bytes }))
    }
}
