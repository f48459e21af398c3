//! The appending side of a log, owned by its shard's thread.
//!
//! Three buffers go round: one is built, one is on its way to the disk, one is the frame that was made durable
//! last and is being published. So the next batch is encoded straight into its frame while the one before syncs,
//! and nothing is copied or allocated a vote.
//! Marks: `durable <= appended`; what lies between is not yet anybody's business.

use super::buffer::{AlignedBuf, BLOCK_BYTES, block_up};
use super::error::{Doing, Error};
use super::folder::{Folder, log_dir};
use super::frame::{
    BATCH_HEADER_BYTES, FLAG_CUT, FLAG_SEGMENT_START, FORMAT_VERSION, FRAME_HEADER_BYTES, Frame, write_batch_header,
};
use super::meta::LogMeta;
use super::pool::{Room, Shared, Slot};
use super::recovery::Recovered;
use super::segment::SegmentFile;
use super::storage::{LogWriter, Storage};
use std::sync::Arc;

/// Sequences have 48 bits: references to events are packed with the log's ordinal into one u64.
pub const SEQUENCE_MAX: u64 = (1 << 48) - 1;

/// A commit that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committing {
    /// The first event in it.
    pub first_sequence: u64,
    /// The last event in it; before the first if it holds notes only.
    pub last_sequence: u64,
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The first event in it.
    pub first_sequence: u64,
    /// The last event in it; before the first if it holds notes only.
    pub last_sequence: u64,
    /// Ordinal of the segment it lies in.
    pub segment: u64,
    /// Where in that segment, in bytes.
    pub offset: u64,
    /// Bytes of the frame on disk, padding included.
    pub bytes: u64,
}

/// The appending side of a log.
///
/// A batch is begun, gets events and notes, and ends; several may share a frame. A commit writes the frame.
/// One commit at a time: `begin_commit`, then `finish_commit` awaited to its end. Batches may be appended between.
pub struct Log<S: Storage> {
    building: AlignedBuf,
    /// Where the next record goes; 0 while no frame is begun.
    at: usize,
    /// Where records must end; 0 while no batch is open, so that one comparison guards both.
    limit: usize,
    appended: u64,
    batch: Batch,
    batches: u32,
    /// Where the next frame will go.
    next: Place,

    durable: u64,
    in_flight: Option<InFlight>,
    /// Preparing the commit failed; `finish_commit` says so.
    failed: Option<Error>,
    spare: Option<AlignedBuf>,
    committed: AlignedBuf,
    committed_len: usize,

    /// The frame sealed last.
    number: u64,
    checksum: u32,
    durable_number: u64,
    built_first_sequence: u64,

    active: SegmentFile,
    /// Bytes of the active segment that are taken.
    taken: u64,
    /// Whether a batch is in the active segment.
    started: bool,
    writer: S::Writer,
    slot: Arc<Slot>,
    shared: Arc<Shared<S>>,
    folder: Folder<S>,
    meta: LogMeta,
}

#[derive(Clone, Copy, Default)]
struct Batch {
    at: usize,
    records_at: usize,
    first_appended: u64,
    notes: bool,
    trace_bytes: u16,
    now_micros: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u64,
    rolls: bool,
}

struct InFlight {
    frame: Frame,
    offset: u64,
    /// Whether the writer has it (else preparing it failed).
    begun: bool,
}

impl<S: Storage> Log<S> {
    /// Goes on with a recovered log in a new segment, whose first frame is the cut: it names the last good sequence
    /// and checksum, and is durable when this returns. Blocking calls; `writer` is made on the thread that will use
    /// it.
    pub fn start(folder: &Folder<S>, log: &LogMeta, recovered: &Recovered, writer: S::Writer) -> Result<Log<S>, Error> {
        let shared = folder.shared().clone();
        let dir = log_dir(folder.dir(), log.ordinal);
        let active = shared.take_or_make(&dir, recovered.next_segment, true)?;
        let frame_bytes_max = shared.options.frame_bytes_max;
        let slot = shared.register(dir, recovered.next_segment + 1);
        let mut log = Log {
            building: AlignedBuf::zeroed(frame_bytes_max),
            at: 0,
            limit: 0,
            appended: recovered.last_sequence,
            batch: Batch::default(),
            batches: 0,
            next: Place { segment: active.ordinal, rolls: false },
            durable: recovered.last_sequence,
            in_flight: None,
            failed: None,
            spare: Some(AlignedBuf::zeroed(frame_bytes_max)),
            committed: AlignedBuf::zeroed(frame_bytes_max),
            committed_len: 0,
            number: recovered.last_frame,
            checksum: recovered.last_checksum,
            durable_number: recovered.last_frame,
            built_first_sequence: recovered.last_sequence + 1,
            active,
            taken: 0,
            started: false,
            writer,
            slot,
            shared,
            folder: folder.clone(),
            meta: log.clone(),
        };
        log.cut()?;
        log.writer.open(&log.active.path).doing("open", &log.active.path)?;
        recovered.trim_last_segment(&log.shared)?;
        Ok(log)
    }

    /// Writes the first frame of this start and waits for it, by cold calls: the executor may not run yet.
    fn cut(&mut self) -> Result<(), Error> {
        self.at = FRAME_HEADER_BYTES;
        let frame = self.seal(FLAG_CUT | FLAG_SEGMENT_START);
        let bytes = &self.building[..frame.bytes_on_disk() as usize];
        let path = &self.active.path;
        let file = self.shared.storage.open(path).doing("open", path)?;
        self.shared.storage.write_at(&file, 0, bytes).doing("write the first frame to", path)?;
        self.shared.storage.sync(&file).doing("sync", path)?;
        self.durable_number = frame.number;
        self.taken = frame.bytes_on_disk();
        self.reset_building();
        Ok(())
    }

    /// Ordinal of the segment in which the frame under construction will land. It is settled before the frame's
    /// first batch is begun, and changes only in `begin_commit`.
    #[inline]
    pub fn segment(&self) -> u64 {
        self.next.segment
    }

    /// Bytes that records of the open batch (or of a next one, without its trace) may still take in this frame.
    #[inline]
    pub fn room_in_frame(&self) -> usize {
        if self.limit > 0 {
            return self.limit - self.at;
        }
        self.building.len().saturating_sub(self.at.max(FRAME_HEADER_BYTES) + BATCH_HEADER_BYTES)
    }

    /// Bytes that the records of one batch can take at most: those of a frame of its own.
    #[inline]
    pub fn batch_bytes_max(&self) -> usize {
        self.building.len() - FRAME_HEADER_BYTES - BATCH_HEADER_BYTES
    }

    /// Bytes of the frame under construction; 0 if there is nothing to commit.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.at
    }

    /// The sequence of the last event appended.
    #[inline]
    pub fn last_appended(&self) -> u64 {
        self.appended
    }

    /// The sequence of the last event that is durable.
    #[inline]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Begins a batch decided at this time (microseconds of UTC), with a trace context that may be empty. The
    /// caller has looked at `room_in_frame`: what does not fit is a broken invariant.
    pub fn begin_batch(&mut self, now_micros: u64, trace: &[u8]) {
        assert_eq!(self.limit, 0, "the batch before has ended");
        let at = self.at.max(FRAME_HEADER_BYTES);
        let records_at = at + BATCH_HEADER_BYTES + trace.len();
        assert!(records_at <= self.building.len(), "a batch is begun where it has room");
        let trace_bytes = u16::try_from(trace.len()).expect("a trace context is short");
        self.building[at + BATCH_HEADER_BYTES..records_at].copy_from_slice(trace);
        self.batch = Batch { at, records_at, first_appended: self.appended, notes: false, trace_bytes, now_micros };
        self.at = records_at;
        self.limit = self.building.len();
    }

    /// Room for a record of at most `max_len` bytes, straight in the frame. Follow with `commit_event` or
    /// `commit_note`, or leave it: what is not committed is written over.
    #[inline(always)]
    pub fn event_buffer(&mut self, max_len: usize) -> &mut [u8] {
        let end = self.at + max_len;
        assert!(end <= self.limit, "a batch is open and has room");
        &mut self.building[self.at..end]
    }

    /// The first `len` bytes of the event buffer are an event; gives its sequence.
    #[inline(always)]
    pub fn commit_event(&mut self, len: usize) -> u64 {
        self.at += len;
        debug_assert!(self.at <= self.limit, "an event ends in its buffer");
        self.appended += 1;
        self.appended
    }

    /// The first `len` bytes of the event buffer are a note: a record without a sequence.
    #[inline(always)]
    pub fn commit_note(&mut self, len: usize) {
        self.at += len;
        debug_assert!(self.at <= self.limit, "a note ends in its buffer");
        self.batch.notes = true;
    }

    /// Appends an event; gives its sequence.
    #[inline]
    pub fn append_event(&mut self, bytes: &[u8]) -> u64 {
        self.event_buffer(bytes.len()).copy_from_slice(bytes);
        self.commit_event(bytes.len())
    }

    /// Appends a record without a sequence (a definition).
    #[inline]
    pub fn append_note(&mut self, bytes: &[u8]) {
        self.event_buffer(bytes.len()).copy_from_slice(bytes);
        self.commit_note(bytes.len());
    }

    /// Ends the open batch. One without events and notes leaves nothing.
    pub fn end_batch(&mut self) {
        assert!(self.limit > 0, "a batch is open");
        assert!(self.at <= self.limit, "records end in the frame");
        self.limit = 0;
        let batch = self.batch;
        let events = (self.appended - batch.first_appended) as u32;
        if events == 0 && !batch.notes {
            self.at = if self.batches == 0 { 0 } else { batch.at };
            return;
        }
        let record_bytes = (self.at - batch.records_at) as u32;
        let header = &mut self.building[batch.at..batch.records_at];
        write_batch_header(header, batch.now_micros, record_bytes, events, batch.trace_bytes);
        self.batches += 1;
    }

    /// If something is pending and no commit is under way: seals the frame and begins its write. What goes wrong
    /// here is said by `finish_commit`. With `overlap` the write goes on by itself where the storage can do that.
    pub fn begin_commit(&mut self, overlap: bool) -> Option<Committing> {
        assert_eq!(self.limit, 0, "the batch has ended");
        assert!(self.failed.is_none(), "a log that failed is not written again");
        if self.at == 0 || self.in_flight.is_some() {
            return None;
        }
        if self.next.rolls
            && let Err(error) = self.roll()
        {
            self.failed = Some(error);
        }
        let flags = if self.started { 0 } else { FLAG_SEGMENT_START };
        let frame = self.seal(flags);
        assert!(frame.last_sequence() <= SEQUENCE_MAX, "sequences have 48 bits");
        assert_eq!(frame.last_sequence(), self.appended, "a frame holds all that was appended");
        let offset = self.taken;
        let begun = self.failed.is_none();
        if begun {
            self.started = true;
            self.taken += frame.bytes_on_disk();
            assert!(self.taken <= self.active.bytes, "a frame fits its segment");
            let spare = self.spare.take().expect("with no commit under way one buffer is free");
            let full = std::mem::replace(&mut self.building, spare);
            self.writer.begin(offset, full, frame.bytes_on_disk() as usize, overlap);
        }
        self.reset_building();
        self.in_flight = Some(InFlight { frame, offset, begun });
        Some(Committing { first_sequence: frame.first_sequence, last_sequence: frame.last_sequence() })
    }

    /// Whether `finish_commit` would wait for nobody else. True as well when no commit is under way.
    #[inline]
    pub fn commit_done(&self) -> bool {
        self.in_flight.as_ref().is_none_or(|in_flight| !in_flight.begun || self.writer.is_done())
    }

    /// Whether a commit is under way.
    #[inline]
    pub fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Waits until the commit under way is durable. Must be awaited to its end. An error ends the node: the log
    /// refuses everything after it, because what a failed sync left on disk is unknown.
    pub async fn finish_commit(&mut self) -> Result<Committed, Error> {
        let InFlight { frame, offset, begun } = self.in_flight.take().expect("a commit is under way");
        if !begun {
            // Kept, so that the log stays refused.
            let failed = self.failed.replace(Error::Options("this log has failed before".into()));
            return Err(failed.expect("what was not begun has failed"));
        }
        let (buf, result) = self.writer.finish().await;
        self.spare = Some(std::mem::replace(&mut self.committed, buf));
        if let Err(source) = result {
            self.committed_len = 0;
            self.failed = Some(Error::Options("this log has failed before".into()));
            let (file, bytes) = (self.active.path.clone(), frame.bytes_on_disk());
            return Err(Error::FrameFailed { file, offset, bytes, source });
        }
        self.committed_len = frame.length as usize;
        assert!(self.durable <= frame.last_sequence(), "durable only grows");
        self.durable = frame.last_sequence();
        assert!(self.durable <= self.appended, "nothing is durable that was not appended");
        self.durable_number = frame.number;
        Ok(Committed {
            first_sequence: frame.first_sequence,
            last_sequence: frame.last_sequence(),
            segment: frame.segment,
            offset,
            bytes: frame.bytes_on_disk(),
        })
    }

    /// The frame made durable last, header first (`frame_batches` iterates over it): for publishing to followers.
    /// Stays until the next `finish_commit`.
    pub fn committed_frame(&self) -> &[u8] {
        &self.committed[..self.committed_len]
    }

    /// Whether there is room for more. Cheap while there is.
    #[inline]
    pub fn room(&self) -> Room {
        if self.shared.is_short() { self.room_when_short() } else { Room::Ok }
    }

    #[cold]
    fn room_when_short(&self) -> Room {
        let prepared = self.active.bytes - self.taken + self.slot.ready_bytes();
        // Two of the largest frames are left to what must not be refused.
        if prepared < 3 * self.building.len() as u64 { Room::NoVotes } else { Room::NoOpens }
    }

    /// Gives back the oldest segments all of whose events are before `sequence`, as far as the newest snapshot
    /// makes them needless. Blocking calls, not for the hot thread's busy moments; gives the number of segments.
    pub fn release_before(&self, sequence: u64) -> Result<usize, Error> {
        super::retention::release_before(&self.folder, &self.meta, sequence)
    }

    /// Puts header, checksum and padding on the frame under construction.
    fn seal(&mut self, flags: u16) -> Frame {
        self.number += 1;
        let mut frame = Frame {
            checksum: 0,
            version: FORMAT_VERSION,
            flags,
            length: self.at as u32,
            log_id: self.meta.id,
            incarnation: self.active.incarnation,
            segment: self.active.ordinal,
            number: self.number,
            first_sequence: self.built_first_sequence,
            events: (self.appended + 1 - self.built_first_sequence) as u32,
            batches: self.batches,
            previous_checksum: self.checksum,
            durable_to: self.durable_number,
        };
        assert!(frame.durable_to < frame.number, "a frame knows only those before it");
        frame.seal(&mut self.building[..self.at]);
        let padded = block_up(self.at as u64) as usize;
        self.building[self.at..padded].fill(0);
        self.checksum = frame.checksum;
        frame
    }

    fn reset_building(&mut self) {
        self.at = 0;
        self.batches = 0;
        self.built_first_sequence = self.appended + 1;
        let rolls = self.taken + block_up(self.building.len() as u64) > self.active.bytes;
        self.next = Place { segment: self.active.ordinal + u64::from(rolls), rolls };
    }

    fn roll(&mut self) -> Result<(), Error> {
        let file = self.shared.roll(&self.slot)?;
        assert_eq!(file.ordinal, self.next.segment, "the frame lands where its batches were told");
        self.writer.open(&file.path).doing("open", &file.path)?;
        self.active = file;
        self.taken = 0;
        self.started = false;
        Ok(())
    }
}

const _: () = assert!(FRAME_HEADER_BYTES + BATCH_HEADER_BYTES < BLOCK_BYTES);
