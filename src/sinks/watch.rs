//! Looks after all sinks of a node, once a second: how far each is behind, what health and metrics say, whether
//! new approvals must wait, what the register remembers, which segments may go, and an operator's word.

use super::lag::{Behind, Growth};
use super::pump::{self, State};
use super::{Pump, Register};
use crate::health::Reporter;
use crate::model::{LogId, Position};
use crate::shard::{Gate, Keep, Logs, PastError, Segments};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TURN: Duration = Duration::from_secs(1);
/// Turns between two writes of the register, and between two looks for segments to give back.
const WRITE_TURNS: u64 = 3;
const RELEASE_TURNS: u64 = 2;
/// A sink is lagging, in the words of health, when what it lacks has waited this long.
const LAGGING: Duration = Duration::from_secs(60);
/// How long a stopping node waits for deliveries that are under way.
const END_PATIENCE: Duration = Duration::from_millis(700);

/// An operator writes this file into the data folder (`assent sinks resume`).
pub fn resume_file(data: &Path, sink: &str) -> PathBuf {
    data.join(format!("resume-{sink}"))
}

/// All that is looked after.
pub struct Watched {
    pub data: PathBuf,
    /// Each with the one who speaks for it.
    pub pumps: Vec<(Pump, Reporter)>,
    pub register: Register,
    pub logs: Logs,
    pub segments: Segments,
    pub keep: Keep,
    pub gate: Arc<Gate>,
    /// At so many bytes of journal that a sink lacks, new approvals are refused; 0: no limit but the folder's.
    pub lag_bytes_max: u64,
}

/// The thread that does it.
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(watched: Watched) -> Result<Watch, WatchError> {
        let now = Instant::now();
        let growth = watched.logs.all().map(|log| {
            // Read before the rest is: what came between counts as new.
            let written = log.bytes_written();
            Ok((log.id, Growth::new(&log.segments()?, log.durable(), written, now)))
        });
        let growth = growth.collect::<Result<HashMap<LogId, Growth>, PastError>>()?;
        let (stop, stopping) = bounded(0);
        let watcher = Watcher { watched, growth, turns: 0, said: String::new() };
        let thread = pump::spawn("sinks".into(), move || watcher.run(&stopping)).map_err(WatchError::Thread)?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends all pumps, within a second, and remembers where they are.
    pub fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why sinks could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("the journal cannot be read for the sinks: {0}")]
    Journal(#[from] PastError),
    #[error("no thread for the sinks: {0}")]
    Thread(std::io::Error),
}

struct Watcher {
    watched: Watched,
    growth: HashMap<LogId, Growth>,
    turns: u64,
    /// What the log said last of the register or of segments, so that it is said once.
    said: String,
}

impl Watcher {
    fn run(mut self, stopping: &Receiver<()>) {
        loop {
            self.turn();
            match stopping.recv_timeout(TURN) {
                Err(RecvTimeoutError::Timeout) => self.turns += 1,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let pumps = &mut self.watched.pumps;
        pumps.iter_mut().for_each(|(pump, _)| pump.stop());
        let until = Instant::now() + END_PATIENCE;
        for (pump, _) in pumps {
            if !pump.ended(until) {
                tracing::warn!("sink {}: a delivery under way is left alone; the next start asks for it", pump.name());
            }
        }
        self.remember();
    }

    fn turn(&mut self) {
        let now = Instant::now();
        for log in self.watched.logs.all() {
            // The end first: bytes may then count frames that are not behind it yet, never the other way round.
            let (durable, written) = (log.durable(), log.bytes_written());
            self.growth.get_mut(&log.id).expect("a log has its growth").grew(durable, written, now);
        }
        let mut refuse = None;
        for (pump, reporter) in &self.watched.pumps {
            let behind = self.behind(pump);
            let waited = behind.since.map_or(Duration::ZERO, |since| now - since);
            let is_over = self.watched.lag_bytes_max > 0 && behind.bytes >= self.watched.lag_bytes_max;
            if is_over {
                refuse = refuse.or(Some(pump.name()));
            }
            say(pump, reporter, behind, waited, is_over);
            if std::fs::remove_file(resume_file(&self.watched.data, pump.name())).is_ok() {
                pump.resume();
            }
        }
        self.watched.gate.sink_behind(refuse);
        if self.turns.is_multiple_of(WRITE_TURNS) {
            self.remember();
        }
        if self.turns.is_multiple_of(RELEASE_TURNS) {
            self.release(now);
        }
    }

    fn behind(&self, pump: &Pump) -> Behind {
        let acknowledged = pump.progress.acknowledged();
        let of = |log: LogId| acknowledged.get(&log).copied().unwrap_or(0);
        let logs = self.watched.logs.all();
        logs.map(|log| self.growth[&log.id].behind(of(log.id))).fold(Behind::default(), Behind::and)
    }

    /// Into the register, where something changed.
    fn remember(&mut self) {
        let mut changed = false;
        for (pump, _) in &self.watched.pumps {
            let positions = pump.progress.acknowledged().into_iter();
            let positions = positions.map(|(log, sequence)| Position { log, sequence }).collect();
            changed |= self.watched.register.put(pump.name(), positions);
        }
        if changed && let Err(error) = self.watched.register.write() {
            self.complain(error.to_string());
        }
    }

    /// Segments go once every sink is past them; without an archive the journal alone has contents and reasons, and
    /// none goes.
    fn release(&mut self, now: Instant) {
        if !self.watched.pumps.iter().any(|(pump, _)| pump.name() == "archive") {
            return;
        }
        let done: Vec<_> = self.watched.pumps.iter().map(|(pump, _)| pump.progress.acknowledged()).collect();
        let acknowledged = |log: LogId| done.iter().map(|done| done.get(&log).copied().unwrap_or(0)).min().unwrap_or(0);
        match self.watched.segments.release(self.watched.keep, now, acknowledged) {
            Ok(0) => {}
            Ok(released) => tracing::debug!("{released} segments of the journal were given back"),
            Err(error) => self.complain(format!("segments of the journal cannot be given back: {error}")),
        }
    }

    fn complain(&mut self, message: String) {
        if self.said != message {
            tracing::error!("{message}");
            self.said = message;
        }
    }
}

/// A sink's state for people and machines. It is degraded at worst: the node serves without it.
fn say(pump: &Pump, reporter: &Reporter, behind: Behind, waited: Duration, is_over: bool) {
    let metrics = &pump.metrics;
    metrics.lag_events.set(behind.events);
    metrics.lag_bytes.set(behind.bytes);
    metrics.lag_millis.set(waited.as_millis() as u64);
    let lag = || format!("{} events, {} bytes, {} s behind", behind.events, behind.bytes, waited.as_secs());
    let opens = if is_over { "; new approvals are refused until it catches up" } else { "" };
    let number = match pump.progress.state() {
        _ if pump.is_broken() => {
            reporter.degraded(format!("stopped by a defect (see the log), {}{opens}: restart the node", lag()));
            4
        }
        State::Starting => {
            reporter.degraded(format!("starting{opens}"));
            0
        }
        State::Up if is_over || waited >= LAGGING => {
            reporter.degraded(format!("lagging: {}{opens}", lag()));
            2
        }
        State::Up => {
            reporter.serving();
            1
        }
        State::Down(why) => {
            reporter.degraded(format!("down, tried again: {why} ({}){opens}", lag()));
            3
        }
        State::Stopped(why) => {
            let name = pump.name();
            reporter.degraded(format!("stopped until `assent sinks resume {name}`: {why} ({}){opens}", lag()));
            4
        }
    };
    metrics.state.set(number);
}
