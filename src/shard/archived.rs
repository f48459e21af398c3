//! How far the archive has got, a mark for each log of the generation: set by the sink, read by the
//! shards, which may then forget what is decided and archived.

use crate::model::{LogId, Position};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArchiveMarks {
    marks: Arc<[(LogId, AtomicU64)]>,
    is_on: Arc<AtomicBool>,
}

impl ArchiveMarks {
    /// Of these logs, in the order of the shards; nothing archived yet.
    pub fn new(logs: impl IntoIterator<Item = LogId>) -> ArchiveMarks {
        let marks = logs.into_iter().map(|log| (log, AtomicU64::new(0))).collect();
        ArchiveMarks { marks, is_on: Arc::default() }
    }

    /// There is an archive: without one, nothing decided is ever forgotten.
    pub fn turn_on(&self) {
        self.is_on.store(true, Ordering::Release);
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// The archive holds the log through this sequence, durably. A log of an earlier generation is
    /// passed over: it is complete before a later one begins.
    pub fn archived(&self, position: Position) {
        if let Some((_, mark)) = self.marks.iter().find(|(log, _)| *log == position.log) {
            mark.fetch_max(position.sequence, Ordering::AcqRel);
        }
    }

    /// It holds something of this generation of logs, and so all of the earlier ones.
    pub fn has_begun(&self) -> bool {
        self.marks.iter().any(|(_, mark)| mark.load(Ordering::Acquire) > 0)
    }

    /// Of the shard with this index.
    pub fn through(&self, shard: usize) -> u64 {
        self.marks[shard].1.load(Ordering::Acquire)
    }
}
