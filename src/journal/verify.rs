//! `assent journal verify`: reads every byte of a folder, changes none, and says what it found.

use super::error::Error;
use super::folder::log_dir;
use super::frame::BatchView;
use super::meta::{self, FolderMeta};
use super::posix::PosixStorage;
use super::recovery::{ReadFrom, Replay, Torn, must_exist, read_log};
use super::segment::SegmentFile;
use super::snapshot::{self, SliceView};
use super::storage::Storage;
use std::path::Path;

/// What was found in a folder.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the folder is.
    pub meta: FolderMeta,
    /// Every log of every generation, oldest first.
    pub logs: Vec<LogReport>,
}

/// What was found in one log.
#[derive(Debug, Clone, Default)]
pub struct LogReport {
    /// Its generation.
    pub generation: u32,
    /// Its ordinal in the folder.
    pub ordinal: u16,
    /// Segment files.
    pub segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Whole frames.
    pub frames: u64,
    /// Batches in them.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// The first and the last sequence held; (1, 0) if there is none.
    pub sequences: (u64, u64),
    /// Bytes read.
    pub bytes: u64,
    /// A frame that was under way when the node ended (or is, if it runs now): normal, nobody was told of it.
    pub torn: Option<Torn>,
    /// What is damaged, as the node would say it at start.
    pub damage: Option<String>,
}

impl Report {
    /// Whether everything is as it was written.
    pub fn is_sound(&self) -> bool {
        self.logs.iter().all(|log| log.damage.is_none())
    }
}

/// Verifies the data folder at `dir` without its lock and without writing. On a folder whose node runs, the very
/// end of its logs may be seen half-written.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    verify_on(&PosixStorage, dir)
}

/// What the data folder at `dir` says it is; reads its meta file only, without its lock.
pub fn describe(dir: &Path) -> Result<FolderMeta, Error> {
    read_meta(&PosixStorage, dir)
}

fn read_meta<S: Storage>(storage: &S, dir: &Path) -> Result<FolderMeta, Error> {
    let missing = || Error::damaged(&dir.join("meta"), 0, "there is no meta file: this is no data folder");
    meta::read(storage, dir)?.ok_or_else(missing)
}

/// The same on another disk.
pub fn verify_on<S: Storage>(storage: &S, dir: &Path) -> Result<Report, Error> {
    let meta = read_meta(storage, dir)?;
    let mut logs = Vec::new();
    for log in meta.generations.iter().flat_map(|generation| &generation.logs) {
        let mut report = LogReport { generation: log.generation, ordinal: log.ordinal, ..LogReport::default() };
        report.sequences = (1, 0);
        if let Err(error) = verify_log(storage, dir, log, &mut report) {
            report.damage = Some(error.to_string());
        }
        logs.push(report);
    }
    Ok(Report { meta, logs })
}

fn verify_log<S: Storage>(storage: &S, dir: &Path, log: &meta::LogMeta, report: &mut LogReport) -> Result<(), Error> {
    let dir = log_dir(dir, log.ordinal);
    must_exist(storage, &dir)?;
    report.segments = SegmentFile::list(storage, &dir)?.len() as u64;
    let snapshots = snapshot::list(storage, &dir, snapshot::SNAPSHOT)?;
    report.snapshots = snapshots.len() as u64;
    let mut counter = Counter { report, first: None };
    let recovered = read_log(storage, &dir, log, ReadFrom::Oldest, &mut counter)?;
    report.frames = recovered.frames;
    report.bytes = recovered.bytes_read;
    report.torn = recovered.torn;
    // The ones that a start would pass over are looked at too.
    for (_, path, _) in &snapshots {
        snapshot::SnapshotReader::open(storage, path, log.id)?;
    }
    Ok(())
}

struct Counter<'a> {
    report: &'a mut LogReport,
    first: Option<u64>,
}

impl Replay for Counter<'_> {
    fn slice(&mut self, _: SliceView<'_>) -> Result<(), String> {
        Ok(())
    }

    fn batch(&mut self, batch: BatchView<'_>) -> Result<(), String> {
        self.report.batches += 1;
        self.report.events += u64::from(batch.events);
        let first = *self.first.get_or_insert(batch.first_sequence);
        self.report.sequences = (first, batch.last_sequence());
        Ok(())
    }
}
