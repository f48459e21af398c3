//! Where a sink goes on: its own positions, held against the logs of this folder.

use crate::model::{LogId, Position};
use crate::shard::{FollowedLog, Logs, PastError};

/// A generation, and how far each of its logs is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub generation: usize,
    /// In the order of the generation's logs.
    pub after: Vec<u64>,
    /// The journal no longer holds what came before, and the sink begins here all the same: in words.
    pub note: Option<String>,
}

impl Place {
    /// Behind these positions; what an operator must know, where that is not to be had.
    pub fn behind(logs: &Logs, positions: &[Position], needs_all: bool) -> Result<Place, String> {
        if positions.is_empty() {
            return Place::of_a_new_one(logs, needs_all);
        }
        let at = |log: LogId| positions.iter().find(|position| position.log == log).map(|position| position.sequence);
        let mut newest = 0;
        for position in positions {
            let known = |generation: &[FollowedLog]| generation.iter().any(|log| log.id == position.log);
            match logs.generations().iter().position(|generation| known(generation)) {
                Some(generation) => newest = newest.max(generation),
                None => {
                    return Err(format!(
                        "it stands in log {}, which this data folder does not have: it was fed from another folder. \
                         Give it the folder it belongs to, or give this folder a destination of its own",
                        position.log.0
                    ));
                }
            }
        }
        for (generation, members) in logs.generations().iter().enumerate().take(newest + 1) {
            for log in members {
                let (durable, done) = (log.durable(), at(log.id));
                if done.is_some_and(|done| done > durable) {
                    return Err(format!(
                        "it is at sequence {} of log {}, and the journal ends at {durable}: the data folder was rolled \
                         back. Restore the newer folder; or, if what was lost is to stay lost, give this folder a new \
                         destination",
                        done.unwrap_or_default(),
                        log.id.0
                    ));
                }
                if generation < newest && done.is_some_and(|done| done < durable) {
                    return Err(format!(
                        "it is at sequence {} of log {}, which ends at {durable}, and in a later generation too: its \
                         positions were changed by somebody else",
                        done.unwrap_or_default(),
                        log.id.0
                    ));
                }
            }
        }
        let members = &logs.generations()[newest];
        let mut places = Vec::new();
        for log in members {
            let oldest = log.oldest().map_err(unreadable)?;
            // One that began in the middle may have met no event of this log yet: nothing that it had not
            // acknowledged was given back since.
            let begins = if needs_all { 0 } else { oldest - 1 };
            let after = at(log.id).unwrap_or(begins);
            places.push(after);
            if after + 1 < oldest {
                return Err(format!(
                    "it is at sequence {after} of log {}, and the journal begins at {oldest}: history is missing. Fill \
                     it from another archive (`assent archive copy`), or give this folder a new destination",
                    log.id.0
                ));
            }
        }
        Ok(Place { generation: newest, after: places, note: None })
    }

    /// The oldest place behind which nothing is missing: in the newest generation whose beginning is gone.
    fn of_a_new_one(logs: &Logs, needs_all: bool) -> Result<Place, String> {
        let oldest = |members: &Vec<FollowedLog>| members.iter().map(FollowedLog::oldest).collect();
        let oldest: Result<Vec<Vec<u64>>, PastError> = logs.generations().iter().map(oldest).collect();
        let oldest = oldest.map_err(unreadable)?;
        let is_cut = |sequences: &&Vec<u64>| sequences.iter().any(|oldest| *oldest > 1);
        let cut = oldest.iter().rposition(|sequences| is_cut(&sequences));
        let generation = cut.unwrap_or(0);
        let after: Vec<u64> = oldest[generation].iter().map(|oldest| oldest - 1).collect();
        let begins = logs.generations()[generation].iter().zip(&oldest[generation]);
        let begins: Vec<String> = begins.map(|(log, oldest)| format!("log {} at {oldest}", log.id.0)).collect();
        let begins = begins.join(", ");
        if cut.is_some() && needs_all {
            return Err(format!(
                "it is new, and the journal no longer holds everything (it begins with {begins}): history is missing. \
                 Fill it from the archive that has it: `assent archive copy`"
            ));
        }
        let note = cut.map(|_| format!("it is new, and starts at the oldest events held: {begins}"));
        Ok(Place { generation, after, note })
    }
}

fn unreadable(error: PastError) -> String {
    format!("the journal cannot be read: {error}")
}
