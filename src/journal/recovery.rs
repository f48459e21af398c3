//! Reading a log at start: the snapshot, then the frames behind it, and what to make of the end.
//!
//! A segment that has a successor ends where the successor's first frame says. Only the last one ends in the
//! unknown: at its first bad frame. If any whole frame behind that place, in this segment or in one prepared after
//! it, knew the bad one to be durable, acknowledged votes are missing: that is damage, and nothing is started.
//! Otherwise nobody was ever told of what stood there: it is a torn tail, and the log goes on in a new segment.

use super::error::{ADVICE_RESTORE, Doing, Error};
use super::folder::{Folder, log_dir};
use super::frame::{BatchView, Frame, FrameView};
use super::meta::LogMeta;
use super::pool::Shared;
use super::segment::{Found, SegmentFile, SegmentScan, WINDOW_BYTES, first_frame};
use super::snapshot::{self, SliceView, SnapshotReader, SnapshotSummary};
use super::storage::Storage;
use std::io;
use std::path::{Path, PathBuf};

/// What takes the bytes in at recovery. An `Err` says what could not be decoded; it ends the recovery with the
/// place in the file beside it.
pub trait Replay {
    /// One slice of the snapshot; all of them come before the first batch.
    fn slice(&mut self, slice: SliceView<'_>) -> Result<(), String>;
    /// One batch, in order. The first ones may be older than slices: the segment is read from its start, because
    /// it holds the definitions. Events that a slice already holds are the caller's to skip.
    fn batch(&mut self, batch: BatchView<'_>) -> Result<(), String>;
}

impl<S, B> Replay for (S, B)
where
    S: FnMut(SliceView<'_>) -> Result<(), String>,
    B: FnMut(BatchView<'_>) -> Result<(), String>,
{
    fn slice(&mut self, slice: SliceView<'_>) -> Result<(), String> {
        (self.0)(slice)
    }

    fn batch(&mut self, batch: BatchView<'_>) -> Result<(), String> {
        (self.1)(batch)
    }
}

/// A frame that was on its way when the node ended. Normal after a crash; nobody was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
}

/// A recovered log: what `Log::start` goes on from.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The last event there is; 0 if there is none.
    pub last_sequence: u64,
    /// The last good frame; 0 if there is none.
    pub last_frame: u64,
    /// Its checksum.
    pub last_checksum: u32,
    /// The snapshot that was used.
    pub snapshot: Option<SnapshotSummary>,
    /// Sequence behind which the snapshot needs the journal: the smallest of its slices; 0 without a snapshot.
    pub snapshot_sequence: u64,
    /// Events read behind the snapshot, those that a slice already holds included.
    pub events: u64,
    /// Frames read.
    pub frames: u64,
    /// Bytes read, snapshot included.
    pub bytes_read: u64,
    /// What was found behind the last good frame.
    pub torn: Option<Torn>,
    /// A newer snapshot that was damaged, so that this recovery used the one before.
    pub snapshot_skipped: Option<String>,
    /// Ordinal of the segment that the log goes on in.
    pub next_segment: u64,
    /// The last segment and the bytes in use of it.
    last: Option<(SegmentFile, u64)>,
    /// Prepared segments that never got a frame.
    empty: Vec<SegmentFile>,
}

impl Recovered {
    /// Gives the unused rest of the last segment back to the disk. Only once the cut behind it is durable.
    pub(super) fn trim_last_segment<S: Storage>(&self, shared: &Shared<S>) -> Result<(), Error> {
        if let Some((file, used)) = self.last.as_ref().filter(|(file, used)| file.len > *used) {
            let opened = shared.storage.open(&file.path).doing("open", &file.path)?;
            shared.storage.truncate(&opened, *used).doing("trim", &file.path)?;
            shared.used_less(file.len - used);
        }
        Ok(())
    }
}

/// Recovers one log: hands the newest sound snapshot and all batches behind it to `replay`, makes what was read
/// durable, and takes back prepared segments. Blocking calls.
pub fn recover<S: Storage>(folder: &Folder<S>, log: &LogMeta, replay: &mut impl Replay) -> Result<Recovered, Error> {
    let dir = log_dir(folder.dir(), log.ordinal);
    let recovered = read_log(folder.storage(), &dir, log, ReadFrom::Snapshot, replay)?;
    if let Some((file, _)) = &recovered.last {
        let opened = folder.storage().open(&file.path).doing("open", &file.path)?;
        folder.storage().sync(&opened).doing("sync", &file.path)?;
    }
    folder.storage().sync_dir(&dir).doing("sync", &dir)?;
    // The newest first: what remains after a crash in between has no gap.
    for file in recovered.empty.iter().rev() {
        folder.shared().take_back(file)?;
    }
    Ok(recovered)
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFrom {
    /// The segment in which replay of the snapshot begins.
    Snapshot,
    /// The oldest segment held: verifying.
    Oldest,
}

/// Where a walk over frames stands: the last good frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub number: u64,
    pub checksum: u32,
    pub sequence: u64,
}

impl Position {
    /// Before this frame.
    pub fn before(frame: &Frame) -> Position {
        Position { number: frame.number - 1, checksum: frame.previous_checksum, sequence: frame.first_sequence - 1 }
    }

    /// At this frame.
    pub fn at(frame: &Frame) -> Position {
        Position { number: frame.number, checksum: frame.checksum, sequence: frame.last_sequence() }
    }

    pub fn is_followed_by(&self, frame: &Frame) -> bool {
        frame.number == self.number + 1
            && frame.previous_checksum == self.checksum
            && frame.first_sequence == self.sequence + 1
    }
}

/// The segments of a log, sorted into those with frames and those without.
pub(super) struct Chain {
    /// With the first frame of each; ordinals without gaps.
    pub segments: Vec<(SegmentFile, Frame)>,
    /// Prepared, and no frame has become whole in them.
    pub empty: Vec<SegmentFile>,
}

impl Chain {
    pub fn read<S: Storage>(storage: &S, dir: &Path, log: &LogMeta) -> Result<Chain, Error> {
        let mut chain = Chain { segments: Vec::new(), empty: Vec::new() };
        for file in SegmentFile::list(storage, dir)? {
            match first_frame(storage, &file, log.id)? {
                Some(frame) => chain.segments.push((file, frame)),
                None => chain.empty.push(file),
            }
        }
        for pair in chain.segments.windows(2) {
            let (this, next) = (&pair[0].0, &pair[1].0);
            if next.ordinal == this.ordinal {
                return Err(Error::damaged(&next.path, 0, "there are two segments with this ordinal"));
            }
            if next.ordinal != this.ordinal + 1 {
                if let Some(file) = chain.empty.iter().find(|file| file.ordinal == this.ordinal + 1) {
                    return Err(bad_start(file));
                }
                let what = format!("segment {} of the log is missing, later ones are there", this.ordinal + 1);
                return Err(Error::damaged(dir, 0, what));
            }
        }
        Ok(chain)
    }
}

/// Reads a log without changing anything.
pub(super) fn read_log<S: Storage>(
    storage: &S,
    dir: &Path,
    log: &LogMeta,
    from: ReadFrom,
    replay: &mut impl Replay,
) -> Result<Recovered, Error> {
    must_exist(storage, dir)?;
    let (mut snapshot, skipped) = newest_snapshot(storage, dir, log)?;
    let summary = snapshot.as_ref().map(|snapshot| snapshot.summary());
    let chain = Chain::read(storage, dir, log)?;
    let needed = summary.map_or(0, |summary| summary.smallest_sequence) + 1;
    let start = match from {
        ReadFrom::Snapshot => chain.segments.iter().rposition(|(_, frame)| frame.first_sequence <= needed),
        ReadFrom::Oldest => (!chain.segments.is_empty()).then_some(0),
    };
    let reaches_back = chain.segments.first().map_or(needed == 1, |(_, frame)| frame.first_sequence <= needed);
    if !reaches_back {
        return Err(not_reaching_back(dir, &chain, needed, skipped));
    }
    let mut recovered = Recovered {
        last_sequence: 0,
        last_frame: 0,
        last_checksum: 0,
        snapshot: summary,
        snapshot_sequence: needed - 1,
        events: 0,
        frames: 0,
        bytes_read: summary.map_or(0, |summary| summary.bytes),
        torn: None,
        snapshot_skipped: skipped.map(|error| error.to_string()),
        next_segment: chain.segments.last().map_or(1, |(file, _)| file.ordinal + 1),
        last: None,
        empty: Vec::new(),
    };
    if let Some(snapshot) = &mut snapshot {
        while let Some(slice) = snapshot.next_slice()? {
            let taken = replay.slice(slice);
            taken.map_err(|reason| undecodable(&snapshot_path(dir, summary), snapshot.entry_offset(), reason))?;
        }
    }
    let mut at = Position { number: 0, checksum: 0, sequence: 0 };
    for index in start.unwrap_or(0)..chain.segments.len() {
        let (file, first) = &chain.segments[index];
        if Some(index) == start {
            at = Position::before(first);
        }
        let successor = chain.segments.get(index + 1);
        let mut scan = SegmentScan::open(storage, file, log.id, WINDOW_BYTES).doing("open", &file.path)?;
        let used = read_segment(&mut scan, &mut at, successor.map(|(_, frame)| frame), &mut recovered, replay)?;
        recovered.bytes_read += scan.bytes_read;
        if successor.is_none() {
            recovered.last = Some((file.clone(), used));
        }
    }
    for file in &chain.empty {
        let mut scan = SegmentScan::open(storage, file, log.id, WINDOW_BYTES).doing("open", &file.path)?;
        // Behind the last segment, frames may lie that nobody was told of. Before it, a file that holds nothing is
        // one whose name could not be made durable when it was prepared; one with any frame was in use.
        let behind = chain.segments.last().is_none_or(|(last, _)| file.ordinal > last.ordinal);
        if let Some(knowing) = scan.knows_durable(0, if behind { at.number + 1 } else { 0 })? {
            return Err(known_durable(file, 0, knowing));
        }
    }
    // After that, because a damaged cut explains why the segment before it was trimmed.
    let last = chain.segments.last().map(|(file, _)| file);
    last.into_iter().chain(&chain.empty).try_for_each(check_length)?;
    recovered.empty = chain.empty;
    (recovered.last_sequence, recovered.last_frame, recovered.last_checksum) = (at.sequence, at.number, at.checksum);
    let last_file = recovered.last.as_ref().map_or(dir, |(file, _)| &file.path);
    let last_offset = recovered.last.as_ref().map_or(0, |(_, used)| *used);
    let known = [summary.map(|summary| summary.largest_sequence), log.sealed].into_iter().flatten().max();
    if let Some(known) = known.filter(|known| *known > at.sequence) {
        let what = format!("the log ends at sequence {}, and {known} was known to be durable", at.sequence);
        return Err(Error::damaged(last_file, last_offset, what));
    }
    if let Some(sealed) = log.sealed.filter(|sealed| *sealed < at.sequence) {
        let what = format!("the log was sealed at sequence {sealed} and goes on to {}", at.sequence);
        return Err(Error::damaged(last_file, last_offset, what));
    }
    Ok(recovered)
}

/// A log that the meta file names has a directory.
pub(super) fn must_exist<S: Storage>(storage: &S, dir: &Path) -> Result<(), Error> {
    if storage.list(dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(Error::damaged(dir, 0, "the directory of a log is missing"));
    }
    Ok(())
}

/// Reads one segment's frames into `replay`; gives where they end.
fn read_segment<S: Storage>(
    scan: &mut SegmentScan<S>,
    at: &mut Position,
    successor: Option<&Frame>,
    recovered: &mut Recovered,
    replay: &mut impl Replay,
) -> Result<u64, Error> {
    let path = scan.file.path.clone();
    let mut offset = 0;
    let torn = loop {
        if let Some(successor) = successor
            && at.number + 1 >= successor.number
        {
            if at.is_followed_by(successor) {
                return Ok(offset);
            }
            return Err(Error::damaged(
                &path,
                offset,
                "the next segment does not go on from the frame before this byte",
            ));
        }
        match scan.frame(offset)? {
            Found::Good(view) if at.is_followed_by(&view.frame) => {
                replay_frame(&path, &view, replay)?;
                *at = Position::at(&view.frame);
                recovered.frames += 1;
                recovered.events += u64::from(view.frame.events);
                offset += view.frame.bytes_on_disk();
            }
            Found::Good(_) => {
                return Err(Error::damaged(&path, offset, "a whole frame does not follow the one before it"));
            }
            Found::Torn => break true,
            Found::Empty => break false,
        }
    };
    if successor.is_some() {
        return Err(Error::damaged(&path, offset, "a frame is not whole, and the next segment knew it to be durable"));
    }
    if let Some(knowing) = scan.knows_durable(offset, at.number + 1)? {
        return Err(known_durable(&scan.file, offset, knowing));
    }
    recovered.torn = torn.then_some(Torn { file: path, offset });
    Ok(offset)
}

pub(super) fn replay_frame(path: &Path, view: &FrameView<'_>, replay: &mut impl Replay) -> Result<(), Error> {
    for batch in view.batches() {
        replay.batch(batch).map_err(|reason| undecodable(path, view.offset, reason))?;
    }
    Ok(())
}

fn undecodable(path: &Path, offset: u64, reason: String) -> Error {
    Error::Undecodable { file: path.to_path_buf(), offset, reason }
}

fn bad_start(file: &SegmentFile) -> Error {
    Error::damaged(&file.path, 0, "the segment's first frame is not whole")
}

fn known_durable(file: &SegmentFile, offset: u64, knowing: u64) -> Error {
    let what = format!("a frame is not whole, and the frame at byte {knowing} knew it to be durable");
    Error::damaged(&file.path, offset, what)
}

/// A segment without a successor is as long as it was made; only something else can have cut it.
fn check_length(file: &SegmentFile) -> Result<(), Error> {
    if file.len < file.bytes {
        let what = format!("the file was cut off: {} of {} bytes are there", file.len, file.bytes);
        return Err(Error::damaged(&file.path, file.len, what));
    }
    Ok(())
}

fn not_reaching_back(dir: &Path, chain: &Chain, needed: u64, skipped: Option<Error>) -> Error {
    let oldest = match chain.segments.first() {
        Some((_, frame)) => format!("the journal begins at sequence {}", frame.first_sequence),
        None => "there is no segment".into(),
    };
    let what = format!("{oldest}, and everything from {needed} on is needed");
    let first = chain.segments.first().map_or(u64::MAX, |(file, _)| file.ordinal);
    match skipped {
        // A name without frames that would be the missing one.
        None if chain.empty.iter().any(|file| file.ordinal < first) => {
            bad_start(chain.empty.iter().rfind(|file| file.ordinal < first).expect("just seen"))
        }
        Some(Error::Damaged { file, offset, what: why, .. }) => {
            let advice = format!("{ADVICE_RESTORE}; this snapshot is all there was: {what}");
            Error::Damaged { file, offset, what: why, advice }
        }
        _ => Error::damaged(dir, 0, what),
    }
}

fn snapshot_path(dir: &Path, summary: Option<SnapshotSummary>) -> PathBuf {
    dir.join(format!("snapshot-{:010}", summary.map_or(0, |summary| summary.number)))
}

/// The newest sound snapshot, and the damage of a newer one that was passed over.
type Newest<S> = (Option<SnapshotReader<S>>, Option<Error>);

fn newest_snapshot<S: Storage>(storage: &S, dir: &Path, log: &LogMeta) -> Result<Newest<S>, Error> {
    let mut skipped = None;
    for (_, path, _) in snapshot::list(storage, dir, snapshot::SNAPSHOT)?.iter().rev() {
        match SnapshotReader::open(storage, path, log.id) {
            Ok(snapshot) => return Ok((Some(snapshot), skipped)),
            Err(error @ Error::Damaged { .. }) => skipped = skipped.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if log.starts_from_snapshot {
        // Its frames alone are not its state: it began with what the generation before had left.
        return Err(skipped.unwrap_or_else(|| Error::damaged(dir, 0, "the log begins with a snapshot, and it is gone")));
    }
    Ok((None, skipped))
}
