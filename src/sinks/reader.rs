//! Batches from the journal, read ahead: while one is delivered, the next is made.
//!
//! A thread of its own for each sink. It follows the durable ends of a generation's logs, by looking: a
//! shard is not asked and rings no bell. A generation is read to its end before the next begins, and no
//! batch holds events of two.

use super::place::Place;
use super::{Batch, BatchLimits, Run};
use crate::shard::{FeedEvent, FeedKind, FollowedLog, Logs, Past, PastError};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, select};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the ends of the logs are looked at while nothing comes: what an idle sink costs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Reading starts anew here; what was read before is void.
pub(super) struct Seek {
    /// Rises with each.
    pub number: u64,
    pub place: Place,
}

/// What was read after the seek with this number.
pub(super) struct Read {
    pub seek: u64,
    /// Why there is no more, otherwise: no try mends it.
    pub batch: Result<Batch, String>,
}

/// Serves seeks until their sender is gone.
pub(super) fn serve(logs: Logs, limits: BatchLimits, seeks: Receiver<Seek>, reads: Sender<Read>) {
    let Ok(mut seek) = seeks.recv() else { return };
    loop {
        let mut reader = Reader::new(logs.clone(), limits, &seek.place);
        seek = loop {
            let batch = match reader.next(&seeks) {
                Next::Batch(batch) => Ok(batch),
                Next::Failed(error) => Err(error.to_string()),
                Next::Seek(next) => break next,
                Next::Over => return,
            };
            let failed = batch.is_err();
            let read = Read { seek: seek.number, batch };
            select! {
                send(reads, read) -> sent => if sent.is_err() { return },
                recv(seeks) -> next => match next {
                    Ok(next) => break next,
                    Err(_) => return,
                },
            }
            if failed {
                match seeks.recv() {
                    Ok(next) => break next,
                    Err(_) => return,
                }
            }
        };
    }
}

enum Next {
    Batch(Batch),
    Failed(PastError),
    Seek(Seek),
    /// Nobody takes batches any more.
    Over,
}

struct Reader {
    logs: Logs,
    limits: BatchLimits,
    generation: usize,
    sources: Vec<Source>,
    /// The source that is asked first: each in turn.
    first: usize,
}

struct Source {
    log: FollowedLog,
    past: Option<Past>,
    /// Handed out up to here.
    after: u64,
    /// Of the frame read last: more than a batch takes, at times. At most a frame's events.
    waiting: VecDeque<FeedEvent>,
}

/// A batch under construction.
#[derive(Default)]
struct Building {
    runs: Vec<Run>,
    events: usize,
    bytes: usize,
}

impl Building {
    fn has_room(&self, limits: &BatchLimits) -> bool {
        self.events < limits.events_max && self.bytes < limits.bytes_max
    }
}

impl Reader {
    fn new(logs: Logs, limits: BatchLimits, place: &Place) -> Reader {
        let mut reader = Reader { logs, limits, generation: place.generation, sources: Vec::new(), first: 0 };
        reader.enter(place.generation, &place.after);
        reader
    }

    fn enter(&mut self, generation: usize, after: &[u64]) {
        let source =
            |log: &FollowedLog, after: u64| Source { log: log.clone(), past: None, after, waiting: VecDeque::new() };
        let members = self.logs.generations()[generation].iter().zip(after);
        self.sources = members.map(|(log, after)| source(log, *after)).collect();
        (self.generation, self.first) = (generation, 0);
    }

    /// The next batch: full, or with what came while it lingered.
    fn next(&mut self, seeks: &Receiver<Seek>) -> Next {
        let mut building = Building::default();
        let mut began = None;
        loop {
            let moved = match self.fill(&mut building) {
                Ok(moved) => moved,
                Err(error) => return Next::Failed(error),
            };
            let is_over = self.is_at_the_end();
            if building.events == 0 && is_over && self.generation + 1 < self.logs.generations().len() {
                let next = self.generation + 1;
                self.enter(next, &vec![0; self.logs.generations()[next].len()]);
                continue;
            }
            let mut wait = LOOK_EVERY;
            if building.events > 0 {
                let lingered = began.get_or_insert_with(Instant::now).elapsed();
                if !building.has_room(&self.limits) || is_over || lingered >= self.limits.linger {
                    return Next::Batch(Batch { runs: building.runs });
                }
                wait = wait.min(self.limits.linger - lingered);
            }
            if moved {
                continue;
            }
            match seeks.recv_timeout(wait) {
                Ok(seek) => return Next::Seek(seek),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Next::Over,
            }
        }
    }

    /// Whether the generation is sealed and all of it read.
    fn is_at_the_end(&self) -> bool {
        self.sources.iter().all(|source| source.log.is_sealed() && source.after >= source.log.durable())
    }

    /// Takes a frame's worth from each log in turn; false when there was nothing.
    fn fill(&mut self, building: &mut Building) -> Result<bool, PastError> {
        let count = self.sources.len();
        let mut moved = false;
        for turn in 0..count {
            if !building.has_room(&self.limits) {
                // Who had no turn is first in the next batch.
                self.first = (self.first + turn) % count;
                return Ok(moved);
            }
            moved |= self.sources[(self.first + turn) % count].take(building, &self.limits)?;
        }
        Ok(moved)
    }
}

impl Source {
    fn take(&mut self, building: &mut Building, limits: &BatchLimits) -> Result<bool, PastError> {
        if self.waiting.is_empty() {
            let durable = self.log.durable();
            if self.after >= durable {
                return Ok(false);
            }
            let past = match &mut self.past {
                Some(past) => past,
                None => self.past.insert(self.log.read_behind(self.after)?),
            };
            let mut frame = Vec::new();
            past.read(durable, &mut frame)?;
            // A frame may begin before the place.
            self.waiting = frame.into_iter().filter(|event| event.at.sequence() > self.after).collect();
        }
        let mut taken = Vec::new();
        while building.has_room(limits)
            && let Some(event) = self.waiting.pop_front()
        {
            assert!(event.at.sequence() == self.after + 1, "a log is read without a gap");
            self.after = event.at.sequence();
            building.events += 1;
            building.bytes += bytes_of(&event);
            taken.push(event);
        }
        if taken.is_empty() {
            return Ok(false);
        }
        match building.runs.iter_mut().find(|run| run.log == self.log.id) {
            Some(run) => run.events.append(&mut taken),
            None => building.runs.push(Run { log: self.log.id, events: taken }),
        }
        Ok(true)
    }
}

/// What an event weighs against a batch's limit, about: its texts, and what the rest takes in any form.
fn bytes_of(event: &FeedEvent) -> usize {
    const REST: usize = 128;
    const NAME: usize = 40;
    REST + match &event.kind {
        FeedKind::Opened { details, .. } => details.as_ref().map_or(0, |details| {
            details.content.len() + details.eligible.as_ref().map_or(0, |set| set.members.len() * NAME)
        }),
        FeedKind::Voted { validator, reason, signature, .. } => validator.len() + reason.len() + signature.len(),
        FeedKind::Expired { .. } => 0,
    }
}
