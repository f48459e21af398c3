//! All logs of a folder, oldest generation first: for those who keep everything that happened.
//!
//! A generation is complete before the next begins; between logs of one generation there is no order.
//! Reading is the caller's, from the journal, on a thread of its own ([`FollowedLog::read_behind`]).

use super::{Past, PastError, Tail};
use crate::journal::{FolderMeta, LogMeta, LogReader};
use crate::model::LogId;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    generations: Arc<[Vec<FollowedLog>]>,
}

/// One of them. Cheap to clone.
#[derive(Clone)]
pub struct FollowedLog {
    pub id: LogId,
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    meta: LogMeta,
    /// Of a log that grows; the others are sealed.
    tail: Option<Arc<Tail>>,
}

impl Logs {
    /// `tails` are those of the current generation.
    pub(super) fn new(data: &Path, meta: &FolderMeta, tails: &[Arc<Tail>]) -> Logs {
        let log = |meta: &LogMeta, tail: Option<Arc<Tail>>| FollowedLog {
            id: LogId(meta.id),
            inner: Arc::new(Inner { data: data.to_path_buf(), meta: meta.clone(), tail }),
        };
        let current = meta.generations.len().saturating_sub(1);
        let generations = meta.generations.iter().enumerate().map(|(number, generation)| {
            let tail = |index: usize| (number == current).then(|| tails[index].clone());
            generation.logs.iter().enumerate().map(|(index, meta)| log(meta, tail(index))).collect()
        });
        Logs { generations: generations.collect() }
    }

    /// Oldest first; the last is the current one.
    pub fn generations(&self) -> &[Vec<FollowedLog>] {
        &self.generations
    }

    /// Every log, oldest generation first.
    pub fn all(&self) -> impl Iterator<Item = &FollowedLog> {
        self.generations.iter().flatten()
    }
}

impl FollowedLog {
    /// Everything up to this sequence is on disk.
    pub fn durable(&self) -> u64 {
        match &self.inner.tail {
            Some(tail) => tail.durable(),
            None => self.inner.meta.sealed.expect("a log of an older generation is sealed"),
        }
    }

    /// It will not grow any more: a log of an older generation.
    pub fn is_sealed(&self) -> bool {
        self.inner.tail.is_none()
    }

    /// Bytes of journal that it grew by since the start.
    pub fn bytes_written(&self) -> u64 {
        self.inner.tail.as_ref().map_or(0, |tail| tail.bytes())
    }

    /// A complete reader behind this sequence.
    pub fn read_behind(&self, sequence: u64) -> Result<Past, PastError> {
        Past::open_complete(&self.inner.data, &self.inner.meta, sequence + 1)
    }

    /// The oldest sequence held (of an empty log: the one that will be its first).
    pub fn oldest(&self) -> Result<u64, PastError> {
        Ok(self.reader()?.oldest())
    }

    /// First sequence and bytes of every segment that holds something.
    pub fn segments(&self) -> Result<Vec<(u64, u64)>, PastError> {
        Ok(self.reader()?.segments()?)
    }

    pub(super) fn reader(&self) -> Result<LogReader, PastError> {
        Ok(LogReader::open(&self.inner.data, &self.inner.meta)?)
    }

    pub(super) fn meta(&self) -> &LogMeta {
        &self.inner.meta
    }
}
