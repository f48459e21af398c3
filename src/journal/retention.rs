//! Taking segments back that nobody needs. When that is so is the owner's business; this file only makes sure that
//! a restart never needs what it gives away.

use super::error::Error;
use super::folder::{Folder, log_dir};
use super::meta::LogMeta;
use super::recovery::Chain;
use super::snapshot::{self, SnapshotReader};
use super::storage::Storage;

/// Gives back the oldest segments whose events are all before `sequence` and in the newest snapshot; they go to the
/// pool, or are removed. The segment in use, and every one behind a kept one, stays. Gives the number of segments.
pub fn release_before<S: Storage>(folder: &Folder<S>, log: &LogMeta, sequence: u64) -> Result<usize, Error> {
    let dir = log_dir(folder.dir(), log.ordinal);
    let Some((_, path, _)) = snapshot::list(folder.storage(), &dir, snapshot::SNAPSHOT)?.pop() else { return Ok(0) };
    let snapshot = SnapshotReader::open(folder.storage(), &path, log.id)?;
    let keep_from = sequence.min(snapshot.summary().smallest_sequence + 1);
    let chain = Chain::read(folder.storage(), &dir, log)?;
    let mut released = 0;
    for pair in chain.segments.windows(2) {
        let ((file, _), (_, successor)) = (&pair[0], &pair[1]);
        if successor.first_sequence > keep_from {
            break;
        }
        folder.shared().take_back(file)?;
        released += 1;
    }
    Ok(released)
}
