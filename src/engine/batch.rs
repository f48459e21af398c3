//! Votes in batches: the hot road. A vote touches three cold lines one after another (index entry,
//! record, votes), so several are on their way at once: each stage asks for the line that the next
//! one will read, and by then it is there. Measured at 1 M approvals: see the commit messages.

use super::{Clock, Engine, table::Place, votes};
use crate::model::{ValidatorRef, VoteAnswer, VoteCommand, VoteSink};

/// Votes between asking for the index line and reading it …
const PROBE_LAG: usize = 16;
/// … asking for the record and reading it …
const RECORD_LAG: usize = PROBE_LAG + 12;
/// … asking for its votes and counting.
const COUNT_LAG: usize = RECORD_LAG + 8;
const RING: usize = 64;
const NO_RECORD: u32 = u32::MAX;

const _: () = assert!(COUNT_LAG < RING && RING.is_power_of_two());

impl Engine {
    /// Counts or refuses every vote of the batch, in order, and leaves the batch empty.
    pub fn votes<S: VoteSink>(&mut self, batch: &mut Vec<VoteCommand<'_>>, clock: Clock, sink: &mut S) {
        self.step(clock);
        let mut hashes = [0; RING];
        let mut places = [Place::NONE; RING];
        let mut records = [NO_RECORD; RING];
        let mut name = "";
        let mut validator: Option<ValidatorRef> = None;
        let commands = batch.as_slice();
        for step in 0..commands.len() + COUNT_LAG {
            if let Some(command) = commands.get(step) {
                let hash = self.key.hash(&command.approval);
                let place = self.index.locate(hash);
                self.index.prefetch(place);
                hashes[step % RING] = hash;
                places[step % RING] = place;
            }
            let at = step.wrapping_sub(PROBE_LAG);
            if at < commands.len() {
                let record = self.index.probe(places[at % RING], hashes[at % RING]).unwrap_or(NO_RECORD);
                if record != NO_RECORD {
                    self.records.prefetch_hot(record);
                }
                records[at % RING] = record;
            }
            let at = step.wrapping_sub(RECORD_LAG);
            if at < commands.len() {
                let mut record = records[at % RING];
                if record == NO_RECORD || self.records.hot(record).id != commands[at].approval {
                    record = self.find(&commands[at].approval).unwrap_or(NO_RECORD);
                    records[at % RING] = record;
                }
                if record != NO_RECORD {
                    let hot = self.records.hot(record);
                    votes::prefetch(&self.blocks, hot);
                    self.requesters.prefetch(hot.requester);
                }
            }
            let at = step.wrapping_sub(COUNT_LAG);
            if let Some(command) = commands.get(at) {
                // Runs of one name are the rule (a validator's backlog): looked up once.
                if command.validator != name {
                    name = command.validator;
                    validator = self.validators.find(name);
                }
                let answer = match records[at % RING] {
                    NO_RECORD => VoteAnswer::Refused(sink.absent(&command.approval)),
                    record => self.count_vote(record, &mut validator, command, clock, sink),
                };
                sink.answer(command.item, answer);
            }
        }
        batch.clear();
    }
}
