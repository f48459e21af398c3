//! Reading a log's past as events: seeks, and learns the definitions that lie before.

use super::events::{EventError, EventReader, FeedEvent};
use crate::journal::{self, LogMeta, LogReader};
use std::path::Path;

/// Why the past could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Events(#[from] EventError),
}

/// One log, read from anywhere. Blocking calls; each thread has its own.
pub struct Past {
    log: LogReader,
    events: EventReader,
    /// The next sequence to give.
    next: u64,
    positioned: bool,
}

impl Past {
    /// A reader of `log` in the data folder `dir`, before the event `next`.
    pub fn open(dir: &Path, log: &LogMeta, next: u64) -> Result<Past, PastError> {
        Past::with(dir, log, next, EventReader::new(log.ordinal))
    }

    /// The same, with the details of openings: for those who keep them.
    pub fn open_complete(dir: &Path, log: &LogMeta, next: u64) -> Result<Past, PastError> {
        Past::with(dir, log, next, EventReader::complete(log.ordinal))
    }

    fn with(dir: &Path, log: &LogMeta, next: u64, events: EventReader) -> Result<Past, PastError> {
        Ok(Past { log: LogReader::open(dir, log)?, events, next, positioned: false })
    }

    /// The next sequence that it gives.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Goes elsewhere.
    pub fn seek(&mut self, next: u64) {
        if self.next != next {
            (self.next, self.positioned) = (next, false);
        }
    }

    /// Appends the events of one frame, if one more is durable up to `durable`; false when not.
    pub fn read(&mut self, durable: u64, into: &mut Vec<FeedEvent>) -> Result<bool, PastError> {
        if self.next > durable {
            return Ok(false);
        }
        if !self.positioned {
            self.position()?;
        }
        let Some(frame) = self.log.next(durable)? else { return Ok(false) };
        for batch in frame.batches() {
            if batch.segment_start {
                self.events.restart();
            }
            self.events.events(&batch, self.next, into)?;
        }
        self.next = self.next.max(frame.frame.last_sequence() + 1);
        Ok(true)
    }

    /// Definitions stand anywhere before their use in the same segment: reads them from its start.
    fn position(&mut self) -> Result<(), PastError> {
        let segment = self.log.segment_of(self.next)?;
        let events = &mut self.events;
        events.restart();
        let mut outcome = Ok(());
        self.log.batches(segment, self.next - 1, |batch| {
            if outcome.is_ok() {
                outcome = events.definitions(&batch);
            }
        })?;
        outcome?;
        self.log.seek(self.next)?;
        self.positioned = true;
        Ok(())
    }
}
