//! Bringing shards back: snapshot, then the journal's tail, a thread a log; and carrying everything
//! over into a new generation of logs when the number of shards changed.

use super::Error;
use super::id_filter::{IdFilter, NAMED_BY};
use super::snapshot::name_filter;
use crate::engine::{Engine, Limits, Pool, Replayer};
use crate::journal::{self, BatchView, Folder, GenerationMeta, LogMeta, Recovered, SliceView, SnapshotWriter, Storage};
use crate::model::{Micros, PARTITIONS, PartitionKey};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One log, recovered.
pub struct RecoveredShard {
    pub engine: Engine,
    pub log: LogMeta,
    pub recovered: Recovered,
    /// The newest time in snapshot or journal.
    pub newest: Micros,
    pub report: ShardReport,
}

/// What a person wants to know of a recovery.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    pub approvals_from_snapshot: u64,
    pub events_replayed: u64,
    pub bytes_read: u64,
    pub torn_tail: Option<String>,
    pub took: Duration,
}

/// The hash of the folder's partitions.
pub fn partition_key<S: Storage>(folder: &Folder<S>) -> PartitionKey {
    let secret: [u8; 16] = folder.meta().secret[..16].try_into().expect("half of 32 bytes");
    PartitionKey::new(secret)
}

/// Recovers the newest generation with as many shards as asked for.
pub fn recover_all<S: Storage>(
    folder: &Folder<S>,
    shards: usize,
    limits: &Limits,
    pool: &Arc<Pool>,
    ids: &IdFilter,
) -> Result<Vec<RecoveredShard>, Error> {
    let Some(generation) = folder.meta().current().cloned() else {
        let fresh = folder.prepare_generation(shards as u16)?;
        folder.commit_generation(&fresh, &[])?;
        return recover_generation(folder, &fresh, limits, pool, ids);
    };
    let recovered = recover_generation(folder, &generation, limits, pool, ids)?;
    if recovered.len() == shards {
        return Ok(recovered);
    }
    // Another number of shards: the old generation is sealed, and the next begins from its state.
    let fresh = folder.prepare_generation(shards as u16)?;
    for log in &fresh.logs {
        let mut writer = SnapshotWriter::new(folder, log)?;
        let mut bytes = Vec::new();
        for partition in log.partitions.clone() {
            let owner = recovered.iter().find(|old| old.log.partitions.contains(&partition));
            let owner = owner.expect("a generation's logs cover all partitions");
            bytes.clear();
            owner.engine.write_partition(u32::from(partition), &mut bytes);
            // True before the new log's first event.
            writer.slice(u32::from(partition), 0, &bytes)?;
        }
        // What was forgotten before and did not come back is in it.
        name_filter(&mut writer, ids.kept_number())?;
        writer.finish(0)?;
    }
    let sealed: Vec<(u16, u64)> = recovered.iter().map(|old| (old.log.ordinal, old.recovered.last_sequence)).collect();
    folder.commit_generation(&fresh, &sealed)?;
    drop(recovered);
    recover_generation(folder, &fresh, limits, pool, ids)
}

fn recover_generation<S: Storage>(
    folder: &Folder<S>,
    generation: &GenerationMeta,
    limits: &Limits,
    pool: &Arc<Pool>,
    ids: &IdFilter,
) -> Result<Vec<RecoveredShard>, Error> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = generation
            .logs
            .iter()
            .map(|log| scope.spawn(move || recover_log(folder, log, limits, pool, ids)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("recovery of a log")).collect()
    })
}

fn recover_log<S: Storage>(
    folder: &Folder<S>,
    log: &LogMeta,
    limits: &Limits,
    pool: &Arc<Pool>,
    ids: &IdFilter,
) -> Result<RecoveredShard, Error> {
    let began = Instant::now();
    let key = partition_key(folder);
    // Both callbacks of the journal work on it, in turn.
    let engine = std::cell::RefCell::new(Engine::with_pool(key, limits.clone(), pool));
    let held = std::cell::RefCell::new(vec![0u64; PARTITIONS as usize]);
    let mut replayer = Replayer::new(log.ordinal);
    let mut newest = Micros(0);
    let mut report = ShardReport::default();
    let mut replay = (
        |slice: SliceView<'_>| {
            if slice.key == NAMED_BY {
                return ids.check_named(slice.bytes);
            }
            engine.borrow_mut().read_partition(slice.bytes).map_err(|error| error.to_string())?;
            held.borrow_mut()[slice.key as usize] = slice.sequence;
            Ok(())
        },
        |batch: BatchView<'_>| {
            newest = newest.max(Micros(batch.now_micros));
            report.events_replayed += u64::from(batch.events);
            let (held, mut engine) = (held.borrow(), engine.borrow_mut());
            if batch.segment_start {
                replayer.segment_started(&mut engine);
            }
            replayer
                .apply_batch(&mut engine, batch.first_sequence, batch.payload, |partition| held[partition as usize])
                .map(|_next| ())
                .map_err(|error| error.to_string())
        },
    );
    let recovered = journal::recover(folder, log, &mut replay)?;
    let mut engine = engine.into_inner();
    replayer.segment_started(&mut engine);
    report.bytes_read = recovered.bytes_read;
    report.torn_tail = recovered.torn.as_ref().map(|torn| format!("{} at byte {}", torn.file.display(), torn.offset));
    report.approvals_from_snapshot = engine.counters().approvals as u64;
    report.took = began.elapsed();
    let newest = newest.max(engine.latest());
    Ok(RecoveredShard { engine, log: log.clone(), recovered, newest, report })
}
