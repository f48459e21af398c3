//! The way out: what shards have committed goes to the archive, to Kafka, into files; each exactly
//! once, in each log's order, from the journal, on a thread of its own that never makes a shard wait.
//!
//! A [`Sink`] knows one destination: where it stands, and how a batch and the position behind it get
//! there as one. The pump does the rest for all of them: reads the journal, cuts batches, retries with
//! backoff, bisects what a destination refuses for its content, stops what no retry mends, and tells
//! health and metrics. A third destination is one file.

mod archive;
mod file;
pub mod kafka;
mod lag;
mod message;
mod place;
mod pump;
mod reader;
mod register;
mod watch;

pub use archive::ArchiveSink;
pub use file::{FileOptions, FileSink};
pub use message::event_message;
pub use pump::Pump;
pub use register::{Register, RegisterError, Registered};
pub use watch::{Watch, Watched, resume_file};

use crate::model::{LogId, Position};
use crate::shard::FeedEvent;
use std::time::Duration;

/// Why a destination did not take a batch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Try again. Whether the batch went in is unknown: [`Sink::resume`] tells.
    #[error("{0}")]
    Unavailable(String),
    /// A value that it will never take: the pump bisects the batch down to the event.
    #[error("{0}")]
    Refused(String),
    /// No retry mends it: an operator must. Says what to do.
    #[error("{0}")]
    Stopped(String),
}

/// How much goes into one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    pub events_max: usize,
    pub bytes_max: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
}

/// Events of one log, in its order.
#[derive(Clone, Debug)]
pub struct Run {
    pub log: LogId,
    /// At least one. Complete: openings with their content, digest and eligible set.
    pub events: Vec<FeedEvent>,
}

impl Run {
    /// Where the log stands behind this run.
    pub fn after(&self) -> Position {
        let last = self.events.last().expect("a run has events");
        Position { log: self.log, sequence: last.at.sequence() }
    }
}

/// One transaction's worth: at most a run for each log, between logs in no order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub runs: Vec<Run>,
}

/// One destination. Called from one thread, which may block.
pub trait Sink: Send {
    /// Its name in the folder's register, in metrics, health and settings: `archive`, `kafka`, `file`.
    fn name(&self) -> &'static str;

    fn limits(&self) -> BatchLimits;

    /// Whether a new destination must have every event from the first. One that need not starts at the
    /// oldest event that the journal still holds.
    fn needs_all(&self) -> bool {
        false
    }

    /// Connects anew, settles what an earlier life left under way, and says how far each log got.
    /// Called at start and after every error; no log: the destination is new.
    fn resume(&mut self) -> Result<Vec<Position>, Error>;

    /// The batch and the positions behind it, as one.
    fn deliver(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Puts one event that was refused aside, with its position, as one. A destination that refuses
    /// nothing for its content need not have this.
    fn reject(&mut self, run: &Run, reason: &str) -> Result<(), Error> {
        let _ = run;
        Err(Error::Stopped(reason.to_string()))
    }
}
