//! The pump of one sink: gets batches from its reader, delivers them, and knows what to do when that fails.
//!
//! ```text
//!             ┌── Unavailable ◀─ wait (100 ms to 30 s, jittered) ──┐
//! resume() ─▶ place ─▶ seek ─▶ deliver() ─▶ acknowledged ─▶ …      │   Refused: halves, down to the event: reject()
//!    ▲          └── Stopped: until an operator's word              │
//!    └─────────────────────────────────────────────────────────────┘
//! ```
//! After every error the sink's own positions say where to go on: whatever became of the batch that was
//! under way, nothing is delivered twice and nothing left out. Two threads at lower priority, this one and
//! the reader's; both end when their [`Pump`] is stopped or dropped.

use super::place::Place;
use super::reader::{self, Read, Seek};
use super::{Batch, Error, Run, Sink};
use crate::metrics::SinkMetrics;
use crate::model::{LogId, Position};
use crate::shard::{ArchiveMarks, Logs};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First and longest wait between tries.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Shards and fronts go first.
const NICENESS: i32 = 10;

/// How a sink is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    Starting,
    Up,
    /// It is tried again; why.
    Down(String),
    /// Nothing is tried until an operator says so; why.
    Stopped(String),
}

/// What others see of a pump.
pub(super) struct Progress {
    state: Mutex<State>,
    /// Of every log that the sink named or was given.
    acknowledged: Mutex<BTreeMap<LogId, u64>>,
}

impl Progress {
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    pub fn acknowledged(&self) -> BTreeMap<LogId, u64> {
        lock(&self.acknowledged).clone()
    }

    fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// What the sink itself says: it may be less than was known, where its destination was rolled back.
    fn begin(&self, positions: &[Position]) {
        *lock(&self.acknowledged) = positions.iter().map(|position| (position.log, position.sequence)).collect();
    }

    fn advance(&self, positions: impl IntoIterator<Item = Position>) {
        let mut acknowledged = lock(&self.acknowledged);
        for position in positions {
            let mark = acknowledged.entry(position.log).or_default();
            *mark = (*mark).max(position.sequence);
        }
    }
}

/// Neither map nor state is ever left half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pump that runs.
pub struct Pump {
    name: &'static str,
    pub(super) progress: Arc<Progress>,
    pub(super) metrics: Arc<SinkMetrics>,
    /// An operator's word; gone: stop.
    words: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pump {
    /// Starts to feed `sink`. `known`: where it stood when the folder last heard of it. `marks` are moved with it,
    /// by the archive.
    pub fn start(
        sink: Box<dyn Sink>,
        logs: Logs,
        known: &[Position],
        marks: Option<ArchiveMarks>,
        metrics: Arc<SinkMetrics>,
    ) -> std::io::Result<Pump> {
        let name = sink.name();
        let progress = Arc::new(Progress { state: Mutex::new(State::Starting), acknowledged: Mutex::default() });
        progress.advance(known.iter().copied());
        let (words, operator) = bounded(1);
        let (seeks, to_seek) = bounded(1);
        let (batches, reads) = bounded(1);
        let (followed, limits) = (logs.clone(), sink.limits());
        let reader = spawn(format!("{name}-read"), move || reader::serve(followed, limits, to_seek, batches))?;
        let feeder = Feeder {
            sink,
            logs,
            progress: progress.clone(),
            marks,
            metrics: metrics.clone(),
            operator,
            seeks,
            reads,
            seek: 0,
            wait: WAIT_MIN,
        };
        let feeder = spawn(format!("sink-{name}"), move || feeder.run())?;
        Ok(Pump { name, progress, metrics, words: Some(words), threads: vec![reader, feeder] })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// An operator says that what stopped it is mended; or that there is no need to wait any longer.
    pub fn resume(&self) {
        // One word that waits is enough.
        let _said_already = self.words.as_ref().map(|words| words.try_send(()));
    }

    /// Why it waits for an operator, if it does.
    pub fn stopped(&self) -> Option<String> {
        match self.progress.state() {
            State::Stopped(why) => Some(why),
            State::Starting | State::Up | State::Down(_) => None,
        }
    }

    /// Nothing more is delivered from now on.
    pub fn stop(&mut self) {
        self.words = None;
    }

    /// Waits for its threads, not for ever: a delivery may be under way. Whether they ended.
    pub fn ended(&mut self, until: Instant) -> bool {
        while self.has_threads() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        true
    }

    fn has_threads(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    /// A thread of it panicked: it does nothing any more.
    pub(super) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// A thread that lets shards and fronts go first.
pub(super) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        // On Linux this is the calling thread's alone. Without the right to it, it runs as the others do.
        let _as_it_is = rustix::process::setpriority_process(None, NICENESS);
        run();
    })
}

/// The node stops.
struct Over;

/// The delivering side.
struct Feeder {
    sink: Box<dyn Sink>,
    logs: Logs,
    progress: Arc<Progress>,
    marks: Option<ArchiveMarks>,
    metrics: Arc<SinkMetrics>,
    operator: Receiver<()>,
    seeks: Sender<Seek>,
    reads: Receiver<Read>,
    /// Number of the newest seek; what was read before it is dropped.
    seek: u64,
    wait: Duration,
}

impl Feeder {
    fn run(mut self) {
        let Err(Over) = self.feed() else { return };
    }

    fn feed(&mut self) -> Result<(), Over> {
        loop {
            if let Err(error) = self.connect() {
                self.recover(error)?;
                continue;
            }
            let failed = loop {
                let batch = match self.next()? {
                    Ok(batch) => batch,
                    Err(message) => break Error::Stopped(message),
                };
                match self.settle(batch)? {
                    Ok(()) => self.wait = WAIT_MIN,
                    Err(error) => break error,
                }
            };
            self.recover(failed)?;
        }
    }

    /// Asks the sink where it stands, and has the reader go there.
    fn connect(&mut self) -> Result<(), Error> {
        let name = self.sink.name();
        let positions = self.sink.resume()?;
        let place = Place::behind(&self.logs, &positions, self.sink.needs_all()).map_err(Error::Stopped)?;
        if let Some(note) = &place.note {
            tracing::warn!("sink {name}: {note}");
        }
        let members = self.logs.generations()[place.generation].iter().zip(&place.after);
        let places = members.map(|(log, after)| Position { log: log.id, sequence: *after });
        let earlier = self.logs.generations()[..place.generation].iter().flatten();
        let earlier = earlier.map(|log| Position { log: log.id, sequence: log.durable() });
        let positions: Vec<Position> = places.chain(earlier).collect();
        self.progress.begin(&positions);
        self.acknowledge(positions);
        if self.progress.state() != State::Up {
            tracing::info!("sink {name} is up");
        }
        self.progress.set(State::Up);
        self.seek += 1;
        // The reader takes a seek at once, or has the last one still before it: then there is nothing of it to drop.
        let _reader_gone = self.seeks.send(Seek { number: self.seek, place });
        Ok(())
    }

    /// The next batch behind the newest seek.
    fn next(&mut self) -> Result<Result<Batch, String>, Over> {
        loop {
            select! {
                recv(self.reads) -> read => match read {
                    Ok(read) if read.seek == self.seek => return Ok(read.batch),
                    Ok(_) => {}
                    Err(_) => return Ok(Err("its reader has ended; restart the node".into())),
                },
                // A word without need is taken and means nothing.
                recv(self.operator) -> word => word.map_err(|_| Over)?,
            }
        }
    }

    /// Delivers a batch, whole or in parts; what the sink refuses for its content is put aside.
    fn settle(&mut self, batch: Batch) -> Result<Result<(), Error>, Over> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            if self.operator.is_empty() && is_over(&self.operator) {
                return Err(Over);
            }
            let error = match self.sink.deliver(&part) {
                Ok(()) => {
                    self.delivered(&part);
                    continue;
                }
                Err(error) => error,
            };
            let Error::Refused(reason) = error else { return Ok(Err(error)) };
            // Nothing of it went in; the sink says so itself, or the reader starts from where it stands.
            let positions = match self.sink.resume() {
                Ok(positions) => positions,
                Err(error) => return Ok(Err(error)),
            };
            if !part.runs.iter().all(|run| stands_before(run, &positions)) {
                return Ok(Err(Error::Unavailable(format!("{reason}; and it stands elsewhere than before the batch"))));
            }
            match halves(part) {
                Halves::Two(first, second) => parts.extend([second, first]),
                Halves::One(run) => {
                    if let Err(error) = self.put_aside(&run, &reason) {
                        return Ok(Err(error));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    fn put_aside(&mut self, run: &Run, reason: &str) -> Result<(), Error> {
        let (name, event) = (self.sink.name(), &run.events[0]);
        match self.sink.reject(run, reason) {
            Ok(()) => {}
            Err(Error::Refused(again)) => {
                return Err(Error::Stopped(format!("what it refused it refuses as a reject: {again}")));
            }
            Err(error) => return Err(error),
        }
        tracing::error!(
            "sink {name} refuses event {} of log {} (approval {}) for its content, and it is put aside: {reason}",
            event.at.sequence(),
            run.log.0,
            event.approval
        );
        self.metrics.rejects.increment();
        self.acknowledge(vec![run.after()]);
        Ok(())
    }

    fn delivered(&mut self, batch: &Batch) {
        self.metrics.batches.increment();
        self.metrics.events.add(batch.runs.iter().map(|run| run.events.len() as u64).sum());
        self.acknowledge(batch.runs.iter().map(Run::after).collect());
    }

    fn acknowledge(&mut self, positions: Vec<Position>) {
        if let Some(marks) = &self.marks {
            positions.iter().for_each(|position| marks.archived(*position));
        }
        self.progress.advance(positions);
    }

    /// Waits for the next try, or for an operator.
    fn recover(&mut self, error: Error) -> Result<(), Over> {
        let name = self.sink.name();
        let before = self.progress.state();
        match error {
            Error::Unavailable(why) => {
                self.metrics.retries.increment();
                if !matches!(&before, State::Down(known) if *known == why) {
                    tracing::warn!("sink {name} is down, it is tried again: {why}");
                }
                self.progress.set(State::Down(why));
                let wait = self.wait.mul_f64(rand::random_range(0.5..1.5));
                self.wait = (self.wait * 2).min(WAIT_MAX);
                match self.operator.recv_timeout(wait) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
                    Err(RecvTimeoutError::Disconnected) => Err(Over),
                }
            }
            Error::Stopped(why) | Error::Refused(why) => {
                tracing::error!(
                    "sink {name} has stopped, and the node goes on without it: {why}. Once that is mended: `assent \
                     sinks resume {name}` with this node's --data"
                );
                self.progress.set(State::Stopped(why));
                self.operator.recv().map_err(|_| Over)?;
                tracing::info!("sink {name}: an operator says that it is mended");
                self.wait = WAIT_MIN;
                Ok(())
            }
        }
    }
}

fn is_over(operator: &Receiver<()>) -> bool {
    matches!(operator.try_recv(), Err(crossbeam::channel::TryRecvError::Disconnected))
}

fn stands_before(run: &Run, positions: &[Position]) -> bool {
    let at = positions.iter().find(|position| position.log == run.log).map(|position| position.sequence);
    // A log without a position is one of which nothing is there yet, or one begun in the middle.
    at.is_none_or(|at| at + 1 == run.events[0].at.sequence())
}

enum Halves {
    Two(Batch, Batch),
    /// A single event.
    One(Run),
}

fn halves(batch: Batch) -> Halves {
    let events: usize = batch.runs.iter().map(|run| run.events.len()).sum();
    let mut runs = batch.runs.into_iter();
    if events == 1 {
        return Halves::One(runs.next().expect("an event is in a run"));
    }
    let mut left = events / 2;
    let (mut first, mut second) = (Batch::default(), Batch::default());
    for mut run in runs {
        let rest = run.events.split_off(left.min(run.events.len()));
        left -= run.events.len();
        if !rest.is_empty() {
            second.runs.push(Run { log: run.log, events: rest });
        }
        if !run.events.is_empty() {
            first.runs.push(run);
        }
    }
    Halves::Two(first, second)
}
