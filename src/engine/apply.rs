//! What an event changes. Nothing here refuses: what is wrong with an event is a broken invariant
//! (commands judge first; a replay checks first) and stops the process.

use super::memory::{bytes_of, bytes_of_mut};
use super::record::{Cold, Hot, NO_SET};
use super::{Blocks, Engine, votes};
use crate::model::{
    ApprovalId, ContentHash, Decided, Event, EventKind, EventRef, Micros, Opened, Outcome, Tally, ValidatorRef,
};

impl Engine {
    /// Applies an event whose references are this engine's; it now stands at `at`.
    pub fn apply(&mut self, event: &Event<'_>, at: EventRef) {
        let hash = self.key.hash(&event.approval);
        if let EventKind::Opened(opened) = &event.kind {
            self.apply_opened(hash, &event.approval, opened, at);
            return;
        }
        let record = self.find_hashed(hash, &event.approval).expect("an event of an open approval");
        self.apply_found(record, event, at);
    }

    /// Applies an event of an approval that is there.
    pub(super) fn apply_found(&mut self, record: u32, event: &Event<'_>, at: EventRef) {
        match &event.kind {
            EventKind::Opened(_) => panic!("an approval is opened once"),
            EventKind::Voted(voted) => {
                self.apply_vote(record, voted.validator, voted.decision, voted.tally, at);
                if let Some(decided) = &voted.decided {
                    self.apply_decided(record, decided);
                }
            }
            EventKind::Expired(expired) => {
                self.records.hot_mut(record).last_event = at;
                self.apply_decided(record, &expired.decided);
            }
        }
    }

    pub(super) fn apply_opened(&mut self, hash: u64, id: &ApprovalId, opened: &Opened<'_>, at: EventRef) -> u32 {
        let set = opened.eligible.map_or(NO_SET, |set| set.0);
        let quorum = (opened.required, opened.total);
        let (kind, priority) = (opened.approval_type, opened.priority);
        let hot = Hot::opened(*id, at, opened.expires_at, quorum, kind, priority, opened.requester.0, set);
        let cold =
            Cold { digest: opened.digest, hash: [0; 32], created_at: opened.created_at, finalized_at: Micros(0) };
        self.requesters.hold(opened.requester.0);
        if set != NO_SET {
            self.sets.hold(set);
        }
        let record = self.records.take(hot, cold);
        self.set_content_hash(record, &opened.content_hash);
        self.index.insert(hash, record);
        if self.timers.len() == 0 {
            self.timers.settle(opened.created_at.0);
        }
        self.timers.insert(record, opened.expires_at.0);
        self.latest = self.latest.max(opened.created_at);
        record
    }

    fn set_content_hash(&mut self, record: u32, hash: &ContentHash) {
        let (bytes, class) = match hash {
            ContentHash::Sha256(bytes) => (*bytes, 0),
            ContentHash::Label(label) => {
                let block = self.blocks.take(Blocks::class_of(label.len()));
                bytes_of_mut(self.blocks.words_mut(block))[..label.len()].copy_from_slice(label.as_bytes());
                (Cold::label_hash(block, label.len()), block.class + 1)
            }
        };
        self.records.cold_mut(record).hash = bytes;
        self.records.hot_mut(record).label_class = class;
    }

    /// The label of a record that has one.
    pub(super) fn label(&self, record: u32) -> &[u8] {
        let (block, length) = self.records.cold(record).label(self.records.hot(record).label_class);
        &bytes_of(self.blocks.words(block))[..length]
    }

    /// Counts a first vote; `tally` is the one after it.
    #[inline(always)]
    pub(super) fn apply_vote(
        &mut self,
        record: u32,
        validator: ValidatorRef,
        decision: crate::model::Decision,
        tally: Tally,
        at: EventRef,
    ) {
        let hot = self.records.hot_mut(record);
        assert!(tally.cast() <= u32::from(hot.total), "votes never exceed N");
        votes::insert(&mut self.blocks, hot, validator, decision, self.validators.numbers());
        hot.set_tally(tally);
        hot.last_event = at;
        self.validators.hold(validator);
    }

    pub(super) fn apply_decided(&mut self, record: u32, decided: &Decided) {
        self.timers.remove(record);
        self.apply_outcome(record, decided.outcome, decided.finalized_at);
    }

    /// As `apply_decided`, for a record that has left the timers; it joins the line of the decided.
    pub(super) fn apply_outcome(&mut self, record: u32, outcome: Outcome, finalized_at: Micros) {
        let hot = self.records.hot_mut(record);
        assert!(hot.is_pending(), "an approval is decided once");
        hot.set_status(outcome.status());
        self.records.cold_mut(record).finalized_at = finalized_at;
        *self.counter(outcome) += 1;
        self.decided.join(self.timers.links_mut(), record);
        self.latest = self.latest.max(finalized_at);
    }
}
