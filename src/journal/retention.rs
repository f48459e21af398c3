//! Taking segments back that nobody needs. When that is so is the owner's business; this file only makes sure that
//! a restart never needs what it gives away.

use super::error::Error;
use super::folder::{Folder, log_dir};
use super::meta::LogMeta;
use super::recovery::Chain;
use super::snapshot::{self, SnapshotReader};
use super::storage::Storage;
use std::path::PathBuf;

/// How far the newest snapshot of one log covers it, remembered: a snapshot is read whole to be believed, and that
/// once is enough.
#[derive(Debug, Default)]
pub struct Covered {
    newest: Option<(PathBuf, u64)>,
}

impl Covered {
    /// The first sequence that the newest snapshot does not make needless; None without one.
    fn needed_from<S: Storage>(&mut self, folder: &Folder<S>, log: &LogMeta) -> Result<Option<u64>, Error> {
        let dir = log_dir(folder.dir(), log.ordinal);
        let Some((_, path, _)) = snapshot::list(folder.storage(), &dir, snapshot::SNAPSHOT)?.pop() else {
            return Ok(None);
        };
        if let Some((known, needed)) = &self.newest
            && *known == path
        {
            return Ok(Some(*needed));
        }
        let needed = SnapshotReader::open(folder.storage(), &path, log.id)?.summary().smallest_sequence + 1;
        self.newest = Some((path, needed));
        Ok(Some(needed))
    }
}

/// Gives back the oldest segments whose events are all before `sequence` and in the newest snapshot; they go to the
/// pool, or are removed. The segment in use, and every one behind a kept one, stays. Gives the number of segments.
pub fn release_before<S: Storage>(folder: &Folder<S>, log: &LogMeta, sequence: u64) -> Result<usize, Error> {
    release_covered(folder, log, sequence, &mut Covered::default())
}

/// The same for one who asks often.
pub fn release_covered<S: Storage>(
    folder: &Folder<S>,
    log: &LogMeta,
    sequence: u64,
    covered: &mut Covered,
) -> Result<usize, Error> {
    let Some(needed) = covered.needed_from(folder, log)? else { return Ok(0) };
    let keep_from = sequence.min(needed);
    let chain = Chain::read(folder.storage(), &log_dir(folder.dir(), log.ordinal), log)?;
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
