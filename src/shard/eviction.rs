//! What a shard forgets, and when: what is decided, whose last event the archive holds, and that
//! for a while (`decided_keep`), so that no look-up in the archive is older than the forgetting.
//! A few at a time, in the shard's turns; each id goes into the filter of ids before its approval
//! leaves memory. Without an archive nothing is forgotten.

use super::{ArchiveMarks, IdFilter};
use crate::engine::Engine;
use crate::model::EventRef;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far the archive had got is noted so many times in the time that must pass.
const MARKS: u32 = 60;
/// Forgotten in one turn at most; by then it took 0.2 to 0.4 ms.
const TURN_EVICTIONS_MAX: usize = 1_024;
/// Forgotten at a time, in step with each other's cache misses.
const BATCH_EVICTIONS: usize = 64;
/// After this the turn forgets no more.
const TURN_TIME_MAX: Duration = Duration::from_micros(500);

/// How far the archive has got.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// In this shard's log.
    through: u64,
    /// All of the earlier generations' logs: it is in this generation.
    earlier: bool,
}

pub(super) struct Eviction {
    shard: usize,
    log_ordinal: u16,
    archive: ArchiveMarks,
    ids: Arc<IdFilter>,
    keep: Duration,
    /// Marks noted since `keep`, oldest first.
    marks: VecDeque<(Instant, Mark)>,
    /// The newest mark that is as old as `keep`.
    ripe: Mark,
}

impl Eviction {
    pub fn new(shard: usize, log_ordinal: u16, archive: ArchiveMarks, ids: Arc<IdFilter>, keep: Duration) -> Eviction {
        Eviction { shard, log_ordinal, archive, ids, keep, marks: VecDeque::new(), ripe: Mark::default() }
    }

    pub fn ids(&self) -> &IdFilter {
        &self.ids
    }

    /// Takes note of how far the archive has got; in each turn.
    pub fn look(&mut self, now: Instant, durable: u64) {
        if !self.archive.is_on() {
            return;
        }
        if self.marks.back().is_none_or(|(noted, _)| now.duration_since(*noted) >= self.keep / MARKS) {
            // An archive that knows more than is durable here is another folder's, and no reason to forget.
            let through = self.archive.through(self.shard).min(durable);
            let mark = Mark { through, earlier: self.archive.has_begun() };
            self.marks.push_back((now, mark));
        }
        while let Some((noted, mark)) = self.marks.front()
            && now.duration_since(*noted) >= self.keep
        {
            self.ripe = *mark;
            self.marks.pop_front();
        }
        assert!(self.marks.len() <= MARKS as usize + 1, "marks are bounded");
    }

    fn may(&self, newest: EventRef) -> bool {
        match newest.log_ordinal() == self.log_ordinal {
            true => newest.sequence() <= self.ripe.through,
            // Every follower finishes a generation of logs before it reads the next.
            false => self.ripe.earlier,
        }
    }

    /// Whether something can be forgotten now.
    pub fn is_due(&self, engine: &Engine) -> bool {
        engine.decided_first().is_some_and(|newest| self.may(newest))
    }

    /// When a shard that has nothing else to do looks again; `None`: there is nothing to forget.
    pub fn due_in(&self, engine: &Engine) -> Option<Duration> {
        // An archive may be turned on, or get further, without a word to the shard.
        engine.decided_first().map(|_| (self.keep / MARKS).max(Duration::from_millis(1)))
    }

    /// Forgets some; answers how many.
    pub fn turn(&self, engine: &mut Engine) -> usize {
        let began = Instant::now();
        let mut count = 0;
        while count < TURN_EVICTIONS_MAX && began.elapsed() < TURN_TIME_MAX {
            let some = engine.evict_decided(BATCH_EVICTIONS, |newest| self.may(newest), |ids| self.ids.put(ids));
            count += some;
            if some < BATCH_EVICTIONS {
                break;
            }
        }
        count
    }
}
