//! From a data folder to running shards, and from running shards to an end.

use super::clock::{Clock, MachineTime};
use super::core::Core;
use super::eviction::Eviction;
use super::executor::{self, ExecutorOptions};
use super::gate::Gate;
use super::handle::LogName;
use super::recovery::{self, RecoveredShard, ShardReport};
use super::snapshot::{SnapshotOptions, SnapshotRun};
use super::{Answer, ArchiveMarks, Error, Feed, FullReader, IdFilter, Logs, Segments, Shards, Tail, Work};
use crate::engine::{Limits, Pool};
use crate::journal::{self, BATCH_HEADER_BYTES, FRAME_HEADER_BYTES, Folder, Log, SnapshotWriter, Storage};
use crate::metrics::ShardMetrics;
use crate::model::LogId;
use crate::queue::{Bell, Mailbox, Ring, Vigil};
use crossbeam::channel::{Receiver, bounded};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Which thread a shard runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Executor {
    /// A plain thread; its journal writer blocks, or hands frames to a flush thread under load.
    Plain,
    /// A glommio executor on io_uring.
    Glommio,
}

/// What the shards need to start.
#[derive(Clone)]
pub struct Options {
    pub data: PathBuf,
    pub shards: usize,
    pub executor: Executor,
    pub executor_options: ExecutorOptions,
    /// Cores to pin shards to, in order; empty: none.
    pub pin: bool,
    pub ring_capacity: usize,
    pub limits: Limits,
    /// How long what is decided stays in memory after the archive has it; more than a proof of
    /// absence holds ([`Absence::HOLDS`](super::Absence::HOLDS)), but in tests.
    pub decided_keep: Duration,
    /// Memory for the filter of ids known before, of the node.
    pub id_filter_bytes: u64,
    pub snapshot: SnapshotOptions,
    pub journal: journal::Options,
    /// An operator accepts the wall clock as it is.
    pub accept_clock: bool,
}

/// Running shards.
pub struct Started {
    pub shards: Shards,
    pub gate: Arc<Gate>,
    pub feed: Feed,
    /// Set by whoever archives.
    pub archive: ArchiveMarks,
    /// For those who keep everything.
    pub logs: Logs,
    /// Gives segments back that nobody needs, for the one who knows; who does not take it gives none back.
    pub segments: Option<Segments>,
    /// A task on the fronts' runtime runs what comes out of it.
    pub answers: Mailbox<Vec<Answer>>,
    pub reports: Vec<ShardReport>,
    pub deployment: [u8; 16],
    pub generation: u32,
    pub fresh: bool,
    /// The first shard that ends, and how. `Ok` after `Gate::finish`.
    pub ended: Receiver<(usize, Result<(), String>)>,
    threads: Vec<JoinHandle<()>>,
    bells: Vec<Arc<Bell>>,
    _pool: ChunkPool,
}

/// Keeps cleared memory ready, so that no shard stops for the first touch of a huge page.
struct ChunkPool {
    pool: Arc<Pool>,
    thread: Option<JoinHandle<()>>,
}

/// Chunks kept ready, 2 MiB each.
const CHUNKS_READY: usize = 8;

impl ChunkPool {
    fn start() -> std::io::Result<ChunkPool> {
        let pool = Pool::new(CHUNKS_READY);
        let served = pool.clone();
        let thread = std::thread::Builder::new().name("memory".into()).spawn(move || served.serve())?;
        Ok(ChunkPool { pool, thread: Some(thread) })
    }
}

impl Drop for ChunkPool {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Started {
    /// Lets the rings run empty, and waits for the shards to end.
    pub fn finish(&mut self) -> Result<(), String> {
        self.gate.finish();
        self.bells.iter().for_each(|bell| bell.ring());
        let mut outcome = Ok(());
        for _ in 0..self.threads.len() {
            if let Ok((shard, Err(message))) = self.ended.recv() {
                outcome = Err(format!("shard {shard}: {message}"));
            }
        }
        for thread in self.threads.drain(..) {
            let _reported_through_ended = thread.join();
        }
        self.answers.close();
        outcome
    }
}

/// A call stays awake over the shard's wait and a sync: the first alone would end just before the answer. Where
/// there is one core, whoever is awake keeps the other from working.
fn front_vigil(spin_micros: u64) -> Duration {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => Duration::from_micros(spin_micros * 3 / 2),
        _ => Duration::ZERO,
    }
}

/// Recovers the folder and starts a thread a shard.
pub fn start<S: Storage>(storage: S, options: &Options, metrics: &[Arc<ShardMetrics>]) -> Result<Started, Error> {
    assert_eq!(metrics.len(), options.shards, "a block of metrics a shard");
    let folder = Folder::open(storage, &options.data, options.journal.clone())?;
    let fresh = folder.meta().generations.is_empty();
    let pool = ChunkPool::start().map_err(Error::Thread)?;
    let key = recovery::partition_key(&folder);
    let ids = IdFilter::open(&folder, key, options.id_filter_bytes, metrics[0].id_filter.clone())?;
    let ids = Arc::new(ids);
    let recovered = recovery::recover_all(&folder, options.shards, &options.limits, &pool.pool, &ids)?;
    let meta = folder.meta();

    let gate = Arc::new(Gate::new(options.shards));
    let current = meta.current().map_or(&[][..], |generation| &generation.logs);
    let archive = ArchiveMarks::new(current.iter().map(|log| LogId(log.id)));
    let answers = Mailbox::new();
    let follower = Arc::new(Bell::new());
    let (report_end, ended) = bounded(options.shards);
    let (mut rings, mut tails, mut threads, mut bells) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut partitions, mut reports) = (Vec::new(), Vec::new());
    for (index, shard) in recovered.into_iter().enumerate() {
        let bell = Arc::new(Bell::new());
        let ring = Arc::new(Ring::new(options.ring_capacity, bell.clone()));
        let tail = Arc::new(Tail::new(shard.recovered.last_sequence, follower.clone()));
        rings.push(ring.clone());
        tails.push(tail.clone());
        bells.push(bell.clone());
        partitions.push(u32::from(shard.log.partitions.start)..u32::from(shard.log.partitions.end));
        metrics[index].recovered_events.set(shard.report.events_replayed);
        metrics[index].recovery_micros.set(shard.report.took.as_micros() as u64);
        reports.push(shard.report.clone());
        let parts = Parts {
            index,
            shard,
            folder: folder.clone(),
            ring,
            gate: gate.clone(),
            answers: answers.clone(),
            metrics: metrics[index].clone(),
            tail,
            bell,
            archive: archive.clone(),
            ids: ids.clone(),
            options: options.clone(),
        };
        let report_end = report_end.clone();
        let (ready, is_ready) = bounded::<()>(1);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(move || parts.run(ready));
                let outcome = match std::panic::catch_unwind(run) {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(panic) => Err(panic_message(&*panic)),
                };
                let _node_gone = report_end.send((index, outcome));
            })
            .map_err(Error::Thread)?;
        threads.push(thread);
        if is_ready.recv().is_err() {
            let (shard, outcome) = ended.recv().expect("a shard that is not ready says why");
            // Those before it run already, and hold the folder.
            gate.finish();
            bells.iter().for_each(|bell| bell.ring());
            threads.into_iter().for_each(|thread| drop(thread.join()));
            return Err(Error::Shard { shard, message: outcome.err().unwrap_or_default() });
        }
    }
    let logs: Vec<LogName> = meta
        .generations
        .iter()
        .flat_map(|generation| &generation.logs)
        .map(|log| LogName { ordinal: log.ordinal, id: LogId(log.id) })
        .collect();
    let full = FullReader::start(&options.data, meta.clone(), tails.clone()).map_err(Error::Thread)?;
    let batch_bytes_max = options.journal.frame_bytes_max - FRAME_HEADER_BYTES - BATCH_HEADER_BYTES;
    let vigil = Arc::new(Vigil::new(front_vigil(options.executor_options.spin_micros)));
    let shards = Shards::new(key, rings, partitions, logs, gate.clone(), full, ids, batch_bytes_max, vigil);
    let every_log = Logs::new(&options.data, &meta, &tails);
    let segments = Some(Segments::new(folder, every_log.clone()));
    let feed =
        Feed::start(options.data.clone(), meta.clone(), tails, follower, shards.clone()).map_err(Error::Thread)?;
    let (deployment, generation) = (meta.deployment, meta.current().map_or(0, |current| current.number));
    Ok(Started {
        shards,
        gate,
        feed,
        archive,
        logs: every_log,
        segments,
        answers,
        reports,
        deployment,
        generation,
        fresh,
        ended,
        threads,
        bells,
        _pool: pool,
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}

/// What moves to a shard's thread.
struct Parts<S: Storage> {
    index: usize,
    shard: RecoveredShard,
    folder: Folder<S>,
    ring: Arc<Ring<Work>>,
    gate: Arc<Gate>,
    answers: Mailbox<Vec<Answer>>,
    metrics: Arc<ShardMetrics>,
    tail: Arc<Tail>,
    bell: Arc<Bell>,
    archive: ArchiveMarks,
    ids: Arc<IdFilter>,
    options: Options,
}

impl<S: Storage> Parts<S> {
    fn run(self, ready: crossbeam::channel::Sender<()>) -> Result<(), journal::Error> {
        let (executor, bell, mut executor_options) =
            (self.options.executor, self.bell.clone(), self.options.executor_options);
        if self.options.pin {
            executor_options.pin_core = Some(self.index);
        }
        match executor {
            Executor::Plain => {
                let core = self.core()?;
                let _start_gone = ready.send(());
                executor::run_plain(core, bell, executor_options)
            }
            Executor::Glommio => executor::run_glommio(
                move || {
                    let core = self.core()?;
                    let _start_gone = ready.send(());
                    Ok(core)
                },
                bell,
                executor_options,
            ),
        }
    }

    fn core(self) -> Result<Core<S>, journal::Error> {
        let RecoveredShard { engine, log: meta, recovered, newest, .. } = self.shard;
        let covered = recovered.snapshot_sequence;
        let storage = self.folder.storage();
        let writer = storage.writer().map_err(|source| journal::Error::Io {
            doing: "make a writer for",
            path: self.folder.dir().to_path_buf(),
            source,
        })?;
        let log = Log::start(&self.folder, &meta, &recovered, writer)?;
        let (folder, log_meta) = (self.folder.clone(), meta.clone());
        let (ids, ids_folder) = (self.ids.clone(), self.folder.clone());
        let snapshot = SnapshotRun::new(
            u32::from(meta.partitions.start)..u32::from(meta.partitions.end),
            self.options.snapshot,
            covered,
            self.bell.clone(),
            Box::new(move || SnapshotWriter::new(&folder, &log_meta)),
            Arc::new(move || ids.keep(&ids_folder)),
            Arc::new(|message| tracing::error!("snapshot not written, the journal still holds everything: {message}")),
        );
        let eviction = Eviction::new(self.index, meta.ordinal, self.archive, self.ids, self.options.decided_keep);
        Ok(Core::new(
            self.index,
            engine,
            log,
            meta.ordinal,
            self.ring,
            Clock::start(MachineTime::default(), newest, self.options.accept_clock),
            self.gate,
            self.answers,
            self.metrics,
            self.tail,
            snapshot,
            eviction,
        ))
    }
}
