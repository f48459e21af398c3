//! A segment: one prepared file of frames. Its name says all that must be known before its first byte is read,
//! so that taking a file from the pool into a log, and back, is one rename and no write.
//!
//!     segment-<ordinal>-<bytes, hex>-<incarnation, hex>
//!
//! The incarnation is drawn anew at each rename; frames of an earlier life of the same blocks carry another one
//! and read as empty. The bytes are the size it was made with: a shorter file was cut by somebody else.

use super::buffer::{AlignedBuf, BLOCK_BYTES};
use super::error::{Doing, Error};
use super::frame::{FORMAT_VERSION, Frame, FrameView};
use super::storage::{Entry, Storage};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes asked of the disk at once when a segment is read in order.
pub(super) const WINDOW_BYTES: usize = 2 << 20;

/// A segment file as its name describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentFile {
    pub path: PathBuf,
    /// From 1 in its log, without gaps.
    pub ordinal: u64,
    /// Bytes it was made with.
    pub bytes: u64,
    pub incarnation: u64,
    /// Bytes it has now. A segment that has a successor may have been trimmed to its frames.
    pub len: u64,
}

impl SegmentFile {
    /// A new life for a file of `bytes` bytes, as segment `ordinal` of the log in `dir`.
    pub fn draw(dir: &Path, ordinal: u64, bytes: u64) -> SegmentFile {
        let incarnation = rand::random::<u64>();
        let path = dir.join(format!("segment-{ordinal:010}-{bytes:x}-{incarnation:016x}"));
        SegmentFile { path, ordinal, bytes, incarnation, len: bytes }
    }

    fn parse(entry: &Entry) -> Option<SegmentFile> {
        let mut parts = entry.name().strip_prefix("segment-")?.split('-');
        let ordinal = parts.next()?.parse().ok()?;
        let bytes = u64::from_str_radix(parts.next()?, 16).ok()?;
        let incarnation = u64::from_str_radix(parts.next()?, 16).ok()?;
        if parts.next().is_some() {
            return None;
        }
        Some(SegmentFile { path: entry.path.clone(), ordinal, bytes, incarnation, len: entry.bytes })
    }

    /// The segments of a log in order of their ordinals.
    pub fn list<S: Storage>(storage: &S, dir: &Path) -> Result<Vec<SegmentFile>, Error> {
        let entries = storage.list(dir).doing("list the segments in", dir)?;
        let mut files: Vec<SegmentFile> = entries.iter().filter_map(SegmentFile::parse).collect();
        files.sort_by_key(|file| file.ordinal);
        Ok(files)
    }
}

/// What lies at a place where a frame may start.
pub(super) enum Found<'a> {
    /// A whole frame of this log and this incarnation.
    Good(FrameView<'a>),
    /// A frame of this incarnation begins here, and is not whole.
    Torn,
    /// Nothing of this incarnation: zeros, or bytes of an earlier life.
    Empty,
}

/// A segment being read: a window over its bytes that moves forward, and frames borrowed from it.
pub(super) struct SegmentScan<S: Storage> {
    storage: S,
    opened: S::File,
    pub file: SegmentFile,
    log_id: u64,
    window: AlignedBuf,
    window_offset: u64,
    window_len: usize,
    /// Bytes asked at once.
    ahead: usize,
    pub bytes_read: u64,
}

impl<S: Storage> SegmentScan<S> {
    pub fn open(storage: &S, file: &SegmentFile, log_id: u64, ahead: usize) -> io::Result<SegmentScan<S>> {
        let opened = storage.open(&file.path)?;
        Ok(SegmentScan {
            storage: storage.clone(),
            opened,
            file: file.clone(),
            log_id,
            window: AlignedBuf::zeroed(ahead),
            window_offset: 0,
            window_len: 0,
            ahead,
            bytes_read: 0,
        })
    }

    /// Forgets the window: the file may have changed under it (a live log writes on).
    pub fn forget(&mut self) {
        self.window_len = 0;
    }

    /// The bytes from `offset` on: `want` of them, more if they are at hand, fewer only at the end of the file.
    fn bytes(&mut self, offset: u64, want: usize) -> Result<&[u8], Error> {
        let end = self.window_offset + self.window_len as u64;
        if offset < self.window_offset || offset > end {
            (self.window_offset, self.window_len) = (offset, 0);
        }
        let mut skip = (offset - self.window_offset) as usize;
        if self.window_len - skip < want {
            self.window.copy_within(skip..self.window_len, 0);
            self.window_len -= skip;
            (self.window_offset, skip) = (offset, 0);
            if self.window.len() < want {
                let mut larger = AlignedBuf::zeroed(want.max(self.ahead));
                larger[..self.window_len].copy_from_slice(&self.window[..self.window_len]);
                self.window = larger;
            }
            let full = self.window.len().min(want.max(self.ahead));
            let into = &mut self.window[self.window_len..full];
            let from = self.window_offset + self.window_len as u64;
            let read = self.storage.read_at(&self.opened, from, into).doing("read", &self.file.path)?;
            self.window_len += read;
            self.bytes_read += read as u64;
        }
        Ok(&self.window[skip..self.window_len])
    }

    /// The header at `offset`, if it is one of this log, this incarnation and this segment. Its checksum is not
    /// looked at, so it serves to find the way and to nothing else.
    pub fn header(&mut self, offset: u64) -> Result<Option<Frame>, Error> {
        let (log_id, incarnation, ordinal) = (self.log_id, self.file.incarnation, self.file.ordinal);
        let bytes = self.bytes(offset, BLOCK_BYTES)?;
        let frame = Frame::read(bytes);
        let ours =
            |frame: &Frame| frame.log_id == log_id && frame.incarnation == incarnation && frame.segment == ordinal;
        Ok(frame.filter(ours))
    }

    /// What lies at `offset`, checked.
    pub fn frame(&mut self, offset: u64) -> Result<Found<'_>, Error> {
        let Some(frame) = self.header(offset)? else { return Ok(Found::Empty) };
        let length = frame.length as usize;
        // A length that the file cannot hold is a torn header; it must not make us allocate for it.
        if length as u64 > self.file.len.saturating_sub(offset) {
            return Ok(Found::Torn);
        }
        let path = self.file.path.clone();
        let bytes = self.bytes(offset, length)?;
        if !frame.is_whole(bytes) {
            return Ok(Found::Torn);
        }
        if frame.version != FORMAT_VERSION {
            return Err(Error::WrongVersion { file: path, found: frame.version, supported: FORMAT_VERSION });
        }
        Ok(Found::Good(FrameView { frame, offset, bytes: &bytes[..length] }))
    }

    /// The bytes of a frame that was found good a moment ago, and are in the window for that.
    pub fn checked_bytes(&self, offset: u64, len: usize) -> &[u8] {
        let at = (offset - self.window_offset) as usize;
        &self.window[..self.window_len][at..at + len]
    }

    /// Tries every block boundary behind `offset` for a whole frame that knew frame `number` to be durable.
    pub fn knows_durable(&mut self, offset: u64, number: u64) -> Result<Option<u64>, Error> {
        let mut at = offset;
        while at < self.file.len {
            // The header is what is cheap to look at; a whole frame is checked only where one seems to be.
            if self.header(at)?.is_some_and(|frame| frame.durable_to >= number)
                && let Found::Good(_) = self.frame(at)?
            {
                return Ok(Some(at));
            }
            at += BLOCK_BYTES as u64;
        }
        Ok(None)
    }
}

/// The first frame of a segment, if it is whole.
pub(super) fn first_frame<S: Storage>(storage: &S, file: &SegmentFile, log_id: u64) -> Result<Option<Frame>, Error> {
    let mut scan = SegmentScan::open(storage, file, log_id, BLOCK_BYTES).doing("open", &file.path)?;
    match scan.frame(0)? {
        Found::Good(view) => Ok(Some(view.frame)),
        Found::Torn | Found::Empty => Ok(None),
    }
}
