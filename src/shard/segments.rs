//! When segments of the journal go: kept for a while in any case, then until a snapshot covers them
//! and everyone who keeps the events is past them.
//!
//! Blocking calls, for a thread beside the shards. A segment's age counts from when it was first seen
//! finished, so a restart keeps it longer, never shorter; the bytes bound what that may come to.

use super::Logs;
use crate::journal::{self, Covered, Folder, LogMeta, LogReader, Storage};
use crate::model::LogId;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long segments stay that nobody needs: whichever ends first.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub age: Duration,
    /// Of finished segments, in equal shares of the logs that have any.
    pub bytes: u64,
}

type Release = Box<dyn FnMut(&LogMeta, u64) -> Result<usize, journal::Error> + Send>;

/// All segments of a folder.
pub struct Segments {
    logs: Logs,
    release: Release,
    readers: HashMap<LogId, LogReader>,
    /// When a segment (log, first sequence) was first seen finished.
    finished: HashMap<(LogId, u64), Instant>,
}

impl Segments {
    pub(super) fn new<S: Storage>(folder: Folder<S>, logs: Logs) -> Segments {
        let mut covered: HashMap<u16, Covered> = HashMap::new();
        let release: Release = Box::new(move |log, before| {
            journal::release_covered(&folder, log, before, covered.entry(log.ordinal).or_default())
        });
        Segments { logs, release, readers: HashMap::new(), finished: HashMap::new() }
    }

    /// Gives back what may go. `acknowledged`: everyone is past this sequence of the log. Gives the
    /// number of segments.
    pub fn release(
        &mut self,
        keep: Keep,
        now: Instant,
        acknowledged: impl Fn(LogId) -> u64,
    ) -> Result<usize, super::PastError> {
        let mut held = Vec::new();
        for log in self.logs.all() {
            let reader = match self.readers.entry(log.id) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(log.reader()?),
            };
            let segments = reader.segments()?;
            if segments.len() > 1 {
                held.push((log.clone(), segments));
            }
        }
        let mut finished = HashMap::new();
        for (log, segments) in &held {
            for (first, _) in &segments[..segments.len() - 1] {
                let key = (log.id, *first);
                finished.insert(key, self.finished.get(&key).copied().unwrap_or(now));
            }
        }
        self.finished = finished;
        let share = keep.bytes / (held.len() as u64).max(1);
        let mut released = 0;
        for (log, segments) in &held {
            let since = |first: u64| self.finished.get(&(log.id, first)).copied().unwrap_or(now);
            let before = may_go(segments, share, acknowledged(log.id), |first| now - since(first) >= keep.age);
            if before > segments[0].0 {
                released += (self.release)(log.meta(), before)?;
            }
        }
        Ok(released)
    }
}

/// The sequence before which segments may go. `segments`: (first sequence, bytes), the last in use.
fn may_go(segments: &[(u64, u64)], keep_bytes: u64, acknowledged: u64, is_old: impl Fn(u64) -> bool) -> u64 {
    let mut before = segments[0].0;
    let mut newer: u64 = segments[..segments.len() - 1].iter().map(|(_, bytes)| bytes).sum();
    for pair in segments.windows(2) {
        let ((first, bytes), (next, _)) = (pair[0], pair[1]);
        newer -= bytes;
        if next > acknowledged + 1 || !(newer >= keep_bytes || is_old(first)) {
            break;
        }
        before = next;
    }
    before
}

#[cfg(test)]
mod tests {
    use super::may_go;

    #[test]
    fn kept_by_age_and_bytes_then_by_who_still_needs_them() {
        let segments = [(1, 100), (11, 100), (21, 100), (31, 100)];
        let check = |keep_bytes, acknowledged, old: &[u64], expected| {
            assert_eq!(may_go(&segments, keep_bytes, acknowledged, |first| old.contains(&first)), expected);
        };
        check(1_000, 40, &[], 1);
        // By age, in order.
        check(1_000, 40, &[1, 11], 21);
        check(1_000, 40, &[11], 1);
        // By bytes: newer finished ones hold as much already.
        check(200, 40, &[], 11);
        check(100, 40, &[], 21);
        // The one in use stays.
        check(0, 40, &[], 31);
        // Only what is acknowledged whole.
        check(0, 19, &[], 11);
        check(0, 20, &[], 21);
        check(0, 0, &[1, 11], 1);
    }
}
