//! What the whole node agrees on: whether work is taken, and whether the clock is believed.

use crate::model::Refusal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared by fronts, shards and the one who stops the node.
pub struct Gate {
    stopping: AtomicBool,
    finishing: AtomicBool,
    clock_accepted: AtomicU64,
    clock_doubted: Box<[AtomicBool]>,
    gone: Box<[AtomicBool]>,
    is_sink_behind: AtomicBool,
    sink_behind: Mutex<&'static str>,
}

impl Gate {
    pub fn new(shards: usize) -> Gate {
        let flags = || (0..shards).map(|_| AtomicBool::new(false)).collect();
        Gate {
            stopping: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            clock_accepted: AtomicU64::new(0),
            clock_doubted: flags(),
            gone: flags(),
            is_sink_behind: AtomicBool::new(false),
            sink_behind: Mutex::new(""),
        }
    }

    /// New work is refused from now on; what is in the rings is still answered.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The rings are drained and then the shards end.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    pub fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// Whether opens are taken, as far as the node as a whole is concerned.
    pub fn opens(&self) -> Result<(), Refusal> {
        if !self.is_sink_behind.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Refusal::SinkBehind(*self.sink_behind.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A sink is further behind than the setting allows: opens are refused until none is. Votes go on.
    pub fn sink_behind(&self, sink: Option<&'static str>) {
        if let Some(name) = sink {
            *self.sink_behind.lock().unwrap_or_else(PoisonError::into_inner) = name;
        }
        self.is_sink_behind.store(sink.is_some(), Ordering::Release);
    }

    /// An operator says that the clock is right: every shard takes note at its next turn.
    pub fn accept_clock(&self) {
        self.clock_accepted.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn clock_accepted(&self) -> u64 {
        self.clock_accepted.load(Ordering::Relaxed)
    }

    pub(super) fn clock_trusted(&self, shard: usize, trusted: bool) {
        if self.clock_doubted[shard].load(Ordering::Relaxed) == trusted {
            self.clock_doubted[shard].store(!trusted, Ordering::Release);
        }
    }

    pub fn is_clock_doubted(&self) -> bool {
        self.clock_doubted.iter().any(|doubted| doubted.load(Ordering::Acquire))
    }

    pub(super) fn shard_gone(&self, shard: usize) {
        self.gone[shard].store(true, Ordering::Release);
    }

    /// A shard ended: answers that it owed never come.
    pub fn is_shard_gone(&self) -> bool {
        self.gone.iter().any(|gone| gone.load(Ordering::Acquire))
    }
}
