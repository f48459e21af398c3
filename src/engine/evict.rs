//! Forgetting what an archive has. Which approvals those are is the shard's to say: it knows how far
//! the archive has got, and for how long; here they stand in the order of their decisions.

use super::record::NO_SET;
use super::{Engine, line::Line, votes};
use crate::model::{ApprovalId, EventRef};

impl Engine {
    /// The newest event of the approval decided first (after a recovery: of some decided one).
    pub fn decided_first(&self) -> Option<EventRef> {
        self.decided.first().map(|record| self.records.hot(record).last_event)
    }

    /// Forgets up to `max` decided approvals, in their order, as long as `may` says so of the newest
    /// event of the next; answers how many. `known` is told their ids and hashes before, and answers
    /// how many of them it took note of: no more are forgotten.
    pub fn evict_decided(
        &mut self,
        max: usize,
        mut may: impl FnMut(EventRef) -> bool,
        known: impl FnOnce(&[(ApprovalId, u64)]) -> usize,
    ) -> usize {
        let mut records = std::mem::take(&mut self.due);
        let mut next = self.decided.first();
        while let Some(record) = next.filter(|_| records.len() < max) {
            // All of it is as old as the archive is slow, and in no cache.
            self.records.prefetch_hot(record);
            records.push(record);
            next = Line::behind(self.timers.links(), record);
        }
        let mut ids = Vec::with_capacity(records.len());
        for record in &records {
            let hot = self.records.hot(*record);
            if !may(hot.last_event) {
                break;
            }
            let hash = self.key.hash(&hot.id);
            self.index.prefetch(self.index.locate(hash));
            votes::prefetch(&self.blocks, hot);
            self.requesters.prefetch(hot.requester);
            ids.push((hot.id, hash));
        }
        records.truncate(ids.len());
        let count = if ids.is_empty() { 0 } else { known(&ids).min(ids.len()) };
        for (record, (_, hash)) in records.iter().zip(&ids).take(count) {
            self.evict_record(*record, *hash);
        }
        records.clear();
        self.due = records;
        count
    }

    /// Forgets an approval: its record, votes, label, timer, and its hold on names and sets. For an
    /// archive that has it; false when it is not in memory.
    pub fn evict(&mut self, id: &ApprovalId) -> bool {
        let hash = self.key.hash(id);
        let Some(record) = self.find_hashed(hash, id) else { return false };
        self.evict_record(record, hash);
        true
    }

    fn evict_record(&mut self, record: u32, hash: u64) {
        let mut hot = *self.records.hot(record);
        match hot.status().outcome() {
            Some(outcome) => {
                *self.counter(outcome) -= 1;
                self.decided.leave(self.timers.links_mut(), record);
            }
            None => self.timers.remove(record),
        }
        let validators = &mut self.validators;
        votes::for_each(&self.blocks, &hot, |validator, _| validators.release(validator));
        votes::free(&mut self.blocks, &mut hot);
        if hot.label_class != 0 {
            let (block, _) = self.records.cold(record).label(hot.label_class);
            self.blocks.give_back(block);
        }
        if hot.set != NO_SET {
            self.sets.release(hot.set, &mut self.validators);
        }
        self.requesters.release(hot.requester);
        self.index.remove(hash, record);
        self.records.give_back(record);
    }
}
