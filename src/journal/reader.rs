//! Reading a log that may be written at the same time: for followers that lag, for history, for dumps.
//!
//! A reader has no part in the log's marks: it is told up to where frames are durable, and looks at nothing behind
//! that. It reads a segment by a successor's word about where it ends, as recovery does. Blocking calls, on any
//! thread; each thread has a reader of its own.

use super::error::{Doing, Error};
use super::folder::log_dir;
use super::frame::{BatchView, FRAME_HEADER_BYTES, Frame, FrameView};
use super::meta::LogMeta;
use super::posix::PosixStorage;
use super::recovery::Position;
use super::segment::{Found, SegmentFile, SegmentScan, first_frame};
use super::storage::Storage;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes asked of the disk at once.
const AHEAD_BYTES: usize = 1 << 20;
/// Bytes asked at once where only headers are wanted, or one frame.
const HOP_BYTES: usize = 64 << 10;
/// An entry of a segment's index for each such stretch of the file.
const INDEX_EVERY_BYTES: u64 = 1 << 20;
/// Segments whose index is kept; at 256 entries of 32 bytes each that is 2 MiB.
const INDEXES_MAX: usize = 256;

/// Reads the frames of one log, in order from anywhere, or the batch of any one event.
pub struct LogReader<S: Storage = PosixStorage> {
    storage: S,
    dir: PathBuf,
    log: LogMeta,
    segments: Vec<Known>,
    at: Option<At<S>>,
    indexes: HashMap<u64, Index>,
    /// Rises with each use of an index; the least used is dropped.
    uses: u64,
}

/// A segment that has a frame.
#[derive(Clone)]
struct Known {
    file: SegmentFile,
    first: Frame,
}

/// Where reading in order stands.
struct At<S: Storage> {
    scan: SegmentScan<S>,
    index: usize,
    offset: u64,
    position: Position,
}

/// Places of frames in a segment, one in each stretch, in order.
struct Index {
    incarnation: u64,
    entries: Vec<(u64, u64, Position)>,
    used: u64,
}

impl LogReader<PosixStorage> {
    /// A reader of a log in the data folder `dir`, by plain calls.
    pub fn open(dir: &Path, log: &LogMeta) -> Result<LogReader, Error> {
        LogReader::open_on(PosixStorage, dir, log)
    }
}

impl<S: Storage> LogReader<S> {
    /// A reader of a log in the data folder `dir` on another disk.
    pub fn open_on(storage: S, dir: &Path, log: &LogMeta) -> Result<LogReader<S>, Error> {
        let dir = log_dir(dir, log.ordinal);
        let log = log.clone();
        let mut reader =
            LogReader { storage, dir, log, segments: Vec::new(), at: None, indexes: HashMap::new(), uses: 0 };
        reader.refresh()?;
        Ok(reader)
    }

    /// The oldest sequence held; 1 in a log that has no segment yet.
    pub fn oldest(&self) -> u64 {
        self.segments.first().map_or(1, |known| known.first.first_sequence)
    }

    /// First sequence and bytes of every segment that holds a frame, as they are now; the last is in use, and as
    /// long as it was made.
    pub fn segments(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        self.refresh()?;
        Ok(self.segments.iter().map(|known| (known.first.first_sequence, known.file.len)).collect())
    }

    /// Goes to `sequence`: the next frame read is the one that holds it (or, if it is not written yet, will). Its
    /// frame may begin with earlier events, which the caller skips.
    pub fn seek(&mut self, sequence: u64) -> Result<(), Error> {
        self.refresh()?;
        self.at = None;
        if self.segments.is_empty() && sequence <= 1 {
            return Ok(());
        }
        let index = self.segment_index(sequence)?;
        let (offset, position) = self.place_in(index, sequence)?;
        let scan = self.scan(index, AHEAD_BYTES)?;
        self.at = Some(At { scan, index, offset, position });
        Ok(())
    }

    /// The next frame, if its last event is at or before `durable_to`; None when that is all for now. Without a
    /// `seek` before, reading begins at the oldest frame. Frames without events come with those they precede.
    pub fn next(&mut self, durable_to: u64) -> Result<Option<FrameView<'_>>, Error> {
        let Some((frame, offset)) = self.advance(durable_to)? else { return Ok(None) };
        let at = self.at.as_ref().expect("advanced");
        // Checked a moment ago, and still in the window.
        let bytes = at.scan.checked_bytes(offset, frame.length as usize);
        Ok(Some(FrameView { frame, offset, bytes }))
    }

    /// Moves behind the next frame; gives its header and place.
    fn advance(&mut self, durable_to: u64) -> Result<Option<(Frame, u64)>, Error> {
        if self.at.is_none() {
            self.refresh()?;
            let Some(first) = self.segments.first().map(|known| known.first) else { return Ok(None) };
            let scan = self.scan(0, AHEAD_BYTES)?;
            self.at = Some(At { scan, index: 0, offset: 0, position: Position::before(&first) });
        }
        let mut looked_again = false;
        loop {
            let at = self.at.as_mut().expect("set above");
            if at.position.sequence >= durable_to {
                return Ok(None);
            }
            let successor = self.segments.get(at.index + 1).map(|known| known.first);
            if let Some(successor) = successor
                && at.position.number + 1 >= successor.number
            {
                if !at.position.is_followed_by(&successor) {
                    let what = "the next segment does not go on from the frame before this byte";
                    return Err(Error::damaged(&at.scan.file.path, at.offset, what));
                }
                let next = at.index + 1;
                self.enter(next)?;
                continue;
            }
            let offset = at.offset;
            let found = match at.scan.frame(offset)? {
                Found::Good(view) if at.position.is_followed_by(&view.frame) => Some(view.frame),
                _ => None,
            };
            let Some(frame) = found else {
                // What is durable is there: it must be in bytes that came after the window was read, or in the next
                // segment. If it is neither after a second look, something happened to the file.
                if looked_again {
                    return Err(self.lost(durable_to));
                }
                looked_again = true;
                at.scan.forget();
                self.refresh()?;
                continue;
            };
            if frame.last_sequence() > durable_to {
                return Ok(None);
            }
            at.offset += frame.bytes_on_disk();
            at.position = Position::at(&frame);
            return Ok(Some((frame, offset)));
        }
    }

    /// Ordinal of the segment that holds `sequence`.
    pub fn segment_of(&mut self, sequence: u64) -> Result<u64, Error> {
        self.refresh_for(sequence)?;
        let index = self.segment_index(sequence)?;
        Ok(self.segments[index].file.ordinal)
    }

    /// Hands every batch of a segment, from its start and up to the one that ends at or behind `through`, to
    /// `on_batch`: the way to the definitions that an event refers to. `through` must be durable.
    pub fn batches(
        &mut self,
        segment: u64,
        through: u64,
        mut on_batch: impl FnMut(BatchView<'_>),
    ) -> Result<(), Error> {
        self.refresh_for(through)?;
        let index = self.segments.iter().position(|known| known.file.ordinal == segment);
        let Some(index) = index else { return Err(self.no_longer_held()) };
        let until = self.segments.get(index + 1).map(|known| known.first.number);
        let mut position = Position::before(&self.segments[index].first);
        let mut scan = self.scan(index, AHEAD_BYTES)?;
        let mut offset = 0;
        while position.sequence < through && until.is_none_or(|until| position.number + 1 < until) {
            match scan.frame(offset)? {
                Found::Good(view) if position.is_followed_by(&view.frame) => {
                    for batch in view.batches() {
                        on_batch(batch);
                    }
                    offset += view.frame.bytes_on_disk();
                    position = Position::at(&view.frame);
                }
                _ => {
                    let what = "a frame that is durable is not whole";
                    return Err(Error::damaged(&scan.file.path, offset, what));
                }
            }
        }
        Ok(())
    }

    /// Hands the batch that holds the event `sequence`, which must be durable, to `on_batch`.
    pub fn batch_of<T>(&mut self, sequence: u64, on_batch: impl FnOnce(BatchView<'_>) -> T) -> Result<T, Error> {
        self.refresh_for(sequence)?;
        let index = self.segment_index(sequence)?;
        let (offset, _) = self.place_in(index, sequence)?;
        let mut scan = self.scan(index, HOP_BYTES)?;
        let path = scan.file.path.clone();
        if let Found::Good(view) = scan.frame(offset)?
            && let Some(batch) = view.batches().find(|batch| batch.last_sequence() >= sequence && batch.events > 0)
        {
            return Ok(on_batch(batch));
        }
        Err(Error::damaged(&path, offset, format!("the frame with sequence {sequence} is not whole")))
    }

    /// Lists the segments anew if `sequence` may be in one that came since, or if ours may be gone.
    fn refresh_for(&mut self, sequence: u64) -> Result<(), Error> {
        let last = self.segments.last().map_or(0, |known| known.first.first_sequence);
        if sequence >= last { self.refresh() } else { Ok(()) }
    }

    /// Looks which segments there are now. First frames that are known are not read again.
    fn refresh(&mut self) -> Result<(), Error> {
        let mut segments: Vec<Known> = Vec::new();
        for file in SegmentFile::list(&self.storage, &self.dir)? {
            let known = self.segments.iter().find(|known| known.file.incarnation == file.incarnation);
            let first = match known {
                Some(known) => Some(known.first),
                None => match first_frame(&self.storage, &file, self.log.id) {
                    // Taken back between the list and the look.
                    Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                    first => first?,
                },
            };
            segments.extend(first.map(|first| Known { file, first }));
        }
        if let Some(at) = &mut self.at {
            let incarnation = at.scan.file.incarnation;
            match segments.iter().position(|known| known.file.incarnation == incarnation) {
                Some(index) => at.index = index,
                None => {
                    self.segments = segments;
                    self.at = None;
                    return Err(self.no_longer_held());
                }
            }
        }
        self.segments = segments;
        Ok(())
    }

    fn no_longer_held(&self) -> Error {
        Error::NoLongerHeld { log: self.log.ordinal, oldest: self.oldest() }
    }

    /// Why a frame that is durable could not be found.
    fn lost(&self, durable_to: u64) -> Error {
        let at = self.at.as_ref().expect("reading");
        let what = format!("sequence {durable_to} is durable, and no whole frame follows {}", at.position.sequence);
        Error::damaged(&at.scan.file.path, at.offset, what)
    }

    fn segment_index(&self, sequence: u64) -> Result<usize, Error> {
        let index = self.segments.iter().rposition(|known| known.first.first_sequence <= sequence);
        index.ok_or_else(|| self.no_longer_held())
    }

    fn scan(&self, index: usize, ahead: usize) -> Result<SegmentScan<S>, Error> {
        let file = &self.segments[index].file;
        match SegmentScan::open(&self.storage, file, self.log.id, ahead) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.no_longer_held()),
            opened => opened.doing("open", &file.path),
        }
    }

    fn enter(&mut self, index: usize) -> Result<(), Error> {
        let position = self.at.as_ref().expect("reading").position;
        let scan = self.scan(index, AHEAD_BYTES)?;
        self.at = Some(At { scan, index, offset: 0, position });
        Ok(())
    }

    /// Where the frame that holds `sequence` begins in a segment (or where the next one will be), and what stands
    /// before it. Hops from header to header, from the nearest place that is known.
    fn place_in(&mut self, index: usize, sequence: u64) -> Result<(u64, Position), Error> {
        self.uses += 1;
        let Known { file, first } = self.segments[index].clone();
        let until = self.segments.get(index + 1).map(|known| known.first.number);
        if self.indexes.len() >= INDEXES_MAX && !self.indexes.contains_key(&file.ordinal) {
            let oldest = self.indexes.iter().min_by_key(|(_, index)| index.used).map(|(ordinal, _)| *ordinal);
            self.indexes.remove(&oldest.expect("there are many"));
        }
        let mut scan = self.scan(index, HOP_BYTES)?;
        let fresh = || Index {
            incarnation: file.incarnation,
            entries: vec![(first.first_sequence, 0, Position::before(&first))],
            used: 0,
        };
        let known = self.indexes.entry(file.ordinal).or_insert_with(fresh);
        if known.incarnation != file.incarnation {
            *known = fresh();
        }
        known.used = self.uses;
        let from = known.entries.partition_point(|(first, _, _)| *first <= sequence) - 1;
        let (_, mut offset, mut position) = known.entries[from];
        loop {
            if until.is_some_and(|until| position.number + 1 >= until) {
                return Ok((offset, position));
            }
            let Some(frame) = scan.header(offset)?.filter(|frame| position.is_followed_by(frame)) else {
                return Ok((offset, position));
            };
            let (_, last_offset, _) = *known.entries.last().expect("has the first frame");
            if offset >= last_offset + INDEX_EVERY_BYTES {
                known.entries.push((frame.first_sequence, offset, position));
            }
            if frame.events > 0 && frame.last_sequence() >= sequence {
                return Ok((offset, position));
            }
            if (frame.length as usize) < FRAME_HEADER_BYTES {
                return Ok((offset, position));
            }
            offset += frame.bytes_on_disk();
            position = Position::at(&frame);
        }
    }
}
