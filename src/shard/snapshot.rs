//! Snapshots while the shard works: a slice a turn, written by a thread of its own.
//!
//! A slice is one partition as it stands at the newest sequence appended. It may run ahead of what
//! is durable, so the snapshot is finished only once everything that it holds is, and the filter of
//! the ids that it no longer holds.

use super::id_filter::{IdFilter, NAMED_BY};
use crate::engine::Engine;
use crate::journal::{self, SnapshotWriter, Storage};
use crate::queue::Bell;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Slices on their way to the writer; beyond that the shard waits with the next one, not with votes.
const SLICES_UNDER_WAY: usize = 4;

/// When a snapshot starts by itself.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotOptions {
    pub tail_events_max: u64,
    pub tail_bytes_max: u64,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions { tail_events_max: 20_000_000, tail_bytes_max: 2 << 30 }
    }
}

type MakeWriter<S> = Box<dyn FnMut() -> Result<SnapshotWriter<S>, journal::Error> + Send>;

/// Makes the filter of ids durable as it is; answers with its number.
type KeepIds = Arc<dyn Fn() -> Result<u64, journal::Error> + Send + Sync>;

/// The shard's side.
pub struct SnapshotRun<S: Storage> {
    partitions: Range<u32>,
    options: SnapshotOptions,
    make: MakeWriter<S>,
    keep_ids: KeepIds,
    bell: Arc<Bell>,
    running: Option<Running>,
    /// Sequence at which the newest finished snapshot began.
    covered: u64,
    bytes_since: u64,
    failed: Arc<dyn Fn(String) + Send + Sync>,
}

struct Running {
    next: u32,
    began_at: u64,
    newest: u64,
    slices: Option<Sender<Slice>>,
    finished: Receiver<Result<(), String>>,
    thread: Option<JoinHandle<()>>,
    spare: Receiver<Vec<u8>>,
}

enum Slice {
    Partition {
        key: u32,
        sequence: u64,
        bytes: Vec<u8>,
    },
    /// Everything up to here is durable.
    Finish {
        durable: u64,
    },
}

impl<S: Storage> SnapshotRun<S> {
    /// `make` begins a snapshot file; `failed` is told when one could not be written (the journal
    /// still holds everything: the node goes on).
    pub fn new(
        partitions: Range<u32>,
        options: SnapshotOptions,
        covered: u64,
        bell: Arc<Bell>,
        make: MakeWriter<S>,
        keep_ids: KeepIds,
        failed: Arc<dyn Fn(String) + Send + Sync>,
    ) -> SnapshotRun<S> {
        SnapshotRun { partitions, options, make, bell, running: None, covered, bytes_since: 0, failed, keep_ids }
    }

    /// Whether the next slice can go out now.
    pub fn wants_turn(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            running.next < self.partitions.end && running.slices.as_ref().is_some_and(|slices| !slices.is_full())
        })
    }

    /// In each turn, after its events are applied and appended.
    pub fn turn(&mut self, engine: &Engine, appended: u64) {
        if !self.wants_turn() {
            return;
        }
        let running = self.running.as_mut().expect("wants_turn");
        let mut bytes = running.spare.try_recv().unwrap_or_default();
        bytes.clear();
        engine.write_partition(running.next, &mut bytes);
        let slice = Slice::Partition { key: running.next, sequence: appended, bytes };
        running.next += 1;
        running.newest = appended;
        if let Some(slices) = &running.slices {
            // Not full (looked above, and nobody else sends); gone when the writer failed.
            let _writer_failed = slices.try_send(slice);
        }
    }

    /// The sequence that the newest one covers; 0: there is none.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// After each commit: starts one when the tail is long enough, finishes one when all it holds is durable.
    /// Whether one was completed.
    #[must_use]
    pub fn committed(&mut self, durable: u64) -> bool {
        let mut completed = false;
        match &mut self.running {
            None => {
                let long = durable.saturating_sub(self.covered) >= self.options.tail_events_max
                    || self.bytes_since >= self.options.tail_bytes_max;
                if long {
                    self.start(durable);
                }
            }
            Some(running) => {
                if running.next == self.partitions.end && durable >= running.newest && running.slices.is_some() {
                    let slices = running.slices.take().expect("looked");
                    // Waits at most for slices under way; the channel has a place for it or the writer is gone.
                    let _writer_failed = slices.send(Slice::Finish { durable });
                }
                match running.finished.try_recv() {
                    Err(TryRecvError::Empty) => {}
                    Ok(Ok(())) => {
                        self.covered = running.began_at;
                        completed = true;
                        self.end();
                    }
                    Ok(Err(message)) => {
                        (self.failed)(message);
                        self.covered = durable; // not at once again
                        self.end();
                    }
                    Err(TryRecvError::Disconnected) => {
                        (self.failed)("the snapshot's thread ended without a word".into());
                        self.covered = durable;
                        self.end();
                    }
                }
            }
        }
        completed
    }

    /// Bytes that a commit added to the journal.
    pub fn grew(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    fn start(&mut self, durable: u64) {
        let (slices, inbox) = bounded::<Slice>(SLICES_UNDER_WAY);
        let (done, finished) = bounded(1);
        let (give_back, spare) = bounded(SLICES_UNDER_WAY);
        let writer = match (self.make)() {
            Ok(writer) => writer,
            Err(error) => {
                (self.failed)(error.to_string());
                self.covered = durable;
                self.bytes_since = 0;
                return;
            }
        };
        let (bell, keep_ids) = (self.bell.clone(), self.keep_ids.clone());
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            let mut writer = writer;
            let outcome = loop {
                match inbox.recv() {
                    Ok(Slice::Partition { key, sequence, bytes }) => {
                        if let Err(error) = writer.slice(key, sequence, &bytes) {
                            break Some(Err(error.to_string()));
                        }
                        let _enough_spares = give_back.try_send(bytes);
                        bell.ring();
                    }
                    Ok(Slice::Finish { durable }) => {
                        break Some(finish(writer, durable, &*keep_ids).map_err(|error| error.to_string()));
                    }
                    // The node stops: the file is left for the next start to remove.
                    Err(_) => break None,
                }
            };
            if let Some(outcome) = outcome {
                let _shard_gone = done.send(outcome);
            }
        });
        match thread {
            Ok(thread) => {
                self.running = Some(Running {
                    next: self.partitions.start,
                    began_at: durable,
                    newest: durable,
                    slices: Some(slices),
                    finished,
                    thread: Some(thread),
                    spare,
                });
            }
            Err(error) => (self.failed)(format!("no thread for a snapshot: {error}")),
        }
        self.bytes_since = 0;
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Some(thread) = running.thread.take()
        {
            running.slices = None;
            let _panicked = thread.join();
        }
    }
}

/// What the slices no longer hold because it was forgotten must be durable in the filter before them.
fn finish<S: Storage>(
    mut writer: SnapshotWriter<S>,
    durable: u64,
    keep_ids: &dyn Fn() -> Result<u64, journal::Error>,
) -> Result<(), journal::Error> {
    name_filter(&mut writer, keep_ids()?)?;
    writer.finish(durable).map(|_summary| ())
}

/// Adds which filter a snapshot goes with, once there is one.
pub(super) fn name_filter<S: Storage>(writer: &mut SnapshotWriter<S>, number: u64) -> Result<(), journal::Error> {
    match number {
        0 => Ok(()),
        // At the newest slice's sequence: replay begins at the oldest one's.
        _ => writer.slice(NAMED_BY, writer.largest_sequence(), &IdFilter::name_for_snapshot(number)),
    }
}

impl<S: Storage> Drop for SnapshotRun<S> {
    fn drop(&mut self) {
        self.end();
    }
}
